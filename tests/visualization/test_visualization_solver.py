from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from scipy import optimize

from qiskit_qdeq.equilibrium import ContractionReport, Newton, Picard, Solution, Status, solve, solver
from qiskit_qdeq.evaluation.protocol import Evaluation
from qiskit_qdeq.exceptions import ConvergenceError, InputError
from qiskit_qdeq.presets import model_config
from qiskit_qdeq.visualization import plot_contraction, plot_iterates, plot_residual_traces, plot_spectrum
from qiskit_qdeq.visualization.iterates import _path, _residuals

nan = np.nan


def solution(trace, status=None):
    trace = np.array(trace, dtype=float)
    status = np.full(len(trace), int(Status.CONVERGED)) if status is None else np.array(status)
    steps = np.maximum((~np.isnan(trace)).sum(axis=1) - 1, 0)
    last = np.min(np.where(np.isnan(trace), np.inf, trace), axis=1, initial=np.inf)
    return Solution(np.zeros((len(trace), 2)), last, status, steps, steps + 1, trace)


def lines(axes, name):
    return [line.get_ydata() for line in axes.lines if line.get_label() == name]


def test_the_median_keeps_the_last_residual_of_samples_that_stopped():
    found = solution([[1, 0.1, nan, nan], [1, 0.5, 0.2, 0.05], [1, 0.9, 0.8, nan]])
    axes = plot_residual_traces({"broyden": found}).axes[0]
    np.testing.assert_allclose(lines(axes, "median")[0], [1, 0.5, 0.2, 0.1])


def test_a_sample_that_was_lost_counts_as_infinite_in_the_median():
    lost, fine = int(Status.NOT_FINITE), int(Status.CONVERGED)
    found = solution([[1, nan, nan], [1, nan, nan], [1, 0.1, 0.01]], [lost, lost, fine])
    np.testing.assert_array_equal(lines(plot_residual_traces({"picard": found}).axes[0], "median")[0], [1, nan, nan])


@settings(deadline=None, derandomize=True, max_examples=20)
@given(st.permutations(range(5)))
def test_the_median_does_not_depend_on_the_order_of_samples(order):
    trace = np.array(
        [[1, 0.1, nan], [2, 1, 0.2], [0.3, nan, nan], [3, 2, 1], [1, 0.4, 0.1]],
    )
    first, second = (
        lines(plot_residual_traces({"a": solution(rows)}).axes[0], "median")[0] for rows in (trace, trace[list(order)])
    )
    np.testing.assert_array_equal(first, second)


def test_every_solver_has_a_log_panel_with_the_tolerance_and_the_same_residuals():
    solutions = {"newton": solution([[1, 1e-9]]), "picard": solution([[1, 0.5, 0.2, 0.1]], [1])}
    figure = plot_residual_traces(solutions, tol=1e-6)
    assert [axes.get_title() for axes in figure.axes] == [
        "newton\n1 of 1 converged\nsteps: median 1, most 1",
        "picard\n0 of 1 converged\nsteps: median 3, most 3",
    ]
    assert {axes.get_yscale() for axes in figure.axes} == {"log"}
    assert len({axes.get_ylim() for axes in figure.axes}) == 1
    assert all(list(lines(axes, "tolerance")[0]) == [1e-6, 1e-6] for axes in figure.axes)
    assert {text.get_text() for text in figure.legends[0].get_texts()} == {
        "sample",
        "sample, not converged",
        "median",
        "tolerance",
    }


@pytest.mark.parametrize(("samples", "drawn"), [(0, 0), (3, 3), (50, 6)])
def test_as_many_single_samples_are_drawn_as_asked_for(samples, drawn):
    figure = plot_residual_traces({"a": solution(np.geomspace(1, 1e-6, 12).reshape(6, 2))}, samples=samples)
    assert len(figure.axes[0].lines) == drawn + 1


def test_a_single_sample_is_drawn_over_its_median():
    axes = plot_residual_traces({"picard": solution([[1, 0.5]], [1])}).axes[0]
    above = {line.get_label(): line.get_zorder() for line in axes.lines}
    assert above["sample, not converged"] > above["median"]


