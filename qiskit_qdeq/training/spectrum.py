"""How far from a contraction a model is where it is used: the spectral radius of J = ∂q'/∂q at its equilibria."""

from __future__ import annotations

from typing import Any

import numpy as np

from qiskit_qdeq.inference import predict
from qiskit_qdeq.model import QDEQModel
from qiskit_qdeq.training.config import TrainingConfig

Array = np.ndarray[Any, np.dtype[Any]]

_SAMPLES = 128


def spectral_radius(model: QDEQModel, parameters: Array, inputs: Array, config: TrainingConfig) -> float:
    """Median ρ(J) over the first 128 samples, at their equilibria (at the last layer's state in direct mode)."""
    inputs = inputs[:_SAMPLES]
    solver = None if config.mode == "direct" else config.solver
    found = predict(model, parameters, inputs, solver, layers=config.layers, on_failure="accept")
    weights, _, _ = model.split(parameters)
    jacobian = model.evaluator.bind(weights).map(inputs).at(found.state).jacobian
    return float(np.median(np.abs(np.linalg.eigvals(jacobian)).max(axis=1)))
