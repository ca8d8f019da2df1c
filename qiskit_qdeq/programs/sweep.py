"""Runs of `train` for every combination of some of its options, each with several seeds: a table and a figure."""

from __future__ import annotations

import argparse
import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
from matplotlib.figure import Figure

from qiskit_qdeq.data import DataSplit
from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.programs.arguments import TrainArguments, from_mapping, given, option, parser
from qiskit_qdeq.programs.recipes import model_of, normalization_of, refuse_ineffective, split_of, training_of
from qiskit_qdeq.programs.running import addressed, check_device, execution_of, refuse_without_circuits
from qiskit_qdeq.programs.study import StudyArguments, check_at_least, data_folder, studying
from qiskit_qdeq.studies.markdown import table
from qiskit_qdeq.studies.statistics import Spread
from qiskit_qdeq.studies.tasks import Mapper, Task
from qiskit_qdeq.studies.training_tasks import place, trained
from qiskit_qdeq.visualization._figure import BLUE, GREY, label, legend_below, new_figure

#: What a sweep decides for its runs, and what is the same for all.
_OWN = (
    *("seed", "output", "resume", "overwrite", "no_plots", "dry_run", "quiet", "verbose", "log_file", "data_dir"),
    "init_from",
)
_COLUMNS = ("test_accuracy", "valid_accuracy", "test_loss", "test_unconverged", "circuits", "shots", "ms_per_step")
_MOST_RUNS = 100_000
_QUICK: dict[str, Any] = {"epochs": 3, "limit": 200}


class _Extend(argparse.Action):
    """An option that is given again adds to what it had."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        found = getattr(namespace, self.dest)
        setattr(namespace, self.dest, [*(found if isinstance(found, list) else ()), *values])


@dataclass(frozen=True)
class SweepArguments(StudyArguments):
    """Options of `sweep`."""

    vary: tuple[str, ...] = option(
        (),
        "option=value,value,... of train; every combination is a run, e.g. solver=newton,broyden",
        nargs="+",
        action=_Extend,
    )
    fixed: tuple[str, ...] = option(
        (), "option=value of train for all runs, e.g. epochs=20 preset=paper", nargs="+", action=_Extend
    )
    seeds: int = option(3, "runs per combination, seeds 0, 1, ...", type=int)
    data_dir: str | None = option(None, "folder with the data set's files; without it images are downloaded")
    quick: bool = option(False, "3 epochs of 200 samples, where nothing else is asked for: all columns, no results")
    output: str = option("sweep", "folder of the sweep; the same folder again goes on where it stopped")


def main(
    backend: str | None = None,
    arguments: Mapping[str, Any] | None = None,
    mode: str | None = None,
    mapper: Mapper = map,
    publish: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Train every combination with every seed; write and return the table.

    Args:
        backend: None, or a text such as "fake:torino" for all runs; a worker opens it itself, so that it is no object.
        arguments: fields of `SweepArguments`.
        mode: None, "job", "batch" or "session", for all runs.
        mapper: spreads the runs, called like `map`; `map` itself: what the arguments `mapper` and `workers` say.
        publish: is given the table.

    Returns:
        What results.json holds: `rows` with `options`, `runs` (folders), `values` per seed, `mean` and `std`.

    Raises:
        InputError: for arguments or data that cannot be used.
        StudyError: if runs failed; the others are kept.
    """
    options = from_mapping(SweepArguments, {} if arguments is None else arguments)
    check_at_least(options, 1, "seeds")
    fixed, varied = _fixed(options, backend, mode), _varied(options)
    if twice := sorted(set(fixed) & set(varied)):
        raise InputError(f"{twice[0]} is both fixed and varied: give one of them")
    combinations = [dict(zip(varied, values, strict=True)) for values in itertools.product(*varied.values())]
    if len(combinations) * options.seeds > _MOST_RUNS:
        raise InputError(
            f"the sweep has {len(combinations) * options.seeds:,} runs, more than {_MOST_RUNS:,}: vary less"
        )
    tasks = [
        Task(f"{_name(chosen)}/seed-{seed}", {**fixed, **chosen, "seed": seed})
        for chosen in combinations
        for seed in range(options.seeds)
    ]
    data_dir = data_folder(options.data_dir, {task.arguments.get("data", "digits") for task in tasks})
    _check([task.arguments for task in tasks[:: options.seeds]], data_dir)
    with studying("sweep", options, mapper, publish) as study:
        work = partial(perform, folder=str(study.folder), data_dir=data_dir)
        found = study.run(tasks, work)
        rows = [
            _row(chosen, found[first : first + options.seeds])
            for chosen, first in zip(combinations, range(0, len(found), options.seeds), strict=True)
        ]
        results = {"rows": rows, "fixed": fixed, "seeds": options.seeds}
        return study.write(results, _markdown(rows), lambda: {"accuracy": draw(rows)})


def command(words: Sequence[str] | None = None) -> int:
    """`python -m qiskit_qdeq sweep`: the exit code."""
    options = parser(SweepArguments, "qiskit_qdeq sweep", "Train every combination of options, with several seeds.")
    main(arguments=given(options, SweepArguments, words))
    return 0


def perform(arguments: Mapping[str, Any], *, folder: str, data_dir: str | None) -> dict[str, Any]:
    """One run, in a folder of its own."""
    label = Task("run", arguments).label
    metrics = trained(arguments, folder=Path(folder) / "runs" / label, data_dir=data_dir)
    kept = {name: metrics[name] for name in (*_COLUMNS, "train_accuracy", "epochs", "steps") if name in metrics}
    return {**kept, "run": label}


