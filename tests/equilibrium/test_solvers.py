"""Every solver on every kind of map: same equilibrium, per-sample stopping, statuses, traces and counts."""

from __future__ import annotations

import dataclasses
import threading

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from oracles import HandmadeMap, build_model, draw_problem, without_closed_form
from scipy import optimize

from qiskit_qdeq.equilibrium import (
    Anderson,
    Broyden,
    Newton,
    Picard,
    ScipyRoot,
    Status,
    direct_state,
    solve,
    solver,
)
from qiskit_qdeq.exceptions import ConvergenceError, ConvergenceWarning, InputError

OWN = {
    "newton": Newton(tol=1e-11),
    "broyden": Broyden(tol=1e-11, max_steps=200),
    "broyden_jacobian": Broyden(tol=1e-11, max_steps=200, start_inverse="jacobian"),
    "anderson": Anderson(tol=1e-11, max_steps=200),
    "anderson_mixed": Anderson(tol=1e-11, max_steps=400, memory=2, mixing=0.5),
    "picard": Picard(tol=1e-11, max_steps=500),
    "picard_damped": Picard(tol=1e-11, max_steps=900, damping=0.5),
}
SCIPY = {
    method: ScipyRoot(tol=1e-9, max_steps=2000, method=method)
    for method in (
        "hybr",
        "lm",
        "broyden1",
        "broyden2",
        "anderson",
        "linearmixing",
        "diagbroyden",
        "excitingmixing",
        "krylov",
        "df-sane",
    )
}
SOLVERS = {**OWN, **{f"scipy:{method}": one for method, one in SCIPY.items()}}


def tanh_map(batch=4, size=3, seed=0):
    """A contraction with Lipschitz constant 1/2 that is no circuit."""
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(size, size))
    matrix *= 0.5 / np.linalg.norm(matrix, 2)
    shift = rng.normal(size=(batch, size))

    def jacobian(state, rows):
        slope = 1 - np.tanh(state @ matrix.T + shift[rows]) ** 2
        return slope[:, :, None] * matrix

    return HandmadeMap(lambda q, rows: np.tanh(q @ matrix.T + shift[rows]), batch, size, jacobian)


def plain_iteration(problem, count=400):
    state = np.zeros((problem.batch, problem.num_states))
    rows = np.arange(problem.batch)
    for _ in range(count):
        state = problem.values(state, rows).values
    return state


PROBLEMS = {
    **{
        kind: lambda kind=kind: draw_problem(build_model(kind, state_scale=0.3), 4)[0]
        for kind in ("amplitude", "angle", "circuit")
    },
    "open": lambda: without_closed_form(draw_problem(build_model("amplitude", state_scale=0.3), 4)[0]),
    "tanh": tanh_map,
}


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("kind", PROBLEMS)
def test_every_solver_reaches_the_equilibrium_of_a_contraction(name, kind):
    problem = PROBLEMS[kind]()
    expected = plain_iteration(problem)
    found = solve(problem, SOLVERS[name], on_failure="raise")
    assert found.converged.all()
    assert found.residual.max() <= SOLVERS[name].tol
    np.testing.assert_allclose(found.state, expected, atol=10 * SOLVERS[name].tol)
    actual = np.linalg.norm(problem.values(found.state, np.arange(4)).values - found.state, axis=1)
    np.testing.assert_allclose(found.residual, actual, atol=1e-14)


