"""HTTP on 127.0.0.1: routes requests to `Service`, strikes with faults, and answers the control endpoint."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from .control import Control
from .errors import ApiError
from .faults import Fault
from .service import Service

API = "/experimental/api/v1"
_PREFIXES = (API, "/api/v1")
_CONTROL = "/_control/"
_ROUTES = [
    ("POST", r"/identity/token", "token"),
    ("POST", r"/v3/resources/search", "search"),
    ("GET", r"/backends", "backends"),
    ("GET", r"/backends/([^/]+)/configuration", "configuration"),
    ("GET", r"/backends/([^/]+)/properties", "properties"),
    ("GET", r"/backends/([^/]+)/status", "backend_status"),
    ("GET", r"/instances/usage", "usage"),
    ("POST", r"/sessions", "open_session"),
    ("GET", r"/sessions/([^/]+)", "session"),
    ("PATCH", r"/sessions/([^/]+)", "close_session"),
    ("DELETE", r"/sessions/([^/]+)/close", "cancel_session"),
    ("POST", r"/jobs", "submit"),
    ("GET", r"/jobs", "jobs"),
    ("GET", r"/jobs/([^/]+)", "job"),
    ("DELETE", r"/jobs/([^/]+)", "delete"),
    ("GET", r"/jobs/([^/]+)/results", "results"),
    ("GET", r"/jobs/([^/]+)/metrics", "metrics"),
    ("GET", r"/jobs/([^/]+)/logs", "logs"),
    ("POST", r"/jobs/([^/]+)/cancel", "cancel"),
    ("PUT", r"/jobs/([^/]+)/tags", "tags"),
    ("GET", r"/[0-9a-f-]{36}", "catalog"),
]
Answer = tuple[int, str]
_OPEN = ("token", "search", "catalog")


class Server(ThreadingHTTPServer):
    """Serves `service` on a free port of 127.0.0.1; `close` ends every connection and thread."""

    daemon_threads = False
    block_on_close = True

    def __init__(self, service: Service, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.service = service
        self.control = Control(service)
        self.stopping = threading.Event()
        self._connections: set[socket.socket] = set()
        self._guard = threading.Lock()
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self.stopping.set()
        self.shutdown()
        with self._guard:
            for connection in self._connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        self.server_close()
        self._thread.join()

    def process_request(self, request: Any, client_address: Any) -> None:
        request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._guard:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._guard:
            self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no error of the server's."""


@dataclass(frozen=True)
class _Call:
    """A request taken apart."""

    operation: str
    arguments: tuple[str, ...]
    query: Any
    request: dict[str, Any]
    body: bytes

    @property
    def key(self) -> str:
        return hashlib.sha256("/".join((self.operation, *self.arguments)).encode() + self.body).hexdigest()


