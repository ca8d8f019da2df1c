"""A training run as a task of a study: trained where its checkpoint is, then asked what the equilibrium is good for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from qiskit_qdeq.data import DataSplit
from qiskit_qdeq.equilibrium.solvers import Solver
from qiskit_qdeq.inference import evaluate, predict
from qiskit_qdeq.model import QDEQModel
from qiskit_qdeq.programs.arguments import TrainArguments, from_mapping
from qiskit_qdeq.programs.folder import CHECKPOINT
from qiskit_qdeq.programs.recipes import split_of, training_of
from qiskit_qdeq.programs.stored import load_model
from qiskit_qdeq.programs.train import main as train
from qiskit_qdeq.training.checkpoint import has_checkpoint, load_latest
from qiskit_qdeq.training.config import TrainingConfig

Array = np.ndarray[Any, np.dtype[Any]]

#: Explicit layers from which a trained equilibrium model is read out instead of its equilibrium.
_LAYERS = (1, 2, 5)
_KEPT = (
    *("test_accuracy", "valid_accuracy", "train_accuracy", "test_loss", "test_residual", "test_max_residual"),
    *("test_unconverged", "test_samples", "num_weights", "num_parameters", "depth", "two_qubit_gates"),
    *("steps", "epochs", "best_epoch", "train_seconds", "ms_per_step", "versions"),
)


def train_task(arguments: Mapping[str, Any], *, folder: Path, data_dir: str | None) -> dict[str, Any]:
    """Train, or go on with what an interrupted study left in `folder`, and evaluate.

    Args:
        arguments: fields of `TrainArguments`.
        folder: the run's own.
        data_dir: where images are.

    Returns:
        What metrics.json says; `paper_residual` |m(q) - q| / (|m(q)| + 1e-9), mean over samples and entries at the test part
        (the paper's column); of an equilibrium model `layers`: its test accuracy when it is read after 1, 2, 5 explicit
        layers from zero instead of at q*.
    """
    metrics = trained(arguments, folder=folder, data_dir=data_dir)
    found = {name: metrics[name] for name in _KEPT}
    options, split, config = described(arguments, data_dir)
    model, parameters = load_model(load_latest(folder / CHECKPOINT))
    inputs = model.prepare(split.x_test)
    solver = None if options.mode == "direct" else config.solver
    found["paper_residual"] = _paper_residual(model, parameters, inputs, solver, config.layers)
    if solver is not None:
        found["layers"] = {
            str(layers): evaluate(model, parameters, inputs, split.y_test, None, layers=layers).accuracy
            for layers in _LAYERS
        }
    return found


def trained(arguments: Mapping[str, Any], *, folder: Path, data_dir: str | None) -> dict[str, Any]:
    """Train, or go on with what an interrupted study left in `folder`: what metrics.json says."""
    resume = has_checkpoint(folder / CHECKPOINT)
    own = {} if resume else arguments
    common = {"output": str(folder), "resume": resume, "quiet": True, "no_plots": True}
    return train(None, {**own, **place(arguments, data_dir), **common})


def place(arguments: Mapping[str, Any], data_dir: str | None) -> dict[str, str]:
    """The argument that says where images are; digits are in no folder."""
    return {} if data_dir is None or arguments.get("data", "digits") == "digits" else {"data_dir": data_dir}


def described(arguments: Mapping[str, Any], data_dir: str | None) -> tuple[TrainArguments, DataSplit, TrainingConfig]:
    """A run's options, data and configuration."""
    options = from_mapping(TrainArguments, {**arguments, **place(arguments, data_dir)})
    split = split_of(options)
    return options, split, training_of(options, split)


def _paper_residual(model: QDEQModel, parameters: Array, inputs: Array, solver: Solver | None, layers: int) -> float:
    weights, _, _ = model.split(parameters)
    found = predict(model, parameters, inputs, solver, layers=layers, on_failure="accept")
    total, blocks = 0.0, range(0, len(inputs), 512)
    for first in blocks:
        part = slice(first, first + 512)
        values = model.map(weights, inputs[part]).at(found.state[part]).values
        total += float((np.abs(values - found.state[part]) / (np.abs(values) + 1e-9)).sum())
    return total / found.state.size
