"""Circuits over gate angles and their shift rules, against Qiskit's Operator and Statevector and the exact evaluator."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import (
    FIXED,
    ROTATIONS,
    append_gate,
    central_difference,
    random_circuit,
    random_encoder,
    random_observables,
    random_template,
    relative_error,
    statevector_values,
)
from qiskit import QuantumCircuit
from qiskit.circuit import Gate, Parameter, ParameterExpression, ParameterVector
from qiskit.circuit.library import QFTGate, UnitaryGate, efficient_su2, real_amplitudes, zz_feature_map
from qiskit.quantum_info import Operator, SparsePauliOp, Statevector, random_unitary

from qiskit_qdeq.circuits import AmplitudeEncoder, AngleEncoder, CircuitTemplate, paper_ansatz
from qiskit_qdeq.evaluation.exact import exact_evaluator
from qiskit_qdeq.evaluation.gate_angles import GateAngles, GateTemplate
from qiskit_qdeq.evaluation.protocol import Cotangent
from qiskit_qdeq.evaluation.shift_rules import FOUR_TERM, TWO_TERM, ShiftRule, shift_rows, shift_rule
from qiskit_qdeq.exceptions import InputError

KINDS = ["amplitude", "padded", "layered", "angle", "zz", "reupload"]
CONTROLLED = ["crx", "cry", "crz"]
SINGLE_ANGLE = [name for name, (_, count) in ROTATIONS.items() if count == 1]
SEEDS = st.integers(0, 2**32 - 1)


def bound(circuit, parameters, values):
    return circuit.assign_parameters(dict(zip(parameters, values, strict=True)))


def expectations(gates, rows, observables):
    """<M_j> (..., M) of a circuit over gate angles, by Qiskit's Statevector."""
    values = [
        [state.expectation_value(observable).real for observable in observables]
        for state in (
            Statevector(bound(gates.circuit, gates.parameters, row)) for row in rows.reshape(-1, rows.shape[-1])
        )
    ]
    return np.reshape(values, (*rows.shape[:-1], len(observables)))


def shifted_derivatives(gates, rows, rules, observables):
    """∂<M_j>/∂α_a (S, M, A) by the rules."""
    shifted, index, coefficients = shift_rows(rows, rules)
    slopes = np.zeros((*rows.shape, len(observables)))
    np.add.at(slopes, (slice(None), index), coefficients[:, None] * expectations(gates, shifted, observables))
    return np.swapaxes(slopes, 1, 2)


def assert_one_gate_per_angle(circuit, parameters):
    found = []
    for item in circuit.data:
        free = [p for p in item.operation.params if isinstance(p, ParameterExpression) and p.parameters]
        assert not free or item.operation.params == free == [free[0]]
        found += free
    assert found == list(parameters)
    assert list(circuit.parameters) == list(parameters)


@settings(max_examples=40)
@given(SEEDS, st.integers(1, 4))
def test_the_circuit_over_gate_angles_is_the_unitary_of_the_given_circuit(seed, num_qubits):
    rng = np.random.default_rng(seed)
    weights = ParameterVector("w", 4)
    circuit = random_circuit(rng, num_qubits, 20, weights)
    theta = rng.uniform(-2, 2, 4)
    gates = GateAngles(circuit, weights)
    assert_one_gate_per_angle(gates.circuit, gates.parameters)
    assert len(gates.rules) == len(gates.parameters)
    found = Operator(bound(gates.circuit, gates.parameters, gates(theta)))
    assert found.equiv(Operator(bound(circuit, weights, theta)), atol=1e-10)


@pytest.mark.parametrize("name", ROTATIONS)
def test_every_parametrized_gate_of_the_library_is_unrolled_to_gates_whose_rules_are_exact(name):
    size, count = ROTATIONS[name]
    weights = ParameterVector("w", count)
    circuit = QuantumCircuit(2)
    for qubit in range(2):
        circuit.h(qubit)
        circuit.rz(0.3 + 0.4 * qubit, qubit)
        circuit.rx(0.5 - 0.8 * qubit, qubit)
    append_gate(circuit, name, list(weights), [1, 0][:size])
    theta = np.array([0.7, -1.1, 0.4, 1.9])[:count]
    gates = GateAngles(circuit, weights)
    observables = random_observables(np.random.default_rng(0), 2, 4)
    slopes = shifted_derivatives(gates, gates(theta)[None], gates.rules, observables)[0]
    expected = central_difference(
        lambda angles: [Statevector(bound(circuit, weights, angles)).expectation_value(o).real for o in observables],
        theta,
    )
    assert np.abs(expected).max() > 0.05
    assert relative_error(slopes @ gates.jacobian(theta), expected) < 1e-8
    if name in SINGLE_ANGLE:
        assert gates.rules == (FOUR_TERM if name in CONTROLLED else TWO_TERM,)
        assert gates.circuit.data[-1].operation.name == name


