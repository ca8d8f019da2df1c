"""Compiled loops over `LANES` samples at once for m_j(q) = Σ_P T_jP Π_w r_w[P_w], multilinear in one-qubit Bloch vectors.

The wires are cut into a left and a right half, so that T_j is a matrix and m_j = Lᵀ T_j R with L and R the Kronecker
products of the halves' vectors (1, ...). T R and Tᵀ L are most of the work; the derivative with respect to any one vector
follows from them by contracting the other wires of its half.

Every sample has a lane of its own and nothing is summed over lanes: results do not depend on batch mates. Working rows lie
in flat arrays, row i at i · LANES.
"""

from __future__ import annotations

import numba
import numpy as np

from qiskit_qdeq.evaluation.jit import JIT
from qiskit_qdeq.evaluation.vectors import LANES, load, splat, store, total, where

#: Rows of T are padded to a multiple of it.
TILE = 4
#: Angles up to which the reduction by three parts of π/2 is exact to the last bit.
_LARGE_ANGLE = 1e5
#: Added to and subtracted from a number below 2**51 it leaves the nearest integer.
_ROUND = 6755399441055744.0
#: Options of kernels in which the order of operations matters.
ORDERED_JIT = {**JIT, "fastmath": {"contract", "nsz"}}


@numba.njit(inline="always")  # type: ignore[misc]
def sine_cosine(x, room):  # type: ignore[no-untyped-def]
    """Sines and cosines of a vector (Cody and Waite's reduction, Cephes' polynomials); `room` is for three vectors."""
    zero, one, half = splat(0.0), splat(1.0), splat(0.5)
    turns = (x * 0.6366197723675814 + _ROUND) - _ROUND
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
    # quarters of a turn from -2 to 2, and whether their number is odd
    quarter = turns - 4.0 * ((turns * 0.25 + _ROUND) - _ROUND)
    odd = turns - 2.0 * ((turns * 0.5 + _ROUND) - _ROUND)
    a = where(odd * odd, half, s, k)
    b = where(odd * odd, half, k, s)
    sine = where((quarter - 0.5) * (quarter - 0.5), half, a, zero - a)
    cosine = where((quarter + 0.5) * (quarter + 0.5), half, b, zero - b)
    if total(where(where(zero, x, x, zero - x), splat(_LARGE_ANGLE), zero, one)) > 0:
        store(room, 0, x)
        store(room, LANES, sine)
        store(room, 2 * LANES, cosine)
        for c in range(LANES):
            if not abs(room[c]) <= _LARGE_ANGLE:
                room[LANES + c] = np.sin(room[c])
                room[2 * LANES + c] = np.cos(room[c])
        sine, cosine = load(room, LANES), load(room, 2 * LANES)
    return sine, cosine


@numba.njit(inline="always")  # type: ignore[misc]
def _bloch(q, base, slopes, axes, starts, moves, r, dr, room, with_slopes):  # type: ignore[no-untyped-def]
    """Rows 3w + xyz of r: the Bloch vectors; rows (3w + xyz) K + k of dr: their derivatives along the states."""
    states = slopes.shape[1]
    for w in range(len(starts) - 1):
        for x in range(3):
            store(r, (3 * w + x) * LANES, splat(1.0 if x == 2 else 0.0))
            if with_slopes:
                for k in range(states):
                    store(dr, ((3 * w + x) * states + k) * LANES, splat(0.0))
        for g in range(starts[w], starts[w + 1]):
            i, j = 3 * w + (axes[g] + 1) % 3, 3 * w + (axes[g] + 2) % 3
            angle = load(base, g * LANES)
            for k in range(states):
                slope = slopes[g, k]
                if slope != 0.0:
                    angle += slope * load(q, k * LANES)
            sine, cosine = sine_cosine(angle, room)
            old, other = load(r, i * LANES), load(r, j * LANES)
            x, y = cosine * old - sine * other, sine * old + cosine * other
            store(r, i * LANES, x)
            store(r, j * LANES, y)
            if with_slopes:
                for k in range(states):
                    if moves[w, k]:
                        slope = slopes[g, k]
                        one, two = (i * states + k) * LANES, (j * states + k) * LANES
                        old, other = load(dr, one), load(dr, two)
                        store(dr, one, cosine * old - sine * other - slope * y)
                        store(dr, two, sine * old + cosine * other + slope * x)


@numba.njit(inline="always")  # type: ignore[misc]
def _kronecker(r, dims, slots, first, last, products):  # type: ignore[no-untyped-def]
    """Products of wires first..last, after those of every shorter run of leading wires; returns where they begin."""
    store(products, 0, splat(1.0))
    begin, size = 0, 1
    for w in range(first, last):
        after = begin + size
        for i in range(size):
            entry = load(products, (begin + i) * LANES)
            target = after + i * dims[w]
            store(products, target * LANES, entry)
            for p in range(1, dims[w]):
                store(products, (target + p) * LANES, entry * load(r, (3 * w + slots[w, p - 1]) * LANES))
        begin, size = after, size * dims[w]
    return begin


