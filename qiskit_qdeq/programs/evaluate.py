"""Evaluate the checkpoint of a run on a data set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qiskit_qdeq.data import load_split
from qiskit_qdeq.equilibrium.solvers import Solver, solver
from qiskit_qdeq.exceptions import CheckpointError, InputError
from qiskit_qdeq.inference import evaluate
from qiskit_qdeq.model import QDEQModel
from qiskit_qdeq.presets import ModelConfig
from qiskit_qdeq.programs.arguments import EvaluateArguments, from_mapping, parser
from qiskit_qdeq.programs.train import CHECKPOINT, write_json
from qiskit_qdeq.training.checkpoint import Checkpoint, load_checkpoint


def main(arguments: Mapping[str, Any], *, publish: Callable[[str], None] = print) -> dict[str, Any]:
    """Evaluate a run's best parameters.

    Args:
        arguments: fields of `EvaluateArguments`.
        publish: is given each line of the summary.

    Raises:
        CheckpointError: for a damaged or foreign checkpoint.
        InputError: for arguments or data that do not fit it.
    """
    options = from_mapping(EvaluateArguments, arguments)
    path = Path(options.directory)
    checkpoint = load_checkpoint(path / CHECKPOINT if path.is_dir() else path)
    model, parameters = load_model(checkpoint)
    notes = checkpoint.document["notes"]["data"]
    split = load_split(
        options.data or notes["name"],
        data_dir=options.data_dir,
        classes=notes["classes"],
        num_qubits=notes["num_qubits"],
        limit=options.limit if options.limit is not None else notes["limit"],
    )
    training = checkpoint.document["training"]
    chosen = _solver(options, training)
    inputs = model.prepare(getattr(split, f"x_{options.split}")).astype(model.dtype)
    labels = getattr(split, f"y_{options.split}")
    found = evaluate(model, parameters, inputs, labels, chosen, layers=training["layers"])
    metrics = {
        "accuracy": found.accuracy,
        "loss": found.loss,
        "residual": found.residual,
        "max_residual": found.max_residual,
        "unconverged": found.unconverged,
        "mean_steps": found.mean_steps,
        "samples": len(inputs),
        "data": split.name,
        "split": options.split,
        "checkpoint": str(checkpoint.path),
    }
    if options.json:
        write_json(Path(options.json), metrics)
    if not options.quiet:
        publish(
            f"{options.split} accuracy {found.accuracy:.2%} of {len(inputs)} samples, loss {found.loss:.4f}, "
            f"residual median {found.residual:.1e}, not converged {found.unconverged:.1%}"
        )
    return metrics


def load_model(checkpoint: Checkpoint) -> tuple[QDEQModel, np.ndarray[Any, np.dtype[Any]]]:
    """The model a training run's checkpoint describes, and its best parameters.

    Raises:
        CheckpointError: if the checkpoint is not of a run of `train`.
    """
    try:
        config = ModelConfig(**checkpoint.document["notes"]["model"])
        parameters = checkpoint.arrays["best_parameters"]
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"Checkpoint '{checkpoint.path}' does not describe a model: {error}") from error
    model = config.build()
    if parameters.shape != (model.num_parameters,):
        raise CheckpointError(
            f"Checkpoint '{checkpoint.path}': {parameters.shape} parameters, its model has {model.num_parameters}"
        )
    return model, parameters


def command(words: Sequence[str] | None = None) -> int:
    """`python -m qiskit_qdeq evaluate DIR`: the exit code."""
    options = parser(EvaluateArguments, "qiskit_qdeq evaluate", "Evaluate a trained run on a data set.")
    main(vars(options.parse_args(words)))
    return 0


def _solver(options: EvaluateArguments, training: dict[str, Any]) -> Solver | None:
    """The run's own forward solver, or the one asked for; None in direct mode."""
    if training["mode"] == "direct":
        if options.solver is not None:
            raise InputError("solver cannot be given: the run was trained with explicit layers (--mode direct)")
        return None
    stored = dict(training["solver"])
    name = stored.pop("name")
    if name == "scipy":
        name = f"scipy:{stored.pop('method')}"
    if options.solver is not None and options.solver != name:
        name, stored = options.solver, {"tol": stored["tol"], "rtol": stored["rtol"]}
    if options.tol is not None:
        stored["tol"] = options.tol
    found: Solver = solver(name, **stored)
    return found
