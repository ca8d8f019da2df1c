"""A four-qubit part of a fake device, loaded once."""

from __future__ import annotations

import pytest

from qiskit_qdeq.execution.devices import fake_backend, sub_device


@pytest.fixture(scope="session")
def torino():
    return fake_backend("torino")


@pytest.fixture(scope="session")
def device(torino):
    return sub_device(torino, 4)
