"""Evaluate the checkpoint of a run on a data set."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qiskit_qdeq._files import write_json
from qiskit_qdeq.data import load_split
from qiskit_qdeq.equilibrium.solvers import Solver, solver
from qiskit_qdeq.evaluation.protocol import Part
from qiskit_qdeq.exceptions import CheckpointError, InputError
from qiskit_qdeq.execution.journal import Journal
from qiskit_qdeq.inference import Metrics, evaluate
from qiskit_qdeq.model import QDEQModel
from qiskit_qdeq.programs.arguments import EvaluateArguments, from_mapping, given, parser
from qiskit_qdeq.programs.folder import CHECKPOINT, EVALUATION_JOURNAL
from qiskit_qdeq.programs.logs import logged
from qiskit_qdeq.programs.recipes import measured_solver_of
from qiskit_qdeq.programs.running import Device, addressed, described, is_service, running
from qiskit_qdeq.programs.stored import load_model
from qiskit_qdeq.studies.tasks import Mapper
from qiskit_qdeq.training.checkpoint import load_checkpoint
from qiskit_qdeq.training.cost_estimate import CostEstimate
from qiskit_qdeq.training.progress import ProgressBar

Array = np.ndarray[Any, np.dtype[Any]]


def main(
    backend: Any = None,
    arguments: Mapping[str, Any] | None = None,
    mode: Any = None,
    mapper: Mapper = map,
    publish: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Evaluate a run's best parameters.

    Args:
        backend: where circuits run: None, a text such as "fake:torino", or a BackendV2.
        arguments: fields of `EvaluateArguments`.
        mode: None, "job", "batch" or "session", or an open `Session` or `Batch` on the backend object.
        mapper: for studies; a run is one task and is not spread.
        publish: is given each line of the summary.

    Returns:
        What `--json` writes; with `dry_run` what `CostEstimate.as_dict` holds, and nothing is executed or written.

    Raises:
        CheckpointError: for a damaged or foreign checkpoint.
        InputError: for arguments or data that do not fit it.
    """
    values, device = addressed(backend, arguments, mode)
    options = from_mapping(EvaluateArguments, values)
    if not options.directory:
        raise InputError("directory must name the folder of a run or its checkpoint file")
    with logged(options):
        run = _Run.of(options)
        if options.dry_run:
            return _dry_run(run, options, device, publish)
        # what an evaluation that died has paid for is fetched by the next one; a complete one leaves nothing to fetch
        path = run.path.parent / EVALUATION_JOURNAL if is_service(options.backend, device) else None
        found = _evaluated(run, options, device, path)
        metrics = _metrics(run, options, found)
        if options.json:
            write_json(Path(options.json), metrics)
        if not options.quiet:
            publish(
                f"{options.split} accuracy {found.accuracy:.2%} of {len(run.inputs)} samples, loss {found.loss:.4f}, "
                f"residual median {found.residual:.1e}, not converged {found.unconverged:.1%}"
                + (f"; under noise {options.noise}" if options.noise else "")
                + (f"; {found.cost.circuits:,} circuits in {found.cost.jobs:,} jobs" if found.cost.circuits else "")
            )
        if path is not None:
            path.unlink(missing_ok=True)
    return metrics


@dataclass(frozen=True)
class _Run:
    """A trained run, and the samples on which it is evaluated."""

    path: Path
    model: QDEQModel
    parameters: Array
    solver: Solver | None
    layers: int
    data: str
    inputs: Array
    labels: Array

    @classmethod
    def of(cls, options: EvaluateArguments) -> _Run:
        """What the checkpoint says, and the options beside it."""
        path = Path(options.directory)
        path = path / CHECKPOINT if path.is_dir() else path
        checkpoint = load_checkpoint(path)
        model, parameters = load_model(checkpoint)
        try:
            notes, training = _DataNotes(**checkpoint.document["notes"]["data"]), checkpoint.document["training"]
            chosen, layers = _solver(options, training, model), training["layers"]
        except (KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"Checkpoint '{checkpoint.path}' does not describe a run: {error}") from error
        split = load_split(
            options.data or notes.name,
            data_dir=_data_dir(options, notes),
            classes=notes.classes,
            num_qubits=notes.num_qubits,
            limit=notes.limit if options.limit is None else options.limit,
            limit_train=notes.limit_train if options.limit is None else None,
            normalization=notes.normalization,
        )
        inputs = model.prepare(getattr(split, f"x_{options.split}"))
        labels = getattr(split, f"y_{options.split}")
        return cls(path, model, parameters, chosen, layers, split.name, inputs, labels)


