"""The adjoint equation (1 - Jᵀ) λ = c of every sample of a batch, K unknowns each, compiled."""

from __future__ import annotations

from typing import Any

import numpy as np

from qiskit_qdeq.evaluation.lanes import lane_kernels

Array = np.ndarray[Any, np.dtype[Any]]


def solve_adjoint(jacobian: Array, cotangent: Array) -> Array:
    """(1 - J_bᵀ)⁻¹ c_b for every sample: (B, K, K), (B, K) -> (B, K); NaN where the matrix is singular."""
    out = np.empty_like(cotangent)
    kernels = lane_kernels(cotangent.shape[1])
    kernels.solve_adjoint(np.ascontiguousarray(jacobian), np.ascontiguousarray(cotangent), out)
    return out