@pytest.mark.parametrize("name", [*OWN, "scipy:hybr", "scipy:broyden1"])
@pytest.mark.parametrize("kind", ["amplitude", "angle", "circuit"])
def test_equilibrium_does_not_depend_on_batch_mates_or_their_order(name, kind):
    model = build_model(kind, state_scale=1.0)
    _, inputs, parameters = draw_problem(model, 6, seed=2)
    bound = model.evaluator.bind(model.split(parameters)[0])
    chosen = dataclasses.replace(SOLVERS[name], tol=1e-10, max_steps=60)
    together = solve(bound.map(inputs), chosen, on_failure="accept")
    order = np.array([3, 0, 5, 4, 1, 2])
    permuted = solve(bound.map(inputs[order]), chosen, on_failure="accept")
    done = together.converged
    assert done.any()
    np.testing.assert_array_equal(permuted.converged, done[order])
    np.testing.assert_allclose(permuted.state[done[order]], together.state[order][done[order]], atol=1e-12)
    for row in np.flatnonzero(done):
        alone = solve(bound.map(inputs[row : row + 1]), chosen, on_failure="accept")
        np.testing.assert_allclose(alone.state[0], together.state[row], atol=1e-12)
        assert alone.steps[0] == together.steps[row]
        assert alone.evaluations[0] == together.evaluations[row]


@pytest.mark.parametrize("name", ["newton", "broyden", "anderson", "picard", "scipy:hybr", "scipy:broyden1"])
def test_every_sample_stops_by_itself_and_is_not_evaluated_again(name):
    """Sample 0 starts at its equilibrium, the others need ever more steps."""
    rates = np.array([0.0, 0.05, 0.4, 0.7])
    problem = HandmadeMap(lambda q, rows: rates[rows, None] * np.tanh(q + 1), 4, 2)
    found = solve(problem, dataclasses.replace(SOLVERS[name], tol=1e-9), on_failure="raise")
    assert found.steps[0] == 0
    assert found.evaluations[0] == 1
    np.testing.assert_array_equal(problem.counts, found.evaluations)
    assert len(set(found.evaluations)) > 1
    assert found.cost.circuits == problem.counts.sum()
    assert found.cost.jobs == len(problem.asked)
    for row in range(4):
        trace = found.trace[row]
        booked = trace[np.isfinite(trace)]
        assert np.isnan(trace[len(booked) :]).all()
        assert booked[-1] == found.residual[row] <= 1e-9
        assert (booked[:-1] > 1e-9).all()
        assert len(booked) == found.steps[row] + 1
    assert found.trace.shape == (4, found.steps.max() + 1)


@pytest.mark.parametrize("name", ["broyden", "anderson", "picard", "newton"])
def test_one_round_asks_for_all_running_samples_at_once(name):
    problem = tanh_map()
    found = solve(problem, dataclasses.replace(SOLVERS[name], tol=1e-9), on_failure="raise")
    assert len(problem.asked) == found.evaluations.max()


@pytest.mark.parametrize("name", ["newton", "broyden", "anderson", "picard", "scipy:hybr", "scipy:krylov"])
def test_too_few_steps_are_reported_and_raised_warned_of_or_accepted(name):
    few = dataclasses.replace(SOLVERS[name], tol=1e-13, max_steps=1)
    for make in (PROBLEMS["angle"], PROBLEMS["amplitude"], tanh_map):
        found = solve(make(), few, on_failure="accept")
        np.testing.assert_array_equal(found.status, int(Status.MAX_STEPS))
        np.testing.assert_array_equal(found.steps, 1)
        assert not found.converged.any()
        with pytest.raises(ConvergenceError, match=r"4 of 4 samples .* max_steps"):
            solve(make(), few, on_failure="raise")
        with pytest.warns(ConvergenceWarning, match="4 of 4 samples"):
            solve(make(), few)
        with pytest.raises(InputError, match="'ignore'"):
            solve(make(), few, on_failure="ignore")


