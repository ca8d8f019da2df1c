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
_MARKERS = {"implicit": "*", "direct": "o", "stacked": "s", "free": "^"}
_LEVELS = (GREY, SKY, BLUE)


def figures(results: dict[str, Any]) -> dict[str, Figure]:
    """All pictures by file name; those of a second encoding end in its name."""
    encodings = list(dict.fromkeys(row["encoding"] for row in results["exact"]))
    found = {}
    for encoding in encodings:
        rows = [row for row in results["exact"] if row["encoding"] == encoding]
        measured = [row for row in results["measured"] if row["encoding"] == encoding]
        end = f"-{encoding}" if len(encodings) > 1 else ""
        found[f"accuracy{end}"] = draw_curves(rows, "accuracy", "test accuracy (%)", 100)
        found[f"bias{end}"] = draw_curves(rows, "bias", "bias of the state's values")
        found[f"gradient{end}"] = draw_curves(rows, "cosine_start", "gradient cosine, random weights")
        if any(Noise.parse(row["trained_in"]).strength for row in rows):
            found[f"trained{end}"] = draw_trained(rows)
        if any(Noise.parse(row["noise"]).device for row in rows):
            found[f"devices{end}"] = draw_devices(rows)
        if measured:
            found[f"measured{end}"] = draw_measured(measured)
    return found


def draw_curves(rows: Sequence[Row], column: str, text: str, factor: float = 1.0) -> Figure:
    """A panel per kind of noise, a curve per model trained without noise, its spread over seeds; below extrapolated."""
    kinds = _kinds(rows)
    extrapolated = [kind for kind in kinds if _words(rows, kind, NONE, "zne")]
    lines = 2 if extrapolated else 1
    figure = new_figure(WIDTH, 2.3 * lines + 0.5)
    panels = figure.subplots(lines, len(kinds), squeeze=False, sharey=True)
    for place, kind in enumerate(kinds):
        for line, mitigation in enumerate(("", "zne")[:lines]):
            axes = panels[line, place]
            if mitigation and kind not in extrapolated:
                axes.set_visible(False)
                continue
            for model in _models(rows):
                _curve(axes, rows, model, NONE, kind, mitigation, column, factor)
            title = "extrapolated to zero noise" if mitigation else kind
            label(axes, title, TITLES[kind], text if place == 0 else "")
            axes.set_xscale("log")
    legend_below(figure)
    return figure


def draw_trained(rows: Sequence[Row]) -> Figure:
    """A panel per noise trained in: accuracy against its strength, trained in it (solid) and without (dotted)."""
    trained = [word for word in dict.fromkeys(row["trained_in"] for row in rows) if Noise.parse(word).strength]
    figure = new_figure(WIDTH, 3.0)
    panels = figure.subplots(1, len(trained), squeeze=False, sharey=True)[0]
    for axes, word in zip(panels, trained, strict=True):
        kind, strength = Noise.parse(word).kind, Noise.parse(word).strength
        for model in _models(rows):
            _curve(axes, rows, model, word, kind, "", "accuracy", 100)
            _curve(axes, rows, model, NONE, kind, "", "accuracy", 100, dotted=True)
        axes.axvline(strength, color=GREY, linewidth=0.8)
        axes.set_xscale("log")
        label(axes, f"trained in {word}; dotted: without", TITLES[kind], "test accuracy (%)")
    legend_below(figure)
    return figure


def draw_devices(rows: Sequence[Row]) -> Figure:
    """A panel per fake device: accuracy of every model without noise (line), noisy, mitigated, trained in noise (bars)."""
    devices = list(dict.fromkeys(row["noise"] for row in rows if Noise.parse(row["noise"]).device))
    trained = [word for word in dict.fromkeys(row["trained_in"] for row in rows) if Noise.parse(word).device]
    bars = [(NONE, "", "noisy", GREY), (NONE, "readout", "readout mitigated", SKY)]
    bars += [
        (word, "", f"trained in {word}", color)
        for word, color in zip(trained, (VERMILLION, ORANGE, PURPLE), strict=False)
    ]
    models, width = _models(rows), 0.8 / len(bars)
    figure = new_figure(WIDTH, 1.9 * -(-len(devices) // 2) + 0.9)
    panels = figure.subplots(-(-len(devices) // 2), min(2, len(devices)), squeeze=False, sharey=True).ravel()
    for axes in panels[len(devices) :]:
        axes.set_visible(False)
    for axes, device in zip(panels, devices, strict=False):
        for at, model in enumerate(models):
            for bar, (word, mitigation, text, color) in enumerate(bars):
                row = row_of(rows, model=model, trained_in=word, noise=device, mitigation=mitigation)
                if row is not None:
                    x, spread = at + (bar + 0.5) * width - 0.4, row["accuracy"]
                    axes.bar(x, 100 * spread["mean"], width, color=color, label=text)
                    axes.errorbar(x, 100 * spread["mean"], 100 * (spread["std"] or 0.0), color=BLACK, linewidth=0.7)
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
                    x, spread = at + (place + 0.5) * 0.8 / len(levels) - 0.4, row["bias"]
                    text, color = f"resilience level {level}", _LEVELS[place % len(_LEVELS)]
                    axes.bar(x, spread["mean"], 0.8 / len(levels), color=color, label=text)
                    axes.errorbar(x, spread["mean"], spread["std"] or 0.0, color=BLACK, linewidth=0.7)
        label(axes, device, "", "bias of the state's values")
        axes.set_xticks(range(len(models)), models, rotation=40, ha="right", fontsize=SMALL)
    legend_below(figure)
    return figure


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
    """Colour and marker: one marker and related colours per family."""
    family = _family(model)
    members = [name for name in models if _family(name) == family]
    colors = _FAMILIES[family]
    return colors[members.index(model) % len(colors)], _MARKERS[family]


def _family(model: str) -> str:
    return "free" if model.endswith("-free") else model.partition("-")[0]


def _models(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row["model"] for row in rows))


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
