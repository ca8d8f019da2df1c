"""Starts the service, in this process or in its own, and connects the real client to it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from .control import Controls, RemoteControl
from .devices import QUBITS, load_device
from .records import Settings
from .server import Server
from .service import API_KEY, INSTANCE, Service


class LoopbackService(Controls):
    """The service on a thread of this process; use it in a ``with`` statement.

    Args:
        fake: name of a fake backend class of qiskit-ibm-runtime.
        qubits: of it, to serve as qubits 0, 1, ...; None: all.
        seed: of all noise, together with each job's tags.
        port: 0: a free one.
        settings: fields of `records.Settings`.
    """

    def __init__(
        self,
        fake: str = "FakeTorino",
        qubits: Sequence[int] | None = QUBITS,
        *,
        seed: int = 0,
        port: int = 0,
        **settings: Any,
    ) -> None:
        self._service = Service(
            load_device(fake, None if qubits is None else tuple(qubits)), Settings(**settings), seed
        )
        self._port = port

    def start(self) -> LoopbackService:
        """Begin to serve."""
        self._server = Server(self._service, self._port)
        self.url = self._server.url
        self._server.start()
        return self

    def stop(self) -> None:
        """End every connection and thread."""
        self._server.close()

    def __enter__(self) -> LoopbackService:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, *details: object) -> None:
        bugs = self.bugs
        self.stop()
        if bugs and kind is None:
            raise RuntimeError(f"the loopback service itself failed: {'; '.join(bugs)}")

    def _call(self, name: str, **arguments: Any) -> Any:
        # through JSON, so that both forms give the same
        return json.loads(json.dumps(self._server.control.call(name, arguments)))


def connect(controls: Controls) -> Any:
    """A real ``QiskitRuntimeService`` for the service; this process' environment stays as it is."""
    from qiskit_ibm_runtime import QiskitRuntimeService

    with mock.patch.dict(os.environ, controls.environment):
        return QiskitRuntimeService(
            channel="ibm_quantum_platform",
            token=API_KEY,
            instance=INSTANCE,
            url=f"{controls.url}/experimental/api/v1",
        )


@contextlib.contextmanager
def loopback_process(*options: str) -> Iterator[RemoteControl]:
    """The service in a process of its own, ``python -m loopback OPTIONS``; ended on leaving."""
    here = Path(__file__).resolve().parent
    search = os.pathsep.join(filter(None, (str(here.parent), os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-m", here.name, *options]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": search}
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        if not url.startswith("http://127.0.0.1:"):
            raise RuntimeError(f"the loopback service did not start: {url!r}")
        try:
            yield RemoteControl(url)
        finally:
            process.stdin.close()  # it ends when its standard input does
            process.wait(timeout=30)
