from __future__ import annotations

import sys

import matplotlib as mpl
import pytest

from qiskit_qdeq.presets import model_config


@pytest.fixture(autouse=True)
def nothing_global_changes():
    """No picture leaves a pyplot figure open or a matplotlib setting changed."""
    before = dict(mpl.rcParams)
    yield
    assert dict(mpl.rcParams) == before
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()


@pytest.fixture(scope="session")
def model():
    # angle encoding: the closed form of amplitude encoding is compiled for each number of states
    return model_config("default", 4, 2, 2, encoding="angle", state_scale=0.4).build()


@pytest.fixture(scope="session")
def parameters(model):
    return model.initial_parameters(3)
