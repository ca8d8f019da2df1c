"""The Estimator evaluator on transpiled circuits and from shots, against the exact evaluator."""

from __future__ import annotations

import numpy as np
import pytest
from oracles import build_model
from qiskit.primitives import StatevectorEstimator
from qiskit.transpiler import generate_preset_pass_manager

from qiskit_qdeq import Execution, Sampling, TrainingConfig, executed, model_config, solve, solver
from qiskit_qdeq.evaluation.protocol import Cotangent
from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.execution.devices import fake_backend, sub_device
from qiskit_qdeq.execution.noisy_estimator import DensityMatrixEstimator
from qiskit_qdeq.training.cost import predicted_step
from qiskit_qdeq.training.step import training_step


def case(encoding="amplitude", batch=4, seed=0):
    """A model at 4 qubits, its weights, samples, and the equilibria."""
    rng = np.random.default_rng(seed)
    model = model_config("default", 16, 3, 4, encoding=encoding, state_scale=0.3).build()
    weights = rng.uniform(-np.pi, np.pi, model.num_weights)
    inputs = model.prepare(rng.normal(size=(batch, 16)))
    exact = model.map(weights, inputs)
    return model, weights, inputs, exact, solve(exact, "newton").state, rng


@pytest.mark.parametrize("encoding", ["amplitude", "angle"])
@pytest.mark.parametrize("layout", [[5, 1, 3, 0], [2, 4, 0, 1]])
def test_a_transpiled_template_on_any_layout_gives_the_exact_values_and_gradients(encoding, layout):
    model, weights, inputs, exact, state, rng = case(encoding, batch=2)
    device = sub_device(fake_backend("torino"), 6)
    manager = generate_preset_pass_manager(1, backend=device, initial_layout=layout, seed_transpiler=1)
    measured = model.measured(DensityMatrixEstimator(), backend=device, pass_manager=manager)
    placed = [measured.evaluator.runner.circuit.layout.initial_index_layout()[i] for i in range(4)]
    assert placed == layout
    problem = measured.map(weights, inputs)
    point, expected = problem.at(state), exact.at(state)
    np.testing.assert_allclose(point.features, expected.features, atol=1e-10)
    np.testing.assert_allclose(point.jacobian, expected.jacobian, atol=1e-9)
    cotangent = rng.normal(size=expected.features.shape)
    ours, truth = (p.pull_back([at.implicit_term(cotangent)]) for p, at in ((problem, point), (exact, expected)))
    np.testing.assert_allclose(ours, truth, atol=1e-8 * np.abs(truth).max())


@pytest.mark.parametrize("encoding", ["amplitude", "angle"])
def test_values_from_shots_are_within_five_standard_errors(encoding):
    model, weights, inputs, exact, state, _ = case(encoding)
    with executed(model, Execution("aer", shots=4000, seed=1)) as measured:
        found = measured.map(weights, inputs).values(state, np.arange(4))
    deviation = (found.values - exact.at(state).values) / found.std_errors
    assert np.abs(deviation).max() < 5
    assert 0.5 < np.sqrt(np.mean(deviation**2)) < 1.6


def weight_gradients(method, repeats):
    """Weight gradients from shots at a fixed state and cotangent, and the exact one."""
    model, weights, inputs, exact, state, rng = case()
    values = rng.normal(size=state.shape)
    features = rng.normal(size=(4, model.template.num_readouts))
    truth = exact.pull_back([Cotangent(exact.at(state), values=values, features=features)])
    options = {} if method == "shift" else {"gradient_circuits": 16, "gradient_method": method, "spsa_step": 0.05}
    draws = []
    with executed(model, Execution("aer", seed=3), sampling=Sampling(forward=64, **options)) as measured:
        for step in range(repeats):
            measured.evaluator.start_step(step, repeats)
            problem = measured.map(weights, inputs)
            draws.append(problem.pull_back([Cotangent(problem.at(state), values=values, features=features)]))
    return np.array(draws), truth


@pytest.mark.parametrize("method", ["shift", "random", "spsa"])
def test_weight_gradients_from_shots_are_right_on_average(method):
    draws, truth = weight_gradients(method, 60)
    error = draws.std(axis=0, ddof=1) / np.sqrt(len(draws))
    deviation = (draws.mean(axis=0) - truth) / error
    assert np.abs(deviation).max() < 4.5
    assert 0.6 < np.sqrt(np.mean(deviation**2)) < 1.5


