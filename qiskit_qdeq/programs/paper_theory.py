"""The paper's theory checked, and three first experiments: prints a table, writes it with its data and figure to a folder.

`main` is the program for Python callers; `command` the same from a command line.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qiskit_qdeq._files import write_json
from qiskit_qdeq.evaluation.threads import compute_context
from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.programs.arguments import from_mapping, given, option, parser
from qiskit_qdeq.studies.theory import contraction, existence, gradients, overlap, solvers, synthetic
from qiskit_qdeq.studies.theory.finding import Finding, Setting
from qiskit_qdeq.training.state import versions
from qiskit_qdeq.visualization import save_figures

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
class TheoryArguments:
    """Options of `paper_theory`."""

    check: str = option(
        "",
        "overlap (of single-qubit encodings), existence (of fixed points), contraction (over training), synthetic (data), "
        "solvers (Newton against quasi-Newton), gradients (implicit against finite differences), or all",
        positional=True,
        choices=(*CHECKS, "all"),
    )
    output: str = option("paper-theory", "folder for NAME.json, NAME.md and NAME.png; files of that name are replaced")
    quick: bool = option(False, "small sizes: seconds")
    seed: int = option(0, "of every random number", type=int)
    data: str | None = option(
        None,
        "data set of existence, contraction, solvers and gradients, default digits",
        choices=("digits", "mnist", "fashion_mnist", "cifar10"),
    )
    data_dir: str | None = option(None, "folder with the data set's files; without it images are downloaded")
    quiet: bool = option(False, "print nothing but errors")


def main(arguments: Mapping[str, Any] | None = None, *, publish: Callable[[str], None] = print) -> dict[str, Any]:
    """Run a check, or all, and write what it found.

    Args:
        arguments: fields of `TheoryArguments`; without a check: all.
        publish: is given each line of the tables.

    Returns:
        What the json files hold, by name of the check.

    Raises:
        InputError: for arguments or data that cannot be used.
        OSError: if a file cannot be written.
    """
    options = from_mapping(TheoryArguments, {"check": "all", **({} if arguments is None else arguments)})
    _refuse_ineffective(options)
    folder = _folder(options.output)
    setting = Setting(options.quick, options.seed, options.data or "digits", options.data_dir)
    found = {}
    for name in CHECKS if options.check == "all" else (options.check,):
        started = time.perf_counter()
        with compute_context():
            finding = CHECKS[name](setting)
        seconds = time.perf_counter() - started
        found[name] = _write(folder, name, finding, setting, seconds)
        if not options.quiet:
            for line in (*finding.text(), *finding.notes, f"{seconds:.0f} s, written to {folder / name}.*", ""):
                publish(line)
    return found


def command(words: Sequence[str] | None = None) -> int:
    """`runtime_programs/paper_theory.py`: the exit code."""
    options = parser(TheoryArguments, "paper_theory", "Check the paper's theory: a table and a figure per check.")
    main(given(options, TheoryArguments, words))
    return 0


def _refuse_ineffective(options: TheoryArguments) -> None:
    if options.seed < 0:
        raise InputError(f"--seed must be >= 0, got {options.seed}")
    if options.check in _WITHOUT_DATA:
        for name in ("data", "data_dir"):
            if getattr(options, name) is not None:
                raise InputError(
                    f"--{name.replace('_', '-')} has no effect on {options.check}, which draws its own inputs: leave it out"
                )
    if options.data_dir is not None and options.data in (None, "digits"):
        raise InputError(
            "--data-dir has no effect on digits, which come with scikit-learn: add --data mnist, or leave it out"
        )


def _folder(output: str) -> Path:
    folder = Path(output)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--output {output} cannot be created: {error.strerror or error}") from error
    return folder


def _write(folder: Path, name: str, finding: Finding, setting: Setting, seconds: float) -> dict[str, Any]:
    save_figures(folder, {name: finding.figure}, dpi=90)
    document = {
        **finding.as_dict(),
        "check": name,
        "quick": setting.quick,
        "seed": setting.seed,
        "data": None if name in _WITHOUT_DATA else setting.data,
        "seconds": seconds,
        "versions": versions(),
    }
    write_json(folder / f"{name}.json", document)
    lines = [f"# {finding.title}", "", *finding.markdown(), "", *(f"- {note}" for note in finding.notes)]
    (folder / f"{name}.md").write_text("\n".join([*lines, "", f"![{name}]({name}.png)", ""]), "utf-8")
    return document
