"""What a run waits for at a service, in a line of words that is made from what happens to its jobs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from qiskit_qdeq.execution.events import JobEvent

_OVER = ("finished", "fetched", "failed", "lost", "split")


@dataclass
class _Job:
    since: float
    status: str = "submitted"
    position: int | None = None


class JobStatus:
    """Status, place in the queue and waiting time of the job that is waited for, its session, and requests tried again.

    Args:
        clock: gives seconds.

    >>> status = JobStatus(clock=lambda: 0.0)
    >>> status.on_job(JobEvent("waiting", "c0ffee", status="QUEUED", position=7))
    >>> print(status)
    queued, position 7, for 0:00:00; job c0ffee
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._jobs: dict[str, _Job] = {}
        self._waited_for = ""
        self._modes: dict[str, str] = {}
        self._mode = ""
        self._retry: tuple[float, str] | None = None

    def on_job(self, event: JobEvent) -> None:
        """Take in what has happened."""
        if event.kind == "notice":
            return
        if event.kind == "retrying":
            self._retry = self._clock() + (event.pause or 0.0), event.detail
            return
        self._retry = None
        if event.kind in ("submitted", "waiting"):
            job = self._jobs.setdefault(event.job, _Job(self._clock()))
            if event.status == "RUNNING" and job.status != "running":
                job.since = self._clock()
            job.status, job.position = event.status.lower() or "submitted", event.position
            if event.kind == "waiting":
                self._waited_for = event.job
        elif event.kind in _OVER:
            self._jobs.pop(event.job or self._waited_for, None)
        elif event.kind == "opened":
            self._modes[event.job] = event.detail
            self._mode = f"{event.detail} open"
        elif event.kind == "closed" and event.job in self._modes:
            self._mode = f"{self._modes.pop(event.job)} closed"

    @property
    def state(self) -> str:
        """The same without times: differs where there is something new to tell."""
        return "; ".join(self._words(timed=False))

    def __str__(self) -> str:
        return "; ".join(self._words(timed=True))

    def _words(self, *, timed: bool) -> list[str]:
        now, words = self._clock(), []
        if self._retry is not None and now < self._retry[0] + 1.0:
            until, detail = self._retry
            words.append(f"trying again{f' in {max(0.0, until - now):.0f} s' if timed else ''}: {detail}")
        # results are collected in the order of submission: until one is waited for, it will be the first
        name = self._waited_for if self._waited_for in self._jobs else next(iter(self._jobs), "")
        if name:
            job = self._jobs[name]
            place = "" if job.position is None else f", position {job.position}"
            words.append(f"{job.status}{place}{f', for {duration(now - job.since)}' if timed else ''}")
            if len(self._jobs) > 1:
                words.append(f"{len(self._jobs) - 1} more submitted")
        if self._mode:
            words.append(self._mode)
        return [*words, f"job {name}"] if name else words


def duration(seconds: float) -> str:
    """Hours, minutes and seconds.

    >>> duration(3723.9)
    '1:02:03'
    """
    return str(timedelta(seconds=int(seconds)))