@numba.njit(inline="always")  # type: ignore[misc]
def _contract(tensor, vector, begin, out):  # type: ignore[no-untyped-def]
    """out <- tensor @ vector[begin:], `TILE` rows at a time."""
    for a in range(0, tensor.shape[0], TILE):
        one, two, three, four = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
        for b in range(tensor.shape[1]):
            x = load(vector, (begin + b) * LANES)
            one += tensor[a, b] * x
            two += tensor[a + 1, b] * x
            three += tensor[a + 2, b] * x
            four += tensor[a + 3, b] * x
        store(out, a * LANES, one)
        store(out, (a + 1) * LANES, two)
        store(out, (a + 2) * LANES, three)
        store(out, (a + 3) * LANES, four)


@numba.njit(inline="always")  # type: ignore[misc]
def _fold(rows, begin, r, dr, dims, slots, moves, first, last, products, j, jacobian, with_slopes):  # type: ignore[no-untyped-def]
    """Contract rows[begin:] with the vectors of wires first..last, in place, and add their share of row j of J."""
    states = moves.shape[1]
    size, start = 1, 0
    for w in range(first, last):
        start += size
        size *= dims[w]
    for back in range(last - first):
        w = last - 1 - back
        # a live wire has two or three components beside the constant one
        d = dims[w]
        size //= d
        start -= size
        one, two, three = 3 * w + slots[w, 0], 3 * w + slots[w, 1], 3 * w + slots[w, d - 2]
        x, y, z = load(r, one * LANES), load(r, two * LANES), load(r, three * LANES)
        slope_x, slope_y, slope_z = splat(0.0), splat(0.0), splat(0.0)
        for i in range(size):
            source = (begin + i * d) * LANES
            others = load(products, (start + i) * LANES)
            a, b = load(rows, source + LANES), load(rows, source + 2 * LANES)
            folded = load(rows, source) + a * x + b * y
            slope_x += others * a
            slope_y += others * b
            if d == 4:
                c = load(rows, source + 3 * LANES)
                folded += c * z
                slope_z += others * c
            store(rows, (begin + i) * LANES, folded)
        if with_slopes:
            for k in range(states):
                if moves[w, k]:
                    at = (j * states + k) * LANES
                    share = slope_x * load(dr, (one * states + k) * LANES)
                    share += slope_y * load(dr, (two * states + k) * LANES)
                    if d == 4:
                        share += slope_z * load(dr, (three * states + k) * LANES)
                    store(jacobian, at, load(jacobian, at) + share)


@numba.njit(inline="always")  # type: ignore[misc]
def evaluate(  # type: ignore[no-untyped-def]
    q, base, slopes, axes, starts, moves, dims, slots, split, count, tensor, turned,
    r, dr, room, left, right, work, values, jacobian, with_slopes,
):  # fmt: skip
    """Rows values[j] and, if asked for, jacobian[j K + k] at the lanes' states q."""
    live, states = len(dims), slopes.shape[1]
    _bloch(q, base, slopes, axes, starts, moves, r, dr, room, with_slopes)
    at_left = _kronecker(r, dims, slots, 0, split, left)
    at_right = _kronecker(r, dims, slots, split, live, right)
    size, other = 1, 1
    for w in range(split):
        size *= dims[w]
    for w in range(split, live):
        other *= dims[w]
    if with_slopes:
        for i in range(count * states):
            store(jacobian, i * LANES, splat(0.0))
        _contract(turned, left, at_left, work)
        for j in range(count):
            _fold(work, j * other, r, dr, dims, slots, moves, split, live, right, j, jacobian, True)
    _contract(tensor, right, at_right, work)
    for j in range(count):
        _fold(work, j * size, r, dr, dims, slots, moves, 0, split, left, j, jacobian, with_slopes)
        store(values, j * LANES, load(work, j * size * LANES))


@numba.njit(inline="always")  # type: ignore[misc]
def workspace(dims, split, states, tensor, turned):  # type: ignore[no-untyped-def]
    """r, dr, room, left, right and work of `evaluate`."""
    live = len(dims)
    sizes = np.ones(2, np.int64)
    rows = np.ones(2, np.int64)
    for w in range(live):
        half = 0 if w < split else 1
        sizes[half] *= dims[w]
        rows[half] += sizes[half]
    return (
        np.zeros(3 * live * LANES),
        np.zeros(3 * live * states * LANES),
        np.zeros(3 * LANES),
        np.zeros(rows[0] * LANES),
        np.zeros(rows[1] * LANES),
        np.zeros(max(tensor.shape[0], turned.shape[0]) * LANES),
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
    r, dr, room, left, right, work = workspace(dims, split, states, tensor, turned)
    q, here = np.zeros(states * LANES), np.zeros(len(axes) * LANES)
    m, jac = np.zeros(count * LANES), np.zeros(count * states * LANES)
    with_slopes = len(jacobian) > 0
    for first in range(begin, end, LANES):
        width = min(LANES, end - first)
        for c in range(width):
            for g in range(len(axes)):
                here[g * LANES + c] = base[g, rows[first + c]]
            for k in range(states):
                q[k * LANES + c] = state[first + c, k]
        evaluate(
            q, here, slopes, axes, starts, moves, dims, slots, split, count, tensor, turned,
            r, dr, room, left, right, work, m, jac, with_slopes,
        )  # fmt: skip
        for c in range(width):
            for j in range(count):
                values[first + c, j] = m[j * LANES + c]
                if with_slopes:
                    for k in range(states):
                        jacobian[first + c, j, k] = jac[(j * states + k) * LANES + c]
