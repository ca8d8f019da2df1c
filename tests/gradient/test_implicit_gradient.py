"""Training gradients against finite differences of the loss, the equilibrium solved anew for every shift."""

from __future__ import annotations

import numpy as np
import pytest
from oracles import HandmadeMap, build_model, central_difference, draw_problem, relative_error
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector

from qiskit_qdeq import CircuitTemplate, QDEQModel
from qiskit_qdeq.equilibrium import Anderson, Broyden, Newton, Picard, ScipyRoot, solve
from qiskit_qdeq.exceptions import ConvergenceError, ConvergenceWarning, InputError
from qiskit_qdeq.gradient import Backward, Regularization, direct_pass, implicit_term, solve_adjoint
from qiskit_qdeq.training.config import TrainingConfig
from qiskit_qdeq.training.step import training_step

TIGHT = Newton(tol=1e-12)
SOLVERS = {
    "newton": TIGHT,
    "broyden": Broyden(tol=1e-11, max_steps=200),
    "broyden_jacobian": Broyden(tol=1e-11, max_steps=200, start_inverse="jacobian"),
    "anderson": Anderson(tol=1e-11, max_steps=200),
    "picard": Picard(tol=1e-11, max_steps=500),
    "scipy": ScipyRoot(tol=1e-11, method="hybr"),
}
EXACT = {
    "exact": Backward("exact"),
    "broyden": Backward("broyden", tol=1e-11, max_steps=200),
    "anderson": Backward("anderson", tol=1e-11, max_steps=200),
    "gmres": Backward("gmres", tol=1e-11),
    "neumann": Backward("neumann", terms=200),
}
LABELS = np.array([0, 2, 1])


def cross_entropy(logits, labels):
    """-log of the softmax probability of the label, averaged; written out anew."""
    return np.mean([np.log(np.exp(row - row[label]).sum()) for row, label in zip(logits, labels, strict=True)])


def logits_of(model, parameters, features):
    _, matrix, bias = model.split(parameters)
    inputs = np.repeat(features, model.readout.repeat, axis=1)
    if model.readout.activation == "relu":
        inputs = np.where(inputs > 0, inputs, 0)
    return inputs @ matrix.T + bias


def equilibrium_loss(model, parameters, inputs, labels, start=None):
    problem = model.evaluator.bind(model.split(parameters)[0]).map(inputs)
    solution = solve(problem, TIGHT, start, on_failure="accept")
    assert solution.residual.max() < 1e-11
    return cross_entropy(logits_of(model, parameters, problem.at(solution.state).features), labels)


def direct_loss(model, parameters, inputs, labels, layers):
    problem = model.evaluator.bind(model.split(parameters)[0]).map(inputs)
    state = np.zeros((problem.batch, problem.num_states))
    for _ in range(layers - 1):
        state = problem.at(state).values
    return cross_entropy(logits_of(model, parameters, problem.at(state).features), labels)


def step(model, parameters, inputs, *, direct=False, initial=None, seed=0, labels=LABELS, **options):
    return training_step(
        model,
        parameters,
        inputs,
        labels,
        TrainingConfig(**options),
        direct=direct,
        initial=initial,
        rng=lambda: np.random.default_rng(seed),
    )


@pytest.fixture(scope="module")
def references():
    """Loss and its finite-difference gradient through the equilibrium, once per model."""
    return {}


def reference(references, model):
    key = id(model)
    if key not in references:
        _, inputs, parameters = draw_problem(model, 3, seed=1)
        gradient = central_difference(lambda p: equilibrium_loss(model, p, inputs, LABELS), parameters)
        references[key] = inputs, parameters, equilibrium_loss(model, parameters, inputs, LABELS), gradient
    return references[key]


@pytest.mark.parametrize("backward", EXACT)
@pytest.mark.parametrize("solver", SOLVERS)
def test_implicit_gradient_is_that_of_the_resolved_equilibrium(references, contraction_model, solver, backward):
    inputs, parameters, loss, expected = reference(references, contraction_model)
    result = step(contraction_model, parameters, inputs, solver=SOLVERS[solver], backward=EXACT[backward])
    assert result.solution.converged.all()
    assert result.loss == pytest.approx(loss, abs=1e-10)
    assert relative_error(result.gradient, expected) < 1e-6