@pytest.mark.parametrize("name", ["newton", "broyden", "anderson", "picard", "scipy:hybr", "scipy:broyden1"])
def test_a_sample_that_turns_nan_does_not_disturb_the_others(name):
    base = tanh_map()

    def poisoned(state, rows):
        values = base.values(state, rows).values
        values[(rows == 2) & (np.abs(state).sum(axis=1) > 0)] = np.nan
        return values

    problem = HandmadeMap(poisoned, 4, 3, lambda q, rows: base.linearize(q, rows)[1])
    found = solve(problem, SOLVERS[name], on_failure="accept")
    healthy = [0, 1, 3]
    assert found.status[2] == Status.NOT_FINITE
    np.testing.assert_array_equal(found.state[2], 0)
    np.testing.assert_allclose(found.residual[2], np.linalg.norm(base.values(np.zeros((4, 3)), np.arange(4)).values[2]))
    alone = solve(tanh_map(), SOLVERS[name], on_failure="raise")
    assert found.converged[healthy].all()
    np.testing.assert_array_equal(found.state[healthy], alone.state[healthy])
    np.testing.assert_array_equal(found.steps[healthy], alone.steps[healthy])
    with pytest.raises(ConvergenceError, match=r"1 of 4 .* sample 2.*not_finite"):
        solve(problem, SOLVERS[name], on_failure="raise")


@pytest.mark.parametrize("name", ["newton", "broyden", "anderson", "picard", "scipy:hybr"])
def test_a_map_that_is_nan_from_the_start_keeps_its_start(name):
    problem = HandmadeMap(lambda q, rows: np.full_like(q, np.nan), 2, 3)
    start = np.full((2, 3), 0.25)
    found = solve(problem, SOLVERS[name], start, on_failure="accept")
    np.testing.assert_array_equal(found.status, int(Status.NOT_FINITE))
    np.testing.assert_array_equal(found.state, start)
    np.testing.assert_array_equal(found.steps, 0)
    assert "NOT_FINITE".lower() in str(Status(int(found.status[0])))
    assert repr(found)


@pytest.mark.parametrize("name", ["newton", "scipy:hybr", "scipy:lm"])
def test_a_map_without_equilibrium_stalls_at_the_smallest_residual(name):
    """g = 1 + (q - 1/2)² has no root; its minimum is at 1/2."""
    problem = HandmadeMap(lambda q, rows: q + 1 + (q - 0.5) ** 2, 1, 1, lambda q, rows: (2 * q)[:, :, None])
    found = solve(problem, dataclasses.replace(SOLVERS[name], max_steps=500), on_failure="accept")
    assert found.status[0] == Status.STALLED
    assert found.residual[0] == pytest.approx(1, abs=0.05)
    assert found.residual[0] == np.nanmin(found.trace)


@pytest.mark.parametrize("name", ["picard", "broyden", "anderson"])
def test_the_best_iterate_of_a_diverging_solve_is_kept(name):
    """The first step comes close to the equilibrium, then the map throws the iterate away."""

    def wild(state, rows):
        near = np.abs(state - 0.5).max(axis=1, keepdims=True) < 0.05
        return np.where(near, state + 0.01, np.where(np.abs(state) < 0.1, 0.52, -2 * state + 5.0))

    problem = HandmadeMap(wild, 1, 1)
    chosen = dataclasses.replace(SOLVERS[name], max_steps=8)
    found = solve(problem, chosen, on_failure="accept")
    assert not found.converged[0]
    finite = found.trace[0][np.isfinite(found.trace[0])]
    assert found.residual[0] == finite.min()
    np.testing.assert_allclose(np.linalg.norm(wild(found.state, None) - found.state, axis=1), found.residual)


def test_picard_that_diverges_keeps_its_start():
    problem = HandmadeMap(lambda q, rows: 3 * q + 0.1, 1, 1)
    found = solve(problem, Picard(max_steps=12), on_failure="accept")
    np.testing.assert_array_equal(found.state, 0)
    assert found.status[0] == Status.MAX_STEPS
    np.testing.assert_allclose(found.trace[0], 0.1 * 3.0 ** np.arange(13), rtol=1e-10)


