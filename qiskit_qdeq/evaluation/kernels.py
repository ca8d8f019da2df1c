"""Compiled sweeps of a fused gate program over many state columns.

States are planar: `(2, 2**n, columns)`, real part first. A program is a list of blocks; block `k` is a unitary on one or
two qubits, and local index `bit(qa) + 2 bit(qb)`. With V the columns after the program and Λ their cotangents (the
scalar's differential is 2 Re <Λ, dV>), the backward sweep undoes block G on both and leaves

    E_k = V_in Λ_out†  reduced to the block's qubits (4 × 4),        d scalar = 2 Re Tr(dG_k E_k),

from which the gradient of every gate inside the block follows without touching the columns again (DESIGN section 5).
"""

from __future__ import annotations

import numba
import numpy as np

from qiskit_qdeq.evaluation.jit import JIT
from qiskit_qdeq.evaluation.strips import STRIP, correlate, gather, rotate, scatter

#: Columns transformed together: 32 double columns of ten qubits fill a quarter of a typical L2 cache.
CHUNK = 32

# Helpers are inlined: as functions of their own they exist twice, optimized differently, and whether a process compiled them
# or loaded them from the cache would decide which one runs, in the last bit of the result.


@numba.njit(inline="always")  # type: ignore[misc]
def _spread(k, low, high):  # type: ignore[no-untyped-def]
    """The k-th basis index whose bits `low` < `high` are zero."""
    first = k & ((1 << low) - 1)
    k = k >> low
    width = high - low - 1
    middle = k & ((1 << width) - 1)
    k = k >> width
    return first | (middle << (low + 1)) | (k << (high + 1))


@numba.njit(inline="always")  # type: ignore[misc]
def _pair_rows(k, low, high):  # type: ignore[no-untyped-def]
    """Offsets in a strip of the k-th four rows that a block on qubits `low` < `high` mixes."""
    first = 2 * STRIP * _spread(k, low, high)
    step_low, step_high = (2 * STRIP) << low, (2 * STRIP) << high
    return first, first + step_low, first + step_high, first + step_low + step_high


@numba.njit(inline="always")  # type: ignore[misc]
def _single_rows(k, qubit):  # type: ignore[no-untyped-def]
    first = 2 * STRIP * ((k & ((1 << qubit) - 1)) | ((k >> qubit) << (qubit + 1)))
    return first, first + ((2 * STRIP) << qubit)


