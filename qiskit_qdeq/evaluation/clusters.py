"""U(θ) on product states: qubits that no gate has joined yet are evolved apart, so that only the last gates see 2**n rows.

A circuit is cut into a tree. A node holds the gates that act on the qubits joined so far; where a gate joins two sets of
qubits a new node begins, whose input is the Kronecker product of its children's outputs, V = V_a ⊗ V_b. Backwards a
cotangent is split the same way, Λ_a = Λ · conj(V_b) summed over rows and columns of b.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numba
import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit import Barrier, Instruction, Parameter

from qiskit_qdeq.evaluation.jit import JIT
from qiskit_qdeq.evaluation.program import BoundProgram, GateProgram

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass
class _Node:
    """Qubits, the leading one first, and those among them with two columns instead of one, in the same order.

    The children's qubits follow each other unsorted, so that joining and splitting move no data.
    """

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
        self.nodes = _descendants(self.root)
        rows, columns = _sorting(self.root.qubits), _sorting(self.root.live)
        #: Where each entry of the sorted columns stands among those of the root, and the other way round.
        self._entries = np.add.outer(len(columns) * rows, columns)
        self._places = np.argsort(self._entries, axis=None).reshape(self._entries.shape)
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
                # the larger one's columns are the innermost, so that loops over them are long
                if len(other.qubits) < len(node.qubits):
                    node, other = other, node
                node = _Node(node.qubits + other.qubits, node.live + other.live, (node, other))
                for q in node.qubits:
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
                start = _joined(states[id(a)], states[id(b)])
            states[id(node)] = bound[id(node)].apply(start) if id(node) in bound else start
        return BoundClusters(self, bound, states, len(weights))

    def sort(self, columns: Array) -> Array:
        """Columns of the root with rows and columns numbered as those of U."""
        return _taken(columns, self._entries)

    def unsort(self, columns: Array) -> Array:
        """The inverse of `sort`."""
        return _taken(columns, self._places)

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
        self.matrix = program.sort(states[id(program.root)])

    def pull_back(self, cotangents: Array) -> Array:
        """Gradient (p,) of a scalar with differential 2 Re <cotangents, dV>."""
        gradient = np.zeros(self._num_weights)
        waiting = {id(self._program.root): self._program.unsort(cotangents)}
        for node in reversed(self._program.nodes):
            here = waiting.pop(id(node))
            if id(node) in self._bound:
                states = self._states[id(node)].copy()
                gradient += self._bound[id(node)].pull_back(states, here, want_input=node.children is not None)
            if node.children is not None:
                a, b = node.children
                waiting[id(a)], waiting[id(b)] = _split(self._states[id(a)], self._states[id(b)], here)
        return gradient


def _descendants(node: _Node) -> list[_Node]:
    """A node and all below it, children first."""
    below = [] if node.children is None else [n for child in node.children for n in _descendants(child)]
    return [*below, node]


def _sorting(qubits: list[int]) -> Array:
    """For every basis state of the qubits in descending order its number in the order given."""
    numbers = np.arange(2 ** len(qubits)).reshape([2] * len(qubits))
    return numbers.transpose(np.argsort(qubits)[::-1]).ravel()


def _taken(columns: Array, entries: Array) -> Array:
    """Entries of planar columns (2, rows, columns) by their numbers (rows, columns)."""
    # a mode that needs no check of the numbers, which are right
    return np.stack([part.ravel().take(entries, mode="wrap") for part in columns])


def _joined(a: Array, b: Array) -> Array:
    """V_a ⊗ V_b, planar."""
    product = np.empty((2, a.shape[1], b.shape[1], a.shape[2], b.shape[2]), dtype=a.dtype)
    _join(a, b, product)
    return product.reshape(2, a.shape[1] * b.shape[1], -1)


@numba.njit(**JIT)  # type: ignore[misc]
def _join(a, b, product):  # type: ignore[no-untyped-def]
    for i in range(a.shape[1]):
        for k in range(b.shape[1]):
            for l in range(a.shape[2]):  # noqa: E741
                x, y = a[0, i, l], a[1, i, l]
                for m in range(b.shape[2]):
                    product[0, i, k, l, m] = x * b[0, k, m] - y * b[1, k, m]
                    product[1, i, k, l, m] = x * b[1, k, m] + y * b[0, k, m]


def _split(a: Array, b: Array, cotangents: Array) -> tuple[Array, Array]:
    """The cotangents of V_a and V_b, planar."""
    cube = cotangents.reshape(2, a.shape[1], b.shape[1], a.shape[2], b.shape[2])
    re, im = cube.transpose(0, 1, 3, 2, 4).reshape(2, a[0].size, b[0].size)
    (a_re, a_im), (b_re, b_im) = a.reshape(2, -1), b.reshape(2, -1)
    left = np.stack([re @ b_re + im @ b_im, im @ b_re - re @ b_im])
    right = np.stack([a_re @ re + a_im @ im, a_re @ im - a_im @ re])
    return left.reshape(a.shape), right.reshape(b.shape)
