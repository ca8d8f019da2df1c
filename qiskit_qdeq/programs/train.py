"""Train and evaluate a model on a data set; writes metrics, checkpoint and figures to a folder.

`main` is the program for Python callers; `command` the same from a command line.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import platform
import shlex
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from qiskit_qdeq.data import DataSplit, load_split
from qiskit_qdeq.evaluation.protocol import Part
from qiskit_qdeq.exceptions import (
    BudgetError,
    CheckpointError,
    CheckpointWarning,
    InputError,
    ServiceError,
    warn_user,
)
from qiskit_qdeq.execution.journal import Journal
from qiskit_qdeq.inference import evaluate
from qiskit_qdeq.model import QDEQModel
from qiskit_qdeq.programs.arguments import ABOUT_WORDS, TrainArguments, from_mapping, given, parser, with_execution_mode
from qiskit_qdeq.programs.folder import (
    CHECKPOINT,
    JOURNAL,
    METRICS,
    earlier_folder,
    earlier_run,
    new_run,
    remove_results,
    remove_run,
)
from qiskit_qdeq.programs.logs import logged
from qiskit_qdeq.programs.recipes import model_of, refuse_ineffective, training_of
from qiskit_qdeq.programs.running import described, is_service, running
from qiskit_qdeq.programs.stopping import stopping
from qiskit_qdeq.programs.stored import load_model
from qiskit_qdeq.training.callbacks import TrainingResult
from qiskit_qdeq.training.checkpoint import Checkpoint, has_checkpoint, load_latest
from qiskit_qdeq.training.config import TrainingConfig
from qiskit_qdeq.training.cost_estimate import estimate_cost
from qiskit_qdeq.training.identity import circuit_digest
from qiskit_qdeq.training.progress import ProgressBar
from qiskit_qdeq.training.state import SPENT, versions
from qiskit_qdeq.training.trainer import Trainer


def main(arguments: Mapping[str, Any] | None = None, *, publish: Callable[[str], None] = print) -> dict[str, Any]:
    """Train, evaluate on the test part, write the run's folder, and return its metrics.

    Args:
        arguments: fields of `TrainArguments`; what is left out has its default.
        publish: is given each line of the summary.

    Returns:
        What metrics.json holds: test_accuracy, test_loss, test_residual, ms_per_step, num_weights, depth,
        two_qubit_gates, circuits, shots, the configuration, seeds and versions. With `dry_run` what
        `CostEstimate.as_dict` holds; nothing is executed or written then.

    Raises:
        InputError: for arguments or data that cannot be used.
        QDEQError: for a run that cannot go on; its checkpoint is kept.
        KeyboardInterrupt: after Ctrl-C or SIGTERM, once a checkpoint of the last step is written.
    """
    values = with_execution_mode({} if arguments is None else arguments)
    options = _with_whole_path(from_mapping(TrainArguments, values))
    with ExitStack() as stack:
        stack.enter_context(logged(options))
        earlier = None
        if options.resume:
            folder = earlier_folder(options) if options.dry_run else stack.enter_context(earlier_run(options))
            earlier = load_latest(folder / CHECKPOINT)
            options = _continued(options, values, earlier)
        refuse_ineffective(options)
        split = load_split(
            options.data,
            data_dir=options.data_dir,
            classes=options.classes,
            num_qubits=options.num_qubits,
            limit=options.limit,
        )
        model_config, config = model_of(options, split), training_of(options, split)
        model = model_config.build()
        if options.dry_run:
            return _dry_run(options, split, model, config, earlier, publish)
        if not options.resume:
            folder = stack.enter_context(new_run(options))
        bar = stack.enter_context(ProgressBar(not options.quiet))
        journal = _journal(options, folder, earlier)
        executed = stack.enter_context(running(model, options, options.seed, journal))
        trainer = Trainer(
            executed,
            config,
            split.x_train,
            split.y_train,
            split.x_valid,
            split.y_valid,
            callbacks=[bar],
            checkpoint=folder / CHECKPOINT,
            # a step at a service takes seconds and costs money, its checkpoint milliseconds
            checkpoint_every=options.checkpoint_every or int(is_service(options)),
            initial_parameters=_initial(options, model),
            notes={
                "data": _data_notes(options, split),
                "model": model_config.as_dict(),
                "arguments": _plain(options),
                **({} if journal is None else {"journal": journal.run}),
            },
        )
        if earlier is not None:
            trainer.resume(earlier)
            if not trainer.finished:
                remove_results(folder)
        elif options.overwrite:
            remove_run(folder)
            if journal is not None:
                journal.replace()
        try:
            result, seconds = _trained(trainer)
            metrics = _metrics(options, split, executed, config, result, bar)
            metrics |= {
                "train_seconds": seconds,
                "ms_per_step": 1e3 * statistics.median(trainer.step_seconds) if trainer.step_seconds else 0.0,
                **(_timings(folder / METRICS) if not trainer.step_seconds else {}),
                "model": model_config.as_dict(),
                "versions": versions(),
                "machine": {"processor": platform.machine(), "cpus": os.cpu_count()},
            }
            write_json(folder / METRICS, metrics)
            if not options.no_plots:
                from qiskit_qdeq.programs.figures import draw_run

                draw_run(folder, model, config, result, split)
        except KeyboardInterrupt as stop:
            raise type(stop)(_how_to_go_on(folder)) from None
        except (BudgetError, ServiceError) as stop:
            larger = " --budget MORE" if isinstance(stop, BudgetError) else ""
            raise type(stop)(f"{stop}; {_how_to_go_on(folder)}{larger}") from None
    if not options.quiet:
        for line in _summary(metrics, folder):
            publish(line)
    return metrics


def command(words: Sequence[str] | None = None) -> int:
    """`python -m qiskit_qdeq train`: the exit code."""
    options = parser(TrainArguments, "qiskit_qdeq train", "Train and evaluate a QDEQ on a data set.")
    main(given(options, TrainArguments, words))
    return 0


def _journal(options: TrainArguments, folder: Path, earlier: Checkpoint | None) -> Journal | None:
    """The run's journal of jobs at a service, under the name that its checkpoint keeps."""
    path = folder / JOURNAL
    if not is_service(options):
        return None
    if earlier is None:
        return Journal.replacing(path) if options.overwrite else Journal(path)
    notes = earlier.document.get("notes")
    name = notes.get("journal") if isinstance(notes, dict) else None
    progress = earlier.document.get("progress")
    if not path.exists() and isinstance(progress, dict) and progress.get("step"):
        warn_user(
            f"the journal {path} is gone: jobs after the last checkpoint are found again at the service, but what was spent "
            "before it is not known any more, neither to --budget nor to the metrics",
            CheckpointWarning,
        )
    return Journal(path, run=name if isinstance(name, str) else None)


