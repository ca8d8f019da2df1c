"""Time and memory of training steps, measured in a process of its own; circuits that a device would run for them."""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from qiskit_qdeq.data import DataSplit
from qiskit_qdeq.execution.description import Execution
from qiskit_qdeq.execution.running import executed
from qiskit_qdeq.gradient.regularization import Regularization
from qiskit_qdeq.model import QDEQModel
from qiskit_qdeq.programs.arguments import TrainArguments, from_mapping
from qiskit_qdeq.programs.recipes import capped_solver_of, model_of, training_of
from qiskit_qdeq.studies.fresh import in_fresh_process, peak_mib
from qiskit_qdeq.studies.training_tasks import described
from qiskit_qdeq.training.config import TrainingConfig
from qiskit_qdeq.training.cost import predicted_evaluation, predicted_step
from qiskit_qdeq.training.trainer import Trainer

#: Steps that are timed, after two that are not.
_STEPS = 20
_SAMPLES = 5632
_FILE = "samples.npz"


def profile_task(arguments: Mapping[str, Any], *, data_dir: str | None) -> dict[str, Any]:
    """`ms_per_step`, `peak_mib` of the whole process, `train_circuits` a full step and `inference_circuits` a sample.

    Milliseconds are the mean without the slowest tenth, on the run's samples, 5,632 of them at most. Circuits are those of
    the cheapest way at equal accuracy: `probe` for amplitude encoding, Broyden's ten steps at most for others (an upper
    bound then), all weight shifts, no Jacobian penalty.

    Raises:
        ExecutionError: if the process fails, with what it said.
    """
    arguments = {**arguments, "limit_train": min(arguments.get("limit") or _SAMPLES, _SAMPLES)}
    options, split, _ = described(arguments, data_dir)
    with tempfile.TemporaryDirectory() as folder:
        # the process that is measured shall not hold what reading a data set takes
        np.savez(Path(folder) / _FILE, x=split.x_train[:_SAMPLES], y=split.y_train[:_SAMPLES])
        question = {**dataclasses.asdict(options), "classes": list(split.classes), "folder": folder}
        return in_fresh_process("qiskit_qdeq.studies.profiles", question)


def _measure(folder: str, **arguments: Any) -> dict[str, Any]:
    options = from_mapping(TrainArguments, arguments)
    with np.load(Path(folder) / _FILE, allow_pickle=False) as arrays:
        x, y = arrays["x"], arrays["y"]
    split = DataSplit(x, y, x[:1], y[:1], x[:1], y[:1], tuple(arguments["classes"]), options.data, (1, x.shape[1]))
    model, config = model_of(options, split).build(), training_of(options, split)
    # a step of so few samples takes them all
    config = replace(config, batch_size=min(config.batch_size, len(x)))
    # a data set smaller than the steps asked for is gone through more than once
    epochs = -(-(2 + _STEPS) * config.batch_size // len(x))
    # half of a run with warm-up takes explicit layers
    steps = epochs * -(-len(x) // config.batch_size)
    config = replace(config, epochs=epochs, warmup_steps=steps // 2 if config.warmup_steps else 0)
    trainer = Trainer(model, config, x, y)
    trainer.run()
    return {
        "ms_per_step": 1e3 * float(np.mean(_middle(np.array(trainer.step_seconds[2:])))),
        "peak_mib": peak_mib(),
        **circuits(model, config),
    }


def _middle(durations: np.ndarray[Any, np.dtype[Any]]) -> np.ndarray[Any, np.dtype[Any]]:
    """Without the slowest tenth, in which the system did something else."""
    return np.sort(durations)[: max(1, round(0.9 * len(durations)))]


def circuits(model: QDEQModel, config: TrainingConfig) -> dict[str, int]:
    """Circuits of a training step and of predicting one sample, where they are measured."""
    config = replace(
        config,
        regularization=Regularization(),
        warmup_steps=0,
        solver=capped_solver_of(model, min(10, config.solver.max_steps)),
    )
    config = replace(config, backward=replace(config.backward, mode="exact"))
    found = None if config.mode == "direct" else config.solver
    with executed(model, Execution("aer", shots=1024)) as measured:
        step = predicted_step(measured, config, config.batch_size)
        one, two = (predicted_evaluation(measured, count, found, layers=config.layers).circuits for count in (1, 2))
    # what a minibatch shares is no cost of a sample
    return {"train_circuits": step.circuits, "inference_circuits": two - one}


if __name__ == "__main__":
    print(json.dumps(_measure(**json.load(sys.stdin))))
