"""Accuracy of all rows of the paper's tables with their seeds, and what the rows cost."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from qiskit_qdeq.studies.paper_report import Figures, row_name
from qiskit_qdeq.studies.paper_rows import TABLES
from qiskit_qdeq.visualization._figure import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    PURPLE,
    SMALL,
    VERMILLION,
    WIDTH,
    label,
    legend_below,
    new_figure,
)

_COLORS = {"paper": BLUE, "default": VERMILLION, "ablation": PURPLE, "baseline": GREY, "control": GREEN}
_LEGEND = {
    "paper": "authors' model",
    "default": "default preset",
    "ablation": "from one to the other",
    "baseline": "baselines",
    "control": "classical, same pixels",
}
_MARKERS = {
    "IMPLICIT": "*",
    "IMPLICIT+WARMUP": "P",
    "DIRECT-1": "o",
    "DIRECT-2": "D",
    "DIRECT-5": "^",
    "DIRECT-10": "v",
}
_ROW_HEIGHT = 0.17


def draw_accuracy(rows: Sequence[Figures], groups: Sequence[str]) -> Figure | None:
    """A panel per table: mean test accuracy of every row, a dot per seed, the paper's best as a dashed line.

    Args:
        rows: what `figures_of` returned.
        groups: which groups of rows; those of other groups are left out.
    """
    tables = {name: [row for row in rows if row["table"] == name and row["group"] in groups] for name in TABLES}
    tables = {name: members for name, members in tables.items() if members}
    if not tables:
        return None
    heights = [len(members) + 4 for members in tables.values()]
    figure = new_figure(WIDTH, _ROW_HEIGHT * sum(heights) + 0.5)
    panels = np.atleast_1d(figure.subplots(len(tables), 1, height_ratios=heights))
    for axes, (name, members) in zip(panels, tables.items(), strict=True):
        _draw_rows(axes, members)
        label(axes, TABLES[name].title, "test accuracy (%)", "")
    legend_below(figure)
    return figure


def _draw_rows(axes: Axes, rows: Sequence[Figures]) -> None:
    for at, row in enumerate(rows):
        color = _COLORS[row["group"]]
        seeds = 100 * np.asarray(row["test_accuracy"])
        axes.plot(seeds, np.full(len(seeds), at), ".", color=color, markersize=3, alpha=0.5)
        axes.plot([100 * row["mean"]], [at], "D", color=color, markersize=4, label=_LEGEND[row["group"]])
        if row["published"] is not None:
            axes.plot([100 * row["published"]], [at], "x", color=BLACK, markersize=4, label="published")
    best = next((row["best"] for row in rows if row.get("best") is not None), None)
    if best is not None:
        axes.axvline(100 * best, color=BLACK, linewidth=1, linestyle="--", label="paper's best")
    axes.set_yticks(range(len(rows)), [row_name(row) for row in rows], fontsize=SMALL)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(axis="x", color=GREY, alpha=0.3, linewidth=0.5)


def draw_cost(rows: Sequence[Figures]) -> Figure | None:
    """Per table: milliseconds of a training step and circuits that a device runs for a step, against accuracy.

    Amplitude encoding only: None if there are no such rows.
    """
    rows = [row for row in rows if row["train_circuits"] and row["group"] in ("paper", "default")]
    rows = [row for row in rows if row["encoding"] == "amplitude"]
    names = [name for name in TABLES if any(row["table"] == name for row in rows)]
    if not names:
        return None
    figure = new_figure(WIDTH, 2.4 * len(names) + 0.4)
    panels = np.atleast_2d(figure.subplots(len(names), 2))
    columns: tuple[tuple[str, str], ...] = (
        ("ms_per_step", "training step here (ms)"),
        ("train_circuits", "circuits per training step on a device"),
    )
    for line, name in zip(panels, names, strict=True):
        members = [row for row in rows if row["table"] == name]
        for axes, (column, text) in zip(line, columns, strict=True):
            _draw_costs(axes, members, column)
            label(axes, TABLES[name].title, text, "test accuracy (%)")
    shown = {row["name"] for row in rows}
    for group in ("paper", "default"):
        panels[0, 0].plot([], [], "s", color=_COLORS[group], label=_LEGEND[group])
    for name, marker in _MARKERS.items():
        if name in shown:
            panels[0, 0].plot([], [], marker, color=BLACK, label=name)
    legend_below(figure)
    return figure


def _draw_costs(axes: Axes, rows: Sequence[Figures], column: str) -> None:
    for row in rows:
        axes.plot([row[column]], [100 * row["mean"]], _MARKERS[row["name"]], color=_COLORS[row["group"]], markersize=6)
    axes.set_xscale("log")
    values = [row[column] for row in rows]
    if max(values) < 300 * min(values):
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(color=GREY, alpha=0.3, linewidth=0.5)
