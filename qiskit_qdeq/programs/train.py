"""Train and evaluate a model on a data set; writes metrics, checkpoint and figures to a folder.

`main` is the program for Python callers; `command` the same from a command line.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from qiskit_qdeq.data import DataSplit, load_split
from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.inference import evaluate
from qiskit_qdeq.model import QDEQModel
from qiskit_qdeq.programs.arguments import TrainArguments, from_mapping, parser
from qiskit_qdeq.programs.recipes import model_of, training_of
from qiskit_qdeq.training.checkpoint import load_checkpoint
from qiskit_qdeq.training.config import TrainingConfig
from qiskit_qdeq.training.progress import ProgressBar
from qiskit_qdeq.training.state import versions
from qiskit_qdeq.training.trainer import Trainer, TrainingResult

CHECKPOINT = "checkpoint.safetensors"
METRICS = "metrics.json"


def main(arguments: Mapping[str, Any] | None = None, *, publish: Callable[[str], None] = print) -> dict[str, Any]:
    """Train, evaluate on the test part, write the run's folder, and return its metrics.

    Args:
        arguments: fields of `TrainArguments`; what is left out has its default.
        publish: is given each line of the summary.

    Returns:
        What metrics.json holds: test_accuracy, test_loss, test_residual, ms_per_step, num_weights, depth,
        two_qubit_gates, circuits, shots, the configuration, seeds and versions.

    Raises:
        InputError: for arguments or data that cannot be used.
        QDEQError: for a run that cannot go on; its checkpoint is kept.
    """
    options = from_mapping(TrainArguments, arguments or {})
    if options.resume and options.output is not None:
        options = _continued(options)
    split = load_split(
        options.data,
        data_dir=options.data_dir,
        classes=options.classes,
        num_qubits=options.num_qubits,
        limit=options.limit,
    )
    model_config, config = model_of(options, split), training_of(options, split)
    model = model_config.build()
    folder = _folder(options)
    with ProgressBar(not options.quiet) as bar:
        trainer = Trainer(
            model,
            config,
            split.x_train,
            split.y_train,
            split.x_valid,
            split.y_valid,
            callbacks=[bar],
            checkpoint=folder / CHECKPOINT,
            checkpoint_every=options.checkpoint_every,
            notes={
                "data": _data_notes(options, split),
                "model": model_config.as_dict(),
                "arguments": _plain(options),
            },
        )
        if options.resume:
            trainer.resume()
        started = time.perf_counter()
        try:
            result = trainer.run()
        except KeyboardInterrupt:
            how = f"to go on: python -m qiskit_qdeq train --resume --output {folder}"
            raise KeyboardInterrupt(how) from None
        seconds = time.perf_counter() - started
    metrics = _metrics(options, split, model, config, result)
    metrics |= {
        "train_seconds": seconds,
        "ms_per_step": 1e3 * statistics.median(trainer.step_seconds) if trainer.step_seconds else 0.0,
        "model": model_config.as_dict(),
        "versions": versions(),
        "machine": {"processor": platform.machine(), "cpus": os.cpu_count()},
    }
    write_json(folder / METRICS, metrics)
    if not options.no_plots:
        from qiskit_qdeq.programs.figures import draw_run

        draw_run(folder, model, config, result, split)
    if not options.quiet:
        for line in _summary(metrics, folder):
            publish(line)
    return metrics


def command(words: Sequence[str] | None = None) -> int:
    """`python -m qiskit_qdeq train`: the exit code."""
    options = parser(TrainArguments, "qiskit_qdeq train", "Train and evaluate a QDEQ on a data set.")
    main(vars(options.parse_args(words)))
    return 0


def _plain(options: TrainArguments) -> dict[str, Any]:
    values = dataclasses.asdict(options)
    return {**values, "classes": None if options.classes is None else list(options.classes)}


def _continued(options: TrainArguments) -> TrainArguments:
    """The options of the run to resume, where none of this call's own replaces them."""
    path = Path(options.output or "") / CHECKPOINT
    if not path.exists():
        return options
    stored = load_checkpoint(path).document.get("notes", {}).get("arguments", {})
    about_this_call = {"output", "resume", "overwrite", "quiet", "no_plots", "checkpoint_every"}
    kept = {
        item.name: stored[item.name]
        for item in dataclasses.fields(TrainArguments)
        if item.name in stored and item.name not in about_this_call and getattr(options, item.name) == item.default
    }
    return from_mapping(TrainArguments, {**dataclasses.asdict(options), **kept})