class _Drop(Exception):
    """Cut the connection without an answer, or in the middle of it."""

    def __init__(self, answer: Answer | None = None) -> None:
        self.answer = answer


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def _handle(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if length else b""
        if len(body) < length:  # the client died while it sent
            self.close_connection = True
            return
        try:
            status, answer = self._answer(body)
        except _Drop as drop:
            self.close_connection = True
            if drop.answer is not None:
                self._send(*drop.answer, part=0.5)
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)
            return
        self._send(status, answer)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _handle

    def _answer(self, body: bytes) -> Answer:
        parts = urlsplit(self.path)
        query = parse_qs(parts.query)
        if parts.path.startswith(_CONTROL):
            name = parts.path.removeprefix(_CONTROL)
            return self._control(name, json.loads(body or b"{}"))
        service = self.server.service
        path = parts.path
        for prefix in _PREFIXES:
            path = path.removeprefix(prefix)
        service.requests.append((self.command, path))
        try:
            operation, arguments = _route(self.command, path)
            service.counts[operation] += 1
            if operation not in _OPEN:
                service.check_authorization(self.headers.get("Authorization", ""))
            content = body.decode()
            request = json.loads(content) if content.startswith("{") else {}
            return self._perform(_Call(operation, arguments, query or parse_qs(content), request, body))
        except ApiError as error:
            return error.status, json.dumps(error.body, separators=(",", ":"))
        except _Drop:
            raise
        except Exception as error:
            service.bugs.append(f"{self.command} {path}: {error!r}")
            return 500, json.dumps(ApiError(500, 1000, repr(error)).body)

    def _control(self, name: str, arguments: dict[str, Any]) -> Answer:
        try:
            return 200, json.dumps(self.server.control.call(name, arguments))
        except Exception as error:
            return 400, json.dumps({"error": str(error) or repr(error)})

    def _perform(self, call: _Call) -> Answer:
        service = self.server.service
        with service.store.lock:
            known = service.store.jobs.get(call.arguments[0]) if call.arguments else None
            tags = known.tags if known is not None else call.request.get("tags", [])
            struck = service.faults.of_request(call.operation, tags)
        self._before(service, struck, call)
        with service.store.lock:
            answer = service.unanswered.pop(call.key, None) or perform(service, call)
            if "duplicate" in struck:
                perform(service, call)
            if "status_after" in struck and service.store.settings.repeats_are_safe:
                service.unanswered[call.key] = answer
        return self._after(struck, answer)

    def _before(self, service: Service, struck: dict[str, Fault], call: _Call) -> None:
        if "stall" in struck:
            self.server.stopping.wait(struck["stall"].seconds)
        if "drop_before" in struck:
            raise _Drop
        if "status" in struck:
            raise _error(struck["status"])
        with service.store.lock:
            if "delete_job" in struck:
                service.delete(call.arguments[0])
            session = service.store.sessions.get(call.request.get("session_id", ""))
            if "expire_session" in struck and session is not None:
                service.store.close_session(session, "test", "Failed")

    def _after(self, struck: dict[str, Fault], answer: Answer) -> Answer:
        status, text = answer
        if "stall_after" in struck:
            self.server.stopping.wait(struck["stall_after"].seconds)
        if "drop_after" in struck:
            raise _Drop
        if "status_after" in struck:
            raise _error(struck["status_after"])
        if "listed_twice" in struck:
            content = json.loads(text)
            content["jobs"] = [job for job in content["jobs"] for _ in range(2)]
            text = json.dumps({**content, "count": 2 * content["count"]})
        if "torn" in struck:
            text = text[: len(text) // 2]
        if "cut" in struck:
            raise _Drop((status, text))
        if "garbage" in struck:
            text = "<html>upstream said something else</html>"
        return status, text

    def _send(self, status: int, text: str, part: float = 1.0) -> None:
        content = b"" if status == 204 else text.encode()
        self.send_response_only(status)
        self.send_header("Content-Type", "application/json")
        if status != 204:
            self.send_header("Content-Length", str(len(content)))
        # headers and content in one packet: two would wait for each other
        self._headers_buffer.append(b"\r\n" + content[: int(len(content) * part)])  # type: ignore[attr-defined]
        with contextlib.suppress(OSError):
            self.flush_headers()


def _route(method: str, path: str) -> tuple[str, tuple[str, ...]]:
    for wanted, pattern, operation in _ROUTES:
        if wanted == method and (found := re.fullmatch(pattern, path)):
            return operation, found.groups()
    raise ApiError(404, 1000, f"There is no {method} {path} here.")


def _error(fault: Fault) -> ApiError:
    usual = {401: 1200, 403: 1200, 404: 3250, 429: 1202}
    code = usual.get(fault.status, 1500) if fault.code is None else fault.code
    return ApiError(fault.status, code, fault.message)


def perform(service: Service, call: _Call) -> Answer:
    """Status and text of the answer to one request."""
    request, arguments = call.request, call.arguments
    silent: dict[str, Callable[[], None]] = {
        "close_session": lambda: service.close_session(*arguments),
        "cancel_session": lambda: service.cancel_session(*arguments),
        "cancel": lambda: service.cancel(*arguments),
        "delete": lambda: service.delete(*arguments),
        "tags": lambda: service.set_tags(*arguments, request["tags"]),
    }
    if call.operation in silent:
        silent[call.operation]()
        return 204, ""
    if call.operation == "results":
        return 200, service.results(*arguments)
    if call.operation == "logs":
        return 200, ""
    answers: dict[str, Callable[[], Any]] = {
        "token": lambda: service.identity_token(call.query),
        "search": service.search,
        "catalog": service.plan,
        "backends": service.backends,
        "configuration": lambda: service.configuration(*arguments),
        "properties": lambda: service.properties(*arguments),
        "backend_status": lambda: service.backend_status(*arguments),
        "usage": service.usage,
        "open_session": lambda: service.open_session(request),
        "session": lambda: service.session(*arguments),
        "submit": lambda: service.submit(request),
        "jobs": lambda: service.jobs(call.query),
        "job": lambda: service.job(*arguments),
        "metrics": lambda: service.metrics(*arguments),
    }
    return 200, json.dumps(answers[call.operation]())
