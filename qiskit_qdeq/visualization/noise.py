"""What noise does to a figure: accuracy, residual or any other, against the strength of noise or the number of shots."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from qiskit_qdeq.circuits._checks import check_reals
from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.visualization._figure import CYCLE, check_finite, label, legend, own_or_given

Array = np.ndarray[Any, np.dtype[Any]]

_MARKERS = "os^Dv<>"
#: Largest over smallest value from which an axis is logarithmic.
_LOG_FROM = 10.0
#: Strengths up to which a logarithmic axis names each of them.
_NAMED = 7
#: Largest over smallest value from which only the decades are named.
_MANY = 300.0


def plot_noise(
    strengths: Any,
    curves: Mapping[str, Any],
    *,
    figure: str = "accuracy",
    against: str = "noise strength",
    title: str = "",
    axes: Axes | None = None,
) -> Figure:
    """Draw a figure of one or more models against the strength of noise, or against shots.

    Points are means over repetitions (seeds, draws of shots), the band around them is one standard deviation to either side.
    An axis whose values are all positive and differ by more than a factor of 10 is logarithmic; on it a band ends at the
    smallest repetition.

    Args:
        strengths: rates, shots or what else is varied, rising (N,).
        curves: name of a model -> its figure at every strength (N,), or of R repetitions (N, R).
        figure: what the values are, with their unit: the vertical axis.
        against: what `strengths` are: the horizontal axis.
        title: of the panel.
        axes: to draw into instead of a new figure.

    Raises:
        InputError: if there is no curve, one does not fit `strengths`, or a value is not finite.

    >>> import numpy as np
    >>> rates, right = [0.0, 0.01, 0.02], np.array([[97, 96], [94, 93], [88, 91]])
    >>> shown = plot_noise(rates, {"trained without noise": right}, figure="samples right (%)").axes[0]
    >>> shown.lines[0].get_ydata().tolist()
    [96.5, 93.5, 89.5]
    """
    strengths = check_finite("strengths", strengths, ("strengths",))
    if (np.diff(strengths) <= 0).any():
        raise InputError(f"strengths must rise, got {strengths.tolist()}")
    if not isinstance(curves, Mapping) or not curves:
        raise InputError(f"curves must be a mapping name -> values, not empty, got {curves!r}")
    checked = {name: _repetitions(f"curves[{name!r}]", values, len(strengths)) for name, values in curves.items()}
    drawn, axes = own_or_given(axes, 4.6, 3.2)
    if _is_wide(strengths):
        axes.set_xscale("log")
        if len(strengths) <= _NAMED:
            axes.set_xticks(strengths, [f"{value:,.6g}" for value in strengths])
            axes.minorticks_off()
    logarithmic = _is_wide(np.concatenate([values.ravel() for values in checked.values()]))
    if logarithmic:
        axes.set_yscale("log")
    for index, (name, values) in enumerate(checked.items()):
        color, middle = CYCLE[index % len(CYCLE)], values.mean(axis=1)
        if values.shape[1] > 1:
            spread = values.std(axis=1, ddof=1)
            low = np.maximum(middle - spread, values.min(axis=1)) if logarithmic else middle - spread
            axes.fill_between(strengths, low, middle + spread, color=color, alpha=0.2, linewidth=0, zorder=1)
        marker = _MARKERS[index % len(_MARKERS)]
        axes.plot(strengths, middle, color=color, marker=marker, markersize=4, linewidth=1.3, label=str(name), zorder=2)
    if logarithmic:
        _name_decades(axes)
    label(axes, title, against, figure)
    if len(checked) > 1:
        legend(axes)
    return drawn


def _repetitions(name: str, values: Any, count: int) -> Array:
    """Values (N, R), R = 1 where there are none."""
    array = check_reals(name, values)
    array = check_finite(name, array, ("strengths", "repetitions") if array.ndim == 2 else ("strengths",))
    if len(array) != count:
        raise InputError(f"{name} must have one row per strength, {count}, got shape {array.shape}")
    return array.reshape(count, -1)


def _name_decades(axes: Axes) -> None:
    """Plain numbers at 1, 2 and 5 of every decade, at 1 where there are many."""
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < _MANY * low else (1,)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())


def _is_wide(values: Array) -> bool:
    return bool(values.min() > 0 and values.max() > _LOG_FROM * values.min())
