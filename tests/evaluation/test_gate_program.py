"""Gate programs and observables against dense matrices of Qiskit's Operator."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import central_difference, random_circuit, random_observables, relative_error
from qiskit import QuantumCircuit
from qiskit.circuit import Gate, ParameterVector
from qiskit.circuit.library import GlobalPhaseGate
from qiskit.quantum_info import Operator, SparsePauliOp

from qiskit_qdeq.circuits import correlators
from qiskit_qdeq.evaluation.observables import Observables
from qiskit_qdeq.evaluation.program import GateProgram
from qiskit_qdeq.exceptions import InputError

SEEDS = st.integers(0, 2**32 - 1)


def planar(columns):
    return np.stack([columns.real, columns.imag])


def complex_of(columns):
    return columns[0] + 1j * columns[1]


def random_columns(rng, dim, count):
    return rng.normal(size=(dim, count)) + 1j * rng.normal(size=(dim, count))


def assert_equal_up_to_phase(found, expected, atol=1e-12):
    overlap = np.vdot(expected, found)
    np.testing.assert_allclose(found * np.conj(overlap) / abs(overlap), expected, atol=atol)


@settings(max_examples=30)
@given(SEEDS, st.integers(1, 5), st.sampled_from([1, 5, 33, 70]))
def test_a_program_applies_the_circuits_operator_to_every_column(seed, num_qubits, count):
    rng = np.random.default_rng(seed)
    weights = ParameterVector("w", 4)
    circuit = random_circuit(rng, num_qubits, 20, weights)
    theta = rng.uniform(-2, 2, 4)
    matrix = Operator(circuit.assign_parameters(dict(zip(weights, theta, strict=True)))).data
    columns = random_columns(rng, 2**num_qubits, count)
    found = GateProgram(circuit, weights).bind(theta).apply(planar(columns))
    assert_equal_up_to_phase(complex_of(found), matrix @ columns)


@settings(max_examples=15)
@given(SEEDS, st.integers(1, 4))
def test_pull_back_gives_weight_gradient_and_cotangents_before_the_program(seed, num_qubits):
    rng = np.random.default_rng(seed)
    weights = ParameterVector("w", 4)
    circuit = random_circuit(rng, num_qubits, 15, weights)
    theta = rng.uniform(-2, 2, 4)
    program = GateProgram(circuit, weights)
    columns, other = random_columns(rng, 2**num_qubits, 3), random_columns(rng, 2**num_qubits, 3)

    def moved(values):
        return complex_of(program.bind(values).apply(planar(columns)))

    # |<other|U v>|² per column: no global phase enters
    overlap = np.einsum("nc,nc->c", other.conj(), moved(theta))
    cotangents = other * overlap

    def scalar(values):
        return np.sum(np.abs(np.einsum("nc,nc->c", other.conj(), moved(values))) ** 2)

    before = planar(cotangents)
    gradient = program.bind(theta).pull_back(planar(moved(theta)), before, want_input=True)
    assert relative_error(gradient, central_difference(scalar, theta)) < 1e-6
    matrix = moved(theta) @ np.linalg.pinv(columns) if num_qubits == 1 else None
    if matrix is not None:
        np.testing.assert_allclose(complex_of(before), matrix.conj().T @ cotangents, atol=1e-10)
    # inner products survive a unitary: <U†c, v> = <c, U v>
    np.testing.assert_allclose(
        np.einsum("nc,nc->c", complex_of(before).conj(), columns),
        np.einsum("nc,nc->c", cotangents.conj(), moved(theta)),
        atol=1e-10,
    )


def test_a_program_of_single_precision_holds_single_precision_columns():
    weights = ParameterVector("w", 2)
    circuit = random_circuit(np.random.default_rng(0), 3, 10, weights)
    theta = np.array([0.3, -1.0])
    columns = random_columns(np.random.default_rng(1), 8, 4)
    single = GateProgram(circuit, weights, "float32").bind(theta).apply(planar(columns).astype(np.float32))
    double = GateProgram(circuit, weights).bind(theta).apply(planar(columns))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, double, atol=1e-5)


def test_gates_that_only_change_the_global_phase_are_left_out():
    weights = ParameterVector("w", 1)
    circuit = QuantumCircuit(2)
    circuit.append(GlobalPhaseGate(0.3), [])
    circuit.ry(weights[0], 0)
    circuit.append(GlobalPhaseGate(weights[0]), [])
    columns = planar(np.eye(4, dtype=complex))
    found = GateProgram(circuit, weights).bind(np.array([0.7])).apply(columns)
    circuit = QuantumCircuit(2)
    circuit.ry(0.7, 0)
    assert_equal_up_to_phase(complex_of(found), Operator(circuit).data)


def test_what_is_no_unitary_gate_is_an_error_that_names_it():
    weights = ParameterVector("w", 1)
    measured = QuantumCircuit(1, 1)
    measured.ry(weights[0], 0)
    measured.measure(0, 0)
    with pytest.raises(InputError, match="measure"):
        GateProgram(measured, weights)
    opaque = QuantumCircuit(3)
    opaque.append(Gate("mystery", 3, [weights[0]]), [0, 1, 2])
    with pytest.raises(InputError, match="mystery"):
        GateProgram(opaque, weights)


@settings(max_examples=40)
@given(SEEDS, st.integers(1, 4), st.sampled_from(["IZ", "XY", "IXYZ"]))
def test_observables_act_as_their_matrices(seed, num_qubits, letters):
    rng = np.random.default_rng(seed)
    sums = random_observables(rng, num_qubits, 3, letters)
    matrices = np.array([observable.to_matrix() for observable in sums])
    compiled = Observables(sums)
    left, right = (
        random_columns(rng, 2**num_qubits, 5),
        random_columns(rng, 2**num_qubits, 10).reshape(-1, 2, 5),
    )
    weights = rng.normal(size=(3, 5))
    moved = np.einsum("fnm,mc->nfc", matrices, left)
    expected = np.einsum("nc,nfc->fc", left.conj(), moved).real
    np.testing.assert_allclose(compiled.expectations(planar(left)), expected, atol=1e-12 * 2**num_qubits * 10)
    np.testing.assert_allclose(complex_of(np.moveaxis(compiled.each(planar(left)), (2, 3), (0, 1))), moved, atol=1e-12)
    np.testing.assert_allclose(
        complex_of(compiled.weighted(planar(left), weights)),
        np.einsum("nfc,fc->nc", moved, weights),
        atol=1e-12,
    )
    crossed = np.einsum("nc,fnm,mrc->frc", left.conj(), matrices, right).real
    np.testing.assert_allclose(compiled.cross(planar(left), planar(right)), crossed, atol=1e-10)
    assert compiled.is_diagonal == (not any(o.paulis.x.any() for o in sums))


@pytest.mark.parametrize("letters", ["Z", "XY"])
def test_many_observables_through_the_transform_act_as_their_matrices(letters):
    """All 2**7 sign patterns of one flip mask: too many for a sign table."""
    rng = np.random.default_rng(3)
    first = ("I", "Z") if letters == "Z" else ("X", "Y")
    labels = ["".join(first[(index >> bit) & 1] for bit in range(9)) for index in range(128)]
    sums = [*(SparsePauliOp(label) for label in labels[:100]), SparsePauliOp(labels, rng.normal(size=128))]
    compiled = Observables(sums)
    columns, weights = random_columns(rng, 512, 3), rng.normal(size=(len(sums), 3))
    sparse = [observable.to_matrix(sparse=True) for observable in sums]
    moved = np.array([matrix @ columns for matrix in sparse])
    expected = np.einsum("nc,fnc->fc", columns.conj(), moved).real
    np.testing.assert_allclose(compiled.expectations(planar(columns)), expected, atol=1e-9)
    np.testing.assert_allclose(
        complex_of(compiled.weighted(planar(columns), weights)),
        np.einsum("fnc,fc->nc", moved, weights),
        atol=1e-10,
    )


def test_observables_of_three_factors_on_ten_wires_act_as_their_matrices():
    rng = np.random.default_rng(4)
    sums = correlators(10, 3)
    columns = random_columns(rng, 1024, 2)
    expected = [
        np.einsum("nc,n,nc->c", columns.conj(), o.to_matrix(sparse=True).diagonal(), columns).real for o in sums
    ]
    np.testing.assert_allclose(Observables(sums).expectations(planar(columns)), expected, atol=1e-9)
