from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from qiskit.primitives import StatevectorEstimator

from qiskit_qdeq.equilibrium import solve, solver
from qiskit_qdeq.evaluation.protocol import Evaluation
from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.presets import model_config
from qiskit_qdeq.visualization import plot_basins
from qiskit_qdeq.visualization._figure import BLACK, BLUE, GREEN, GREY
from qiskit_qdeq.visualization.basins import _COLORS

nan = np.nan


class Cubic:
    """m_0 = (3 q_0 - q_0³) / 2, the others m_j = q_j / 2: q_0 goes to -1 or 1 by its sign, 0 repels."""

    batch = 2

    def __init__(self, num_states=2):
        self.num_states = num_states

    def values(self, state, rows):
        # the other sample of the batch has no equilibrium
        first = (3 * state[:, :1] - state[:, :1] ** 3) / 2 + 10 * (rows[:, None] == 0)
        return Evaluation(np.hstack([first, state[:, 1:] / 2]))

    def linearize(self, state, rows):
        slopes = np.full((len(state), self.num_states), 0.5)
        slopes[:, 0] = 1.5 - 1.5 * state[:, 0] ** 2
        return self.values(state, rows), slopes[:, :, None] * np.eye(self.num_states)


class Turning:
    """m(q) = -q: every start but q = 0 goes round a cycle of two."""

    batch, num_states = 1, 2

    def values(self, state, rows):
        return Evaluation(-state)

    def linearize(self, state, rows):
        return self.values(state, rows), np.broadcast_to(-np.eye(2), (len(state), 2, 2))


def hues(figure):
    """Pixels of the picture, first row at the bottom, as indices into the colours; -1 for grey."""
    pixels = np.asarray(figure.axes[0].images[0].get_array(), dtype=float)
    # a shade is the colour mixed with white
    ink = (1 - pixels) / (1 - pixels).max(axis=2, keepdims=True)
    palette = np.array([1 - np.array(to_rgb(color)) for color in (*_COLORS, GREY)])
    palette /= palette.max(axis=1, keepdims=True)
    chosen = np.argmin(np.abs(ink[:, :, None] - palette).max(axis=3), axis=2)
    return np.where(chosen == len(_COLORS), -1, chosen)


def marks(figure, marker):
    found = [line for line in figure.axes[0].lines if line.get_marker() == marker and len(line.get_xdata())]
    return {(round(float(x), 6) + 0.0, round(float(y), 6) + 0.0) for line in found for x, y in line.get_xydata()}


def test_a_start_has_the_colour_of_the_equilibrium_it_goes_to(tmp_path):
    figure = plot_basins(Cubic(), 1, extent=(-1, 1.5, -1, 1), resolution=10)
    # colours in order from left to right; the second is that of 0, which nothing reaches
    columns = -1 + 2.5 * (np.arange(10) + 0.5) / 10
    np.testing.assert_array_equal(hues(figure), np.broadcast_to(np.where(columns > 0, 2, 0), (10, 10)))
    assert marks(figure, "o") == {(1, 0), (-1, 0)}
    figure.savefig(tmp_path / "basins.png", dpi=40)


def test_equilibria_that_plain_iteration_does_not_reach_are_crossed():
    figure = plot_basins(Cubic(), 1, resolution=10)
    assert marks(figure, "X") == {(0, 0)}
    names = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert sorted(names) == [
        "q*: from 50 % of starts, ρ(J) = 0.50",
        "q*: from 50 % of starts, ρ(J) = 0.50",
        "q*: from no start, ρ(J) = 1.50",
    ]


def test_the_basin_of_a_real_model_is_where_iterating_by_hand_ends():
    model = model_config("default", 4, 2, 2, encoding="angle", state_scale=2.0).build()
    weights = model.initial_parameters(7)[: model.num_weights]
    sample = np.random.default_rng(1007).uniform(-1, 1, (1, 4))
    problem = model.map(weights, model.prepare(sample))
    figure = plot_basins(problem, resolution=12)
    reached = sorted(marks(figure, "o"))
    assert len(reached) == 2
    drawn = hues(figure)
    order = {round(line.get_xdata()[0], 6): line.get_markerfacecolor() for line in figure.axes[0].lines}
    centres = -1 + (np.arange(12) + 0.5) / 6
    for row, column in [(0, 0), (11, 0), (6, 2), (11, 11), (8, 4), (3, 7)]:
        state = np.array([[centres[column], centres[row]]])
        for _ in range(400):
            state = problem.at(state).values
        end = min(reached, key=lambda point: np.linalg.norm(np.array(point) - state[0]))
        np.testing.assert_allclose(end, state[0], atol=1e-5)
        assert _COLORS[drawn[row, column]] == order[end[0]]


def test_the_plane_goes_through_the_given_state():
    # start entries 1 and 0 span the plane, so entry 0 is the height in the picture
    figure = plot_basins(Cubic(3), 1, states=(1, 0), resolution=8)
    np.testing.assert_array_equal(hues(figure).min(axis=1) == hues(figure).max(axis=1), True)
    assert figure.axes[0].get_ylabel() == "state 0, q$_{0}$"
    # seen from a plane without entry 0 all starts are in the basin of that entry of `through`
    figure = plot_basins(Cubic(3), 1, states=(1, 2), through=np.array([-0.3, 0, 0]), resolution=8)
    assert set(hues(figure).ravel()) == {0}
    assert marks(figure, "o") == {(0, 0)}


