"""Jobs and sessions and what time does to them: one QPU, one queue, no thread.

Nothing happens in the background. Whoever looks first lets the clock catch up (`Store.advance`): jobs whose time has come
start, run and end, sessions whose time is over close. So a test may also turn the clock forward.
"""

from __future__ import annotations

import threading
import time
import uuid
import zlib
from collections.abc import Callable
from typing import Any

from .devices import Device
from .errors import MESSAGES, ApiError
from .execution import ENGINES, Outcome, digest, execute, seed_of
from .records import JobRecord, SessionRecord, Settings

#: How a job ends without having run: code, reason, status.
Ending = tuple[int | None, str | None, str]
#: Called before a job runs.
Interruption = Callable[[JobRecord, dict[str, Any]], Ending | None]


class Store:
    """All that the service remembers; every access holds `lock`."""

    def __init__(self, device: Device, settings: Settings, interruption: Interruption, seed: int = 0) -> None:
        if settings.engine not in ENGINES:
            raise ValueError(f"engine must be one of {', '.join(ENGINES)}, got {settings.engine!r}")
        self.device, self.settings = device, settings
        self.lock = threading.RLock()
        self.jobs: dict[str, JobRecord] = {}
        self.sessions: dict[str, SessionRecord] = {}
        self._interruption, self._seed = interruption, seed
        self._skipped = 0.0
        self.waiting: dict[str, dict[str, Any]] = {}
        self._results: dict[str, bytes] = {}
        self._free_at = 0.0
        self._billed = 0.0

    # time

    def now(self) -> float:
        return time.time() + self._skipped

    def skip(self, seconds: float) -> None:
        """Turn the clock forward."""
        with self.lock:
            self._skipped += seconds
            self.advance()

    def advance(self) -> None:
        """Let the clock catch up."""
        with self.lock:
            for identity in list(self.waiting):
                self._advance_job(self.jobs[identity])
            for session in self.sessions.values():
                self._advance_session(session, self.now())

    def position_of(self, job: JobRecord) -> int:
        """Of a queued job: 1 for the next one to run."""
        queued = [identity for identity in self.waiting if self.jobs[identity].status == "Queued"]
        return queued.index(job.id) + 1 + self.settings.foreign_jobs

    def start_of(self, job: JobRecord) -> float:
        """When a queued job starts, as far as can be said now."""
        ahead = (self.position_of(job) - 1 - self.settings.foreign_jobs) * self.settings.run_seconds
        return max(self._free_at, job.created + self.settings.queue_seconds) + ahead

    # jobs

    def submit(self, request: dict[str, Any]) -> JobRecord:
        """Take a job: the body of POST /jobs."""
        with self.lock:
            self.advance()
            session = self._session_for(request.get("session_id"))
            if self.settings.max_pending is not None and len(self.waiting) >= self.settings.max_pending:
                raise ApiError(400, 3458)
            params = request["params"]
            identity = f"d{uuid.uuid4().hex[:19]}"
            job = JobRecord(
                identity,
                list(request.get("tags", [])),
                request["program_id"],
                self.now(),
                digest(request["program_id"], params),
                None if session is None else session.id,
            )
            self.jobs[identity] = job
            self.waiting[identity] = params
            if session is not None:
                session.jobs.append(identity)
            self.advance()
            return job

    def job(self, identity: str) -> JobRecord:
        self.advance()
        if identity not in self.jobs:
            raise ApiError(404, 3250)
        return self.jobs[identity]

    def cancel(self, identity: str) -> None:
        job = self.job(identity)
        if not job.pending:
            raise ApiError(409, 3209, f"Job is already in final state {job.status}.")
        self._end(job, "Cancelled", None, None)

    def delete(self, identity: str) -> None:
        job = self.job(identity)
        self.waiting.pop(identity, None)
        self._results.pop(identity, None)
        del self.jobs[job.id]

    def result(self, identity: str) -> str:
        """The body of a completed job; "" before."""
        stored = self._results.get(identity)
        return "" if stored is None else zlib.decompress(stored).decode()

    def completed_before(self, identity: str) -> str | None:
        """Another completed job of the same program: the latest."""
        others = [
            job.id
            for job in self.jobs.values()
            if job.status == "Completed" and job.id != identity and job.program == self.jobs[identity].program
        ]
        return others[-1] if others else None

    def _advance_job(self, job: JobRecord) -> None:
        settings = self.settings
        if job.status == "Queued":
            if not settings.operational or settings.status_message != "active" or self._limit_reached():
                return
            start = max(self._free_at, job.created + settings.queue_seconds)
            if job.session_id is not None:
                self._advance_session(self.sessions[job.session_id], min(start, self.now()))
            if job.status != "Queued" or start > self.now():
                return
            job.status, job.started = "Running", start
            self._free_at = start + settings.run_seconds
            if job.session_id is not None:
                session = self.sessions[job.session_id]
                session.activated = session.activated or start
                session.state = "active" if session.state != "closed" else "closed"
        if job.status == "Running" and job.started is not None and job.started + settings.run_seconds <= self.now():
            self._run(job, job.started + settings.run_seconds)

    def _run(self, job: JobRecord, end: float) -> None:
        params = self.waiting[job.id]
        interrupted = self._interruption(job, params)
        if interrupted is not None:
            code, reason, status = interrupted
            self._end(job, status, code, reason, end)
            return
        try:
            outcome = execute(
                job.program,
                params,
                self.device,
                self.settings.engine,
                seed_of(job.tags, job.digest, self.settings.noise_pattern) ^ self._seed,
            )
        except Exception as error:
            self._end(job, "Failed", 3211, f"{MESSAGES[3211]} {error}", end)
            return
        self._keep(job, outcome)
        self._end(job, "Completed", None, None, end)

    def _keep(self, job: JobRecord, outcome: Outcome) -> None:
        job.executed += 1
        job.circuits, job.executions = outcome.circuits, outcome.executions
        job.shots = outcome.executions // max(outcome.circuits, 1)
        job.quantum_seconds = self.settings.overhead_seconds + outcome.seconds
        self._billed += job.quantum_seconds
        self._results[job.id] = zlib.compress(outcome.body.encode(), 1)

    def _end(self, job: JobRecord, status: str, code: int | None, reason: str | None, end: float | None = None) -> None:
        job.status, job.reason_code, job.reason = status, code, reason
        job.ended = self.now() if end is None else end
        self.waiting.pop(job.id, None)
        if job.session_id is not None:
            session = self.sessions[job.session_id]
            session.last_job_ended = job.ended
            self._close_if_done(session)

    # usage

    @property
    def consumed(self) -> float:
        """Seconds of the instance used so far."""
        return self.settings.usage_consumed_seconds + self._billed

    def _limit_reached(self) -> bool:
        limit = self.settings.usage_limit_seconds
        if limit is None or self.consumed < limit:
            return False
        for session in self.sessions.values():
            self.close_session(session, "usage", "Cancelled")
        return True

    def usage_limit_reached(self) -> bool:
        with self.lock:
            return self._limit_reached()

    # sessions

    def open_session(self, request: dict[str, Any]) -> SessionRecord:
        """Open one: the body of POST /sessions."""
        with self.lock:
            self.advance()
            mode = request.get("mode", "dedicated")
            if self.settings.open_plan and mode != "batch":
                raise ApiError(400, 1352)
            limit = float(request.get("max_ttl") or self.settings.session_seconds)
            session = SessionRecord(str(uuid.uuid4()), mode, request["backend"], limit, self.now())
            self.sessions[session.id] = session
            return session

    def session(self, identity: str) -> SessionRecord:
        self.advance()
        if identity not in self.sessions:
            raise ApiError(404, 1216, "Session not found.")
        return self.sessions[identity]

    def stop_accepting(self, session: SessionRecord) -> None:
        """What the client's ``close()`` asks for: what was submitted still runs."""
        session.accepting_jobs = False
        session.closed_by = session.closed_by or "client"
        self._close_if_done(session)

    def close_session(self, session: SessionRecord, by: str, pending: str) -> None:
        """Close at once; queued jobs end as `pending` ("Failed" or "Cancelled"), running ones finish."""
        if session.state == "closed":
            return
        session.accepting_jobs, session.state = False, "closed"
        session.closed, session.closed_by = self.now(), session.closed_by or by
        for identity in session.jobs:
            job = self.jobs.get(identity)
            if job is not None and job.status == "Queued":
                self._end(job, pending, 1217, MESSAGES[1217])

    def _session_for(self, identity: str | None) -> SessionRecord | None:
        if identity is None:
            return None
        session = self.session(identity)
        if not session.accepting_jobs:
            raise ApiError(400, 1217)
        return session

    def _close_if_done(self, session: SessionRecord) -> None:
        busy = any(self.jobs[identity].pending for identity in session.jobs if identity in self.jobs)
        if not session.accepting_jobs and not busy and session.state != "closed":
            session.state, session.closed = "closed", self.now()

    def _advance_session(self, session: SessionRecord, now: float) -> None:
        if session.state == "closed":
            return
        if session.activated is None:
            if now >= session.created + self.settings.unused_seconds and not session.jobs:
                self.close_session(session, "limit", "Failed")
            return
        if now >= session.activated + session.max_ttl:
            self.close_session(session, "limit", "Failed")
        elif session.last_job_ended is not None and now >= session.last_job_ended + self.settings.interactive_seconds:
            busy = any(self.jobs[i].status == "Running" for i in session.jobs if i in self.jobs)
            session.state = "active" if busy else "inactive"