@settings(max_examples=25)
@example(3550, 1.234375)
@given(st.integers(0, 2**31), st.floats(0.1, 3.0))
def test_compiled_newton_does_what_newton_on_the_open_map_does(seed, state_scale):
    problem, _, _ = draw_problem(build_model("amplitude", state_scale=state_scale), 5, seed)
    # a rescue goes far from where rounding alone decides its course
    newton = Newton(tol=1e-10, rescue_steps=0)
    compiled = solve(problem, newton, on_failure="accept")
    opened = solve(without_closed_form(problem), newton, on_failure="accept")
    np.testing.assert_array_equal(compiled.status, opened.status)
    done = compiled.converged
    np.testing.assert_allclose(compiled.state[done], opened.state[done], atol=1e-9)
    np.testing.assert_array_equal(compiled.steps[done], opened.steps[done])
    # the open map tries all shortened steps in one evaluator call, the compiled one stops at the first that serves
    assert (compiled.evaluations[done] <= opened.evaluations[done]).all()
    width = compiled.steps[done].max(initial=0) + 1
    np.testing.assert_allclose(compiled.trace[done, :width], opened.trace[done, :width], atol=1e-9)


@pytest.mark.parametrize("opened", [False, True])
def test_newton_counts_and_traces_a_stalled_sample_the_same_way_with_and_without_closed_form(opened):
    """With one shortening allowed, a sample whose full step does not lower the residual stalls at once."""
    for seed in range(200):
        problem, _, _ = draw_problem(build_model("amplitude", state_scale=2.5), 20, seed)
        found = solve(
            without_closed_form(problem) if opened else problem,
            Newton(max_shortenings=1, rescue_steps=0),
            on_failure="accept",
        )
        stalled = np.flatnonzero(found.status == Status.STALLED)
        if len(stalled):
            break
    row = stalled[0]
    booked = found.trace[row][np.isfinite(found.trace[row])]
    assert len(booked) == found.steps[row] + 1
    assert found.residual[row] == booked.min()
    # the step that failed was not taken: what is booked decreases to the end
    assert (np.diff(booked) < 0).all()


def far_from_contraction(kind, batch=60):
    """A map on which plain Newton leaves several of its samples at a minimum of the residual."""
    model = build_model(kind.removeprefix("open "), state_scale=1.5)
    bound = model.evaluator.bind(model.split(model.initial_parameters(0))[0])
    inputs = model.prepare(np.random.default_rng(0).uniform(-1, 1, (batch, model.num_features)))
    problem = bound.map(inputs)
    return bound, inputs, without_closed_form(problem) if kind.startswith("open") else problem


@pytest.mark.parametrize("kind", ["amplitude", "open amplitude", "angle", "circuit"])
def test_samples_that_newton_leaves_at_a_minimum_of_the_residual_are_rescued(kind):
    _, _, problem = far_from_contraction(kind)
    plain = solve(problem, Newton(rescue_steps=0), on_failure="accept")
    found = solve(problem, Newton(), on_failure="accept")
    stalled = plain.status == Status.STALLED
    assert stalled.sum() >= 4
    assert found.converged[stalled].mean() > 0.9
    rows = np.arange(problem.batch)
    actual = np.linalg.norm(problem.values(found.state, rows).values - found.state, axis=1)
    np.testing.assert_allclose(found.residual, actual, atol=1e-12)
    assert (found.residual <= plain.residual).all()
    # nothing changes for the others
    for name in ("state", "residual", "status", "steps", "evaluations"):
        np.testing.assert_array_equal(getattr(found, name)[~stalled], getattr(plain, name)[~stalled])
    assert (found.evaluations[stalled] > plain.evaluations[stalled]).all()
    booked = np.isfinite(found.trace)
    np.testing.assert_array_equal(booked.sum(axis=1), found.steps + 1)
    assert (np.diff(booked.astype(int), axis=1) <= 0).all()
    last = found.trace[rows, found.steps]
    np.testing.assert_array_equal(last[found.converged], found.residual[found.converged])
    untraced = solve(problem, Newton(), on_failure="accept", keep_trace=False)
    np.testing.assert_array_equal(untraced.state, found.state)


