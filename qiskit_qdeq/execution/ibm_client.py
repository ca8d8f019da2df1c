"""The few things wanted of IBM's service: submit, find by tag, ask for state and result, cancel, close; once each."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from qiskit_qdeq.execution.events import Announcer, noted
from qiskit_qdeq.execution.failures import failure_of
from qiskit_qdeq.execution.lifetime import Given, Lifetime, close_mode

#: Seconds after which an unanswered request counts as failed; the client itself would wait for ever.
_READ_TIMEOUT = 120.0
_ID = re.compile(r"[A-Za-z0-9_-]{1,100}")
_FINAL = ("DONE", "CANCELLED", "ERROR")


@dataclass(frozen=True)
class JobState:
    """What the service says of a job.

    Attributes:
        status: QUEUED, RUNNING, DONE, CANCELLED or ERROR.
        reason: of an end without result, in the service's words.
    """

    status: str
    reason: str = ""

    @property
    def final(self) -> bool:
        """Whether it stays so."""
        return self.status in _FINAL


class Client(Protocol):
    """What `DurableEstimator` needs of a service; exceptions are the service's own, see `failures`."""

    lifetime: Lifetime

    def submit(self, pubs: Sequence[Any], tags: Sequence[str], precision: float | None = None) -> str:
        """Submit a job and return its id."""

    def find(self, tag: str) -> list[str]:
        """Ids of the jobs with this tag that have or may get a result, the oldest first."""

    def state(self, job: str) -> JobState:
        """How it stands."""

    def position(self, job: str) -> int | None:
        """Its place in the queue, None if the service does not tell."""

    def result(self, job: str) -> Any:
        """The result of a finished job, read anew."""

    def forget(self, job: str) -> None:
        """Let go of what is kept for a job; it can be asked for again."""

    def cancel(self, job: str) -> None:
        """Cancel it, if that is still possible."""

    def charged(self, job: str) -> float | None:
        """QPU seconds charged, None if the service has not settled them yet."""

    def refusal(self) -> str:
        """Why the account cannot run anything now, "" if it can."""

    def close_left_open(self, mode: str, kind: str) -> bool:
        """Close a "session" or "batch" of an earlier process; whether it is closed now."""


class IBMClient:
    """`Client` of an IBM estimator primitive.

    Args:
        primitive: one of IBM's estimators, of which options are taken; it is not run itself unless `lifetime` is Given.
        lifetime: what to submit to.
        announce: is told what the client warns of.
    """

    def __init__(self, primitive: Any, lifetime: Lifetime, announce: Announcer) -> None:
        self.lifetime = lifetime
        self._primitive, self._announce = primitive, announce
        self._service = primitive._service
        self._backend = primitive.backend()
        self._jobs: dict[str, Any] = {}
        self._runner: tuple[Any, Any] | None = None
        _limit_waiting(self._service)

    def submit(self, pubs: Sequence[Any], tags: Sequence[str], precision: float | None = None) -> str:
        """See `Client`."""
        chosen = {} if precision is None else {"precision": precision}
        with noted(self._announce):
            primitive = self._running()
            environment = primitive.options.environment
            own = list(environment.job_tags or [])
            try:
                environment.job_tags = [*own, *tags]
                job = primitive.run(list(pubs), **chosen)
            finally:
                environment.job_tags = own
        name: str = job.job_id()
        if not _ID.fullmatch(name):
            raise ValueError("the service answered with a job id that is none")
        self._jobs[name] = job
        return name

    def find(self, tag: str) -> list[str]:
        """See `Client`."""
        with noted(self._announce):
            found = self._service.jobs(
                limit=None, job_tags=[tag], instance=getattr(self._backend, "_instance", None), descending=False
            )
        jobs = {job.job_id(): job for job in found if tag in (job.tags or [])}
        usable = {name: job for name, job in jobs.items() if job.status() not in ("CANCELLED", "ERROR")}
        self._jobs.update(usable)
        return sorted(usable, key=lambda name: str(usable[name].creation_date))

    def state(self, job: str) -> JobState:
        """See `Client`."""
        with noted(self._announce):
            handle = self._handle(job)
            status = str(getattr(handle.status(), "name", handle.status()))
            if status in ("CANCELLED", "ERROR"):
                reason = str(getattr(handle, "_reason", None) or "")
                return JobState(status, reason or str(handle.error_message() or ""))
        return JobState(status)

    def position(self, job: str) -> int | None:
        """See `Client`."""
        with noted(self._announce), contextlib.suppress(Exception):
            found = self._handle(job).metrics().get("position_in_queue")
            if isinstance(found, int):
                return found
        return None

    def result(self, job: str) -> Any:
        """See `Client`."""
        with noted(self._announce):
            return self._handle(job).result()

    def cancel(self, job: str) -> None:
        """See `Client`."""
        with noted(self._announce), contextlib.suppress(Exception):
            self._handle(job).cancel()

    def charged(self, job: str) -> float | None:
        """See `Client`."""
        with noted(self._announce), contextlib.suppress(Exception):
            usage = self._handle(job).metrics().get("usage") or {}
            seconds = usage.get("qpu_charge_time_seconds", usage.get("quantum_seconds"))
            settled = usage.get("status", "final") != "pending"
            if settled and isinstance(seconds, int | float) and 0 <= seconds < math.inf:
                return float(seconds)
        return None

    def refusal(self) -> str:
        """See `Client`."""
        with noted(self._announce):
            usage = self._service.usage()
        if not usage.get("usage_limit_reached"):
            return ""
        consumed, limit = usage.get("usage_consumed_seconds"), usage.get("usage_limit_seconds")
        spent = f" ({consumed:g} of {limit:g} s are used)" if limit and consumed is not None else ""
        return f"the account has met its usage limit{spent}: jobs will not run until there is time again"

    def close_left_open(self, mode: str, kind: str) -> bool:
        """See `Client`."""
        from qiskit_ibm_runtime import Batch, Session

        try:
            with noted(self._announce):
                found = (Batch if kind == "batch" else Session).from_id(mode, self._service)
                closed = str(found.status() or "").lower() == "closed"
        except Exception as error:
            if "Session not found" in str(error):
                return True  # it is long over
            failure = failure_of(error)
            self._announce("notice", mode, detail=f"of an earlier process could not be closed: {failure.message}")
            return False
        return closed or close_mode(found, self._announce)

    def forget(self, job: str) -> None:
        """See `Client`."""
        self._jobs.pop(job, None)

    def _running(self) -> Any:
        """The primitive in the mode that is open now."""
        mode = self.lifetime.current()
        if self._runner is None or self._runner[0] is not mode:
            own = mode is self._backend or isinstance(self.lifetime, Given)
            primitive = self._primitive
            self._runner = (mode, primitive if own else type(primitive)(mode=mode, options=primitive.options))
        return self._runner[1]

    def _handle(self, job: str) -> Any:
        if job not in self._jobs:
            self._jobs[job] = self._service.job(job)
        return self._jobs[job]


def _limit_waiting(service: Any) -> None:
    # no public option sets it; submissions have a limit of 15 minutes in the client itself; where the attributes are gone,
    # requests wait as long as the client lets them
    for client in getattr(service, "_api_clients", {}).values():
        session = getattr(client, "_session", None)
        if session is not None and isinstance(getattr(session, "_timeout", None), tuple):
            session._timeout = (10.0, _READ_TIMEOUT)
