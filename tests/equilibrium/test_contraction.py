"""The contraction report against finite differences, sampled Jacobians and equilibria found by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import build_model, central_difference, draw_problem, random_template, relative_error
from qiskit.quantum_info import SparsePauliOp

from qiskit_qdeq.circuits import AngleEncoder, CircuitTemplate, hardware_efficient_ansatz
from qiskit_qdeq.equilibrium import Newton, Picard, contraction, solve
from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.model import QDEQModel


@pytest.mark.parametrize("kind", ["amplitude", "angle", "circuit"])
def test_spectral_radius_and_singular_value_are_those_of_the_finite_difference_jacobian(kind):
    model = build_model(kind, state_scale=1.5)
    problem, inputs, _ = draw_problem(model, 4, seed=3)
    found = solve(problem, Newton(tol=1e-10), on_failure="accept")
    report = contraction(problem, found, model.lipschitz_bound(inputs))
    jacobian = np.einsum("bjbk->bjk", central_difference(lambda q: problem.at(q).values, found.state))
    radius = [np.abs(np.linalg.eigvals(one)).max() for one in jacobian]
    singular = [np.linalg.svd(one, compute_uv=False)[0] for one in jacobian]
    assert relative_error(report.spectral_radius, np.array(radius)) < 1e-6
    assert relative_error(report.singular_value, np.array(singular)) < 1e-6
    assert "contraction over 4 samples" in str(report)


@settings(max_examples=60)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(["amplitude", "padded", "layered", "angle"]),
    st.integers(1, 3),
    st.sampled_from(["nearest", "orthogonal", "random"]),
    st.sampled_from([0.0, 0.8]),
)
def test_lipschitz_bound_holds_over_the_whole_state_box(seed, kind, num_qubits, injected, bias):
    rng = np.random.default_rng(seed)
    template = random_template(rng, kind, num_qubits)
    features = template.num_features - (1 if bias else 0)
    if features < 1:
        bias, features = 0.0, template.num_features
    injection = None
    if injected != "nearest":
        injection = rng.normal(size=(features, template.num_states))
    if injected == "orthogonal" and features >= template.num_states:
        injection = np.linalg.qr(injection)[0] * rng.uniform(0.1, 2, template.num_states)
    model = QDEQModel(template, 2, state_scale=0.7, injection=injection, bias=bias)
    weights = rng.uniform(-3, 3, template.num_weights)
    inputs = model.prepare(rng.normal(size=(3, features)) * 2)
    bound = model.lipschitz_bound(inputs)
    assert bound.shape == (3,)
    problem = model.evaluator.bind(weights).map(inputs)
    for draw in range(20):
        state = rng.uniform(-1, 1, (3, template.num_states))
        if draw % 2:
            state = np.sign(state)
        norms = np.linalg.norm(problem.at(state).jacobian, ord=2, axis=(1, 2))
        assert (norms <= bound * (1 + 1e-9) + 1e-12).all()


def test_lipschitz_bound_of_one_rotation_is_attained():
    """m(q) = cos(x + s q) for RY on |0>, whose steepest slope is s."""
    template = CircuitTemplate(AngleEncoder("y", [0], 1), _idle(1), readout="z")
    model = QDEQModel(template, 2, state_scale=0.6)
    inputs = model.prepare(np.array([[np.pi / 2], [0.3]]))
    np.testing.assert_allclose(model.lipschitz_bound(inputs), 0.6, rtol=1e-12)
    problem = model.evaluator.bind(np.zeros(template.num_weights)).map(inputs)
    assert abs(problem.at(np.zeros((2, 1))).jacobian[0, 0, 0]) == pytest.approx(0.6, abs=1e-12)


def _idle(num_qubits):
    return hardware_efficient_ansatz(num_qubits, 1)


def test_no_bound_is_known_for_circuits_and_none_is_needed_without_feedback():
    circuit = build_model("circuit")
    _, inputs, _ = draw_problem(circuit, 2)
    np.testing.assert_array_equal(circuit.lipschitz_bound(inputs), np.inf)
    for kind in ("amplitude", "angle"):
        model = build_model(kind, state_scale=0.0)
        np.testing.assert_array_equal(model.lipschitz_bound(draw_problem(model, 2)[1]), 0)


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["amplitude", "angle"]), st.integers(1, 6))
def test_error_bound_holds_wherever_the_lipschitz_bound_is_below_one(seed, kind, steps):
    model = build_model(kind, state_scale=0.08 if kind == "angle" else 0.3)
    rng = np.random.default_rng(seed)
    parameters = model.initial_parameters(rng)
    inputs = model.prepare(5 * rng.normal(size=(4, 6)))
    problem = model.evaluator.bind(model.split(parameters)[0]).map(inputs)
    exact = solve(problem, Newton(tol=1e-13, max_steps=100), on_failure="accept")
    rough = solve(problem, Picard(tol=0.0, max_steps=steps), rng.uniform(-1, 1, (4, 3)), on_failure="accept")
    lipschitz = model.lipschitz_bound(inputs)
    report = contraction(problem, rough, lipschitz)
    safe = lipschitz < 1
    assert safe.any()
    distance = np.linalg.norm(rough.state - exact.state, axis=1)
    assert (distance[safe] <= report.error_bound[safe] * (1 + 1e-9) + 1e-12).all()
    assert np.isfinite(report.error_bound[safe]).all()
    assert np.isinf(report.error_bound[~safe]).all()
    assert (report.singular_value[safe] <= lipschitz[safe]).all()


@pytest.mark.parametrize("kind", ["amplitude", "angle"])
def test_two_equilibria_of_one_sample_are_found_and_are_roots(kind):
    model = build_model(kind, state_scale=2.0)
    problem, inputs, _ = draw_problem(model, 8, seed=0)
    found = solve(problem, Newton(tol=1e-10), on_failure="accept")
    report = contraction(problem, found, model.lipschitz_bound(inputs), starts=10)
    row = int(np.argmax(report.equilibria))
    assert report.equilibria[row] >= 2
    # the second one, found by hand from starts of our own
    rng = np.random.default_rng(99)
    for _ in range(100):
        other = solve(problem, Newton(tol=1e-10), rng.uniform(-1, 1, (8, 3)), on_failure="accept")
        if other.converged[row] and np.linalg.norm(other.state[row] - found.state[row]) > 1e-2:
            break
    for state in (found.state, other.state):
        assert np.linalg.norm(problem.at(state).values[row] - state[row]) < 1e-9
        assert np.abs(state[row]).max() <= 1 + 1e-9
    assert np.linalg.norm(other.state[row] - found.state[row]) > 1e-2
    assert report.lipschitz[row] > 1


@pytest.mark.parametrize("kind", ["amplitude", "angle"])
def test_a_contraction_has_one_equilibrium_from_all_starts(kind):
    model = build_model(kind, state_scale=0.05)
    problem, inputs, _ = draw_problem(model, 4)
    found = solve(problem, Newton(tol=1e-10))
    lipschitz = model.lipschitz_bound(inputs)
    report = contraction(problem, found, lipschitz, starts=10, seed=3)
    assert (report.equilibria[lipschitz < 1] == 1).all()
    assert (lipschitz < 1).any()
    np.testing.assert_array_equal(
        contraction(problem, found, lipschitz, starts=5, seed=3).equilibria,
        contraction(problem, found, lipschitz, starts=5, seed=3).equilibria,
    )


def test_a_residual_of_exactly_zero_has_an_error_bound_without_a_warning():
    model = build_model("circuit")
    problem, inputs, _ = draw_problem(model, 3)
    found = dataclasses.replace(solve(problem, Newton(tol=1e-9), on_failure="accept"), residual=np.zeros(3))
    for lipschitz in (model.lipschitz_bound(inputs), np.ones(3)):
        assert np.isinf(contraction(problem, found, lipschitz).error_bound).all()
    np.testing.assert_array_equal(contraction(problem, found, np.full(3, 0.5)).error_bound, 0)


def test_negative_starts_are_an_error():
    model = build_model("angle")
    problem, inputs, _ = draw_problem(model, 2)
    with pytest.raises(InputError, match="starts must be >= 0, got -1"):
        contraction(problem, solve(problem, Newton()), model.lipschitz_bound(inputs), starts=-1)


def test_the_bound_of_a_sum_of_paulis_counts_every_term():
    observables = [SparsePauliOp(["ZII", "XXI"], [1.0, -2.0]), SparsePauliOp("IZZ")]
    template = CircuitTemplate(AngleEncoder.layered(4, 3), _idle(3), state_observables=observables)
    model = QDEQModel(template, 2, state_scale=1.0)
    # each state feeds two features: column sums of P are 2, so c² is the smaller of 2 · 2² and 4 · 2
    np.testing.assert_allclose(model.lipschitz_bound(np.ones((1, 4))), np.sqrt(3**2 + 1) * np.sqrt(8), rtol=1e-12)
