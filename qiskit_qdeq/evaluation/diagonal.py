"""Compiled passes over planar columns (2, 2**n, B) for diagonal observables, `LANES` samples at once.

The expectation values of all products of Z are one Walsh-Hadamard transform of |φ_s|², and the cotangents of all of them one
transform back to a pattern over s. With the state's own part,

    φ = ψ + w q,    h_f = Σ_s (-1)^{z_f·s} |φ_s|² / d,                                                         `observe`
    y_s = (Σ_f c_f (-1)^{z_f·s} + Σ_j λ_j M_js) φ_s / d,   (1 - Jᵀ) λ = 2 (Re w†y_c - (Σ_f c_f h_f) Pᵀu) / d,      `pull`

each is one pass in which a sample's amplitudes stay in the cache. The last group of samples reaches back over samples
already done rather than past the end, so B must be at least `LANES`.
"""

from __future__ import annotations

import numba
import numpy as np

from qiskit_qdeq.evaluation.jit import JIT
from qiskit_qdeq.evaluation.lanes import load_adjoint, solve_rows
from qiskit_qdeq.evaluation.vectors import LANES, load, splat, store


@numba.njit(inline="always")  # type: ignore[misc]
def _transform(rows, dim):  # type: ignore[no-untyped-def]
    """rows[t] <- Σ_s (-1)^{s·t} rows[s], two levels in each pass."""
    half = 1
    while 4 * half <= dim:
        for block in range(0, dim, 4 * half):
            for i in range(block, block + half):
                a, b = load(rows, i * LANES), load(rows, (i + half) * LANES)
                c, d = load(rows, (i + 2 * half) * LANES), load(rows, (i + 3 * half) * LANES)
                s, t, u, v = a + b, a - b, c + d, c - d
                store(rows, i * LANES, s + u)
                store(rows, (i + half) * LANES, t + v)
                store(rows, (i + 2 * half) * LANES, s - u)
                store(rows, (i + 3 * half) * LANES, t - v)
        half *= 4
    if half < dim:
        for i in range(half):
            a, b = load(rows, i * LANES), load(rows, (i + half) * LANES)
            store(rows, i * LANES, a + b)
            store(rows, (i + half) * LANES, a - b)


@numba.njit(**JIT)  # type: ignore[misc]
def mix(matrix, injection, table, injected, mixed, quadratic):  # type: ignore[no-untyped-def]
    """w = V P, 2 Re w_k† M_j V (K · K, D) and C (K, K, K) for a small planar V as a matrix (2·2**n, D)."""
    dim, size = table.shape[1], injection.shape[1]
    for i in range(mixed.shape[0]):
        for d in range(mixed.shape[1]):
            mixed[i, d] = 0
    for r in range(matrix.shape[0]):
        for k in range(size):
            entry = 0.0
            for d in range(matrix.shape[1]):
                entry += matrix[r, d] * injection[d, k]
            injected[r, k] = entry
            for j in range(size):
                x = 2 * table[j, r % dim] * injected[r, k]
                for d in range(matrix.shape[1]):
                    mixed[j * size + k, d] += x * matrix[r, d]
    for j in range(size):
        for k in range(size):
            for l in range(size):  # noqa: E741
                entry = 0.0
                for d in range(matrix.shape[1]):
                    entry += mixed[j * size + k, d] * injection[d, l]
                quadratic[j, k, l] = 0.5 * entry


@numba.njit(inline="always")  # type: ignore[misc]
def expect_group(columns, table, at, sums):  # type: ignore[no-untyped-def]
    """sums[k] <- Σ_s table[k, s] |φ_s|² for the group of samples at `at`."""
    size, dim = table.shape
    batch = columns.shape[2]
    for i in range(size * LANES):
        sums[i] = 0.0
    for s in range(dim):
        re, im = load(columns, s * batch + at), load(columns, (dim + s) * batch + at)
        density = re * re + im * im
        for k in range(size):
            store(sums, k * LANES, load(sums, k * LANES) + float(table[k, s]) * density)


