"""Quantum Deep Equilibrium Models, trained natively in Qiskit.

    q* = m(x + P q*; θ)

A shallow circuit's expectation values are fed back into its own input until they stop changing; a root solver finds that
state, the implicit function theorem its gradient (Schleich et al., NeurIPS 2024, arXiv:2410.23940).
"""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# who wants to read the log adds a handler; until then it is nowhere, not even its warnings
logging.getLogger(__name__).addHandler(logging.NullHandler())

if TYPE_CHECKING:
    from qiskit_qdeq.circuits import AmplitudeEncoder, AngleEncoder, CircuitEncoder, CircuitTemplate
    from qiskit_qdeq.classifier import QDEQClassifier
    from qiskit_qdeq.equilibrium import contraction, solve, solver
    from qiskit_qdeq.evaluation.sampling import Sampling
    from qiskit_qdeq.execution.copies import choose_copies
    from qiskit_qdeq.execution.description import Execution
    from qiskit_qdeq.execution.running import executed
    from qiskit_qdeq.model import QDEQModel
    from qiskit_qdeq.presets import model_config
    from qiskit_qdeq.regressor import QDEQRegressor
    from qiskit_qdeq.training.config import TrainingConfig
    from qiskit_qdeq.training.cost_estimate import estimate_cost
    from qiskit_qdeq.training.trainer import Trainer

# Resolved on first use: importing the package must not cost what one part of it needs (scikit-learn, numba).
_HOMES = {
    "AmplitudeEncoder": "circuits",
    "AngleEncoder": "circuits",
    "CircuitEncoder": "circuits",
    "CircuitTemplate": "circuits",
    "Execution": "execution.description",
    "QDEQClassifier": "classifier",
    "QDEQModel": "model",
    "QDEQRegressor": "regressor",
    "Sampling": "evaluation.sampling",
    "Trainer": "training.trainer",
    "TrainingConfig": "training.config",
    "choose_copies": "execution.copies",
    "contraction": "equilibrium",
    "estimate_cost": "training.cost_estimate",
    "executed": "execution.running",
    "model_config": "presets",
    "solve": "equilibrium",
    "solver": "equilibrium",
}

__all__ = [
    "AmplitudeEncoder",
    "AngleEncoder",
    "CircuitEncoder",
    "CircuitTemplate",
    "Execution",
    "QDEQClassifier",
    "QDEQModel",
    "QDEQRegressor",
    "Sampling",
    "Trainer",
    "TrainingConfig",
    "__version__",
    "choose_copies",
    "contraction",
    "estimate_cost",
    "executed",
    "model_config",
    "solve",
    "solver",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'qiskit_qdeq' has no attribute {name!r}")
    return getattr(importlib.import_module(f"qiskit_qdeq.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
