"""The paper's theory checked, and three first experiments: prints a table, writes it with its data and figure to a folder.

`main` is the program for Python callers; `command` the same from a command line.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from qiskit_qdeq._files import write_json, write_text
from qiskit_qdeq.evaluation.threads import compute_context
from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.programs.arguments import from_mapping, given, option, parser
from qiskit_qdeq.programs.study import StudyArguments, check_at_least, data_folder, refuse_backend, studying
from qiskit_qdeq.studies.tasks import Mapper, Task
from qiskit_qdeq.studies.theory import contraction, existence, gradients, overlap, solvers, synthetic
from qiskit_qdeq.studies.theory.finding import Finding, Setting
from qiskit_qdeq.training.state import versions
from qiskit_qdeq.visualization.files import png_of, write_image

CHECKS: dict[str, Callable[[Setting], Finding]] = {
    "overlap": overlap.check,
    "existence": existence.check,
    "contraction": contraction.check,
    "synthetic": synthetic.check,
    "solvers": solvers.check,
    "gradients": gradients.check,
}
_WITHOUT_DATA = ("overlap", "synthetic")


@dataclass(frozen=True)
class TheoryArguments(StudyArguments):
    """Options of `paper_theory`."""

    check: str = option(
        "",
        "overlap (of single-qubit encodings), existence (of fixed points), contraction (over training), synthetic (data), "
        "solvers (Newton against quasi-Newton), gradients (implicit against finite differences), or all",
        positional=True,
        choices=(*CHECKS, "all"),
    )
    output: str = option("paper-theory", "folder for NAME.json, NAME.md and NAME.png; files of that name are replaced")
    seed: int = option(0, "of every random number", type=int)
    data: str | None = option(
        None,
        "data set of existence, contraction, solvers and gradients, default digits",
        choices=("digits", "mnist", "fashion_mnist", "cifar10"),
    )
    data_dir: str | None = option(None, "folder with the data set's files; without it images are downloaded")


def main(
    backend: Any = None,
    arguments: Mapping[str, Any] | None = None,
    mode: Any = None,
    mapper: Mapper = map,
    publish: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Run a check, or all, and write what it found.

    Args:
        backend: None: the theory is checked exactly.
        arguments: fields of `TheoryArguments`; without a check: all.
        mode: None.
        mapper: spreads the checks, called like `map`; `map` itself: what the arguments `mapper` and `workers` say.
        publish: is given each line of the tables.

    Returns:
        What the json files hold, by name of the check.

    Raises:
        InputError: for arguments or data that cannot be used.
        StudyError: if checks failed; the others are kept.
    """
    refuse_backend("theory", backend, mode)
    options = from_mapping(TheoryArguments, {"check": "all", **({} if arguments is None else arguments)})
    _refuse_ineffective(options)
    data, names = options.data or "digits", list(CHECKS) if options.check == "all" else [options.check]
    data_dir = data_folder(options.data_dir, [data])
    if not set(names) <= set(_WITHOUT_DATA):
        # data that cannot be read are refused here, before there is a folder
        Setting(options.quick, options.seed, data, data_dir).split()
    with studying("theory", options, mapper, publish) as study:
        tasks = [Task(name, _question(name, options)) for name in names]
        work = partial(perform, data_dir=data_dir)
        found = dict(zip(names, study.run(tasks, work, "checks"), strict=True))
        for name, result in found.items():
            _write(study.folder, name, result)
            if not options.quiet:
                for line in (*result["lines"], f"written to {study.folder / name}.*", ""):
                    publish(line)
    return {name: result["document"] for name, result in found.items()}


def command(words: Sequence[str] | None = None) -> int:
    """`python -m qiskit_qdeq theory`: the exit code."""
    options = parser(TheoryArguments, "qiskit_qdeq theory", "Check the paper's theory: a table and a figure per check.")
    main(arguments=given(options, TheoryArguments, words))
    return 0


def perform(arguments: Mapping[str, Any], *, data_dir: str | None) -> dict[str, Any]:
    """Run one check: what goes into its files, and the lines that are published."""
    name = arguments["check"]
    setting = Setting(arguments["quick"], arguments["seed"], arguments["data"] or "digits", data_dir)
    started = time.perf_counter()
    with compute_context():
        finding = CHECKS[name](setting)
    seconds = time.perf_counter() - started
    notes = [f"- {note}" for note in finding.notes]
    page = [f"# {finding.title}", "", *finding.markdown(), "", *notes, "", f"![{name}]({name}.png)", ""]
    return {
        "document": {**finding.as_dict(), **arguments, "seconds": seconds, "versions": versions()},
        "page": "\n".join(page),
        "picture": base64.b64encode(png_of(finding.figure, dpi=90)).decode("ascii"),
        "lines": [*finding.text(), *finding.notes],
    }


def _question(name: str, options: TheoryArguments) -> dict[str, Any]:
    data = None if name in _WITHOUT_DATA else options.data or "digits"
    return {"check": name, "quick": options.quick, "seed": options.seed, "data": data}


def _refuse_ineffective(options: TheoryArguments) -> None:
    check_at_least(options, 0, "seed")
    if options.check in _WITHOUT_DATA:
        for name in ("data", "data_dir"):
            if getattr(options, name) is not None:
                raise InputError(
                    f"--{name.replace('_', '-')} has no effect on {options.check}, which draws its own inputs: leave it out"
                )


def _write(folder: Path, name: str, found: Mapping[str, Any]) -> None:
    write_json(folder / f"{name}.json", found["document"])
    write_text(folder / f"{name}.md", found["page"])
    write_image(folder / f"{name}.png", base64.b64decode(found["picture"]))