def test_a_residual_of_zero_is_drawn_at_the_lower_end():
    axes = plot_residual_traces({"newton": solution([[1, 0.0]])}).axes[0]
    assert 0 < lines(axes, "median")[0][1] < 1e-16


def test_traces_of_real_solvers_are_drawn(model, parameters, tmp_path):
    problem = model.evaluator.bind(model.split(parameters)[0]).map(np.array([[1.0, 2, 3, 4], [2, 1, 0, 1]]))
    names = ("newton", "broyden", "anderson", "picard")
    solutions = {name: solve(problem, solver(name), on_failure="accept") for name in names}
    figure = plot_residual_traces(solutions, tol=1e-6)
    figure.savefig(tmp_path / "traces.png", dpi=40)
    for axes, name in zip(figure.axes, names, strict=True):
        np.testing.assert_array_equal(axes.lines[0].get_ydata(), solutions[name].trace[0])


@pytest.mark.parametrize(
    ("solutions", "options", "message"),
    [
        ({}, {}, "solutions must be a mapping"),
        ({"a": np.ones((2, 2))}, {}, r"solutions\['a'\] must be a Solution"),
        ({"a": solution(np.zeros((1, 0)) + 1)}, {}, "must have shape"),
        ({"a": solution([[nan, nan]])}, {}, "no finite residual"),
        ({"a": solution([[1, -1]])}, {}, "negative"),
        ({"a": solution([[1, 0.1]])}, {"tol": 0}, "tol must be"),
        ({"a": solution([[1, 0.1]])}, {"samples": -1}, "samples must be"),
    ],
)
def test_traces_that_cannot_be_drawn_are_refused(solutions, options, message):
    with pytest.raises(InputError, match=message):
        plot_residual_traces(solutions, **options)


def test_the_spectrum_shows_every_eigenvalue_and_the_unit_circle():
    turn = 0.5 * np.array([[0.0, -1], [1, 0]])
    figure = plot_spectrum(np.array([turn, np.diag([2.0, 0.1])]))
    plane = figure.axes[0]
    points = {
        line.get_label(): set(zip(line.get_xdata(), line.get_ydata().round(12), strict=True)) for line in plane.lines
    }
    assert points == {"inside": {(0, 0.5), (0, -0.5), (0.1, 0)}, "on or outside": {(2, 0)}}
    circle = next(patch for patch in plane.patches if isinstance(patch, Circle))
    assert (circle.center, circle.radius) == ((0, 0), 1)
    assert plane.get_aspect() == 1


@settings(deadline=None, derandomize=True, max_examples=40)
@given(st.lists(st.floats(0, 3) | st.floats(0, 5000) | st.just(1.0) | st.just(0.0), min_size=1, max_size=30))
def test_the_histogram_counts_every_sample_and_colours_those_at_or_above_one(radii):
    jacobian = np.array([[[0.0, 0], [0, r]] for r in radii])
    bars = plot_spectrum(jacobian).axes[1].patches
    assert sum(bar.get_height() for bar in bars) == len(radii)
    warm = to_rgba("#D55E00")
    above = sum(bar.get_height() for bar in bars if bar.get_facecolor() == warm)
    assert above == sum(r >= 1 for r in radii)


@pytest.mark.parametrize(
    ("jacobian", "message"),
    [
        (np.zeros((0, 2, 2)), "must have shape"),
        (np.zeros((2, 2)), "must have shape"),
        (np.zeros((1, 2, 3)), "must have shape"),
        (np.full((1, 2, 2), nan), r"must be finite, got nan at index \(0, 0, 0\)"),
        (np.eye(2)[None] * 1j, "real numbers"),
    ],
)
def test_a_jacobian_that_has_no_spectrum_is_refused(jacobian, message):
    with pytest.raises(InputError, match=message):
        plot_spectrum(jacobian)


def report(radius, singular=None, lipschitz=None, equilibria=None):
    radius = np.array(radius, dtype=float)
    singular = radius if singular is None else np.array(singular, dtype=float)
    lipschitz = singular if lipschitz is None else np.array(lipschitz, dtype=float)
    equilibria = np.ones(len(radius), dtype=int) if equilibria is None else np.array(equilibria)
    return ContractionReport(
        radius, singular, lipschitz, np.full(len(radius), np.inf), equilibria, np.ones(len(radius))
    )


