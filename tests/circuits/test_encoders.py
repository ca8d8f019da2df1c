from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qiskit import QuantumCircuit
from qiskit.circuit import ClassicalRegister, Gate, Parameter, ParameterVector
from qiskit.circuit.library import zz_feature_map
from qiskit.quantum_info import Kraus, Statevector

from qiskit_qdeq.circuits import AmplitudeEncoder, AngleEncoder, CircuitEncoder, as_encoder
from qiskit_qdeq.exceptions import InputError

PAULI = {
    "x": np.array([[0, 1], [1, 0]]),
    "y": np.array([[0, -1j], [1j, 0]]),
    "z": np.diag([1, -1]),
}


def kron_state(axes, wires, num_qubits, inputs):
    """Product of single-qubit states; wire 0 is the leftmost Kronecker factor."""
    states = [np.array([1, 0], complex) for _ in range(num_qubits)]
    for axis, wire, angle in zip(axes, wires, inputs, strict=True):
        rotation = np.cos(angle / 2) * np.eye(2) - 1j * np.sin(angle / 2) * PAULI[axis]
        states[wire] = rotation @ states[wire]
    product = np.ones(1)
    for state in states:
        product = np.kron(product, state)
    return product


def circuit_state(encoder, inputs):
    angles = encoder.angles(inputs[None])[0]
    return Statevector(encoder.circuit.assign_parameters(dict(zip(encoder.parameters, angles, strict=True)))).data


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.data())
def test_an_angle_encoder_prepares_the_product_of_its_rotations(data):
    num_qubits = data.draw(st.integers(1, 4))
    size = data.draw(st.integers(1, 9))
    axes = data.draw(st.lists(st.sampled_from("xyz"), min_size=size, max_size=size))
    wires = data.draw(st.lists(st.integers(0, num_qubits - 1), min_size=size, max_size=size))
    inputs = np.array(data.draw(st.lists(st.floats(-7, 7), min_size=size, max_size=size)))
    encoder = AngleEncoder(axes, wires, num_qubits)
    np.testing.assert_allclose(circuit_state(encoder, inputs), kron_state(axes, wires, num_qubits, inputs), atol=1e-13)


def test_the_product_axes_tell_the_rotations_as_integers():
    axes, wires = AngleEncoder("xyz", [2, 0, 1], 3).product_axes
    assert axes.tolist() == [0, 1, 2]
    assert wires.tolist() == [2, 0, 1]
    assert not axes.flags.writeable
    assert not wires.flags.writeable


def test_encoders_without_product_state_say_so():
    assert AmplitudeEncoder(4).product_axes is None
    assert CircuitEncoder(zz_feature_map(2)).product_axes is None


def test_the_layout_of_the_paper_for_four_qubits():
    encoder = AngleEncoder.paper(4)
    layout = [(item.operation.name, 3 - encoder.circuit.find_bit(item.qubits[0]).index) for item in encoder.circuit]
    assert layout == [(name, wire) for name in ("ry", "rz", "rx", "ry") for wire in range(4)]


def test_the_layout_of_the_paper_for_ten_qubits_sees_seven_sums_only():
    encoder = AngleEncoder.paper(10)
    rng = np.random.default_rng(3)
    inputs = rng.normal(size=100)
    sums = np.zeros(100)
    sums[::10] = inputs.reshape(10, 10).sum(axis=1)
    sums[[20, 50, 80]] = rng.normal(size=3)
    assert abs(np.vdot(circuit_state(encoder, inputs), circuit_state(encoder, sums))) == pytest.approx(1, abs=1e-12)
    assert [item.operation.name for item in encoder.circuit][::10] == ["ry", "rx", "rz"] * 3 + ["ry"]


@pytest.mark.parametrize("num_qubits", [2, 5, 16, "4"])
def test_the_paper_has_no_angle_encoder_for_other_sizes(num_qubits):
    with pytest.raises(InputError, match="use AngleEncoder"):
        AngleEncoder.paper(num_qubits)


