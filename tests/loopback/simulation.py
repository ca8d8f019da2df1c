"""Measured bits of a parametrized circuit for many rows of parameter values at once, with Aer's noise channels or without.

Qubits that share no two-qubit gate are independent, so each connected part is simulated on its own: 133 measured qubits, of
which a circuit uses four, cost little more than four. With noise a part is a vectorized density matrix, (rows, 4^k), to
which the superoperators of Aer's noise model are applied; without noise it is a state vector, (rows, 2^k).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from qiskit.quantum_info import SuperOp

Array = np.ndarray[Any, np.dtype[Any]]

#: Complex numbers of a part at a time.
_CHUNK = 1 << 21
_LARGEST = 10


@dataclass(frozen=True, eq=False)
class Noise:
    """Channels of a device as matrices.

    Attributes:
        channels: (gate, qubits) -> superoperator after the gate, one (bra, ket) pair per qubit, the last qubit highest.
        readout: qubit -> (2, 2), row: true state, column: probability of what is read.
    """

    channels: dict[tuple[str, tuple[int, ...]], Array]
    readout: dict[int, Array]

    @classmethod
    def from_aer(cls, model: Any) -> Noise:
        """Read a `qiskit_aer.noise.NoiseModel` of local errors."""
        channels = {
            (name, qubits): _regroup(SuperOp(error).data, len(qubits))
            for name, errors in model._local_quantum_errors.items()
            for qubits, error in errors.items()
            if name not in ("measure", "reset", "delay", "id")
        }
        return cls(channels, {key[0]: error.probabilities for key, error in model._local_readout_errors.items()})


def sample_bits(
    circuit: QuantumCircuit, values: Array, shots: int, rng: np.random.Generator, noise: Noise | None = None
) -> Array:
    """Measure a circuit that ends in measurements.

    Args:
        circuit: gates, barriers and delays, then measurements.
        values: (rows, P) of the P parameters of `circuit`.
        noise: of the device; None: a perfect one.

    Returns:
        (rows, shots, clbits) of bool.
    """
    bits = np.zeros((len(values), shots, circuit.num_clbits), dtype=bool)
    for clbits, probabilities in outcome_probabilities(circuit, values, noise):
        cumulative = np.cumsum(probabilities, axis=1)[:, None, :-1]
        for start in range(0, len(values), 64):  # (rows, shots, 2^k) comparisons at a time
            rows = slice(start, start + 64)
            drawn = rng.random((len(values[rows]), shots, 1))
            outcomes = (drawn >= cumulative[rows]).sum(axis=2)
            for place, clbit in enumerate(clbits):
                bits[rows, :, clbit] = (outcomes >> place) & 1
    return bits


def outcome_probabilities(
    circuit: QuantumCircuit, values: Array, noise: Noise | None = None
) -> Iterator[tuple[tuple[int, ...], Array]]:
    """For each connected part its measured clbits and their joint probabilities (rows, 2^clbits), first clbit lowest."""
    measured, instructions = _read(circuit)
    for part in _parts(circuit.num_qubits, instructions):
        clbits = tuple(measured[qubit] for qubit in part if qubit in measured)
        if not clbits:
            continue
        if len(part) > _LARGEST:
            raise ValueError(f"the circuit entangles {len(part)} qubits, more than the {_LARGEST} simulated here")
        inside = [item for item in instructions if item[1][0] in part]
        size = (4 if noise is not None else 2) ** len(part)
        chunk = max(1, _CHUNK // size)
        results = [
            _simulate(inside, part, circuit, values[start : start + chunk], noise)
            for start in range(0, len(values), chunk)
        ]
        probabilities = np.concatenate(results)
        for axis, qubit in enumerate(part):  # sum over what is not measured
            if qubit not in measured:
                shape = (len(values), -1, 2, 2**axis)
                probabilities = np.repeat(probabilities.reshape(shape).sum(axis=2), 1, axis=1).reshape(len(values), -1)
        yield clbits, probabilities


def _read(circuit: QuantumCircuit) -> tuple[dict[int, int], list[tuple[Any, tuple[int, ...]]]]:
    measured: dict[int, int] = {}
    instructions = []
    for instruction in circuit.data:
        qubits = tuple(circuit.find_bit(qubit).index for qubit in instruction.qubits)
        if instruction.name in ("barrier", "delay", "id"):
            continue
        if any(qubit in measured for qubit in qubits):
            raise ValueError("gates after a measurement are not simulated here")
        if instruction.name == "measure":
            measured[qubits[0]] = circuit.find_bit(instruction.clbits[0]).index
        elif len(qubits) > 2 or instruction.clbits:
            raise ValueError(f"{instruction.name} is not simulated here")
        else:
            instructions.append((instruction.operation, qubits))
    return measured, instructions


def _parts(num_qubits: int, instructions: Sequence[tuple[Any, tuple[int, ...]]]) -> list[tuple[int, ...]]:
    group = list(range(num_qubits))
    for _, qubits in instructions:
        if len(qubits) == 2:
            first, second = (group[qubit] for qubit in qubits)
            group = [first if member == second else member for member in group]
    return [tuple(q for q in range(num_qubits) if group[q] == label) for label in sorted(set(group))]


def _simulate(
    instructions: Sequence[tuple[Any, tuple[int, ...]]],
    part: tuple[int, ...],
    circuit: QuantumCircuit,
    values: Array,
    noise: Noise | None,
) -> Array:
    base = 2 if noise is None else 4
    state = np.zeros((len(values), base ** len(part)), dtype=complex)
    state[:, 0] = 1
    columns = {parameter: values[:, index] for index, parameter in enumerate(circuit.parameters)}
    waiting: dict[int, Array] = {}
    for operation, qubits in instructions:
        matrix = _gate(operation, columns, len(values), qubits, noise)
        if len(qubits) == 1:  # gathered until the qubit meets another one
            qubit = qubits[0]
            waiting[qubit] = matrix @ waiting[qubit] if qubit in waiting else matrix
            continue
        for qubit in qubits:
            if qubit in waiting:
                state = _apply(state, waiting.pop(qubit), (part.index(qubit),), base)
        state = _apply(state, matrix, tuple(part.index(qubit) for qubit in qubits), base)
    for qubit, matrix in waiting.items():
        state = _apply(state, matrix, (part.index(qubit),), base)
    if noise is None:
        return np.abs(state) ** 2
    for axis in range(len(part)):  # the diagonal: indices 0 and 3 of each (bra, ket) pair
        state = np.delete(state.reshape(len(values), -1, 4, 2**axis), (1, 2), axis=2).reshape(len(values), -1)
    probabilities = np.clip(state.real, 0, None)
    for axis, qubit in enumerate(part):
        if qubit in noise.readout:
            split = probabilities.reshape(len(values), -1, 2, 2**axis)
            probabilities = np.einsum("raib,ij->rajb", split, noise.readout[qubit]).reshape(len(values), -1)
    return probabilities / probabilities.sum(axis=1, keepdims=True)


def _gate(operation: Any, columns: dict[Any, Array], rows: int, qubits: tuple[int, ...], noise: Noise | None) -> Array:
    unitary = _unitary(operation, columns, rows)
    if noise is None:
        return unitary
    matrix = _regroup(_kron(unitary.conj(), unitary), len(qubits))
    channel = noise.channels.get((operation.name, qubits))
    return matrix if channel is None else channel @ matrix


def _unitary(operation: Any, columns: dict[Any, Array], rows: int) -> Array:
    angles = [_evaluate(angle, columns, rows) for angle in operation.params]
    if not any(isinstance(angle, np.ndarray) for angle in angles):
        return np.asarray(operation.to_matrix(), dtype=complex)
    if operation.name == "rz":
        half = np.exp(0.5j * angles[0])
        matrix = np.zeros((rows, 2, 2), dtype=complex)
        matrix[:, 0, 0], matrix[:, 1, 1] = half.conj(), half
        return matrix
    table = np.broadcast_arrays(*angles)
    return np.array([operation.base_class(*row).to_matrix() for row in zip(*table, strict=True)])


def _evaluate(angle: Any, columns: dict[Any, Array], rows: int) -> Any:
    if isinstance(angle, Parameter):
        return columns[angle]
    if not getattr(angle, "parameters", None):
        return float(angle)
    names = sorted(angle.parameters, key=lambda parameter: parameter.name)
    return np.array([float(angle.bind({p: columns[p][row] for p in names})) for row in range(rows)])


def _kron(left: Array, right: Array) -> Array:
    size = left.shape[-1] ** 2
    return np.einsum("...ij,...kl->...ikjl", left, right).reshape(*left.shape[:-2], size, size)


def _regroup(matrix: Array, qubits: int) -> Array:
    """Of two qubits: from Qiskit's order (b1 b0 k1 k0) to one (bra, ket) pair per qubit, (b1 k1 b0 k0)."""
    if qubits == 1:
        return matrix
    lead = matrix.ndim - 2
    order = (0, 2, 1, 3)
    axes = (*range(lead), *(lead + a for a in order), *(lead + 4 + a for a in order))
    return matrix.reshape(*matrix.shape[:-2], *(2,) * 8).transpose(axes).reshape(matrix.shape)


def _apply(state: Array, matrix: Array, axes: tuple[int, ...], base: int) -> Array:
    """Multiply `matrix` into the qubits `axes` of `state`, (rows, base^k) with qubit 0 last."""
    rows, size = state.shape
    count = round(np.log(size) / np.log(base))
    tensor = state.reshape(rows, *(base,) * count)
    places = [count - axis for axis in reversed(axes)]
    moved = np.moveaxis(tensor, places, range(1, 1 + len(places)))
    result = (matrix @ moved.reshape(rows, base ** len(places), -1)).reshape(moved.shape)
    return np.ascontiguousarray(np.moveaxis(result, range(1, 1 + len(places)), places)).reshape(rows, size)