@pytest.mark.parametrize("kind", ["amplitude", "angle", "circuit"])
def test_a_rescue_does_not_depend_on_batch_mates_and_leaves_a_consistent_point(kind):
    bound, inputs, problem = far_from_contraction(kind)
    stalled = solve(problem, Newton(rescue_steps=0), on_failure="accept").status == Status.STALLED
    found = solve(problem, Newton(), on_failure="accept")
    for row in np.flatnonzero(stalled & found.converged)[:4]:
        alone = solve(bound.map(inputs[row : row + 1]), Newton(), on_failure="accept")
        np.testing.assert_allclose(alone.state[0], found.state[row], atol=1e-8)
        assert alone.evaluations[0] == found.evaluations[row]
    kept, plain = problem.at(found.state), bound.map(inputs).at(found.state.copy())
    for name in ("jacobian", "features", "values"):
        np.testing.assert_allclose(getattr(kept, name), getattr(plain, name), atol=1e-10)


def test_every_evaluation_of_a_rescue_is_counted():
    _, _, problem = far_from_contraction("angle")
    watched = HandmadeMap(
        lambda q, rows: problem.values(q, rows).values,
        problem.batch,
        problem.num_states,
        lambda q, rows: problem.linearize(q, rows)[1],
    )
    found = solve(watched, Newton(), on_failure="accept")
    assert found.steps.max() > 20
    np.testing.assert_array_equal(watched.counts, found.evaluations)
    assert found.cost.circuits == watched.counts.sum()
    assert found.cost.jobs == len(watched.asked)


def test_rounding_that_keeps_a_sample_above_the_tolerance_starts_no_rescue():
    problem = draw_problem(build_model("circuit", state_scale=0.3, dtype="float32"), 6)[0]
    found = solve(problem, Newton(tol=1e-12), on_failure="accept")
    plain = solve(problem, Newton(tol=1e-12, rescue_steps=0), on_failure="accept")
    assert (found.status == Status.STALLED).any()
    np.testing.assert_array_equal(found.evaluations, plain.evaluations)


@settings(max_examples=15)
@given(st.integers(0, 2**31), st.sampled_from(["amplitude", "angle", "circuit"]))
def test_newton_finds_a_root_that_scipy_confirms_where_the_map_is_no_contraction(seed, kind):
    problem, _, _ = draw_problem(build_model(kind, state_scale=1.5), 4, seed)
    found = solve(problem, Newton(tol=1e-10), on_failure="accept")
    for row in np.flatnonzero(found.converged):
        rows = np.array([row])
        polished = optimize.root(
            lambda q, rows=rows: (problem.values(q[None], rows).values - q)[0], found.state[row], tol=1e-14
        )
        assert np.linalg.norm(polished.fun) < 1e-9
        np.testing.assert_allclose(polished.x, found.state[row], atol=1e-5)
    assert (found.residual[~found.converged] > 1e-10).all()


def test_newton_solves_an_affine_map_in_one_step_and_broyden_in_at_most_two_per_unknown():
    rng = np.random.default_rng(0)
    matrix, shift = rng.normal(size=(3, 3)), rng.normal(size=3)
    expected = np.linalg.solve(np.eye(3) - matrix, shift)
    problem = HandmadeMap(lambda q, rows: q @ matrix.T + shift, 1, 3, lambda q, rows: matrix[None])
    newton = solve(problem, Newton(tol=1e-9))
    assert newton.steps[0] == 1
    np.testing.assert_allclose(newton.state[0], expected, atol=1e-9)
    broyden = solve(problem, Broyden(tol=1e-9))
    assert broyden.steps[0] <= 2 * 3
    np.testing.assert_allclose(broyden.state[0], expected, atol=1e-7)
    assert solve(problem, Broyden(tol=1e-9, start_inverse="jacobian")).steps[0] == 1


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8])
def test_newton_solves_affine_maps_whose_elimination_needs_row_exchanges(size):
    """1 - J is a permutation, or one plus a whisker: without pivoting the first pivot is zero or nearly so."""
    rng = np.random.default_rng(size)
    shift = rng.normal(size=(3, size))
    for whisker in (0.0, 1e-13, 1e-7, 1e-3):
        permutation = np.roll(np.eye(size), 1, axis=0) + whisker * rng.normal(size=(size, size))
        jacobian = np.eye(size) - permutation
        problem = HandmadeMap(
            lambda q, rows, j=jacobian: q @ j.T + shift[rows],
            3,
            size,
            lambda q, rows, j=jacobian: np.repeat(j[None], len(rows), axis=0),
        )
        found = solve(problem, Newton(tol=1e-9), on_failure="raise")
        assert (found.steps == 1).all()
        np.testing.assert_allclose(found.state, np.linalg.solve(permutation, shift.T).T, atol=1e-8)