def test_layers_cycle_wires_first_and_axes_then():
    encoder = AngleEncoder.layered(8, 3, axes=("x", "z"))
    assert encoder.wires.tolist() == [0, 1, 2, 0, 1, 2, 0, 1]
    assert encoder.axes.tolist() == [0, 0, 0, 2, 2, 2, 0, 0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("xy", [0], 2), "2 axes and 1 wires"),
        (("", [], 2), "0 axes and 0 wires"),
        (("xq", [0, 1], 2), "got 'q'"),
        ((["xy"], [0], 2), "got 'xy'"),
        (("xy", [0, 2], 2), "wires must lie in 0..1"),
        (("xy", [0, -1], 2), "wires must be an integer of at least 0"),
        (("xy", [0, 0.5], 2), "wires must be an integer"),
        (("xy", [0, 1], 0), "num_qubits must be an integer of at least 1"),
    ],
)
def test_unusable_angle_layouts_are_errors(arguments, message):
    with pytest.raises(InputError, match=message):
        AngleEncoder(*arguments)


def test_layers_need_an_axis():
    with pytest.raises(InputError, match="axes must name at least one"):
        AngleEncoder.layered(4, 2, axes=())


@pytest.mark.parametrize(
    "encoder", [AngleEncoder.layered(5, 2), CircuitEncoder(zz_feature_map(5))], ids=["angle", "map"]
)
def test_where_angles_are_the_inputs_their_jacobian_is_the_identity(encoder):
    inputs = np.random.default_rng(0).normal(size=(3, 5))
    np.testing.assert_array_equal(encoder.angles(inputs), inputs)
    np.testing.assert_array_equal(encoder.angles_jacobian(inputs), np.stack([np.eye(5)] * 3))
    assert encoder.differentiable(inputs).all()


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (np.ones(3), r"shape \(samples, 3\), got \(3,\)"),
        (np.ones((2, 4)), r"got \(2, 4\)"),
        (np.ones((1, 2, 3)), r"got \(1, 2, 3\)"),
        ([[1.0, 2.0, 3.0], [1.0, np.nan, 2.0]], "sample 1 are not finite: feature 1 is nan"),
        ([[1.0, 2.0, np.inf]], "sample 0 are not finite: feature 2 is inf"),
        (np.ones((1, 3)) * 1j, "real numbers, got an array of dtype complex128"),
        ([["a", "b", "c"]], "real numbers"),
        ([[None, 1.0, 2.0]], "real numbers"),
        ([[1.0, 2.0, 3.0], [1.0]], "rectangular"),
    ],
)
@pytest.mark.parametrize(
    "encoder",
    [AmplitudeEncoder(3), AngleEncoder.layered(3, 2), CircuitEncoder(zz_feature_map(3))],
    ids=["amplitude", "angle", "circuit"],
)
def test_unusable_inputs_are_errors_that_name_the_sample(encoder, inputs, message):
    for method in (encoder.validate, encoder.angles, encoder.angles_jacobian, encoder.differentiable):
        with pytest.raises(InputError, match=message):
            method(inputs)


def test_validation_returns_float64_of_any_real_array():
    for array in (np.ones((2, 3), np.int64), np.ones((2, 3), np.float32), [[True, False, True]]):
        assert AngleEncoder.layered(3, 2).validate(array).dtype == np.float64


def test_vector_elements_are_ordered_by_index_not_by_name():
    inputs = ParameterVector("x", 12)
    circuit = QuantumCircuit(2)
    for parameter in reversed(list(inputs)):
        circuit.ry(parameter, 0)
    assert CircuitEncoder(circuit).parameters == tuple(inputs)


def test_the_order_given_is_kept():
    a, b = Parameter("a"), Parameter("b")
    circuit = QuantumCircuit(1)
    circuit.ry(a, 0)
    circuit.rz(2 * b, 0)
    assert CircuitEncoder(circuit, [b, a]).parameters == (b, a)


def test_parameters_may_repeat_inside_expressions():
    x = ParameterVector("x", 2)
    circuit = QuantumCircuit(1)
    circuit.ry(x[0] * x[1] + 0.3, 0)
    circuit.rx(x[0] - 2 * x[1], 0)
    encoder = CircuitEncoder(circuit)
    u = np.array([0.4, -1.2])
    expected = kron_state("yx", [0, 0], 1, [0.4 * -1.2 + 0.3, 0.4 + 2.4])
    np.testing.assert_allclose(circuit_state(encoder, u), expected, atol=1e-14)


def test_later_changes_of_the_users_circuit_do_not_reach_the_encoder():
    circuit = zz_feature_map(2)
    encoder = CircuitEncoder(circuit)
    circuit.measure_all()
    assert encoder.circuit.num_clbits == 0


