"""Train and evaluate a model on a data set; writes metrics, checkpoint and figures to a folder.

`main` is the program for Python callers; `command` the same from a command line.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import shlex
import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from qiskit_qdeq._files import write_json
from qiskit_qdeq.data import DataSplit
from qiskit_qdeq.exceptions import (
    BudgetError,
    CheckpointError,
    InputError,
    ServiceError,
)
from qiskit_qdeq.execution.journal import Journal
from qiskit_qdeq.model import QDEQModel
from qiskit_qdeq.programs.arguments import ABOUT_WORDS, TrainArguments, from_mapping, given, parser, whole_path
from qiskit_qdeq.programs.economy import economical
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
from qiskit_qdeq.programs.recipes import model_of, normalization_of, refuse_ineffective, split_of, training_of
from qiskit_qdeq.programs.report import metrics_of, plain, summary
from qiskit_qdeq.programs.running import Device, addressed, described, is_service, running
from qiskit_qdeq.programs.stopping import stopping
from qiskit_qdeq.programs.stored import load_model
from qiskit_qdeq.studies.tasks import Mapper
from qiskit_qdeq.training.callbacks import TrainingResult
from qiskit_qdeq.training.checkpoint import Checkpoint, has_checkpoint, load_latest
from qiskit_qdeq.training.config import TrainingConfig
from qiskit_qdeq.training.cost_estimate import estimate_cost
from qiskit_qdeq.training.identity import circuit_digest
from qiskit_qdeq.training.progress import ProgressBar
from qiskit_qdeq.training.state import versions
from qiskit_qdeq.training.trainer import Trainer


def main(
    backend: Any = None,
    arguments: Mapping[str, Any] | None = None,
    mode: Any = None,
    mapper: Mapper = map,
    publish: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Train, evaluate on the test part, write the run's folder, and return its metrics.

    Args:
        backend: where circuits run: None, a text such as "fake:torino", or a BackendV2.
        arguments: fields of `TrainArguments`; what is left out has its default.
        mode: None, "job", "batch" or "session", or an open `Session` or `Batch` on the backend object.
        mapper: for studies; a run is one task and is not spread.
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
    values, device = addressed(backend, arguments, mode)
    options = from_mapping(TrainArguments, values)
    # the run keeps it, and may go on in another working folder
    options = dataclasses.replace(options, data_dir=whole_path(options.data_dir))
    with ExitStack() as stack:
        stack.enter_context(logged(options))
        earlier = None
        if options.resume:
            folder = earlier_folder(options) if options.dry_run else stack.enter_context(earlier_run(options))
            earlier = load_latest(folder / CHECKPOINT)
            options = _continued(options, values, earlier)
        refuse_ineffective(options)
        split = split_of(options)
        model_config = model_of(options, split)
        model = model_config.build()
        if options.economy and earlier is None:
            planned = economical(options, split, model, publish, device)
            if planned.limit_train != options.limit_train:
                split = split_of(planned)
            options = planned
        config = training_of(options, split)
        if options.dry_run:
            return _dry_run(options, split, model, config, earlier, publish, device)
        if not options.resume:
            folder = stack.enter_context(new_run(options))
        bar = stack.enter_context(ProgressBar(not options.quiet))
        journal = _journal(options, folder, earlier) if is_service(options.backend, device) else None
        executed = stack.enter_context(running(model, options, options.seed, journal, device))
        trainer = Trainer(
            executed,
            config,
            split.x_train,
            split.y_train,
            *_validation(options, split),
            callbacks=[bar],
            checkpoint=folder / CHECKPOINT,
            # a step at a service takes seconds and costs money, its checkpoint milliseconds
            checkpoint_every=options.checkpoint_every or int(is_service(options.backend, device)),
            initial_parameters=_initial(options, model),
            notes={
                "data": _data_notes(options, split),
                "model": model_config.as_dict(),
                "arguments": plain(options),
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
            result = _trained(trainer)
            metrics = metrics_of(options, split, executed, config, result, bar)
            metrics |= {
                "train_seconds": trainer.state.clock.seconds,
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
        for line in summary(metrics, folder):
            publish(line)
    return metrics


def command(words: Sequence[str] | None = None) -> int:
    """`python -m qiskit_qdeq train`: the exit code."""
    options = parser(TrainArguments, "qiskit_qdeq train", "Train and evaluate a QDEQ on a data set.")
    main(arguments=given(options, TrainArguments, words))
    return 0


def _journal(options: TrainArguments, folder: Path, earlier: Checkpoint | None) -> Journal:
    """The run's journal of jobs at a service, under the name that its checkpoint keeps."""
    path = folder / JOURNAL
    if earlier is None:
        return Journal.replacing(path) if options.overwrite else Journal(path)
    notes = earlier.document.get("notes")
    name = notes.get("journal") if isinstance(notes, dict) else None
    return Journal(path, run=name if isinstance(name, str) else None)


def _dry_run(
    options: TrainArguments,
    split: DataSplit,
    model: QDEQModel,
    config: TrainingConfig,
    earlier: Checkpoint | None,
    publish: Callable[[str], None],
    device: Device,
) -> dict[str, Any]:
    """What the run would cost, or what is left of the earlier one."""
    with described(model, options, options.seed, device) as measured:
        parts = split.x_train, split.y_train, *_validation(options, split)
        trainer = Trainer(measured, config, *parts, initial_parameters=_initial(options, model))
        if earlier is not None:
            trainer.resume(earlier)
        valid, test = 0 if options.economy else len(split.x_valid), len(split.x_test)
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


def _trained(trainer: Trainer) -> TrainingResult:
    with stopping(trainer.stop) as raise_if_stopped:
        result = trainer.run()
        raise_if_stopped()
    return result


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


def _continued(options: TrainArguments, values: Mapping[str, Any], earlier: Checkpoint) -> TrainArguments:
    """The options of the run to resume, where this call's own values do not replace them."""
    notes = earlier.document.get("notes")
    stored = notes.get("arguments") if isinstance(notes, dict) else None
    if not isinstance(stored, dict):
        raise CheckpointError(f"Checkpoint '{earlier.path}' is not of a run of this program: resume it where it began")
    if options.economy and not stored.get("economy"):
        raise InputError("--economy plans a run from its beginning: leave it out to resume one that began without it")
    about_this_call = {"output", "resume", "overwrite", "no_plots", "checkpoint_every", "dry_run", *ABOUT_WORDS}
    kept = {
        item.name: stored[item.name]
        for item in dataclasses.fields(TrainArguments)
        if item.name in stored and item.name not in about_this_call and item.name not in values
    }
    return from_mapping(TrainArguments, {**dataclasses.asdict(options), **kept})


def _validation(options: TrainArguments, split: DataSplit) -> tuple[Any, Any]:
    """Validation samples; an economical run spends nothing on choosing among epochs."""
    return (None, None) if options.economy else (split.x_valid, split.y_valid)


def _data_notes(options: TrainArguments, split: DataSplit) -> dict[str, Any]:
    return {
        "name": options.data,
        "classes": list(split.classes),
        "num_qubits": options.num_qubits,
        "limit": options.limit,
        "limit_train": options.limit_train,
        "normalization": normalization_of(options),
        "data_dir": options.data_dir,
    }
