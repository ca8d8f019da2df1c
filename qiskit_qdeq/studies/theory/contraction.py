"""Contraction over training: ρ(J), ‖J‖₂ at the equilibria and the Lipschitz bound, with and without the Jacobian penalty.

    ρ(J) ≤ ‖J‖₂ ≤ Lip,   J = ∂m/∂q at q*,   Lip = 2n / min_q ‖x + P q‖ (amplitude)

The bound knows the inputs but not the weights: training cannot move it.
"""

from __future__ import annotations

import dataclasses
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from qiskit_qdeq.data import DataSplit
from qiskit_qdeq.equilibrium import contraction, solve
from qiskit_qdeq.equilibrium.contraction import ContractionReport
from qiskit_qdeq.equilibrium.solvers import Newton
from qiskit_qdeq.exceptions import ConvergenceWarning
from qiskit_qdeq.gradient.regularization import Regularization
from qiskit_qdeq.inference import predict
from qiskit_qdeq.model import QDEQModel
from qiskit_qdeq.programs.arguments import TrainArguments
from qiskit_qdeq.programs.recipes import model_of, training_of
from qiskit_qdeq.studies.theory.finding import ENCODINGS, Array, Finding, Setting, share
from qiskit_qdeq.training.step import StepResult
from qiskit_qdeq.training.trainer import Trainer
from qiskit_qdeq.visualization._figure import BLACK, BLUE, GREEN, VERMILLION, WIDTH, label, legend_below, new_figure

#: Epochs after which the map is looked at: an epoch of digits is two steps, one of MNIST-4 75.
_EPOCHS = {"digits": (0, 2, 5, 10, 20, 50, 100, 200), "images": (0, 1, 2, 3, 5)}
_QUICK = (0, 1, 2)
_SAMPLES = 400
_CURVES = (
    ("spectral_radius", "ρ(J)", BLUE),
    ("singular_value", "‖J‖₂", GREEN),
    ("lipschitz", "Lipschitz bound", VERMILLION),
)


class Snapshots:
    """Keeps the parameters before the first step and after given epochs."""

    def __init__(self, epochs: tuple[int, ...]) -> None:
        self.epochs = epochs
        self.parameters: dict[int, Array] = {}

    def on_start(self, trainer: Trainer) -> None:
        """Keep the parameters training starts from."""
        self.parameters[0] = trainer.state.parameters.copy()

    def on_step(self, trainer: Trainer, result: StepResult) -> None:
        """Nothing."""

    def on_epoch(self, trainer: Trainer, record: dict[str, float]) -> None:
        """Keep those of a chosen epoch."""
        if trainer.epoch in self.epochs:
            self.parameters[trainer.epoch] = trainer.state.parameters.copy()


def check(setting: Setting) -> Finding:
    """Train the paper's preset with both encodings, with and without its Jacobian penalty, and measure along the way."""
    split = setting.split()
    epochs = _QUICK if setting.quick else _EPOCHS["digits" if setting.data == "digits" else "images"]
    seeds = range(setting.seed, setting.seed + setting.size(5, 1))
    figure = new_figure(WIDTH, 5.2)
    panels = figure.subplots(2, 2, sharex=True, sharey=True)
    rows: list[tuple[Any, ...]] = []
    values: dict[str, Any] = {}
    for column, encoding in enumerate(ENCODINGS):
        for row, penalized in enumerate((True, False)):
            runs = [_train(setting.data, split, encoding, penalized, epochs, seed) for seed in seeds]
            penalty = runs[0].penalty
            pooled = {epoch: _pooled([run.reports[epoch] for run in runs]) for epoch in epochs}
            for epoch, report in pooled.items():
                accuracy = float(np.mean([run.accuracy[epoch] for run in runs]))
                rows.append((encoding, penalty, epoch, *_row(report), 100 * accuracy))
            values[f"{encoding}, penalty {penalty:g}"] = {
                epoch: {name: _quantiles(report, name) for name, _, _ in _CURVES} for epoch, report in pooled.items()
            }
            title = f"{encoding}, penalty {penalty:g}" if penalized else f"{encoding}, no penalty"
            _draw(panels[row, column], title, pooled, setting.data)
    for axes in panels[0]:
        axes.set_xlabel("")
    for axes in panels[:, 1]:
        axes.set_ylabel("")
    legend_below(figure)
    return Finding(
        f"contraction over training: the paper's preset on {setting.data}, n = 4, {len(seeds)} seeds x "
        f"{min(_SAMPLES, len(split.x_test))} test samples",
        (
            "encoding",
            "penalty",
            "epoch",
            "ρ median",
            "ρ 95 %",
            "ρ<1 %",
            "‖J‖ median",
            "‖J‖ 95 %",
            "‖J‖<1 %",
            "Lip median",
            "Lip<1 %",
            "solved %",
            "accuracy %",
        ),
        rows,
        (
            "'penalty': weight of the paper's Jacobian penalty; 'epoch' 0 is the random start.",
            "Bands of the figure: 5 to 95 % and 25 to 75 % of all samples and seeds.",
            "'solved': Newton reached an equilibrium to 1e-10; the other columns count all samples, solved or not.",
            "The Lipschitz bound does not depend on the weights: it is the same in all rows of an encoding.",
        ),
        figure,
        {"quantiles 5, 25, 50, 75, 95 %": values},
    )