def rotation_circuit() -> QuantumCircuit:
    circuit = QuantumCircuit(2)
    circuit.rx(Parameter("a"), 0)
    return circuit


def with_reset() -> QuantumCircuit:
    circuit = rotation_circuit()
    circuit.reset(1)
    return circuit


def with_nested_reset() -> QuantumCircuit:
    circuit = QuantumCircuit(2)
    circuit.append(with_reset().to_instruction(), [0, 1])
    return circuit


def with_measurement() -> QuantumCircuit:
    circuit = rotation_circuit()
    circuit.measure_all()
    return circuit


def with_branch() -> QuantumCircuit:
    circuit = rotation_circuit()
    circuit.add_register(ClassicalRegister(1))
    with circuit.if_test((0, 1)):
        circuit.x(0)
    return circuit


def with_loop() -> QuantumCircuit:
    circuit = rotation_circuit()
    with circuit.for_loop(range(2)):
        circuit.x(0)
    return circuit


def with_initialize() -> QuantumCircuit:
    circuit = rotation_circuit()
    circuit.initialize([1, 0], [1])
    return circuit


def with_channel() -> QuantumCircuit:
    circuit = rotation_circuit()
    circuit.append(Kraus([np.sqrt(0.5) * np.eye(2), np.sqrt(0.5) * PAULI["x"]]), [0])
    return circuit


def with_opaque_gate() -> QuantumCircuit:
    circuit = rotation_circuit()
    circuit.append(Gate("oracle", 1, []), [0])
    return circuit


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (with_reset, "contains 'reset'"),
        (with_nested_reset, "contains 'reset'"),
        (with_measurement, "classical bits"),
        (with_branch, "classical bits"),
        (with_loop, "contains 'for_loop'"),
        (with_initialize, "contains 'reset'"),
        (with_channel, "contains 'kraus'"),
        (with_opaque_gate, "opaque gate 'oracle'"),
        (lambda: QuantumCircuit(2), "no parameters"),
        (lambda: QuantumCircuit(0), "no qubits"),
        (lambda: "circuit", "must be a QuantumCircuit, got str"),
    ],
)
def test_circuits_that_are_not_unitary_and_parametrized_are_errors(build, message):
    with pytest.raises(InputError, match=message):
        CircuitEncoder(build())


def test_unitary_composites_and_barriers_are_accepted():
    circuit = QuantumCircuit(3)
    circuit.append(zz_feature_map(3).to_instruction(), range(3))
    circuit.barrier()
    circuit.prepare_state([1, 0], [0])
    assert CircuitEncoder(circuit).num_features == 3


@pytest.mark.parametrize(
    ("choose", "message"),
    [
        (lambda a, b: [a], r"parameters \['b'\] are not among the inputs"),
        (lambda a, b: [a, b, Parameter("c")], r"inputs \['c'\] do not occur"),
        (lambda a, b: [a, b, a], "twice"),
        (lambda a, b: ["a", "b"], "contain 'a'"),
        (lambda a, b: [], "no parameters"),
    ],
)
def test_inputs_must_be_exactly_the_parameters_of_the_circuit(choose, message):
    a, b = Parameter("a"), Parameter("b")
    circuit = QuantumCircuit(1)
    circuit.ry(a, 0)
    circuit.rz(b, 0)
    with pytest.raises(InputError, match=message):
        CircuitEncoder(circuit, choose(a, b))


def test_as_encoder_keeps_encoders_and_wraps_circuits():
    encoder = AmplitudeEncoder(4)
    assert as_encoder(encoder) is encoder
    assert isinstance(as_encoder(zz_feature_map(2)), CircuitEncoder)
    with pytest.raises(InputError, match="got int"):
        as_encoder(3)


@pytest.mark.parametrize(
    "encoder", [AmplitudeEncoder(5, 4), AngleEncoder.paper(4), CircuitEncoder(zz_feature_map(4))], ids=repr
)
def test_the_sizes_of_an_encoder_agree_with_its_circuit(encoder):
    assert encoder.circuit.num_qubits == encoder.num_qubits == 4
    assert len(encoder.parameters) == encoder.num_angles == encoder.circuit.num_parameters
    assert set(encoder.parameters) == set(encoder.circuit.parameters)
    assert encoder.angles(np.ones((2, encoder.num_features))).shape == (2, encoder.num_angles)
    assert encoder.circuit is encoder.circuit
