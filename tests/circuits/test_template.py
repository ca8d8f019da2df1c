from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from qiskit import QuantumCircuit, transpile
from qiskit.circuit import Parameter, ParameterVector
from qiskit.circuit.library import efficient_su2, zz_feature_map
from qiskit.primitives import StatevectorEstimator
from qiskit.quantum_info import SparsePauliOp, Statevector

from qiskit_qdeq.circuits import (
    AmplitudeEncoder,
    AngleEncoder,
    CircuitTemplate,
    as_ansatz,
    hardware_efficient_ansatz,
    paper_ansatz,
    random_ansatz,
)
from qiskit_qdeq.exceptions import InputError


def interleaved_template():
    """A template whose parameters Qiskit sorts as a (angles), b (weights), x (angles), z (weight)."""
    x, y = ParameterVector("x", 11), ParameterVector("a", 2)
    encoder = QuantumCircuit(2)
    for index, parameter in enumerate([*x, *y]):
        encoder.ry(parameter, index % 2)
        encoder.rx(0.5 * parameter, (index + 1) % 2)
    b, z = ParameterVector("b", 12), Parameter("z")
    ansatz = QuantumCircuit(2)
    for index, parameter in enumerate([z, *b]):
        ansatz.rx(parameter, index % 2)
        ansatz.cx(0, 1)
    return CircuitTemplate(encoder, ansatz, weights=[z, *reversed(list(b))])


TEMPLATES = {
    "amplitude": lambda: CircuitTemplate(AmplitudeEncoder(5, 4), paper_ansatz(4)),
    "angle": lambda: CircuitTemplate(AngleEncoder.layered(7, 3), random_ansatz(3, 12, seed=2)),
    "map": lambda: CircuitTemplate(zz_feature_map(3), efficient_su2(3, reps=1)),
    "interleaved": interleaved_template,
}


@pytest.fixture(params=TEMPLATES)
def template(request):
    return TEMPLATES[request.param]()


@pytest.fixture
def values(template):
    rng = np.random.default_rng(0)
    return rng.normal(size=(3, template.num_features)), rng.uniform(-3, 3, template.num_weights)


def test_binding_is_encoding_followed_by_the_ansatz(template, values):
    inputs, weights = values
    encoder = template.encoder
    angles = encoder.angles(inputs)
    for sample, row in zip(inputs, angles, strict=True):
        state = Statevector(encoder.circuit.assign_parameters(dict(zip(encoder.parameters, row, strict=True))))
        expected = state.evolve(template.ansatz.assign_parameters(dict(zip(template.weights, weights, strict=True))))
        np.testing.assert_allclose(Statevector(template.bind(sample, weights)).data, expected.data, atol=1e-12)


def test_parameter_values_bind_by_position_what_bind_binds_by_name(template, values):
    inputs, weights = values
    rows = template.parameter_values(inputs, weights)
    assert rows.shape == (3, template.circuit.num_parameters)
    for sample, row in zip(inputs, rows, strict=True):
        by_position = Statevector(template.circuit.assign_parameters(row))
        np.testing.assert_allclose(by_position.data, Statevector(template.bind(sample, weights)).data, atol=1e-14)


def test_an_estimator_takes_circuit_observables_and_parameter_values(template, values):
    inputs, weights = values
    observables = [[observable] for observable in template.state_observables]
    pub = (template.circuit, observables, template.parameter_values(inputs, weights))
    measured = StatevectorEstimator().run([pub]).result()[0].data.evs
    states = [Statevector(template.bind(sample, weights)) for sample in inputs]
    expected = [[s.expectation_value(o).real for s in states] for o in template.state_observables]
    np.testing.assert_allclose(measured, expected, atol=1e-12)


def test_weights_may_differ_per_sample_and_axes_broadcast(template, values):
    inputs, weights = values
    batch = np.stack([weights, weights + 1, weights - 1])
    rows = template.parameter_values(inputs, batch)
    for sample, own, row in zip(inputs, batch, rows, strict=True):
        np.testing.assert_allclose(template.parameter_values(sample[None], own)[0], row, atol=1e-14)
    angles = template.encoder.angles(inputs)
    grid = template.arrange(angles[None], batch[:2, None])
    assert grid.shape == (2, 3, rows.shape[1])
    np.testing.assert_allclose(grid[1, 2], template.parameter_values(inputs[2:], batch[1])[0], atol=1e-14)


