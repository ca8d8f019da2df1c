"""The figures of a finished run."""

from __future__ import annotations

import contextlib
from pathlib import Path

from matplotlib.figure import Figure

from qiskit_qdeq.data import DataSplit
from qiskit_qdeq.equilibrium.driver import solve
from qiskit_qdeq.equilibrium.solvers import solver
from qiskit_qdeq.exceptions import MissingExtraError
from qiskit_qdeq.inference import predict
from qiskit_qdeq.model import QDEQModel
from qiskit_qdeq.training.callbacks import TrainingResult
from qiskit_qdeq.training.config import TrainingConfig
from qiskit_qdeq.visualization import (
    plot_circuit,
    plot_confusion,
    plot_history,
    plot_residual_traces,
    plot_spectrum,
    save_figures,
)

#: Test samples whose solver traces and Jacobian spectra are drawn.
_SAMPLES = 128


def draw_run(folder: Path, model: QDEQModel, config: TrainingConfig, result: TrainingResult, split: DataSplit) -> None:
    """Write learning curves, residual traces per solver, spectrum of J, confusion matrix and circuit as PNG files.

    The circuit needs the extra `drawing`, and is left out without it; of a model too large to be computed there are learning
    curves and circuit only.
    """
    figures = {"history": plot_history(result.history)}
    if model.is_computable:
        figures |= _computed(model, config, result, split)
    with contextlib.suppress(MissingExtraError):
        figures["circuit"] = plot_circuit(model.template)
    save_figures(folder, figures)


def _computed(model: QDEQModel, config: TrainingConfig, result: TrainingResult, split: DataSplit) -> dict[str, Figure]:
    """Those that are computed exactly, wherever the run was."""
    inputs = model.prepare(split.x_test)
    chosen = None if config.mode == "direct" else config.solver
    found = predict(model, result.parameters, inputs, chosen, layers=config.layers, on_failure="accept")
    figures = {"confusion": plot_confusion(split.y_test, found.logits.argmax(axis=1), split.classes)}
    if chosen is not None:
        weights, _, _ = model.split(result.parameters)
        problem = model.evaluator.bind(weights).map(inputs[:_SAMPLES])
        solutions = {
            name: solve(problem, solver(name, tol=1e-10, max_steps=40), on_failure="accept")
            for name in ("newton", "broyden", "anderson", "picard")
        }
        figures["residual_traces"] = plot_residual_traces(solutions)
        figures["spectrum"] = plot_spectrum(problem.at(found.state[:_SAMPLES]).jacobian)
    return figures
