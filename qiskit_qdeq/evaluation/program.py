"""A Qiskit circuit compiled to fused one- and two-qubit blocks that are swept over many state columns at once.

Every gate is a constant matrix or exp(-i β G / 2) with G³ = G and an angle β that is a function of the parameters;
neighbouring gates on the same pair of qubits become one block. See `kernels` for the sweeps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from qiskit import QuantumCircuit, transpile
from qiskit.circuit import (
    Barrier,
    ControlFlowOp,
    Delay,
    Instruction,
    Measure,
    Parameter,
    ParameterExpression,
    Reset,
    library,
)
from qiskit.circuit.library import Initialize
from qiskit.quantum_info import Operator, Pauli
from qiskit.transpiler.exceptions import TranspilerError

from qiskit_qdeq.evaluation import kernels
from qiskit_qdeq.evaluation.expressions import AngleMap
from qiskit_qdeq.evaluation.threads import run_parts, split_columns
from qiskit_qdeq.exceptions import InputError

Array = np.ndarray[Any, np.dtype[Any]]

_ONE = np.diag([0.0, 1.0]).astype(complex)
_CONJUGATE = np.array([1.0, -1.0])


def _pauli(label: str) -> Array:
    matrix: Array = Pauli(label).to_matrix()
    return matrix


# gate class -> (generator on the gate's qubits in Qiskit's order, factor β / angle). Classes, not names: a user's own gate
# may have any name. Global phases drop out of expectation values.
_GENERATORS: dict[type, tuple[Array, float]] = {
    library.RXGate: (_pauli("X"), 1.0),
    library.RYGate: (_pauli("Y"), 1.0),
    library.RZGate: (_pauli("Z"), 1.0),
    library.PhaseGate: (_pauli("Z"), 1.0),
    library.U1Gate: (_pauli("Z"), 1.0),
    library.RXXGate: (_pauli("XX"), 1.0),
    library.RYYGate: (_pauli("YY"), 1.0),
    library.RZZGate: (_pauli("ZZ"), 1.0),
    library.RZXGate: (_pauli("XZ"), 1.0),
    library.CRXGate: (np.kron(_pauli("X"), _ONE), 1.0),
    library.CRYGate: (np.kron(_pauli("Y"), _ONE), 1.0),
    library.CRZGate: (np.kron(_pauli("Z"), _ONE), 1.0),
    library.CPhaseGate: (np.kron(_ONE, _ONE), -2.0),
    library.CU1Gate: (np.kron(_ONE, _ONE), -2.0),
}


@dataclass(frozen=True)
class Gate:
    """One primitive gate: qubits, generator matrix with its angle, or a constant matrix (`angle` is None)."""

    qubits: tuple[int, ...]
    matrix: Array
    angle: float | ParameterExpression | None = None


def primitive_gates(circuit: QuantumCircuit) -> list[Gate]:
    """The circuit as primitive gates, definitions unrolled.

    Raises:
        InputError: for instructions that are not unitary gates, or that cannot be unrolled to one and two qubits.
    """
    gates: list[Gate] = []
    for operation, qubits in elementary_operations(circuit, widest_constant=2):
        if not is_parametrized(operation):
            gates.append(Gate(qubits, np.asarray(Operator(operation).data, dtype=complex)))
            continue
        generator, factor = generator_of(operation)
        gates.append(Gate(qubits, generator, operation.params[0] * factor))
    return gates


def elementary_operations(
    circuit: QuantumCircuit, widest_constant: int
) -> Iterator[tuple[Instruction, tuple[int, ...]]]:
    """The circuit's operations with their qubits, unrolled to gates of one angle and to constants.

    Whatever only changes the global phase is left out.

    Args:
        circuit: unitary circuit.
        widest_constant: gates without free parameters on more qubits than this are unrolled too.

    Raises:
        InputError: for instructions that are not unitary gates, or that cannot be unrolled.
    """
    index = {qubit: i for i, qubit in enumerate(circuit.qubits)}
    for item in circuit.data:
        yield from _unroll(item.operation, tuple(index[q] for q in item.qubits), widest_constant)


def is_parametrized(operation: Instruction) -> bool:
    """Whether the operation holds a free parameter."""
    return any(isinstance(p, ParameterExpression) and p.parameters for p in operation.params)


def generator_of(operation: Instruction) -> tuple[Array, float]:
    """G and f of an elementary rotation exp(-i f a G / 2) with angle a."""
    return _GENERATORS[_class_of(operation)]


def _class_of(operation: Instruction) -> type:
    kind: type = getattr(operation, "base_class", type(operation))
    return kind


def _unroll(
    operation: Instruction, qubits: tuple[int, ...], widest_constant: int
) -> Iterator[tuple[Instruction, tuple[int, ...]]]:
    if not qubits or isinstance(operation, Barrier | Delay | library.IGate):
        return
    if isinstance(operation, Measure | Reset | Initialize | ControlFlowOp):
        raise InputError(f"circuit holds {operation.name!r}: only unitary gates have an expectation-value gradient")
    if is_parametrized(operation):
        # a gate controlled on |0> is of the same class
        elementary = _class_of(operation) in _GENERATORS and getattr(operation, "ctrl_state", 1) == 1
    else:
        elementary = len(qubits) <= widest_constant
    if elementary:
        yield operation, qubits
        return
    definition = operation.definition or _translate(operation)
    inner = {qubit: i for i, qubit in enumerate(definition.qubits)}
    for item in definition.data:
        yield from _unroll(item.operation, tuple(qubits[inner[q]] for q in item.qubits), widest_constant)


def _translate(operation: Instruction) -> QuantumCircuit:
    """A standard gate without a definition (`u`, for one), by Qiskit's equivalence library."""
    single = QuantumCircuit(operation.num_qubits)
    single.append(operation, range(operation.num_qubits))
    try:
        return transpile(single, basis_gates=["rx", "ry", "rz", "cx"], optimization_level=0)
    except TranspilerError:
        raise InputError(
            f"gate {operation.name!r} on {operation.num_qubits} qubits has no definition to unroll it with"
        ) from None


