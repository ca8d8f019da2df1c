"""What tests tell and ask the service, in its own process or through ``/_control/NAME``: one list of methods for both."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import asdict
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

from .records import JobRecord, SessionRecord
from .service import API_KEY, INSTANCE, Service


class Control:
    """The methods by name, on plain values."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def call(self, name: str, arguments: dict[str, Any]) -> Any:
        """Do `name`; raises AttributeError if there is no such method."""
        with self._service.store.lock:
            self._service.store.advance()
            return getattr(self, f"do_{name}")(**arguments)

    def do_jobs(self) -> list[dict[str, Any]]:
        return [asdict(job) for job in self._service.store.jobs.values()]

    def do_sessions(self) -> list[dict[str, Any]]:
        return [asdict(session) for session in self._service.store.sessions.values()]

    def do_requests(self) -> list[tuple[str, str]]:
        return list(self._service.requests)

    def do_counts(self) -> dict[str, int]:
        return dict(self._service.counts)

    def do_fail(self, kind: str, operation: str, options: dict[str, Any]) -> int:
        return self._service.faults.add(kind, operation, **options)

    def do_fired(self) -> list[int]:
        return [fault.fired for fault in self._service.faults.all]

    def do_clear_faults(self) -> None:
        self._service.faults.clear()

    def do_configure(self, changes: dict[str, Any]) -> dict[str, Any]:
        self._service.store.settings.update(changes)
        self._service.store.advance()
        return asdict(self._service.store.settings)

    def do_skip(self, seconds: float) -> None:
        self._service.store.skip(seconds)

    def do_expire_session(self, session_id: str | None) -> None:
        store = self._service.store
        for session in [store.session(session_id)] if session_id else list(store.sessions.values()):
            store.close_session(session, "test", "Failed")

    def do_cancel_job(self, job_id: str) -> None:
        self._service.cancel(job_id)

    def do_delete_job(self, job_id: str) -> None:
        self._service.delete(job_id)

    def do_bugs(self) -> list[str]:
        return self._service.bugs

    def do_token(self) -> str:
        return self._service.token

    def do_consumed(self) -> float:
        return self._service.store.consumed


class Controls(ABC):
    """What a test can do with the service, wherever it runs."""

    url: str

    @abstractmethod
    def _call(self, name: str, **arguments: Any) -> Any:
        """Do `Control.do_<name>` where the service is."""

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables with which a plain ``QiskitRuntimeService()`` connects to this service."""
        return {
            "QISKIT_IBM_CHANNEL": "ibm_quantum_platform",
            "QISKIT_IBM_TOKEN": API_KEY,
            "QISKIT_IBM_INSTANCE": INSTANCE,
            "QISKIT_IBM_URL": f"{self.url}/experimental/api/v1",
            "IAM_URL": self.url,
            "GLOBAL_SEARCH_URL": self.url,
            "GLOBAL_CATALOG_URL": self.url,
            "NO_PROXY": "127.0.0.1",
            # otherwise the client reads the source of every frame of the stack for each request: slow under pytest
            "USAGE_DATA_OPT_OUT": "True",
        }

    def service(self) -> Any:
        """A connected, real ``QiskitRuntimeService``."""
        from .client import connect

        return connect(self)

    def backend(self) -> Any:
        """The ``IBMBackend`` of a new connection."""
        return self.service().backend(self.backend_name)

    @property
    def backend_name(self) -> str:
        return "ibm_loopback"

    @property
    def jobs(self) -> list[JobRecord]:
        """All jobs in the order of submission."""
        return [JobRecord(**record) for record in self._call("jobs")]

    def job(self, job_id: str) -> JobRecord:
        """One job."""
        return next(job for job in self.jobs if job.id == job_id)

    def jobs_tagged(self, tag: str) -> list[JobRecord]:
        """Jobs that carry `tag`."""
        return [job for job in self.jobs if tag in job.tags]

    @property
    def sessions(self) -> list[SessionRecord]:
        """All sessions and batches in the order of opening."""
        return [SessionRecord(**record) for record in self._call("sessions")]

    @property
    def open_sessions(self) -> list[SessionRecord]:
        """Those that still take jobs or have some to run."""
        return [session for session in self.sessions if session.state != "closed"]

    @property
    def requests(self) -> list[tuple[str, str]]:
        """The last 5000 requests as (method, path below the API's)."""
        return [(method, path) for method, path in self._call("requests")]

    @property
    def counts(self) -> dict[str, int]:
        """Number of requests by operation, see `faults.OPERATIONS`."""
        return dict(self._call("counts"))

    @property
    def bugs(self) -> list[str]:
        """Errors of the service itself: to be empty."""
        return list(self._call("bugs"))

    @property
    def consumed_seconds(self) -> float:
        """Usage of the instance."""
        return float(self._call("consumed"))

    def fail(self, kind: str, operation: str = "", **options: Any) -> int:
        """Command a fault, see `faults`; returns its number for `fired`."""
        return int(self._call("fail", kind=kind, operation=operation, options=options))

    def fired(self, fault: int) -> int:
        """How often the fault struck."""
        return int(self._call("fired")[fault])

    def clear_faults(self) -> None:
        """Forget all faults."""
        self._call("clear_faults")

    def configure(self, **changes: Any) -> dict[str, Any]:
        """Change settings (`records.Settings`); returns all."""
        return dict(self._call("configure", changes=changes))

    def skip(self, seconds: float) -> None:
        """Turn the service's clock forward."""
        self._call("skip", seconds=seconds)

    def expire_session(self, session_id: str | None = None) -> None:
        """Close one session, or all, as the service does when their time is over: queued jobs fail."""
        self._call("expire_session", session_id=session_id)

    def cancel_job(self, job_id: str) -> None:
        """Cancel a job as its owner would from elsewhere."""
        self._call("cancel_job", job_id=job_id)

    def delete_job(self, job_id: str) -> None:
        """Remove a job and its result."""
        self._call("delete_job", job_id=job_id)

    def saw_token(self, text: str | bytes) -> bool:
        """Whether `text` holds the API key or the access token made from it."""
        content = text.decode(errors="replace") if isinstance(text, bytes) else text
        return API_KEY in content or self._call("token") in content


class RemoteControl(Controls):
    """The same for a service in another process, by its base URL."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._opener = build_opener(ProxyHandler({}))

    def _call(self, name: str, **arguments: Any) -> Any:
        request = Request(f"{self.url}/_control/{name}", json.dumps(arguments).encode(), {"Connection": "close"})
        try:
            with self._opener.open(request, timeout=60) as answer:
                return json.loads(answer.read())
        except HTTPError as error:
            with error:
                raise ValueError(json.loads(error.read())["error"]) from None
