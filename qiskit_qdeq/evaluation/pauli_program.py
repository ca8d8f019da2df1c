"""Noisy gates fused and laid out for the compiled sweeps of `pauli_kernels`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from qiskit.circuit import Parameter

from qiskit_qdeq.evaluation import pauli_kernels
from qiskit_qdeq.evaluation.expressions import AngleMap
from qiskit_qdeq.evaluation.noisy_circuit import NoisyGate
from qiskit_qdeq.evaluation.vectors import LANES

Array = np.ndarray[Any, np.dtype[Any]]

#: Below this, entries are what rounding left of zero.
_ZERO = 1e-15


class PauliProgram:
    """A sequence of noisy gates on columns of 4ⁿ Pauli components.

    Args:
        gates: in order.
        parameters: of their angles, in the order of the values given later.

    Attributes:
        angle_map: parameter values -> the S angles.
    """

    def __init__(self, gates: Sequence[NoisyGate], parameters: Sequence[Parameter]) -> None:
        angles = [gate.angle for gate in gates if gate.angle is not None]
        self.angle_map = AngleMap(angles, parameters)
        slots = iter(range(len(angles)))
        blocks = _fused([_Block(*_sorted(gate), -1 if gate.angle is None else next(slots)) for gate in gates])
        self._forward = _table(blocks)
        self._backward = _table([_Block(b.qubits, b.terms.transpose(0, 2, 1), b.slot) for b in reversed(blocks)])

    def apply(self, states: Array, angles: Array, slopes: Array) -> None:
        """Sweep `states` (1 + R, 4ⁿ, C) in place at angles (S, C), with their slopes (S, R, C) along R directions.

        C is a multiple of `LANES`; states[1:] are derivatives of states[0].
        """
        pauli_kernels.sweep(*self._forward, np.cos(angles), np.sin(angles), slopes, states)

    def pull(self, observables: Array, angles: Array) -> Array:
        """Observables (M, 4ⁿ) after the gates at shared angles (S,) -> those before them that have the same values."""
        out = _columns(observables)[None]
        shape = (len(angles), out.shape[2])
        spread = np.broadcast_to(np.asarray(angles)[:, None], shape)
        pauli_kernels.sweep(*self._backward, np.cos(spread), np.sin(spread), np.empty((len(angles), 0, shape[1])), out)
        return np.ascontiguousarray(out[0, :, : len(observables)].T)

    def gradient(self, observables: Array, states: Array, angles: Array) -> Array:
        """∂/∂angles (S,) of Σ_m <observable m, T states m> for observables and states (M, 4ⁿ)."""
        spread = np.repeat(np.asarray(angles)[:, None], LANES, axis=1)
        cosines, sines = np.cos(spread), np.sin(spread)
        gradient = np.zeros(len(angles))
        for first in range(0, len(observables), LANES):
            after = _columns(observables[first : first + LANES])
            before = _columns(states[first : first + LANES])
            history = np.empty((len(angles), *after.shape))
            pauli_kernels.sweep_recorded(*self._backward, cosines, sines, history, after)
            pauli_kernels.angle_gradients(*self._forward, cosines, sines, history, before, gradient)
        return gradient


def padded(count: int) -> int:
    """The least multiple of `LANES` of at least this."""
    return -(-count // LANES) * LANES


def _columns(rows: Array) -> Array:
    """Rows (M, 4ⁿ) as columns (4ⁿ, C), padded with zeros."""
    out = np.zeros((rows.shape[1], padded(len(rows))))
    out[:, : len(rows)] = rows.T
    return out


@dataclass(frozen=True, eq=False)
class _Block:
    """Fused gates on ascending qubits, of which at most one has an angle."""

    qubits: tuple[int, ...]
    terms: Array
    slot: int

    @property
    def entries(self) -> float:
        """Multiplications per component of a state, but for a constant factor."""
        rows = _changed(self.terms)
        return float(np.abs(self.terms[:, rows]).any(axis=0).sum()) / len(self.terms[0])


def _sorted(gate: NoisyGate) -> tuple[tuple[int, ...], Array]:
    if len(gate.qubits) == 1 or gate.qubits[0] < gate.qubits[1]:
        return gate.qubits, gate.terms
    swap = np.arange(16).reshape(4, 4).T.ravel()
    return gate.qubits[::-1], gate.terms[:, swap][:, :, swap]


def _fused(gates: Sequence[_Block]) -> list[_Block]:
    """Neighbours made one where that saves work: products of sparse matrices may have more entries than both."""
    blocks: list[_Block | None] = []
    latest: dict[int, int] = {}
    for gate in gates:
        merged: _Block | None = gate
        for place in sorted({latest[qubit] for qubit in gate.qubits if qubit in latest}, reverse=True):
            before = blocks[place]
            if merged is None or before is None or not _saves(merged, before):
                continue
            if set(merged.qubits) < set(before.qubits):
                blocks[place], merged = _product(merged, before), None
            elif all(latest[qubit] == place for qubit in before.qubits):
                blocks[place], merged = None, _product(merged, before)
        if merged is not None:
            latest.update(dict.fromkeys(merged.qubits, len(blocks)))
            blocks.append(merged)
    return [block for block in blocks if block is not None]


def _saves(after: _Block, before: _Block) -> bool:
    qubits = {*after.qubits, *before.qubits}
    if len(qubits) > max(len(after.qubits), len(before.qubits)) or (after.slot >= 0 and before.slot >= 0):
        return False
    return len(qubits) == 1 or _product(after, before).entries <= after.entries + before.entries


def _product(after: _Block, before: _Block) -> _Block:
    qubits = tuple(sorted({*after.qubits, *before.qubits}))
    left, right = _embedded(after, qubits), _embedded(before, qubits)
    return _Block(qubits, left @ right, max(after.slot, before.slot))


def _embedded(block: _Block, qubits: tuple[int, ...]) -> Array:
    if block.qubits == qubits:
        return block.terms
    one = np.eye(4)
    low = block.qubits[0] == qubits[0]
    return np.array([np.kron(one, term) if low else np.kron(term, one) for term in block.terms])


def _changed(terms: Array) -> Array:
    """Rows (local,) that are not those of the identity."""
    fixed = np.abs(terms[0] - np.eye(len(terms[0]))).max(axis=1)
    turned = np.abs(terms[1:]).max(axis=(0, 2), initial=0)
    result: Array = (fixed > _ZERO) | (turned > _ZERO)
    return result


def _table(blocks: Sequence[_Block]) -> tuple[Array, ...]:
    """qubits (G, 2), first row of each gate (G + 1,), rows, first entry of each row, columns, terms (entries, 3), slots."""
    qubits = np.array([(*block.qubits, -1)[:2] for block in blocks], dtype=np.int64).reshape(-1, 2)
    first_rows, starts = [0], [0]
    rows: list[int] = []
    columns: list[int] = []
    terms: list[Array] = []
    for block in blocks:
        full = np.zeros((3, *block.terms.shape[1:]))
        full[: len(block.terms)] = block.terms
        for row in np.flatnonzero(_changed(block.terms)).tolist():
            found = np.flatnonzero(np.abs(full[:, row]).max(axis=0) > _ZERO)
            rows.append(row)
            columns.extend(found)
            terms.extend(full[:, row, found].T)
            starts.append(len(columns))
        first_rows.append(len(rows))
    return (
        qubits,
        *(np.array(values, dtype=np.int64) for values in (first_rows, rows, starts, columns)),
        np.array(terms).reshape(-1, 3),
        np.array([block.slot for block in blocks], dtype=np.int64),
    )
