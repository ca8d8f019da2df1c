"""Compiled loops that find multilinear coefficients from values at products of one-qubit states; see `bloch`."""

from __future__ import annotations

import numba
import numpy as np

from qiskit_qdeq.evaluation.bloch_kernels import ORDERED_JIT
from qiskit_qdeq.evaluation.vectors import LANES, load, splat, store


@numba.njit(**ORDERED_JIT)  # type: ignore[misc]
def expand(columns, head, spinors, dims, first, rows, work):  # type: ignore[no-untyped-def]
    """Rows of V from `first` on times product states; planar, node i of row s at i · rows + s of work[live % 2].

    Columns (2, 2**live, 2**n) of V, their last axis and `rows` multiples of `LANES`. `head` (2, 2**leading) is the state of
    the leading wires. `spinors` (live, 4, 2, 2) are the dims[w] one-qubit states of every other wire, (component, re/im),
    the first one real.
    """
    live = len(dims)
    plane, height = work.shape[2], columns.shape[2]
    one, two = 0, 2 * plane
    rest, done = columns.shape[1] // head.shape[1], rows
    for i in range(rest):
        for k in range(0, rows, LANES):
            re, im = splat(0.0), splat(0.0)
            for h in range(head.shape[1]):
                at = (h * rest + i) * height + first + k
                a, ai = load(columns, at), load(columns, columns.shape[1] * height + at)
                re += head[0, h] * a - head[1, h] * ai
                im += head[0, h] * ai + head[1, h] * a
            store(work, one + i * rows + k, re)
            store(work, one + plane + i * rows + k, im)
    for back in range(live):
        w = live - 1 - back
        rest //= 2
        d = dims[w]
        for i in range(rest):
            for k in range(0, done, LANES):
                low = one + 2 * i * done + k
                a, ai = load(work, low), load(work, low + plane)
                b, bi = load(work, low + done), load(work, low + done + plane)
                for p in range(d):
                    x, y, z = spinors[w, p, 0, 0], spinors[w, p, 1, 0], spinors[w, p, 1, 1]
                    target = two + (i * d + p) * done + k
                    # only with all three components of the Bloch vector are amplitudes complex
                    if d == 3:
                        store(work, target, x * a + y * b)
                        store(work, target + plane, x * ai + y * bi)
                    else:
                        store(work, target, x * a + y * b - z * bi)
                        store(work, target + plane, x * ai + y * bi + z * b)
        done *= d
        one, two = two, one


@numba.njit(**ORDERED_JIT)  # type: ignore[misc]
def square(amplitudes, out):  # type: ignore[no-untyped-def]
    """out <- |amplitudes|² of planar amplitudes (2, N), N a multiple of `LANES`."""
    for at in range(0, out.size, LANES):
        re, im = load(amplitudes, at), load(amplitudes, amplitudes.shape[1] + at)
        store(out, at, re * re + im * im)


@numba.njit(**ORDERED_JIT)  # type: ignore[misc]
def transform(values, matrices, dims):  # type: ignore[no-untyped-def]
    """values (J, Π dims) <- the matrix of every wire (live, 4, 4) applied along its axis, in place."""
    inner = values.shape[1]
    old = np.empty((4, inner))
    for w in range(len(dims)):
        d = dims[w]
        outer = values.shape[1] // inner
        inner //= d
        for j in range(values.shape[0]):
            for i in range(outer):
                start = i * d * inner
                for p in range(d):
                    for k in range(inner):
                        old[p, k] = values[j, start + p * inner + k]
                        values[j, start + p * inner + k] = 0.0
                for p in range(d):
                    for s in range(d):
                        x = matrices[w, p, s]
                        for k in range(inner):
                            values[j, start + p * inner + k] += x * old[s, k]
