"""The exact noisy evaluator against Aer's density matrix, the package's noisy estimator and finite differences."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.primitives.containers.observables_array import ObservablesArray
from qiskit.quantum_info import SparsePauliOp
from qiskit_aer import AerSimulator
from qiskit_aer.noise import (
    NoiseModel,
    ReadoutError,
    amplitude_damping_error,
    coherent_unitary_error,
    depolarizing_error,
    phase_amplitude_damping_error,
)
from qiskit_aer.primitives import EstimatorV2

from qiskit_qdeq import QDEQClassifier, QDEQModel, TrainingConfig, model_config, solve
from qiskit_qdeq.circuits import CircuitTemplate, hardware_efficient_ansatz
from qiskit_qdeq.equilibrium.solvers import Newton
from qiskit_qdeq.evaluation.protocol import Cotangent
from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.execution.description import Execution
from qiskit_qdeq.execution.devices import fake_backend
from qiskit_qdeq.execution.isa import to_isa
from qiskit_qdeq.execution.noise import noise_from_backend, parse_noise, simple_noise
from qiskit_qdeq.execution.running import executed
from qiskit_qdeq.training.step import training_step

RATES = "0.002,0.02,0.03"


def build(encoding="amplitude", qubits=4, readout="zz"):
    features = min(qubits**2, 2**qubits)
    return model_config("default", features, 4, qubits, encoding=encoding, readout=readout).build()


def mixed_model(ansatz=None):
    """Two qubits, observables with X and Y, one of them both fed back and read out."""
    encoder = QuantumCircuit(2)
    u = ParameterVector("u", 3)
    encoder.ry(u[0], 0)
    encoder.rx(u[1] * u[0], 1)
    encoder.cx(0, 1)
    encoder.rz(0.3 + u[2], 1)
    states = [SparsePauliOp("XY"), SparsePauliOp(["ZI", "IX"], [0.4, -0.3])]
    readout = [SparsePauliOp("XY"), SparsePauliOp("YZ"), SparsePauliOp(["II", "ZZ"], [0.2, 1.0])]
    template = CircuitTemplate(
        encoder, ansatz or hardware_efficient_ansatz(2, 2), state_observables=states, readout=readout
    )
    return QDEQModel(template, 2, injection=np.random.default_rng(5).uniform(-1, 1, (3, 2)))


def drawn(model, batch=3, seed=0):
    rng = np.random.default_rng(seed)
    weights = rng.uniform(-np.pi, np.pi, model.num_weights)
    x = model.prepare(rng.standard_normal((batch, model.num_features)))
    return weights, x, rng.uniform(-1, 1, (batch, model.num_states))


def observed(model, weights, x, state):
    point = model.map(weights, x).at(state)
    return np.concatenate([point.values, point.features], axis=1)


def by_aer(noisy, simulator, weights, x, state, level=1):
    """The same from qiskit-aer's EstimatorV2 on the transpiled circuit, density matrix, no shots."""
    gates, template = noisy.evaluator.gates, noisy.template
    observables = (*template.state_observables, *template.readout_observables)
    circuit, moved = to_isa(gates.circuit, observables, backend=simulator, optimization_level=level)
    rows = gates.rows(x + state @ noisy.injection.T, weights)
    columns = [gates.parameters.index(parameter) for parameter in circuit.parameters]
    array = ObservablesArray(moved).reshape(len(moved), 1)
    estimator = EstimatorV2.from_backend(simulator)
    return estimator.run([(circuit, array, rows[:, columns])]).result()[0].data.evs.T


@pytest.mark.parametrize("encoding", ["amplitude", "angle"])
@pytest.mark.parametrize("name", ["torino", "manila", "sherbrooke"])
def test_values_are_those_of_aer_on_fake_devices(name, encoding):
    # torino has error terms of probability below 1e-10, which Aer leaves out; torino has cz, manila cx, sherbrooke ecr
    model, simulator = build(encoding), parse_noise(f"fake:{name}", 4)
    sample, noisy = drawn(model, 2, seed=len(name)), model.noisy(simulator, readout=False)
    found = observed(noisy, *sample)
    np.testing.assert_allclose(found, by_aer(noisy, simulator, *sample), rtol=0, atol=1e-10)
    assert np.abs(found - observed(model, *sample)).max() > 1e-3


@settings(max_examples=6)
@given(seed=st.integers(0, 2**31), level=st.integers(0, 3))
def test_values_are_those_of_aer_for_any_weights_and_inputs(seed, level):
    model, simulator = build("amplitude", 3), simple_noise(3, one_qubit=0.01, two_qubit=0.05, amplitude_damping=0.02)
    sample = drawn(model, 2, seed)
    noisy = model.noisy(simulator, readout=False, optimization_level=level)
    expected = by_aer(noisy, simulator, *sample, level=level)
    np.testing.assert_allclose(observed(noisy, *sample), expected, rtol=0, atol=1e-10)


