"""A whole Newton solve of q = m(q) for many samples, compiled, with the lanes and the map of `bloch_kernels`.

    (1 - J) δ = m - q,    q <- q + length · δ

A lane whose sample is done takes the next one, and the last samples move together: samples that need many steps cost little.
Helpers of `bloch_kernels` are inlined here; whoever edits them touches this file too, or Numba's cache keeps the old ones.
"""

from __future__ import annotations

import numba
import numpy as np

from qiskit_qdeq.evaluation.bloch_kernels import LANES, ORDERED_JIT, STEP, evaluate, workspace

#: Pivot below which elimination without exchanges is not trusted and the system is solved again with them.
_SMALL_PIVOT = 1e-3


@numba.njit(inline="always")  # type: ignore[misc]
def _solve_with_pivoting(matrix, rhs):  # type: ignore[no-untyped-def]
    """rhs <- matrix⁻¹ rhs by Gaussian elimination with partial pivoting; infinities and NaN where it is singular."""
    size = len(rhs)
    for col in range(size):
        pivot = col
        for row in range(col + 1, size):
            if abs(matrix[row, col]) > abs(matrix[pivot, col]):
                pivot = row
        for k in range(size):
            matrix[col, k], matrix[pivot, k] = matrix[pivot, k], matrix[col, k]
        rhs[col], rhs[pivot] = rhs[pivot], rhs[col]
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
def _newton_step(q, m, jac, lu, rhs, factor, pivot, matrix, vector, width):  # type: ignore[no-untyped-def]
    """Rows rhs <- (1 - J)⁻¹ (m - q)."""
    size = len(rhs)
    for j in range(size):
        for k in range(size):
            one = 1.0 if j == k else 0.0
            for c in range(width):
                lu[j * size + k, c] = one - jac[j * size + k, c]
        for c in range(width):
            rhs[j, c] = m[j, c] - q[j, c]
    for c in range(width):
        pivot[0, c] = np.inf
    for p in range(size):
        for c in range(width):
            x = abs(lu[p * size + p, c])
            pivot[0, c] = x if not x > pivot[0, c] else pivot[0, c]
            lu[p * size + p, c] = 1.0 / lu[p * size + p, c]
        for row in range(p + 1, size):
            for c in range(width):
                factor[0, c] = lu[row * size + p, c] * lu[p * size + p, c]
            for k in range(p + 1, size):
                for c in range(width):
                    lu[row * size + k, c] -= factor[0, c] * lu[p * size + k, c]
            for c in range(width):
                rhs[row, c] -= factor[0, c] * rhs[p, c]
    for back in range(size):
        p = size - 1 - back
        for k in range(p + 1, size):
            for c in range(width):
                rhs[p, c] -= lu[p * size + k, c] * rhs[k, c]
        for c in range(width):
            rhs[p, c] *= lu[p * size + p, c]
    for c in range(width):
        if not pivot[0, c] > _SMALL_PIVOT:
            for j in range(size):
                for k in range(size):
                    matrix[j, k] = (1.0 if j == k else 0.0) - jac[j * size + k, c]
                vector[j] = m[j, c] - q[j, c]
            _solve_with_pivoting(matrix, vector)
            for j in range(size):
                rhs[j, c] = vector[j]


