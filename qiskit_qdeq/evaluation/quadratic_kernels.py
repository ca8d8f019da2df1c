"""Newton's method on ratios of quadratics, compiled: a sample's whole solve, `LANES` samples at once.

The closed form of a group, read once into rows that stay in the cache: d(0), Pᵀx, a and B of `RationalQuadratic`, one row
of `LANES` samples for each number. With diagonal observables a comes from ψ here, and the columns and features at the
solution follow at once, while ψ is at hand.
"""

from __future__ import annotations

import numba
import numpy as np

from qiskit_qdeq.evaluation.diagonal import expect_group, observe_group
from qiskit_qdeq.evaluation.jit import JIT
from qiskit_qdeq.evaluation.lanes import solve_rows
from qiskit_qdeq.evaluation.vectors import LANES, load, splat, sqrt, store, total, where

_LARGEST = float(np.finfo(float).max)


@numba.njit(inline="always")  # type: ignore[misc]
def read_form(norms, overlap, linear, at, form):  # type: ignore[no-untyped-def]
    """form <- d(0), Pᵀx and B of the group at `at`."""
    size, batch = overlap.shape
    store(form, 0, load(norms, at))
    for k in range(size):
        store(form, (1 + k) * LANES, load(overlap, k * batch + at))
    for k in range(size * size):
        store(form, (1 + size + k) * LANES, load(linear, k * batch + at))


@numba.njit(inline="always")  # type: ignore[misc]
def _evaluate(form, a, quadratic, gram, q, at_zero, m, jac, slope):  # type: ignore[no-untyped-def]
    """Rows m and jac from rows q, which are zero if `at_zero`; returns d, ‖m - q‖², ‖m‖²."""
    size = len(quadratic)
    zero = splat(0.0)
    d = load(form, 0)
    for k in range(size):
        s = zero
        if not at_zero:
            for l in range(size):  # noqa: E741
                x = gram[k, l]
                if x != 0.0:
                    s += x * load(q, l * LANES)
        v = 2.0 * load(form, (1 + k) * LANES)
        d += (v + s) * load(q, k * LANES)
        store(slope, k * LANES, v + 2.0 * s)
    inverse = 1.0 / d
    gap2, length2 = zero, zero
    for j in range(size):
        value = load(a, j * LANES)
        for k in range(size):
            s = zero
            if not at_zero:
                for l in range(size):  # noqa: E741
                    s += quadratic[j, k, l] * load(q, l * LANES)
            v = load(form, (1 + (1 + j) * size + k) * LANES)
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
def linearize(constant, linear, overlap, norms, quadratic, gram, state, values, jacobian):  # type: ignore[no-untyped-def]
    """m (K, B) and ∂m/∂q (K · K, B) at `state` (K, B)."""
    size, batch = overlap.shape
    form, a = np.empty((1 + size + size * size) * LANES), np.empty(size * LANES)
    q, m, slope = np.empty(size * LANES), np.empty(size * LANES), np.empty(size * LANES)
    jac = np.empty(size * size * LANES)
    for first in range(0, batch, LANES):
        read_form(norms, overlap, linear, first, form)
        for k in range(size):
            store(a, k * LANES, load(constant, k * batch + first))
            store(q, k * LANES, load(state, k * batch + first))
        _evaluate(form, a, quadratic, gram, q, False, m, jac, slope)
        for k in range(size):
            store(values, k * batch + first, load(m, k * LANES))
        for k in range(size * size):
            store(jacobian, k * batch + first, load(jac, k * LANES))


@numba.njit(**JIT)  # type: ignore[misc]
def newton(  # type: ignore[no-untyped-def]
    constant, linear, overlap, norms, quadratic, gram, encoded, injected, table, masks, first, last,
    start, tol, rtol, max_steps, shortenings, trace, found, numbers, columns, values,
):  # fmt: skip
    """Shortened Newton steps from `start` to `found` (B, K) for samples first..last; see `RationalQuadratic.newton`.

    A lane is `running` (1 or 0) until its sample is done; its q then stays, so that the last evaluation is at the solution.
    `numbers` (5 + K + K · K, B) take ‖g‖, d, steps, evaluations, status, ∂d/∂q and ∂m/∂q. With room for `columns` they and
    `values` become what `diagonal.observe` gives, and a comes from `encoded` and `table`; else a is `constant`.
    """
    size, batch = overlap.shape
    observed = columns.shape[2] > 0
    zero, one = splat(0.0), splat(1.0)
    form, a = np.empty((1 + size + size * size) * LANES), np.empty(size * LANES)
    q, m, slope = np.empty(size * LANES), np.empty(size * LANES), np.empty(size * LANES)
    accepted, step = np.empty(size * LANES), np.zeros(size * LANES)
    jac, lu, rhs = np.empty(size * size * LANES), np.empty(2 * size * size * LANES), np.empty(2 * size * LANES)
    matrix, vector, note = np.empty((size, size)), np.empty(size), np.empty(3 * LANES)
    rows = np.empty((columns.shape[1] + 1) * LANES)
    for begin in range(first, last, LANES):
        at = min(begin, last - LANES)
        read_form(norms, overlap, linear, at, form)
        if observed:
            expect_group(encoded, table, at, a)
        else:
            for k in range(size):
                store(a, k * LANES, load(constant, k * batch + at))
        at_zero = True
        for c in range(LANES):
            for k in range(size):
                accepted[k * LANES + c] = start[at + c, k]
                at_zero = at_zero and start[at + c, k] == 0.0
        for k in range(size):
            store(q, k * LANES, load(accepted, k * LANES))
            store(step, k * LANES, zero)
        best, length, running = splat(np.inf), one, one
        steps, evaluations, status = zero, zero, zero
        initial, stale = True, False
        while True:
            d, gap2, length2 = _evaluate(form, a, quadratic, gram, q, at_zero, m, jac, slope)
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
                        trace[int(note[LANES + c]), at + c] = note[2 * LANES + c]
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
                    store(lu, (j * size + k) * LANES, zero - load(jac, (j * size + k) * LANES))
                store(lu, (j * size + j) * LANES, one - load(jac, (j * size + j) * LANES))
                store(rhs, j * LANES, load(m, j * LANES) - load(q, j * LANES))
            solve_rows(lu, rhs, matrix, vector)
            for j in range(size):
                move = where(one, taken, load(rhs, j * LANES), load(step, j * LANES))
                kept = load(accepted, j * LANES)
                store(step, j * LANES, move)
                store(q, j * LANES, where(one, running, kept + length * move, kept))
        store(numbers, at, best)
        store(numbers, batch + at, d)
        store(numbers, 2 * batch + at, steps)
        store(numbers, 3 * batch + at, evaluations)
        store(numbers, 4 * batch + at, status)
        for k in range(size):
            store(numbers, (5 + k) * batch + at, load(slope, k * LANES))
        for k in range(size * size):
            store(numbers, (5 + size + k) * batch + at, load(jac, k * LANES))
        for c in range(LANES):
            for k in range(size):
                found[at + c, k] = q[k * LANES + c]
        if observed:
            observe_group(encoded, injected, q, d, masks, at, True, columns, values, rows)
