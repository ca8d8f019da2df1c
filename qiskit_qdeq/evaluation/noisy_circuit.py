"""A noisy circuit in plain arrays: every gate and every noise channel is a real matrix on Pauli components.

    r_P = tr(P ρ),    O = Σ_P o_P P,    <O> = Σ_P o_P r_P,    T_PQ = tr(P E(Q)) / 2^k,

so that a channel E does r <- T r (and o <- Tᵀ o in the Heisenberg picture), and a rotation exp(-i a G / 2), G² = 1, is

    T(a) = (1 + T_G) / 2 + cos a (1 - T_G) / 2 + sin a T_{ρ -> -i [G, ρ] / 2}.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from qiskit.circuit import ParameterExpression
from qiskit.quantum_info import Pauli, SparsePauliOp

from qiskit_qdeq.evaluation.program import Gate
from qiskit_qdeq.exceptions import InputError

Array = np.ndarray[Any, np.dtype[Any]]

#: Most qubits whose observables are propagated: 4⁸ components are 0.5 MB, and the gradient keeps them for every angle.
_LARGEST = 8
_LETTERS = "IXYZ"


@dataclass(frozen=True, eq=False)
class NoisyGate:
    """A linear map of the Pauli components of some qubits.

    Attributes:
        qubits: k of them; the first has the least significant base-4 digit of a component's number.
        terms: (1, 4^k, 4^k), or (3, 4^k, 4^k): what does not depend on the angle, what goes with its cosine and its sine.
        angle: in radians; None if it has none.
    """

    qubits: tuple[int, ...]
    terms: Array
    angle: ParameterExpression | None = None


@dataclass(frozen=True, eq=False)
class NoisyCircuit:
    """What a noisy circuit does, whoever made the noise.

    Attributes:
        num_qubits: n, qubits that the circuit uses.
        gates: gates and channels in order, over free parameters.
        observables: (M, 4ⁿ) components of the measured observables, what readout does to them included.
    """

    num_qubits: int
    gates: tuple[NoisyGate, ...]
    observables: Array


def check_size(num_qubits: int) -> None:
    """Refuse circuits of too many qubits, before their observables are written out.

    Raises:
        InputError: with the limit.
    """
    if num_qubits > _LARGEST:
        raise InputError(
            f"the transpiled circuit uses {num_qubits} qubits, more than the {_LARGEST} whose noise is computed exactly; "
            "measure it instead, with QDEQModel.measured or backend 'aer' or 'fake:NAME'"
        )


def noisy_gate(gate: Gate, qubits: tuple[int, ...]) -> NoisyGate:
    """A gate without noise, on qubits of a noisy circuit.

    Raises:
        InputError: if its generator has other eigenvalues than ±1, as controlled rotations have.
    """
    if gate.angle is None:
        return NoisyGate(qubits, pauli_transfer(gate.matrix)[None])
    flip = pauli_transfer(gate.matrix)
    one = np.eye(len(flip))
    if not np.allclose(gate.matrix @ gate.matrix, np.eye(len(gate.matrix)), atol=1e-12):
        raise InputError("controlled rotations must be transpiled to plain ones before noise is attached to them")
    paulis = _paulis(len(qubits))
    commutators = -0.5j * (gate.matrix @ paulis - paulis @ gate.matrix)
    turn = np.einsum("iab,jba->ij", paulis, commutators).real / len(gate.matrix)
    return NoisyGate(qubits, np.stack([(one + flip) / 2, (one - flip) / 2, turn]), gate.angle)


def pauli_transfer(unitary: Array) -> Array:
    """T (4^k, 4^k) of ρ -> U ρ U†."""
    paulis = _paulis(int(np.log2(len(unitary))))
    moved = unitary @ paulis @ unitary.conj().T
    result: Array = np.einsum("iab,jba->ij", paulis, moved).real / len(unitary)
    return result


def pauli_components(observables: Sequence[SparsePauliOp], qubits: Sequence[int], letters: Array) -> Array:
    """Components (M, 4ⁿ) of observables on the qubits given, in their order.

    Args:
        observables: on any number of qubits, of which all outside of `qubits` see the identity.
        qubits: n of them.
        letters: (n, 4, 4), what is measured on each qubit instead of I, X, Y and Z, as components (I, X, Y, Z).
    """
    out = np.zeros((len(observables), 4 ** len(qubits)))
    for row, observable in enumerate(observables):
        for label, coefficient in observable.to_list():
            product = np.ones(1)
            for place, qubit in enumerate(qubits):
                product = np.kron(letters[place, _LETTERS.index(label[-1 - qubit])], product)
            out[row] += float(np.real(coefficient)) * product
    return out


@lru_cache(maxsize=4)
def _paulis(num_qubits: int) -> Array:
    """Matrices (4^k, 2^k, 2^k) of the Pauli strings, the first qubit's letter least significant."""
    labels = [""]
    for _ in range(num_qubits):
        labels = [letter + label for letter in _LETTERS for label in labels]
    return np.array([Pauli(label).to_matrix() for label in labels])