def test_positions_find_every_parameter_once(template):
    order = template.circuit.parameters
    assert [order[i] for i in template.angle_positions] == list(template.encoder.parameters)
    assert [order[i] for i in template.weight_positions] == list(template.weights)
    together = np.concatenate([template.angle_positions, template.weight_positions])
    assert sorted(together) == list(range(len(order)))


def test_sizes_are_those_of_the_parts():
    template = CircuitTemplate(AmplitudeEncoder(16), paper_ansatz(4), readout="zzz")
    sizes = (template.num_qubits, template.num_features, template.num_angles, template.num_weights)
    assert sizes == (4, 16, 15, 39)
    assert (template.num_states, template.num_readouts) == (4, 14)


@pytest.mark.parametrize(
    ("num_qubits", "depth", "two_qubit_gates"),
    [(4, 48, 11 + 17), (10, 259, 120 + 18)],
)
def test_depth_and_two_qubit_gates_of_the_papers_amplitude_model(num_qubits, depth, two_qubit_gates):
    template = CircuitTemplate(AmplitudeEncoder(num_qubits**2, num_qubits), paper_ansatz(num_qubits))
    assert (template.depth, template.two_qubit_gates) == (depth, two_qubit_gates)


def test_composite_gates_are_counted_by_their_one_and_two_qubit_gates():
    inner = QuantumCircuit(3)
    inner.h(0)
    inner.cx(0, 1)
    inner.cx(1, 2)
    pair = QuantumCircuit(2)
    pair.cx(0, 1)
    pair.cz(0, 1)
    encoder = QuantumCircuit(3)
    encoder.append(inner.to_gate(label="inner"), range(3))
    encoder.append(pair.to_gate(), [0, 1])
    encoder.ry(Parameter("u"), 0)
    ansatz = QuantumCircuit(3)
    ansatz.ccx(0, 1, 2)
    ansatz.crx(Parameter("w"), 0, 1)
    template = CircuitTemplate(encoder, ansatz)
    assert template.two_qubit_gates == 2 + 2 + 6 + 1
    flat = transpile(template.circuit, basis_gates=["h", "t", "tdg", "ry", "cx", "cz", "crx"], optimization_level=0)
    assert template.depth == flat.depth()


def test_barriers_do_not_count_as_depth():
    encoder = QuantumCircuit(2)
    encoder.ry(Parameter("u"), 0)
    encoder.barrier()
    ansatz = QuantumCircuit(2)
    ansatz.ry(Parameter("w"), 1)
    assert CircuitTemplate(encoder, ansatz).depth == 1
    assert CircuitTemplate(encoder, ansatz).two_qubit_gates == 0


def test_states_default_to_z_and_readouts_to_zz():
    template = CircuitTemplate(AngleEncoder.layered(4, 3), hardware_efficient_ansatz(3, 1))
    assert [str(o.paulis[0]) for o in template.state_observables] == ["ZII", "IZI", "IIZ"]
    assert template.num_readouts == 6


def test_own_observables_are_held():
    x = SparsePauliOp("XX")
    template = CircuitTemplate(
        AngleEncoder.layered(4, 2), hardware_efficient_ansatz(2, 1), state_observables=[x], readout=[x, x]
    )
    assert template.state_observables == (x,)
    assert template.readout_observables == (x, x)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ansatz": paper_ansatz(10)}, "the encoder has 4 qubits, the ansatz 10"),
        ({"ansatz": 3}, "the ansatz circuit must be a QuantumCircuit, got int"),
        ({"encoder": None}, "encoder must be an Encoder or a QuantumCircuit, got NoneType"),
        ({"state_observables": [SparsePauliOp("Z")]}, r"state_observables\[0\] acts on 1 qubits"),
        ({"state_observables": []}, "state_observables must not be empty"),
        ({"readout": "zx"}, "got 'zx'"),
        ({"readout": [SparsePauliOp("ZZ")]}, r"readout observables\[0\] acts on 2 qubits"),
        ({"weights": list(ParameterVector("w", 39))}, "do not occur in the circuit"),
        (
            {"encoder": AngleEncoder.layered(4, 4), "ansatz": AngleEncoder.layered(4, 4).circuit},
            r"named \['angles\[0",
        ),
    ],
)
def test_parts_that_do_not_fit_are_errors(options, message):
    parts = {"encoder": AmplitudeEncoder(16), "ansatz": paper_ansatz(4)} | options
    with pytest.raises(InputError, match=message):
        CircuitTemplate(**parts)