def test_good_broyden_follows_the_textbook_iteration():
    """B += (y - B s) sᵀ / sᵀs with dense solves; the solver updates the inverse by Sherman-Morrison."""
    problem = tanh_map(batch=1, size=4, seed=3)
    found = solve(problem, Broyden(tol=0.0, max_steps=7), on_failure="accept")

    def g(q):
        return problem.values(q[None], np.array([0])).values[0] - q

    q, estimate = np.zeros(4), -np.eye(4)
    norms = [np.linalg.norm(g(q))]
    for _ in range(7):
        step = -np.linalg.solve(estimate, g(q))
        change = g(q + step) - g(q)
        estimate += np.outer(change - estimate @ step, step) / (step @ step)
        q = q + step
        norms.append(np.linalg.norm(g(q)))
    np.testing.assert_allclose(found.trace[0], norms, rtol=1e-6, atol=1e-14)


def test_picard_is_repeated_application_and_damping_shortens_the_step():
    problem = tanh_map()
    found = solve(problem, Picard(tol=0.0, max_steps=3), on_failure="accept")
    np.testing.assert_allclose(found.state, plain_iteration(problem, 3), atol=1e-15)
    np.testing.assert_allclose(direct_state(problem, 3), plain_iteration(problem, 3), atol=1e-15)
    np.testing.assert_array_equal(direct_state(problem, 0), 0)
    damped = solve(problem, Picard(tol=0.0, max_steps=1, damping=0.25), on_failure="accept")
    np.testing.assert_allclose(damped.state, 0.25 * plain_iteration(problem, 1), atol=1e-15)


def test_relative_tolerance_is_relative_to_the_value_of_the_map():
    problem = HandmadeMap(lambda q, rows: 0.5 * q + 50.0, 1, 1)
    found = solve(problem, Picard(tol=0.0, rtol=1e-3), on_failure="raise")
    residuals = found.trace[0]
    # after n steps q = 100 (1 - 2^-n), g = 50 2^-n, m = q + g
    expected = next(n for n in range(99) if 50 * 0.5**n <= 1e-3 * (100 - 100 * 0.5**n + 50 * 0.5**n))
    assert found.steps[0] == expected
    np.testing.assert_allclose(residuals, 50 * 0.5 ** np.arange(expected + 1))


@pytest.mark.parametrize("name", ["newton", "broyden", "anderson", "picard", "scipy:hybr"])
@pytest.mark.parametrize("kind", ["amplitude", "angle", "circuit"])
def test_a_batch_of_no_samples_has_no_equilibria(name, kind):
    model = build_model(kind, state_scale=0.3)
    _, inputs, parameters = draw_problem(model, 2)
    problem = model.evaluator.bind(model.split(parameters)[0]).map(inputs[:0])
    found = solve(problem, SOLVERS[name])
    assert found.state.shape == (0, 3)
    assert found.residual.shape == found.status.shape == found.steps.shape == (0,)
    assert repr(found) == "Solution(0 samples)"


def test_an_initial_state_that_cannot_be_used_is_an_error_that_says_which():
    problem = tanh_map()
    with pytest.raises(InputError, match=r"initial state must have shape .*\(4, 3\), got \(3, 4\)"):
        solve(problem, Newton(), np.zeros((3, 4)))
    bad = np.zeros((4, 3))
    bad[2, 1] = np.nan
    with pytest.raises(InputError, match="sample 2"):
        solve(problem, Newton(), bad)


