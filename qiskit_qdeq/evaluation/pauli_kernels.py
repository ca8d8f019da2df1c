"""Compiled sweeps of noisy gates over Pauli components, `LANES` columns at once.

A column holds the 4ⁿ components of a state or an observable, qubit q in the base-4 digit of 4^q. A gate is a real matrix on
the digits of one or two qubits, of which only the nonzero entries are kept, as

    entry = terms[0] + terms[1] cos a + terms[2] sin a.

Columns stand last in their arrays, their number a multiple of `LANES`.
"""

from __future__ import annotations

import numba
import numpy as np

from qiskit_qdeq.evaluation.jit import JIT
from qiskit_qdeq.evaluation.vectors import LANES, load, splat, store, total

#: Entries of the largest matrix, that of two qubits.
_ENTRIES = 256
_SIZE = 16


@numba.njit(inline="always")  # type: ignore[misc]
def _evaluate(terms, begin, end, slot, cosines, sines, at, coefficients, slopes):  # type: ignore[no-untyped-def]
    """The entries of a gate, and their derivatives by its angle."""
    if slot < 0:
        for k in range(begin, end):
            store(coefficients, (k - begin) * LANES, splat(terms[k, 0]))
        return
    cosine, sine = load(cosines, at), load(sines, at)
    for k in range(begin, end):
        store(coefficients, (k - begin) * LANES, terms[k, 0] + terms[k, 1] * cosine + terms[k, 2] * sine)
        store(slopes, (k - begin) * LANES, terms[k, 2] * cosine - terms[k, 1] * sine)


@numba.njit(inline="always")  # type: ignore[misc]
def _is_spectator(i, low, high):  # type: ignore[no-untyped-def]
    """Whether the digits of the gate's qubits are zero in i."""
    return ((i >> (2 * low)) & 3) == 0 and (high < 0 or ((i >> (2 * high)) & 3) == 0)


@numba.njit(inline="always")  # type: ignore[misc]
def _place(i, local, low, high):  # type: ignore[no-untyped-def]
    """i with the digits of the gate's qubits set."""
    place = i + ((local & 3) << (2 * low))
    return place if high < 0 else place + ((local >> 2) << (2 * high))


@numba.njit(inline="always")  # type: ignore[misc]
def _gather(work, base, i, low, high, local):  # type: ignore[no-untyped-def]
    for s in range(4 if high < 0 else _SIZE):
        store(local, s * LANES, load(work, base + _place(i, s, low, high) * LANES))


@numba.njit(inline="always")  # type: ignore[misc]
def _row(starts, columns, r, begin, coefficients, local):  # type: ignore[no-untyped-def]
    value = splat(0.0)
    for k in range(starts[r], starts[r + 1]):
        value += load(coefficients, (k - begin) * LANES) * load(local, columns[k] * LANES)
    return value


@numba.njit(**JIT)  # type: ignore[misc]
def sweep(  # type: ignore[no-untyped-def]
    qubits, first_rows, rows, starts, columns, terms, slots, cosines, sines, slopes, out
):
    """All gates on columns `out` (1 + R, 4ⁿ, C), in place: states, and R derivatives of them.

    `cosines` and `sines` (S, C) of the angles, `slopes` (S, R, C) their derivatives along the R directions.
    """
    count, dim, batch = out.shape
    work = np.empty(count * dim * LANES)
    local, moved = np.empty(_SIZE * LANES), np.empty(_SIZE * LANES)
    coefficients, derivatives = np.empty(_ENTRIES * LANES), np.empty(_ENTRIES * LANES)
    for lane in range(0, batch, LANES):
        for i in range(count * dim):
            store(work, i * LANES, load(out, i * batch + lane))
        for g in range(len(qubits)):
            low, high, slot = qubits[g, 0], qubits[g, 1], slots[g]
            top, bottom = first_rows[g], first_rows[g + 1]
            begin = starts[top]
            _evaluate(
                terms, begin, starts[bottom], slot, cosines, sines, slot * batch + lane, coefficients, derivatives
            )
            for i in range(dim):
                if not _is_spectator(i, low, high):
                    continue
                _gather(work, 0, i, low, high, local)
                for r in range(top, bottom):
                    value = _row(starts, columns, r, begin, coefficients, local)
                    store(work, _place(i, rows[r], low, high) * LANES, value)
                if count == 1:
                    continue
                if slot >= 0:
                    for r in range(top, bottom):
                        store(moved, (r - top) * LANES, _row(starts, columns, r, begin, derivatives, local))
                for t in range(1, count):
                    base = t * dim * LANES
                    _gather(work, base, i, low, high, local)
                    for r in range(top, bottom):
                        value = _row(starts, columns, r, begin, coefficients, local)
                        if slot >= 0:
                            rate = load(slopes, (slot * (count - 1) + t - 1) * batch + lane)
                            value += rate * load(moved, (r - top) * LANES)
                        store(work, base + _place(i, rows[r], low, high) * LANES, value)
        for i in range(count * dim):
            store(out, i * batch + lane, load(work, i * LANES))


