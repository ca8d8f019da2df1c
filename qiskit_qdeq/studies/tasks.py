"""A study is a list of independent tasks; each leaves one file, so that a study that stops goes on where it was.

    records = run_tasks(tasks, work, folder, mapper=LocalProcesses(2))

`work` is a function of a task's arguments, plain values, and returns plain values. A `mapper` is anything that is called
like `map`: the built-in one runs the tasks one after the other here, `LocalProcesses` in processes of this machine,
`RayCluster` on a cluster.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from qiskit_qdeq import __version__
from qiskit_qdeq._files import write_json
from qiskit_qdeq.exceptions import InputError, QDEQError, StudyError, warn_user
from qiskit_qdeq.execution.redaction import redact

Work = Callable[[Mapping[str, Any]], Mapping[str, Any]]
Mapper = Callable[[Callable[["Task"], "Outcome"], Sequence["Task"]], Iterable["Outcome"]]

#: How often the tasks that a dead worker left undone are given out again.
ATTEMPTS = 3
_SHOWN = 3


@dataclass(frozen=True)
class Task:
    """One piece of a study.

    Args:
        name: for people; unique within the study.
        arguments: plain values (JSON), its seed among them: the same arguments give the same result.

    Raises:
        InputError: if the arguments are no JSON values.
    """

    name: str
    arguments: Mapping[str, Any]

    @cached_property
    def key(self) -> str:
        """Digest of the arguments: a task whose arguments have changed is another task."""
        try:
            text = json.dumps(self.arguments, sort_keys=True, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise InputError(f"task {self.name!r}: its arguments are no JSON values: {error}") from None
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def label(self) -> str:
        """A file name made of both."""
        return f"{re.sub(r'[^A-Za-z0-9.+-]+', '_', self.name)[:80]}-{self.key}"


@dataclass(frozen=True)
class Outcome:
    """What became of a task: its record, or the error that ended it."""

    task: Task
    record: dict[str, Any] | None = None
    error: str = ""


def run_tasks(
    tasks: Iterable[Task],
    work: Work,
    folder: str | Path,
    *,
    mapper: Mapper = map,
    tell: Callable[[Outcome], None] | None = None,
) -> list[dict[str, Any]]:
    """The records of all tasks, in their order; those whose files are in `folder` are not done again.

    A record holds the task's `name`, `key` and `arguments`, the `result` that `work` returned, `seconds`, and the package's
    `version`: a warning says so where it is another one. A task that
    fails leaves no file and does not stop the others. Tasks lost with a worker that died are given out again.

    Args:
        tasks: independent of each other and of their order.
        work: called with a task's arguments; importable, if the mapper uses other processes.
        folder: for `tasks/<name>-<digest>.json`; made where it does not exist.
        mapper: called as `mapper(function, tasks)`; may give outcomes in any order.
        tell: is told every outcome as it comes, those found in `folder` first.

    Raises:
        InputError: if two tasks have one name, or the mapper is not called like `map`, cannot send `work`, or gives other
            things than outcomes.
        StudyError: if tasks failed or the mapper gave no outcome of them, after all the others are done, with how to go on.
        KeyboardInterrupt: after Ctrl-C or SIGTERM, with how many are done.
    """
    tasks = list(tasks)
    _check(tasks, mapper)
    place = Path(folder).absolute() / "tasks"
    tell = tell or (lambda outcome: None)
    records: dict[str, dict[str, Any]] = {}
    failed: dict[str, str] = {}

    def note(outcome: Outcome) -> None:
        if outcome.record is None:
            failed[outcome.task.name] = outcome.error
        else:
            records[outcome.task.name] = outcome.record
        tell(outcome)

    def waiting() -> list[Task]:
        return [task for task in tasks if task.name not in records and task.name not in failed]

    def note_earlier() -> None:
        for task in waiting():
            if (record := _earlier(task, place)) is not None:
                note(Outcome(task, record))

    note_earlier()
    _warn_of_other_versions(records.values(), place)
    for attempt in range(1, ATTEMPTS + 1):
        if not (left := waiting()):
            break
        try:
            for outcome in _outcomes(mapper(partial(_perform, work, place), left)):
                if outcome.task.name not in records and outcome.task.name not in failed:
                    _keep(outcome, place)
                    note(outcome)
        except KeyboardInterrupt as stop:
            raise type(stop)(
                f"{len(records)} of {len(tasks)} tasks are done and kept: the same command goes on"
            ) from None
        except QDEQError:
            raise
        except Exception as error:
            if "pickl" in f"{type(error).__name__} {error}".lower():
                raise InputError(
                    f"the mapper cannot send the work to another process ({type(error).__name__}: {error}): define it at "
                    "the top level of a module"
                ) from error
            # a worker died, and what it worked on with it
            note_earlier()
            if attempt == ATTEMPTS:
                raise StudyError(
                    f"workers died {ATTEMPTS} times ({type(error).__name__}: {error}); {len(records)} of {len(tasks)} tasks "
                    "are done and kept: run the same command again, with fewer workers if memory is short"
                ) from error
    if lost := waiting():
        raise StudyError(
            f"the mapper gave no outcome of {len(lost)} of {len(tasks)} tasks, such as {lost[0].name!r}, {ATTEMPTS} times; "
            "the others are kept: it must give one of every task, in any order"
        )
    if failed:
        raise StudyError(
            f"{len(failed)} of {len(tasks)} tasks failed, the others are kept: {_shown(failed)}. The same command again "
            "does only these"
        )
    return [records[task.name] for task in tasks]


def _check(tasks: Sequence[Task], mapper: Mapper) -> None:
    """Refuse names that are not unique, and what is no mapper."""
    names = Counter(task.name for task in tasks)
    if twice := sorted(name for name, count in names.items() if count > 1):
        raise InputError(f"tasks must have different names, got {twice[0]!r} more than once")
    if not callable(mapper):
        raise InputError(f"mapper must be called like map: mapper(function, tasks); got {mapper!r}")


def _shown(failed: dict[str, str]) -> str:
    """The first errors, each once, with a task that it ended and how many others."""
    counts = Counter(failed.values())
    first = {error: name for name, error in reversed(failed.items())}
    told = [
        first[error] + (f" and {count - 1} more" if count > 1 else "") + f": {error}" for error, count in counts.items()
    ]
    return "; ".join(told[:_SHOWN]) + (f"; and {len(told) - _SHOWN} other errors" if len(told) > _SHOWN else "")


def _outcomes(given: Any) -> Iterator[Outcome]:
    """What a mapper gives, if it is what `_perform` returned."""
    if not isinstance(given, Iterable):
        raise InputError(f"mapper must give what the function it is called with returns, like map, got {given!r}")
    for outcome in given:
        if not isinstance(outcome, Outcome):
            raise InputError(
                f"mapper must give what the function it is called with returns, as it is, got {outcome!r:.80}"
            )
        yield outcome


def _perform(work: Work, place: Path, task: Task) -> Outcome:
    """Do one task where the mapper wants it done, and write its file there."""
    started = time.perf_counter()
    try:
        result = work(task.arguments)
        if not isinstance(result, Mapping):
            raise InputError(f"work must return a mapping from names to JSON values, got {type(result).__name__}")
        result = dict(result)
        record = {
            "name": task.name,
            "key": task.key,
            "version": __version__,
            "arguments": dict(task.arguments),
            "result": result,
            "seconds": round(time.perf_counter() - started, 3),
        }
        write_json(place / f"{task.label}.json", record)
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = "" if isinstance(error, InputError) else f" ({Path(last.filename).name}:{last.lineno})"
        # our own errors hold no credentials, and name folders that look like them
        text = str(error) if isinstance(error, QDEQError) else redact(error)
        return Outcome(task, error=f"{type(error).__name__}: {text}{where}")
    return Outcome(task, record)


def _warn_of_other_versions(records: Iterable[Mapping[str, Any]], place: Path) -> None:
    others = [str(record.get("version")) for record in records if record.get("version") != __version__]
    if others:
        warn_user(
            f"{len(others)} tasks in {place} were done by version {', '.join(sorted(set(others)))} of qiskit-qdeq, this is "
            f"{__version__}: delete them to do them again"
        )


def _keep(outcome: Outcome, place: Path) -> None:
    """Write the record here too, where the worker was on a machine with another disk."""
    path = place / f"{outcome.task.label}.json"
    if outcome.record is not None and not path.exists():
        write_json(path, outcome.record)


def _earlier(task: Task, place: Path) -> dict[str, Any] | None:
    """The task's record of an earlier run, if it is whole."""
    path = place / f"{task.label}.json"
    try:
        record = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        warn_user(f"{path} cannot be read ({error}): task {task.name!r} is done again")
        return None
    whole = isinstance(record, dict) and isinstance(record.get("result"), dict) and record.get("key") == task.key
    if not whole:
        warn_user(f"{path} is no record of task {task.name!r}, which is done again")
        return None
    return {**record, "name": task.name}
