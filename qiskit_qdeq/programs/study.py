"""What every study shares: its options, the mapper that spreads its tasks, its folder and the files in it."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from tqdm import tqdm

from qiskit_qdeq._files import write_json, write_text
from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.programs.arguments import class_list, option, whole_path
from qiskit_qdeq.programs.folder import locked, make_folder
from qiskit_qdeq.studies.processes import LocalProcesses
from qiskit_qdeq.studies.ray_cluster import RayCluster
from qiskit_qdeq.studies.tasks import Mapper, Outcome, Task, Work, run_tasks
from qiskit_qdeq.training.state import versions
from qiskit_qdeq.visualization import save_figures

RESULTS = "results.json"
Publish = Callable[[str], None]


@dataclass(frozen=True)
class StudyArguments:
    """Options of every study."""

    quick: bool = option(False, "small sizes: every column in minutes, no results")
    mapper: str | None = option(
        None,
        "what spreads the tasks: processes of this machine (default) or ray, the cluster at $RAY_ADDRESS, or one started "
        "here (extra ray)",
        choices=("processes", "ray"),
    )
    workers: int = option(0, "tasks at a time, 0: one per processor", type=int)
    output: str = option("study", "folder of the study; the same folder again goes on where it stopped")
    quiet: bool = option(False, "print nothing but errors")


@dataclass(frozen=True)
class DataStudyArguments(StudyArguments):
    """Options of a study of models of one data set."""

    data: str = option("digits", "data set", choices=("digits", "mnist", "fashion_mnist", "cifar10"))
    data_dir: str | None = option(None, "folder with the data set's files; without it images are downloaded")
    num_qubits: int = option(4, "qubits", type=int)
    classes: tuple[int, ...] | None = option(None, "labels to keep, e.g. 0,3,6,9 or all", type=class_list)


@dataclass(frozen=True)
class Study:
    """A study that is being made: runs its tasks and writes its files.

    Args:
        name: of its command, which results.json keeps.
        folder: locked; tasks already done in it are not done again.
        mapper: spreads tasks.
        quiet: shows no progress bars and publishes nothing.
        publish: is given the table.
    """

    name: str
    folder: Path
    mapper: Mapper
    quiet: bool
    publish: Publish

    def run(
        self, tasks: Iterable[Task], work: Work, name: str = "runs", *, mapper: Mapper | None = None
    ) -> list[dict[str, Any]]:
        """The results of all tasks, in their order; see `run_tasks`.

        Args:
            tasks: independent of each other.
            work: called with a task's arguments, where the mapper wants it.
            name: of the progress bar.
            mapper: instead of the study's, such as `map` for what is timed and shares the machine with nothing.

        Raises:
            StudyError: if tasks failed; the others are kept.
        """
        tasks = list(tasks)
        with tqdm(total=len(tasks), desc=name, unit="task", disable=self.quiet) as bar:

            def tell(outcome: Outcome) -> None:
                failed = "" if outcome.record is not None else "FAILED "
                bar.set_postfix_str(failed + outcome.task.name)
                bar.update()

            records = run_tasks(tasks, work, self.folder, mapper=mapper or self.mapper, tell=tell)
        return [record["result"] for record in records]

    @contextlib.contextmanager
    def journals(self, *, at_service: bool) -> Iterator[Path | None]:
        """A folder for journals of jobs at a service, from which a study that died fetches what it has paid for.

        It is removed when all is done; None where nothing is paid.
        """
        if not at_service:
            yield None
            return
        folder = self.folder.absolute() / "jobs"
        folder.mkdir(exist_ok=True)
        yield folder
        shutil.rmtree(folder, ignore_errors=True)

    def write(self, results: Mapping[str, Any], text: str, figures: Mapping[str, Figure]) -> dict[str, Any]:
        """Write results.json (with versions and machine), results.md and the figures; publish the text.

        Returns:
            What results.json holds.
        """
        found = {"study": self.name, **results, "versions": versions(), "machine": machine()}
        write_json(self.folder / RESULTS, found)
        write_text(self.folder / "results.md", text)
        save_figures(self.folder, figures)
        if not self.quiet:
            self.publish(text)
            self.publish(f"written to {self.folder}{os.sep}")
        return found


@contextlib.contextmanager
def studying(name: str, options: StudyArguments, mapper: Mapper, publish: Publish) -> Iterator[Study]:
    """The study whose folder is `options.output`, made and locked.

    Args:
        name: of the command.
        options: of the study.
        mapper: spreads the tasks, called like `map`; `map` itself: what `options.mapper` and `options.workers` say.
        publish: is given the table.

    Raises:
        InputError: if the folder cannot be made, holds results of something else, or another process writes it; if the
            mapper is said twice.
        MissingDependencyError: if the extra `ray` is not installed.
    """
    spread = mapper if mapper is not map else _mapper_of(options)
    if mapper is not map and (options.mapper is not None or options.workers):
        raise InputError("mapper and workers cannot be given beside a mapper object: leave them out, or it")
    # whole: workers may be in another working folder than this process is in by then
    folder = Path(options.output).absolute()
    make_folder(folder, exist_ok=True)
    with locked(folder):
        _refuse_foreign(folder, name)
        yield Study(name, folder, spread, options.quiet, publish)


def data_folder(data_dir: str | None, data: Collection[str]) -> str | None:
    """The whole path of `data_dir`, where the files of these data sets are.

    Raises:
        InputError: if none of them has files.
    """
    if data_dir is not None and set(data) == {"digits"}:
        raise InputError(
            "--data-dir has no effect on digits, which come with scikit-learn: ask for other data, such as mnist, or leave "
            "it out"
        )
    return whole_path(data_dir)


def machine() -> dict[str, Any]:
    """The machine, without its name."""
    return {"processor": platform.machine(), "cpus": os.cpu_count(), "system": platform.system()}


def check_at_least(options: Any, least: int, *names: str) -> None:
    """Raise InputError unless these fields are None or at least so much."""
    for name in names:
        value = getattr(options, name)
        if value is not None and value < least:
            raise InputError(f"{name} must be >= {least}, got {value}")


def refuse_backend(name: str, backend: Any, mode: Any) -> None:
    """Raise InputError if a backend or mode is passed to a study that executes nothing on one."""
    for what, value in (("backend", backend), ("mode", mode)):
        if value is not None:
            raise InputError(
                f"{what} has no effect on {name}, which computes on this machine: leave it out, got {value!r}"
            )


def _refuse_foreign(folder: Path, name: str) -> None:
    """Keep what another study, or anything else, has written."""
    path = folder / RESULTS
    if not path.exists():
        return
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        found = None
    other = found.get("study") if isinstance(found, dict) else None
    if other != name:
        whose = f"of the study {other!r}" if isinstance(other, str) else "of something else"
        raise InputError(f"--output {folder} holds {RESULTS} {whose}, which {name} would replace: name another folder")


def _mapper_of(options: StudyArguments) -> Mapper:
    return RayCluster(options.workers) if options.mapper == "ray" else LocalProcesses(options.workers)