def read_step(line, x):
    """The value of a curve drawn in steps, at x."""
    return line.get_ydata()[np.searchsorted(line.get_xdata(), x, side="right") - 1]


@settings(deadline=None, derandomize=True, max_examples=40)
@given(
    st.lists(st.floats(1e-3, 1e3) | st.just(1.0) | st.just(np.inf), min_size=1, max_size=20),
    st.floats(1e-3, 1e3),
)
def test_the_curve_of_the_lipschitz_bound_reads_the_share_of_samples(bounds, x):
    values = np.array(bounds)
    axes = plot_contraction(report(np.full(len(values), 0.5), lipschitz=values)).axes[0]
    for at in (x, 1.0):
        line = axes.lines[2]
        if line.get_xdata()[0] <= at <= line.get_xdata()[-1]:
            assert read_step(line, at) == pytest.approx(100 * np.mean(values <= at))


def test_a_contraction_report_is_drawn_with_its_line_at_one_and_several_equilibria(tmp_path):
    figure = plot_contraction(report([0.2, 0.4], [0.5, 0.7], [3, np.inf], [1, 2]))
    axes = figure.axes[0]
    assert axes.get_title() == "contraction of 2 samples; several equilibria in 50.0 %"
    assert axes.lines[2].get_label() == "Lipschitz bound on the box (unknown: 50 %)"
    assert list(axes.lines[3].get_xdata()) == [1, 1]
    assert axes.get_xscale() == "log"
    figure.savefig(tmp_path / "contraction.png", dpi=40)


def test_a_map_without_feedback_is_drawn_although_zero_has_no_logarithm(tmp_path):
    figure = plot_contraction(report([0, 0, 0]))
    figure.savefig(tmp_path / "contraction.png", dpi=40)
    assert all(read_step(line, 0.5) == 100 for line in figure.axes[0].lines[:3])


@pytest.mark.parametrize(
    ("radius", "lipschitz"),
    [
        ([0.8, 0.82], [0.9, 0.95]),
        ([0.3, 0.5], [1.2, 1.7]),
        ([0.1, 0.2], [0.7, 2.7]),
        ([1e-6, 0.2], [1, 3000]),
        ([0, 0], [0, 0]),
    ],
)
def test_tick_labels_of_a_contraction_do_not_overlap(radius, lipschitz):
    figure = plot_contraction(report(radius, lipschitz=lipschitz))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    ticks = figure.axes[0].get_xticklabels() + figure.axes[0].get_xticklabels(minor=True)
    low, high = figure.axes[0].get_window_extent().intervalx
    shown = [t.get_window_extent(canvas.get_renderer()).intervalx for t in ticks if t.get_text()]
    shown = sorted(tuple(ends) for ends in shown if low <= sum(ends) / 2 <= high)
    assert len(shown) >= 2
    assert all(left[1] < right[0] for left, right in itertools.pairwise(shown))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (None, "report must be a ContractionReport"),
        (report([]), "not empty"),
        (report([nan]), r"report.spectral_radius must be >= 0, got nan for sample 0"),
        (report([0.1], lipschitz=[-1]), "report.lipschitz must be >= 0"),
        (report([0.1], singular=[0.1, 0.2]), "must have shape"),
    ],
)
def test_a_report_that_cannot_be_drawn_is_refused(bad, message):
    with pytest.raises(InputError, match=message):
        plot_contraction(bad)


def test_axes_of_the_caller_are_used_and_their_figure_returned():
    figure = Figure()
    left, right = figure.subfigures(1, 2)
    plain, nested = left.subplots(), right.subplots()
    assert plot_contraction(report([0.5]), axes=plain) is figure
    assert plot_contraction(report([0.5]), axes=nested) is figure
    assert plain.get_xlabel()
    with pytest.raises(InputError, match="axes must be a matplotlib Axes or None, got Figure"):
        plot_contraction(report([0.5]), axes=figure)