@pytest.mark.parametrize(("name", "limit"), [("probe", 0.02), ("broyden", 0.02)])
def test_the_implicit_gradient_from_shots_approaches_the_exact_one(name, limit):
    model, weights, inputs, exact, state, rng = case()
    cotangent = rng.normal(size=(4, model.template.num_readouts))
    point = exact.at(state)
    truth = exact.pull_back([point.implicit_term(cotangent)])

    def mean_gradient(shots):
        with executed(model, Execution("aer", shots=shots, seed=5)) as measured:
            total = np.zeros_like(truth)
            for _ in range(12):
                problem = measured.map(weights, inputs)
                found = solve(problem, solver(name, max_steps=20), on_failure="accept")
                total += problem.pull_back([problem.at(found.state).implicit_term(cotangent)])
        return total / 12

    error = np.linalg.norm(mean_gradient(20_000) - truth) / np.linalg.norm(truth)
    assert error < limit


def test_probing_takes_far_fewer_circuits_than_iterating_for_the_same_accuracy():
    model, weights, inputs, _, state, _ = case(batch=16)
    spent, errors = {}, {}
    for name in ("probe", "broyden"):
        with executed(model, Execution("aer", shots=2000, seed=2)) as measured:
            problem = measured.map(weights, inputs)
            found = solve(problem, solver(name, max_steps=10, confidence=1e-9), on_failure="accept")
            _ = problem.at(found.state).jacobian
            spent[name], errors[name] = problem.cost.circuits, np.sqrt(np.mean((found.state - state) ** 2))
    assert spent["probe"] * 5 < spent["broyden"]
    assert errors["probe"] < 1.5 * errors["broyden"]


def test_warm_starts_save_circuits():
    model, weights, inputs, _, state, _ = case(batch=16)

    def circuits(initial):
        with executed(model, Execution("aer", shots=500, seed=2)) as measured:
            problem = measured.map(weights, inputs)
            solve(problem, "broyden", initial, on_failure="accept")
            return problem.cost.circuits

    assert circuits(state) < 0.7 * circuits(None)


def test_scipy_solvers_ask_in_rounds_of_one_pub():
    model, weights, inputs, _, state, _ = case(batch=8)
    with executed(model, Execution("aer", seed=0)) as measured:
        problem = measured.map(weights, inputs)
        found = solve(problem, solver("scipy:hybr", tol=1e-8))
        np.testing.assert_allclose(found.state, state, atol=1e-6)
        assert found.cost.jobs == found.evaluations.max()
        assert found.cost.pubs == 2 * found.cost.jobs  # values and shifted angles


class Recorder:
    """Passes PUBs on and keeps the precision of each."""

    def __init__(self, estimator):
        self.wrapped, self.precisions = estimator, []

    def run(self, pubs, *, precision=None):
        self.precisions.append([pub[3] if len(pub) > 3 else None for pub in pubs])
        return self.wrapped.run(pubs)


def test_each_purpose_has_its_precision_and_none_is_sent_where_none_is_asked():
    model, weights, inputs, _, state, _ = case(batch=2)
    recorder = Recorder(DensityMatrixEstimator(seed=0))
    sampling = Sampling(forward=100, jacobian=0.2, gradient=16)
    problem = model.measured(recorder, sampling=sampling).evaluator.bind(weights).map(inputs, ("jacobian", "gradient"))
    _ = problem.at(state).features
    assert recorder.precisions == [pytest.approx([0.1, 0.2, 0.25])]
    exact = Recorder(DensityMatrixEstimator(seed=0))
    _ = model.measured(exact).map(weights, inputs).at(state).features
    assert exact.precisions == [[None]]


def test_fixed_inputs_give_the_gradient_of_any_batch():
    model = build_model("amplitude")
    rng = np.random.default_rng(4)
    size = model.template.num_features
    x = model.prepare(rng.normal(size=(30, model.num_features)))
    labels = rng.integers(0, model.num_classes, 30)
    parameters = model.initial_parameters(1)
    found = {}
    for method in ("shift", "fixed"):
        sampling = Sampling(gradient_method=method)
        with executed(model, Execution("statevector"), sampling=sampling) as measured:
            for name in ("probe", "broyden"):
                config = TrainingConfig(solver=solver(name, tol=1e-10))
                step = training_step(
                    measured, parameters, x, labels, config, direct=False, initial=None, rng=np.random.default_rng
                )
                found[method, name] = step
            assert predicted_step(measured, TrainingConfig(solver=solver("probe")), 30) == found[method, "probe"].cost
    for name in ("probe", "broyden"):
        np.testing.assert_allclose(found["fixed", name].gradient, found["shift", name].gradient, atol=1e-8)
    shifts = found["shift", "probe"].cost.circuits - found["fixed", "probe"].cost.circuits
    gates = (30 - size * (size + 1) // 2) * 2
    assert shifts > 0
    assert shifts % gates == 0


def test_fixed_inputs_need_amplitudes_and_no_number_of_circuits():
    with pytest.raises(InputError, match="amplitude encoding"):
        build_model("angle").measured(StatevectorEstimator(), sampling=Sampling(gradient_method="fixed"))
    with pytest.raises(InputError, match="'fixed' always run all"):
        Sampling(gradient_method="fixed", gradient_circuits=4)
