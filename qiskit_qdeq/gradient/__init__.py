"""Gradients: the implicit function theorem, explicit layers, and Jacobian regularization."""

from __future__ import annotations

from qiskit_qdeq.gradient.direct import DirectPass, direct_pass
from qiskit_qdeq.gradient.implicit import BACKWARD_MODES, Backward, implicit_term, solve_adjoint
from qiskit_qdeq.gradient.outputs import OutputSlopes, output_slopes
from qiskit_qdeq.gradient.regularization import Regularization

__all__ = [
    "BACKWARD_MODES",
    "Backward",
    "DirectPass",
    "OutputSlopes",
    "Regularization",
    "direct_pass",
    "implicit_term",
    "output_slopes",
    "solve_adjoint",
]