@pytest.mark.parametrize(
    ("inputs", "weights", "message"),
    [
        (np.ones((1, 5)), np.ones(3), r"weights must have a last axis of length 39, got shape \(3,\)"),
        (np.ones((1, 5)), 1.0, r"got shape \(\)"),
        (np.ones((1, 5)), np.full(39, np.nan), "weights must be finite, got nan"),
        (np.ones((2, 5)), np.ones((3, 39)), "do not broadcast"),
        (np.ones((2, 4)), np.ones(39), r"inputs must have shape \(samples, 5\)"),
        (np.zeros((1, 5)), np.ones(39), "sample 0 are all zero"),
        (np.ones((1, 5)), ["a"] * 39, "weights must be real numbers"),
        (np.ones((1, 5)), 1j * np.ones(39), "weights must be real numbers"),
    ],
)
def test_unusable_values_are_errors(inputs, weights, message):
    template = CircuitTemplate(AmplitudeEncoder(5, 4), paper_ansatz(4))
    with pytest.raises(InputError, match=message):
        template.parameter_values(inputs, weights)


def test_bind_takes_one_sample_and_one_weight_vector():
    template = CircuitTemplate(AmplitudeEncoder(5, 4), paper_ansatz(4))
    with pytest.raises(InputError, match="inputs must have shape"):
        template.bind(np.ones((1, 5)), np.ones(39))
    with pytest.raises(InputError, match="inputs must be a rectangular array"):
        template.bind([1.0, [2.0, 3.0]], np.ones(39))
    with pytest.raises(InputError, match=r"weights must have shape \(39,\), got \(1, 39\)"):
        template.bind(np.ones(5), np.ones((1, 39)))


def test_a_template_is_frozen():
    template = CircuitTemplate(AmplitudeEncoder(4), hardware_efficient_ansatz(2, 1))
    with pytest.raises(dataclasses.FrozenInstanceError):
        template.weights = ()


def test_an_ansatz_object_brings_its_weight_order():
    circuit = hardware_efficient_ansatz(2, 1)
    order = tuple(reversed(list(circuit.parameters)))
    assert CircuitTemplate(AmplitudeEncoder(4), as_ansatz(circuit, order)).weights == order


def test_the_text_and_html_pictures_name_the_parts():
    template = CircuitTemplate(AmplitudeEncoder(4), hardware_efficient_ansatz(2, 1))
    assert repr(template) == (
        "CircuitTemplate(AmplitudeEncoder(num_features=4, num_qubits=2), 6 weights, 2 state and 3 readout observables)"
    )
    html = template._repr_html_()
    assert "<th>two-qubit gates</th><td>2</td>" in html
    assert "AmplitudeEncoder(num_features=4, num_qubits=2)" in html
    assert "Ry(angles[0])" in str(template.draw("text", fold=-1))


@pytest.mark.parametrize("wrap", [False, True], ids=["plain", "inside a gate"])
@pytest.mark.parametrize(
    ("angle", "message"),
    [(lambda w: w * 1j, "complex"), (lambda w: w.sign(), "cannot be differentiated")],
)
def test_angles_that_are_not_real_or_have_no_derivative_are_refused_at_construction(angle, message, wrap):
    weight, x = Parameter("weight"), Parameter("x")
    ansatz, encoder = QuantumCircuit(1), QuantumCircuit(1)
    ansatz.rx(angle(weight), 0)
    encoder.ry(x, 0)
    if wrap:
        outer = QuantumCircuit(1)
        outer.append(ansatz.to_gate(), [0])
        ansatz = outer
    with pytest.raises(InputError, match=message):
        CircuitTemplate(encoder, ansatz)
    with pytest.raises(InputError, match=message):
        CircuitTemplate(ansatz, encoder)
