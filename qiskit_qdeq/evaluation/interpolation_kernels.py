"""Compiled loops that find multilinear coefficients from values at products of one-qubit states; see `bloch`."""

from __future__ import annotations

import numba
import numpy as np

from qiskit_qdeq.evaluation.bloch_kernels import ORDERED_JIT


@numba.njit(**ORDERED_JIT)  # type: ignore[misc]
def expand(columns, spinors, dims, first, rows, work):  # type: ignore[no-untyped-def]
    """Rows of V from `first` on times product states: planar (2, 2**n, 2**live) -> (2, Π dims · rows) in work[live % 2].

    `spinors` (live, 4, 2, 2) are the dims[w] one-qubit states of every wire, (component, re/im), the first one real.
    """
    live = len(dims)
    # entry i of row s at i · rows + s: the innermost loops run over all finished wires and all rows
    one, two = work[0], work[1]
    for i in range(columns.shape[2]):
        for s in range(rows):
            one[0, i * rows + s] = columns[0, first + s, i]
            one[1, i * rows + s] = columns[1, first + s, i]
    rest, done = columns.shape[2], rows
    for back in range(live):
        w = live - 1 - back
        rest //= 2
        d = dims[w]
        for i in range(rest):
            low = 2 * i * done
            high = low + done
            for p in range(d):
                x, y, z = spinors[w, p, 0, 0], spinors[w, p, 1, 0], spinors[w, p, 1, 1]
                target = (i * d + p) * done
                if z == 0.0:
                    for part in range(2):
                        for k in range(done):
                            two[part, target + k] = x * one[part, low + k] + y * one[part, high + k]
                else:
                    for k in range(done):
                        two[0, target + k] = x * one[0, low + k] + y * one[0, high + k] - z * one[1, high + k]
                        two[1, target + k] = x * one[1, low + k] + y * one[1, high + k] + z * one[0, high + k]
        done *= d
        one, two = two, one


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