@pytest.mark.parametrize("options", [{"activation": "relu", "repeat": 2}, {"bias": 0.7}], ids=["relu", "bias"])
@pytest.mark.parametrize("kind", ["amplitude", "angle"])
def test_implicit_gradient_holds_for_every_readout_and_far_from_contraction(kind, options):
    model = build_model(kind, state_scale=1.0, **options)
    _, inputs, parameters = draw_problem(model, 3, seed=4)
    solution = step(model, parameters, inputs, solver=TIGHT).solution
    assert solution.converged.all()
    expected = central_difference(lambda p: equilibrium_loss(model, p, inputs, LABELS, solution.state), parameters)
    result = step(model, parameters, inputs, solver=TIGHT, initial=solution.state)
    assert relative_error(result.gradient, expected) < 1e-6


@pytest.mark.parametrize("mode", ["exact", "neumann", "gmres"])
@pytest.mark.parametrize("kind", ["amplitude", "angle"])
def test_a_sample_far_from_its_equilibrium_takes_the_gradient_of_one_more_layer(kind, mode):
    model = build_model(kind, state_scale=0.5)
    _, inputs, parameters = draw_problem(model, 3, seed=4)
    solved = step(model, parameters, inputs, solver=TIGHT).solution
    start = solved.state.copy()
    start[1] += 0.5
    start[2] += 1e-3
    found = step(model, parameters, inputs, solver=Picard(tol=1e-12, max_steps=1), initial=start)
    assert found.solution.residual[1] > 0.01 > found.solution.residual[2] > 1e-6
    assert not found.solution.converged[1:].any()

    def term(backward):
        problem = model.evaluator.bind(model.split(parameters)[0]).map(inputs)
        point = problem.at(found.solution.state.copy())
        cotangent = np.random.default_rng(0).normal(size=point.features.shape)
        return implicit_term(point, cotangent, backward, found.solution).values, point, cotangent

    values, point, cotangent = term(Backward(mode, terms=400))
    pulled = point.pull_features(cotangent)
    exact = np.linalg.solve(np.eye(3) - point.jacobian.transpose(0, 2, 1), pulled[:, :, None])[:, :, 0]
    np.testing.assert_allclose(values[1], pulled[1], rtol=1e-12)
    assert np.abs(exact[1] - pulled[1]).max() > 1e-3
    np.testing.assert_allclose(values[[0, 2]], exact[[0, 2]], rtol=1e-6)
    np.testing.assert_allclose(term(Backward(mode, terms=400, residual_limit=1e9))[0], exact, rtol=1e-6)


@pytest.mark.parametrize("kind", ["amplitude", "angle"])
def test_the_gradient_of_a_batch_none_of_which_is_solved_is_that_of_one_more_layer(kind):
    model = build_model(kind, state_scale=1.0)
    _, inputs, parameters = draw_problem(model, 3, seed=4)
    # the compiled solve remembers its point: what it prepared for λ must not be used for ḡ
    short = Newton(max_steps=1)
    found = step(model, parameters, inputs, solver=short, backward=Backward(residual_limit=0))
    assert not found.solution.converged.any()
    layer = step(model, parameters, inputs, solver=short, backward=Backward("jfb"))
    np.testing.assert_allclose(found.gradient, layer.gradient, atol=1e-12)
    exact = step(model, parameters, inputs, solver=short, backward=Backward(residual_limit=1e9))
    assert relative_error(found.gradient, exact.gradient) > 1e-3


def test_a_sample_solved_to_a_loose_tolerance_counts_as_solved():
    model = build_model("amplitude", state_scale=1.0)
    _, inputs, parameters = draw_problem(model, 3, seed=4)
    loose = Picard(tol=10.0)
    exact = step(model, parameters, inputs, solver=loose, backward=Backward(residual_limit=1e9))
    assert exact.solution.residual.min() > 0.01
    found = step(model, parameters, inputs, solver=loose)
    np.testing.assert_array_equal(found.gradient, exact.gradient)
    assert (
        relative_error(found.gradient, step(model, parameters, inputs, solver=loose, backward=Backward("jfb")).gradient)
        > 1e-3
    )


