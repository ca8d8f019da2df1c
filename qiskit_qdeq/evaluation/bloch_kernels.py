"""Compiled loops over `LANES` samples at once for m_j(q) = Σ_P T_jP Π_w r_w[P_w], multilinear in one-qubit Bloch vectors.

The wires are cut into a left and a right half, so that T_j is a matrix and m_j = Lᵀ T_j R with L and R the Kronecker
products of the halves' vectors (1, ...). T R and Tᵀ L are most of the work; the derivative with respect to any one vector
follows from them by contracting the other wires of its half.

Every sample has a lane of its own and nothing is summed over lanes: results do not depend on batch mates. No `reassoc`: the
reduction of angles relies on the order of its subtractions.
"""

from __future__ import annotations

import numba
import numpy as np

from qiskit_qdeq.evaluation.jit import JIT

#: Wide enough that the overhead of a loop over lanes is small against the loop.
LANES = 64
#: Lanes are evaluated in multiples of it, so that loops over lanes have no remainder.
STEP = 16
#: Rows and columns of T are padded to multiples of it.
TILE = 4
#: Angles up to which the reduction by three parts of π/2 is exact to the last bit.
_LARGE_ANGLE = 1e5
#: Options of kernels in which the order of operations matters.
ORDERED_JIT = {**JIT, "fastmath": {"contract", "nsz"}}


@numba.njit(inline="always")  # type: ignore[misc]
def sine_cosine(angle, sine, cosine, row, width):  # type: ignore[no-untyped-def]
    """Row `row` of sine and cosine from that of angle, vectorized (Cody and Waite's reduction, Cephes' polynomials)."""
    large = 0
    for c in range(width):
        x = angle[row, c]
        large |= 1 if abs(x) > _LARGE_ANGLE else 0
        turns = np.floor(x * 0.6366197723675814 + 0.5)
        r = x - turns * 1.5707962512969971
        r = r - turns * 7.549789415861596e-08
        r = r - turns * 5.390302858158119e-15
        z = r * r
        s = 1.58962301576546568060e-10 * z - 2.50507477628578072866e-8
        s = (s * z + 2.75573136213857245213e-6) * z - 1.98412698295895385996e-4
        s = (s * z + 8.33333333332211858878e-3) * z - 1.66666666666666307295e-1
        s = r + r * (z * s)
        k = -1.13585365213876817300e-11 * z + 2.08757008419747316778e-9
        k = (k * z - 2.75573141792967388112e-7) * z + 2.48015872888517045348e-5
        k = (k * z - 1.38888888888730564116e-3) * z + 4.16666666666665929218e-2
        k = (1.0 - 0.5 * z) + z * (z * k)
        quarter = turns - 4.0 * np.floor(0.25 * turns)
        odd = quarter == 1.0 or quarter == 3.0
        a = k if odd else s
        b = s if odd else k
        sine[row, c] = -a if quarter >= 2.0 else a
        cosine[row, c] = -b if quarter == 1.0 or quarter == 2.0 else b
    if large:
        for c in range(width):
            if abs(angle[row, c]) > _LARGE_ANGLE:
                sine[row, c] = np.sin(angle[row, c])
                cosine[row, c] = np.cos(angle[row, c])


@numba.njit(inline="always")  # type: ignore[misc]
def _turn(r, i, j, sine, cosine, width):  # type: ignore[no-untyped-def]
    """Rows (i, j) of r turned by the angle of row 0."""
    for c in range(width):
        x, y = r[i, c], r[j, c]
        r[i, c] = cosine[0, c] * x - sine[0, c] * y
        r[j, c] = sine[0, c] * x + cosine[0, c] * y


@numba.njit(inline="always")  # type: ignore[misc]
def _bloch(q, base, slopes, axes, starts, moves, r, dr, angle, sine, cosine, with_slopes, width):  # type: ignore[no-untyped-def]
    """Rows 3w + xyz of r: the Bloch vectors; rows (3w + xyz) K + k of dr: their derivatives along the states."""
    states = slopes.shape[1]
    for w in range(len(starts) - 1):
        for x in range(3):
            for c in range(width):
                r[3 * w + x, c] = 1.0 if x == 2 else 0.0
            if with_slopes:
                for k in range(states):
                    for c in range(width):
                        dr[(3 * w + x) * states + k, c] = 0.0
        for g in range(starts[w], starts[w + 1]):
            i, j = 3 * w + (axes[g] + 1) % 3, 3 * w + (axes[g] + 2) % 3
            for c in range(width):
                angle[0, c] = base[g, c]
            for k in range(states):
                slope = slopes[g, k]
                if slope != 0.0:
                    for c in range(width):
                        angle[0, c] += slope * q[k, c]
            sine_cosine(angle, sine, cosine, 0, width)
            _turn(r, i, j, sine, cosine, width)
            if with_slopes:
                for k in range(states):
                    if moves[w, k]:
                        _turn(dr, i * states + k, j * states + k, sine, cosine, width)
                        slope = slopes[g, k]
                        for c in range(width):
                            dr[i * states + k, c] -= slope * r[j, c]
                            dr[j * states + k, c] += slope * r[i, c]