def _check(runs: Sequence[Mapping[str, Any]], data_dir: str | None) -> None:
    """Refuse a combination that cannot be trained before the first one is."""
    splits: dict[str, DataSplit] = {}
    devices: set[tuple[str, int]] = set()
    for arguments in runs:
        options = from_mapping(TrainArguments, {**arguments, **place(arguments, data_dir)})
        refuse_ineffective(options)
        if options.backend == "exact":
            refuse_without_circuits(options)
        else:
            execution_of(options, options.seed)
            devices.add((options.backend, options.num_qubits))
        limits = (options.limit, options.limit_train)
        data = repr((options.data, options.num_qubits, options.classes, normalization_of(options), limits))
        if data not in splits:
            splits[data] = split_of(options)
        model = model_of(options, splits[data]).build()
        if options.backend == "exact":
            _ = model.evaluator  # refuses what is too large to be computed
        training_of(options, splits[data])
    for backend, num_qubits in sorted(devices):
        check_device(backend, num_qubits)


def _fixed(options: SweepArguments, backend: str | None, mode: str | None) -> dict[str, Any]:
    fixed: dict[str, Any] = dict(_QUICK) if options.quick else {}
    for name, text in _pairs("fixed", options.fixed).items():
        fixed[name] = _value("fixed", name, text)
    for name, value, example in (("backend", backend, "fake:torino"), ("mode", mode, "batch")):
        if not isinstance(value, str | None):
            raise InputError(
                f"{name} of a sweep must be a text such as {example!r}, got {value!r}: each run opens its own, in a worker"
            )
    return addressed(backend, fixed, mode)[0]


def _varied(options: SweepArguments) -> dict[str, list[Any]]:
    if not options.vary:
        raise InputError("vary must name at least one option of train with its values, such as solver=newton,broyden")
    varied = {}
    for name, text in _pairs("vary", options.vary).items():
        if name == "classes":
            raise InputError("vary: classes is a list itself; make a sweep of each with fixed, classes=0,3,6,9")
        varied[name] = [_value("vary", name, part) for part in text.split(",")]
        if len(set(varied[name])) < len(varied[name]):
            raise InputError(f"vary: {name}={text} names a value twice")
    return varied


def _pairs(what: str, items: Sequence[str]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    names = [item.name for item in dataclasses.fields(TrainArguments) if item.name not in _OWN]
    for item in items:
        name, equals, text = item.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not text:
            raise InputError(f"{what} must be like solver=newton, got {item!r}")
        if name in _OWN:
            raise InputError(f"{what}: {name} is no option of a sweep's runs, which have their own")
        if name not in names:
            raise InputError(f"{what}: train has no option {name!r}; there are {names}")
        if name in pairs:
            raise InputError(f"{what}: {name} is given twice")
        pairs[name] = text
    return pairs


def _value(what: str, name: str, text: str) -> Any:
    """The value of an option of `train`, as the command line would read it."""
    field = next(item for item in dataclasses.fields(TrainArguments) if item.name == name)
    text = text.strip()
    value: Any = text
    if get_type_hints(TrainArguments)[name] is bool:
        if text not in ("true", "false"):
            raise InputError(f"{what}: {name} must be true or false, got {text!r}")
        value = text == "true"
    elif "type" in field.metadata:
        try:
            value = field.metadata["type"](text)
        except (ValueError, argparse.ArgumentTypeError) as error:
            raise InputError(f"{what}: {name}={text} cannot be read: {error}") from None
    read = getattr(from_mapping(TrainArguments, {name: value}), name)
    return list(read) if isinstance(read, tuple) else read


def _name(chosen: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in chosen.items())


def _row(chosen: Mapping[str, Any], runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    values = {name: [run[name] for run in runs] for name in _COLUMNS if name in runs[0]}
    spreads = {name: Spread.of(column) for name, column in values.items()}
    return {
        "options": dict(chosen),
        "runs": [f"runs/{run['run']}" for run in runs],
        "values": values,
        "mean": {name: spread.mean for name, spread in spreads.items()},
        "std": {name: spread.std for name, spread in spreads.items()},
    }


def _markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    names = list(rows[0]["options"])
    measured = any(row["mean"].get("circuits") for row in rows)
    titles = ["test accuracy %", "valid %", "test loss", "not converged %", "ms a step", *(["circuits"] * measured)]
    lines = []
    for row in rows:
        mean, std = row["mean"], row["std"]["test_accuracy"]
        cells = [
            f"{100 * mean['test_accuracy']:.1f}" + ("" if std is None else f" ± {100 * std:.1f}"),
            f"{100 * mean['valid_accuracy']:.1f}" if "valid_accuracy" in mean else "-",
            f"{mean['test_loss']:.3f}",
            f"{100 * mean['test_unconverged']:.1f}",
            f"{mean['ms_per_step']:.3g}",
            *([f"{mean['circuits']:,.0f}"] * measured),
        ]
        lines.append([*map(str, row["options"].values()), *cells])
    return "\n".join(table([*names, *titles], lines, len(names))) + "\n"


def draw(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Test accuracy of every combination: its mean, and a dot per seed."""
    figure = new_figure(5.5, 0.9 + 0.22 * len(rows))
    axes = figure.add_subplot()
    for height, row in enumerate(rows):
        dots = 100 * np.array(row["values"]["test_accuracy"])
        axes.plot(dots, [height] * len(dots), "o", color=GREY, markersize=3, label="" if height else "a seed")
        axes.plot(
            [dots.mean()], [height], "|", color=BLUE, markersize=11, markeredgewidth=2, label="" if height else "mean"
        )
    axes.set_yticks(range(len(rows)), [_name(row["options"]) for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    label(axes, "", "test accuracy (%)", "")
    legend_below(figure)
    return figure
