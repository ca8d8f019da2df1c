"""The adjoint equation (1 - Jᵀ) λ = c of every sample of a batch, K unknowns each, compiled."""

from __future__ import annotations

from typing import Any

import numpy as np

from qiskit_qdeq.evaluation import lanes
from qiskit_qdeq.evaluation.vectors import LANES

Array = np.ndarray[Any, np.dtype[Any]]


def solve_adjoint(jacobian: Array, cotangent: Array) -> Array:
    """(1 - J_bᵀ)⁻¹ c_b for every sample: (B, K, K), (B, K) -> (B, K); NaN where the matrix is singular."""
    batch, size = cotangent.shape
    rows = whole_groups(batch)
    matrices = np.ascontiguousarray(jacobian[rows].reshape(-1, size * size).T)
    sides = np.ascontiguousarray(cotangent[rows].T)
    out = np.empty(sides.shape)
    lanes.solve_adjoint(matrices, sides, out)
    return np.ascontiguousarray(out.T[:batch], dtype=cotangent.dtype)


def whole_groups(batch: int) -> Array | slice:
    """Index that fills a batch up to whole groups of lanes, with copies of its last sample."""
    if batch % LANES == 0:
        return slice(None)
    return np.minimum(np.arange(-(-batch // LANES) * LANES), batch - 1)