@numba.njit(inline="always")  # type: ignore[misc]
def _kronecker(r, dims, slots, first, last, products, width):  # type: ignore[no-untyped-def]
    """Products of wires first..last, after those of every shorter run of leading wires; returns where they begin."""
    for c in range(width):
        products[0, c] = 1.0
    begin, size = 0, 1
    for w in range(first, last):
        after = begin + size
        for i in range(size):
            for c in range(width):
                products[after + i * dims[w], c] = products[begin + i, c]
            for p in range(1, dims[w]):
                row = 3 * w + slots[w, p - 1]
                for c in range(width):
                    products[after + i * dims[w] + p, c] = products[begin + i, c] * r[row, c]
        begin, size = after, size * dims[w]
    # the padding of T is multiplied by these rows
    for i in range(begin + size, begin + size + TILE):
        for c in range(width):
            products[i, c] = 0.0
    return begin


@numba.njit(inline="always")  # type: ignore[misc]
def _contract(tensor, vector, begin, out, width):  # type: ignore[no-untyped-def]
    """out <- tensor @ vector[begin:], a tile of 4 × 4 entries at a time."""
    for a in range(0, tensor.shape[0], TILE):
        for i in range(TILE):
            for c in range(width):
                out[a + i, c] = 0.0
        for b in range(0, tensor.shape[1], TILE):
            t0, t1, t2, t3 = tensor[a, b], tensor[a, b + 1], tensor[a, b + 2], tensor[a, b + 3]
            u0, u1, u2, u3 = tensor[a + 1, b], tensor[a + 1, b + 1], tensor[a + 1, b + 2], tensor[a + 1, b + 3]
            v0, v1, v2, v3 = tensor[a + 2, b], tensor[a + 2, b + 1], tensor[a + 2, b + 2], tensor[a + 2, b + 3]
            w0, w1, w2, w3 = tensor[a + 3, b], tensor[a + 3, b + 1], tensor[a + 3, b + 2], tensor[a + 3, b + 3]
            row = begin + b
            for c in range(width):
                x0, x1, x2, x3 = vector[row, c], vector[row + 1, c], vector[row + 2, c], vector[row + 3, c]
                out[a, c] += t0 * x0 + t1 * x1 + t2 * x2 + t3 * x3
                out[a + 1, c] += u0 * x0 + u1 * x1 + u2 * x2 + u3 * x3
                out[a + 2, c] += v0 * x0 + v1 * x1 + v2 * x2 + v3 * x3
                out[a + 3, c] += w0 * x0 + w1 * x1 + w2 * x2 + w3 * x3


@numba.njit(inline="always")  # type: ignore[misc]
def _fold(rows, begin, r, dr, dims, slots, moves, first, last, products, j, env, jacobian, with_slopes, width):  # type: ignore[no-untyped-def]
    """Contract rows[begin:] with the vectors of wires first..last, in place, and add their share of row j of J."""
    states = moves.shape[1]
    size, start = 1, 0
    for w in range(first, last):
        start += size
        size *= dims[w]
    for back in range(last - first):
        w = last - 1 - back
        d = dims[w]
        size //= d
        start -= size
        if with_slopes:
            for p in range(1, d):
                for c in range(width):
                    env[0, c] = 0.0
                for i in range(size):
                    for c in range(width):
                        env[0, c] += products[start + i, c] * rows[begin + i * d + p, c]
                row = (3 * w + slots[w, p - 1]) * states
                for k in range(states):
                    if moves[w, k]:
                        for c in range(width):
                            jacobian[j * states + k, c] += env[0, c] * dr[row + k, c]
        # a live wire has two or three components beside the constant one
        x, y, z = 3 * w + slots[w, 0], 3 * w + slots[w, 1], 3 * w + slots[w, d - 2]
        for i in range(size):
            source = begin + i * d
            if d == 3:
                for c in range(width):
                    rows[begin + i, c] = rows[source, c] + rows[source + 1, c] * r[x, c] + rows[source + 2, c] * r[y, c]
            else:
                for c in range(width):
                    rows[begin + i, c] = (
                        rows[source, c]
                        + rows[source + 1, c] * r[x, c]
                        + rows[source + 2, c] * r[y, c]
                        + rows[source + 3, c] * r[z, c]
                    )


