"""A training run that is ended and resumed, and what must be true of it afterwards: same result, every request run once."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from loopback import RemoteControl
from nursery import Nursery, Point, Run

from qiskit_qdeq.programs.folder import CHECKPOINT, JOURNAL, METRICS
from qiskit_qdeq.training.checkpoint import has_checkpoint, load_checkpoint

#: Two epochs of two steps: eleven jobs, validation and test included.
SMALL = (
    *(
        "train",
        "--backend",
        "ibm:ibm_loopback",
        "--shots",
        "64",
        "--classes",
        "0,3",
        "--limit",
        "16",
        "--batch-size",
        "8",
    ),
    *("--epochs", "2", "--mode", "direct", "--gradient-method", "spsa", "--gradient-circuits", "2"),
    *("--optimization-level", "1", "--no-plots", "--quiet"),
)
#: What says how long something took, or by which command line.
_OF_THIS_PROCESS = ("train_seconds", "ms_per_step", "arguments")


@dataclass(frozen=True)
class Result:
    """All that a run leaves behind which a repetition must leave behind, too."""

    arrays: dict[str, bytes]
    progress: dict[str, Any]
    metrics: dict[str, Any]
    requests: dict[str, int]

    def differences(self, other: Result) -> list[str]:
        """Names of what differs."""
        found = []
        for part in ("arrays", "progress", "metrics", "requests"):
            mine, theirs = getattr(self, part), getattr(other, part)
            names = sorted({*mine, *theirs})
            found += [f"{part}: {name}" for name in names if mine.get(name) != theirs.get(name)]
        return found


class Workshop:
    """Runs in one folder against one service.

    Args:
        nursery: forks them.
        loopback: the service, whose jobs are forgotten.
        folder: of the run.
        mode: job, batch or session.
        words: of the command line, without output, mode and resume.
    """

    def __init__(
        self, nursery: Nursery, loopback: RemoteControl, folder: Path, mode: str = "job", words: Sequence[str] = SMALL
    ) -> None:
        self.nursery, self.loopback, self.folder = nursery, loopback, folder
        self.words = [*words, "--execution-mode", mode, "--output", str(folder)]
        self.runs: list[Run] = []
        loopback.clear_faults()
        for job in loopback.jobs:
            loopback.delete_job(job.id)
        self._earlier = {session.id for session in loopback.sessions}

    @property
    def journal(self) -> Path:
        return self.folder / JOURNAL

    @property
    def checkpoint(self) -> Path:
        return self.folder / CHECKPOINT

    @property
    def sessions(self) -> list[Any]:
        """Sessions and batches of these runs."""
        return [session for session in self.loopback.sessions if session.id not in self._earlier]

    def go(self, *points: Point, more: Sequence[str] = (), name: str = "", **options: Any) -> Run:
        """Begin the run, or go on with it where there is a checkpoint; `name` is what a new one is called."""
        resumed = has_checkpoint(self.checkpoint) and "--overwrite" not in more
        words = [*self.words, *more, *(["--resume"] if resumed else [])]
        environment = {**self.loopback.environment, **({"NURSERY_RUN": name} if name else {})}
        run = self.nursery.run(words, environment, points, **options)
        self.runs.append(run)
        return run

    def finish(self) -> Run:
        """Go on to the end."""
        run = self.go()
        assert run.status == 0, run.output
        return run

    def result(self) -> Result:
        """What there is in the end."""
        checkpoint = load_checkpoint(self.checkpoint)
        arrays = {name: array.tobytes() for name, array in checkpoint.arrays.items() if name != "history/seconds"}
        metrics = json.loads((self.folder / METRICS).read_text())
        for name in _OF_THIS_PROCESS:
            metrics.pop(name)
        executed = {tag: count for tag, count in self.executed.items() if count}
        return Result(arrays, checkpoint.document["progress"], metrics, executed)

    @property
    def executed(self) -> Counter[str]:
        """How often the service ran each request."""
        counts: Counter[str] = Counter()
        for job in self.loopback.jobs:
            (tag,) = [tag for tag in job.tags if tag.count(":") == 2]
            counts[tag] += job.executed
        return counts

    @property
    def twice(self) -> int:
        """Executions of requests that had been executed before."""
        return sum(count - 1 for count in self.executed.values() if count > 1)

    @property
    def unknown_sessions(self) -> list[Any]:
        """Open ones that no journal line names: the process died between the service's opening and the line.

        Nothing closes them but the service. They never ran a job, so they have cost nothing.
        """
        written = self.journal.read_text() if self.journal.exists() else ""
        return [session for session in self.sessions if session.state != "closed" and session.id not in written]

    def check(self, reference: Result, *, forgotten: str = "") -> None:
        """The run ended like the uninterrupted one, with every request executed exactly once and nothing left open.

        Args:
            reference: the uninterrupted one.
            forgotten: a difference that there may be.
        """
        assert self.twice == 0, self.executed
        differences = [name for name in self.result().differences(reference) if name != forgotten]
        assert not differences, differences
        assert not [job for job in self.loopback.jobs if job.pending]
        assert all(not session.jobs for session in self.unknown_sessions)
        unknown = {session.id for session in self.unknown_sessions}
        assert [s.id for s in self.sessions if s.state != "closed" and s.id not in unknown] == []

    def times(self) -> np.ndarray[Any, Any]:
        """Seconds of the runs so far."""
        return np.array([run.seconds for run in self.runs])
