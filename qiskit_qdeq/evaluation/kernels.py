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

#: Columns handled together: 32 double columns of a ten-qubit state fill half a typical L2 cache.
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
def _apply_two(buf, dim, width, low, high, g, tile, out):  # type: ignore[no-untyped-def]
    """buf <- G buf for a two-qubit block; four amplitude rows at a time through a small tile."""
    step_low = 1 << low
    step_high = 1 << high
    for k in range(dim // 4):
        i0 = _spread(k, low, high)
        i1 = i0 + step_low
        i2 = i0 + step_high
        i3 = i1 + step_high
        for c in range(width):
            tile[0, c] = buf[0, i0, c]
            tile[1, c] = buf[1, i0, c]
        for c in range(width):
            tile[2, c] = buf[0, i1, c]
            tile[3, c] = buf[1, i1, c]
        for c in range(width):
            tile[4, c] = buf[0, i2, c]
            tile[5, c] = buf[1, i2, c]
        for c in range(width):
            tile[6, c] = buf[0, i3, c]
            tile[7, c] = buf[1, i3, c]
        for r in range(4):
            a0, b0 = g[r, 0, 0], g[r, 0, 1]
            a1, b1 = g[r, 1, 0], g[r, 1, 1]
            a2, b2 = g[r, 2, 0], g[r, 2, 1]
            a3, b3 = g[r, 3, 0], g[r, 3, 1]
            for c in range(width):
                out[2 * r, c] = (
                    a0 * tile[0, c]
                    - b0 * tile[1, c]
                    + a1 * tile[2, c]
                    - b1 * tile[3, c]
                    + a2 * tile[4, c]
                    - b2 * tile[5, c]
                    + a3 * tile[6, c]
                    - b3 * tile[7, c]
                )
            for c in range(width):
                out[2 * r + 1, c] = (
                    a0 * tile[1, c]
                    + b0 * tile[0, c]
                    + a1 * tile[3, c]
                    + b1 * tile[2, c]
                    + a2 * tile[5, c]
                    + b2 * tile[4, c]
                    + a3 * tile[7, c]
                    + b3 * tile[6, c]
                )
        for c in range(width):
            buf[0, i0, c] = out[0, c]
            buf[1, i0, c] = out[1, c]
        for c in range(width):
            buf[0, i1, c] = out[2, c]
            buf[1, i1, c] = out[3, c]
        for c in range(width):
            buf[0, i2, c] = out[4, c]
            buf[1, i2, c] = out[5, c]
        for c in range(width):
            buf[0, i3, c] = out[6, c]
            buf[1, i3, c] = out[7, c]


@numba.njit(inline="always")  # type: ignore[misc]
def _apply_one(buf, dim, width, qubit, g):  # type: ignore[no-untyped-def]
    """buf <- g buf for a one-qubit block, in the leading 2 × 2 corner of `g`."""
    step = 1 << qubit
    a, ai, b, bi = g[0, 0, 0], g[0, 0, 1], g[0, 1, 0], g[0, 1, 1]
    c, ci, d, di = g[1, 0, 0], g[1, 0, 1], g[1, 1, 0], g[1, 1, 1]
    for k in range(dim // 2):
        i0 = (k & (step - 1)) | ((k >> qubit) << (qubit + 1))
        i1 = i0 + step
        for col in range(width):
            x, xi = buf[0, i0, col], buf[1, i0, col]
            y, yi = buf[0, i1, col], buf[1, i1, col]
            buf[0, i0, col] = a * x - ai * xi + b * y - bi * yi
            buf[1, i0, col] = a * xi + ai * x + b * yi + bi * y
            buf[0, i1, col] = c * x - ci * xi + d * y - di * yi
            buf[1, i1, col] = c * xi + ci * x + d * yi + di * y


@numba.njit(inline="always")  # type: ignore[misc]
def _reduce(v, lam, dim, width, low, high, env):  # type: ignore[no-untyped-def]
    """env <- Σ_rest V Λ† on the block's qubits; `high` < 0 for a one-qubit block."""
    rows = np.zeros(4, np.int64)
    local = 2 if high < 0 else 4
    for k in range(dim // local):
        if high < 0:
            rows[0] = (k & ((1 << low) - 1)) | ((k >> low) << (low + 1))
            rows[1] = rows[0] + (1 << low)
        else:
            rows[0] = _spread(k, low, high)
            rows[1] = rows[0] + (1 << low)
            rows[2] = rows[0] + (1 << high)
            rows[3] = rows[1] + (1 << high)
        for a in range(local):
            i = rows[a]
            for b in range(local):
                j = rows[b]
                re = env[a, b, 0] * 0
                im = re
                for c in range(width):
                    re += v[0, i, c] * lam[0, j, c] + v[1, i, c] * lam[1, j, c]
                    im += v[1, i, c] * lam[0, j, c] - v[0, i, c] * lam[1, j, c]
                env[a, b, 0] += re
                env[a, b, 1] += im


@numba.njit(inline="always")  # type: ignore[misc]
def _copy_columns(source, source_first, target, target_first, width):  # type: ignore[no-untyped-def]
    # explicit loops: an array assignment would compile NumPy's whole broadcasting check into every kernel
    for part in range(2):
        for i in range(source.shape[1]):
            for c in range(width):
                target[part, i, target_first + c] = source[part, i, source_first + c]


@numba.njit(**JIT)  # type: ignore[misc]
def sweep_forward(states, first, last, qubits, blocks):  # type: ignore[no-untyped-def]
    """Apply all blocks to columns first..last of `states` (2, dim, columns) in place."""
    dim = states.shape[1]
    buf = np.empty((2, dim, CHUNK), states.dtype)
    tile = np.empty((8, CHUNK), states.dtype)
    out = np.empty((8, CHUNK), states.dtype)
    for start in range(first, last, CHUNK):
        width = min(CHUNK, last - start)
        _copy_columns(states, start, buf, 0, width)
        for k in range(len(qubits)):
            if qubits[k, 1] < 0:
                _apply_one(buf, dim, width, qubits[k, 0], blocks[k])
            else:
                _apply_two(buf, dim, width, qubits[k, 0], qubits[k, 1], blocks[k], tile, out)
        _copy_columns(buf, 0, states, start, width)


@numba.njit(**JIT)  # type: ignore[misc]
def sweep_backward(states, cotangents, first, last, qubits, blocks, want_input, env):  # type: ignore[no-untyped-def]
    """Undo all blocks on states and cotangents, adding each block's reduced matrix to env (blocks, 4, 4, 2).

    `blocks` are the adjoint matrices G†. With `want_input` the cotangents before the program are written back into
    `cotangents`.
    """
    dim = states.shape[1]
    # both in one array, so that one loop serves them: states first, cotangents second
    both = np.empty((2, 2, dim, CHUNK), states.dtype)
    tile = np.empty((8, CHUNK), states.dtype)
    out = np.empty((8, CHUNK), states.dtype)
    for start in range(first, last, CHUNK):
        width = min(CHUNK, last - start)
        _copy_columns(states, start, both[0], 0, width)
        _copy_columns(cotangents, start, both[1], 0, width)
        for step in range(len(qubits)):
            k = len(qubits) - 1 - step
            low, high = qubits[k, 0], qubits[k, 1]
            for which in range(2):
                if which == 1:
                    _reduce(both[0], both[1], dim, width, low, high, env[k])
                    if k == 0 and not want_input:
                        break
                if high < 0:
                    _apply_one(both[which], dim, width, low, blocks[k])
                else:
                    _apply_two(both[which], dim, width, low, high, blocks[k], tile, out)
        if want_input:
            _copy_columns(both[1], 0, cotangents, start, width)


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


@numba.njit(**JIT)  # type: ignore[misc]
def add_product(total, columns, pattern, first, last):  # type: ignore[no-untyped-def]
    """total += columns ⊙ pattern on rows first..last of planar columns, without a temporary array."""
    for part in range(2):
        for i in range(first, last):
            for c in range(pattern.shape[1]):
                total[part, i, c] += columns[part, i, c] * pattern[i, c]