def _dry_run(
    options: TrainArguments,
    split: DataSplit,
    model: QDEQModel,
    config: TrainingConfig,
    earlier: Checkpoint | None,
    publish: Callable[[str], None],
) -> dict[str, Any]:
    """What the run would cost, or what is left of the earlier one."""
    with described(model, options, options.seed) as measured:
        parts = split.x_train, split.y_train, split.x_valid, split.y_valid
        trainer = Trainer(measured, config, *parts, initial_parameters=_initial(options, model))
        if earlier is not None:
            trainer.resume(earlier)
        valid, test = len(split.x_valid), len(split.x_test)
        first = trainer.total_steps if trainer.finished else trainer.state.step
        # epochs of the equilibrium are validated, and the best one's figures are not measured again at the end
        validated = config.mode == "direct" or config.warmup_steps < trainer.total_steps
        found = estimate_cost(
            measured, config, len(split.x_train), valid, test if validated else (valid, test), first_step=first
        )
    if not options.quiet:
        publish(str(found))
    return found.as_dict()


def _initial(options: TrainArguments, model: QDEQModel) -> Any:
    """The parameters to start from, None for random ones."""
    if options.init_from is None:
        return None
    path = Path(options.init_from)
    other, parameters = load_model(load_latest(path / CHECKPOINT if path.is_dir() else path))
    if circuit_digest(other) != circuit_digest(model):
        raise InputError(
            f"--init-from {options.init_from}: its model is {other!r}, this run's is {model!r}; they must be the same"
        )
    return parameters


def _trained(trainer: Trainer) -> tuple[TrainingResult, float]:
    started = time.perf_counter()
    with stopping(trainer.stop) as raise_if_stopped:
        result = trainer.run()
        raise_if_stopped()
    return result, time.perf_counter() - started


def _timings(path: Path) -> dict[str, float]:
    """Those of the process that trained, where this one had no step left to take."""
    try:
        earlier = json.loads(path.read_text("utf-8"))
        return {name: float(earlier[name]) for name in ("train_seconds", "ms_per_step")}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _how_to_go_on(folder: Path) -> str:
    if not has_checkpoint(folder / CHECKPOINT):
        return "no step was finished, nothing is kept"
    return f"to go on: python -m qiskit_qdeq train --resume --output {shlex.quote(str(folder))}"


