"""A four-qubit part of a fake device, loaded once; a service, a nursery and a run for the tests that kill one."""

from __future__ import annotations

import pytest

from qiskit_qdeq.execution.devices import fake_backend, sub_device


@pytest.fixture(scope="session")
def torino():
    return fake_backend("torino")


@pytest.fixture(scope="session")
def device(torino):
    return sub_device(torino, 4)


@pytest.fixture(scope="module")
def loopback():
    """A service in a process of its own."""
    from loopback import loopback_process

    with loopback_process('engine="random"') as service:
        yield service


@pytest.fixture(scope="module")
def forks(tmp_path_factory):
    """A nursery."""
    from nursery import nursery

    with nursery(tmp_path_factory.mktemp("nursery")) as opened:
        yield opened


@pytest.fixture(scope="module")
def reference(loopback, forks, tmp_path_factory):
    """The uninterrupted run; no mode changes what is measured."""
    from killed import Workshop

    shop = Workshop(forks, loopback, tmp_path_factory.mktemp("uninterrupted") / "run")
    shop.finish()
    result = shop.result()
    assert set(result.requests.values()) == {1}
    assert len(result.requests) == 11
    return result


@pytest.fixture
def workshop(loopback, forks, tmp_path):
    """A run to be killed."""
    from killed import Workshop

    return lambda mode="job", **options: Workshop(forks, loopback, tmp_path / "run", mode, **options)