def one_way():
    """Errors that differ by direction of the gate and by qubit, are coherent or damp, on some qubits only."""
    model = NoiseModel(["rz", "sx", "x", "cx", "rzz"])
    twist = coherent_unitary_error(np.diag(np.exp(1j * np.array([0.1, 0.2, -0.3, 0.4]))))
    model.add_quantum_error(
        twist.compose(amplitude_damping_error(0.2).tensor(depolarizing_error(0.1, 1))), "cx", [0, 1]
    )
    model.add_all_qubit_quantum_error(depolarizing_error(0.03, 2), ["cx", "rzz"])
    model.add_quantum_error(phase_amplitude_damping_error(0.1, 0.05, 0.3), ["sx", "rz"], [1])
    model.add_quantum_error(amplitude_damping_error(0.15), ["x", "rz"], [0])
    model.add_readout_error(ReadoutError([[0.9, 0.1], [0.3, 0.7]]), [0])
    model.add_readout_error(ReadoutError([[0.95, 0.05], [0.02, 0.98]]), [1])
    return AerSimulator(
        noise_model=model, method="density_matrix", basis_gates=["rz", "sx", "x", "cx", "rzz"], n_qubits=2
    )


def swapped_ansatz():
    circuit, weights = QuantumCircuit(2), ParameterVector("w", 4)
    circuit.rx(weights[0], 0)
    circuit.cx(0, 1)
    circuit.crx(weights[1], 1, 0)
    circuit.cx(1, 0)
    circuit.rzz(weights[2], 1, 0)
    circuit.ry(weights[3] * weights[3], 1)
    return circuit


def test_custom_noise_that_differs_between_qubits_directions_and_rotations():
    model, simulator = mixed_model(swapped_ansatz()), one_way()
    sample, noisy = drawn(model, 4), model.noisy(simulator, readout=False)
    np.testing.assert_allclose(observed(noisy, *sample), by_aer(noisy, simulator, *sample), rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    "simulator", [one_way(), simple_noise(2, one_qubit=0.05, readout=0.1)], ids=["local", "uniform"]
)
def test_readout_errors_and_noisy_basis_changes_are_those_of_measured_circuits(simulator):
    # confusion that differs by bit, observables with X and Y, one with the identity
    model = mixed_model(swapped_ansatz())
    sample = drawn(model, 3)
    with executed(model, Execution("aer", noise="0,0,0")) as plain:
        without = observed(plain, *sample)
    from qiskit_qdeq.execution.noisy_estimator import DensityMatrixEstimator

    measured = model.measured(DensityMatrixEstimator(simulator), backend=simulator)
    expected = observed(measured, *sample)
    np.testing.assert_allclose(observed(model.noisy(simulator), *sample), expected, rtol=0, atol=1e-10)
    assert np.abs(expected - without).max() > 0.02


@pytest.mark.parametrize("noise", [RATES, "fake:torino"])
def test_the_programs_noise_is_the_same_measured_and_computed(noise):
    model = build(readout="zzz")
    sample = drawn(model, 2)
    with executed(model, Execution("exact", noise=noise)) as computed:
        found = observed(computed, *sample)
    with executed(model, Execution("aer", noise=noise)) as measured:
        np.testing.assert_allclose(found, observed(measured, *sample), rtol=0, atol=1e-10)


def test_a_device_object_is_the_fake_device_of_its_name():
    model = build("angle")
    sample = drawn(model, 2)
    with executed(model, Execution("fake:manila")) as measured:
        expected = observed(measured, *sample)
    np.testing.assert_allclose(observed(model.noisy(fake_backend("manila")), *sample), expected, rtol=0, atol=1e-10)


def test_idle_qubits_of_a_whole_device_are_left_out():
    # of seven qubits in an H the transpiler takes four somewhere, in an order of its own
    model, simulator = build("angle"), noise_from_backend(fake_backend("jakarta"))
    noisy = model.noisy(simulator, readout=False)
    assert noisy.evaluator.circuit.num_qubits < 7
    sample = drawn(model, 2)
    np.testing.assert_allclose(observed(noisy, *sample), by_aer(noisy, simulator, *sample), rtol=0, atol=1e-10)


