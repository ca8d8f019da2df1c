"""The operations of IBM's REST interface on a store: plain values in and out, no HTTP."""

from __future__ import annotations

import base64
import copy
import json
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from .devices import Device
from .errors import MESSAGES, ApiError
from .execution import count_executions
from .faults import Fault, Faults
from .records import JobRecord, SessionRecord, Settings
from .results import spoil
from .store import Ending, Store

#: Easy to find in files and logs, and no key of anybody.
API_KEY = "loopback-secret-api-key-1a2b3c4d5e6f7g8h9i0j"
INSTANCE = (
    "crn:v1:bluemix:public:quantum-computing:us-east:a/0123456789abcdef0123456789abcdef:"
    "00000000-1111-2222-3333-444444444444::"
)
_PLAN = "00000000-5555-6666-7777-888888888888"

Query = Mapping[str, Sequence[str]]


def _token() -> str:
    def part(content: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")

    now = int(time.time())
    claims = {"iat": now, "exp": now + 86400, "iss": "loopback", "sub": "nobody"}
    return f"{part({'alg': 'HS256', 'typ': 'JWT'})}.{part(claims)}.bG9vcGJhY2stc2lnbmF0dXJl"


class Service:
    """Everything behind the HTTP server: `store`, `faults`, and a log of requests."""

    def __init__(self, device: Device, settings: Settings, seed: int = 0) -> None:
        self.faults = Faults()
        self.store = Store(device, settings, self._interruption, seed)
        self.token = _token()
        #: The last requests as (method, path); `counts` counts all, by operation.
        self.requests: deque[tuple[str, str]] = deque(maxlen=5000)
        self.counts: Counter[str] = Counter()
        #: Answers that never left, by request.
        self.unanswered: dict[str, tuple[int, str]] = {}
        #: Errors of the service itself, which no client should have to bear.
        self.bugs: list[str] = []

    # account

    def identity_token(self, form: Query) -> dict[str, Any]:
        if form.get("apikey", [""])[0] != API_KEY:
            raise ApiError(400, 1201, "Provided API key could not be found.")
        expiration = int(time.time()) + 86400
        return {
            "access_token": self.token,
            "refresh_token": "not_supported",
            "token_type": "Bearer",
            "expires_in": 86400,
            "expiration": expiration,
        }

    def search(self) -> dict[str, Any]:
        item = {
            "crn": INSTANCE,
            "name": "loopback",
            "service_plan_unique_id": _PLAN,
            "doc": {"extensions": {"allocation": 600}},
            "tags": [],
        }
        return {"items": [item], "limit": 100}

    def plan(self) -> dict[str, Any]:
        open_plan = self.store.settings.open_plan
        return {
            "id": _PLAN,
            "overview_ui": {"en": {"display_name": "Open" if open_plan else "Premium"}},
            "metadata": {"pricing": {"type": "free" if open_plan else "subscription"}},
        }

    def check_authorization(self, header: str) -> None:
        if header not in (f"Bearer {self.token}", f"apikey {API_KEY}"):
            raise ApiError(401, 1200)

    def usage(self) -> dict[str, Any]:
        store = self.store
        answer = {
            "instance_id": INSTANCE,
            "plan_id": _PLAN,
            "usage_consumed_seconds": store.consumed,
            "usage_period": {"start_time": _stamp(store.now() - 86400), "end_time": _stamp(store.now() + 27 * 86400)},
            "usage_limit_reached": store.usage_limit_reached(),
        }
        limit = store.settings.usage_limit_seconds
        if limit is not None:
            answer["usage_limit_seconds"] = limit
            answer["usage_remaining_seconds"] = max(limit - store.consumed, 0)
        return answer

    # backends

    def backends(self) -> dict[str, Any]:
        settings, device = self.store.settings, self.store.device
        online = settings.operational and settings.status_message in ("active", "internal")
        entry = {
            "name": device.name,
            "class": "qpu",
            "qubits": device.num_qubits,
            "physical_qubits": device.num_qubits,
            "status": {"name": "online" if online else "offline", "reason": settings.status_message},
            "queue_length": self._queue_length(),
        }
        return {"devices": [entry]}

    def configuration(self, name: str) -> dict[str, Any]:
        return copy.deepcopy(self._device(name).configuration)

    def properties(self, name: str) -> dict[str, Any]:
        return copy.deepcopy(self._device(name).properties)

    def backend_status(self, name: str) -> dict[str, Any]:
        settings = self.store.settings
        return {
            "state": settings.operational,
            "status": settings.status_message,
            "length_queue": self._queue_length(),
            "backend_version": self._device(name).configuration["backend_version"],
        }

    def _device(self, name: str) -> Device:
        if name != self.store.device.name:
            raise ApiError(404, 1007, "Backend not found.")
        return self.store.device

    def _queue_length(self) -> int:
        return len(self.store.waiting) + self.store.settings.foreign_jobs

    # sessions

    def open_session(self, request: dict[str, Any]) -> dict[str, Any]:
        return self._describe_session(self.store.open_session(request))

    def session(self, identity: str) -> dict[str, Any]:
        return self._describe_session(self.store.session(identity))

    def close_session(self, identity: str) -> None:
        self.store.stop_accepting(self.store.session(identity))

    def cancel_session(self, identity: str) -> None:
        self.store.close_session(self.store.session(identity), "client", "Cancelled")

    def _describe_session(self, session: SessionRecord) -> dict[str, Any]:
        end = self.store.now() if session.closed is None else session.closed
        return {
            "id": session.id,
            "backend_name": session.backend,
            "mode": session.mode,
            "state": session.state,
            "accepting_jobs": session.accepting_jobs,
            "max_ttl": session.max_ttl,
            "active_ttl": session.max_ttl,
            "interactive_ttl": self.store.settings.interactive_seconds,
            "started_at": _stamp(session.activated),
            "activated_at": _stamp(session.activated),
            "closed_at": _stamp(session.closed),
            "last_job_completed": _stamp(session.last_job_ended),
            "elapsed_time": 0.0 if session.activated is None else end - session.activated,
            "timestamps": [],
        }

    # jobs

    def submit(self, request: dict[str, Any]) -> dict[str, Any]:
        self._device(request.get("backend", ""))
        job = self.store.submit(request)
        return {"id": job.id, "backend": self.store.device.name, "session_id": job.session_id}

    def job(self, identity: str) -> dict[str, Any]:
        return self._describe_job(self.store.job(identity))

    def jobs(self, query: Query) -> dict[str, Any]:
        self.store.advance()
        found = [job for job in self.store.jobs.values() if self._wanted(job, query)]
        if query.get("sort", ["DESC"])[0] != "ASC":
            found.reverse()
        offset, limit = int(query.get("offset", ["0"])[0]), int(query.get("limit", ["200"])[0])
        page = found[offset : offset + limit]
        return {
            "jobs": [self._describe_job(job) for job in page],
            "count": len(found),
            "limit": limit,
            "offset": offset,
        }

    def _wanted(self, job: JobRecord, query: Query) -> bool:
        def one(name: str, value: Any) -> bool:
            return name not in query or query[name][0] == value

        created = _stamp(job.created) or ""
        return (
            set(query.get("tags", ())) <= set(job.tags)
            and one("session_id", job.session_id)
            and one("program", job.program)
            and one("backend", self.store.device.name)
            and one("pending", "true" if job.pending else "false")
            and ("created_after" not in query or _seconds(created) >= _seconds(query["created_after"][0]))
            and ("created_before" not in query or _seconds(created) <= _seconds(query["created_before"][0]))
        )

    def _describe_job(self, job: JobRecord) -> dict[str, Any]:
        state: dict[str, Any] = {"status": job.status}
        if job.reason is not None:
            state["reason"] = job.reason
        if job.reason_code is not None:
            state["reason_code"] = job.reason_code
        return {
            "id": job.id,
            "backend": self.store.device.name,
            "created": _stamp(job.created),
            "ended": _stamp(job.ended),
            "state": state,
            "status": job.status,
            "program": {"id": job.program},
            "tags": list(job.tags),
            "session_id": job.session_id,
            "private": False,
            "usage": {"seconds": job.quantum_seconds},
            "estimated_running_time_seconds": job.quantum_seconds,
        }

    def results(self, identity: str) -> str:
        job = self.store.job(identity)
        if job.status != "Completed":
            return job.reason or ""
        job.fetched += 1
        fault = self.faults.of_result(identity, job.tags)
        if fault is None:
            return self.store.result(identity)
        if fault.kind == "other_job":
            return self.store.result(self.store.completed_before(identity) or identity)
        return spoil(self.store.result(identity), fault.kind)

    def metrics(self, identity: str) -> dict[str, Any]:
        job = self.store.job(identity)
        final = not job.pending
        answer: dict[str, Any] = {
            "timestamps": {
                "created": _stamp(job.created),
                "running": _stamp(job.started),
                "finished": _stamp(job.ended),
            },
            "usage": {
                "quantum_seconds": job.quantum_seconds,
                "qpu_charge_time_seconds": job.quantum_seconds,
                "seconds": job.quantum_seconds,
                "status": "complete" if final else "pending",
            },
            "executions": job.executions,
            "num_circuits": job.circuits,
        }
        if job.status == "Queued" and self.store.settings.queue_shown:
            start = self.store.start_of(job)
            answer["position_in_queue"] = self.store.position_of(job)
            answer["estimated_start_time"] = _stamp(start)
            answer["estimated_completion_time"] = _stamp(start + self.store.settings.run_seconds)
        return answer

    def cancel(self, identity: str) -> None:
        self.store.cancel(identity)

    def delete(self, identity: str) -> None:
        self.store.delete(identity)

    def set_tags(self, identity: str, tags: list[str]) -> None:
        self.store.job(identity).tags[:] = tags

    def _interruption(self, job: JobRecord, params: dict[str, Any]) -> Ending | None:
        if not self.faults.all:
            return None
        fault = self.faults.of_job(job.tags, count_executions(job.program, params))
        if fault is None:
            return None
        if fault.kind == "expire_queued":
            if job.session_id is not None:
                self.store.close_session(self.store.sessions[job.session_id], "test", "Failed")
            return 1217, MESSAGES[1217], "Failed"
        return _ending(fault)


def _ending(fault: Fault) -> Ending:
    if fault.kind == "ran_too_long":
        return 1305, MESSAGES[1305], "Cancelled"
    if fault.kind == "job_cancelled" and fault.code is None:
        return None, fault.message, "Cancelled"
    code = 1500 if fault.code is None else fault.code
    return code, fault.message or MESSAGES.get(code), "Failed" if fault.kind == "job_failed" else "Cancelled"


def _stamp(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def _seconds(stamp: str) -> float:
    return datetime.fromisoformat(stamp.replace("Z", "+00:00")).timestamp()
