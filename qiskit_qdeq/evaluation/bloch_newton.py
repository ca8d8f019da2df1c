"""A whole Newton solve of q = m(q) for many samples, compiled, with the lanes and the map of `bloch_kernels`.

    (1 - J) δ = m - q,    q <- q + length · δ

A lane whose sample is done takes the next one: samples that need many steps cost little.
"""

from __future__ import annotations

import numba
import numpy as np

from qiskit_qdeq.evaluation.bloch_kernels import ORDERED_JIT, evaluate, workspace
from qiskit_qdeq.evaluation.lanes import solve_rows
from qiskit_qdeq.evaluation.vectors import LANES, load, splat, sqrt, store


@numba.njit(inline="always")  # type: ignore[misc]
def gaps(q, m, gap, scale):  # type: ignore[no-untyped-def]
    """gap <- ‖m - q‖ and scale <- ‖m‖."""
    gap2, scale2 = splat(0.0), splat(0.0)
    for at in range(0, len(q), LANES):
        value = load(m, at)
        x = value - load(q, at)
        gap2 += x * x
        scale2 += value * value
    store(gap, 0, sqrt(gap2))
    store(scale, 0, sqrt(scale2))


@numba.njit(inline="always")  # type: ignore[misc]
def _newton_step(q, m, jac, lu, rhs, matrix, vector):  # type: ignore[no-untyped-def]
    """Rows rhs <- (1 - J)⁻¹ (m - q)."""
    size = len(vector)
    for j in range(size):
        for k in range(size):
            at = (j * size + k) * LANES
            store(lu, at, splat(1.0 if j == k else 0.0) - load(jac, at))
        store(rhs, j * LANES, load(m, j * LANES) - load(q, j * LANES))
    solve_rows(lu, rhs, matrix, vector)


@numba.njit(**ORDERED_JIT)  # type: ignore[misc]
def newton(  # type: ignore[no-untyped-def]
    axes, starts, slopes, moves, dims, slots, split, count, tensor, turned,
    base, state, begin, end, tol, rtol, max_steps, shortenings, trace, final, counts, values, jacobian,
):  # fmt: skip
    """Shortened Newton steps from `state` (B, K), which becomes the solution; see `MultilinearForm.newton`."""
    size = state.shape[1]
    r, dr, room, left, right, work = workspace(dims, split, size, tensor, turned)
    q, here, m = np.zeros(size * LANES), np.zeros(len(axes) * LANES), np.zeros(size * LANES)
    jac, lu, rhs = np.zeros(size * size * LANES), np.zeros(2 * size * size * LANES), np.zeros(2 * size * LANES)
    matrix, vector = np.empty((size, size)), np.empty(size)
    accepted, step = np.zeros(size * LANES), np.zeros(size * LANES)
    gap, scale = np.zeros(LANES), np.zeros(LANES)
    residual, length = np.zeros(LANES), np.zeros(LANES)
    sample = np.full(LANES, -1)
    # a stalled sample was last evaluated at a refused point: it is evaluated once more
    again = np.zeros(LANES, np.bool_)
    upcoming, running = begin, 0
    while True:
        for c in range(LANES):
            if sample[c] < 0 and upcoming < end:
                b = upcoming
                sample[c], again[c], residual[c], length[c] = b, False, np.inf, 1.0
                for g in range(len(axes)):
                    here[g * LANES + c] = base[g, b]
                for j in range(size):
                    q[j * LANES + c] = state[b, j]
                    accepted[j * LANES + c] = state[b, j]
                upcoming += 1
                running += 1
        if running == 0:
            break
        evaluate(
            q, here, slopes, axes, starts, moves, dims, slots, split, count, tensor, turned,
            r, dr, room, left, right, work, m, jac, True,
        )  # fmt: skip
        gaps(q, m, gap, scale)
        _newton_step(q, m, jac, lu, rhs, matrix, vector)
        for c in range(LANES):
            b = sample[c]
            if b < 0:
                continue
            done, now = again[c], gap[c]
            if not done:
                initial = counts[1, b] == 0
                counts[1, b] += 1
                if initial or now <= (1 - 1e-4 * length[c]) * residual[c]:
                    counts[0, b] += 0 if initial else 1
                    if len(trace) > 0:
                        trace[counts[0, b], b] = now
                    residual[c], length[c] = now, 1.0
                    for at in range(c, len(q), LANES):
                        accepted[at] = q[at]
                        step[at] = rhs[at]
                    done = True
                    if not np.isfinite(now):
                        counts[2, b] = 3
                    elif now <= max(tol, rtol * scale[c]):
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
            if not done:
                for at in range(c, len(q), LANES):
                    q[at] = accepted[at]
                    if not again[c]:
                        q[at] += length[c] * step[at]
                continue
            final[b] = residual[c]
            for j in range(size):
                state[b, j] = accepted[j * LANES + c]
                values[b, j] = m[j * LANES + c]
                for k in range(size):
                    jacobian[b, j, k] = jac[(j * size + k) * LANES + c]
                # an idle lane stays where evaluating it costs nothing
                q[j * LANES + c] = 0.0
            sample[c] = -1
            running -= 1
