"""Options take any real scalar, NumPy's included, and keep Python numbers, which JSON and checkpoints hold."""

from __future__ import annotations

import dataclasses
import json
from fractions import Fraction

import numpy as np
import pytest

from qiskit_qdeq.equilibrium import Anderson, Broyden, Newton, Picard, ScipyRoot
from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.gradient import Backward, Regularization
from qiskit_qdeq.training.config import TrainingConfig
from qiskit_qdeq.training.optimizers import SGD, Adam
from qiskit_qdeq.training.schedules import Cosine, Exponential, StepDecay

REALS = [
    (Newton, "tol"),
    (Newton, "rtol"),
    (Broyden, "tol"),
    (ScipyRoot, "tol"),
    (Anderson, "mixing"),
    (Picard, "damping"),
    (Backward, "tol"),
    (Backward, "residual_limit"),
    (lambda **options: Regularization("state", **options), "strength"),
    (TrainingConfig, "learning_rate"),
    (TrainingConfig, "weight_decay"),
    (TrainingConfig, "clip_norm"),
    (TrainingConfig, "dropout"),
    (Adam, "beta1"),
    (Adam, "weight_decay"),
    (SGD, "momentum"),
    (Cosine, "final"),
    (StepDecay, "factor"),
    (Exponential, "final"),
]
INTEGERS = [
    (Newton, "max_steps"),
    (Newton, "max_shortenings"),
    (Newton, "rescue_steps"),
    (Anderson, "memory"),
    (Backward, "terms"),
    (Backward, "max_steps"),
    (TrainingConfig, "layers"),
    (TrainingConfig, "epochs"),
    (TrainingConfig, "batch_size"),
    (TrainingConfig, "seed"),
    (Cosine, "warmup"),
    (StepDecay, "stages"),
]


@pytest.mark.parametrize("scalar", [np.float32(0.25), np.float64(0.25), np.float16(0.25), Fraction(1, 4), 0.25])
@pytest.mark.parametrize(("make", "name"), REALS)
def test_any_real_scalar_is_kept_as_a_float(make, name, scalar):
    made = make(**{name: scalar})
    assert type(getattr(made, name)) is float
    assert made == make(**{name: 0.25})
    fields = dataclasses.asdict(made)
    assert json.loads(json.dumps(fields)) == fields


@pytest.mark.parametrize("scalar", [np.int64(3), np.uint8(3), 3])
@pytest.mark.parametrize(("make", "name"), INTEGERS)
def test_any_integer_is_kept_as_an_int(make, name, scalar):
    made = make(**{name: scalar})
    assert type(getattr(made, name)) is int
    assert made == make(**{name: 3})


@pytest.mark.parametrize(
    "wrong", [True, np.bool_(True), "0.5", None, 0.5j, np.array([0.5]), np.nan, np.float32("inf"), -1, 10**400]
)
@pytest.mark.parametrize(("make", "name"), REALS)
def test_what_is_no_finite_real_in_range_is_refused_by_name(make, name, wrong):
    with pytest.raises(InputError, match=name):
        make(**{name: wrong})


@pytest.mark.parametrize("wrong", [True, np.bool_(True), 2.0, np.float64(2), "2", None, -1])
@pytest.mark.parametrize(("make", "name"), INTEGERS)
def test_what_is_no_integer_in_range_is_refused_by_name(make, name, wrong):
    with pytest.raises(InputError, match=name):
        make(**{name: wrong})
