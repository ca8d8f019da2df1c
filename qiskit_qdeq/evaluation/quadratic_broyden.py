"""A whole solve of q = m(q) by good Broyden on ratios of quadratics, compiled, `LANES` samples at once.

The rule is that of `equilibrium.solvers.Broyden`, to rounding. An affine map q -> A q + c is the ratio with d = 1 and C = 0,
so that the adjoint equation is solved by the same loop.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from qiskit_qdeq.evaluation.jit import JIT
from qiskit_qdeq.evaluation.linear import whole_groups
from qiskit_qdeq.evaluation.quadratic_kernels import read_form
from qiskit_qdeq.evaluation.quasi_newton import QuasiNewtonSolution, learn
from qiskit_qdeq.evaluation.threads import run_parts, split_columns
from qiskit_qdeq.evaluation.vectors import LANES, load, splat, sqrt, store

Array = np.ndarray[Any, np.dtype[Any]]


@numba.njit(inline="always")  # type: ignore[misc]
def _values(form, a, quadratic, gram, q, m):  # type: ignore[no-untyped-def]
    """Rows m from rows q; returns ‖m - q‖², ‖m‖²."""
    size = len(quadratic)
    d = load(form, 0)
    for k in range(size):
        s = 2.0 * load(form, (1 + k) * LANES)
        for l in range(size):  # noqa: E741
            x = gram[k, l]
            if x != 0.0:
                s += x * load(q, l * LANES)
        d += s * load(q, k * LANES)
    inverse = 1.0 / d
    gap2, length2 = splat(0.0), splat(0.0)
    for j in range(size):
        value = load(a, j * LANES)
        for k in range(size):
            s = load(form, (1 + (1 + j) * size + k) * LANES)
            for l in range(size):  # noqa: E741
                x = quadratic[j, k, l]
                if x != 0.0:
                    s += x * load(q, l * LANES)
            value += s * load(q, k * LANES)
        value *= inverse
        store(m, j * LANES, value)
        gap = value - load(q, j * LANES)
        gap2 += gap * gap
        length2 += value * value
    return gap2, length2


@numba.njit(**JIT)  # type: ignore[misc]
def _broyden(  # type: ignore[no-untyped-def]
    constant, linear, overlap, norms, quadratic, gram, first, last,
    start, tol, rtol, max_steps, trace, found, residual, counts, kept,
):  # fmt: skip
    """Broyden steps from `start` to the best iterate `found` (K, B) for samples first..last; see `broyden`."""
    size, batch = overlap.shape
    form, a = np.empty((1 + size + size * size) * LANES), np.empty(size * LANES)
    q, m, g = np.empty(size * LANES), np.empty(size * LANES), np.empty(size * LANES)
    before, s = np.empty(size * LANES), np.empty(size * LANES)
    moved, row, inverse = np.empty(size * LANES), np.empty(size * LANES), np.empty(size * size * LANES)
    gap, length, running = np.empty(LANES), np.empty(LANES), np.empty(LANES)
    for at in range(first, last, LANES):
        read_form(norms, overlap, linear, at, form)
        for k in range(size):
            store(a, k * LANES, load(constant, k * batch + at))
            store(q, k * LANES, load(start, k * batch + at))
            # from a step of length zero nothing is learnt
            store(s, k * LANES, splat(0.0))
            store(before, k * LANES, splat(0.0))
            for j in range(size):
                store(inverse, (k * size + j) * LANES, splat(-1.0 if k == j else 0.0))
        for c in range(LANES):
            running[c], residual[at + c] = 1.0, np.inf
        left = LANES
        for step in range(max_steps + 1):
            gap2, length2 = _values(form, a, quadratic, gram, q, m)
            store(gap, 0, sqrt(gap2))
            store(length, 0, sqrt(length2))
            for k in range(size):
                store(g, k * LANES, load(m, k * LANES) - load(q, k * LANES))
            learn(inverse, g, before, s, moved, row)
            for c in range(LANES):
                if running[c] == 0.0:
                    continue
                now, b = gap[c], at + c
                counts[0, b], counts[1, b] = step, step + 1
                if len(trace) > 0:
                    trace[step, b] = now
                if now < residual[b]:
                    residual[b] = now
                    for k in range(size):
                        found[k, b] = q[k * LANES + c]
                if not np.isfinite(now):
                    counts[2, b] = 3
                elif now <= max(tol, rtol * length[c]):
                    counts[2, b] = 0
                elif step == max_steps:
                    counts[2, b] = 1
                else:
                    continue
                if len(kept) > 0:
                    for i in range(size):
                        for j in range(size):
                            kept[b, i, j] = inverse[(i * size + j) * LANES + c]
                running[c] = 0.0
                left -= 1
            if left == 0:
                break
            for i in range(size):
                move = splat(0.0)
                for j in range(size):
                    move += load(inverse, (i * size + j) * LANES) * load(g, j * LANES)
                store(s, i * LANES, splat(0.0) - move)
                store(before, i * LANES, load(g, i * LANES))
            for i in range(size):
                store(q, i * LANES, load(q, i * LANES) + load(s, i * LANES))


def broyden(
    terms: tuple[Array, Array, Array, Array],
    quadratic: Array,
    gram: Array,
    state: Array,
    tol: float,
    rtol: float,
    max_steps: int,
    keep_trace: bool,
    keep_inverse: bool,
) -> QuasiNewtonSolution:
    """Good Broyden from H = -1, every sample by itself, in double precision.

    A sample stops once ‖g‖ ≤ max(tol, rtol ‖m‖), g = m - q. `state` (B, K) of float64 is overwritten with the best iterate.

    Args:
        terms: a (K, B), B (K · K, B), Pᵀx (K, B), xᵀx (B,).
        quadratic: C (K, K, K).
        gram: PᵀP (K, K).
        state: first iterate.
        tol, rtol, max_steps: when to stop.
        keep_trace, keep_inverse: whether these are returned.
    """
    count, size = state.shape
    filled = whole_groups(count)
    terms = tuple(np.ascontiguousarray(term[..., filled]) for term in terms)  # type: ignore[assignment]
    start = np.ascontiguousarray(state[filled].T)
    width = start.shape[1]
    trace = np.full((max_steps + 1 if keep_trace else 0, width), np.nan)
    found, residual = start.copy(), np.empty(width)
    counts = np.zeros((3, width), dtype=np.int64)
    inverse = np.empty((width if keep_inverse else 0, size, size))
    options = (start, tol, rtol, max_steps, trace, found, residual, counts, inverse)
    # steps of all samples count like K³ amplitudes each
    parts = split_columns(size**3, width)
    run_parts(_broyden, [(*terms, quadratic, gram, *part, *options) for part in parts])
    state[:] = found.T[:count]
    steps, evaluations, status = counts[:, :count]
    if keep_trace:
        trace = trace[: int(steps.max(initial=0)) + 1]
    kept = inverse[:count] if keep_inverse else None
    return QuasiNewtonSolution(residual[:count], trace.T[:count], steps, evaluations, status, kept)


class AffineForm:
    """The map q -> A q + c of a minibatch, as solvers take closed forms.

    Args:
        matrix: A (B, K, K).
        constant: c (B, K).
    """

    def __init__(self, matrix: Array, constant: Array) -> None:
        batch, size = constant.shape
        linear = np.asarray(matrix, dtype=float).reshape(batch, size * size).T
        self._terms = (np.asarray(constant, dtype=float).T, linear, np.zeros((size, batch)), np.ones(batch))
        self._size = size

    def broyden(
        self, rows: Array, state: Array, tol: float, rtol: float, max_steps: int, keep_trace: bool, keep_inverse: bool
    ) -> QuasiNewtonSolution:
        """`broyden` of the samples `rows`."""
        terms = tuple(term[..., rows] for term in self._terms)
        nothing = np.zeros((self._size, self._size, self._size)), np.zeros((self._size, self._size))
        return broyden(terms, *nothing, state, tol, rtol, max_steps, keep_trace, keep_inverse)  # type: ignore[arg-type]
