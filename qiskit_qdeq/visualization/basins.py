"""Which equilibrium of one sample is reached from where: basins of attraction in a plane through state space.

    q_0 -> lim q_k,   q_{k+1} = q_k + δ(q_k),   for q_0 on a grid in two entries, all others fixed.

Plain iteration settles at equilibria with ρ(J) < 1 only; those with ρ(J) > 1 lie on the borders of basins.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from qiskit_qdeq.circuits._checks import check_count, check_reals
from qiskit_qdeq.equilibrium.broyden import Samples
from qiskit_qdeq.equilibrium.contraction import DISTINCT
from qiskit_qdeq.equilibrium.driver import solve
from qiskit_qdeq.equilibrium.solvers import Newton, Solver
from qiskit_qdeq.equilibrium.solvers import solver as make_solver
from qiskit_qdeq.evaluation.protocol import EquilibriumMap
from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.visualization._figure import BLACK, CYCLE, GREY, SMALL, check_finite, label, legend, own_or_given
from qiskit_qdeq.visualization._plane import BATCH, axis_names, check_states, plane_grid

Array = np.ndarray[Any, np.dtype[Any]]

#: Shades of black would be those of starts that reach no equilibrium.
_COLORS = CYCLE[:-1]
#: Newton looks for equilibria that the solver does not reach from this many starts.
_SEARCHED = 100
#: Equilibria named in the legend.
_NAMED = 8
#: How much of its colour a basin has where the fewest steps are taken.
_PALE = 0.3


def plot_basins(
    problem: EquilibriumMap,
    sample: int = 0,
    *,
    solver: Solver | str = "picard",
    states: tuple[int, int] = (0, 1),
    through: Array | None = None,
    extent: Sequence[float] = (-1.0, 1.0, -1.0, 1.0),
    resolution: int = 81,
    axes: Axes | None = None,
) -> Figure:
    """Draw to which equilibrium of one sample a solver goes from every start on a plane.

    A colour is an equilibrium, darker where more steps are taken; grey starts reach none. Circles are equilibria
    the solver reaches, crosses others that Newton finds, both with ρ(J), all projected onto the plane.

    Args:
        problem: an exact map, as `model.map(weights, inputs)` gives; every start is a solve of its own.
        sample: row of the batch.
        solver: name or object; plain iteration by default.
        states: the two states i != j that span the plane.
        through: a state (K,) of the plane, from which all starts take their other entries; zeros if None.
        extent: (left, right, bottom, top) of the starts.
        resolution: starts per axis.
        axes: to draw into instead of a new figure.

    Raises:
        InputError: for a sample or state that does not exist, a wrong shape or extent, or a map that measures circuits.
    """
    if not hasattr(problem, "linearize"):
        raise InputError(f"problem must be a map, as model.map(weights, inputs) gives, got {type(problem).__name__}")
    sample = check_count("sample", sample, minimum=0)
    if sample >= problem.batch:
        raise InputError(f"sample must be in 0..{problem.batch - 1}, got {sample}")
    spanning = check_states(states, problem.num_states)
    resolution = check_count("resolution", resolution, minimum=8)
    left, right, bottom, top = _check_extent(extent)
    middle = np.zeros(problem.num_states) if through is None else check_finite("through", through, ("states",))
    if middle.shape != (problem.num_states,):
        raise InputError(f"through must have shape ({problem.num_states},), got {middle.shape}")
    chosen = make_solver(solver)
    if problem.values(middle[None], np.array([sample])).cost.circuits:
        raise InputError("problem measures circuits, and every start would be a solve: take the map of the exact model")

    cells = (np.arange(resolution) + 0.5) / resolution
    starts = plane_grid(middle, spanning, left + (right - left) * cells, bottom + (top - bottom) * cells)
    ends, steps, reached = _solve_from(problem, sample, starts, chosen)
    equilibria = _equilibria(problem, sample, starts, ends[reached], chosen.tol)
    # from left to right, so that pictures of several solvers agree in their colours
    equilibria = equilibria[np.lexsort(equilibria[:, spanning[::-1]].round(6).T)]
    owner = np.where(reached, _nearest(ends, equilibria), -1)
    share = np.bincount(owner[reached], minlength=len(equilibria)) / len(starts)
    figure, axes = own_or_given(axes, 5.6, 5.2)
    _draw_basins(figure, axes, owner, steps, resolution, (left, right, bottom, top))
    _draw_equilibria(axes, equilibria[:, spanning], _spectral_radii(problem, sample, equilibria), share)
    if not reached.all():
        axes.plot([], [], "s", color=GREY, label=f"no equilibrium reached: {100 * np.mean(~reached):.0f} % of starts")
    axes.set(xlim=(left, right), ylim=(bottom, top))
    axes.xaxis.set_major_locator(MaxNLocator(5))
    label(axes, f"where {chosen.name} ends, by start, for one sample", *axis_names(spanning))
    legend(axes, loc="upper center", bbox_to_anchor=(0.5, -0.12), labelspacing=0.4)
    return figure


def _check_extent(extent: Any) -> tuple[float, float, float, float]:
    values = check_reals("extent", extent)
    if values.shape != (4,) or not np.isfinite(values).all() or values[0] >= values[1] or values[2] >= values[3]:
        raise InputError(f"extent must be (left, right, bottom, top), left < right and bottom < top, got {extent!r}")
    left, right, bottom, top = (float(value) for value in values)
    return left, right, bottom, top


def _solve_from(problem: Any, sample: int, starts: Array, solver: Solver) -> tuple[Array, Array, Array]:
    """Last states (N, K), steps (N,) and convergence (N,) of one sample from N starts."""
    found = []
    for first in range(0, len(starts), BATCH):
        part = starts[first : first + BATCH]
        copies = Samples(problem, np.full(len(part), sample))
        found.append(solve(copies, solver, part, on_failure="accept", keep_trace=False))
    return (
        np.concatenate([solution.state for solution in found]),
        np.concatenate([solution.steps for solution in found]),
        np.concatenate([solution.converged for solution in found]),
    )


def _equilibria(problem: Any, sample: int, starts: Array, ends: Array, tol: float) -> Array:
    """All equilibria known (E, K): what the solver reached, and what Newton finds from some of the starts."""
    some = starts[:: max(1, len(starts) // _SEARCHED)]
    others, _, found = _solve_from(problem, sample, some, Newton(tol=tol))
    candidates = _distinct(np.concatenate([ends, others[found]]))
    if not len(candidates):
        return candidates
    # where convergence is slow a residual of `tol` is still far from the equilibrium
    polished, _, _ = _solve_from(problem, sample, candidates, Newton(tol=min(tol, 1e-12), rescue_steps=0))
    return _distinct(polished)


def _distinct(states: Array) -> Array:
    kept = []
    while len(states):
        kept.append(states[0])
        states = states[np.linalg.norm(states - states[0], axis=1) > DISTINCT]
    return np.array(kept).reshape(len(kept), states.shape[1])


def _nearest(ends: Array, equilibria: Array) -> Array:
    if not len(equilibria):
        return np.full(len(ends), -1)
    best: Array = np.argmin([np.linalg.norm(ends - state, axis=1) for state in equilibria], axis=0)
    return best


def _spectral_radii(problem: EquilibriumMap, sample: int, equilibria: Array) -> Array:
    if not len(equilibria):
        return np.zeros(0)
    _, jacobian = problem.linearize(equilibria, np.full(len(equilibria), sample))
    radii: Array = np.abs(np.linalg.eigvals(jacobian)).max(axis=1)
    return radii


def _draw_basins(
    figure: Figure,
    axes: Axes,
    owner: Array,
    steps: Array,
    resolution: int,
    extent: tuple[float, float, float, float],
) -> None:
    colors = np.array([to_rgb(color) for color in _COLORS])
    known = owner >= 0
    # a few starts beside a border take very long: they would leave no shades to the others
    low, high = np.percentile(steps[known], (1, 99)) if known.any() else (0, 1)
    norm = Normalize(low, max(high, low + 1), clip=True)
    depth = _PALE + (1 - _PALE) * np.asarray(norm(steps))[:, None]
    pixels = np.where(known[:, None], 1 - depth + depth * colors[owner % len(colors)], to_rgb(GREY))
    axes.imshow(pixels.reshape(resolution, resolution, 3), origin="lower", extent=extent, aspect="equal")
    if not known.any():
        return
    shades = LinearSegmentedColormap.from_list("steps", [(1 - _PALE,) * 3, (0.15,) * 3])
    ticks = MaxNLocator(6, integer=True)
    bar = figure.colorbar(ScalarMappable(norm, shades), ax=axes, shrink=0.9, extend="both", ticks=ticks)
    bar.ax.tick_params(labelsize=SMALL)
    bar.set_label("solver steps", fontsize=SMALL)


def _draw_equilibria(axes: Axes, points: Array, radius: Array, share: Array) -> None:
    for place, index in enumerate(np.argsort(-share, kind="stable")):
        if share[index]:
            look: dict[str, Any] = {"marker": "o", "markerfacecolor": _COLORS[index % len(_COLORS)]}
            name = f"q*: from {100 * share[index]:.0f} % of starts, ρ(J) = {radius[index]:.2f}"
        else:
            look = {"marker": "X", "markerfacecolor": BLACK}
            name = f"q*: from no start, ρ(J) = {radius[index]:.2f}"
        if place >= _NAMED:
            name = f"and {len(points) - _NAMED} more" if place == _NAMED else ""
        # a white rim stands out from every basin
        axes.plot(
            *points[index], linestyle="", markersize=9, markeredgecolor="white", markeredgewidth=1.4, label=name, **look
        )
