"""Pictures of the scaling study: what was measured as points, fits as lines, what is extrapolated dashed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from qiskit_qdeq.studies.scaling.fits import Growth, mebibytes, work
from qiskit_qdeq.studies.scaling.points import ENCODINGS
from qiskit_qdeq.studies.scaling.report import TITLES
from qiskit_qdeq.visualization._figure import (
    BLACK,
    BLUE,
    CYCLE,
    GREEN,
    ORANGE,
    SKY,
    VERMILLION,
    WIDTH,
    label,
    legend_below,
    new_figure,
)

Row = Mapping[str, Any]

_COLORS = {
    ("amplitude", "equilibrium"): BLUE,
    ("amplitude", "direct"): SKY,
    ("angle", "equilibrium"): VERMILLION,
    ("angle", "direct"): ORANGE,
}
#: Points and lines in the order they are drawn: where curves agree, crosses stand in rings and thin lines on wide ones.
_LOOKS: dict[tuple[str, str], dict[str, Any]] = {
    ("amplitude", "equilibrium"): {"marker": "o", "ms": 6.5, "mfc": "none", "linewidth": 2.2},
    ("angle", "equilibrium"): {"marker": "s", "ms": 6.0, "mfc": "none", "linewidth": 2.0},
    ("amplitude", "direct"): {"marker": "x", "ms": 5.0, "linewidth": 1.3},
    ("angle", "direct"): {"marker": "+", "ms": 6.5, "linewidth": 0.7},
}
#: Qubits to which fits are drawn.
_DRAWN = 30
_NUMERIC = ("layers", "batch", "num_features", "num_states")


def draw_scaling(results: Mapping[str, Any]) -> Figure:
    """Time of a step, peak memory, circuits and QPU time of a step against qubits."""
    figure = new_figure(WIDTH, 5.4)
    panels = figure.subplots(2, 2)
    kinds = (("ms_per_step", "training step (ms)"), ("peak_mib", "peak memory (MiB)"))
    for axes, (column, text) in zip(panels[0], kinds, strict=True):
        for key in _LOOKS:
            _measured(axes, results, key, column)
        axes.plot([], [], "--", color=BLACK, linewidth=0.9, zorder=3, label="dashed: extrapolated by the fit")
        label(axes, "measured on this machine (points), fit (lines)", "qubits", text)
    devices = (("circuits", "circuits per training step"), ("qpu_seconds", "QPU seconds per training step"))
    for axes, (column, text) in zip(panels[1], devices, strict=True):
        for key, look in _LOOKS.items():
            rows = _of(results["device"], *key)
            n, values = ([row["num_qubits"] for row in rows], [row["step"][column] for row in rows])
            axes.plot(n, values, color=_COLORS[key], label=", ".join(key), **look)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        label(axes, f"computed for {results['backend']} (points)", "qubits", text)
    for axes in panels.flat:
        axes.set_yscale("log")
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.grid(alpha=0.3, linewidth=0.5)
    legend_below(figure)
    return figure


def _of(rows: Sequence[Row], encoding: str, mode: str, axis: str = "num_qubits") -> list[Row]:
    key = (axis, encoding, mode)
    return [row for row in rows if (row["axis"], row["encoding"], row["mode"]) == key and not row["refused"]]


def _measured(axes: Axes, results: Mapping[str, Any], key: tuple[str, str], column: str) -> None:
    rows = [row for row in _of(results["timing"], *key) if row[column] is not None]
    n = [row["num_qubits"] for row in rows]
    color, look = _COLORS[key], _LOOKS[key]
    axes.plot(n, [row[column] for row in rows], color=color, **look, linestyle="none")
    fit = next(row[column] for row in results["growth"] if (row["encoding"], row["mode"]) == key)
    if fit is None:
        return
    basis = work if column == "ms_per_step" else mebibytes(key[0])
    growth = Growth(**fit)
    for low, high, style in ((min(n), max(n), "-"), (max(n), _DRAWN, "--")):
        grid = np.linspace(low, high, 100)
        fitted = [growth(entry, basis) for entry in grid]
        axes.plot(grid, fitted, color=color, linestyle=style, linewidth=look["linewidth"])


def draw_axes(results: Mapping[str, Any]) -> Figure | None:
    """Time of a step against each other axis of numbers."""
    names = [axis for axis in _NUMERIC if any(row["axis"] == axis for row in results["timing"])]
    if not names:
        return None
    figure = new_figure(WIDTH, 2.6 * -(-len(names) // 2) + 0.3)
    panels = figure.subplots(-(-len(names) // 2), 2, squeeze=False)
    for axes in panels.flat[len(names) :]:
        axes.set_visible(False)
    for axes, axis in zip(panels.flat, names, strict=False):
        for (encoding, mode), color in _COLORS.items():
            rows = _of(results["timing"], encoding, mode, axis)
            axes.plot(
                [row["value"] for row in rows],
                [row["ms_per_step"] for row in rows],
                "o-",
                color=color,
                ms=3.5,
                linewidth=0.9,
                label=f"{encoding}, {mode}",
            )
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.grid(alpha=0.3, linewidth=0.5)
        label(axes, "10 qubits", TITLES[axis], "training step (ms)")
    legend_below(figure)
    return figure


def draw_variance(results: Mapping[str, Any]) -> Figure:
    """Variance of the gradient against qubits, a colour per depth: equilibrium solid, direct-1 dashed."""
    quantities = (
        ("local", "weight", "Z of wire 0"),
        ("global", "weight", "Z on all wires"),
        ("loss", "mean", "loss, mean over weights"),
    )
    rows = [row for row in results["variance"] if row["state_scale"] == 0.5 and row["ansatz"] == "hardware_efficient"]
    depths = sorted({row["layers"] for row in rows})
    figure = new_figure(WIDTH, 5.2)
    panels = figure.subplots(2, 3, sharex=True)
    for line, encoding in zip(panels, ENCODINGS, strict=True):
        for axes, (quantity, which, text) in zip(line, quantities, strict=True):
            for layers, color in zip(depths, (*CYCLE, GREEN), strict=False):
                for method, style in (("equilibrium", "o-"), ("direct-1", "x--")):
                    key = (encoding, layers, method, quantity)
                    chosen = [r for r in rows if (r["encoding"], r["layers"], r["method"], r["quantity"]) == key]
                    axes.errorbar(
                        [row["num_qubits"] for row in chosen],
                        [row[which] for row in chosen],
                        [row[f"{which}_error"] for row in chosen],
                        fmt=style,
                        color=color,
                        ms=3.5,
                        linewidth=0.9,
                    )
                axes.plot([], [], "o-", color=color, ms=3.5, linewidth=0.9, label=f"{layers} layer{'s' * (layers > 1)}")
            axes.plot([], [], "o-", color=BLACK, ms=3.5, linewidth=0.9, label="equilibrium")
            axes.plot([], [], "x--", color=BLACK, ms=3.5, linewidth=0.9, label="direct-1")
            axes.set_yscale("log")
            axes.yaxis.set_minor_formatter(NullFormatter())
            axes.grid(alpha=0.3, linewidth=0.5)
            label(axes, f"{encoding}\n{text}", "qubits", "variance of the gradient" if axes is line[0] else "")
    legend_below(figure)
    return figure


def all_figures(results: Mapping[str, Any]) -> dict[str, Figure]:
    """Every figure by its file's name."""
    found = {"scaling": draw_scaling(results), "axes": draw_axes(results), "variance": draw_variance(results)}
    return {name: figure for name, figure in found.items() if figure is not None}
