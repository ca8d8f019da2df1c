"""The tables of the paper (arXiv:2410.23940), made here, beside the published figures and classical controls.

Every run of every seed is a task of its own: a study that stops goes on where it was with the same command.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from qiskit_qdeq.data import load_split
from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.programs.arguments import comma_separated, from_mapping, given, option, parser
from qiskit_qdeq.programs.study import StudyArguments, check_at_least, data_folder, refuse_backend, studying
from qiskit_qdeq.studies.paper_figures import draw_accuracy, draw_cost
from qiskit_qdeq.studies.paper_report import Figures, figures_of, markdown
from qiskit_qdeq.studies.paper_rows import GROUPS, QUICK, TABLES, Row, Scale, rows_of
from qiskit_qdeq.studies.tasks import Mapper, Task

_PUBLISHED = Path(__file__).parent.parent / "studies" / "published.json"
_OF_THE_PAPER = tuple(name for name in TABLES if name != "digits-4")
_ENCODINGS = ("amplitude", "angle")
_LARGEST_FILE = 2**20


@dataclass(frozen=True)
class ReproduceArguments(StudyArguments):
    """Options of `reproduce`."""

    tables: tuple[str, ...] = option(
        _OF_THE_PAPER,
        "which tables, comma-separated; digits-4 needs no download",
        type=comma_separated,
    )
    groups: tuple[str, ...] = option(GROUPS, "which rows, comma-separated", type=comma_separated)
    encodings: tuple[str, ...] = option(_ENCODINGS, "of the circuits' rows, comma-separated", type=comma_separated)
    data_dir: str | None = option(None, "folder with the data sets' files; without it images are downloaded")
    seeds: int | None = option(None, "runs per row, seeds 0, 1, ...; default 3, with --quick 2", type=int)
    epochs: int | None = option(None, "of every run, instead of the tables' own", type=int)
    limit: int | None = option(None, "keep at most this many samples in each part", type=int)
    quick: bool = option(
        False, "2,000 samples in each part, 4 epochs, 2 seeds, times not apart: all columns in minutes, no results"
    )
    no_times: bool = option(False, "leave out the columns of time, memory and circuits, which are measured row by row")
    published: str | None = option(
        None,
        "JSON file with more published figures: {'source': 'where from', table: {'amplitude IMPLICIT': "
        "{'test_accuracy': 0.93}}}",
    )
    output: str = option("paper-tables", "folder of the study; the same folder again goes on where it stopped")


def main(
    backend: Any = None,
    arguments: Mapping[str, Any] | None = None,
    mode: Any = None,
    mapper: Mapper = map,
    publish: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Run what is not done yet, write tables and figures, and return them.

    Args:
        backend: None: the paper's tables are computed exactly.
        arguments: fields of `ReproduceArguments`.
        mode: None.
        mapper: spreads the tasks, called like `map`; `map` itself: what the arguments `mapper` and `workers` say.
        publish: is given the tables.

    Returns:
        What results.json holds: `rows` with every column, `skipped`, `arguments`, `versions`, `machine`.

    Raises:
        InputError: for arguments or data that cannot be used.
        StudyError: if runs failed; the others are kept.
    """
    refuse_backend("reproduce", backend, mode)
    options = from_mapping(ReproduceArguments, {} if arguments is None else arguments)
    scale, seeds, published = _scale(options), _seeds(options), _published(options.published)
    baselines, skipped = _available()
    rows = [row for name in options.tables for row in rows_of(name, scale, baselines)]
    if not rows:
        raise InputError(f"groups {list(options.groups)} and encodings {list(options.encodings)} leave no row")
    skipped = skipped if any(TABLES[name].baselines for name in options.tables) and "baseline" in scale.groups else []
    data_dir = data_folder(options.data_dir, [TABLES[name].data for name in options.tables])
    _check_data(options.tables, data_dir)
    runs = [row.task(seed) for row in rows for seed in row.seeds(seeds)]
    profiles = {row.label: task for row in rows if (task := row.profile()) is not None and not options.no_times}
    with studying("reproduce", options, mapper, publish) as study:
        work = partial(perform, folder=str(study.folder), data_dir=data_dir)
        trained = iter(study.run(runs, work, "training"))
        # one at a time: what is timed shares the machine with nothing, but for a trial of all columns
        timed = study.run(profiles.values(), work, "timing", mapper=None if options.quick else map)
        measured = dict(zip(profiles, timed, strict=True))
        figures = _figures(rows, trained, measured, published, seeds)
        results = {
            "rows": figures,
            "skipped": skipped,
            "published_source": published["source"],
            "arguments": _plain(options),
            "seeds": seeds,
        }
        return study.write(results, markdown(figures, skipped), lambda: _pictures(figures))


def _pictures(rows: Sequence[Figures]) -> dict[str, Figure]:
    pictures = {
        "accuracy": draw_accuracy(rows, ("paper", "default", "baseline", "control")),
        "ablation": draw_accuracy(rows, ("ablation",)),
        "cost": draw_cost(rows),
    }
    return {name: picture for name, picture in pictures.items() if picture is not None}


