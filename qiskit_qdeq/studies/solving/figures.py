"""The solver study in pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import LogLocator, NullFormatter

from qiskit_qdeq.gradient.implicit import BACKWARD_MODES
from qiskit_qdeq.studies.solving.cells import SOLVERS
from qiskit_qdeq.studies.solving.equilibria import BINS
from qiskit_qdeq.studies.solving.plan import REFERENCE, WEIGHTS
from qiskit_qdeq.studies.solving.rows import Row, able, chosen, models
from qiskit_qdeq.training.config import STARTS
from qiskit_qdeq.visualization._figure import BLACK, CYCLE, GREY, SMALL, WIDTH, label, legend, legend_below, new_figure

_COLORS = dict(zip(SOLVERS, (*CYCLE, GREY), strict=True))
_MARKS = dict(zip(SOLVERS, "os^Dv<>P", strict=True))
#: Where lines meet, small points stand in large hollow ones.
_MODE_LOOKS: dict[str, dict[str, Any]] = {
    mode: {"color": color, "marker": mark, "ms": size, "mfc": "none", "linewidth": 0.9}
    for mode, color, mark, size in zip(BACKWARD_MODES, CYCLE, "osD^v<>", (7, 5, 3.5, 5, 5, 5, 5), strict=True)
}
#: Relative distance of lines that cannot be told apart in a picture.
_SAME = 0.01


def figures(rows: Mapping[str, Sequence[Row]]) -> dict[str, Figure]:
    """Name -> picture."""
    return {
        "starts": starts(rows["solves"]),
        "errors": errors(rows["solves"], rows["gradients"]),
        "errors-shots": errors_from_shots(rows["shots"], rows["shot gradients"]),
        "backward": backward(rows["trainings"], rows["shot trainings"]),
        "radius": radius(rows["maps"]),
        "equilibria": equilibria(rows["maps"]),
    }


def starts(rows: Sequence[Row]) -> Figure:
    """Steps and circuits of a solve, per solver and start, at trained weights and tolerance 1e-6."""
    names = models(rows)
    figure = new_figure(WIDTH, 4.4)
    panels = figure.subplots(2, len(names), sharex=True, sharey="row", squeeze=False)
    places = np.arange(len(SOLVERS))
    for column, model in enumerate(names):
        for axes, what, title in zip(panels[:, column], ("steps", "circuits"), (_name(model), ""), strict=True):
            for position, (start, color) in enumerate(zip(STARTS, CYCLE, strict=False)):
                found = _own(rows, model, weights="trained", start=start, tol=1e-6)
                height = {row["solver"]: row[what] for row in found}
                where = [
                    place + 0.18 * (position - 1.5)
                    for place, name in zip(places, SOLVERS, strict=True)
                    if name in height
                ]
                axes.plot(
                    where, [height[name] for name in SOLVERS if name in height], "o", color=color, ms=3.5, label=start
                )
            axes.set_yscale("log")
            _plain(axes)
            axes.grid(axis="y", which="both", linewidth=0.3, alpha=0.5)
            label(axes, title, "", ("steps" if what == "steps" else "circuits a sample") if column == 0 else "")
            axes.set_xticks(places, SOLVERS, rotation=70, fontsize=SMALL)
    legend_below(figure)
    return figure


def errors(rows: Sequence[Row], gradients: Sequence[Row]) -> Figure:
    """Error of z* and of the gradient against circuits of the solve, a point per tolerance, from zeros."""
    names = models(rows)
    figure = new_figure(WIDTH, 4.6)
    panels = figure.subplots(2, len(names), sharex=True, sharey="row", squeeze=False)
    for column, model in enumerate(names):
        for name in SOLVERS:
            solved = _own(rows, model, weights="trained", solver=name, start="zeros")
            circuits = [row["circuits"] for row in solved]
            slopes = _own(gradients, model, weights="trained", solver=name, start="zeros", backward="exact")
            error = {row["tol"]: row["error"] for row in slopes}
            _points(panels[0, column], circuits, [row["error"] for row in solved], name)
            _points(panels[1, column], circuits, [error.get(row["tol"]) for row in solved], name)
        for mode, style in (("neumann", "--"), ("shine", "-."), ("jfb", ":")):
            floor = _own(gradients, model, weights="trained", solver=REFERENCE, start="zeros", backward=mode)
            if floor:
                tight = min(floor, key=lambda row: row["tol"])["error"]
                panels[1, column].axhline(tight, color=BLACK, linewidth=0.8, linestyle=style, label=f"best of {mode}")
        label(panels[0, column], _name(model), "", "error of z*, median" if column == 0 else "")
        label(panels[1, column], "", "circuits a sample", "rel. error of gradient" if column == 0 else "")
        for axes in panels[:, column]:
            axes.set(xscale="log", yscale="log")
    legend_below(figure)
    return figure


def errors_from_shots(rows: Sequence[Row], gradients: Sequence[Row]) -> Figure:
    """The same from shots: error of z* against the shots of a solve, and of the gradient against shots a circuit."""
    names = models(rows)
    figure = new_figure(WIDTH, 7.2)
    top, bottom = figure.subfigures(2, 1, squeeze=False, height_ratios=(1, 1.7))[:, 0]
    panels = top.subplots(1, len(names), sharex=True, sharey=True, squeeze=False)[0]
    for axes, model in zip(panels, names, strict=True):
        for name in SOLVERS:
            found = _own(rows, model, solver=name, start="zeros", tol=1e-6)
            _points(axes, [row["shots_taken"] for row in found], [row["error"] for row in found], name)
        first = axes is panels[0]
        label(axes, _name(model), "shots a sample", "error of z*, median\n(trained weights)" if first else "")
        axes.set(xscale="log", yscale="log")
        _plain(axes)
    legend_below(top, "solver")
    _gradients_from_shots(bottom, names, gradients)
    return figure


def _gradients_from_shots(part: SubFigure, names: Sequence[tuple[str, float]], gradients: Sequence[Row]) -> None:
    """A row of panels at trained, and one at random weights; modes whose lines lie on one another are drawn once."""
    grid = part.subplots(len(WEIGHTS), len(names), sharex=True, sharey=True, squeeze=False)
    amounts = sorted({row["shots"] for row in gradients})
    found = chosen(gradients, solver=REFERENCE)
    lines = {
        mode: [
            [(row["shots"], row["error"]) for row in _own(found, model, weights=weights, backward=mode)]
            for weights in WEIGHTS
            for model in names
        ]
        for mode in BACKWARD_MODES
    }
    for modes in _coinciding(lines):
        for axes, line in zip(grid.flat, lines[modes[0]], strict=True):
            axes.plot(*np.reshape(line, (-1, 2)).T, label=", ".join(modes), **_MODE_LOOKS[modes[0]])
    for weights, line in zip(WEIGHTS, grid, strict=True):
        for axes, model in zip(line, names, strict=True):
            y = f"rel. error of gradient\n({weights} weights)" if axes is line[0] else ""
            label(axes, _name(model) if weights == WEIGHTS[0] else "", "shots a circuit", y)
            axes.set(xscale="log", yscale="log")
            _plain(axes)
            axes.set_xticks(amounts, [f"{amount}" for amount in amounts])
            axes.minorticks_off()
            axes.label_outer()
    legend_below(part, "backward mode")


def _coinciding(lines: Mapping[str, Sequence[Sequence[tuple[float, float]]]]) -> list[list[str]]:
    """Names whose lines lie on one another in every panel, together."""
    groups: list[list[str]] = []
    for name, own in lines.items():
        for group in groups:
            others = lines[group[0]]
            if all(
                len(one) == len(other) and np.allclose(one, other, rtol=_SAME, atol=0)
                for one, other in zip(own, others, strict=True)
            ):
                group.append(name)
                break
        else:
            groups.append([name])
    return groups


def backward(rows: Sequence[Row], measured: Sequence[Row]) -> Figure:
    """Test accuracy per backward mode: the mean and spread over seeds of Broyden from zeros; dots: all other cells.

    Trainings of which a seed failed are in the tables only.
    """
    names = models(rows)
    rows, measured = able(rows), able(measured)
    figure = new_figure(WIDTH, 3.0)
    panels = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    places = np.arange(len(BACKWARD_MODES))
    jitter = np.random.default_rng(0)
    for axes, model in zip(panels, names, strict=True):
        for place, mode in zip(places, BACKWARD_MODES, strict=True):
            every = [100 * row["accuracy"] for row in _own(rows, model, backward=mode)]
            where = place + jitter.uniform(-0.25, 0.25, len(every))
            axes.plot(where, every, ".", color=GREY, ms=2, alpha=0.6, label="all exact cells", zorder=1)
            for shift, color, name, found in (
                (-0.1, CYCLE[0], f"{REFERENCE}, zeros, 1e-6, exact", _own(rows, model, tol=1e-6)),
                (0.1, CYCLE[1], f"{REFERENCE}, zeros, from shots", _own(measured, model)),
            ):
                for row in chosen(found, solver=REFERENCE, start="zeros", backward=mode):
                    at = place + shift, 100 * row["accuracy"]
                    axes.errorbar(*at, 100 * (row["accuracy_std"] or 0), color=color, capsize=2, zorder=3)
                    axes.plot(*at, "o", color=color, ms=3.5, zorder=3, label=name)
        axes.set_xticks(places, BACKWARD_MODES, rotation=70)
        label(axes, _name(model), "", "test accuracy (%)" if axes is panels[0] else "")
    legend_below(figure)
    return figure


def radius(rows: Sequence[Row]) -> Figure:
    """Histogram of ρ(J) over samples and seeds, before, during and after training."""
    names = models(rows)
    figure = new_figure(WIDTH, 3.0)
    panels = figure.subplots(1, len(names), sharex=True, sharey=True, squeeze=False)[0]
    for axes, model in zip(panels, names, strict=True):
        own = _own(rows, model)
        looks = {own[0]["epoch"]: "-", own[len(own) // 2]["epoch"]: "--", own[-1]["epoch"]: "-"}
        for (epoch, style), color in zip(looks.items(), (CYCLE[1], CYCLE[2], CYCLE[0]), strict=False):
            counts = np.array(chosen(own, epoch=epoch)[0]["radius_histogram"], dtype=float)
            # what is beyond the last bin is in it
            axes.stairs(
                100 * counts / counts.sum(), [*BINS[:-1], 3.1], color=color, linestyle=style, label=f"epoch {epoch}"
            )
        axes.axvline(1, color=BLACK, linewidth=0.8, linestyle=":")
        axes.set_xlim(0, 2)
        label(axes, _name(model), "spectral radius ρ(J) at z*", "share of samples (%)" if axes is panels[0] else "")
    legend(panels[-1])
    return figure


def equilibria(rows: Sequence[Row]) -> Figure:
    """Shares of samples with several equilibria, before and after training, and of those where the class changes."""
    sought = [row for row in rows if row.get("several") is not None]
    figure = new_figure(5.5, 2.9)
    axes = figure.add_subplot()
    labels: list[str] = []
    for place, row in enumerate(sought):
        counts = np.array(row["counts"], dtype=float)
        bottom = 0.0
        for number, color in zip((2, 3, 4), (CYCLE[5], CYCLE[0], BLACK), strict=True):
            height = 100 * counts[number] / counts.sum()
            name = f"{number} equilibria" if number < 4 else "4 or more"
            axes.bar(place, height, 0.6, bottom, color=color, label=name if place == 0 else None)
            bottom += height
        changed = 100 * row["class_differs"]
        axes.plot(place, changed, "D", color=CYCLE[1], ms=5, label="one is of another class" if place == 0 else None)
        axes.annotate(f"{bottom:.1f}", (place, bottom), (0, 3), textcoords="offset points", ha="center", fontsize=SMALL)
        labels.append(f"{row['encoding']}, scale {row['state_scale']:g}\nepoch {row['epoch']}")
    axes.set_xticks(range(len(labels)), labels, rotation=40, ha="right")
    axes.margins(y=0.15)
    axes.set_ylim(0, max(1, axes.get_ylim()[1]))
    label(axes, "samples with more than one equilibrium found", "", "share of samples (%)")
    legend(axes)
    return figure


def _plain(axes: Axes) -> None:
    """Ticks at 0.1, 1, 10 of a logarithmic axis, or at 0.05, 0.2 of a short one, as plain numbers."""
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())


def _own(rows: Sequence[Row], model: tuple[str, float], **values: Any) -> list[Row]:
    return chosen(rows, encoding=model[0], state_scale=model[1], **values)


def _name(model: tuple[str, float]) -> str:
    return f"{model[0]}, scale {model[1]:g}"


def _points(axes: Axes, across: Sequence[float], up: Sequence[float | None], name: str) -> None:
    pairs = [(x, y) for x, y in zip(across, up, strict=True) if x and y]
    if pairs:
        look: dict[str, Any] = {
            "color": _COLORS[name],
            "marker": _MARKS[name],
            "ms": 3,
            "linewidth": 0.8,
            "label": name,
        }
        axes.plot(*zip(*pairs, strict=True), **look)
