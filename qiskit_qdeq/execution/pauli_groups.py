"""Which bases a set of observables is measured in, and what each observable is worth on the outcomes of each basis.

    O = offset + Σ_g f_g(bits of group g)

Products of X, Y, Z (and of their projectors) that need no qubit in two bases share a group, hence its executions; all
diagonal ones share the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np

from qiskit_qdeq.evaluation.protocol import Array

# letter of a sparse observable -> measured axis and its eigenvalues on outcomes 0 and 1
_LETTERS = {
    "Z": ("Z", (1, -1)),
    "0": ("Z", (1, 0)),
    "1": ("Z", (0, 1)),
    "X": ("X", (1, -1)),
    "+": ("X", (1, 0)),
    "-": ("X", (0, 1)),
    "Y": ("Y", (1, -1)),
    "r": ("Y", (1, 0)),
    "l": ("Y", (0, 1)),
}
_Term = dict[int, tuple[str, tuple[int, int]]]


@dataclass(frozen=True)
class MeasuredGroup:
    """One measurement basis.

    Attributes:
        qubits: measured qubits, ascending; bit i of an outcome is that of `qubits[i]`.
        axes: "X", "Y" or "Z" for each of them.
        worth: observable -> its values f_g (2^k,) on the outcomes.
    """

    qubits: tuple[int, ...]
    axes: tuple[str, ...]
    worth: dict[int, Array]


def measured_groups(observables: Sequence[dict[str, float]]) -> tuple[Array, list[MeasuredGroup]]:
    """Sort the terms of observables into qubit-wise commuting groups.

    Args:
        observables: label -> coefficient, rightmost letter qubit 0, for each of M observables.

    Returns:
        offsets (M,), the multiples of the identity, and the groups.
    """
    offsets = np.zeros(len(observables))
    terms: dict[str, list[tuple[int, float]]] = {}
    for index, observable in enumerate(observables):
        for label, coefficient in observable.items():
            if set(label) <= {"I"}:
                offsets[index] += coefficient
            else:
                terms.setdefault(label, []).append((index, coefficient))
    bases: list[dict[int, str]] = []
    members: list[list[str]] = []
    factors = {label: _factors(label) for label in terms}
    for label in sorted(terms, key=lambda label: any(axis != "Z" for axis, _ in factors[label].values())):
        axes = {qubit: axis for qubit, (axis, _) in factors[label].items()}
        for basis, group in zip(bases, members, strict=True):
            if all(basis.get(qubit, axis) == axis for qubit, axis in axes.items()):
                basis.update(axes)
                group.append(label)
                break
        else:
            bases.append(axes)
            members.append([label])
    return offsets, [
        _group(basis, {label: factors[label] for label in group}, terms)
        for basis, group in zip(bases, members, strict=True)
    ]


def _factors(label: str) -> _Term:
    return {qubit: _LETTERS[letter] for qubit, letter in enumerate(reversed(label)) if letter != "I"}


def _group(
    basis: dict[int, str], factors: dict[str, _Term], terms: dict[str, list[tuple[int, float]]]
) -> MeasuredGroup:
    qubits = tuple(sorted(basis))
    worth: dict[int, Array] = {}
    for label, factor in factors.items():
        columns = [np.asarray(factor[qubit][1] if qubit in factor else (1, 1), dtype=float) for qubit in qubits]
        # bit 0 of an outcome varies fastest, so its factor stands last
        values = reduce(np.kron, reversed(columns))
        for index, coefficient in terms[label]:
            worth[index] = worth.get(index, 0.0) + coefficient * values
    return MeasuredGroup(qubits, tuple(basis[qubit] for qubit in qubits), worth)
