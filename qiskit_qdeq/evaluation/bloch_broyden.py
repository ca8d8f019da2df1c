"""A whole solve of q = m(q) by good Broyden for many samples, compiled, with the lanes and the map of `bloch_kernels`.

    δ = -H g,    H += (s - H y)(sᵀH) / (sᵀH y),    H = -1 at first

The rule is that of `equilibrium.solvers.Broyden`, to rounding. A lane whose sample is done takes the next one.
"""

from __future__ import annotations

import numba
import numpy as np

from qiskit_qdeq.evaluation.bloch_kernels import ORDERED_JIT, evaluate, workspace
from qiskit_qdeq.evaluation.bloch_newton import gaps
from qiskit_qdeq.evaluation.quasi_newton import learn
from qiskit_qdeq.evaluation.vectors import LANES, load, splat, store


@numba.njit(**ORDERED_JIT)  # type: ignore[misc]
def broyden(  # type: ignore[no-untyped-def]
    axes, starts, slopes, moves, dims, slots, split, count, tensor, turned,
    base, state, begin, end, tol, rtol, max_steps, trace, final, counts, kept,
):  # fmt: skip
    """Broyden steps from `state` (B, K), which becomes the best iterate; see `MultilinearForm.broyden`."""
    size = state.shape[1]
    r, dr, room, left, right, work = workspace(dims, split, size, tensor, turned)
    q, here, m = np.zeros(size * LANES), np.zeros(len(axes) * LANES), np.zeros(size * LANES)
    g, before, s = np.zeros(size * LANES), np.zeros(size * LANES), np.zeros(size * LANES)
    moved, row, inverse = np.zeros(size * LANES), np.zeros(size * LANES), np.zeros(size * size * LANES)
    gap, scale = np.zeros(LANES), np.zeros(LANES)
    sample = np.full(LANES, -1)
    upcoming, running = begin, 0
    while True:
        for c in range(LANES):
            if sample[c] < 0 and upcoming < end:
                b = upcoming
                sample[c], final[b] = b, np.inf
                for i in range(len(axes)):
                    here[i * LANES + c] = base[i, b]
                for i in range(size):
                    q[i * LANES + c] = state[b, i]
                    # from a step of length zero nothing is learnt
                    s[i * LANES + c] = 0.0
                    for j in range(size):
                        inverse[(i * size + j) * LANES + c] = -1.0 if i == j else 0.0
                upcoming += 1
                running += 1
        if running == 0:
            break
        evaluate(
            q, here, slopes, axes, starts, moves, dims, slots, split, count, tensor, turned,
            r, dr, room, left, right, work, m, inverse, False,
        )  # fmt: skip
        gaps(q, m, gap, scale)
        for at in range(0, len(q), LANES):
            store(g, at, load(m, at) - load(q, at))
        learn(inverse, g, before, s, moved, row)
        for c in range(LANES):
            b = sample[c]
            if b < 0:
                continue
            now = gap[c]
            steps = counts[1, b]
            counts[0, b] = steps
            counts[1, b] += 1
            if len(trace) > 0:
                trace[steps, b] = now
            if now < final[b]:
                final[b] = now
                for i in range(size):
                    state[b, i] = q[i * LANES + c]
            if not np.isfinite(now):
                counts[2, b] = 3
            elif now <= max(tol, rtol * scale[c]):
                counts[2, b] = 0
            elif steps == max_steps:
                counts[2, b] = 1
            else:
                continue
            for i in range(size):
                if len(kept) > 0:
                    for j in range(size):
                        kept[b, i, j] = inverse[(i * size + j) * LANES + c]
                # an idle lane stays where evaluating it costs nothing
                q[i * LANES + c] = 0.0
                g[i * LANES + c] = 0.0
            sample[c] = -1
            running -= 1
        for i in range(size):
            step = splat(0.0)
            for j in range(size):
                step += load(inverse, (i * size + j) * LANES) * load(g, j * LANES)
            old = load(q, i * LANES)
            store(q, i * LANES, old - step)
            store(s, i * LANES, load(q, i * LANES) - old)
            store(before, i * LANES, load(g, i * LANES))