def _with_whole_path(options: TrainArguments) -> TrainArguments:
    """With a data_dir that another working folder understands too: the run keeps it."""
    if options.data_dir is None:
        return options
    return dataclasses.replace(options, data_dir=os.path.abspath(os.path.expanduser(options.data_dir)))


def _plain(options: TrainArguments) -> dict[str, Any]:
    values = dataclasses.asdict(options)
    return {**values, "classes": None if options.classes is None else list(options.classes)}


def _continued(options: TrainArguments, values: Mapping[str, Any], earlier: Checkpoint) -> TrainArguments:
    """The options of the run to resume, where this call's own values do not replace them."""
    notes = earlier.document.get("notes")
    stored = notes.get("arguments") if isinstance(notes, dict) else None
    if not isinstance(stored, dict):
        raise CheckpointError(f"Checkpoint '{earlier.path}' is not of a run of this program: resume it where it began")
    about_this_call = {"output", "resume", "overwrite", "no_plots", "checkpoint_every", "dry_run", *ABOUT_WORDS}
    kept = {
        item.name: stored[item.name]
        for item in dataclasses.fields(TrainArguments)
        if item.name in stored and item.name not in about_this_call and item.name not in values
    }
    return from_mapping(TrainArguments, {**dataclasses.asdict(options), **kept})


def _data_notes(options: TrainArguments, split: DataSplit) -> dict[str, Any]:
    return {
        "name": options.data,
        "classes": list(split.classes),
        "num_qubits": options.num_qubits,
        "limit": options.limit,
        "data_dir": options.data_dir,
    }


def _metrics(
    options: TrainArguments,
    split: DataSplit,
    model: QDEQModel,
    config: TrainingConfig,
    result: TrainingResult,
    bar: ProgressBar,
) -> dict[str, Any]:
    solver = None if config.mode == "direct" else config.solver
    parts: dict[str, Any] = {}
    spent = {name: sum(record.get(name, 0) for record in result.history) for name in SPENT}
    model.evaluator.start_step(result.steps, result.steps, Part.TEST)
    measured_already = _validated(result, len(split.x_valid)) if not model.evaluator.is_exact else {}
    for part in ("test",) if measured_already else ("valid", "test"):
        inputs = model.prepare(getattr(split, f"x_{part}")).astype(model.dtype)
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
        # what the service has charged, failed jobs included; without a service what its formula says
        "charged_qpu_seconds": account.spent.qpu_seconds if account is not None else 0.0,
        "execution": model.evaluator.description,
        "steps": result.steps,
        "epochs": len(result.history),
        "best_epoch": result.best_epoch,
        "stopped": result.stopped,
        "seed": config.seed,
        "seeds": {"training": config.seed, "split": "the loader's default"},
        "arguments": {**_plain(options), "classes": list(split.classes)},
        "configuration": config.as_dict(),
    }


def _validated(result: TrainingResult, samples: int) -> dict[str, Any]:
    """What the epoch of the best parameters measured on the validation part: measuring it again costs as much again."""
    if result.best_epoch < 1:
        return {}
    record = result.history[result.best_epoch - 1]
    figures = {f"valid_{name}": record[f"valid_{name}"] for name in ("accuracy", "loss", "residual")}
    return {**figures, "valid_samples": samples}


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
        *_spent(metrics),
        f"written to      {folder}{os.sep}",
    ]


def _spent(metrics: dict[str, Any]) -> list[str]:
    if not metrics["execution"]:
        return []
    charged = metrics["arguments"]["backend"].startswith("ibm:")
    return [
        f"executed        {metrics['circuits']:,} circuits, {metrics['shots']:,} shots in {metrics['jobs']:,} jobs on "
        f"{metrics['arguments']['backend']}"
        + (f", {metrics['qpu_seconds']:,.0f} s of QPU time by IBM's formula" if metrics["qpu_seconds"] else "")
        + (f", {metrics['charged_qpu_seconds']:,.0f} s charged" if charged else "")
    ]


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write a JSON file in one piece: what was there before stays until the new one is complete.

    Raises:
        OSError: naming the file, if it cannot be written.
    """
    temporary = path.parent / f".{path.name}.{os.getpid()}.tmp"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(values, indent=2, allow_nan=False) + "\n", "utf-8")
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise OSError(f"{path} cannot be written: {error.strerror or error}") from error
