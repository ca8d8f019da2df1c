"""Derivatives of every observable of every sample by itself, where training needs only sums of them.

With φ_b the columns after U(θ), and U = U_> exp(-i β_g G / 2) U_< around the gate of angle β_g,

    ∂<M>_b/∂β_g = 2 Re <φ_b|M ∂_g φ_b>,    ∂_g φ = U_> (-i/2 G) exp(-i β_g G / 2) U_< S(u_b)|0>,    ∂<M>/∂θ = ∂<M>/∂β ∂β/∂θ

All tangent columns ∂_g φ ride on one forward sweep: forward mode, because there are more outputs than a gradient has sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from qiskit_qdeq.evaluation.observables import Observables
from qiskit_qdeq.evaluation.program import BoundProgram

Array = np.ndarray[Any, np.dtype[Any]]

#: Bytes of tangent columns held at once.
_BYTES = 2**26


def weight_slopes(program: BoundProgram, encoded: Array, observables: Sequence[Observables]) -> Array:
    """∂<M>/∂θ (B, M, p) of all the observables, one list after the other.

    Args:
        program: U(θ).
        encoded: normalized columns before U, planar (2, 2**n, B).
        observables: the lists.
    """
    batch = encoded.shape[2]
    parts = []
    for rows in _blocks(batch, encoded.dtype.itemsize * encoded[:, :, :1].size * (1 + program.num_angles)):
        columns = program.tangents(np.ascontiguousarray(encoded[:, :, rows]))
        left, right = np.ascontiguousarray(columns[:, :, 0]), columns[:, :, 1:]
        parts.append(np.concatenate([2 * each.cross(left, right) for each in observables]).transpose(2, 0, 1))
    count = sum(each.num_observables for each in observables)
    slopes = np.concatenate(parts) if parts else np.zeros((0, count, program.num_angles))
    result: Array = slopes @ program.angle_slopes
    return result


def quotient_slopes(
    observables: Observables, values: Array, columns: Array, moved: Array, overlap: Array, norm: Array
) -> Array:
    """Derivatives of φ†Mφ / uᵀu with φ = V u along directions T: 2 (Re (V T)†M φ - <M> Tᵀu) / uᵀu, (B, M, R).

    Args:
        observables: M.
        values: <M> (B, M).
        columns: φ, planar (2, 2**n, B).
        moved: V T as a real matrix (2 · 2**n, R).
        overlap: Tᵀu (B, R).
        norm: uᵀu (B,).
    """
    parts = []
    for rows in _blocks(len(norm), columns.dtype.itemsize * len(moved) * observables.num_observables):
        turned = observables.each(np.ascontiguousarray(columns[:, :, rows]))
        product = turned.reshape(-1, len(moved)) @ moved
        parts.append(product.reshape(observables.num_observables, -1, moved.shape[1]).swapaxes(0, 1))
    slopes = np.concatenate(parts) if parts else np.zeros((0, observables.num_observables, moved.shape[1]))
    slopes = slopes - values[:, :, None] * overlap[:, None, :]
    slopes *= (2 / norm)[:, None, None]
    return slopes


def _blocks(batch: int, bytes_per_sample: int) -> list[slice]:
    size = max(1, _BYTES // bytes_per_sample)
    return [slice(first, first + size) for first in range(0, batch, size)]
