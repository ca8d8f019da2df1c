"""Compiled loops over small systems of K unknowns, one for every sample, `LANES` samples at once.

Arrays have the batch last, its length a multiple of `LANES`; working rows of one group of samples lie in one flat array.
"""

from __future__ import annotations

import numba
import numpy as np

from qiskit_qdeq.evaluation.jit import JIT
from qiskit_qdeq.evaluation.vectors import LANES, load, splat, store, total, where

#: Pivot below which elimination without exchanges is not trusted and the system is solved again with them.
_SMALL_PIVOT = 1e-3


@numba.njit(inline="always")  # type: ignore[misc]
def _solve_with_pivoting(matrix, rhs):  # type: ignore[no-untyped-def]
    """rhs <- matrix⁻¹ rhs by Gaussian elimination with partial pivoting; NaN where the matrix is singular."""
    size = len(rhs)
    for col in range(size):
        pivot = col
        for row in range(col + 1, size):
            if abs(matrix[row, col]) > abs(matrix[pivot, col]):
                pivot = row
        for k in range(size):
            matrix[col, k], matrix[pivot, k] = matrix[pivot, k], matrix[col, k]
        rhs[col], rhs[pivot] = rhs[pivot], rhs[col]
        # a zero pivot leaves infinities and NaN, which the caller looks for
        for row in range(col + 1, size):
            factor = matrix[row, col] / matrix[col, col]
            for k in range(col + 1, size):
                matrix[row, k] -= factor * matrix[col, k]
            rhs[row] -= factor * rhs[col]
    for col in range(size - 1, -1, -1):
        for k in range(col + 1, size):
            rhs[col] -= matrix[col, k] * rhs[k]
        rhs[col] /= matrix[col, col]


@numba.njit(inline="always")  # type: ignore[misc]
def solve_rows(lu, rhs, matrix, vector):  # type: ignore[no-untyped-def]
    """rhs <- lu⁻¹ rhs for the first K · K rows of lu and K of rhs; second halves, `matrix`, `vector` are room to work."""
    size = len(vector)
    # what elimination overwrites, for lanes that have to be solved again
    for i in range(size * size * LANES):
        lu[size * size * LANES + i] = lu[i]
    for i in range(size * LANES):
        rhs[size * LANES + i] = rhs[i]
    zero = splat(0.0)
    smallest = splat(np.inf)
    for p in range(size):
        pivot = load(lu, (p * size + p) * LANES)
        magnitude = where(zero, pivot, pivot, zero - pivot)
        smallest = where(smallest, magnitude, smallest, magnitude)
        inverse = 1.0 / pivot
        store(lu, (p * size + p) * LANES, inverse)
        for r in range(p + 1, size):
            factor = load(lu, (r * size + p) * LANES) * inverse
            for k in range(p + 1, size):
                at = (r * size + k) * LANES
                store(lu, at, load(lu, at) - factor * load(lu, (p * size + k) * LANES))
            store(rhs, r * LANES, load(rhs, r * LANES) - factor * load(rhs, p * LANES))
    for p in range(size - 1, -1, -1):
        value = load(rhs, p * LANES)
        for k in range(p + 1, size):
            value -= load(lu, (p * size + k) * LANES) * load(rhs, k * LANES)
        store(rhs, p * LANES, value * load(lu, (p * size + p) * LANES))
    # a NaN among the pivots counts as small
    doubtful = where(splat(_SMALL_PIVOT), smallest, zero, splat(1.0))
    if total(doubtful) > 0:
        store(lu, 0, doubtful)
        for c in range(LANES):
            if lu[c] > 0:
                for j in range(size):
                    for k in range(size):
                        matrix[j, k] = lu[(size * size + j * size + k) * LANES + c]
                    vector[j] = rhs[(size + j) * LANES + c]
                _solve_with_pivoting(matrix, vector)
                for j in range(size):
                    rhs[j * LANES + c] = vector[j]


@numba.njit(inline="always")  # type: ignore[misc]
def load_adjoint(lu, jacobian, first, size):  # type: ignore[no-untyped-def]
    """lu <- 1 - Jᵀ of the group at `first` from J (K · K, B)."""
    batch = jacobian.shape[1]
    zero, one = splat(0.0), splat(1.0)
    for j in range(size):
        for k in range(size):
            store(lu, (j * size + k) * LANES, zero - load(jacobian, (k * size + j) * batch + first))
        at = (j * size + j) * LANES
        store(lu, at, load(lu, at) + one)


@numba.njit(**JIT)  # type: ignore[misc]
def solve_adjoint(jacobian, cotangent, out):  # type: ignore[no-untyped-def]
    """out (K, B) <- (1 - Jᵀ)⁻¹ c for J (K · K, B) and c (K, B)."""
    size, batch = cotangent.shape
    lu, rhs = np.empty(2 * size * size * LANES), np.empty(2 * size * LANES)
    matrix, vector = np.empty((size, size)), np.empty(size)
    for first in range(0, batch, LANES):
        for j in range(size):
            store(rhs, j * LANES, load(cotangent, j * batch + first))
        load_adjoint(lu, jacobian, first, size)
        solve_rows(lu, rhs, matrix, vector)
        for j in range(size):
            store(out, j * batch + first, load(rhs, j * LANES))
