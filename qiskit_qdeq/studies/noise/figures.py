"""The noise study's pictures: curves against strength, bars for devices, bias from shots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from qiskit_qdeq.studies.noise.noises import KINDS, NONE, Noise
from qiskit_qdeq.studies.noise.report import TITLES
from qiskit_qdeq.studies.noise.tables import Row, row_of
from qiskit_qdeq.visualization._figure import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    SMALL,
    TEXT,
    VERMILLION,
    WIDTH,
    label,
    legend_below,
    new_figure,
)

_FAMILIES = {
    "implicit": (BLACK,),
    "direct": (SKY, BLUE, PURPLE),
    "stacked": (ORANGE, VERMILLION),
    "free": (GREEN, GREY),
}
#: The next where a family has no colours left.
_MARKERS = {"implicit": "*", "direct": "ovXh", "stacked": "sDPd", "free": "^<>p"}
_TRAINED = (VERMILLION, ORANGE, PURPLE, GREEN, BLUE)
_LEVELS = (GREY, SKY, BLUE)
_BIAS = "bias of the state's values"
#: Pictures of curves: per line of panels column, mitigation, what it is, and in which unit.
_LINES: dict[str, tuple[tuple[str, str, str, float], ...]] = {
    "accuracy": (
        ("accuracy", "", "test accuracy (%)", 100),
        ("accuracy", "zne", "extrapolated to zero noise (%)", 100),
    ),
    "bias": (("bias", "", _BIAS, 1), ("bias", "zne", "the same, extrapolated", 1)),
    "gradient": (
        ("cosine_start", "", "gradient cosine, random weights", 1),
        ("cosine", "", "gradient cosine, trained weights", 1),
    ),
}


def figures(results: dict[str, Any]) -> dict[str, Figure]:
    """All pictures by file name; those of a second encoding end in its name."""
    encodings = list(dict.fromkeys(row["encoding"] for row in results["exact"]))
    found = {}
    for encoding in encodings:
        rows = [row for row in results["exact"] if row["encoding"] == encoding]
        measured = [row for row in results["measured"] if row["encoding"] == encoding]
        end = f"-{encoding}" if len(encodings) > 1 else ""
        for name, lines in _LINES.items():
            found[f"{name}{end}"] = draw_curves(rows, lines)
        if any(Noise.parse(row["trained_in"]).strength for row in rows):
            found[f"trained{end}"] = draw_trained(rows)
        if any(Noise.parse(row["noise"]).device for row in rows):
            found[f"devices{end}"] = draw_devices(rows)
        if measured:
            found[f"measured{end}"] = draw_measured(measured)
    return found


def draw_curves(rows: Sequence[Row], lines: Sequence[tuple[str, str, str, float]]) -> Figure:
    """A panel per kind of noise and line, a curve per model trained without noise, with its spread over seeds.

    Args:
        rows: exact ones of one encoding.
        lines: column, mitigation, label and factor of each.
    """
    kinds = _kinds(rows)
    figure = new_figure(WIDTH, 2.2 * len(lines) + 0.5)
    panels = figure.subplots(len(lines), len(kinds), squeeze=False, sharey="row")
    for line, (column, mitigation, text, factor) in zip(panels, lines, strict=True):
        for place, (axes, kind) in enumerate(zip(line, kinds, strict=True)):
            members = _words(rows, kind, NONE, mitigation)
            axes.set_visible(bool(members))
            if members:
                for model in _models(rows):
                    _curve(axes, rows, model, NONE, kind, mitigation, column, factor)
                _strengths(axes, kind, members)
                axes.set_ylabel(text if place == 0 else "", fontsize=TEXT)
    legend_below(figure)
    return figure


def draw_trained(rows: Sequence[Row]) -> Figure:
    """A panel per noise trained in: accuracy against its strength, trained in it (solid) and without (dotted).

    Of every family its shallowest explicit or deepest stacked model, for there would be too many curves.
    """
    trained = [word for word in dict.fromkeys(row["trained_in"] for row in rows) if Noise.parse(word).strength]
    figure = new_figure(WIDTH, 3.0)
    panels = figure.subplots(1, len(trained), squeeze=False, sharey=True)[0]
    for axes, word in zip(panels, trained, strict=True):
        kind, strength = Noise.parse(word).kind, Noise.parse(word).strength
        for model in _representatives(_models(rows)):
            _curve(axes, rows, model, word, kind, "", "accuracy", 100)
            _curve(axes, rows, model, NONE, kind, "", "accuracy", 100, dotted=True)
        axes.axvline(strength, color=GREY, linewidth=0.8)
        _strengths(axes, kind, _words(rows, kind, word, ""))
        axes.set_title(f"trained in {word}; dotted: without", fontsize=SMALL)
        axes.set_ylabel("test accuracy (%)", fontsize=TEXT)
    legend_below(figure)
    return figure


def draw_devices(rows: Sequence[Row]) -> Figure:
    """A panel per fake device: accuracy of every model without noise (line), noisy, mitigated, trained in noise (bars)."""
    devices = list(dict.fromkeys(row["noise"] for row in rows if Noise.parse(row["noise"]).device))
    trained = [word for word in dict.fromkeys(row["trained_in"] for row in rows) if Noise.parse(word).device]
    bars = [(NONE, "", "noisy", GREY, ""), (NONE, "readout", "readout mitigated", SKY, "")]
    for place, word in enumerate(trained):
        turn, index = divmod(place, len(_TRAINED))
        bars.append((word, "", f"trained in {word}", _TRAINED[index], "//" * turn))
    models, width = _models(rows), 0.8 / len(bars)
    figure = new_figure(WIDTH, 1.9 * -(-len(devices) // 2) + 0.9)
    panels = figure.subplots(-(-len(devices) // 2), min(2, len(devices)), squeeze=False, sharey=True).ravel()
    for axes in panels[len(devices) :]:
        axes.set_visible(False)
    for axes, device in zip(panels, devices, strict=False):
        for at, model in enumerate(models):
            for bar, (word, mitigation, text, color, hatch) in enumerate(bars):
                row = row_of(rows, model=model, trained_in=word, noise=device, mitigation=mitigation)
                if row is not None:
                    _bar(axes, at + (bar + 0.5) * width - 0.4, row["accuracy"], width, color, text, 100, hatch)
            clean = row_of(rows, model=model, trained_in=NONE, noise=NONE)
            if clean is not None:
                height = 100 * clean["accuracy"]["mean"]
                axes.plot([at - 0.45, at + 0.45], [height, height], color=BLACK, linewidth=1, label="without noise")
        label(axes, device.partition(":")[2], "", "test accuracy (%)")
        axes.set_xticks(range(len(models)), models, rotation=40, ha="right", fontsize=SMALL)
    legend_below(figure)
    return figure


def draw_measured(rows: Sequence[Row]) -> Figure:
    """A panel per fake device: bias of the values measured at every resilience level."""
    devices = list(dict.fromkeys(row["backend"] for row in rows))
    models = _models(rows)
    levels = sorted({row["level"] for row in rows})
    figure = new_figure(WIDTH, 2.6)
    panels = figure.subplots(1, len(devices), squeeze=False, sharey=True)[0]
    for axes, device in zip(panels, devices, strict=True):
        for at, model in enumerate(models):
            for place, level in enumerate(levels):
                row = row_of(rows, model=model, backend=device, level=level)
                if row is not None:
                    width, color = 0.8 / len(levels), _LEVELS[place % len(_LEVELS)]
                    _bar(axes, at + (place + 0.5) * width - 0.4, row["bias"], width, color, f"resilience level {level}")
        label(axes, device, "", _BIAS)
        axes.set_xticks(range(len(models)), models, rotation=40, ha="right", fontsize=SMALL)
    legend_below(figure)
    return figure


def _strengths(axes: Axes, kind: str, rows: Sequence[Row]) -> None:
    """The strengths computed on a logarithmic axis."""
    strengths = sorted({Noise.parse(row["noise"]).strength or 0.0 for row in rows})
    label(axes, kind, TITLES[kind], "")
    axes.set_xscale("log")
    axes.set_xticks(strengths, [f"{strength:g}" for strength in strengths], rotation=45)
    axes.minorticks_off()
    axes.grid(color=GREY, alpha=0.2, linewidth=0.5)


def _bar(
    axes: Axes,
    x: float,
    spread: dict[str, float],
    width: float,
    color: str,
    text: str,
    factor: float = 1.0,
    hatch: str = "",
) -> None:
    [bar] = axes.bar(x, factor * spread["mean"], width, color=color, hatch=hatch)
    # of the bar, not of its container, which the common legend could not sort
    bar.set_label(text)
    axes.errorbar(x, factor * spread["mean"], factor * (spread["std"] or 0.0), color=BLACK, linewidth=0.7)


def _curve(
    axes: Axes,
    rows: Sequence[Row],
    model: str,
    trained_in: str,
    kind: str,
    mitigation: str,
    column: str,
    factor: float,
    dotted: bool = False,
) -> None:
    members = [row for row in _words(rows, kind, trained_in, mitigation) if row["model"] == model]
    members = [row for row in members if row[column]["mean"] is not None]
    strengths = np.array([Noise.parse(row["noise"]).strength for row in members], dtype=float)
    mean = factor * np.array([row[column]["mean"] for row in members], dtype=float)
    spread = factor * np.array([row[column]["std"] or 0.0 for row in members])
    order = np.argsort(strengths)
    strengths, mean, spread = strengths[order], mean[order], spread[order]
    color, marker = _look(model, _models(rows))
    if dotted:
        axes.plot(strengths, mean, ":", color=color, linewidth=1)
        return
    front = 5 if model == "implicit" else 3
    axes.plot(strengths, mean, f"{marker}-", color=color, markersize=4, linewidth=1.2, label=model, zorder=front)
    axes.fill_between(strengths, mean - spread, mean + spread, color=color, alpha=0.12, linewidth=0)


def _look(model: str, models: Sequence[str]) -> tuple[str, str]:
    """Colour and marker, alike within a family: a marker and its colours, then the next marker."""
    family = _family(model)
    members = [name for name in models if _family(name) == family]
    colors, markers = _FAMILIES[family], _MARKERS[family]
    turn, index = divmod(members.index(model), len(colors))
    return colors[index], markers[turn % len(markers)]


def _family(model: str) -> str:
    return "free" if model.endswith("-free") else model.partition("-")[0]


def _models(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row["model"] for row in rows))


def _representatives(models: Sequence[str]) -> list[str]:
    families: dict[str, list[str]] = {}
    for model in models:
        families.setdefault(_family(model), []).append(model)
    return [min(own, key=_layers) if family == "direct" else max(own, key=_layers) for family, own in families.items()]


def _layers(model: str) -> int:
    return 0 if model == "implicit" else int(model.split("-")[1])


def _kinds(rows: Sequence[Row]) -> list[str]:
    present = {Noise.parse(row["noise"]).kind for row in rows}
    return [kind for kind in KINDS if kind in present]


def _words(rows: Sequence[Row], kind: str, trained_in: str, mitigation: str) -> list[Row]:
    return [
        row
        for row in rows
        if Noise.parse(row["noise"]).kind == kind
        and row["trained_in"] == trained_in
        and row["mitigation"] == mitigation
    ]
