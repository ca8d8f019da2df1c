"""U(θ) on product states: qubits that no gate has joined yet are evolved apart, so that only the last gates see 2**n rows.

A circuit is cut into a tree. A node holds the gates that act on the qubits joined so far; where a gate joins two sets of
qubits a new node begins, whose input is the Kronecker product of its children's outputs, V = V_a ⊗ V_b. Backwards a
cotangent is split the same way, Λ_a = Λ · conj(V_b) summed over rows and columns of b.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit import Barrier, Instruction, Parameter

from qiskit_qdeq.evaluation.program import BoundProgram, GateProgram

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass
class _Node:
    """Qubits and those among them with two columns instead of one, both descending: the leading one comes first."""

    qubits: list[int]
    live: list[int]
    children: tuple[_Node, _Node] | None = None
    gates: list[tuple[Instruction, list[int]]] = field(default_factory=list)
    program: GateProgram | None = None

    def circuit(self) -> QuantumCircuit:
        """The node's gates on its own qubits, in the order of the whole circuit."""
        local = {qubit: len(self.qubits) - 1 - i for i, qubit in enumerate(self.qubits)}
        circuit = QuantumCircuit(len(self.qubits))
        for operation, qubits in self.gates:
            circuit.append(operation, [local[qubit] for qubit in qubits])
        return circuit


class ClusteredProgram:
    """V(θ), U(θ) on the states in which only some qubits are not |0>, with the gradient of all parameters.

    Args:
        circuit: the unitary circuit U.
        parameters: θ.
        live: the qubits that are not always |0>, descending, with the phase of their second basis state.
        dtype: float64 or float32.
    """

    def __init__(
        self, circuit: QuantumCircuit, parameters: Sequence[Parameter], live: dict[int, complex], dtype: Any
    ) -> None:
        self._live, self._dtype = live, np.dtype(dtype)
        self.root = self._tree(circuit)
        self.nodes = list(_descendants(self.root))
        for node in self.nodes:
            if node.gates:
                node.program = GateProgram(node.circuit(), parameters, dtype)

    def _tree(self, circuit: QuantumCircuit) -> _Node:
        latest = {q: _Node([q], [q] if q in self._live else []) for q in range(circuit.num_qubits)}
        index = {qubit: i for i, qubit in enumerate(circuit.qubits)}

        def join(qubits: Sequence[int]) -> _Node:
            node = latest[qubits[0]]
            for qubit in qubits[1:]:
                other = latest[qubit]
                if other is node:
                    continue
                joined = sorted(node.qubits + other.qubits, reverse=True)
                node = _Node(joined, [q for q in joined if q in self._live], (node, other))
                for q in joined:
                    latest[q] = node
            return node

        for item in circuit.data:
            if isinstance(item.operation, Barrier) or not item.qubits:
                continue
            qubits = [index[qubit] for qubit in item.qubits]
            join(qubits).gates.append((item.operation, qubits))
        return join(range(circuit.num_qubits))

    def bind(self, weights: Array) -> BoundClusters:
        """Sweep U(θ), cluster by cluster."""
        bound = {id(node): node.program.bind(weights) for node in self.nodes if node.program is not None}
        states: dict[int, Array] = {}
        for node in self.nodes:
            if node.children is None:
                start = self._leaf(node)
            else:
                a, b = node.children
                start = _joined(node, _complex(states[id(a)]), _complex(states[id(b)]))
            states[id(node)] = bound[id(node)].apply(start) if id(node) in bound else start
        return BoundClusters(self, bound, states, len(weights))

    def _leaf(self, node: _Node) -> Array:
        (qubit,) = node.qubits
        phase = self._live.get(qubit)
        columns = np.diag([1, 0 if phase is None else phase])[:, : 1 if phase is None else 2]
        return np.ascontiguousarray([columns.real, columns.imag], dtype=self._dtype)


class BoundClusters:
    """A `ClusteredProgram` at fixed weights."""

    def __init__(
        self, program: ClusteredProgram, bound: dict[int, BoundProgram], states: dict[int, Array], num_weights: int
    ) -> None:
        self._program, self._bound, self._states, self._num_weights = program, bound, states, num_weights
        #: V, planar (2, 2**n, 2**live).
        self.matrix = states[id(program.root)]

    def pull_back(self, cotangents: Array) -> Array:
        """Gradient (p,) of a scalar with differential 2 Re <cotangents, dV>; `cotangents` are overwritten."""
        gradient = np.zeros(self._num_weights)
        waiting = {id(self._program.root): cotangents}
        for node in reversed(self._program.nodes):
            here = waiting.pop(id(node))
            if id(node) in self._bound:
                states = self._states[id(node)].copy()
                gradient += self._bound[id(node)].pull_back(states, here, want_input=node.children is not None)
            if node.children is not None:
                a, b = node.children
                left, right = _complex(self._states[id(a)]), _complex(self._states[id(b)])
                waiting[id(a)], waiting[id(b)] = _split(node, left, right, _complex(here))
        return gradient


def _descendants(node: _Node) -> list[_Node]:
    """A node and all below it, children first."""
    below = [] if node.children is None else [n for child in node.children for n in _descendants(child)]
    return [*below, node]


def _axes(node: _Node) -> list[int]:
    """Where the axes of a node's array are found in the product of its children's, rows of both first."""
    assert node.children is not None
    a, b = node.children
    rows, columns = a.qubits + b.qubits, a.live + b.live
    return [rows.index(q) for q in node.qubits] + [len(rows) + columns.index(q) for q in node.live]


def _joined(node: _Node, a: Array, b: Array) -> Array:
    """V_a ⊗ V_b with the node's order of qubits, planar."""
    product = (a[:, None, :, None] * b[None, :, None, :]).reshape([2] * (len(node.qubits) + len(node.live)))
    ordered = product.transpose(_axes(node)).reshape(2 ** len(node.qubits), 2 ** len(node.live))
    return np.stack([ordered.real, ordered.imag])


def _split(node: _Node, a: Array, b: Array, cotangents: Array) -> tuple[Array, Array]:
    """The cotangents of V_a and V_b, planar."""
    cube = cotangents.reshape([2] * (len(node.qubits) + len(node.live)))
    # rows of a, rows of b, columns of a, columns of b
    cube = cube.transpose(np.argsort(_axes(node))).reshape(len(a), len(b), a.shape[1], b.shape[1])
    left = np.einsum("rscd,sd->rc", cube, b.conj(), optimize=True)
    right = np.einsum("rscd,rc->sd", cube, a.conj(), optimize=True)
    return np.stack([left.real, left.imag]), np.stack([right.real, right.imag])


def _complex(planar: Array) -> Array:
    return planar[0] + 1j * planar[1]