def test_no_noise_gives_the_exact_model():
    model = build()
    sample = drawn(model, 5)
    noisy = model.noisy(simple_noise(4))
    np.testing.assert_allclose(observed(noisy, *sample), observed(model, *sample), rtol=0, atol=1e-12)
    weights, x, state = sample
    for name in ("jacobian", "input_jacobian"):
        expected = getattr(model.map(weights, x).at(state), name)
        np.testing.assert_allclose(getattr(noisy.map(weights, x).at(state), name), expected, rtol=0, atol=1e-11)


MODELS = {
    "amplitude": lambda: build("amplitude", 3).noisy(RATES),
    "angle": lambda: build("angle", 4).noisy("fake:manila"),
    "circuit": lambda: mixed_model().noisy(RATES),
    # on five qubits of an H some gates of the ansatz come before swaps that the encoder's last gates need
    "routed": lambda: model_config("default", 6, 2, 5, encoding="amplitude").build().noisy("fake:jakarta"),
}


@pytest.mark.parametrize("kind", MODELS)
def test_jacobians_are_finite_differences(kind):
    model = MODELS[kind]()
    weights, x, state = drawn(model)
    mapped = model.map(weights, x)
    point, step, rows = mapped.at(state), 1e-5, np.arange(3)
    values, jacobian = mapped.linearize(state, rows)
    np.testing.assert_array_equal(values.values, point.values)
    np.testing.assert_array_equal(jacobian, point.jacobian)
    assert values.std_errors is None
    feature_slopes = np.empty((*point.features.shape, model.num_states))
    for k in range(model.num_states):
        up, down = (mapped.at(state + sign * step * np.eye(model.num_states)[k]) for sign in (1, -1))
        np.testing.assert_allclose(jacobian[:, :, k], (up.values - down.values) / (2 * step), atol=1e-8)
        feature_slopes[:, :, k] = (up.features - down.features) / (2 * step)
    cotangent = np.random.default_rng(2).standard_normal(point.features.shape)
    pulled = np.einsum("bfk,bf->bk", feature_slopes, cotangent)
    np.testing.assert_allclose(point.pull_features(cotangent), pulled, atol=1e-7)
    for i in range(x.shape[1]):
        up, down = (model.map(weights, x + sign * step * np.eye(x.shape[1])[i]).at(state).values for sign in (1, -1))
        np.testing.assert_allclose(point.input_jacobian[:, :, i], (up - down) / (2 * step), atol=1e-8)


def difference(scalar, weights, step=1e-5):
    moves = step * np.eye(len(weights))
    return np.array([(scalar(weights + move) - scalar(weights - move)) / (2 * step) for move in moves])


@pytest.mark.parametrize("kind", MODELS)
def test_weight_gradient_is_finite_differences(kind):
    model = MODELS[kind]()
    assert bool(len(model.evaluator.mixed)) == (kind == "routed")
    weights, x, state = drawn(model)
    rng = np.random.default_rng(1)
    at = model.map(weights, x).at(state)
    lam, own = rng.standard_normal(at.values.shape), rng.standard_normal(at.features.shape)
    other = rng.standard_normal(at.values.shape)
    directions = rng.standard_normal((1, 2, x.shape[1]))
    slopes = rng.standard_normal((len(x), model.num_states, 2))

    def scalar(w):
        mapped = model.map(w, x)
        point = mapped.at(state)
        along = np.einsum("bkd,rd->bkr", point.input_jacobian, directions[0])
        first = (lam * point.values).sum() + (own * point.features).sum() + (slopes * along).sum()
        return first + (other * mapped.at(state / 2).values).sum()

    mapped = model.map(weights, x)
    terms = [
        Cotangent(mapped.at(state), values=lam, features=own, directions=directions, slopes=slopes),
        Cotangent(mapped.at(state / 2), values=other),
    ]
    np.testing.assert_allclose(mapped.pull_back(terms), difference(scalar, weights), rtol=0, atol=1e-7)


def test_results_do_not_depend_on_batch_mates():
    model = build().noisy(RATES)
    weights, x, state = drawn(model, 70)
    mapped, some = model.map(weights, x), np.array([3, 69, 40])
    whole, jacobian = mapped.linearize(state, np.arange(70))
    alone, own = mapped.linearize(state[some], some)
    np.testing.assert_array_equal(alone.values, whole.values[some])
    np.testing.assert_array_equal(own, jacobian[some])


def test_the_implicit_gradient_of_the_loss_is_finite_differences():
    model = build("amplitude", 2).noisy(RATES)
    parameters = model.initial_parameters(1)
    x, labels = model.prepare(np.random.default_rng(0).standard_normal((4, 4))), np.array([0, 1, 2, 3])
    config = TrainingConfig(solver=Newton(tol=1e-13))

    def step(values):
        return training_step(model, values, x, labels, config, direct=False, initial=None, rng=np.random.default_rng)

    expected = difference(lambda values: step(values).loss, parameters)
    np.testing.assert_allclose(step(parameters).gradient, expected, rtol=0, atol=1e-7)


