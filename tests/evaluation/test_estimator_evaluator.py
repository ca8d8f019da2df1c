"""The Estimator evaluator against the exact one: values, Jacobians, gradients, what is measured and what it costs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import random_template
from qiskit.circuit import ParameterVector
from qiskit.circuit.library import zz_feature_map
from qiskit.primitives import StatevectorEstimator

from qiskit_qdeq.circuits import AmplitudeEncoder, AngleEncoder, CircuitEncoder, CircuitTemplate, paper_ansatz
from qiskit_qdeq.evaluation.estimator import EstimatorEvaluator
from qiskit_qdeq.evaluation.exact import exact_evaluator
from qiskit_qdeq.evaluation.protocol import Cost, Cotangent
from qiskit_qdeq.evaluation.sampling import Sampling
from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.execution.noisy_estimator import DensityMatrixEstimator

KINDS = ["amplitude", "padded", "layered", "angle", "zz", "reupload"]
SEEDS = st.integers(0, 2**32 - 1)


def pair_of(seed, kind, num_qubits=2, batch=3, sampling=None, **options):
    """The same random model measured and exact, with samples and states."""
    rng = np.random.default_rng(seed)
    template = random_template(rng, kind, num_qubits, **options)
    injection = 0.5 * rng.normal(size=(template.num_features, template.num_states))
    weights = rng.uniform(-2, 2, template.num_weights)
    inputs = rng.normal(size=(batch, template.num_features)) + 0.5
    state = rng.uniform(-1, 1, (batch, template.num_states))
    measured = EstimatorEvaluator(template, injection, DensityMatrixEstimator(), sampling=sampling)
    return rng, measured.bind(weights), exact_evaluator(template, injection).bind(weights), inputs, state


@settings(deadline=None, derandomize=True, max_examples=12)
@given(seed=SEEDS, kind=st.sampled_from(KINDS))
def test_measured_points_agree_with_the_exact_evaluator(seed, kind):
    rng, measured, exact, inputs, state = pair_of(seed, kind)
    ours, truth = measured.map(inputs), exact.map(inputs)
    rows = np.array([2, 0, 2])
    np.testing.assert_allclose(ours.values(state, rows).values, truth.values(state, rows).values, atol=1e-10)
    point, expected = ours.at(state), truth.at(state)
    np.testing.assert_allclose(point.values, expected.values, atol=1e-10)
    np.testing.assert_allclose(point.features, expected.features, atol=1e-10)
    np.testing.assert_allclose(point.jacobian, expected.jacobian, atol=1e-8)
    np.testing.assert_allclose(point.input_jacobian, expected.input_jacobian, atol=1e-8)
    np.testing.assert_allclose(ours.linearize(state, rows)[1], truth.linearize(state, rows)[1], atol=1e-8)
    cotangent = rng.normal(size=expected.features.shape)
    np.testing.assert_allclose(point.pull_features(cotangent), expected.pull_features(cotangent), atol=1e-8)


@settings(deadline=None, derandomize=True, max_examples=12)
@given(seed=SEEDS, kind=st.sampled_from(KINDS), expect=st.sampled_from([(), ("gradient",), ("jacobian", "gradient")]))
def test_weight_gradients_agree_with_the_exact_evaluator(seed, kind, expect):
    rng, measured, exact, inputs, state = pair_of(seed, kind)
    ours, truth = measured.map(inputs, expect), exact.map(inputs)
    other = rng.uniform(-1, 1, state.shape)
    values, features = rng.normal(size=state.shape), rng.normal(size=(len(inputs), len(measured.evaluator.readouts)))

    def gradient(problem):
        first, second = problem.at(state), problem.at(other)
        return problem.pull_back([Cotangent(first, values=values), Cotangent(second, values=values, features=features)])

    np.testing.assert_allclose(gradient(ours), gradient(truth), atol=1e-8)


@settings(deadline=None, derandomize=True, max_examples=15)
@given(seed=SEEDS, kind=st.sampled_from(["amplitude", "padded"]), num_qubits=st.integers(2, 3))
def test_probes_determine_the_whole_map(seed, kind, num_qubits):
    rng, measured, exact, inputs, state = pair_of(seed, kind, num_qubits)
    problem = measured.map(inputs)
    probed, truth = problem.probe(), exact.map(inputs).at(state)
    size, batch = state.shape[1], len(inputs)
    scale = max(1.0, np.abs(truth.values).max())
    rows = np.arange(batch)
    np.testing.assert_allclose(probed.values(state, rows).values, truth.values, atol=1e-9 * scale)
    slopes = probed.all_slopes(state)
    np.testing.assert_allclose(slopes[:, measured.evaluator.states], truth.jacobian, atol=1e-8 * scale)
    cotangent = rng.normal(size=truth.features.shape)
    pulled = np.einsum("bfk,bf->bk", slopes[:, measured.evaluator.readouts], cotangent)
    np.testing.assert_allclose(pulled, truth.pull_features(cotangent), atol=1e-8 * scale)
    assert problem.cost.jobs == 1
    assert problem.cost.circuits >= batch * (size + 1) + size * (size + 1) // 2


def test_qiskits_reference_estimator_agrees():
    rng, _, exact, inputs, state = pair_of(0, "amplitude")
    evaluator = exact.evaluator
    template = random_template(np.random.default_rng(0), "amplitude", 2)
    ours = EstimatorEvaluator(template, evaluator.injection, StatevectorEstimator())
    weights = rng.uniform(-2, 2, template.num_weights)
    point = ours.bind(weights).map(inputs).at(state)
    expected = exact_evaluator(template, evaluator.injection).bind(weights).map(inputs).at(state)
    np.testing.assert_allclose(point.features, expected.features, atol=1e-10)
    np.testing.assert_allclose(point.jacobian, expected.jacobian, atol=1e-8)


def small_model(sampling=None, encoder=None, readout="zz"):
    template = CircuitTemplate(encoder or AmplitudeEncoder(4), paper_like(), readout=readout)
    injection = np.kron(np.eye(2), np.ones((2, 1)))[: template.num_features] * 0.5
    return EstimatorEvaluator(template, injection, DensityMatrixEstimator(), sampling=sampling)


def paper_like():
    from qiskit import QuantumCircuit

    weights = ParameterVector("w", 4)
    circuit = QuantumCircuit(2)
    circuit.ry(weights[0], 0)
    circuit.crx(weights[1], 0, 1)
    circuit.rz(2 * weights[2] + weights[0], 1)
    circuit.cx(1, 0)
    circuit.ry(weights[3], 1)
    return circuit


WEIGHTS = np.array([0.3, -1.1, 0.7, 2.0])
INPUTS = np.array([[0.5, -1.0, 0.4, 0.8], [1.0, 0.2, -0.7, 0.3], [0.1, 0.9, 0.3, -0.6]])
STATE = np.array([[0.1, -0.4], [0.3, 0.2], [-0.5, 0.6]])


def test_a_point_that_will_be_differentiated_is_one_job():
    problem = small_model().bind(WEIGHTS).map(INPUTS, ("jacobian", "gradient"))
    point = problem.at(STATE)
    term = point.implicit_term(point.features)
    problem.pull_back([term])
    shifts = 2 * 3 + 4 + 3 * 2  # encoder: three RY; ansatz: one controlled rotation with four terms, three plain ones
    assert problem.cost == Cost(circuits=3 * (1 + shifts), shots=0, jobs=1, pubs=3)


def test_probing_replaces_the_encoder_shifts():
    problem = small_model().bind(WEIGHTS).map(INPUTS, ("jacobian", "gradient"))
    problem.probe()
    before = problem.cost
    point = problem.at(STATE)
    problem.pull_back([point.implicit_term(point.features)])
    assert before == Cost(circuits=3 * 3 + 3, jobs=1, pubs=2)
    assert problem.cost - before == Cost(circuits=3 * (1 + 10), jobs=1, pubs=2)


def test_what_the_solver_measured_last_is_not_measured_again():
    problem = small_model().bind(WEIGHTS).map(INPUTS)
    problem.values(STATE, np.arange(3))
    _ = problem.at(STATE).features
    assert problem.cost.circuits == 3
    moved = STATE.copy()
    moved[1] += 0.1
    _ = problem.at(moved).features
    assert problem.cost.circuits == 4


def test_state_and_readout_observables_that_coincide_are_sent_once():
    assert len(small_model().runner.observables) == 3


@pytest.mark.parametrize("method", ["random", "spsa"])
def test_sampled_weight_gradients_are_unbiased_within_their_standard_error(method):
    sampling = Sampling(gradient_method=method, gradient_circuits=4, spsa_step=0.01)
    evaluator = small_model(sampling)
    values = np.array([[1.0, -0.5], [0.3, 2.0], [-1.0, 0.2]])
    truth_map = exact_evaluator(evaluator.template, evaluator.injection).bind(WEIGHTS).map(INPUTS)
    truth = truth_map.pull_back([Cotangent(truth_map.at(STATE), values=values)])
    draws = []
    for step in range(300):
        evaluator.start_step(step, 300)
        problem = evaluator.bind(WEIGHTS).map(INPUTS)
        draws.append(problem.pull_back([Cotangent(problem.at(STATE), values=values)]))
        assert problem.cost.circuits == 3 * 4
    draws = np.array(draws)
    error = draws.std(axis=0, ddof=1) / np.sqrt(len(draws))
    assert (error > 0).all()
    np.testing.assert_array_less(np.abs(draws.mean(axis=0) - truth), 4 * error + 1e-4)


def test_random_choices_are_those_of_the_step():
    evaluator = small_model(Sampling(gradient_method="random", gradient_circuits=2))

    def gradient(step):
        evaluator.start_step(step, 10)
        problem = evaluator.bind(WEIGHTS).map(INPUTS)
        return problem.pull_back([Cotangent(problem.at(STATE), values=STATE)])

    first, second = gradient(3), gradient(4)
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(gradient(3), first)


def test_precision_schedules_and_purposes():
    evaluator = small_model(Sampling(forward=100, gradient=0.2, growth=4.0))
    evaluator.start_step(0, 11)
    assert evaluator.precision("forward") == pytest.approx(0.1)
    assert evaluator.precision("jacobian") == pytest.approx(0.1)
    assert evaluator.precision("gradient") == pytest.approx(0.2)
    evaluator.start_step(10, 11)
    assert evaluator.precision("forward") == pytest.approx(0.05)
    assert np.ceil(1 / Sampling(forward=1000).precision("forward") ** 2) == 1000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"forward": 0}, "forward must be at least 1 shot, got 0"),
        ({"forward": 1.5}, r"forward must be an integer number of shots or a precision in \(0, 1\), got 1.5"),
        ({"gradient": float("nan")}, "gradient must be"),
        ({"jacobian": True}, "jacobian must be"),
        ({"growth": 0.0, "forward": 10}, "growth must be a finite number > 0"),
        ({"growth": 2.0}, "growth=2.0 has no effect"),
        ({"gradient_method": "sps"}, "gradient_method must be one of"),
        ({"gradient_method": "spsa"}, "gradient_circuits=0"),
        ({"gradient_circuits": 4}, "gradient_circuits=4"),
        ({"gradient_method": "spsa", "gradient_circuits": 3}, "even integer"),
    ],
)
def test_sampling_options_that_cannot_be_used_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        Sampling(**options)


def test_probing_is_refused_where_the_map_is_no_ratio_of_quadratics():
    template = CircuitTemplate(AngleEncoder("yy", [0, 1], 2), paper_like())
    evaluator = EstimatorEvaluator(template, 0.5 * np.eye(2), DensityMatrixEstimator())
    with pytest.raises(InputError, match="solver 'probe' needs amplitude encoding"):
        evaluator.bind(WEIGHTS).map(np.ones((1, 2))).probe()


def test_probing_is_refused_without_feedback():
    template = CircuitTemplate(AmplitudeEncoder(4), paper_like())
    evaluator = EstimatorEvaluator(template, np.zeros((4, 2)), DensityMatrixEstimator())
    with pytest.raises(InputError, match="not zero"):
        evaluator.bind(WEIGHTS).map(INPUTS).probe()


def test_regularization_is_refused():
    problem = small_model().bind(WEIGHTS).map(INPUTS)
    point = problem.at(STATE)
    with pytest.raises(InputError, match="Jacobian regularization"):
        problem.pull_back([Cotangent(point, directions=np.ones((1, 1, 4)), slopes=np.ones((3, 2, 1)))])


def test_kinks_of_the_angle_map_are_announced():
    problem = small_model().bind(WEIGHTS).map(np.array([[0.0, 0.0, 1.0, 0.5]]))
    with pytest.warns(UserWarning, match="no derivative at some samples"):
        problem.linearize(np.zeros((1, 2)), np.arange(1))


def test_inputs_of_another_width_are_refused():
    with pytest.raises(InputError, match=r"inputs must have shape \(samples, 4\)"):
        small_model().bind(WEIGHTS).map(np.ones((3, 5)))


def test_the_papers_ten_qubits_need_few_encoder_shifts():
    template = CircuitTemplate(AngleEncoder.paper(10), paper_ansatz(10), readout="z")
    evaluator = EstimatorEvaluator(template, np.kron(np.eye(10), np.ones((10, 1))), DensityMatrixEstimator())
    assert evaluator.gates.num_encoder_angles == 7


def test_feature_maps_with_products_of_inputs_are_differentiated():
    inputs = ParameterVector("x", 2)
    feature_map = zz_feature_map(2, reps=1).assign_parameters(list(inputs))
    template = CircuitTemplate(CircuitEncoder(feature_map), paper_like())
    injection = 0.3 * np.eye(2)
    data = np.array([[0.3, -0.8]])
    state = np.array([[0.2, -0.1]])
    ours = EstimatorEvaluator(template, injection, DensityMatrixEstimator()).bind(WEIGHTS).map(data).at(state)
    truth = exact_evaluator(template, injection).bind(WEIGHTS).map(data).at(state)
    np.testing.assert_allclose(ours.jacobian, truth.jacobian, atol=1e-10)