@pytest.mark.parametrize("layers", [1, 2, 5])
def test_direct_gradient_is_that_of_unrolled_layers(contraction_model, layers):
    _, inputs, parameters = draw_problem(contraction_model, 3, seed=2)
    expected = central_difference(lambda p: direct_loss(contraction_model, p, inputs, LABELS, layers), parameters)
    result = step(contraction_model, parameters, inputs, direct=True, layers=layers)
    assert result.loss == pytest.approx(direct_loss(contraction_model, parameters, inputs, LABELS, layers), abs=1e-12)
    assert result.solution is None
    assert relative_error(result.gradient, expected) < 1e-6


def test_direct_pass_visits_the_iterates_of_the_map(contraction_model):
    problem, _, _ = draw_problem(contraction_model, 2)
    visited = direct_pass(problem, 3)
    state = np.zeros((2, 3))
    for point in visited.points:
        np.testing.assert_allclose(point.state, state, atol=1e-13)
        state = problem.values(state, np.arange(2)).values
    with pytest.raises(InputError, match="layers must be >= 1, got 0"):
        direct_pass(problem, 0)


def test_many_layers_of_a_contraction_give_the_implicit_gradient(contraction_model):
    _, inputs, parameters = draw_problem(contraction_model, 3, seed=3)
    implicit = step(contraction_model, parameters, inputs, solver=TIGHT)
    unrolled = step(contraction_model, parameters, inputs, direct=True, layers=80)
    assert relative_error(unrolled.gradient, implicit.gradient) < 1e-9


def penalty_by_formula(model, parameters, inputs, state, kind, strength, seed):
    problem = model.evaluator.bind(model.split(parameters)[0]).map(inputs)
    injection = model.injection
    slopes = problem.at(state).input_jacobian
    if kind == "state":
        return strength / len(inputs) * sum(np.linalg.norm(one @ injection) ** 2 for one in slopes)
    if kind == "input":
        return strength / len(inputs) * sum(np.linalg.norm(one) ** 2 for one in slopes)
    vectors = np.random.default_rng(seed).standard_normal(inputs.shape)
    total = sum(np.linalg.norm(v @ injection @ one) ** 2 for v, one in zip(vectors, slopes, strict=True))
    return strength / (len(inputs) * inputs.shape[1]) * total


@pytest.mark.parametrize("kind", ["state", "input", "hutchinson"])
def test_penalty_gradient_is_that_of_the_penalty_with_the_equilibrium_held_fixed(contraction_model, kind):
    model = contraction_model
    _, inputs, parameters = draw_problem(model, 3, seed=5)
    plain = step(model, parameters, inputs, solver=TIGHT)
    state = plain.solution.state
    result = step(model, parameters, inputs, solver=TIGHT, regularization=Regularization(kind, 0.7), seed=9)

    def penalty(p):
        return penalty_by_formula(model, p, inputs, state, kind, 0.7, 9)

    assert plain.penalty == 0
    assert result.penalty == pytest.approx(penalty(parameters), rel=1e-9)
    assert result.loss == pytest.approx(plain.loss, abs=1e-14)
    assert relative_error(result.gradient - plain.gradient, central_difference(penalty, parameters)) < 1e-6


def test_hutchinson_penalty_is_right_on_average(contraction_model):
    model = contraction_model
    problem, inputs, _ = draw_problem(model, 3, seed=5)
    point = problem.at(solve(problem, TIGHT).state)
    rng = np.random.default_rng(0)
    drawn = [Regularization("hutchinson", 1.0).penalty(point, model.injection, rng)[0] for _ in range(4000)]
    # E‖vᵀ P ∂m/∂u‖² = ‖P ∂m/∂u‖²_F
    expected = np.mean([np.linalg.norm(model.injection @ one) ** 2 for one in point.input_jacobian]) / inputs.shape[1]
    assert abs(np.mean(drawn) - expected) < 5 * np.std(drawn) / np.sqrt(len(drawn))