def test_a_state_that_is_not_finite_spoils_its_sample_alone():
    model = build("amplitude", 2).noisy(RATES)
    weights, x, state = drawn(model)
    expected = model.map(weights, x).linearize(state, np.arange(3))[1]
    state[1, 0] = np.inf
    evaluation, jacobian = model.map(weights, x).linearize(state, np.arange(3))
    assert np.isnan(evaluation.values[1]).all()
    assert np.isnan(jacobian[1]).all()
    np.testing.assert_array_equal(jacobian[[0, 2]], expected[[0, 2]])


def test_solvers_find_the_noisy_equilibrium():
    model = build().noisy("fake:manila")
    weights, x, _ = drawn(model, 8)
    mapped = model.map(weights, x)
    found = solve(mapped, Newton(tol=1e-10))
    np.testing.assert_allclose(mapped.at(found.state).values, found.state, atol=1e-9)


def test_a_classifier_is_trained_and_used_under_noise(tmp_path):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 40)
    x = rng.standard_normal((40, 4)) + np.array([[2.0, 0, 0, 0]]) * labels[:, None]
    noise = Execution("exact", noise="0.01,0.05,0.05")
    options = {"epochs": 4, "batch_size": 20, "random_state": 0}
    noisy = QDEQClassifier(backend=noise, **options).fit(x, labels)
    assert noisy.score(x, labels) > 0.8
    noisy.save(tmp_path / "model.safetensors")
    again = QDEQClassifier.load(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(again.predict_proba(x), noisy.predict_proba(x))
    moved = noisy.predict_proba(x) - noisy.set_params(backend="exact").predict_proba(x)
    assert np.abs(moved).max() > 1e-3


def test_runs_under_other_noise_are_other_runs():
    model = build("amplitude", 2)
    found = [
        model.noisy(noise, readout=readout).evaluator.description
        for noise, readout in ((RATES, True), (RATES, True), (RATES, False), ("0.002,0.02,0.031", True))
    ]
    assert found[0] == found[1]
    assert all(found[i] != found[j] for i, j in ((0, 2), (0, 3), (2, 3)))


def scheduled():
    circuit = QuantumCircuit(1)
    circuit.delay(100, 0)
    return circuit


@pytest.mark.parametrize(
    ("noise", "message"),
    [
        ("loud", "noise must be three rates"),
        (3, "noise must be a text such as"),
        (AerSimulator(), "a backend without noise"),
        (simple_noise(1, one_qubit=0.1), "1 qubits"),
    ],
)
def test_what_is_no_noise_is_refused(noise, message):
    with pytest.raises(InputError, match=message):
        build("amplitude", 2).noisy(noise)
    with pytest.raises(InputError, match="optimization_level must be"):
        build("amplitude", 2).noisy(RATES, optimization_level=4)


def test_circuits_that_noise_is_not_known_of_are_refused():
    from qiskit_qdeq.execution.channels import noisy_circuit

    noise = simple_noise(2, one_qubit=0.1).options.noise_model
    observables = [SparsePauliOp("Z")]
    hadamard = QuantumCircuit(1)
    hadamard.h(0)
    for circuit in (hadamard, scheduled()):
        with pytest.raises(InputError, match="says nothing about"):
            noisy_circuit(circuit, observables, noise)
    large = QuantumCircuit(12)
    large.x(range(12))
    # refused before 4^12 components of its observables are written out
    with pytest.raises(InputError, match="uses 12 qubits, more than the 8"):
        noisy_circuit(large, [SparsePauliOp("Z" * 12)], noise)


def test_an_exact_execution_without_noise_is_the_model_itself_and_spends_nothing():
    model = build("amplitude", 2)
    with executed(model, Execution("exact")) as same:
        assert same is model
    with (
        pytest.raises(InputError, match="budget cannot have an effect"),
        executed(model, Execution("exact", noise=RATES), budget="10 shots"),
    ):
        pass


@pytest.mark.parametrize(
    "field", [{"shots": 10}, {"precision": 0.1}, {"copies": 2}, {"seed": 1}, {"optimization_level": 1}]
)
def test_an_exact_execution_refuses_what_needs_circuits(field):
    with pytest.raises(InputError, match=f"{next(iter(field))} cannot have an effect with backend='exact'"):
        Execution("exact", **field)