@pytest.mark.parametrize("name", ["newton", "broyden", "picard", "scipy:hybr"])
@pytest.mark.parametrize("kind", ["amplitude", "tanh"])
def test_the_initial_state_is_used_and_left_alone(name, kind):
    problem = PROBLEMS[kind]()
    start = plain_iteration(problem)
    kept = start.copy()
    found = solve(problem, dataclasses.replace(SOLVERS[name], tol=1e-9), start)
    np.testing.assert_array_equal(found.steps, 0)
    np.testing.assert_array_equal(found.evaluations, 1)
    np.testing.assert_array_equal(start, kept)


def test_a_kept_broyden_inverse_estimates_the_inverse_of_j_minus_one():
    problem = tanh_map()
    found = solve(problem, Broyden(tol=1e-13, max_steps=60, start_inverse="jacobian"), keep_inverse=True)
    jacobian = problem.linearize(found.state, np.arange(4))[1]
    np.testing.assert_allclose(found.inverse, np.linalg.inv(jacobian - np.eye(3)), atol=0.3)
    assert solve(problem, Broyden()).inverse is None


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("newton", Newton),
        ("broyden", Broyden),
        ("anderson", Anderson),
        ("picard", Picard),
        ("scipy:lm", ScipyRoot),
    ],
)
def test_a_solver_has_a_name_and_takes_its_options(name, kind):
    made = solver(name, tol=1e-4, max_steps=7)
    assert isinstance(made, kind)
    assert (made.tol, made.max_steps) == (1e-4, 7)
    assert solver(made) is made
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.tol = 1.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: solver("netwon"),
            r"\['newton', 'broyden', 'anderson', 'picard', 'probe', 'scipy:hybr'.*got 'netwon'",
        ),
        (lambda: solver("scipy:newton"), "'scipy:hybr'.*'scipy:newton'"),
        (lambda: solver("picard", damp=0.5), r"no option \['damp'\].*'damping'"),
        (lambda: solver(Newton(), tol=1.0), "'tol'"),
        (lambda: solver("newton", tol=-1.0), "tol .*-1.0"),
        (lambda: solver("newton", tol=float("nan")), "tol .*nan"),
        (lambda: solver("newton", rtol="small"), "rtol .*'small'"),
        (lambda: solver("newton", max_steps=0), "max_steps .*0"),
        (lambda: solver("newton", max_steps=True), "max_steps .*True"),
        (lambda: solver("newton", max_shortenings=-1), "max_shortenings .*-1"),
        (lambda: solver("newton", rescue_steps=-1), "rescue_steps .*-1"),
        (lambda: solver("newton", rescue_steps=True), "rescue_steps .*True"),
        (lambda: solver("newton", rescue_steps=1.5), "rescue_steps .*1.5"),
        (lambda: solver("broyden", start_inverse="unit"), "start_inverse .*'unit'"),
        (lambda: solver("anderson", memory=0), "memory .*0"),
        (lambda: solver("anderson", mixing=0.0), "mixing .*0.0"),
        (lambda: solver("picard", damping=1.5), "damping .*1.5"),
        (lambda: solver(None), "None"),
    ],
)
def test_unknown_solvers_and_options_are_errors_that_list_the_valid_ones(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_a_failing_map_ends_a_scipy_solve_with_its_own_error_and_no_thread_left():
    before = threading.active_count()

    def failing(state, rows):
        if np.abs(state).sum() > 0:
            raise RuntimeError("the device is gone")
        return state + 1

    with pytest.raises(RuntimeError, match="the device is gone"):
        solve(HandmadeMap(failing, 3, 2), ScipyRoot(method="broyden1"))
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and thread.daemon:
            thread.join(timeout=2)
    assert threading.active_count() <= before
