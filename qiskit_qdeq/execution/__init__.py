"""Runs circuits on estimator primitives: the only package that knows primitives, simulators and IBM's service."""

from __future__ import annotations

from qiskit_qdeq.execution.limits import Limits
from qiskit_qdeq.execution.runner import CircuitRunner, Measurement, Request
from qiskit_qdeq.execution.seeding import SeededEstimator, has_frozen_noise

__all__ = [
    "CircuitRunner",
    "Limits",
    "Measurement",
    "Request",
    "SeededEstimator",
    "has_frozen_noise",
]