@numba.njit(inline="always")  # type: ignore[misc]
def observe_group(encoded, injected, q, norm, masks, at, moved, columns, values, rows):  # type: ignore[no-untyped-def]
    """`observe` for the group of samples at `at`, from rows q and d; `rows` is room to work, one for each s and one more."""
    _, dim, size = injected.shape
    batch = encoded.shape[2]
    for s in range(dim):
        here, below = s * batch + at, (dim + s) * batch + at
        re, im = load(encoded, here), load(encoded, below)
        if moved:
            for k in range(size):
                x = load(q, k * LANES)
                re += float(injected[0, s, k]) * x
                im += float(injected[1, s, k]) * x
            store(columns, here, re)
            store(columns, below, im)
        store(rows, s * LANES, re * re + im * im)
    _transform(rows, dim)
    store(rows, dim * LANES, 1.0 / norm)
    for c in range(LANES):
        for f in range(len(masks)):
            values[at + c, f] = rows[masks[f] * LANES + c] * rows[dim * LANES + c]


@numba.njit(**JIT)  # type: ignore[misc]
def expect(columns, table, first, last, out):  # type: ignore[no-untyped-def]
    """out (K, B) <- Σ_s table[k, s] |φ_s|² for samples first..last."""
    size, batch = out.shape
    sums = np.empty(size * LANES)
    for start in range(first, last, LANES):
        at = min(start, last - LANES)
        expect_group(columns, table, at, sums)
        for k in range(size):
            store(out, k * batch + at, load(sums, k * LANES))


@numba.njit(**JIT)  # type: ignore[misc]
def observe(encoded, injected, state, norms, masks, first, last, moved, columns, values):  # type: ignore[no-untyped-def]
    """columns <- ψ + w q if `moved` (else they are ψ), values (B, F) <- expectation values of the Z products `masks`."""
    _, dim, size = injected.shape
    rows, q = np.empty((dim + 1) * LANES), np.empty(size * LANES)
    for start in range(first, last, LANES):
        at = min(start, last - LANES)
        for c in range(LANES):
            for k in range(size):
                q[k * LANES + c] = state[at + c, k]
        observe_group(encoded, injected, q, load(norms, at), masks, at, moved, columns, values, rows)


@numba.njit(**JIT)  # type: ignore[misc]
def pull(  # type: ignore[no-untyped-def]
    columns, cotangent, norms, masks, first, last, implicit, injected, table, slope, jacobian, adjoint, pulled,
):  # fmt: skip
    """pulled <- the columns y that cotangents (B, F) of `observe`'s values pull back, with λ (B, K) if `implicit`.

    For λ it takes the slopes ∂d/∂q = 2 Pᵀu (K, B) and the Jacobians (K · K, B).
    """
    _, dim, size = injected.shape
    batch = columns.shape[2]
    rows, scale = np.empty(dim * LANES), np.empty(LANES)
    lu, rhs = np.empty(2 * size * size * LANES), np.empty(2 * size * LANES)
    matrix, vector = np.empty((size, size)), np.empty(size)
    for start in range(first, last, LANES):
        at = min(start, last - LANES)
        inverse = 1.0 / load(norms, at)
        store(scale, 0, inverse)
        for i in range(dim * LANES):
            rows[i] = 0.0
        for c in range(LANES):
            for f in range(len(masks)):
                rows[masks[f] * LANES + c] = cotangent[at + c, f] * scale[c]
        _transform(rows, dim)
        if implicit:
            for i in range(size * LANES):
                rhs[i] = 0.0
            shift = splat(0.0)
            for s in range(dim):
                pattern = load(rows, s * LANES)
                re, im = load(columns, s * batch + at), load(columns, (dim + s) * batch + at)
                x, y = pattern * re, pattern * im
                shift += x * re + y * im
                for k in range(size):
                    part = float(injected[0, s, k]) * x + float(injected[1, s, k]) * y
                    store(rhs, k * LANES, load(rhs, k * LANES) + part)
            shift *= inverse
            for k in range(size):
                store(rhs, k * LANES, 2.0 * load(rhs, k * LANES) - shift * load(slope, k * batch + at))
            load_adjoint(lu, jacobian, at, size)
            solve_rows(lu, rhs, matrix, vector)
            for k in range(size):
                for c in range(LANES):
                    adjoint[at + c, k] = rhs[k * LANES + c]
                store(rhs, k * LANES, load(rhs, k * LANES) * inverse)
        for s in range(dim):
            pattern = load(rows, s * LANES)
            if implicit:
                for k in range(size):
                    pattern += float(table[k, s]) * load(rhs, k * LANES)
            store(pulled, s * batch + at, pattern * load(columns, s * batch + at))
            store(pulled, (dim + s) * batch + at, pattern * load(columns, (dim + s) * batch + at))
