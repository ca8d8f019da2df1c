"""A circuit over inputs and weights taken apart into encoder and ansatz, where nothing trainable stands before an input.

What stands before a gate that holds an input, on its qubits or on those these were joined with, is the encoder; the rest is
the ansatz. Where a weight stands there too (data re-uploading with trainable angles), all of it is the encoder, of which the
weights are further inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from qiskit import QuantumCircuit
from qiskit.circuit import Barrier, Parameter, ParameterExpression
from qiskit.circuit.library import get_standard_gate_name_mapping
from qiskit.quantum_info import SparsePauliOp

from qiskit_qdeq.circuits.ansatz import Ansatz
from qiskit_qdeq.circuits.encoders import CircuitEncoder
from qiskit_qdeq.circuits.template import CircuitTemplate
from qiskit_qdeq.exceptions import InputError


@dataclass(frozen=True)
class SplitCircuit:
    """Encoder and ansatz of a circuit; the last `weight_inputs` inputs of the encoder are weights."""

    encoder: CircuitEncoder
    ansatz: Ansatz
    weight_inputs: int

    def template(
        self, state_observables: Sequence[SparsePauliOp] | None, readout: Sequence[SparsePauliOp]
    ) -> CircuitTemplate:
        """The template of a model with these observables; see `CircuitTemplate`."""
        return CircuitTemplate(self.encoder, self.ansatz, state_observables=state_observables, readout=readout)


def split_circuit(circuit: QuantumCircuit, inputs: Sequence[Parameter], weights: Sequence[Parameter]) -> SplitCircuit:
    """Encoder and ansatz of a circuit.

    Raises:
        InputError: if there are no inputs or no weights, or the circuit is not unitary.

    >>> from qiskit.circuit import ParameterVector
    >>> x, w = ParameterVector("x", 1), ParameterVector("w", 2)
    >>> circuit = QuantumCircuit(1)
    >>> for angle in (x[0], w[0], w[1]):
    ...     _ = circuit.ry(angle, 0)
    >>> split = split_circuit(circuit, list(x), list(w))
    >>> split.encoder.circuit.size(), split.ansatz.circuit.size(), split.weight_inputs
    (1, 2, 0)
    >>> _ = circuit.ry(x[0], 0)
    >>> split_circuit(circuit, list(x), list(w)).weight_inputs
    2
    """
    if not inputs:
        raise InputError("the circuit has no inputs, into which a state could be fed back")
    if not weights:
        raise InputError("the circuit has no weights, so that there is nothing to train")
    known, trained = set(inputs), set(weights)
    opened = _opened(circuit, known, trained)
    before, after = opened.copy_empty_like(), opened.copy_empty_like()
    encoder, ansatz = [], []
    needed: set[Any] = set()
    for item in reversed(opened.data):
        if isinstance(item.operation, Barrier):
            continue
        held = _held(item.operation)
        if held & known or needed.intersection(item.qubits):
            if held & trained:
                nothing = QuantumCircuit(opened.num_qubits)
                return SplitCircuit(CircuitEncoder(opened, [*inputs, *weights]), Ansatz(nothing, ()), len(weights))
            needed.update(item.qubits)
            encoder.append(item)
        else:
            ansatz.append(item)
    for part, items in ((before, encoder), (after, ansatz)):
        # they do not change expectation values, and may hold parameters of the other part
        part.global_phase = 0
        for item in reversed(items):
            part.append(item)
    return SplitCircuit(CircuitEncoder(before, inputs), Ansatz(after, tuple(weights)), 0)


def _held(operation: Any) -> set[Parameter]:
    return {q for p in operation.params if isinstance(p, ParameterExpression) for q in p.parameters}


def _opened(circuit: QuantumCircuit, known: set[Parameter], trained: set[Parameter]) -> QuantumCircuit:
    """The circuit with composite gates that hold inputs and weights opened."""
    library = get_standard_gate_name_mapping()

    def mixed(operation: Any) -> bool:
        held = _held(operation)
        return bool(held & known and held & trained) and operation.name not in library and bool(operation.definition)

    while names := {item.operation.name for item in circuit.data if mixed(item.operation)}:
        circuit = circuit.decompose(list(names))
    return circuit
