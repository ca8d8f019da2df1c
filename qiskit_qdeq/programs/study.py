"""What every study shares: its options, the mapper that spreads its tasks, its folder and the files in it."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from tqdm import tqdm

from qiskit_qdeq import __version__
from qiskit_qdeq._files import write_json, write_text
from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.programs.arguments import class_list, option, whole_path
from qiskit_qdeq.programs.folder import CHECKPOINT, STUDY, locked, make_folder
from qiskit_qdeq.studies.processes import LocalProcesses
from qiskit_qdeq.studies.ray_cluster import RayCluster
from qiskit_qdeq.studies.tasks import Mapper, Outcome, Task, Work, run_tasks
from qiskit_qdeq.training.checkpoint import has_checkpoint
from qiskit_qdeq.training.state import versions
from qiskit_qdeq.visualization import save_figures

RESULTS = "results.json"
_ABOUT_THIS_CALL = ("mapper", "workers", "output", "quiet", "data_dir")
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
        options: of the study; with `quiet` it shows no progress bars and publishes nothing.
        publish: is given the table.
    """

    name: str
    folder: Path
    mapper: Mapper
    options: StudyArguments
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
        with tqdm(total=len(tasks), desc=name, unit="task", disable=self.options.quiet) as bar:

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
        folder = self.folder / "jobs"
        folder.mkdir(exist_ok=True)
        yield folder
        shutil.rmtree(folder, ignore_errors=True)

    def write(self, results: Mapping[str, Any], text: str, draw: Callable[[], Mapping[str, Figure]]) -> dict[str, Any]:
        """Write results.json (with options, versions and machine) and results.md, then the figures; publish the text.

        Figures of an earlier call that this one does not draw are deleted: they would not belong to its tables.

        Args:
            results: plain values.
            text: tables in Markdown.
            draw: gives the figures, called when the rest is written: hours of work shall not depend on a picture.

        Returns:
            What results.json holds.
        """
        asked = {name: value for name, value in asdict(self.options).items() if name not in _ABOUT_THIS_CALL}
        found = {"study": self.name, "options": asked, **results, "versions": versions(), "machine": machine()}
        title, below = text.split("\n\n", 1) if text.startswith("# ") else ("", text)
        text = f"{title}\n\n{self._heading(asked)}\n\n{below}".lstrip()
        write_json(self.folder / RESULTS, found)
        write_text(self.folder / "results.md", text)
        self._save(draw())
        if not self.options.quiet:
            self.publish(text)
            self.publish(f"written to {self.folder}{os.sep}")
        return found

    def _save(self, figures: Mapping[str, Figure]) -> None:
        earlier = _read(self.folder / STUDY).get("figures")
        for stale in set(map(str, earlier if isinstance(earlier, list) else ())) - set(figures):
            (self.folder / f"{Path(stale).name}.png").unlink(missing_ok=True)
        save_figures(self.folder, figures)
        write_json(self.folder / STUDY, {"study": self.name, "figures": sorted(figures)})

    def _heading(self, asked: Mapping[str, Any]) -> str:
        """How the tables were made; what is not said there has its default."""
        usual = {item.name: item.default for item in fields(self.options)}
        words = [f"{name} = {_shown(value)}" for name, value in asked.items() if value != usual[name]]
        quick = ["**quick: small sizes, no results**"] if self.options.quick else []
        said = [word for word in words if word != "quick = True"]
        return "; ".join([f"`{self.name}`, qiskit-qdeq {__version__}", *said, *quick]) + "."


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


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
        if not (folder / STUDY).exists():
            write_json(folder / STUDY, {"study": name})
        yield Study(name, folder, spread, options, publish)


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
    """Keep what another study, a run, or anything else, has written."""
    if has_checkpoint(folder / CHECKPOINT):
        raise InputError(f"--output {folder} is the folder of a run of `train`: name another one")
    for path in (folder / STUDY, folder / RESULTS):
        if not path.exists():
            continue
        other = _read(path).get("study")
        if other != name:
            whose = f"of the study {other!r}" if isinstance(other, str) else "of something else"
            raise InputError(
                f"--output {folder} holds {path.name} {whose}, which {name} would replace: name another folder"
            )


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _mapper_of(options: StudyArguments) -> Mapper:
    return RayCluster(options.workers) if options.mapper == "ray" else LocalProcesses(options.workers)