@numba.njit(inline="always")  # type: ignore[misc]
def evaluate(  # type: ignore[no-untyped-def]
    q, base, slopes, axes, starts, moves, dims, slots, split, count, tensor, turned,
    r, dr, angle, sine, cosine, left, right, work, values, jacobian, with_slopes, width,
):  # fmt: skip
    """Rows values[j] and, if asked for, jacobian[j K + k] at the lanes' states q."""
    live, states = len(dims), slopes.shape[1]
    _bloch(q, base, slopes, axes, starts, moves, r, dr, angle, sine, cosine, with_slopes, width)
    at_left = _kronecker(r, dims, slots, 0, split, left, width)
    at_right = _kronecker(r, dims, slots, split, live, right, width)
    size, other = 1, 1
    for w in range(split):
        size *= dims[w]
    for w in range(split, live):
        other *= dims[w]
    if with_slopes:
        for i in range(count * states):
            for c in range(width):
                jacobian[i, c] = 0.0
        _contract(turned, left, at_left, work, width)
        for j in range(count):
            _fold(work, j * other, r, dr, dims, slots, moves, split, live, right, j, angle, jacobian, True, width)
    _contract(tensor, right, at_right, work, width)
    for j in range(count):
        _fold(work, j * size, r, dr, dims, slots, moves, 0, split, left, j, angle, jacobian, with_slopes, width)
        for c in range(width):
            values[j, c] = work[j * size, c]


@numba.njit(inline="always")  # type: ignore[misc]
def workspace(dims, split, states, tensor, turned):  # type: ignore[no-untyped-def]
    """r, dr, angle, sine, cosine, left, right and work of `evaluate`."""
    live = len(dims)
    sizes = np.ones(2, np.int64)
    rows = np.ones(2, np.int64)
    for w in range(live):
        half = 0 if w < split else 1
        sizes[half] *= dims[w]
        rows[half] += sizes[half]
    return (
        np.zeros((3 * live, LANES)),
        np.zeros((3 * live * states, LANES)),
        np.zeros((1, LANES)),
        np.zeros((1, LANES)),
        np.zeros((1, LANES)),
        np.zeros((rows[0] + TILE, LANES)),
        np.zeros((rows[1] + TILE, LANES)),
        np.zeros((max(tensor.shape[0], turned.shape[0]), LANES)),
    )


@numba.njit(**ORDERED_JIT)  # type: ignore[misc]
def linearize(  # type: ignore[no-untyped-def]
    axes,
    starts,
    slopes,
    moves,
    dims,
    slots,
    split,
    count,
    tensor,
    turned,
    base,
    state,
    rows,
    begin,
    end,
    values,
    jacobian,
):
    """values (b, J) and, unless its length is zero, jacobian (b, J, K) at `state` (b, K) for samples `rows`."""
    states = slopes.shape[1]
    r, dr, angle, sine, cosine, left, right, work = workspace(dims, split, states, tensor, turned)
    q, here = np.zeros((states, LANES)), np.zeros((len(axes), LANES))
    m, jac = np.zeros((count, LANES)), np.zeros((count * states, LANES))
    with_slopes = len(jacobian) > 0
    for first in range(begin, end, LANES):
        width = min(LANES, end - first)
        for c in range(width):
            for g in range(len(axes)):
                here[g, c] = base[g, rows[first + c]]
            for k in range(states):
                q[k, c] = state[first + c, k]
        evaluate(
            q, here, slopes, axes, starts, moves, dims, slots, split, count, tensor, turned,
            r, dr, angle, sine, cosine, left, right, work, m, jac, with_slopes, -(-width // STEP) * STEP,
        )  # fmt: skip
        for c in range(width):
            for j in range(count):
                values[first + c, j] = m[j, c]
                if with_slopes:
                    for k in range(states):
                        jacobian[first + c, j, k] = jac[j * states + k, c]