SAMPLE = np.array([1.0, -2.0, 0.5, 3.0])


def values_at(model, parameters, state):
    """m(x + P q) through the whole-batch point, not through what solvers call."""
    problem = model.evaluator.bind(model.split(parameters)[0]).map(SAMPLE[None])
    return problem.at(np.array(state)[None]).values[0]


def path_of(figure, name):
    line = next(line for line in figure.axes[0].lines if line.get_label().startswith(name))
    return np.array(line.get_xydata())


def test_the_picard_path_is_plain_iteration_of_the_map(model, parameters):
    path = path_of(plot_iterates(model, parameters, SAMPLE, resolution=9), "picard")
    state = np.zeros(2)
    for point in path:
        np.testing.assert_allclose(point, state, atol=1e-12)
        state = values_at(model, parameters, state)
    assert len(path) > 3


@pytest.mark.parametrize("name", ["newton", "picard", "broyden", "anderson", "scipy:hybr", "scipy:broyden1"])
def test_every_iterate_is_drawn_from_the_start_to_the_equilibrium(model, parameters, name):
    start = np.array([0.7, -0.6])
    chosen = solver(name, tol=1e-9)
    figure = plot_iterates(model, parameters, SAMPLE, solvers={name: chosen}, start=start, resolution=9)
    problem = model.evaluator.bind(model.split(parameters)[0]).map(SAMPLE[None])
    path = path_of(figure, name)
    assert len(path) == solve(problem, chosen, start[None]).steps[0] + 1
    root = optimize.root(lambda q: values_at(model, parameters, q) - q, start, tol=1e-13).x
    np.testing.assert_allclose(path[0], start)
    np.testing.assert_allclose(path[-1], root, atol=1e-8)
    np.testing.assert_allclose(path_of(figure, "q*")[0], root, atol=1e-8)


class Arctan:
    """m(q) = q - arctan(q): Newton from |q| > 1.4 overshoots, so its line search has to reject steps."""

    batch, num_states = 1, 1
    # as of a map in closed form, whose compiled Newton tells of no iterates
    quadratic = None

    def values(self, state, rows):
        return Evaluation(state - np.arctan(state))

    def linearize(self, state, rows):
        return self.values(state, rows), (1 - 1 / (1 + state**2))[:, :, None]


def test_trial_steps_that_were_given_up_are_not_part_of_a_path():
    path, found = _path(Arctan(), Newton(tol=1e-12), np.array([[3.0]]))
    assert found.evaluations[0] > found.steps[0] + 1
    np.testing.assert_allclose(np.abs(np.arctan(path[:, 0])), found.trace[0])


class Affine:
    """m(q) = A q + b with many states, whose norm depends on the order of summation in its last digit."""

    batch, num_states = 1, 16

    def __init__(self):
        rng = np.random.default_rng(0)
        self.matrix, self.offset = 0.1 * rng.normal(size=(16, 16)), rng.normal(size=16)

    def values(self, state, rows):
        return Evaluation(state @ self.matrix.T + self.offset)

    def linearize(self, state, rows):
        return self.values(state, rows), self.matrix[None]


@pytest.mark.parametrize("name", ["scipy:broyden1", "scipy:df-sane", "picard"])
def test_rounding_of_the_residual_does_not_lose_an_iterate(name):
    path, found = _path(Affine(), solver(name), np.zeros((1, 16)))
    assert len(path) == found.steps[0] + 1 > 3
    root = np.linalg.solve(np.eye(16) - Affine().matrix, Affine().offset)
    np.testing.assert_allclose(path[-1], root, atol=1e-5)


def test_the_plane_goes_through_the_chosen_states(parameters):
    model = model_config("default", 8, 2, 3, encoding="angle", state_scale=0.4).build()
    sample = np.arange(1.0, 9)
    weights = model.initial_parameters(0)
    figure = plot_iterates(model, weights, sample, states=(2, 0), solvers={"picard": Picard()}, resolution=9)
    problem = model.evaluator.bind(model.split(weights)[0]).map(sample[None])
    after_one = problem.at(np.zeros((1, 3))).values[0]
    np.testing.assert_allclose(path_of(figure, "picard")[1], after_one[[2, 0]], atol=1e-12)
    assert figure.axes[0].get_xlabel() == "state 2, q$_{2}$"
    assert figure.axes[1].get_ylabel() == "residual ‖m(q) − q‖₂"


