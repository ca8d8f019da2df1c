"""Derivatives of every readout feature of every sample through the equilibrium, for losses of other libraries.

dh_f/dθ = ∂h_f/∂θ + λ_fᵀ ∂m/∂θ,      dh_f/du = ∂h_f/∂u + λ_fᵀ ∂m/∂u,      (1 - Jᵀ) λ_f = ∂h_f/∂q*
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from qiskit_qdeq.equilibrium.solution import Solution
from qiskit_qdeq.evaluation.protocol import EvaluationPoint
from qiskit_qdeq.gradient.implicit import Backward, adjoint_state

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class OutputSlopes:
    """dh/du (B, F, D) and dh/dθ (B, F, p); None where not asked for."""

    inputs: Array | None
    weights: Array | None


def output_slopes(
    point: EvaluationPoint, solution: Solution, backward: Backward, *, inputs: bool, weights: bool = True
) -> OutputSlopes:
    """Total derivatives of the readout features at an equilibrium.

    Args:
        point: the map at q*.
        solution: the forward solve, whose unsolved samples take λ = ∂h/∂q.
        backward: how λ is found.
        inputs, weights: what is wanted.

    Raises:
        ConvergenceError: if 1 - Jᵀ is singular for a sample, so that no gradient exists there.
        InputError: if a measured point has no derivative of every output by itself, see `Sampling.gradient_method`.
    """
    # asked for first: what measures them measures all the others in the same job
    by_weights = point.weight_slopes if weights else None
    by_inputs = point.input_slopes if inputs else None
    by_state = point.state_slopes
    size = by_state.shape[2]
    rows = [adjoint_state(point, row, backward, solution) for row in by_state[:, size:].swapaxes(0, 1)]
    adjoint = np.stack(rows, axis=1)

    def total(slopes: Array | None) -> Array | None:
        return None if slopes is None else slopes[:, size:] + adjoint @ slopes[:, :size]

    return OutputSlopes(total(by_inputs), total(by_weights))