def test_starts_that_reach_nothing_are_grey(tmp_path):
    figure = plot_basins(Turning(), resolution=8)
    assert set(hues(figure).ravel()) == {-1}
    assert marks(figure, "X") == {(0, 0)}
    assert figure.axes[0].get_legend().get_texts()[-1].get_text() == "no equilibrium reached: 100 % of starts"
    figure.savefig(tmp_path / "basins.png", dpi=40)


def test_a_sample_without_any_equilibrium_is_drawn(tmp_path):
    figure = plot_basins(Cubic(), 0, solver=solver("picard", max_steps=3), extent=(-0.1, 0.1, -0.1, 0.1), resolution=8)
    assert set(hues(figure).ravel()) == {-1}
    figure.savefig(tmp_path / "basins.png", dpi=40)


@pytest.mark.parametrize("name", ["newton", "broyden", "anderson", "scipy:hybr"])
def test_every_solver_is_drawn_by_where_it_ends(name):
    figure = plot_basins(Cubic(), 1, solver=name, resolution=8)
    assert figure.axes[0].get_title().startswith(f"where {name.partition(':')[0]} ends")
    centres = -1 + (np.arange(8) + 0.5) / 4
    for column in (0, 3, 6):
        one = type("One", (Cubic,), {"batch": 1, "values": lambda self, q, rows: Cubic.values(self, q, rows + 1)})()
        found = solve(one, name, np.array([[centres[column], centres[2]]]))
        place = tuple(np.round(found.state[0], 3) + 0.0)
        line = next(line for line in figure.axes[0].lines if np.allclose(line.get_xydata(), place, atol=1e-3))
        assert _COLORS[hues(figure)[2, column]] == line.get_markerfacecolor()


def test_slow_convergence_does_not_make_one_equilibrium_many():
    class Slow(Turning):
        """m(q) = 0.999 q: at a residual of 1e-2 iteration is still far from the equilibrium 0."""

        def values(self, state, rows):
            return Evaluation(0.999 * state)

        def linearize(self, state, rows):
            return self.values(state, rows), np.broadcast_to(0.999 * np.eye(2), (len(state), 2, 2))

    figure = plot_basins(Slow(), solver=solver("picard", tol=1e-4, max_steps=5000), resolution=8)
    assert marks(figure, "o") == {(0, 0)}
    assert set(hues(figure).ravel()) == {0}


def test_more_steps_are_darker():
    # no way to go in the second state
    figure = plot_basins(Cubic(), 1, extent=(-1, 1, -1e-9, 1e-9), resolution=20)
    pixels = np.asarray(figure.axes[0].images[0].get_array())
    # beside the repelling line q_0 = 0 the way is longest
    assert pixels[10, 10].sum() < pixels[10, 15].sum()
    assert pixels[10, 9].sum() < pixels[10, 4].sum()


def test_a_float32_model_is_drawn():
    model = model_config("default", 4, 2, 2, encoding="angle", state_scale=0.4, dtype="float32").build()
    weights = model.initial_parameters(3)[: model.num_weights]
    problem = model.map(weights, model.prepare(np.array([[1.0, -2, 0.5, 3]])))
    figure = plot_basins(problem, resolution=8)
    assert len(marks(figure, "o")) == 1
    assert not marks(figure, "X")


def test_axes_of_the_caller_are_used():
    figure = Figure()
    assert plot_basins(Cubic(), 1, resolution=8, axes=figure.add_subplot()) is figure
    assert {BLUE, GREEN, BLACK} == {line.get_markerfacecolor() for line in figure.axes[0].lines}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"problem": 3}, r"problem must be a map, as model.map\(weights, inputs\) gives, got int"),
        ({"sample": 2}, r"sample must be in 0..1, got 2"),
        ({"sample": -1}, "sample must be"),
        ({"states": (0, 2)}, r"states must be two different indices in 0..1"),
        ({"through": [0.0]}, r"through must have shape \(2,\), got \(1,\)"),
        ({"through": [0.0, nan]}, "through must be finite"),
        ({"extent": (1, -1, -1, 1)}, "extent must be"),
        ({"extent": (0, 1)}, "extent must be"),
        ({"resolution": 3}, "resolution must be"),
        ({"solver": "bisection"}, "solver must be one of"),
        ({"axes": 1}, "axes must be a matplotlib Axes"),
    ],
)
def test_basins_that_cannot_be_drawn_are_refused(options, message):
    arguments = {"problem": Cubic(), "sample": 1, "resolution": 8} | options
    with pytest.raises(InputError, match=message):
        plot_basins(**arguments)


def test_a_map_that_costs_circuits_is_refused(model, parameters):
    weights = parameters[: model.num_weights]
    measured = model.measured(StatevectorEstimator())
    problem = measured.map(weights, model.prepare(np.array([[1.0, -2, 0.5, 3]])))
    with pytest.raises(InputError, match="take the map of the exact model"):
        plot_basins(problem)
