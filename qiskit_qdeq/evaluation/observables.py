"""Expectation values of many Pauli observables at once, on planar state columns (2, 2**n, columns).

A Pauli string with bit masks x, z acts as P|s> = i^{|x∧z|} (-1)^{z·s} |s⊕x>. Strings that share x differ only in the sign
pattern (-1)^{z·s}, so all of them come from one product array conj(φ[s⊕x]) φ[s] and one sign-table product, or one
Walsh-Hadamard transform where there are many (never one pass per observable).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from qiskit.quantum_info import SparsePauliOp

from qiskit_qdeq.evaluation import kernels
from qiskit_qdeq.evaluation.threads import run_parts, split_columns

Array = np.ndarray[Any, np.dtype[Any]]

#: Sign tables up to this many entries are multiplied; larger ones are replaced by a transform.
_TABLE_LIMIT = 1 << 15


class Observables:
    """A compiled list of F Pauli-sum observables on n qubits.

    `expectations` gives <φ_c|M_f|φ_c> (F, C) of unnormalized columns, `weighted` the columns Σ_f w_fc M_f φ_c.
    """

    def __init__(self, observables: Sequence[SparsePauliOp], dtype: Any = np.float64) -> None:
        self.num_observables = len(observables)
        self.num_qubits = observables[0].num_qubits
        self.dim = 2**self.num_qubits
        terms: dict[tuple[int, int], Array] = {}
        self._terms = terms
        for row, observable in enumerate(observables):
            for pauli, coefficient in zip(observable.paulis, observable.coeffs, strict=True):
                x, z = (int(sum(1 << q for q in np.flatnonzero(bits))) for bits in (pauli.x, pauli.z))
                sign = {0: 1.0, 2: -1.0}[int(pauli.phase)]
                column = terms.setdefault((x, z), np.zeros(self.num_observables))
                column[row] += sign * float(np.real(coefficient))
        self._groups = [
            _Group(x, [z for other, z in terms if other == x], terms, self.dim, dtype)
            for x in sorted({x for x, _ in terms})
        ]
        #: Whether every observable is diagonal in the computational basis: all come from one measured distribution.
        self.is_diagonal = all(group.flip == 0 for group in self._groups)

    def among(self, others: Observables) -> Array | None:
        """For every observable the number of an equal one among `others`, or None if one of them has none there."""
        known = {others._key(row): row for row in reversed(range(others.num_observables))}
        found = [known.get(self._key(row)) for row in range(self.num_observables)]
        return None if None in found else np.array(found, dtype=np.int64)

    def _key(self, row: int) -> frozenset[tuple[tuple[int, int], float]]:
        return frozenset((masks, float(column[row])) for masks, column in self._terms.items() if column[row])

    @cached_property
    def table(self) -> Array:
        """Sign table (F, 2**n) of diagonal observables: M_f φ = table[f] ⊙ φ."""
        return self._groups[0].table()

    @cached_property
    def products(self) -> tuple[Array, Array | None]:
        """Bit masks of the products of Z in diagonal observables, and the coefficients (F, T) that mix them, if any do."""
        group = self._groups[0]
        masks, coefficients, _ = group._parts[0]
        return masks, None if group._single[0] else coefficients

    def expectations(self, states: Array) -> Array:
        """<φ_c|M_f|φ_c> for every column: (2, 2**n, C) -> (F, C)."""
        first, *rest = [group.expectations(states) for group in self._groups]
        for values in rest:
            first += values
        return first

    def weighted(self, states: Array, weights: Array) -> Array:
        """Σ_f weights[f, c] M_f φ_c: (2, 2**n, C), (F, C) -> (2, 2**n, C)."""
        first, *rest = [group.weighted(states, weights) for group in self._groups]
        for columns in rest:
            first += columns
        return first

    def cross(self, left: Array, right: Array) -> Array:
        """Re <left_c|M_f|right_rc>: (2, 2**n, C), (2, 2**n, R, C) -> (F, R, C)."""
        if self.is_diagonal:
            product = left[0, :, None] * right[0] + left[1, :, None] * right[1]
            values: Array = self.table @ product.reshape(self.dim, -1)
            return values.reshape(-1, *right.shape[2:])
        columns = left.shape[2]
        unit = np.eye(self.num_observables, dtype=left.dtype)
        rows = [
            np.einsum("xnc,xnrc->rc", self.weighted(left, np.repeat(unit[:, f : f + 1], columns, axis=1)), right)
            for f in range(self.num_observables)
        ]
        return np.stack(rows)

    def each(self, states: Array) -> Array:
        """M_f φ_c for every f and c, one column after the other: (2, 2**n, C) -> (F, C, 2, 2**n)."""
        if self.is_diagonal:
            return self.table[:, None, None, :] * np.ascontiguousarray(np.moveaxis(states, 2, 0))
        columns = states.shape[2]
        unit = np.eye(self.num_observables, dtype=states.dtype)
        moved = [
            self.weighted(states, np.repeat(unit[:, f : f + 1], columns, axis=1)) for f in range(self.num_observables)
        ]
        return np.ascontiguousarray(np.moveaxis(np.stack(moved), 3, 1))


class _Group:
    """The Pauli strings of a list that share the bit-flip mask x."""

    def __init__(self, flip: int, masks: list[int], terms: dict[tuple[int, int], Array], dim: int, dtype: Any) -> None:
        self.flip = flip
        self._dim, self._dtype = dim, np.dtype(dtype)
        turns = [(flip & z).bit_count() for z in masks]
        # i^turns is real for an even and imaginary for an odd number of Y: two real sign patterns.
        self._parts: list[tuple[Array, Array, bool]] = []
        for odd in (False, True):
            chosen = [(z, turn) for z, turn in zip(masks, turns, strict=True) if turn % 2 == odd]
            if chosen:
                signs = [(-1.0) ** (turn // 2) for _, turn in chosen]
                coefficients = np.stack(
                    [sign * terms[flip, z] for (z, _), sign in zip(chosen, signs, strict=True)], axis=1
                )
                self._parts.append((np.array([z for z, _ in chosen]), coefficients.astype(dtype), odd))
        size = sum(len(masks) for masks, _, _ in self._parts) * dim
        #: Whether observable f is just string f, so that the mixing product can be left out.
        self._single = [np.array_equal(mix, np.eye(len(mix))) for _, mix, _ in self._parts]
        self._use_transform = size > _TABLE_LIMIT
        self._tables = [] if self._use_transform else [self.table(part) for part in range(len(self._parts))]
        self._order = np.arange(dim) ^ flip

    def table(self, part: int = 0) -> Array:
        """Σ_t coefficients[f, t] (-1)^{z_t·s} as an (F, 2**n) sign table."""
        masks, coefficients, _ = self._parts[part]
        parity = np.bitwise_count(masks[:, None] & np.arange(self._dim)[None, :]) & 1
        return np.ascontiguousarray(coefficients @ (1.0 - 2.0 * parity).astype(coefficients.dtype))

    def expectations(self, states: Array) -> Array:
        re, im = states
        total: Array | None = None
        for part, (masks, coefficients, odd) in enumerate(self._parts):
            if self.flip == 0:
                density = re * re
                density += im * im
            else:
                re_flip, im_flip = re[self._order], im[self._order]
                # conj(φ[s⊕x]) φ[s]: its real part, or i times it for an odd number of Y
                density = -(re_flip * im - im_flip * re) if odd else re_flip * re + im_flip * im
            if self._use_transform:
                _transform(density)
                values = density[masks] if self._single[part] else coefficients @ density[masks]
            else:
                values = self._tables[part] @ density
            total = values if total is None else total + values
        assert total is not None
        return total

    def weighted(self, states: Array, weights: Array) -> Array:
        out: Array | None = None
        for part, (masks, coefficients, odd) in enumerate(self._parts):
            if self._use_transform:
                pattern = np.zeros((self._dim, states.shape[2]), dtype=states.dtype)
                pattern[masks] = weights if self._single[part] else coefficients.T @ weights
                _transform(pattern)
            else:
                pattern = self._tables[part].T @ weights
            if self.flip == 0:
                columns = states * pattern
            else:
                turned = np.stack([-states[1], states[0]]) if odd else states
                columns = (turned * pattern)[:, self._order]
            out = columns if out is None else out + columns
        assert out is not None
        return out


def _transform(values: Array) -> None:
    run_parts(kernels.walsh_hadamard, [(values, a, b) for a, b in split_columns(*values.shape)])
