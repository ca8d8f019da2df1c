"""Compiled loops over small systems of K unknowns, one for every sample, `LANES` samples at once.

Arrays have the batch last, its length a multiple of `LANES`; working rows of one group of samples lie in one flat array.
"""

from __future__ import annotations

import numba
import numpy as np

from qiskit_qdeq.evaluation.jit import JIT
from qiskit_qdeq.evaluation.vectors import LANES, load, splat, sqrt, store, total, where

#: Pivot below which elimination without exchanges is not trusted and the system is solved again with them.
_SMALL_PIVOT = 1e-3
_LARGEST = float(np.finfo(float).max)


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


@numba.njit(inline="always")  # type: ignore[misc]
def _evaluate(a, linear, quadratic, norms, norm_linear, norm_quad, first, q, at_zero, m, jac, slope):  # type: ignore[no-untyped-def]
    """Rows m and jac from rows q, which are zero if `at_zero`; returns d, ‖m - q‖², ‖m‖²."""
    size, batch = a.shape
    zero = splat(0.0)
    d = load(norms, first)
    for k in range(size):
        s = zero
        if not at_zero:
            for l in range(size):  # noqa: E741
                x = norm_quad[k, l]
                if x != 0.0:
                    s += x * load(q, l * LANES)
        v = load(norm_linear, k * batch + first)
        d += (v + s) * load(q, k * LANES)
        store(slope, k * LANES, v + 2.0 * s)
    inverse = 1.0 / d
    gap2, length2 = zero, zero
    for j in range(size):
        value = load(a, j * batch + first)
        for k in range(size):
            s = zero
            if not at_zero:
                for l in range(size):  # noqa: E741
                    s += quadratic[j, k, l] * load(q, l * LANES)
            v = load(linear, (j * size + k) * batch + first)
            value += (v + s) * load(q, k * LANES)
            store(jac, (j * size + k) * LANES, v + 2.0 * s)
        value *= inverse
        store(m, j * LANES, value)
        gap = value - load(q, j * LANES)
        gap2 += gap * gap
        length2 += value * value
        for k in range(size):
            at = (j * size + k) * LANES
            store(jac, at, (load(jac, at) - value * load(slope, k * LANES)) * inverse)
    return d, gap2, length2


@numba.njit(**JIT)  # type: ignore[misc]
def linearize(a, linear, quadratic, norms, norm_linear, norm_quad, state, values, jacobian):  # type: ignore[no-untyped-def]
    """m (K, B) and ∂m/∂q (K · K, B) at `state` (K, B)."""
    size, batch = a.shape
    q, m, slope = np.empty(size * LANES), np.empty(size * LANES), np.empty(size * LANES)
    jac = np.empty(size * size * LANES)
    for first in range(0, batch, LANES):
        for k in range(size):
            store(q, k * LANES, load(state, k * batch + first))
        _evaluate(a, linear, quadratic, norms, norm_linear, norm_quad, first, q, False, m, jac, slope)
        for k in range(size):
            store(values, k * batch + first, load(m, k * LANES))
        for k in range(size * size):
            store(jacobian, k * batch + first, load(jac, k * LANES))


@numba.njit(**JIT)  # type: ignore[misc]
def newton(  # type: ignore[no-untyped-def]
    a, linear, quadratic, norms, norm_linear, norm_quad,
    state, begin, end, tol, rtol, max_steps, shortenings, trace, final, counts, jacobian, norms_out,
):  # fmt: skip
    """Shortened Newton steps from `state` (K, B), which becomes the solution; see `RationalQuadratic.newton`.

    A lane is `running` (1 or 0) until its sample is done; its q then stays, so that the last evaluation is at the solution.
    """
    size, batch = a.shape
    zero, one = splat(0.0), splat(1.0)
    q, m, slope = np.empty(size * LANES), np.empty(size * LANES), np.empty(size * LANES)
    accepted, step = np.empty(size * LANES), np.zeros(size * LANES)
    jac, lu, rhs = np.empty(size * size * LANES), np.empty(2 * size * size * LANES), np.empty(2 * size * LANES)
    matrix, vector, note = np.empty((size, size)), np.empty(size), np.empty(3 * LANES)
    for first in range(begin, end, LANES):
        at_zero = True
        for k in range(size):
            start = load(state, k * batch + first)
            store(q, k * LANES, start)
            store(accepted, k * LANES, start)
            store(step, k * LANES, zero)
        for i in range(size * LANES):
            at_zero = at_zero and q[i] == 0.0
        best, length, running = splat(np.inf), one, one
        steps, evaluations, status = zero, zero, zero
        initial, stale = True, False
        while True:
            d, gap2, length2 = _evaluate(
                a, linear, quadratic, norms, norm_linear, norm_quad, first, q, at_zero, m, jac, slope
            )
            if total(running) == 0:
                break
            at_zero = False
            now = sqrt(gap2)
            evaluations += running
            taken = running
            if not initial:
                taken = where(now, (1.0 - 1e-4 * length) * best, running, zero)
                steps += taken
            initial = False
            if len(trace) > 0:
                store(note, 0, taken)
                store(note, LANES, steps)
                store(note, 2 * LANES, now)
                for c in range(LANES):
                    if note[c] > 0:
                        trace[int(note[LANES + c]), first + c] = note[2 * LANES + c]
            best = where(one, taken, now, best)
            length = where(one, taken, one, 0.25 * length)
            refused = running - taken
            # of several reasons to end the first counts: not finite, converged, out of steps
            bound = splat(tol)
            if rtol > 0:
                relative = rtol * sqrt(length2)
                bound = where(bound, relative, relative, bound)
            reason = where(splat(float(max_steps)), steps, one, splat(-1.0))
            reason = where(now, bound, zero, reason)
            reason = where(now, splat(_LARGEST), reason, splat(3.0))
            ended = where(one, taken, where(zero, reason, one, zero), zero)
            status = where(one, ended, reason, status)
            stalled = where(length, splat(0.5 * 0.25**shortenings), refused, zero)
            status = where(one, stalled, splat(2.0), status)
            running -= ended + stalled
            stale = stale or total(stalled) > 0
            for j in range(size):
                kept = where(one, taken, load(q, j * LANES), load(accepted, j * LANES))
                store(accepted, j * LANES, kept)
                store(q, j * LANES, kept)
            if total(running) == 0:
                if stale:
                    # the last evaluation of a stalled sample was at a refused point
                    continue
                break
            for j in range(size):
                for k in range(size):
                    at = (j * size + k) * LANES
                    store(lu, at, zero - load(jac, at))
                at = (j * size + j) * LANES
                store(lu, at, load(lu, at) + one)
                store(rhs, j * LANES, load(m, j * LANES) - load(q, j * LANES))
            solve_rows(lu, rhs, matrix, vector)
            for j in range(size):
                move = where(one, taken, load(rhs, j * LANES), load(step, j * LANES))
                kept = load(accepted, j * LANES)
                store(step, j * LANES, move)
                store(q, j * LANES, where(one, running, kept + length * move, kept))
        store(final, first, best)
        store(norms_out, first, d)
        store(counts, first, steps)
        store(counts, batch + first, evaluations)
        store(counts, 2 * batch + first, status)
        for j in range(size):
            store(state, j * batch + first, load(accepted, j * LANES))
        for j in range(size * size):
            store(jacobian, j * batch + first, load(jac, j * LANES))


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
