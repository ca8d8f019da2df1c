"""What a test can ask the service about: plain records, the same in the service's process and from another one."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any


@dataclass
class JobRecord:
    """A job as the service knows it.

    Attributes:
        id: of the job.
        tags: of the job.
        status: Queued, Running, Completed, Failed or Cancelled.
        session_id: None in job mode.
        program: "executor" (client-side primitives) or "estimator" (the legacy one).
        created: seconds of the service's clock, as are `started` and `ended` (None: not yet).
        executed: how often it really ran to its end: 0 or 1.
        circuits: bound circuits that it ran.
        shots: per circuit.
        executions: circuits × shots.
        quantum_seconds: billed; 0 for what did not run to its end.
        digest: SHA-256 of its content; the content itself is gone once it ran.
        reason, reason_code: why it failed or was cancelled.
        fetched: how often its result was delivered.
    """

    id: str
    tags: list[str]
    program: str
    created: float
    digest: str
    session_id: str | None = None
    status: str = "Queued"
    started: float | None = None
    ended: float | None = None
    executed: int = 0
    circuits: int = 0
    shots: int = 0
    executions: int = 0
    quantum_seconds: float = 0.0
    reason: str | None = None
    reason_code: int | None = None
    fetched: int = 0

    @property
    def pending(self) -> bool:
        return self.status in ("Queued", "Running")


@dataclass
class SessionRecord:
    """A session or batch.

    Attributes:
        id: of the session.
        mode: "dedicated" (a Session) or "batch".
        state: "open" (no job ran yet), "active", "inactive" (idle for longer than the interactive limit) or "closed".
        accepting_jobs: whether it takes new jobs.
        max_ttl: seconds from its first job to its end.
        created: seconds of the service's clock, as are `activated` and `closed` (None: not yet).
        closed_by: "client", "limit" (of time), "usage" or "test".
        jobs: ids in the order of submission.
    """

    id: str
    mode: str
    backend: str
    max_ttl: float
    created: float
    state: str = "open"
    accepting_jobs: bool = True
    activated: float | None = None
    last_job_ended: float | None = None
    closed: float | None = None
    closed_by: str | None = None
    jobs: list[str] = field(default_factory=list)


@dataclass
class Settings:
    """How the service behaves; change with ``configure(name=value)``.

    Attributes:
        engine: "noisy", "ideal" or "random", see `execution.ENGINES`.
        noise_pattern: regular expression; what it finds in a job's tags decides about its noise. None, or nothing found:
            what the job asks for decides. The default takes the whole tags, ":([0-9a-f]+)$" the end of "run:key" alone.
        queue_seconds: from submission to the start of a job, at least.
        run_seconds: from start to end of a job; there is one QPU.
        overhead_seconds: billed per job besides its executions.
        max_pending: jobs queued or running at most, then submissions end in error 3458.
        open_plan: sessions are refused (error 1352).
        operational: False: the device is offline and runs nothing.
        status_message: "active", or "internal" (takes jobs and runs nothing), "maintenance", ...
        foreign_jobs: of other people, in the queue before ours; only shown.
        usage_limit_seconds: of the instance; None: no limit. Beyond it jobs stay in the queue and sessions are closed.
        usage_consumed_seconds: before the first job.
        queue_shown: ``metrics()`` of a queued job tells its place and its estimated start, as older versions of the real
            service did.
        repeats_are_safe: a POST repeated by the client after a `status_after` fault is not done twice.
        session_seconds: limit of a session that names none.
        interactive_seconds: idle time after which a session becomes inactive.
        unused_seconds: after which a session without jobs is closed.
    """

    engine: str = "noisy"
    noise_pattern: str | None = ".+"
    queue_seconds: float = 0.0
    run_seconds: float = 0.0
    overhead_seconds: float = 2.0
    max_pending: int | None = None
    open_plan: bool = False
    operational: bool = True
    status_message: str = "active"
    foreign_jobs: int = 0
    usage_limit_seconds: float | None = None
    usage_consumed_seconds: float = 0.0
    queue_shown: bool = True
    repeats_are_safe: bool = True
    session_seconds: float = 8 * 3600.0
    interactive_seconds: float = 60.0
    unused_seconds: float = 1800.0

    def update(self, changes: dict[str, Any]) -> None:
        if unknown := sorted(set(changes) - {item.name for item in fields(self)}):
            raise ValueError(f"there is no setting {', '.join(unknown)}")
        for name, value in changes.items():
            setattr(self, name, value)
