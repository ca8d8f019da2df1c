"""Do richer readouts earn their shot noise? Test accuracy against shots per circuit for products of one to four Z.

A model of the default preset is trained exactly for every readout, then evaluated from 100 to 100,000 shots per circuit.
All its observables come from the same bitstrings, so that the readouts cost the same circuits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from qiskit_qdeq.circuits.observables import READOUTS
from qiskit_qdeq.data.split import stratified_subset
from qiskit_qdeq.equilibrium.solvers import solver
from qiskit_qdeq.execution.description import Execution
from qiskit_qdeq.execution.running import executed
from qiskit_qdeq.inference import evaluate
from qiskit_qdeq.programs.arguments import from_mapping, given, option, parser
from qiskit_qdeq.programs.folder import CHECKPOINT
from qiskit_qdeq.programs.recipes import model_of
from qiskit_qdeq.programs.stored import load_model
from qiskit_qdeq.programs.study import DataStudyArguments, check_at_least, data_folder, refuse_backend, studying
from qiskit_qdeq.studies.markdown import table
from qiskit_qdeq.studies.statistics import Spread
from qiskit_qdeq.studies.tasks import Mapper, Task
from qiskit_qdeq.studies.training_tasks import described, train_task
from qiskit_qdeq.training.checkpoint import load_latest
from qiskit_qdeq.visualization._figure import BLACK, CYCLE, label, legend, new_figure

SHOTS = (100, 300, 1_000, 3_000, 10_000, 30_000, 100_000)


@dataclass(frozen=True)
class ReadoutArguments(DataStudyArguments):
    """Options of `readouts`."""

    epochs: int | None = option(None, "of training; default: the default preset's, with --quick 10", type=int)
    samples: int | None = option(
        None, "test samples evaluated from shots, each class with its share; default 1000, with --quick 50", type=int
    )
    seeds: int | None = option(None, "runs per readout, seeds 0, 1, ...; default 3, with --quick 2", type=int)
    quick: bool = option(False, "2 seeds, 10 epochs, 50 samples, where nothing else is asked; three numbers of shots")
    output: str = option("readout-study", "folder of the study; the same folder again goes on where it stopped")


def main(
    backend: Any = None,
    arguments: Mapping[str, Any] | None = None,
    mode: Any = None,
    mapper: Mapper = map,
    publish: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Train, evaluate from shots, write table and figure, and return what results.json holds.

    Args:
        backend: None: shots are simulated without noise, which is what this study asks for.
        arguments: fields of `ReadoutArguments`.
        mode: None.
        mapper: spreads the tasks, called like `map`; `map` itself: what the arguments `mapper` and `workers` say.
        publish: is given the table.

    Raises:
        InputError: for arguments or data that cannot be used.
        StudyError: if runs failed; the others are kept.
    """
    refuse_backend("readouts", backend, mode)
    options = from_mapping(ReadoutArguments, {} if arguments is None else arguments)
    check_at_least(options, 1, "samples", "seeds", "epochs")
    tasks, data_dir = _tasks(options), data_folder(options.data_dir, [options.data])
    # what cannot be trained is refused here, before there is a folder
    first, split, _ = described(tasks[0].arguments["train"], data_dir)
    _ = model_of(first, split).build().evaluator
    with studying("readouts", options, mapper, publish) as study:
        work = partial(perform, folder=str(study.folder), data_dir=data_dir)
        rows = _rows(study.run(tasks, work))
        results = {
            "rows": rows,
            "data": options.data,
            "num_qubits": options.num_qubits,
            "samples": min(tasks[0].arguments["samples"], len(split.y_test)),
            "seeds": len(tasks) // len(rows),
        }
        return study.write(results, _markdown(rows), lambda: {"shots": draw(rows)})


def command(words: Sequence[str] | None = None) -> int:
    """`python -m qiskit_qdeq readouts`: the exit code."""
    options = parser(
        ReadoutArguments, "qiskit_qdeq readouts", "Test accuracy against shots for products of one to four Z."
    )
    main(arguments=given(options, ReadoutArguments, words))
    return 0


