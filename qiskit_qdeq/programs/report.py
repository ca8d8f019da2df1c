"""What a training run reports: metrics.json and the summary."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

from qiskit_qdeq.data import DataSplit
from qiskit_qdeq.evaluation.protocol import Part
from qiskit_qdeq.inference import evaluate
from qiskit_qdeq.model import QDEQModel
from qiskit_qdeq.programs.arguments import TrainArguments
from qiskit_qdeq.training.callbacks import TrainingResult
from qiskit_qdeq.training.config import TrainingConfig
from qiskit_qdeq.training.progress import ProgressBar
from qiskit_qdeq.training.state import SPENT


def metrics_of(
    options: TrainArguments,
    split: DataSplit,
    model: QDEQModel,
    config: TrainingConfig,
    result: TrainingResult,
    bar: ProgressBar,
) -> dict[str, Any]:
    """What metrics.json holds of a finished run; evaluates what has not been evaluated yet.

    A budget planned to the last step has nothing left for validation samples, which decided nothing.
    """
    solver = None if config.mode == "direct" else config.solver
    parts: dict[str, Any] = {}
    spent = {name: sum(record.get(name, 0) for record in result.history) for name in SPENT}
    model.evaluator.start_step(result.steps, result.steps, Part.TEST)
    training = dict(spent)
    measured_already = _validated(result, len(split.x_valid)) if not model.evaluator.is_exact else {}
    for part in ("test",) if measured_already or options.economy else ("valid", "test"):
        inputs = model.prepare(getattr(split, f"x_{part}"))
        labels = getattr(split, f"y_{part}")
        tell = bar.evaluation(model, {"valid": "validation"}.get(part, part), len(inputs))
        found = evaluate(model, result.parameters, inputs, labels, solver, layers=config.layers, tell=tell)
        parts |= {
            f"{part}_accuracy": found.accuracy,
            f"{part}_loss": found.loss,
            f"{part}_residual": found.residual,
            f"{part}_max_residual": found.max_residual,
            f"{part}_unconverged": found.unconverged,
            f"{part}_samples": len(inputs),
        }
        for name in spent:
            spent[name] += getattr(found.cost, name)
    account = getattr(model.evaluator, "account", None)
    return {
        **measured_already,
        **parts,
        "train_accuracy": result.history[-1]["accuracy"],
        "num_weights": model.num_weights,
        "num_parameters": model.num_parameters,
        "depth": model.template.depth,
        "two_qubit_gates": model.template.two_qubit_gates,
        # of training and evaluation together; exact evaluation runs no circuit and takes no shot
        **{name: amount if name == "qpu_seconds" else int(amount) for name, amount in spent.items()},
        "spent": {"training": training, "evaluation": {name: spent[name] - training[name] for name in spent}},
        # what the service has charged, failed jobs included; without a service what its formula says
        "charged_qpu_seconds": account.spent.qpu_seconds if account is not None else 0.0,
        "execution": model.evaluator.description,
        "steps": result.steps,
        "epochs": len(result.history),
        "best_epoch": result.best_epoch,
        "stopped": result.stopped,
        "seed": config.seed,
        "seeds": {"training": config.seed, "split": "the loader's default"},
        "arguments": {**plain(options), "classes": list(split.classes)},
        "configuration": config.as_dict(),
    }


def _validated(result: TrainingResult, samples: int) -> dict[str, Any]:
    """What the epoch of the best parameters measured on the validation part: measuring it again costs as much again."""
    if result.best_epoch < 1:
        return {}
    record = result.history[result.best_epoch - 1]
    figures = {f"valid_{name}": record[f"valid_{name}"] for name in ("accuracy", "loss", "residual")}
    return {**figures, "valid_samples": samples}


def summary(metrics: dict[str, Any], folder: Path) -> list[str]:
    """What a person wants to know of a finished run."""
    residual = f"test residual   median {metrics['test_residual']:.1e}, max {metrics['test_max_residual']:.1e}"
    if metrics["configuration"]["mode"] == "direct":
        residual += " of the last layer's state (explicit layers solve no equilibrium)"
    else:
        residual += f", not converged {metrics['test_unconverged']:.1%}"
    if metrics["test_unconverged"] > 0:
        residual += ": try another --solver, more --max-steps or a smaller --state-scale"
    validation = f"validation {metrics['valid_accuracy']:.2%}, " if "valid_accuracy" in metrics else ""
    return [
        f"test accuracy   {metrics['test_accuracy']:.2%} of {metrics['test_samples']} samples "
        f"({validation}chance {1 / metrics['model']['num_classes']:.0%})",
        residual,
        f"training        {metrics['steps']} steps in {metrics['train_seconds']:.1f} s, "
        f"{metrics['ms_per_step']:.2f} ms per step (median, validation apart), {metrics['num_parameters']} parameters "
        f"({metrics['num_weights']} in the circuit)",
        f"circuit         {metrics['model']['num_qubits']} qubits, depth {metrics['depth']}, "
        f"{metrics['two_qubit_gates']} two-qubit gates",
        *_spent(metrics),
        f"written to      {folder}{os.sep}",
    ]


def _spent(metrics: dict[str, Any]) -> list[str]:
    if not metrics["execution"]:
        return []
    charged = metrics["arguments"]["backend"].startswith("ibm:")
    training, evaluation = (metrics["spent"][part]["qpu_seconds"] for part in ("training", "evaluation"))
    seconds = (
        f", {training + evaluation:,.0f} s of QPU time by IBM's formula ({evaluation:,.0f} s of it for the evaluation)"
    )
    return [
        f"executed        {metrics['circuits']:,} circuits, {metrics['shots']:,} shots in {metrics['jobs']:,} jobs on "
        f"{metrics['arguments']['backend']}"
        + (seconds if training + evaluation else "")
        + (f", {metrics['charged_qpu_seconds']:,.0f} s charged" if charged else "")
    ]


def plain(options: TrainArguments) -> dict[str, Any]:
    """Arguments as JSON can hold them."""
    values = dataclasses.asdict(options)
    return {**values, "classes": None if options.classes is None else list(options.classes)}
