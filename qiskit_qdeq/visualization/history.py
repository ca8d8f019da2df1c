"""Learning curves of a run, one panel per kind of quantity, from the history records of the `Trainer`."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.visualization._figure import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    SMALL,
    TEXT,
    VERMILLION,
    WIDTH,
    label,
    legend,
    new_figure,
)

Array = np.ndarray[Any, np.dtype[Any]]
Curves = dict[str, Array]

REQUIRED = ("epoch", "loss")
OPTIONAL = (
    "accuracy",
    "valid_loss",
    "valid_accuracy",
    "penalty",
    "residual",
    "max_residual",
    "valid_residual",
    "solver_steps",
    "unconverged",
    "spectral_radius",
    "gradient_norm",
)
#: Infinite where no equilibrium was found: a gap in the curve, not a wrong record.
_GAPS = frozenset({"valid_residual"})


def plot_history(history: Sequence[Mapping[str, float]], *, best_epoch: int | None = None) -> Figure:
    """Draw the learning curves of a run against its epochs.

    Panels: loss (nats; of a regressor the squared error) and a classifier's accuracy (%) in training and
    validation; residual ‖m(q) - q‖₂, mean and largest;
    solver steps per sample and the share of samples that did not converge; spectral radius of ∂m/∂q at the
    equilibrium; norm of the gradient. Panels of which the history knows nothing are left out: DIRECT runs
    have no residual and no solver. Epochs of a direct warm-up are gaps in those two.

    Args:
        history: one record per epoch, as in `TrainingResult.history`.
        best_epoch: marked by a vertical line, as in `TrainingResult.best_epoch`; None or -1 for none.

    Raises:
        InputError: if there is no record, a record lacks a quantity or has one that is not a finite number,
            or `best_epoch` is not among the epochs.

    >>> figure = plot_history([{"epoch": 1, "loss": 1.2, "accuracy": 0.5}])
    >>> [axes.get_title() for axes in figure.axes]
    ['loss', 'accuracy']
    """
    curves = _curves(history)
    epochs = curves["epoch"]
    if best_epoch is not None and best_epoch != -1 and best_epoch not in epochs:
        raise InputError(f"best_epoch must be among the epochs {epochs[0]:.0f} to {epochs[-1]:.0f}, got {best_epoch!r}")
    panels = _panels(curves)
    columns = 3 if len(panels) > 4 else 2 if len(panels) in (2, 4) else len(panels)
    rows = math.ceil(len(panels) / columns)
    figure = new_figure(WIDTH, 2.15 * rows + 0.2)
    for position, draw in enumerate(panels):
        axes = figure.add_subplot(rows, columns, position + 1)
        draw(axes, curves)
        # the same epochs in every panel, although some quantities begin after the warm-up
        axes.set_xlim(*_span(epochs))
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
        if position + columns < len(panels):
            axes.set_xlabel("")
        if best_epoch is not None and best_epoch != -1:
            axes.axvline(best_epoch, color=GREY, linewidth=0.8, linestyle=":", zorder=0)
    return figure


def _span(epochs: Array) -> tuple[float, float]:
    margin = max(0.04 * float(epochs[-1] - epochs[0]), 0.5)
    return float(epochs[0]) - margin, float(epochs[-1]) + margin


def _curves(history: Sequence[Mapping[str, float]]) -> Curves:
    """One array (E,) per quantity the records have."""
    if isinstance(history, Mapping) or not isinstance(history, Sequence):
        raise InputError(f"history must be a list of records, one per epoch, got {type(history).__name__}")
    if not history:
        raise InputError("history is empty: train for at least one epoch")
    for index, record in enumerate(history):
        if not isinstance(record, Mapping):
            raise InputError(f"history[{index}] must be a record {{name: value}}, got {record!r}")
    known = [name for name in (*REQUIRED, *OPTIONAL) if name in REQUIRED or name in history[0]]
    curves = {name: np.array([_value(history, i, name) for i in range(len(history))]) for name in known}
    if (np.diff(curves["epoch"]) <= 0).any():
        raise InputError("history must have rising epochs: is it two runs joined?")
    _blank_direct_epochs(curves)
    return curves


def _value(history: Sequence[Mapping[str, float]], index: int, name: str) -> float:
    if name not in history[index]:
        raise InputError(f"history[{index}] has no {name!r}; it has {sorted(history[index])}")
    value = history[index][name]
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise InputError(f"history[{index}][{name!r}] must be a number, got {value!r}")
    if not math.isfinite(value):
        if name in _GAPS:
            return math.nan
        raise InputError(f"history[{index}][{name!r}] must be finite, got {value!r}")
    return float(value)


def _blank_direct_epochs(curves: Curves) -> None:
    """Epochs of explicit layers are booked with zero residual and zero steps: nothing was solved there."""
    names = [name for name in ("residual", "max_residual", "solver_steps") if name in curves]
    if not names:
        return
    direct = np.all([curves[name] == 0 for name in names], axis=0)
    for name in (*names, "valid_residual", "unconverged"):
        if name in curves:
            curves[name][direct] = np.nan


def _panels(curves: Curves) -> list[Callable[[Axes, Curves], None]]:
    def known(name: str) -> bool:
        return name in curves and not np.isnan(curves[name]).all()

    panels: list[Callable[[Axes, Curves], None]] = [_loss]
    if known("accuracy"):
        panels.append(_accuracy)
    if known("residual"):
        panels.append(_residual)
    if known("solver_steps"):
        panels.append(_solver)
    if known("spectral_radius"):
        panels.append(_spectral_radius)
    if known("gradient_norm"):
        panels.append(_gradient)
    return panels


def _line(axes: Axes, curves: Curves, values: Array, name: str, color: str, style: str = "-") -> None:
    known = np.isfinite(values)
    # a point between gaps has no line through it
    alone = known & ~np.append(False, known[:-1]) & ~np.append(known[1:], False)
    marked = known if len(values) <= 20 else alone
    axes.plot(
        curves["epoch"],
        values,
        color=color,
        linestyle=style,
        linewidth=1.3 if len(values) <= 300 else 0.7,
        marker="o" if marked.any() else None,
        markersize=3,
        markevery=marked,
        label=name,
    )


def _from_zero(axes: Axes, room: float = 1.08) -> None:
    """The axis from zero to `room` times the highest value."""
    highest = max(float(np.nanmax(line.get_ydata())) for line in axes.lines)
    axes.set_ylim(0, room * highest or 1.0)


def _loss(axes: Axes, curves: Curves) -> None:
    _line(axes, curves, curves["loss"], "train", BLUE)
    if "valid_loss" in curves:
        _line(axes, curves, curves["valid_loss"], "valid", VERMILLION, "--")
    if "penalty" in curves and curves["penalty"].any():
        _line(axes, curves, curves["penalty"], "penalty", GREEN, "-.")
    # the legend stands above the curves
    _from_zero(axes, 1.35)
    # a regressor's targets are scaled to variance 1
    label(
        axes, "loss", "epoch", "cross-entropy (nats)" if "accuracy" in curves else "mean squared error (scaled targets)"
    )
    legend(axes, loc="upper right")


def _accuracy(axes: Axes, curves: Curves) -> None:
    _line(axes, curves, 100 * curves["accuracy"], "train", BLUE)
    if "valid_accuracy" in curves:
        _line(axes, curves, 100 * curves["valid_accuracy"], "valid", VERMILLION, "--")
    label(axes, "accuracy", "epoch", "samples right (%)")
    legend(axes, loc="lower right")


def _residual(axes: Axes, curves: Curves) -> None:
    for name, title, color, style in (
        ("max_residual", "train, largest", ORANGE, "-"),
        ("residual", "train, mean", BLUE, "-"),
        ("valid_residual", "valid, median", VERMILLION, "--"),
    ):
        if name in curves:
            # a residual of exactly zero has no place on a log axis
            _line(axes, curves, np.where(curves[name] > 0, curves[name], np.nan), title, color, style)
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    # room above the curves for the legend
    axes.set_ylim(low, high * (high / low) ** 0.4)
    label(axes, "residual", "epoch", "‖m(q) − q‖₂")
    legend(axes, loc="upper right")


def _solver(axes: Axes, curves: Curves) -> None:
    _line(axes, curves, curves["solver_steps"], "steps", BLUE)
    _from_zero(axes)
    lost = curves.get("unconverged")
    if lost is None:
        label(axes, "solver", "epoch", "steps per sample")
        return
    if not np.nansum(lost):
        label(axes, "solver (all converged)", "epoch", "steps per sample")
        return
    label(axes, "solver", "epoch", "steps per sample")
    axes.yaxis.label.set_color(BLUE)
    share = axes.twinx()
    _line(share, curves, 100 * lost, "unconverged", VERMILLION, "--")
    # below the steps, which would hide it
    _from_zero(share, 2)
    share.set_ylabel("unconverged (%)", fontsize=TEXT, color=VERMILLION)
    share.tick_params(labelsize=SMALL)


def _spectral_radius(axes: Axes, curves: Curves) -> None:
    _line(axes, curves, curves["spectral_radius"], "median", BLUE)
    axes.axhline(1, color=GREY, linewidth=0.8, linestyle="--", zorder=0)
    _from_zero(axes)
    label(axes, "spectral radius of ∂m/∂q", "epoch", "ρ, median over samples")


def _gradient(axes: Axes, curves: Curves) -> None:
    _line(axes, curves, curves["gradient_norm"], "mean", BLUE)
    _from_zero(axes)
    label(axes, "gradient", "epoch", "‖∂loss/∂parameters‖₂")