@dataclass(frozen=True)
class _Run:
    """One training: what was measured, by epoch."""

    penalty: float
    reports: dict[int, ContractionReport]
    accuracy: dict[int, float]


def _train(data: str, split: DataSplit, encoding: str, penalized: bool, epochs: tuple[int, ...], seed: int) -> _Run:
    arguments = TrainArguments(preset="paper", data=data, encoding=encoding, epochs=epochs[-1], seed=seed)
    model, config = model_of(arguments, split).build(), training_of(arguments, split)
    if not penalized:
        config = dataclasses.replace(config, regularization=Regularization())
    inputs, labels = model.prepare(split.x_test[:_SAMPLES]), split.y_test[:_SAMPLES]
    snapshots = Snapshots(epochs)
    with warnings.catch_warnings():
        # the paper's preset takes what ten steps give; what is solved is measured below
        warnings.simplefilter("ignore", ConvergenceWarning)
        Trainer(model, config, split.x_train, split.y_train, callbacks=[snapshots]).run()
    return _Run(
        config.regularization.strength,
        {epoch: _measure(model, found, inputs) for epoch, found in snapshots.parameters.items()},
        {
            epoch: float(np.mean(predict(model, found, inputs, Newton()).logits.argmax(axis=1) == labels))
            for epoch, found in snapshots.parameters.items()
        },
    )


def _measure(model: QDEQModel, parameters: Array, inputs: Array) -> ContractionReport:
    problem = model.map(model.split(parameters)[0], inputs)
    found = solve(problem, Newton(tol=1e-10), on_failure="accept")
    return contraction(problem, found, model.lipschitz_bound(inputs))


def _pooled(reports: list[ContractionReport]) -> ContractionReport:
    names = [item.name for item in dataclasses.fields(ContractionReport)]
    return ContractionReport(*(np.concatenate([getattr(report, name) for report in reports]) for name in names))


def _quantiles(report: ContractionReport, name: str) -> Array:
    quantiles: Array = np.quantile(getattr(report, name), (0.05, 0.25, 0.5, 0.75, 0.95))
    return quantiles


def _row(report: ContractionReport) -> tuple[float, ...]:
    radius, norm, bound = report.spectral_radius, report.singular_value, report.lipschitz
    return (
        float(np.median(radius)),
        float(np.quantile(radius, 0.95)),
        share(radius < 1),
        float(np.median(norm)),
        float(np.quantile(norm, 0.95)),
        share(norm < 1),
        float(np.median(bound)),
        share(bound < 1),
        share(report.equilibria > 0),
    )


def _draw(axes: Axes, title: str, reports: dict[int, ContractionReport], data: str) -> None:
    # one place per snapshot: epochs themselves would crowd at the left
    places = np.arange(len(reports))
    for name, text, color in _CURVES:
        quantiles = np.array([_quantiles(report, name) for report in reports.values()])
        axes.fill_between(places, quantiles[:, 0], quantiles[:, 4], color=color, alpha=0.15, linewidth=0)
        axes.fill_between(places, quantiles[:, 1], quantiles[:, 3], color=color, alpha=0.3, linewidth=0)
        axes.plot(places, quantiles[:, 2], ".-", color=color, label=f"{text}, median")
    axes.axhline(1, color=BLACK, linewidth=1, linestyle=":")
    axes.set(yscale="log", xlim=(-0.1, len(reports) - 0.9))
    axes.set_xticks(places, [str(epoch) for epoch in reports])
    axes.yaxis.set_major_formatter("{x:g}")
    label(axes, title, f"epoch of {data} (not to scale)", "value (no unit)")
