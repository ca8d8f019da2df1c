"""Paths of solvers to the equilibrium of one sample, over the residual on a plane through state space.

    (q_i, q_j) -> ‖m(q) - q‖₂,   all other entries of q at their equilibrium values.

The states a solver visits are read off the questions it asks the map.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator

from qiskit_qdeq.circuits._checks import check_count
from qiskit_qdeq.equilibrium.driver import solve
from qiskit_qdeq.equilibrium.solution import Solution, Status
from qiskit_qdeq.equilibrium.solvers import Newton, Picard, Solver
from qiskit_qdeq.evaluation.protocol import Cotangent, EquilibriumMap, Evaluation, EvaluationPoint
from qiskit_qdeq.exceptions import ConvergenceError, InputError
from qiskit_qdeq.model import QDEQModel
from qiskit_qdeq.visualization._figure import (
    BLACK,
    CYCLE,
    RESIDUAL,
    SMALL,
    check_finite,
    label,
    legend,
    own_or_given,
)
from qiskit_qdeq.visualization._plane import BATCH, axis_names, check_states, plane_grid

Array = np.ndarray[Any, np.dtype[Any]]


def plot_iterates(
    model: QDEQModel,
    parameters: Array,
    sample: Array,
    *,
    solvers: Mapping[str, Solver] | None = None,
    states: tuple[int, int] = (0, 1),
    start: Array | None = None,
    radius: float | None = None,
    resolution: int = 81,
    axes: Axes | None = None,
) -> Figure:
    """Draw the iterates of solvers for one sample as they fall into its equilibrium.

    The background is the residual on the plane through q* spanned by two states; the paths are projected
    onto that plane, so off it their residual is not the one of the background.

    Args:
        model: the structure.
        parameters: θ, W, b, flat.
        sample: one sample (features,), as given to `model.prepare`.
        solvers: name -> solver; Picard and Newton if None.
        states: the two states i != j that span the plane.
        start: first iterate (K,) of all solvers; zeros if None.
        radius: half the width of the picture, which then has q* in its middle; None shows the whole paths.
        resolution: grid points per axis of the background.
        axes: to draw into instead of a new figure.

    Raises:
        InputError: for a wrong shape, a state that does not exist, or a model with fewer than two states.
        ConvergenceError: if the sample has no equilibrium that Newton finds from `start`.
    """
    first, second = check_states(states, model.num_states)
    resolution = check_count("resolution", resolution, minimum=8)
    if radius is not None and not (isinstance(radius, int | float) and np.isfinite(radius) and radius > 0):
        raise InputError(f"radius must be a finite number > 0 or None, got {radius!r}")
    solvers = _check_solvers(solvers)
    parameters = check_finite("parameters", parameters, ("parameters",))
    if len(parameters) != model.num_parameters:
        raise InputError(f"parameters must have shape ({model.num_parameters},), got {parameters.shape}")
    sample = check_finite("sample", sample, ("features",))
    begin = np.zeros(model.num_states) if start is None else check_finite("start", start, ("states",))
    weights, _, _ = model.split(parameters.astype(model.dtype))
    problem = model.evaluator.bind(weights).map(model.prepare(sample[None]))

    equilibrium = _equilibrium(problem, begin[None], 1e-10 if model.dtype == "float64" else 1e-5)
    paths = {name: _path(problem, solver, begin[None]) for name, solver in solvers.items()}
    centre = equilibrium[[first, second]]
    if radius is None:
        window = _window([path[:, [first, second]] for path, _ in paths.values()], centre)
    else:
        window = np.stack([centre - radius, centre + radius], axis=1)
    figure, axes = own_or_given(axes, 5.4, 5.0)
    _draw_residual(figure, axes, problem, equilibrium, (first, second), window, resolution)
    for index, (name, (path, solution)) in enumerate(paths.items()):
        _draw_path(axes, path[:, [first, second]], name, solution, index, len(paths))
    axes.plot(*begin[[first, second]], "s", color=BLACK, markersize=8, fillstyle="none", label="start")
    axes.plot(*centre, "o", color=BLACK, markersize=9, fillstyle="none", label="q*")
    axes.set(xlim=window[0], ylim=window[1], aspect="equal")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    label(axes, "iterates of one sample", *axis_names((first, second)))
    legend(axes, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2, labelspacing=0.4)
    return figure


def _check_solvers(solvers: Any) -> Mapping[str, Solver]:
    if solvers is None:
        return {"picard": Picard(), "newton": Newton()}
    if not isinstance(solvers, Mapping) or not solvers:
        raise InputError(f"solvers must be a mapping name -> solver, not empty, got {solvers!r}")
    for name, solver in solvers.items():
        if not isinstance(solver, Solver):
            raise InputError(f"solvers[{name!r}] must be a Solver, got {solver!r}; solver(name, ...) makes one")
    return solvers


def _equilibrium(problem: EquilibriumMap, start: Array, tol: float) -> Array:
    found = solve(problem, Newton(tol=tol), start, on_failure="accept")
    if not found.converged[0]:
        raise ConvergenceError(
            f"Newton found no equilibrium of the sample from this start, residual {found.residual[0]:.2g} "
            f"({Status(int(found.status[0]))}): choose another start or sample"
        )
    state: Array = found.state[0]
    return state


class _Recorder:
    """An `EquilibriumMap` that keeps every state it is asked about; only batches of one sample."""

    def __init__(self, problem: EquilibriumMap) -> None:
        self.problem = problem
        self.batch, self.num_states = problem.batch, problem.num_states
        self.asked: list[tuple[Array, float]] = []

    def _keep(self, state: Array, values: Array) -> None:
        self.asked.append((state[0].copy(), float(np.linalg.norm(values - state, axis=1)[0])))

    def values(self, state: Array, rows: Array) -> Evaluation:
        evaluation = self.problem.values(state, rows)
        self._keep(state, evaluation.values)
        return evaluation

    def linearize(self, state: Array, rows: Array) -> tuple[Evaluation, Array]:
        evaluation, jacobian = self.problem.linearize(state, rows)
        self._keep(state, evaluation.values)
        return evaluation, jacobian

    def at(self, state: Array) -> EvaluationPoint:
        return self.problem.at(state)

    def pull_back(self, terms: Sequence[Cotangent]) -> Array:
        return self.problem.pull_back(terms)


def _path(problem: EquilibriumMap, solver: Solver, start: Array) -> tuple[Array, Solution]:
    """Iterates (S + 1, K) of a solver: the states it asked for, without the trial steps it gave up."""
    recorder = _Recorder(problem)
    solution = solve(recorder, solver, start, on_failure="accept")
    asked = iter(recorder.asked)
    iterates = []
    for residual in solution.trace[0]:
        # a rejected trial has another residual than the step that was taken
        state = next((state for state, norm in asked if math.isclose(norm, residual, rel_tol=1e-12)), None)
        if state is not None:
            iterates.append(state)
    return np.array(iterates), solution


def _window(paths: list[Array], equilibrium: Array) -> Array:
    """A square around q* and the iterates, ((x0, x1), (y0, y1))."""
    # expectation values stay within ±1: steps far outside would only shrink the rest
    points = np.vstack([*paths, equilibrium[None]])
    points = points[np.isfinite(points).all(axis=1)].clip(-1.2, 1.2)
    low, high = points.min(axis=0), points.max(axis=0)
    half = max(float((high - low).max()) / 2, 0.02) * 1.25
    middle = (low + high) / 2
    return np.stack([middle - half, middle + half], axis=1)


def _draw_residual(
    figure: Figure,
    axes: Axes,
    problem: EquilibriumMap,
    equilibrium: Array,
    states: tuple[int, int],
    window: Array,
    resolution: int,
) -> None:
    x, y = (np.linspace(low, high, resolution) for low, high in window)
    grid = plane_grid(equilibrium, states, x, y)
    residual = np.concatenate([_residuals(problem, grid[i : i + BATCH]) for i in range(0, len(grid), BATCH)])
    residual = np.ma.masked_invalid(residual).reshape(resolution, resolution)
    top = float(residual.max())
    # the residual is zero at q*: the scale ends where the grid no longer resolves the well
    bottom = max(float(residual.min()), top * 1e-2)
    levels = np.geomspace(bottom, top, 13)
    filled = axes.contourf(x, y, residual, levels, cmap="Greys", norm=LogNorm(bottom, top * 30), extend="min")
    bar = figure.colorbar(filled, ax=axes, shrink=0.9, ticks=LogLocator(subs=(1, 2, 5)), format="%.2g")
    bar.ax.tick_params(labelsize=SMALL)
    bar.set_label(RESIDUAL, fontsize=SMALL)


def _residuals(problem: EquilibriumMap, states: Array) -> Array:
    values = problem.values(states, np.zeros(len(states), dtype=np.int64)).values
    norms: Array = np.linalg.norm(values - states, axis=1)
    return norms


def _draw_path(axes: Axes, path: Array, name: str, solution: Solution, index: int, count: int) -> None:
    # solvers that start with the same step lie on one another: the first is drawn broadest
    width = 1.2 + 1.6 * (count - 1 - index) / max(count - 1, 1)
    ending = "" if solution.converged[0] else ", not converged"
    axes.plot(
        path[:, 0],
        path[:, 1],
        color=CYCLE[index % len(CYCLE)],
        linewidth=width,
        marker="o",
        markersize=width + 2,
        label=f"{name}: {solution.steps[0]} steps{ending}",
    )