@numba.njit(**JIT)  # type: ignore[misc]
def sweep_forward(states, first, last, qubits, blocks):  # type: ignore[no-untyped-def]
    """Apply all blocks to columns first..last of `states` (2, dim, columns) in place."""
    dim = states.shape[1]
    strip = np.empty(2 * STRIP * dim, states.dtype)
    for start in range(first, last, STRIP):
        width = min(STRIP, last - start)
        gather(states, start, width, strip)
        for k in range(len(qubits)):
            low, high, block = qubits[k, 0], qubits[k, 1], blocks[k]
            if high < 0:
                for i in range(dim // 2):
                    rotate(strip, _single_rows(i, low), block)
            else:
                for i in range(dim // 4):
                    rotate(strip, _pair_rows(i, low, high), block)
        scatter(strip, states, start, width)


@numba.njit(**JIT)  # type: ignore[misc]
def sweep_backward(states, cotangents, first, last, qubits, blocks, want_input, env):  # type: ignore[no-untyped-def]
    """Undo all blocks on states and cotangents, adding each block's reduced matrix to env (blocks, 4, 4, 2).

    `blocks` are the adjoint matrices G†. `states` stay as they are; with `want_input` the cotangents before the program are
    written back into `cotangents`.
    """
    dim = states.shape[1]
    v, lam = np.empty(2 * STRIP * dim, states.dtype), np.empty(2 * STRIP * dim, states.dtype)
    total = np.empty(32 * STRIP, states.dtype)
    for start in range(first, last, STRIP):
        width = min(STRIP, last - start)
        gather(states, start, width, v)
        gather(cotangents, start, width, lam)
        for step in range(len(qubits)):
            k = len(qubits) - 1 - step
            low, high, block = qubits[k, 0], qubits[k, 1], blocks[k]
            for i in range(32 * STRIP):
                total[i] = 0
            # one pass of each block over both arrays, so that a row is in the nearest cache for all three products
            if high < 0:
                for i in range(dim // 2):
                    rows = _single_rows(i, low)
                    rotate(v, rows, block)
                    correlate(v, lam, rows, total)
                    rotate(lam, rows, block)
            else:
                for i in range(dim // 4):
                    pair = _pair_rows(i, low, high)
                    rotate(v, pair, block)
                    correlate(v, lam, pair, total)
                    if k > 0 or want_input:
                        rotate(lam, pair, block)
            for i in range(32):
                entry = total[0] * 0
                for c in range(STRIP):
                    entry += total[i * STRIP + c]
                env[k, i // 8, i // 2 % 4, i % 2] += entry
        if want_input:
            scatter(lam, cotangents, start, width)


@numba.njit(inline="always")  # type: ignore[misc]
def _gate(kind, angle, constants, generators, projectors, g):  # type: ignore[no-untyped-def]
    """g <- constant, or 1 - Π + cos(β/2) Π - i sin(β/2) G of a generator with G³ = G, Π = G²."""
    if kind < 0:
        for r in range(4):
            for s in range(4):
                g[r, s] = constants[-1 - kind, r, s]
    else:
        cosine = np.cos(0.5 * angle) - 1.0
        sine = np.sin(0.5 * angle)
        for r in range(4):
            for s in range(4):
                g[r, s] = cosine * projectors[kind, r, s] - 1j * sine * generators[kind, r, s]
            g[r, r] += 1.0


@numba.njit(inline="always")  # type: ignore[misc]
def _multiply(x, y, out):  # type: ignore[no-untyped-def]
    for r in range(4):
        for s in range(4):
            total = x[r, 0] * y[0, s]
            for t in range(1, 4):
                total += x[r, t] * y[t, s]
            out[r, s] = total


@numba.njit(**JIT)  # type: ignore[misc]
def build_blocks(starts, kinds, angles, constants, generators, projectors, blocks, prefixes):  # type: ignore[no-untyped-def]
    """Block matrices for the given gate angles; prefixes[k] is the product of a block's gates before gate k."""
    g = np.empty((4, 4), np.complex128)
    product = np.empty((4, 4), np.complex128)
    total = np.empty((4, 4), np.complex128)
    for block in range(len(starts) - 1):
        for r in range(4):
            for s in range(4):
                total[r, s] = 1.0 if r == s else 0.0
        for k in range(starts[block], starts[block + 1]):
            _gate(kinds[k], angles[k], constants, generators, projectors, g)
            _multiply(g, total, product)
            for r in range(4):
                for s in range(4):
                    prefixes[k, r, s] = total[r, s]
                    total[r, s] = product[r, s]
        for r in range(4):
            for s in range(4):
                blocks[block, r, s, 0] = total[r, s].real
                blocks[block, r, s, 1] = total[r, s].imag


@numba.njit(**JIT)  # type: ignore[misc]
def gate_gradients(starts, kinds, angles, constants, generators, projectors, prefixes, env, grad):  # type: ignore[no-untyped-def]
    """grad[k] <- 2 Re Tr(S ∂g_k P E): derivative of the scalar with respect to gate angle k, inside its block."""
    g = np.empty((4, 4), np.complex128)
    work = np.empty((4, 4), np.complex128)
    moved = np.empty((4, 4), np.complex128)
    for block in range(len(starts) - 1):
        for r in range(4):
            for s in range(4):
                moved[r, s] = complex(env[block, r, s, 0], env[block, r, s, 1])
        for back in range(starts[block + 1] - starts[block]):
            k = starts[block + 1] - 1 - back
            _gate(kinds[k], angles[k], constants, generators, projectors, g)
            if kinds[k] >= 0:
                _multiply(prefixes[k], moved, work)
                # sums of derivative[r, s] * work[s, r], with derivative = -(sin Π + i cos G) / 2
                sine, cosine = np.sin(0.5 * angles[k]), np.cos(0.5 * angles[k])
                total = 0.0
                for r in range(4):
                    for s in range(4):
                        d = -0.5 * (sine * projectors[kinds[k], r, s] + 1j * cosine * generators[kinds[k], r, s])
                        total += (d * work[s, r]).real
                grad[k] = 2.0 * total
            else:
                grad[k] = 0.0
            _multiply(moved, g, work)
            for r in range(4):
                for s in range(4):
                    moved[r, s] = work[r, s]


@numba.njit(**JIT)  # type: ignore[misc]
def walsh_hadamard(values, first, last):  # type: ignore[no-untyped-def]
    """values (2**n, columns) <- Σ_s (-1)^{s·t} values[s] on columns first..last, in place: every Z correlator at once."""
    dim = values.shape[0]
    # a few columns at a time, side by side: rows of the whole array lie a power of two apart and share cache sets
    buf = np.empty((dim, CHUNK), values.dtype)
    for start in range(first, last, CHUNK):
        width = min(CHUNK, last - start)
        for i in range(dim):
            for c in range(width):
                buf[i, c] = values[i, start + c]
        half = 1
        while half < dim:
            for block in range(0, dim, 2 * half):
                for i in range(block, block + half):
                    for c in range(width):
                        x = buf[i, c]
                        y = buf[i + half, c]
                        buf[i, c] = x + y
                        buf[i + half, c] = x - y
            half *= 2
        for i in range(dim):
            for c in range(width):
                values[i, start + c] = buf[i, c]