def test_controlled_rotations_need_four_terms():
    """<X> of the control goes with half the frequency, which the two-term rule misses; f = cos(a/2) here."""
    angle = Parameter("a")
    circuit = QuantumCircuit(2)
    circuit.h(0)
    circuit.crx(angle, 0, 1)
    gates = GateAngles(circuit, [angle])
    rows, exact = np.array([[0.9]]), -0.5 * np.sin(0.45)
    four, two = (shifted_derivatives(gates, rows, [rule], [SparsePauliOp("IX")]) for rule in (FOUR_TERM, TWO_TERM))
    np.testing.assert_allclose(four, exact, atol=1e-12)
    assert abs(two.item() - exact) > 0.05


def test_shift_rows_of_a_template_are_those_of_its_rules():
    gates = GateTemplate(CircuitTemplate(AngleEncoder.paper(4), paper_ansatz(4)))
    rows = gates.rows(np.ones((2, 16)), np.ones(39))
    which = [3, gates.num_encoder_angles]
    for found, expected in zip(gates.shift_rows(rows, which), shift_rows(rows, gates.rules, which), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert len(gates.shift_rows(rows)[1]) == 2 * len(gates.rules) + 2  # one controlled rotation


def test_a_generator_with_other_gaps_has_no_rule():
    with pytest.raises(InputError, match="2"):
        shift_rule(np.diag([1.0, -1.0]))


@settings(max_examples=40)
@given(SEEDS, st.sampled_from(KINDS), st.integers(2, 4))
def test_the_template_over_gate_angles_prepares_the_states_of_the_template(seed, kind, num_qubits):
    rng = np.random.default_rng(seed)
    template = random_template(rng, kind, num_qubits)
    gates = GateTemplate(template)
    inputs = rng.normal(size=(2, template.num_features)) + 0.5
    weights = rng.uniform(-2, 2, template.num_weights)
    assert_one_gate_per_angle(gates.circuit, gates.parameters)
    assert len(gates.parameters) == len(gates.rules) == gates.num_encoder_angles + gates.num_ansatz_angles
    rows = gates.rows(inputs, weights)
    np.testing.assert_array_equal(rows[:, : gates.num_encoder_angles], gates.encoder_angles(inputs))
    np.testing.assert_array_equal(rows[1, gates.num_encoder_angles :], gates.ansatz_angles(weights))
    for u, row in zip(inputs, rows, strict=True):
        found = Statevector(bound(gates.circuit, gates.parameters, row))
        assert found.equiv(Statevector(template.bind(u, weights)), atol=1e-10)


def assert_shift_rules_give_exact_derivatives(template, seed=0, batch=2):
    """Chained to inputs, states and weights; at x + P q."""
    rng = np.random.default_rng(seed)
    gates = GateTemplate(template)
    injection = 0.5 * rng.normal(size=(template.num_features, template.num_states))
    weights = rng.uniform(-2, 2, template.num_weights)
    # away from the zero vector, where amplitude encoding is ill-conditioned
    inputs = rng.choice([-1, 1]) * rng.uniform(1, 3, (batch, template.num_features))
    state = 0.1 * rng.uniform(-1, 1, (batch, template.num_states))
    moved = inputs + state @ injection.T
    problem = exact_evaluator(template, injection).bind(weights).map(inputs)
    point = problem.at(state)
    rows = gates.rows(moved, weights)
    observables = [*template.state_observables, *template.readout_observables]
    split, size = gates.num_encoder_angles, template.num_states
    found = expectations(gates, rows, observables)
    np.testing.assert_allclose(found, np.hstack([point.values, point.features]), atol=1e-10)
    slopes = shifted_derivatives(gates, rows, gates.rules, observables)
    by_input = slopes[:, :, :split] @ gates.encoder_jacobian(moved)
    np.testing.assert_allclose(by_input[:, :size], point.input_jacobian, atol=1e-8)
    np.testing.assert_allclose(by_input[:, :size] @ injection, point.jacobian, atol=1e-8)
    cotangent = rng.normal(size=(batch, len(observables)))
    gradient = np.einsum("bm,bma,ap->p", cotangent, slopes[:, :, split:], gates.ansatz_jacobian(weights))
    term = Cotangent(point, values=cotangent[:, :size], features=cotangent[:, size:])
    expected = problem.pull_back([term])
    np.testing.assert_allclose(gradient, expected, atol=1e-8 * max(1.0, np.abs(expected).max()))


@settings(max_examples=20)
@given(SEEDS, st.sampled_from(KINDS), st.integers(2, 3))
def test_shift_rules_chained_through_the_angles_are_the_exact_derivatives(seed, kind, num_qubits):
    template = random_template(np.random.default_rng(seed), kind, num_qubits, num_weights=4, num_gates=8)
    assert_shift_rules_give_exact_derivatives(template, seed)


LIBRARY_ANSATZES = {
    "efficient_su2": lambda n: efficient_su2(n, reps=1, parameter_prefix="w"),
    "real_amplitudes": lambda n: real_amplitudes(n, reps=1, parameter_prefix="w"),
    "paper": paper_ansatz,
}


@pytest.mark.parametrize("ansatz", LIBRARY_ANSATZES)
@pytest.mark.parametrize("kind", ["amplitude", "paper", "zz"])
def test_shift_rules_are_exact_for_circuits_people_use(kind, ansatz):
    encoder = random_encoder(np.random.default_rng(0), kind, 4)
    assert_shift_rules_give_exact_derivatives(CircuitTemplate(encoder, LIBRARY_ANSATZES[ansatz](4)), batch=1)


def test_shift_rules_are_exact_for_the_papers_ten_qubits():
    template = CircuitTemplate(AngleEncoder.paper(10), paper_ansatz(10), readout="z")
    assert_shift_rules_give_exact_derivatives(template, batch=1)


def test_the_papers_ten_qubit_amplitude_encoding_keeps_its_values():
    template = CircuitTemplate(AmplitudeEncoder(100, 10), paper_ansatz(10), readout="z")
    gates = GateTemplate(template)
    assert (gates.num_encoder_angles, gates.num_ansatz_angles) == (127, 50)
    rng = np.random.default_rng(1)
    inputs, weights = rng.normal(size=(2, 100)), rng.uniform(-3, 3, 56)
    found = expectations(gates, gates.rows(inputs, weights), template.readout_observables)
    expected = statevector_values(template, inputs, weights, template.readout_observables)
    np.testing.assert_allclose(found, expected, atol=1e-10)


def test_amplitude_encoders_keep_their_own_angles():
    encoder = AmplitudeEncoder(11, 5)
    gates = GateTemplate(CircuitTemplate(encoder, real_amplitudes(5)))
    inputs = np.random.default_rng(0).normal(size=(3, 11))
    np.testing.assert_allclose(gates.encoder_angles(inputs), encoder.angles(inputs), atol=1e-15)
    np.testing.assert_allclose(gates.encoder_jacobian(inputs), encoder.angles_jacobian(inputs), atol=1e-15)


def test_the_papers_ten_qubit_encoder_has_seven_angles_that_sum_ten_features():
    gates = GateTemplate(CircuitTemplate(AngleEncoder.paper(10), paper_ansatz(10)))
    inputs = np.random.default_rng(0).normal(size=(4, 100))
    kept = [wire for wire in range(10) if wire % 3 != 2]
    np.testing.assert_allclose(gates.encoder_angles(inputs), inputs.reshape(4, 10, 10).sum(axis=2)[:, kept], atol=1e-13)
    expected = np.kron(np.eye(10)[kept], np.ones(10))
    np.testing.assert_array_equal(gates.encoder_jacobian(inputs), np.broadcast_to(expected, (4, 7, 100)))
    assert [item.operation.name for item in gates.encoder.circuit.data] == ["ry", "rx"] * 3 + ["ry"]
    assert gates.ansatz_jacobian(np.zeros(56)).shape == (gates.num_ansatz_angles, 56)


def test_rotations_merge_when_they_follow_each_other_on_their_qubits_and_only_then():
    a, b = ParameterVector("p", 2)
    circuit = QuantumCircuit(3)
    circuit.rx(a, 0)
    circuit.h(1)
    circuit.barrier()
    circuit.rx(2 * b, 0)  # merges across what happens on other qubits
    circuit.rxx(a, 0, 1)
    circuit.h(2)
    circuit.rxx(b, 0, 1)  # merges
    circuit.rx(a, 0)  # a gate between
    circuit.rz(a, 0)  # another kind
    circuit.crx(a, 0, 1)
    circuit.crx(b, 1, 0)  # control and target exchanged
    circuit.ry(a, 2)
    circuit.ry(0.5, 2)  # a gate without parameter between
    circuit.ry(b, 2)
    circuit.cry(a, 1, 2)
    for qubit in (1, 2):  # between, on one of both qubits
        circuit.h(qubit)
        circuit.cry(b, 1, 2)
    gates = GateAngles(circuit, [a, b])
    free = [item.operation.name for item in gates.circuit.data if item.operation.params and item.is_parameterized()]
    assert free == ["rx", "rxx", "rx", "rz", "crx", "crx", "ry", "ry", "cry", "cry", "cry"]
    np.testing.assert_allclose(gates([1.0, 10.0]), [21, 11, 1, 1, 1, 10, 1, 10, 1, 10, 10])
    np.testing.assert_array_equal(gates.jacobian([1.0, 10.0])[:2], [[1, 2], [1, 1]])
    found = Operator(bound(gates.circuit, gates.parameters, gates([0.3, -0.7])))
    assert found.equiv(Operator(bound(circuit, [a, b], [0.3, -0.7])))


def test_rotations_about_z_are_left_out_of_idle_qubits_only():
    x, w = ParameterVector("x", 3), ParameterVector("w", 4)
    encoder, ansatz = QuantumCircuit(3), QuantumCircuit(3)
    encoder.rz(x[0], 0)
    encoder.p(x[1], 1)
    encoder.crz(x[0], 0, 1)
    encoder.h(0)
    encoder.cp(x[2], 0, 1)  # qubit 0 is idle no more
    ansatz.rz(w[0], 0)
    ansatz.rz(w[1], 1)
    ansatz.rz(w[2], 2)  # still idle
    ansatz.rx(w[3], 2)
    gates = GateTemplate(CircuitTemplate(encoder, ansatz))
    assert [item.operation.name for item in gates.circuit.data] == ["h", "cp", "rz", "rz", "rx"]
    assert (gates.num_encoder_angles, gates.num_ansatz_angles) == (1, 3)
    np.testing.assert_array_equal(gates.encoder_jacobian([[0.1, 0.2, 0.3]]), [[[0, 0, 1]]])
    assert len(GateAngles(encoder, x).parameters) == 4


def test_an_encoder_may_be_left_with_no_angle_at_all():
    gates = GateTemplate(CircuitTemplate(AngleEncoder("zz", [0, 1], 2), real_amplitudes(2, reps=1)))
    inputs = np.ones((3, 2))
    assert gates.encoder_angles(inputs).shape == (3, 0)
    assert gates.encoder_jacobian(inputs).shape == (3, 0, 2)
    shifted, index, coefficients = gates.shift_rows(gates.rows(inputs, np.zeros(4)), [])
    assert shifted.shape == (3, 0, 4)
    assert index.shape == coefficients.shape == (0,)


def test_gates_without_parameters_stay_as_they_are():
    a = Parameter("a")
    circuit = QuantumCircuit(3)
    for name, size in FIXED.items():
        append_gate(circuit, name, [], [2, 0, 1][:size])
    circuit.append(UnitaryGate(random_unitary(8, seed=0)), [1, 2, 0])
    circuit.append(QFTGate(3), [0, 2, 1])
    circuit.rx(0.25, 1)
    before = list(circuit.data)
    circuit.rx(a, 0)
    gates = GateAngles(circuit, [a])
    assert [(g.operation, [gates.circuit.find_bit(q).index for q in g.qubits]) for g in gates.circuit.data[:-1]] == [
        (g.operation, [circuit.find_bit(q).index for q in g.qubits]) for g in before
    ]


def test_parameters_inside_nested_gates_and_negative_controls_are_found():
    a, b = ParameterVector("p", 2)
    inner = QuantumCircuit(2, global_phase=a)
    inner.rx(a * b, 0)
    inner.append(zz_feature_map(2, reps=1).assign_parameters([a, b]).to_gate(), [1, 0])
    circuit = QuantumCircuit(3)
    circuit.h(range(3))
    circuit.append(inner.to_gate(), [2, 0])
    circuit.cry(b, 2, 1, ctrl_state=0)
    circuit.append(inner.to_gate().control(1), [1, 2, 0])
    gates = GateAngles(circuit, [a, b])
    assert_one_gate_per_angle(gates.circuit, gates.parameters)
    values = [0.4, -1.3]
    found = Operator(bound(gates.circuit, gates.parameters, gates(values)))
    assert found.equiv(Operator(bound(circuit, [a, b], values)))


def test_angles_and_slopes_of_many_samples_are_those_of_each():
    rng = np.random.default_rng(5)
    p = ParameterVector("p", 3)
    gates = GateAngles(random_circuit(rng, 3, 30, p), p)
    values = rng.uniform(-1, 1, (2, 4, 3))
    angles, slopes = gates(values), gates.jacobian(values)
    assert angles.shape == (2, 4, len(gates.parameters))
    assert slopes.shape == (2, 4, len(gates.parameters), 3)
    for index in np.ndindex(2, 4):
        np.testing.assert_allclose(angles[index], gates(values[index]), atol=1e-13)
        np.testing.assert_allclose(slopes[index], gates.jacobian(values[index]), atol=1e-13)
        assert relative_error(slopes[index], central_difference(gates, values[index])) < 1e-7


def test_shifted_rows_come_in_the_order_asked_for():
    rows = np.random.default_rng(0).normal(size=(2, 3))
    rules = [ShiftRule((1.0, 2.0), (3.0, 4.0)), ShiftRule((9.0,), (9.0,)), ShiftRule((5.0, 6.0, 7.0), (0.5, 0.6, 0.7))]
    shifted, index, coefficients = shift_rows(rows, rules, np.array([2, 0]))
    assert index.tolist() == [2, 2, 2, 0, 0]
    assert coefficients.tolist() == [0.5, 0.6, 0.7, 3.0, 4.0]
    shifts = np.array([[0, 0, 5], [0, 0, 6], [0, 0, 7], [1, 0, 0], [2, 0, 0]])
    np.testing.assert_allclose(shifted, rows[:, None] + shifts)
    assert shift_rows(rows, rules)[1].tolist() == [0, 0, 1, 2, 2, 2]


@pytest.mark.parametrize("which", [[3], [-1], [0.5], [[0]], [True]])
def test_angles_that_do_not_exist_cannot_be_shifted(which):
    with pytest.raises(InputError, match="which"):
        shift_rows(np.zeros((1, 3)), [TWO_TERM] * 3, which)


@pytest.mark.parametrize("shape", [(3,), (1, 2), (1, 1, 3)])
def test_rows_to_shift_have_one_column_per_rule(shape):
    with pytest.raises(InputError, match="rows"):
        shift_rows(np.zeros(shape), [TWO_TERM] * 3)


def test_an_opaque_gate_is_an_error_that_names_it():
    a = Parameter("a")
    circuit = QuantumCircuit(3)
    circuit.append(Gate("mystery", 3, [a]), [0, 1, 2])
    with pytest.raises(InputError, match="mystery"):
        GateAngles(circuit, [a])


def test_a_measurement_is_an_error_that_names_it():
    a = Parameter("a")
    circuit = QuantumCircuit(1, 1)
    circuit.rx(a, 0)
    circuit.measure(0, 0)
    with pytest.raises(InputError, match="measure"):
        GateAngles(circuit, [a])


def test_an_expression_undefined_at_a_sample_is_an_error_that_names_it():
    a = Parameter("a")
    circuit = QuantumCircuit(1)
    circuit.ry(a, 0)
    circuit.rx(a.log(), 0)
    gates = GateAngles(circuit, [a])
    with pytest.raises(InputError, match=r"gate angle 1 of sample 2 is nan"):
        gates([[1.0], [2.0], [-1.0]])
    with pytest.raises(InputError, match="derivative"):
        gates.jacobian([0.0])


@pytest.mark.parametrize("values", [1.0, [1.0, 2.0], ["a"]])
def test_values_that_do_not_fit_the_parameters_are_an_error(values):
    a = Parameter("a")
    circuit = QuantumCircuit(1)
    circuit.ry(a, 0)
    with pytest.raises(InputError, match="values must"):
        GateAngles(circuit, [a])(values)


def test_inputs_the_encoder_cannot_encode_are_an_error():
    gates = GateTemplate(CircuitTemplate(AmplitudeEncoder(4), real_amplitudes(2)))
    for method in (gates.encoder_angles, gates.encoder_jacobian):
        with pytest.raises(InputError, match="sample 1"):
            method([[1, 0, 0, 0], [0, 0, 0, 0]])
