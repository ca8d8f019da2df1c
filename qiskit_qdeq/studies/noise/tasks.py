"""Tasks of the noise study: train a model, with noise or without, and ask it under every noise, exactly or from shots."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from qiskit.providers import BackendV2

from qiskit_qdeq.data import DataSplit
from qiskit_qdeq.data.split import stratified_subset
from qiskit_qdeq.equilibrium.solvers import Solver
from qiskit_qdeq.execution.description import Execution
from qiskit_qdeq.execution.running import executed
from qiskit_qdeq.programs.folder import CHECKPOINT
from qiskit_qdeq.programs.recipes import capped_solver_of
from qiskit_qdeq.studies.noise.models import StudyModel, build
from qiskit_qdeq.studies.noise.noises import NONE, Noise, NoisyModels
from qiskit_qdeq.studies.noise.response import Response, cosine, gradient, residual, respond
from qiskit_qdeq.studies.profiles import circuits
from qiskit_qdeq.studies.tasks import Task
from qiskit_qdeq.studies.training_tasks import described
from qiskit_qdeq.training.checkpoint import has_checkpoint
from qiskit_qdeq.training.trainer import Trainer

Array = np.ndarray[Any, np.dtype[Any]]

#: Training samples of the minibatch whose gradients are compared.
_MINIBATCH = 64
_SEED_OF_START = 1
_MEASURED_STEPS = 10


def exact_task(arguments: Mapping[str, Any], *, folder: str, data_dir: str | None) -> dict[str, Any]:
    """Train one model with one seed in one noise, and ask it under all noises, with and without mitigation.

    Args:
        arguments: `model`, `trained_in`, `train` (fields of `TrainArguments`), `noises` (words, see `noises`).
        folder: where trained parameters are kept.
        data_dir: where images are.

    Returns:
        `clean` and `noises`: {noise: {mitigation or "": columns}}; `circuits` a prediction; `weights`.
    """
    split, study, parameters, models = _trained(arguments, folder, data_dir)
    model = study.model
    inputs, labels = model.prepare(split.x_test), split.y_test
    minibatch = model.prepare(split.x_train[:_MINIBATCH]), split.y_train[:_MINIBATCH]
    start = model.initial_parameters(_SEED_OF_START + int(arguments["train"]["seed"])).astype(model.dtype)
    clean = respond(model, parameters, inputs, labels, study.solver, study.layers)
    gradients = [gradient(model, study, at, *minibatch) for at in (parameters, start)]
    found: dict[str, Any] = {}
    for word in arguments["noises"]:
        noise = Noise.parse(word)
        found[word] = {"gates": models.gates(noise)}
        for mitigation in ("", *noise.mitigations):
            noisy = models.under(noise, mitigation)
            answer = respond(noisy, parameters, inputs, labels, study.solver, study.layers)
            cosines = [
                cosine(gradient(noisy, study, at, *minibatch), reference)
                for at, reference in zip((parameters, start), gradients, strict=True)
            ]
            found[word][mitigation] = {
                **_compared(answer, clean),
                "residual": residual(noisy, model, parameters, inputs, clean.state),
                "cosine": cosines[0],
                "cosine_start": cosines[1],
                "unconverged": answer.unconverged,
            }
    return {
        "clean": {"accuracy": clean.accuracy, "loss": clean.loss, "unconverged": clean.unconverged},
        "noises": found,
        "circuits": circuits(model, study.config)["inference_circuits"],
        "weights": model.num_weights,
        "test_samples": len(labels),
    }


def measured_task(
    arguments: Mapping[str, Any],
    *,
    folder: str,
    data_dir: str | None,
    backend: BackendV2 | None = None,
    session: Any = None,
    journals: Path | None = None,
) -> dict[str, Any]:
    """Ask a trained model from shots.

    Args:
        arguments: those of `exact_task` without `noises`; `execution` (fields of `Execution`), `samples`, `device` (a name).
        folder: where trained parameters are kept; they are trained where they are missing.
        data_dir: where images are.
        backend: a backend object, with execution's backend "given".
        session: an open one on it.
        journals: folder for the journal of the jobs at a service, which its owner removes when the record is kept.

    Returns:
        Columns as those of `exact_task`, `clean` with the noiseless ones of the same samples, and the cost.
    """
    split, study, parameters, _ = _trained(arguments, folder, data_dir)
    model = study.model
    kept = stratified_subset(split.y_test, arguments["samples"], np.random.default_rng(0))
    inputs, labels = model.prepare(split.x_test[kept]), split.y_test[kept]
    clean = respond(model, parameters, inputs, labels, study.solver, study.layers)
    execution = Execution(**arguments["execution"])
    journal = None if journals is None else journals / f"{Task(arguments['model'], arguments).label}.jsonl"
    with executed(model, execution, backend=backend, session=session, journal=journal) as measured:
        answer = respond(measured, parameters, inputs, labels, _measured(study), study.layers)
        gates = measured.evaluator.runner.circuit  # type: ignore[attr-defined]
    return {
        "device": arguments["device"],
        **_compared(answer, clean),
        "unconverged": answer.unconverged,
        "clean": {"accuracy": clean.accuracy, "loss": clean.loss},
        "gates": {"two_qubit_gates": int(gates.num_nonlocal_gates()), "depth": int(gates.depth())},
        "circuits": answer.cost.circuits,
        "shots": answer.cost.shots,
        "jobs": answer.cost.jobs,
        "qpu_seconds": answer.cost.qpu_seconds,
        "samples": len(labels),
    }


def _trained(
    arguments: Mapping[str, Any], folder: str, data_dir: str | None
) -> tuple[DataSplit, StudyModel, Array, NoisyModels]:
    """Trained here, gone on with, or found."""
    own = {name: arguments[name] for name in ("model", "trained_in", "train")}
    words = [own["model"], own["train"]["encoding"], own["trained_in"], own["train"]["seed"]]
    place = Path(folder) / "trained" / Task("-".join(map(str, words)), own).label
    _, split, _ = described(own["train"], data_dir)
    study = build(own["model"], own["train"], split)
    models = NoisyModels(study.model)
    trainer = Trainer(
        models.under(Noise.parse(own["trained_in"])),
        study.config,
        *(split.x_train, split.y_train, split.x_valid, split.y_valid),
        checkpoint=place / CHECKPOINT,
    )
    if has_checkpoint(place / CHECKPOINT):
        trainer.resume()
    return split, study, trainer.run().parameters, models


def _compared(answer: Response, clean: Response) -> dict[str, float]:
    return {
        "accuracy": answer.accuracy,
        "loss": answer.loss,
        "bias": float(np.abs(answer.values - clean.values).mean()),
    }


def _measured(study: StudyModel) -> Solver | None:
    """The solver that takes the fewest circuits."""
    return None if study.solver is None else capped_solver_of(study.model, _MEASURED_STEPS)


def exact_arguments(model: str, trained_in: str, train: Mapping[str, Any], noises: tuple[str, ...]) -> dict[str, Any]:
    """Of `exact_task`."""
    return {"model": model, "trained_in": trained_in, "train": dict(train), "noises": list(noises)}


def measured_arguments(
    model: str, train: Mapping[str, Any], samples: int, device: str, **execution: Any
) -> dict[str, Any]:
    """Of `measured_task`, for a model trained without noise."""
    return {
        "model": model,
        "trained_in": NONE,
        "train": dict(train),
        "samples": samples,
        "device": device,
        "execution": {"seed": int(train["seed"]), **execution},
    }
