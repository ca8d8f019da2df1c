"""Puts this folder on the import path, where `oracles` is, and keeps hypothesis from writing files."""

from __future__ import annotations

import pytest
from hypothesis import settings
from oracles import build_model

settings.register_profile("qdeq", deadline=None, derandomize=True, database=None)
settings.load_profile("qdeq")


@pytest.fixture(scope="session", params=["amplitude", "angle", "circuit"])
def contraction_model(request):
    """A three-qubit model whose map is a contraction, one per kind of encoder."""
    return build_model(request.param, state_scale=0.3)
