"""Solving measured maps: the noise floor stops a sample, averaging lowers its variance, probing corrects itself."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chi2

from qiskit_qdeq.equilibrium import Status, solve, solver
from qiskit_qdeq.equilibrium.evaluating import evaluate_finite
from qiskit_qdeq.equilibrium.noise import within_noise
from qiskit_qdeq.evaluation.protocol import Cost, Evaluation
from qiskit_qdeq.exceptions import InputError

SIGMA = 0.01


class NoisyMap:
    """q -> A q + b + noise of known standard error; every evaluation of a sample costs one circuit of 100 shots."""

    def __init__(self, batch=200, size=3, seed=0, sigma=SIGMA):
        rng = np.random.default_rng(seed)
        self.batch, self.num_states, self.sigma = batch, size, sigma
        self.matrix = 0.5 * np.linalg.qr(rng.normal(size=(batch, size, size)))[0]
        self.offset = rng.uniform(-0.5, 0.5, (batch, size))
        self.truth = np.linalg.solve(np.eye(size) - self.matrix, self.offset[:, :, None])[:, :, 0]
        self.rng = rng
        self.requests = []

    def values(self, state, rows):
        self.requests.append(rows)
        exact = np.einsum("bij,bj->bi", self.matrix[rows], state) + self.offset[rows]
        noise = self.sigma * self.rng.normal(size=state.shape)
        return Evaluation(exact + noise, np.full(state.shape, self.sigma), Cost(len(rows), 100 * len(rows), 1, 1))

    def linearize(self, state, rows):
        return self.values(state, rows), self.matrix[rows]


@pytest.mark.parametrize("name", ["broyden", "anderson", "picard", "newton", "scipy:hybr", "scipy:broyden1"])
def test_samples_stop_at_the_noise_floor_and_leave_the_pub(name):
    problem = NoisyMap(batch=40)
    found = solve(problem, solver(name, tol=1e-8, max_steps=60), on_failure="accept")
    stopped = found.status == Status.NOISE_FLOOR
    assert stopped.mean() > 0.9
    assert found.converged[stopped].all()
    assert np.linalg.norm(found.state - problem.truth, axis=1)[stopped].max() < 10 * SIGMA
    sizes = [len(rows) for rows in problem.requests]
    assert sizes[0] == 40
    assert sizes[-1] < 40
    assert found.cost.circuits == sum(sizes) == found.evaluations.sum()
    assert found.cost.jobs == len(sizes)


def test_iterating_without_noise_goes_on_to_the_tolerance():
    class Exact(NoisyMap):
        def values(self, state, rows):
            return Evaluation(super().values(state, rows).values)

    found = solve(Exact(sigma=0.0), "broyden")
    assert (found.status == Status.CONVERGED).all()
    assert found.residual.max() < 1e-6


def test_averaging_lowers_the_variance_of_the_state():
    def error(averaging):
        problem = NoisyMap(batch=400)
        found = solve(problem, solver("newton", tol=1e-9, averaging=averaging), on_failure="accept")
        return np.mean((found.state - problem.truth)[found.converged] ** 2)

    assert error(8) < 0.4 * error(1)


def test_broyden_learns_nothing_from_noise_it_averages():
    # secants of mere noise would make the inverse, and with it the averaged steps, arbitrarily wrong
    problem = NoisyMap(batch=400)
    found = solve(problem, solver("broyden", tol=1e-9, averaging=6), on_failure="accept")
    errors = np.linalg.norm(found.state - problem.truth, axis=1)[found.status == Status.NOISE_FLOOR]
    single = np.linalg.norm(np.linalg.solve(np.eye(3) - problem.matrix, SIGMA * np.eye(3)), axis=(1, 2))
    assert len(errors) > 300
    assert np.sqrt(np.mean(errors**2)) < 0.6 * np.sqrt(np.mean(single**2))


def test_a_residual_is_noise_at_the_confidence_asked_for():
    rng = np.random.default_rng(0)
    errors = np.full((4000, 3), 0.02)
    residuals = 0.02 * rng.normal(size=errors.shape)
    assert within_noise(residuals, errors, 0.95).mean() == pytest.approx(0.95, abs=0.015)
    edge = 0.02 * np.sqrt(chi2.ppf(0.9, 3) / 3) * np.ones((1, 3))
    assert within_noise(0.999 * edge, errors[:1], 0.9).all()
    assert not within_noise(1.001 * edge, errors[:1], 0.9).any()


def test_unknown_errors_never_count_as_noise():
    errors = np.array([[0.1, np.inf]])
    assert not within_noise(np.zeros((1, 2)), errors, 0.95).any()
    assert not within_noise(np.zeros((1, 2)), None, 0.95).any()


class ProbedMap(NoisyMap):
    """A noisy map whose probed model is off by a constant, as noise inside the encoder makes it."""

    def __init__(self, offset, **options):
        super().__init__(**options)
        self.shift, self.cost, self.corrected = offset, Cost(), None

    def probe(self):
        self.cost += Cost(circuits=self.batch * 4, jobs=1)
        source = self

        class Model:
            batch, num_states = source.batch, source.num_states

            def values(self, state, rows):
                exact = np.einsum("bij,bj->bi", source.matrix[rows], state) + source.offset[rows]
                return Evaluation(exact + np.broadcast_to(source.shift, source.offset.shape)[rows])

            def linearize(self, state, rows):
                return self.values(state, rows), source.matrix[rows]

        return Model()

    def at(self, state):
        evaluation = self.values(state, np.arange(self.batch))
        self.cost += evaluation.cost

        class Point:
            pass

        point = Point()
        point.state, point.evaluation, point.values = state, evaluation, evaluation.values
        return point

    def correct(self, point, state):
        self.corrected = (point, state)


def test_a_chord_step_takes_out_what_the_probed_map_misses():
    problem = ProbedMap(0.1, batch=100)
    found = solve(problem, solver("probe"))
    error = np.linalg.norm(found.state - problem.truth, axis=1)
    assert (found.status == Status.CORRECTED).all()
    assert np.linalg.norm(np.linalg.solve(np.eye(3) - problem.matrix, np.full(3, 0.1)), axis=1).min() > 0.05
    assert error.max() < 8 * SIGMA
    assert found.residual.min() > 0.1, "the residual that was measured, not one that was hoped for"
    assert found.cost == Cost(circuits=500, shots=10000, jobs=2, pubs=1)
    assert problem.corrected[1] is found.state


def test_without_corrections_the_residual_is_only_measured():
    problem = ProbedMap(0.1, batch=20)
    found = solve(problem, solver("probe", corrections=0), on_failure="accept")
    # the state is the one that was measured, and its measurement serves the readout
    assert problem.corrected[1] is found.state
    np.testing.assert_array_equal(problem.corrected[0].state, found.state)
    assert (found.status == Status.MAX_STEPS).all()


def test_a_residual_within_noise_is_averaged_not_chased():
    problem = ProbedMap(0.0, batch=300)
    found = solve(problem, solver("probe"), on_failure="accept")
    noise = found.status == Status.NOISE_FLOOR
    assert noise.mean() > 0.9
    full = np.linalg.solve(np.eye(3) - problem.matrix, SIGMA * np.ones((300, 3, 1)))
    assert np.mean((found.state - problem.truth)[noise] ** 2) < 0.5 * np.mean(full**2)


@pytest.mark.parametrize("corrections", [1, 3])
def test_corrections_within_noise_average_the_probed_state_with_the_measured_ones(corrections):
    problem = ProbedMap(0.0, batch=600, size=8)
    # the probed map is as noisy as one measurement, the measurements are independent of it
    problem.shift = SIGMA * problem.rng.normal(size=problem.offset.shape)
    found = solve(problem, solver("probe", corrections=corrections), on_failure="accept")
    assert (found.status == Status.NOISE_FLOOR).mean() > 0.9
    single = np.linalg.norm(np.linalg.solve(np.eye(8) - problem.matrix, SIGMA * np.eye(8)), axis=(1, 2))
    error = np.linalg.norm(found.state - problem.truth, axis=1)
    share = np.mean(error**2) / np.mean(single**2)
    # 1/(1 + c), and a little for residuals that look larger than noise
    assert 0.9 < share * (1 + corrections) < 1.5


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("broyden", {"confidence": 1.0}, "confidence must be between 0 and 1"),
        ("broyden", {"averaging": 0}, "averaging must be an integer >= 1|averaging .*0"),
        ("probe", {"corrections": -1}, "corrections must be an integer >= 0"),
    ],
)
def test_unusable_options_are_refused(name, options, message):
    with pytest.raises(InputError, match=message):
        solver(name, **options)


class StrictMap(NoisyMap):
    """Measures nothing at a state that is not finite, as no circuit has such an angle; sample 1 has a singular 1 - J."""

    def __init__(self, **sizes):
        super().__init__(**sizes)
        self.matrix[1] = np.eye(self.num_states)

    def values(self, state, rows):
        assert np.isfinite(state).all()
        return super().values(state, rows)


def test_a_measured_sample_whose_iterate_is_lost_says_so_and_the_others_go_on():
    problem = StrictMap(batch=6)
    found = solve(problem, solver("newton", rescue_steps=0), on_failure="accept")
    assert found.status[1] == Status.NOT_FINITE
    assert np.isfinite(found.state).all()
    others = [0, 2, 3, 4, 5]
    assert found.converged[others].all()
    assert np.linalg.norm(found.state - problem.truth, axis=1)[others].max() < 10 * SIGMA


@pytest.mark.parametrize("with_jacobian", [False, True])
@pytest.mark.parametrize("lost", [[], [0], [1, 3], [0, 1, 2, 3]])
def test_only_finite_states_are_measured_and_the_rest_is_nan(lost, with_jacobian):
    problem = StrictMap(batch=4, sigma=0.0)
    state = np.random.default_rng(1).uniform(-1, 1, (4, 3))
    expected = np.einsum("bij,bj->bi", problem.matrix, state) + problem.offset
    state[lost, 0] = np.inf
    expected[lost] = np.nan
    evaluation, jacobian = evaluate_finite(problem, state, np.arange(4), with_jacobian)
    np.testing.assert_allclose(evaluation.values, expected)
    assert evaluation.cost.circuits == 4 - len(lost)
    assert (jacobian is None) != with_jacobian
    if with_jacobian:
        np.testing.assert_array_equal(np.isnan(jacobian).all(axis=(1, 2)), np.isnan(expected).all(axis=1))