@numba.njit(**ORDERED_JIT)  # type: ignore[misc]
def newton(  # type: ignore[no-untyped-def]
    axes, starts, slopes, moves, dims, slots, split, count, tensor, turned, base, state, begin, end,
    tol, rtol, max_steps, shortenings, trace, final, counts, values, jacobian,
):  # fmt: skip
    """Newton's method with shortened steps; a lane that is done takes the next sample. See `MultilinearForm.newton`."""
    size = slopes.shape[1]
    r, dr, angle, sine, cosine, left, right, work = workspace(dims, split, size, tensor, turned)
    q, here = np.zeros((size, LANES)), np.zeros((len(axes), LANES))
    m, jac = np.zeros((size, LANES)), np.zeros((size * size, LANES))
    lu, rhs = np.ones((size * size, LANES)), np.zeros((size, LANES))
    factor, pivot = np.zeros((1, LANES)), np.zeros((1, LANES))
    matrix, vector = np.empty((size, size)), np.empty(size)
    accepted, step = np.zeros((size, LANES)), np.zeros((size, LANES))
    gap, scale = np.zeros((1, LANES)), np.zeros((1, LANES))
    residual, length = np.empty(LANES), np.empty(LANES)
    sample = np.full(LANES, -1)
    # a stalled sample was last evaluated at a refused point: it is evaluated once more
    again = np.zeros(LANES, np.bool_)
    upcoming, running, width = begin, 0, LANES
    fresh = True
    while fresh or running > 0:
        if not fresh:
            evaluate(
                q, here, slopes, axes, starts, moves, dims, slots, split, count, tensor, turned,
                r, dr, angle, sine, cosine, left, right, work, m, jac, True, width,
            )  # fmt: skip
            _newton_step(q, m, jac, lu, rhs, factor, pivot, matrix, vector, width)
            for c in range(width):
                gap[0, c], scale[0, c] = 0.0, 0.0
            for j in range(size):
                for c in range(width):
                    x = m[j, c] - q[j, c]
                    gap[0, c] += x * x
                    scale[0, c] += m[j, c] * m[j, c]
        for c in range(width):
            done = fresh
            b = sample[c]
            if b >= 0:
                done = again[c]
                now = np.sqrt(gap[0, c])
                initial = counts[1, b] == 0
                if not done:
                    counts[1, b] += 1
                    if initial or now <= (1 - 1e-4 * length[c]) * residual[c]:
                        counts[0, b] += 0 if initial else 1
                        if len(trace) > 0:
                            trace[counts[0, b], b] = now
                        residual[c], length[c] = now, 1.0
                        for j in range(size):
                            accepted[j, c] = q[j, c]
                            step[j, c] = rhs[j, c]
                        done = True
                        if not np.isfinite(now):
                            counts[2, b] = 3
                        elif now <= max(tol, rtol * np.sqrt(scale[0, c])):
                            counts[2, b] = 0
                        elif counts[0, b] == max_steps:
                            counts[2, b] = 1
                        else:
                            done = False
                    else:
                        length[c] *= 0.25
                        if length[c] < 0.25**shortenings:
                            counts[2, b] = 2
                            again[c] = True
                    for j in range(size):
                        q[j, c] = accepted[j, c]
                        if not (done or again[c]):
                            q[j, c] += length[c] * step[j, c]
                if done:
                    final[b] = residual[c]
                    for j in range(size):
                        state[b, j] = accepted[j, c]
                        values[b, j] = m[j, c]
                        for k in range(size):
                            jacobian[b, j, k] = jac[j * size + k, c]
                    running -= 1
            if done:
                sample[c] = -1
                if upcoming < end:
                    b = upcoming
                    upcoming += 1
                    running += 1
                    sample[c], again[c] = b, False
                    residual[c], length[c] = np.inf, 1.0
                    for g in range(len(axes)):
                        here[g, c] = base[g, b]
                    for j in range(size):
                        q[j, c] = state[b, j]
                        accepted[j, c] = state[b, j]
        fresh = False
        if upcoming == end and running < width:
            # the last samples move together, so that fewer lanes are evaluated
            top = width
            for c in range(running):
                if sample[c] >= 0:
                    continue
                top -= 1
                while sample[top] < 0:
                    top -= 1
                sample[c], again[c], residual[c], length[c] = sample[top], again[top], residual[top], length[top]
                sample[top] = -1
                for g in range(len(axes)):
                    here[g, c] = here[g, top]
                for j in range(size):
                    q[j, c], accepted[j, c], step[j, c] = q[j, top], accepted[j, top], step[j, top]
            width = -(-running // STEP) * STEP