def test_residuals_of_many_states_of_one_sample_are_those_of_single_states():
    model = model_config("default", 4, 2, 2, state_scale=0.4).build()
    parameters = model.initial_parameters(3)
    problem = model.evaluator.bind(model.split(parameters)[0]).map(SAMPLE[None])
    states = np.random.default_rng(0).uniform(-1, 1, (5, 2))
    single = [np.linalg.norm(values_at(model, parameters, state) - state) for state in states]
    np.testing.assert_allclose(_residuals(problem, states), single, atol=1e-12)


def test_the_background_is_the_residual_on_the_plane(model, parameters):
    figure = plot_iterates(model, parameters, SAMPLE, resolution=41)
    levels = figure.axes[0].collections[0].levels
    edges = figure.axes[0].collections[0].get_paths()[len(levels) // 2].vertices
    inner = edges[np.isfinite(edges).all(axis=1)]
    found = [np.linalg.norm(values_at(model, parameters, point) - point) for point in inner]
    # a band of the background lies between its two levels
    low, high = levels[len(levels) // 2 - 1 : len(levels) // 2 + 1]
    assert min(found) > 0.9 * low
    assert max(found) < 1.1 * high


def test_a_radius_puts_the_equilibrium_into_the_middle(model, parameters, tmp_path):
    figure = plot_iterates(model, parameters, SAMPLE, radius=0.05, resolution=9)
    (x, y), axes = path_of(figure, "q*")[0], figure.axes[0]
    np.testing.assert_allclose(axes.get_xlim(), (x - 0.05, x + 0.05))
    np.testing.assert_allclose(axes.get_ylim(), (y - 0.05, y + 0.05))
    figure.savefig(tmp_path / "iterates.png", dpi=40)


def test_a_float32_model_is_drawn():
    model = model_config("default", 4, 2, 2, encoding="angle", state_scale=0.4, dtype="float32").build()
    figure = plot_iterates(
        model, model.initial_parameters(3), SAMPLE, solvers={"newton": Newton(tol=1e-4)}, resolution=9
    )
    assert len(path_of(figure, "newton")) >= 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"states": (0, 2)}, r"states must be two different indices in 0..1, got \(0, 2\)"),
        ({"states": (1, 1)}, "two different"),
        ({"states": 1}, "states must be two indices"),
        ({"solvers": {}}, "solvers must be a mapping"),
        ({"solvers": {"a": "newton"}}, r"solvers\['a'\] must be a Solver"),
        ({"start": [0.0]}, "initial state must have shape"),
        ({"start": [0.0, nan]}, "start must be finite"),
        ({"sample": [1.0, 2.0]}, "x must have shape"),
        ({"sample": [1.0, 2.0, nan, 0.0]}, "sample must be finite"),
        ({"parameters": np.zeros(3)}, "parameters must have shape"),
        ({"radius": 0}, "radius must be"),
        ({"resolution": 2}, "resolution must be"),
    ],
)
def test_iterates_that_cannot_be_drawn_are_refused(model, parameters, options, message):
    arguments = {"model": model, "parameters": parameters, "sample": SAMPLE} | options
    with pytest.raises(InputError, match=message):
        plot_iterates(**arguments)


def test_a_sample_without_equilibrium_is_an_error(model, parameters, monkeypatch):
    class Nowhere:
        batch, num_states = 1, 2

        def values(self, state, rows):
            return Evaluation(state + 1)

        def linearize(self, state, rows):
            return self.values(state, rows), np.zeros((len(state), 2, 2))

    class Bound:
        def map(self, inputs):
            return Nowhere()

    monkeypatch.setattr(type(model.evaluator), "bind", lambda self, weights: Bound())
    with pytest.raises(ConvergenceError, match="choose another start or sample"):
        plot_iterates(model, parameters, SAMPLE)