@pytest.fixture
def solved(contraction_model):
    """A map, the point at its equilibrium, ∂L/∂h, ∂L/∂q* and λ by NumPy."""
    problem, _, _ = draw_problem(contraction_model, 3, seed=6)
    point = problem.at(solve(problem, TIGHT).state)
    features = np.random.default_rng(6).normal(size=point.features.shape)
    cotangent = point.pull_features(features).copy()
    pairs = zip(point.jacobian, cotangent, strict=True)
    exact = np.stack([np.linalg.solve(np.eye(3) - j.T, g) for j, g in pairs])
    return problem, point, features, cotangent, exact


@pytest.mark.parametrize("mode", EXACT)
def test_adjoint_solution_is_that_of_numpy(solved, mode):
    _, point, features, _, exact = solved
    np.testing.assert_allclose(implicit_term(point, features, EXACT[mode]).values, exact, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("mode", ["exact", "broyden", "anderson", "gmres", "neumann", "jfb"])
def test_adjoint_of_a_zero_cotangent_is_zero_and_the_cotangent_is_left_alone(solved, mode):
    _, point, features, _, _ = solved
    features[1] = 0
    kept = features.copy()
    result = np.array(implicit_term(point, features, Backward(mode)).values)
    np.testing.assert_array_equal(result[1], 0)
    np.testing.assert_array_equal(features, kept)


def test_neumann_terms_are_the_partial_sums_of_the_series(solved):
    _, point, features, cotangent, _ = solved
    total, power = np.zeros_like(cotangent), cotangent
    for terms in range(1, 5):
        total = total + power
        power = np.stack([j.T @ g for j, g in zip(point.jacobian, power, strict=True)])
        found = implicit_term(point, features, Backward("neumann", terms=terms)).values
        np.testing.assert_allclose(found, total, atol=1e-13)
    np.testing.assert_allclose(implicit_term(point, features, Backward("jfb")).values, cotangent, atol=1e-14)


def test_shine_comes_closer_to_the_adjoint_than_jfb_after_a_broyden_solve(solved):
    problem, point, features, cotangent, exact = solved
    solution = solve(problem, Broyden(tol=1e-13, max_steps=60), on_failure="accept", keep_inverse=True)
    found = implicit_term(point, features, Backward("shine"), solution).values
    assert np.linalg.norm(found - exact) < np.linalg.norm(cotangent - exact)


def test_shine_is_exact_where_broyden_starts_at_the_inverse_of_a_linear_map(solved):
    _, point, features, _, exact = solved
    jacobian = point.jacobian
    linear = HandmadeMap(
        lambda state, rows: np.einsum("bjk,bk->bj", jacobian[rows], state) + 0.3,
        3,
        3,
        lambda state, rows: jacobian[rows],
    )
    solution = solve(linear, Broyden(start_inverse="jacobian"), keep_inverse=True)
    np.testing.assert_allclose(implicit_term(point, features, Backward("shine"), solution).values, exact, rtol=1e-8)


def test_shine_without_a_kept_broyden_inverse_is_an_error(solved):
    problem, point, features, _, _ = solved
    for solution in (
        None,
        solve(problem, Broyden()),
        solve(problem, Anderson(), keep_inverse=True),
        solve(problem, TIGHT, keep_inverse=True),
    ):
        with pytest.raises(InputError, match="shine"):
            implicit_term(point, features, Backward("shine"), solution)


class PointWithJacobian:
    """What `solve_adjoint` needs of a point; its features are its states."""

    def __init__(self, jacobian):
        self.jacobian = jacobian
        self.state = np.zeros(jacobian.shape[:2])

    def pull_features(self, cotangent):
        return cotangent


def test_a_singular_adjoint_equation_names_its_sample():
    jacobian = np.stack([0.3 * np.eye(2), np.diag([1.0, 0.2])])
    with pytest.raises(ConvergenceError, match="sample 1"):
        solve_adjoint(PointWithJacobian(jacobian), np.ones((2, 2)), Backward("exact"))


@pytest.mark.parametrize("mode", ["broyden", "anderson", "gmres"])
def test_an_adjoint_equation_an_iteration_cannot_solve_is_not_silently_wrong(mode):
    jacobian = np.stack([0.3 * np.eye(2), np.diag([1.0, 0.2])])
    point = PointWithJacobian(jacobian)
    with pytest.raises(ConvergenceError, match="1 of 2 samples"):
        solve_adjoint(point, np.ones((2, 2)), Backward(mode, on_failure="raise"))
    with pytest.warns(ConvergenceWarning, match="1 of 2 samples"):
        solve_adjoint(point, np.ones((2, 2)), Backward(mode))


@pytest.mark.parametrize("mode", ["exact", "neumann", "jfb", "broyden", "anderson", "gmres"])
def test_adjoint_of_no_samples_is_empty(mode):
    found = solve_adjoint(PointWithJacobian(np.zeros((0, 2, 2))), np.zeros((0, 2)), Backward(mode))
    assert np.shape(found) == (0, 2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Backward("exakt"), "'exakt'"),
        (lambda: Backward("neumann", terms=0), "terms .*0"),
        (lambda: Backward("gmres", max_steps=1.5), "max_steps .*1.5"),
        (lambda: Backward("gmres", tol=float("nan")), "tol .*nan"),
        (lambda: Backward(residual_limit=-0.5), "residual_limit .*-0.5"),
        (lambda: Backward(tol="tight"), "tol .*'tight'"),
        (lambda: Backward(terms=True), "terms .*True"),
        (lambda: Regularization("frobenius", 1.0), "'frobenius'"),
        (lambda: Regularization("state", -1.0), "-1.0"),
        (lambda: Regularization("state", float("inf")), "inf"),
    ],
)
def test_options_out_of_range_are_errors_with_their_value(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_dropout_scales_what_it_keeps_and_its_gradient_is_that_of_the_masked_loss(contraction_model):
    model = contraction_model
    _, inputs, parameters = draw_problem(model, 3, seed=7)
    result = step(model, parameters, inputs, solver=TIGHT, dropout=0.4, seed=3)
    mask = model.readout.dropout_mask(3, 0.4, np.random.default_rng(3), float)
    assert set(np.unique(mask)) == {0.0, 1 / 0.6}

    def masked_loss(p):
        problem = model.evaluator.bind(model.split(p)[0]).map(inputs)
        features = problem.at(solve(problem, TIGHT).state).features * mask
        return cross_entropy(logits_of(model, p, features), LABELS)

    assert result.loss == pytest.approx(masked_loss(parameters), abs=1e-11)
    assert relative_error(result.gradient, central_difference(masked_loss, parameters)) < 1e-6


@pytest.mark.parametrize("kind", ["amplitude", "angle", "circuit"])
def test_single_precision_gradient_is_close_to_double(kind):
    double, single = build_model(kind, state_scale=0.3), build_model(kind, state_scale=0.3, dtype="float32")
    _, inputs, parameters = draw_problem(double, 3, seed=8)
    exact = step(double, parameters, inputs)
    rough = step(single, parameters.astype(np.float32), inputs.astype(np.float32))
    assert rough.solution.residual.max() < 1e-5
    assert relative_error(rough.gradient, exact.gradient) < 1e-4


def test_an_encoder_angle_of_infinite_slope_is_named():
    u, w = ParameterVector("u", 1), ParameterVector("w", 1)
    encoder, ansatz = QuantumCircuit(1), QuantumCircuit(1)
    encoder.ry(2 * u[0].arcsin(), 0)
    ansatz.rx(w[0], 0)
    model = QDEQModel(CircuitTemplate(encoder, ansatz, readout="z"), num_classes=2, state_scale=0.1)
    # q = 0, where u = x
    point = model.map(np.array([np.pi / 2]), model.prepare([[0.5], [1.0]])).at(np.zeros((2, 1)))
    assert np.isfinite(point.values).all()
    for mode in ("exact", "jfb", "neumann", "broyden", "gmres"):
        with pytest.raises(ConvergenceError, match=r"infinite slope at the equilibrium of sample 1 \(1 samples\)"):
            implicit_term(point, np.ones((2, 1)), Backward(mode))