def perform(arguments: Mapping[str, Any], *, folder: str, data_dir: str | None) -> dict[str, Any]:
    """Train one readout with one seed, and evaluate it exactly and from shots on the same samples."""
    run = Task(f"{arguments['train']['readout']}-{arguments['train']['seed']}", arguments["train"])
    place = Path(folder) / "runs" / run.label
    metrics = train_task(arguments["train"], folder=place, data_dir=data_dir)
    _, split, config = described(arguments["train"], data_dir)
    model, parameters = load_model(load_latest(place / CHECKPOINT))
    kept = stratified_subset(split.y_test, arguments["samples"], np.random.default_rng(0))
    inputs, labels = model.prepare(split.x_test[kept]), split.y_test[kept]
    found = {}
    for shots in arguments["shots"]:
        with executed(model, Execution("aer", shots=shots, seed=int(arguments["train"]["seed"]))) as measured:
            found[str(shots)] = evaluate(measured, parameters, inputs, labels, solver("probe")).accuracy
    return {
        "readout": arguments["train"]["readout"],
        "features": len(model.template.readout_observables),
        "test_accuracy": metrics["test_accuracy"],
        "exact": evaluate(model, parameters, inputs, labels, config.solver).accuracy,
        "shots": found,
    }


def _tasks(options: ReadoutArguments) -> list[Task]:
    quick = options.quick
    epochs = options.epochs or (10 if quick else None)
    samples, seeds = options.samples or (50 if quick else 1_000), options.seeds or (2 if quick else 3)
    shots = (100, 1_000, 10_000) if quick else SHOTS
    tasks = []
    for readout in READOUTS:
        for seed in range(seeds):
            train = {
                "data": options.data,
                "num_qubits": options.num_qubits,
                "classes": None if options.classes is None else list(options.classes),
                "epochs": epochs,
                "readout": readout,
                "dtype": "float64" if options.num_qubits <= 6 else "float32",
                "seed": seed,
            }
            arguments = {"train": train, "samples": samples, "shots": list(shots)}
            tasks.append(Task(f"{readout}/seed-{seed}", arguments))
    return tasks


def _rows(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    rows = []
    for readout in READOUTS:
        runs = [result for result in results if result["readout"] == readout]
        columns = {"exact": [run["exact"] for run in runs]}
        columns |= {shots: [run["shots"][shots] for run in runs] for shots in runs[0]["shots"]}
        spreads = {name: Spread.of(values) for name, values in columns.items()}
        rows.append(
            {
                "readout": readout,
                "features": runs[0]["features"],
                "test_accuracy": [run["test_accuracy"] for run in runs],
                "mean": {name: spread.mean for name, spread in spreads.items()},
                "std": {name: spread.std for name, spread in spreads.items()},
            }
        )
    return rows


def _markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    columns = [*(name for name in rows[0]["mean"] if name != "exact"), "exact"]
    lines = []
    for row in rows:
        cells = [f"{100 * row['mean'][name]:.1f}" for name in columns]
        cells = [
            cell if row["std"][name] is None else f"{cell} ± {100 * row['std'][name]:.1f}"
            for cell, name in zip(cells, columns, strict=True)
        ]
        lines.append([f"`{row['readout']}`", str(row["features"]), *cells])
    return "\n".join(table(["readout", "features", *map(_heading, columns)], lines)) + "\n"


def _heading(column: str) -> str:
    return column if column == "exact" else f"{int(column):,} shots"


def draw(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Accuracy against shots, a curve per readout with its spread over seeds; dotted: exact expectation values."""
    figure = new_figure(5.5, 3.6)
    axes = figure.add_subplot()
    for row, color in zip(rows, CYCLE, strict=False):
        names = [name for name in row["mean"] if name != "exact"]
        shots = np.array([int(name) for name in names])
        mean = 100 * np.array([row["mean"][name] for name in names])
        spread = 100 * np.array([row["std"][name] or 0.0 for name in names])
        axes.plot(shots, mean, "o-", color=color, markersize=3, label=f"{row['readout']} ({row['features']} features)")
        axes.fill_between(shots, mean - spread, mean + spread, color=color, alpha=0.15, linewidth=0)
        axes.axhline(100 * row["mean"]["exact"], color=color, linewidth=0.8, linestyle=":")
    axes.plot([], [], ":", color=BLACK, linewidth=0.8, label="exact")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    label(axes, "the same circuits, read out as products of Z", "shots per circuit", "test accuracy (%)")
    legend(axes, loc="lower right")
    return figure
