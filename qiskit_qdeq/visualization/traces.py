"""How solvers approach the equilibrium: residual against solver steps, sample by sample."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from qiskit_qdeq.circuits._checks import check_count, check_reals
from qiskit_qdeq.equilibrium.solution import Solution, Status
from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.visualization._figure import (
    BLACK,
    BLUE,
    ORANGE,
    RESIDUAL,
    SKY,
    WIDTH,
    label,
    legend_below,
    new_figure,
)

Array = np.ndarray[Any, np.dtype[Any]]

#: Where a residual of exactly zero is drawn: a tenth of the rounding error of expectation values.
_FLOOR = 1e-17


def plot_residual_traces(solutions: Mapping[str, Solution], *, tol: float | None = None, samples: int = 40) -> Figure:
    """Draw ‖m(q) - q‖₂ after every solver step, on a log axis, one panel per solver.

    Thin lines are single samples, those that did not converge in another colour; the thick line is the median
    over *all* samples, in which a sample that stopped keeps its last residual.

    Args:
        solutions: name of a solver -> what it found; `trace` (B, S + 1), NaN after a sample stopped.
        tol: drawn as a horizontal line.
        samples: single samples drawn per panel, evenly spaced over the batch.

    Raises:
        InputError: if there is no solution, one has no trace, or `tol` or `samples` is not positive.
    """
    if not isinstance(solutions, Mapping) or not solutions:
        raise InputError(f"solutions must be a mapping name -> Solution, not empty, got {solutions!r}")
    samples = check_count("samples", samples, minimum=0)
    if tol is not None and not (isinstance(tol, int | float) and math.isfinite(tol) and tol > 0):
        raise InputError(f"tol must be a finite number > 0 or None, got {tol!r}")
    traces = {name: _trace(name, solution) for name, solution in solutions.items()}
    columns = min(3, len(traces)) if len(traces) != 4 else 2
    rows = math.ceil(len(traces) / columns)
    figure = new_figure(WIDTH, 2.5 * rows + 0.3)
    first: Axes | None = None
    for position, (name, trace) in enumerate(traces.items()):
        first = axes = figure.add_subplot(rows, columns, position + 1, sharey=first)
        _draw(axes, solutions[name], trace, samples)
        if tol is not None:
            axes.axhline(tol, color=BLACK, linewidth=0.9, linestyle="--", label="tolerance", zorder=5)
        label(axes, _title(name, solutions[name]), "solver steps", RESIDUAL if position % columns == 0 else "")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
        if position % columns:
            axes.tick_params(labelleft=False)
    legend_below(figure)
    return figure


def _trace(name: str, solution: Any) -> Array:
    if not isinstance(solution, Solution):
        raise InputError(f"solutions[{name!r}] must be a Solution, got {type(solution).__name__}")
    trace = check_reals(f"solutions[{name!r}].trace", solution.trace)
    if trace.ndim != 2 or not trace.size or len(trace) != len(solution.status):
        raise InputError(
            f"solutions[{name!r}].trace must have shape (samples, steps + 1) for {len(solution.status)} "
            f"samples, got {trace.shape}: take what `solve` returns with keep_trace=True"
        )
    if (trace < 0).any():
        raise InputError(f"solutions[{name!r}].trace has a negative residual")
    if not np.isfinite(trace).any():
        raise InputError(f"solutions[{name!r}].trace has no finite residual to draw")
    return trace


def _title(name: str, solution: Solution) -> str:
    return (
        f"{name}\n{np.count_nonzero(solution.converged)} of {len(solution.status)} converged\n"
        f"steps: median {np.median(solution.steps):.0f}, most {solution.steps.max():.0f}"
    )


def _draw(axes: Axes, solution: Solution, trace: Array, samples: int) -> None:
    drawn = np.where(np.isfinite(trace), np.maximum(trace, _FLOOR), np.nan)
    chosen = np.unique(np.linspace(0, len(trace) - 1, min(samples, len(trace))).astype(int))
    steps = np.arange(trace.shape[1])
    # a few steps, or a few samples, need more than hairlines
    look: dict[str, Any] = {"linewidth": 0.7 if len(chosen) > 5 else 1.4, "alpha": 0.7}
    if trace.shape[1] <= 20:
        look |= {"marker": ".", "markersize": 3}
    for converged, color, name, order in (
        (True, SKY, "sample", 2),
        (False, ORANGE, "sample, not converged", 3),
    ):
        for row in chosen[solution.converged[chosen] == converged]:
            axes.plot(steps, drawn[row], color=color, label=name, zorder=order, **look)
            name = ""
    # one sample is its own median, which must not hide it
    order = 4 if len(trace) > 1 else 1
    look = {"color": BLUE, "linewidth": 2.2, "marker": "o", "markersize": 2}
    axes.plot(steps, _median(drawn, solution), label="median", zorder=order, **look)
    axes.set_yscale("log")


def _median(trace: Array, solution: Solution) -> Array:
    """Median over all samples (S + 1,): a stopped one keeps its last residual, a lost one is infinite."""
    filled = trace.copy()
    lost = solution.status == Status.NOT_FINITE
    filled[np.isnan(filled[:, 0]), 0] = np.inf
    for step in range(1, filled.shape[1]):
        filled[:, step] = np.where(
            np.isnan(trace[:, step]), np.where(lost, np.inf, filled[:, step - 1]), trace[:, step]
        )
    middle: Array = np.median(filled, axis=0)
    return np.where(np.isfinite(middle), middle, np.nan)