class GateTable:
    """Distinct gate matrices, each once: `kinds[k]` >= 0 numbers a generator, < 0 the constant -1 - kinds[k]."""

    def __init__(self, gates: Sequence[tuple[tuple[int, ...], Gate]]) -> None:
        generators: list[Array] = []
        constants: list[Array] = []
        seen: dict[tuple[bytes, bool], int] = {}
        self.kinds = np.empty(len(gates), dtype=np.int64)
        for k, (pair, gate) in enumerate(gates):
            matrix = _embed(gate, pair)
            pool = constants if gate.angle is None else generators
            key = (matrix.tobytes(), gate.angle is None)
            if key not in seen:
                seen[key] = len(pool)
                pool.append(matrix)
            self.kinds[k] = -1 - seen[key] if gate.angle is None else seen[key]
        self.constants = np.array(constants or [np.eye(4)], dtype=complex)
        self.generators = np.array(generators or [np.zeros((4, 4))], dtype=complex)
        self.projectors = self.generators @ self.generators


class GateProgram:
    """U(θ) as a sweep of fused blocks over state columns, with the gradient of all parameters in one backward sweep.

    Args:
        circuit: unitary circuit; its free parameters must all be in `parameters`.
        parameters: θ in the order of the arrays given later.
        dtype: float64 (default) or float32, the precision of the columns; block matrices are always built in double.

    Raises:
        InputError: see `primitive_gates` and `AngleMap`.
    """

    def __init__(self, circuit: QuantumCircuit, parameters: Sequence[Parameter], dtype: Any = np.float64) -> None:
        self.num_qubits = circuit.num_qubits
        self.dim = 2**circuit.num_qubits
        self.dtype = np.dtype(dtype)
        blocks = _fuse(primitive_gates(circuit))
        gates = [(pair, gate) for pair, members in blocks for gate in members]
        self._starts = np.cumsum([0] + [len(members) for _, members in blocks]).astype(np.int64)
        self._qubits = np.array([(*pair, -1)[:2] for pair, _ in blocks], dtype=np.int64).reshape(-1, 2)
        free = [(i, gate) for i, (_, gate) in enumerate(gates) if gate.angle is not None]
        self.angle_map = AngleMap([gate.angle for _, gate in free if gate.angle is not None], parameters)
        self._slots = np.array([i for i, _ in free], dtype=np.int64)
        self._table = GateTable(gates)

    @property
    def num_blocks(self) -> int:
        """Blocks swept per pass, after fusion."""
        return len(self._qubits)

    def bind(self, weights: Array) -> BoundProgram:
        """The program at parameters θ (p,).

        Raises:
            InputError: for another number of parameters.
        """
        if np.shape(weights) != (self.angle_map.num_parameters,):
            raise InputError(f"weights must have shape ({self.angle_map.num_parameters},), got {np.shape(weights)}")
        angles = np.zeros(len(self._table.kinds))
        angles[self._slots] = self.angle_map(weights)
        blocks = np.empty((self.num_blocks, 4, 4, 2))
        prefixes = np.empty((len(self._table.kinds), 4, 4), dtype=complex)
        kernels.build_blocks(
            self._starts,
            self._table.kinds,
            angles,
            self._table.constants,
            self._table.generators,
            self._table.projectors,
            blocks,
            prefixes,
        )
        return BoundProgram(self, weights, angles, blocks.astype(self.dtype, copy=False), prefixes)


