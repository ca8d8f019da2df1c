"""Compiled loops over `LANES` samples at once for systems of K unknowns, K fixed when compiled.

All working rows of a group of samples live in one flat array, row r of lane c at r · LANES + c. With K and LANES constants
every offset is one too, so the compiler proves that rows do not overlap and turns each loop over lanes into vector
instructions; that, not the arithmetic, is what makes a solve of 256 small systems take microseconds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numba
import numpy as np

from qiskit_qdeq.evaluation.jit import JIT

LANES = 32
#: Terms of a product that are added in one vector loop; the rows of C are padded to a multiple of it.
BLOCK = 4
#: Largest K that is fixed when compiling; beyond it unrolled code takes long to compile and gains nothing.
_LARGEST_FIXED = 6
#: Pivot below which elimination without exchanges is not trusted and the system is solved again with them.
_SMALL_PIVOT = 1e-3


@dataclass(frozen=True)
class LaneKernels:
    """The compiled routines for one K; see `RationalQuadratic` for the first two."""

    linearize: Callable[..., None]
    newton: Callable[..., None]
    solve_adjoint: Callable[..., None]
    backward: Callable[..., None]


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
def _rows(size):  # type: ignore[no-untyped-def]
    """First rows of: a, lin, norm, norm_lin, q, m, jac, slope, lu, rhs, r2, m2, pivot, d; and the number of rows."""
    width = -(-size // BLOCK) * BLOCK
    norm_lin = size + size * size + 1
    m = norm_lin + size + width  # q has zero rows up to `width`
    lu = m + size + size * size + size
    r2 = lu + size * size + size
    return (
        0, size, norm_lin - 1, norm_lin, norm_lin + size, m, m + size, lu - size, lu, r2 - size,
        r2, r2 + 1, r2 + 2, r2 + 3, r2 + 4,
    )  # fmt: skip


@numba.njit(inline="always")  # type: ignore[misc]
def _load(t, a, linear, norms, norm_linear, lane, b, k_):  # type: ignore[no-untyped-def]
    a_, lin, norm, norm_lin, _, _, _, _, _, _, _, _, _, _, _ = _rows(k_)
    t[norm * LANES + lane] = norms[b]
    for j in range(k_):
        t[(a_ + j) * LANES + lane] = a[j, b]
        t[(norm_lin + j) * LANES + lane] = norm_linear[j, b]
        for k in range(k_):
            t[(lin + j * k_ + k) * LANES + lane] = linear[j * k_ + k, b]


@numba.njit(inline="always")  # type: ignore[misc]
def _evaluate(t, quadratic, norm_quad, at_zero, k_):  # type: ignore[no-untyped-def]
    """Rows m, jac, d, r2 = ‖m - q‖², m2 = ‖m‖² from row q; `at_zero` says that row q is zero."""
    a_, lin, norm, norm_lin, q, m, jac, slope, _, _, r2, m2, pivot, d_, _ = _rows(k_)
    for c in range(LANES):
        t[r2 * LANES + c] = t[norm * LANES + c]
    for k in range(k_):
        for c in range(LANES):
            t[pivot * LANES + c] = 0.0
        for l in range(k_):  # noqa: E741
            x = norm_quad[k, l]
            if x != 0.0:
                for c in range(LANES):
                    t[pivot * LANES + c] += x * t[(q + l) * LANES + c]
        for c in range(LANES):
            v = t[(norm_lin + k) * LANES + c]
            s = t[pivot * LANES + c]
            t[r2 * LANES + c] += (v + s) * t[(q + k) * LANES + c]
            t[(slope + k) * LANES + c] = v + 2 * s
    for j in range(k_):
        for c in range(LANES):
            t[(m + j) * LANES + c] = t[(a_ + j) * LANES + c]
        for k in range(k_):
            for c in range(LANES):
                t[pivot * LANES + c] = 0.0
            for block in range(0, 0 if at_zero else m - q, BLOCK):
                c0, c1 = quadratic[j, k, block], quadratic[j, k, block + 1]
                c2, c3 = quadratic[j, k, block + 2], quadratic[j, k, block + 3]
                for c in range(LANES):
                    t[pivot * LANES + c] += (
                        c0 * t[(q + block) * LANES + c]
                        + c1 * t[(q + block + 1) * LANES + c]
                        + c2 * t[(q + block + 2) * LANES + c]
                        + c3 * t[(q + block + 3) * LANES + c]
                    )
            for c in range(LANES):
                s = t[pivot * LANES + c]
                v = t[(lin + j * k_ + k) * LANES + c]
                t[(m + j) * LANES + c] += (v + s) * t[(q + k) * LANES + c]
                t[(jac + j * k_ + k) * LANES + c] = v + 2 * s
    for c in range(LANES):
        t[d_ * LANES + c] = t[r2 * LANES + c]
        inverse = 1.0 / t[r2 * LANES + c]
        total, length = 0.0, 0.0
        for j in range(k_):
            value = t[(m + j) * LANES + c] * inverse
            t[(m + j) * LANES + c] = value
            gap = value - t[(q + j) * LANES + c]
            total += gap * gap
            length += value * value
            for k in range(k_):
                position = (jac + j * k_ + k) * LANES + c
                t[position] = (t[position] - value * t[(slope + k) * LANES + c]) * inverse
        t[r2 * LANES + c] = total
        t[m2 * LANES + c] = length


@numba.njit(inline="always")  # type: ignore[misc]
def _eliminate(t, k_):  # type: ignore[no-untyped-def]
    """Row rhs <- lu⁻¹ rhs without exchanges; row pivot <- the smallest pivot."""
    _, _, _, _, _, _, _, _, lu, rhs, _, _, pivot, _, _ = _rows(k_)
    for c in range(LANES):
        smallest = np.inf
        for p in range(k_):
            x = t[(lu + p * k_ + p) * LANES + c]
            smallest = min(smallest, abs(x))
            inverse = 1.0 / x
            for r in range(p + 1, k_):
                factor = t[(lu + r * k_ + p) * LANES + c] * inverse
                for k in range(p + 1, k_):
                    t[(lu + r * k_ + k) * LANES + c] -= factor * t[(lu + p * k_ + k) * LANES + c]
                t[(rhs + r) * LANES + c] -= factor * t[(rhs + p) * LANES + c]
        for p in range(k_ - 1, -1, -1):
            v = t[(rhs + p) * LANES + c]
            for k in range(p + 1, k_):
                v -= t[(lu + p * k_ + k) * LANES + c] * t[(rhs + k) * LANES + c]
            t[(rhs + p) * LANES + c] = v / t[(lu + p * k_ + p) * LANES + c]
        t[pivot * LANES + c] = smallest


@numba.njit(inline="always")  # type: ignore[misc]
def _direction(t, matrix, vector, k_):  # type: ignore[no-untyped-def]
    """Row rhs <- (1 - J)⁻¹ (m - q)."""
    _, _, _, _, q, m, jac, _, lu, rhs, _, _, pivot, _, _ = _rows(k_)
    for c in range(LANES):
        for j in range(k_):
            for k in range(k_):
                t[(lu + j * k_ + k) * LANES + c] = -t[(jac + j * k_ + k) * LANES + c]
            t[(lu + j * k_ + j) * LANES + c] += 1.0
            t[(rhs + j) * LANES + c] = t[(m + j) * LANES + c] - t[(q + j) * LANES + c]
    _eliminate(t, k_)
    for c in range(LANES):
        if not t[pivot * LANES + c] > _SMALL_PIVOT:
            for j in range(k_):
                for k in range(k_):
                    matrix[j, k] = -t[(jac + j * k_ + k) * LANES + c]
                matrix[j, j] += 1.0
                vector[j] = t[(m + j) * LANES + c] - t[(q + j) * LANES + c]
            _solve_with_pivoting(matrix, vector)
            for j in range(k_):
                t[(rhs + j) * LANES + c] = vector[j]


@lru_cache(maxsize=64)
def lane_kernels(size: int) -> LaneKernels:
    """The routines for K = `size`, compiled at first use and cached on disk."""
    return _compile(size if size <= _LARGEST_FIXED else 0)


@lru_cache(maxsize=16)
def _compile(fixed: int) -> LaneKernels:
    """The routines with K fixed, or for any K where `fixed` is 0.

    They may capture nothing but this integer: a captured function would give them another cache key in every process.
    """

    @numba.njit(**JIT)  # type: ignore[misc]
    def linearize(a, linear, quadratic, norms, norm_linear, norm_quad, state, rows, values, jacobian):  # type: ignore[no-untyped-def]
        k_ = fixed if fixed > 0 else state.shape[1]
        _, _, _, _, q, m, jac, _, _, _, _, _, _, _, rows_ = _rows(k_)
        t = np.ones(rows_ * LANES)
        for first in range(0, len(rows), LANES):
            count = min(LANES, len(rows) - first)
            for i in range(q * LANES, m * LANES):
                t[i] = 0.0
            for c in range(count):
                _load(t, a, linear, norms, norm_linear, c, rows[first + c], k_)
                for j in range(k_):
                    t[(q + j) * LANES + c] = state[first + c, j]
            _evaluate(t, quadratic, norm_quad, False, k_)
            for c in range(count):
                for j in range(k_):
                    values[first + c, j] = t[(m + j) * LANES + c]
                    for k in range(k_):
                        jacobian[first + c, j, k] = t[(jac + j * k_ + k) * LANES + c]

    @numba.njit(**JIT)  # type: ignore[misc]
    def newton(  # type: ignore[no-untyped-def]
        a, linear, quadratic, norms, norm_linear, norm_quad,
        state, begin, end, tol, rtol, max_steps, shortenings, trace, final, counts, jacobian, norms_out,
    ):  # fmt: skip
        k_ = fixed if fixed > 0 else state.shape[1]
        _, _, _, _, q, m, jac, _, _, rhs, r2, m2, _, d_, rows_ = _rows(k_)
        t = np.ones(rows_ * LANES)
        accepted = np.zeros(k_ * LANES)
        step = np.empty(k_ * LANES)
        residual, length = np.empty(LANES), np.empty(LANES)
        keep_trace = len(trace) > 0
        running = np.empty(LANES, np.bool_)
        matrix, vector = np.empty((k_, k_)), np.empty(k_)
        for first in range(begin, end, LANES):
            count = min(LANES, end - first)
            for i in range(q * LANES, m * LANES):
                t[i] = 0.0
            for c in range(LANES):
                running[c] = False
            for c in range(count):
                _load(t, a, linear, norms, norm_linear, c, first + c, k_)
                for j in range(k_):
                    t[(q + j) * LANES + c] = state[first + c, j]
                    accepted[j * LANES + c] = state[first + c, j]
                    step[j * LANES + c] = 0.0
                residual[c], length[c], running[c] = np.inf, 1.0, True
            left = count
            at_zero = True
            for i in range(k_ * LANES):
                at_zero = at_zero and accepted[i] == 0.0
            stale = False
            while True:
                _evaluate(t, quadratic, norm_quad, at_zero, k_)
                if left == 0:
                    break
                at_zero = False
                _direction(t, matrix, vector, k_)
                for c in range(count):
                    if not running[c]:
                        continue
                    b = first + c
                    now = np.sqrt(t[r2 * LANES + c])
                    initial = counts[1, b] == 0
                    counts[1, b] += 1
                    if initial or now <= (1 - 1e-4 * length[c]) * residual[c]:
                        counts[0, b] += 0 if initial else 1
                        if keep_trace:
                            trace[counts[0, b], b] = now
                        residual[c], length[c] = now, 1.0
                        for j in range(k_):
                            accepted[j * LANES + c] = t[(q + j) * LANES + c]
                            step[j * LANES + c] = t[(rhs + j) * LANES + c]
                        running[c] = False
                        if not np.isfinite(now):
                            counts[2, b] = 3
                        elif now <= max(tol, rtol * np.sqrt(t[m2 * LANES + c])):
                            counts[2, b] = 0
                        elif counts[0, b] == max_steps:
                            counts[2, b] = 1
                        else:
                            running[c] = True
                    else:
                        length[c] *= 0.25
                        if length[c] < 0.25**shortenings:
                            running[c] = False
                            stale = True
                            counts[2, b] = 2
                    for j in range(k_):
                        t[(q + j) * LANES + c] = accepted[j * LANES + c]
                        if running[c]:
                            t[(q + j) * LANES + c] += length[c] * step[j * LANES + c]
                    left -= 0 if running[c] else 1
                if left == 0 and not stale:
                    break
                # the last evaluation of a stalled sample was at a refused point: the loop ends after one more
            for c in range(count):
                norms_out[first + c] = t[d_ * LANES + c]
                final[first + c] = residual[c]
                for j in range(k_):
                    state[first + c, j] = accepted[j * LANES + c]
                    for k in range(k_):
                        jacobian[j * k_ + k, first + c] = t[(jac + j * k_ + k) * LANES + c]

    @numba.njit(**JIT)  # type: ignore[misc]
    def solve_adjoint_lanes(jacobian, cotangent, out):  # type: ignore[no-untyped-def]
        k_ = fixed if fixed > 0 else cotangent.shape[1]
        _, _, _, _, _, _, _, _, lu, rhs, _, _, pivot, _, rows_ = _rows(k_)
        t = np.ones(rows_ * LANES)
        matrix, vector = np.empty((k_, k_)), np.empty(k_)
        for first in range(0, len(cotangent), LANES):
            count = min(LANES, len(cotangent) - first)
            for c in range(count):
                for j in range(k_):
                    for k in range(k_):
                        t[(lu + j * k_ + k) * LANES + c] = -jacobian[first + c, k, j]
                    t[(lu + j * k_ + j) * LANES + c] += 1.0
                    t[(rhs + j) * LANES + c] = cotangent[first + c, j]
            _eliminate(t, k_)
            for c in range(count):
                if t[pivot * LANES + c] > _SMALL_PIVOT:
                    for j in range(k_):
                        out[first + c, j] = t[(rhs + j) * LANES + c]
                    continue
                for j in range(k_):
                    for k in range(k_):
                        matrix[j, k] = -jacobian[first + c, k, j]
                    matrix[j, j] += 1.0
                    vector[j] = cotangent[first + c, j]
                _solve_with_pivoting(matrix, vector)
                for j in range(k_):
                    out[first + c, j] = vector[j]

    @numba.njit(**JIT)  # type: ignore[misc]
    def backward(  # type: ignore[no-untyped-def]
        columns, pulled, injected, table, jacobian, state, overlap, gram, scale, norms, begin, end, adjoint,
    ):  # fmt: skip
        """ḡ, λ = (1 - Jᵀ)⁻¹ ḡ, and pulled <- pulled + (Σ_j λ_j M_j φ) / d, for diagonal M_j given as a sign table."""
        k_ = fixed if fixed > 0 else state.shape[1]
        _, _, _, _, _, m, _, _, lu, rhs, _, _, pivot, _, rows_ = _rows(k_)
        t = np.ones(rows_ * LANES)
        matrix, vector = np.empty((k_, k_)), np.empty(k_)
        pattern = np.empty(LANES)
        dim = table.shape[1]
        for first in range(begin, end, LANES):
            count = min(LANES, end - first)
            for k in range(k_):
                for c in range(count):
                    t[(m + k) * LANES + c] = 0.0
            for row in range(2 * dim):
                for k in range(k_):
                    x = injected[row, k]
                    for c in range(count):
                        t[(m + k) * LANES + c] += x * pulled[row, first + c]
            for k in range(k_):
                for c in range(count):
                    total = overlap[k, first + c]
                    for l in range(k_):  # noqa: E741
                        total += gram[k, l] * state[first + c, l]
                    t[(m + k) * LANES + c] = 2.0 * (t[(m + k) * LANES + c] - scale[first + c] * total)
                    t[(rhs + k) * LANES + c] = t[(m + k) * LANES + c]
                    for j in range(k_):
                        t[(lu + k * k_ + j) * LANES + c] = -jacobian[j * k_ + k, first + c]
                    t[(lu + k * k_ + k) * LANES + c] += 1.0
            _eliminate(t, k_)
            for c in range(count):
                if not t[pivot * LANES + c] > _SMALL_PIVOT:
                    for j in range(k_):
                        for k in range(k_):
                            matrix[j, k] = -jacobian[k * k_ + j, first + c]
                        matrix[j, j] += 1.0
                        vector[j] = t[(m + j) * LANES + c]
                    _solve_with_pivoting(matrix, vector)
                    for j in range(k_):
                        t[(rhs + j) * LANES + c] = vector[j]
                inverse = 1.0 / norms[first + c]
                for j in range(k_):
                    adjoint[first + c, j] = t[(rhs + j) * LANES + c]
                    t[(m + j) * LANES + c] = t[(rhs + j) * LANES + c] * inverse
            for row in range(dim):
                for c in range(LANES):
                    pattern[c] = 0.0
                for k in range(k_):
                    x = table[k, row]
                    for c in range(count):
                        pattern[c] += x * t[(m + k) * LANES + c]
                for c in range(count):
                    pulled[row, first + c] += pattern[c] * columns[row, first + c]
                for c in range(count):
                    pulled[dim + row, first + c] += pattern[c] * columns[dim + row, first + c]

    return LaneKernels(linearize, newton, solve_adjoint_lanes, backward)
