"""Puts this folder on the import path, where `oracles` is; keeps hypothesis from writing files, and Ctrl-C working."""

from __future__ import annotations

import signal

import pytest
from hypothesis import settings
from oracles import build_model

settings.register_profile("qdeq", deadline=None, derandomize=True, database=None)
settings.load_profile("qdeq")

# under nohup or in a background job of a shell it is ignored, and by what tests start, too; tests of Ctrl-C send it
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", params=["amplitude", "angle", "circuit"])
def contraction_model(request):
    """A three-qubit model whose map is a contraction, one per kind of encoder."""
    return build_model(request.param, state_scale=0.3)
