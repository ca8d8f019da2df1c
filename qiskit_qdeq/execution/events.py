"""What happens to jobs while a run waits for them, for whoever wants to show it; all of it is logged, too."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from qiskit_qdeq.evaluation.protocol import Cost
from qiskit_qdeq.execution.redaction import redact

logger = logging.getLogger("qiskit_qdeq.execution")

#: What a person should know of.
TROUBLE = ("failed", "retrying", "split", "lost", "notice")


@dataclass(frozen=True)
class JobEvent:
    """Something that happened to a job, a session or a batch.

    Attributes:
        kind: "submitted", "waiting" (its status or position changed), "finished", "fetched" (finished earlier, not run
            again), "failed", "retrying" (a request to the service), "split", "lost" (no longer at the service), "opened"
            and "closed" (a session or batch), or "notice" (what the service's client warns of).
        job: id of the job, session or batch, "" if there is none yet.
        status: of a waiting job, in the service's word: QUEUED or RUNNING.
        position: in the queue, None if unknown.
        detail: more, in words.
        cost: of the job, as predicted; once finished, with the QPU seconds charged.
        pause: seconds until a request is tried again.
    """

    kind: str
    job: str = ""
    status: str = ""
    position: int | None = None
    detail: str = ""
    cost: Cost | None = None
    pause: float | None = None

    def __str__(self) -> str:
        place = "" if self.position is None else f", position {self.position}"
        pause = "" if self.pause is None else f"in {self.pause:.0f} s:"
        words = [self.kind, self.job, f"{self.status.lower()}{place}", pause, self.detail, _shown(self.cost)]
        return " ".join(word for word in words if word)

    @property
    def level(self) -> int:
        """How much it matters, as logging counts."""
        if self.kind in TROUBLE:
            return logging.WARNING
        return logging.DEBUG if self.kind == "waiting" else logging.INFO


Listener = Callable[[JobEvent], None]


class Announcer:
    """Passes events to listeners and to the package's log."""

    def __init__(self) -> None:
        self.listeners: list[Listener] = []

    def __call__(self, kind: str, job: str = "", **details: Any) -> None:
        """Announce a `JobEvent` of these values."""
        event = JobEvent(kind, job, **details)
        logger.log(event.level, "%s", event)
        for listener in self.listeners:
            listener(event)


def _shown(cost: Cost | None) -> str:
    if cost is None:
        return ""
    seconds = f", {cost.qpu_seconds:,.1f} s of QPU time" if cost.qpu_seconds else ""
    return f"({cost.circuits:,} circuits, {cost.shots:,} shots{seconds})"


@contextlib.contextmanager
def noted(announce: Announcer) -> Iterator[None]:
    """What the service's client warns of is announced: a warning that a user turned into an error must not lose a job."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            yield
        finally:
            for text in {redact(item.message) for item in caught if item.category is UserWarning}:
                announce("notice", detail=text)