@numba.njit(**JIT)  # type: ignore[misc]
def angle_gradients(  # type: ignore[no-untyped-def]
    qubits, first_rows, rows, starts, columns, terms, slots, cosines, sines, history, states, out
):
    """out[s] += Σ_c <O_c, ∂T/∂a_s r_c> for columns r_c `states` (4ⁿ, C), which are swept on the way.

    `history` (S, 4ⁿ, C) are the observables after the gate of each angle, `cosines` and `sines` (S, LANES) shared.
    """
    dim, batch = states.shape
    work = np.empty(dim * LANES)
    local = np.empty(_SIZE * LANES)
    coefficients, derivatives = np.empty(_ENTRIES * LANES), np.empty(_ENTRIES * LANES)
    for lane in range(0, batch, LANES):
        for i in range(dim):
            store(work, i * LANES, load(states, i * batch + lane))
        for g in range(len(qubits)):
            low, high, slot = qubits[g, 0], qubits[g, 1], slots[g]
            top, bottom = first_rows[g], first_rows[g + 1]
            begin = starts[top]
            _evaluate(terms, begin, starts[bottom], slot, cosines, sines, slot * LANES, coefficients, derivatives)
            gradient = splat(0.0)
            for i in range(dim):
                if not _is_spectator(i, low, high):
                    continue
                _gather(work, 0, i, low, high, local)
                for r in range(top, bottom):
                    place = _place(i, rows[r], low, high)
                    store(work, place * LANES, _row(starts, columns, r, begin, coefficients, local))
                    if slot >= 0:
                        moved = _row(starts, columns, r, begin, derivatives, local)
                        gradient += load(history, (slot * dim + place) * batch + lane) * moved
            if slot >= 0:
                out[slot] += total(gradient)


@numba.njit(**JIT)  # type: ignore[misc]
def sweep_recorded(  # type: ignore[no-untyped-def]
    qubits, first_rows, rows, starts, columns, terms, slots, cosines, sines, history, out
):
    """All gates on columns `out` (4ⁿ, C), in place; `history` (S, 4ⁿ, C) <- the columns before the gate of each angle."""
    dim, batch = out.shape
    local = np.empty(_SIZE * LANES)
    coefficients, derivatives = np.empty(_ENTRIES * LANES), np.empty(_ENTRIES * LANES)
    work = np.empty(dim * LANES)
    for lane in range(0, batch, LANES):
        for i in range(dim):
            store(work, i * LANES, load(out, i * batch + lane))
        for g in range(len(qubits)):
            low, high, slot = qubits[g, 0], qubits[g, 1], slots[g]
            top, bottom = first_rows[g], first_rows[g + 1]
            begin = starts[top]
            _evaluate(terms, begin, starts[bottom], slot, cosines, sines, slot * LANES, coefficients, derivatives)
            if slot >= 0:
                for i in range(dim):
                    store(history, (slot * dim + i) * batch + lane, load(work, i * LANES))
            for i in range(dim):
                if not _is_spectator(i, low, high):
                    continue
                _gather(work, 0, i, low, high, local)
                for r in range(top, bottom):
                    place = _place(i, rows[r], low, high)
                    store(work, place * LANES, _row(starts, columns, r, begin, coefficients, local))
        for i in range(dim):
            store(out, i * batch + lane, load(work, i * LANES))


@numba.njit(**JIT)  # type: ignore[misc]
def expectations(observables, states, out):  # type: ignore[no-untyped-def]
    """out (R, M, C) <- Σ_P o_mP r_Pc of observables (M, 4ⁿ) and states (R, 4ⁿ, C); a column's sum depends on it alone."""
    count, dim, batch = states.shape
    size = len(observables)
    for t in range(count):
        for lane in range(0, batch, LANES):
            for m in range(size):
                value = splat(0.0)
                for i in range(dim):
                    value += observables[m, i] * load(states, (t * dim + i) * batch + lane)
                store(out, (t * size + m) * batch + lane, value)