class BoundProgram:
    """A `GateProgram` at fixed weights: forward and backward sweeps over planar columns (2, 2**n, columns)."""

    def __init__(self, program: GateProgram, weights: Array, angles: Array, blocks: Array, prefixes: Array) -> None:
        self._program, self._weights = program, weights
        self._angles, self._blocks, self._prefixes = angles, blocks, prefixes

    def apply(self, states: Array) -> Array:
        """U(θ) times each column, in place; `states` (2, 2**n, C) is returned."""
        work = [
            (states, first, last, self._program._qubits, self._blocks)
            for first, last in split_columns(*states.shape[1:])
        ]
        run_parts(kernels.sweep_forward, work)
        return states

    @property
    def num_angles(self) -> int:
        """Gate angles that depend on the parameters."""
        return len(self._program._slots)

    @property
    def angle_slopes(self) -> Array:
        """Their derivatives with respect to the parameters (G, p)."""
        return self._program.angle_map.jacobian(self._weights)

    def tangents(self, states: Array) -> Array:
        """U(θ) times each column and the derivatives of that by every gate angle, (2, 2**n, C) -> (2, 2**n, 1 + G, C).

        A block B = ... g P holds the gate g = exp(-i β G / 2), P being what stands before it. Its derivative is
        B P†(-i/2 G)P, which the tangents get before B is applied to them and to all columns alike.
        """
        program, width = self._program, states.shape[2]
        slots, table = program._slots, program._table
        prefixes = self._prefixes[slots]
        inner = -0.5j * (prefixes.conj().swapaxes(1, 2) @ table.generators[table.kinds[slots]] @ prefixes)
        generators = np.stack([inner.real, inner.imag], axis=-1).astype(program.dtype)
        columns = np.zeros((*states.shape[:2], (1 + len(slots)) * width), dtype=program.dtype)
        columns[:, :, :width] = states
        filled = 0
        for block, end in enumerate(np.searchsorted(slots, program._starts[1:])):
            qubits = program._qubits[block : block + 1]
            for gate in range(filled, int(end)):
                tangent = np.array(columns[:, :, :width], order="C")
                kernels.sweep_forward(tangent, 0, width, qubits, generators[gate : gate + 1])
                columns[:, :, (1 + gate) * width : (2 + gate) * width] = tangent
            filled = int(end)
            count = (1 + filled) * width
            work = [
                (columns, *part, qubits, self._blocks[block : block + 1]) for part in split_columns(program.dim, count)
            ]
            run_parts(kernels.sweep_forward, work)
        return columns.reshape(*states.shape[:2], 1 + len(slots), width)

    def pull_back(self, states: Array, cotangents: Array, want_input: bool = False) -> Array:
        """Gradient (p,) of a scalar with differential 2 Re <cotangents, d states>.

        `states` are columns after the program. With `want_input`, `cotangents` become those before the program.
        """
        program = self._program
        ranges = split_columns(*states.shape[1:])
        adjoint = np.multiply(self._blocks.transpose(0, 2, 1, 3), _CONJUGATE, dtype=program.dtype, order="C")
        env = np.zeros((len(ranges), program.num_blocks, 4, 4, 2), dtype=program.dtype)
        work = [
            (states, cotangents, first, last, program._qubits, adjoint, want_input, env[i])
            for i, (first, last) in enumerate(ranges)
        ]
        run_parts(kernels.sweep_backward, work)
        grad = np.empty(len(self._angles))
        kernels.gate_gradients(
            program._starts,
            program._table.kinds,
            self._angles,
            program._table.constants,
            program._table.generators,
            program._table.projectors,
            self._prefixes,
            env.sum(axis=0) if len(ranges) > 1 else env[0],
            grad,
        )
        return program.angle_map.pull_back(self._weights, grad[program._slots])


def _fuse(gates: list[Gate]) -> list[tuple[tuple[int, ...], list[Gate]]]:
    """Group gates into blocks on at most two qubits, keeping the order on every qubit."""
    blocks: list[tuple[tuple[int, ...], list[Gate]]] = []
    latest: dict[int, int] = {}
    waiting: dict[int, list[Gate]] = {}
    for gate in gates:
        if len(gate.qubits) == 1:
            (qubit,) = gate.qubits
            if qubit in latest:
                blocks[latest[qubit]][1].append(gate)
            else:
                waiting.setdefault(qubit, []).append(gate)
            continue
        first, second = gate.qubits
        if first in latest and latest.get(second) == latest[first]:
            blocks[latest[first]][1].append(gate)
            continue
        members = [*waiting.pop(first, []), *waiting.pop(second, []), gate]
        latest[first] = latest[second] = len(blocks)
        blocks.append(((min(gate.qubits), max(gate.qubits)), members))
    blocks.extend(((qubit,), members) for qubit, members in waiting.items())
    return blocks


def _embed(gate: Gate, pair: tuple[int, ...]) -> Array:
    """The gate's matrix on its block's qubits: local index bit(pair[0]) + 2 bit(pair[1]), in the leading corner."""
    out = np.zeros((4, 4), dtype=complex)
    if len(pair) == 1:
        out[:2, :2] = gate.matrix
    elif len(gate.qubits) == 1:
        low = gate.qubits[0] == pair[0]
        out[:] = np.kron(np.eye(2), gate.matrix) if low else np.kron(gate.matrix, np.eye(2))
    elif gate.qubits == pair:
        out[:] = gate.matrix
    else:
        swap = [0, 2, 1, 3]
        out[:] = gate.matrix[np.ix_(swap, swap)]
    return out