def _folder(options: TrainArguments) -> Path:
    """The run's folder; an earlier run in it is only touched on request."""
    if options.output is None:
        if options.resume:
            raise InputError("--resume continues the run in --output: name that folder")
        return _new_folder(Path("qdeq-runs") / f"{options.data}-{options.preset}-{options.mode}-seed{options.seed}")
    folder = Path(options.output)
    exists = (folder / CHECKPOINT).exists()
    if exists and not (options.resume or options.overwrite):
        raise InputError(
            f"--output {folder} holds an earlier run: add --resume to continue it, --overwrite to replace it, "
            "or name another folder"
        )
    if options.resume and not exists:
        raise InputError(f"--output {folder} holds no run to resume (no {CHECKPOINT})")
    _make(folder, exist_ok=True)
    return folder


def _new_folder(base: Path) -> Path:
    """`base`, or base-2, base-3 and so on: the first that nobody has made, made now."""
    number = 1
    while True:
        folder = base if number == 1 else base.with_name(f"{base.name}-{number}")
        try:
            _make(folder, exist_ok=False)
            return folder
        except FileExistsError:
            number += 1


def _make(folder: Path, exist_ok: bool) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=exist_ok)
    except OSError as error:
        if not exist_ok and isinstance(error, FileExistsError):
            raise
        raise InputError(f"--output {folder} cannot be created: {error.strerror}") from error


def _data_notes(options: TrainArguments, split: DataSplit) -> dict[str, Any]:
    return {
        "name": options.data,
        "classes": list(split.classes),
        "num_qubits": options.num_qubits,
        "limit": options.limit,
    }


def _metrics(
    options: TrainArguments,
    split: DataSplit,
    model: QDEQModel,
    config: TrainingConfig,
    result: TrainingResult,
) -> dict[str, Any]:
    solver = None if config.mode == "direct" else config.solver
    parts: dict[str, Any] = {}
    for part in ("valid", "test"):
        inputs = model.prepare(getattr(split, f"x_{part}")).astype(model.dtype)
        found = evaluate(model, result.parameters, inputs, getattr(split, f"y_{part}"), solver, layers=config.layers)
        parts |= {
            f"{part}_accuracy": found.accuracy,
            f"{part}_loss": found.loss,
            f"{part}_residual": found.residual,
            f"{part}_max_residual": found.max_residual,
            f"{part}_unconverged": found.unconverged,
            f"{part}_samples": len(inputs),
        }
    return {
        **parts,
        "train_accuracy": result.history[-1]["accuracy"],
        "num_weights": model.num_weights,
        "num_parameters": model.num_parameters,
        "depth": model.template.depth,
        "two_qubit_gates": model.template.two_qubit_gates,
        # exact evaluation runs no circuit and takes no shot
        "circuits": 0,
        "shots": 0,
        "steps": result.steps,
        "epochs": len(result.history),
        "best_epoch": result.best_epoch,
        "stopped": result.stopped,
        "seed": config.seed,
        "seeds": {"training": config.seed, "split": "the loader's default"},
        "arguments": {**_plain(options), "classes": list(split.classes)},
        "configuration": config.as_dict(),
    }


def _summary(metrics: dict[str, Any], folder: Path) -> list[str]:
    residual = f"test residual   median {metrics['test_residual']:.1e}, max {metrics['test_max_residual']:.1e}"
    if metrics["configuration"]["mode"] == "direct":
        residual += " of the last layer's state (explicit layers solve no equilibrium)"
    else:
        residual += f", not converged {metrics['test_unconverged']:.1%}"
    if metrics["test_unconverged"] > 0:
        residual += ": try another --solver, more --max-steps or a smaller --state-scale"
    return [
        f"test accuracy   {metrics['test_accuracy']:.2%} of {metrics['test_samples']} samples "
        f"(validation {metrics['valid_accuracy']:.2%}, chance {1 / metrics['model']['num_classes']:.0%})",
        residual,
        f"training        {metrics['steps']} steps in {metrics['train_seconds']:.1f} s, "
        f"{metrics['ms_per_step']:.2f} ms per step (median, validation apart), {metrics['num_parameters']} parameters "
        f"({metrics['num_weights']} in the circuit)",
        f"circuit         {metrics['model']['num_qubits']} qubits, depth {metrics['depth']}, "
        f"{metrics['two_qubit_gates']} two-qubit gates",
        f"written to      {folder}{os.sep}",
    ]


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write a JSON file in one piece: what was there before stays until the new one is complete."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(values, indent=2, allow_nan=False) + "\n")
    os.replace(temporary, path)