def command(words: Sequence[str] | None = None) -> int:
    """`python -m qiskit_qdeq reproduce`: the exit code."""
    options = parser(ReproduceArguments, "qiskit_qdeq reproduce", "Make the tables of arXiv:2410.23940 here.")
    main(arguments=given(options, ReproduceArguments, words))
    return 0


def perform(arguments: Mapping[str, Any], *, folder: str, data_dir: str | None) -> Mapping[str, Any]:
    """One task of the study."""
    # imported here: a worker loads what its task needs
    from qiskit_qdeq.studies.training_tasks import place, train_task

    own = {name: value for name, value in arguments.items() if name != "kind"}
    kind = arguments["kind"]
    if kind == "train":
        run = Task("-".join(str(own[name]) for name in ("data", "preset", "mode", "seed")), own)
        return train_task(own, folder=Path(folder) / "runs" / run.label, data_dir=data_dir)
    if kind == "profile":
        from qiskit_qdeq.studies.profiles import profile_task

        return profile_task(own, data_dir=data_dir)
    if kind == "baseline":
        from qiskit_qdeq.studies.baselines import run_baseline

        return run_baseline({**own, **place(own, data_dir)})
    from qiskit_qdeq.studies.controls import run_control

    return run_control({**own, **place(own, data_dir)})


def _scale(options: ReproduceArguments) -> Scale:
    for name, known in (("groups", GROUPS), ("encodings", _ENCODINGS)):
        if unknown := [value for value in getattr(options, name) if value not in known]:
            raise InputError(f"{name} must be among {list(known)}, got {unknown[0]!r}")
    check_at_least(options, 1, "epochs", "limit")
    scale = Scale(options.epochs, options.limit)
    if options.quick:
        scale = Scale(options.epochs or QUICK.epochs, options.limit or QUICK.limit)
    return replace(scale, groups=options.groups, encodings=options.encodings)


def _seeds(options: ReproduceArguments) -> int:
    check_at_least(options, 1, "seeds")
    return options.seeds or (2 if options.quick else 3)


def _published(file: str | None) -> dict[str, Any]:
    """The published figures, with those of the user's file beside them or instead of them, and the sources of both."""
    found: dict[str, Any] = json.loads(_PUBLISHED.read_text("utf-8"))
    if file is None:
        return found
    path = Path(file)
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise InputError(f"--published {file} is larger than {_LARGEST_FILE} bytes: it holds no table of figures")
        more = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"--published {file} cannot be read as JSON: {error}") from None
    if not isinstance(more, dict):
        raise InputError(f"--published {file} must map tables ({', '.join(TABLES)}) to rows, got {type(more).__name__}")
    source = more.pop("source", path.name)
    if not isinstance(source, str):
        raise InputError(f"--published {file}: source must say in words where the figures are from, got {source!r}")
    found["source"] = f"{source}; figures that it does not have: {found['source']}"
    for table, rows in more.items():
        if table not in TABLES or not isinstance(rows, dict):
            raise InputError(f"--published {file} must map tables ({', '.join(TABLES)}) to rows, got {table!r}")
        known = _published_rows(table)
        for row, columns in rows.items():
            if row not in known:
                raise InputError(f"--published {file}: {table} has rows {', '.join(known)}, got {row!r}")
            value = columns.get("test_accuracy") if isinstance(columns, dict) else None
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
                raise InputError(
                    f"--published {file}: {table}, {row!r} must be like {{'test_accuracy': 0.93}} (a fraction), "
                    f"got {columns!r}"
                )
        found[table] = {**found.get(table, {}), **rows}
    return found


def _published_rows(table: str) -> list[str]:
    """Which rows of a table can have published figures: all of its own, and the paper's best."""
    rows = rows_of(table, Scale(), ("wang", "pca", "vae"))
    return ["best", *dict.fromkeys(row.published_key for row in rows)]


def _check_data(tables: Sequence[str], data_dir: str | None) -> None:
    """Load what every table needs: data that cannot be had end the study now, and a download is not done by every worker.

    Raises:
        InputError: if data are missing or damaged.
    """
    from qiskit_qdeq.studies.training_tasks import place

    for name in tables:
        table = TABLES[name]
        where = place({"data": table.data}, data_dir)
        load_split(table.data, **where, num_qubits=table.num_qubits, classes=table.classes, limit=100)  # type: ignore[arg-type]


def _available() -> tuple[list[str], list[str]]:
    """Baselines that can be run here, and why others cannot."""
    if importlib.util.find_spec("torch") is not None:
        return ["wang", "pca", "vae"], []
    return ["wang", "pca"], ["the VAE baseline needs PyTorch: pip install 'qiskit-qdeq[torch]'"]


def _figures(
    rows: Sequence[Row],
    results: Iterator[Mapping[str, Any]],
    measured: Mapping[str, Mapping[str, Any]],
    published: Mapping[str, Any],
    seeds: int,
) -> list[Figures]:
    return [
        figures_of(
            row,
            [next(results) for _ in row.seeds(seeds)],
            measured.get(row.label),
            published.get(row.table, {}),
        )
        for row in rows
    ]


def _plain(options: ReproduceArguments) -> dict[str, Any]:
    """Arguments without places of this machine."""
    names = ("tables", "groups", "encodings", "seeds", "epochs", "limit", "quick", "no_times", "workers")
    values = {name: getattr(options, name) for name in names}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