def _evaluated(run: _Run, options: EvaluateArguments, device: Device, path: Path | None) -> Metrics:
    journal = None if path is None else Journal(path)
    with (
        ProgressBar(not options.quiet) as bar,
        running(run.model, options, options.seed, journal, device) as executed,
    ):
        executed.evaluator.listen(bar.on_job)
        executed.evaluator.start_step(0, 1, Part.TEST)
        tell = bar.evaluation(executed, options.split, len(run.inputs))
        return evaluate(executed, run.parameters, run.inputs, run.labels, run.solver, layers=run.layers, tell=tell)


def _metrics(run: _Run, options: EvaluateArguments, found: Metrics) -> dict[str, Any]:
    return {
        "accuracy": found.accuracy,
        "loss": found.loss,
        "residual": found.residual,
        "max_residual": found.max_residual,
        "unconverged": found.unconverged,
        "mean_steps": found.mean_steps,
        "samples": len(run.inputs),
        "backend": options.backend,
        "circuits": found.cost.circuits,
        "shots": found.cost.shots,
        "jobs": found.cost.jobs,
        "qpu_seconds": found.cost.qpu_seconds,
        "data": run.data,
        "split": options.split,
        "checkpoint": str(run.path),
        "solver": None if run.solver is None else run.solver.name,
        "arguments": dataclasses.asdict(options),
    }


def _dry_run(run: _Run, options: EvaluateArguments, device: Device, publish: Callable[[str], None]) -> dict[str, Any]:
    """What the evaluation would cost."""
    with described(run.model, options, options.seed, device) as measured:
        found = CostEstimate.of_evaluation(measured, len(run.inputs), run.solver, layers=run.layers)
    if not options.quiet:
        publish(str(found))
    return found.as_dict()


def command(words: Sequence[str] | None = None) -> int:
    """`python -m qiskit_qdeq evaluate DIR`: the exit code."""
    options = parser(EvaluateArguments, "qiskit_qdeq evaluate", "Evaluate a trained run on a data set.")
    main(arguments=given(options, EvaluateArguments, words))
    return 0


@dataclass(frozen=True)
class _DataNotes:
    """Which samples a run was trained on, as its checkpoint says."""

    name: str
    classes: list[int]
    num_qubits: int
    limit: int | None
    limit_train: int | None = None
    normalization: str = "mnist"
    data_dir: str | None = None


def _data_dir(options: EvaluateArguments, notes: _DataNotes) -> str | None:
    """The folder given, or the run's own where it holds the data set asked for and is still there."""
    if options.data_dir is not None or options.data not in (None, notes.name):
        return options.data_dir
    return notes.data_dir if isinstance(notes.data_dir, str) and os.path.exists(notes.data_dir) else None


def _solver(options: EvaluateArguments, training: dict[str, Any], model: QDEQModel) -> Solver | None:
    """The run's own forward solver, or the one asked for; None in direct mode.

    Newton of a run trained exactly would measure a Jacobian at every step, so what needs fewer circuits takes its place.
    """
    if training["mode"] == "direct":
        for name in ("solver", "tol"):
            if getattr(options, name) is not None:
                raise InputError(f"{name} cannot be given: the run was trained with explicit layers (--mode direct)")
        return None
    stored = dict(training["solver"])
    name = stored.pop("name")
    if name == "scipy":
        name = f"scipy:{stored.pop('method')}"
    wanted = options.solver
    if wanted is None and options.backend != "exact" and name == "newton":
        wanted = measured_solver_of(model)
    if wanted is not None and wanted != name:
        name, stored = wanted, {"tol": stored["tol"], "rtol": stored["rtol"]}
    if options.tol is not None:
        stored["tol"] = options.tol
    found: Solver = solver(name, **stored)
    return found
