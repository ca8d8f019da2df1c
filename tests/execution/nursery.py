"""Runs of `python -m qiskit_qdeq` against the loopback service that kill themselves at a named point.

A nursery is a process that has everything imported and forks a child per run, so that a run costs a second. Each child is a
process of its own: what SIGKILL leaves of it is what is on the disk and at the service.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
import traceback
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import qiskit_qdeq

ROOT = Path(qiskit_qdeq.__file__).parent.parent
#: Steps of a run, by the function that takes them.
POINTS = {
    "journal": ("qiskit_qdeq.execution.journal", "Journal._write"),
    "half a line": ("qiskit_qdeq.execution.journal", "_write_all"),
    "open": ("qiskit_qdeq.execution.lifetime", "create_mode"),
    "submit": ("qiskit_qdeq.execution.ibm_client", "IBMClient.submit"),
    "find": ("qiskit_qdeq.execution.ibm_client", "IBMClient.find"),
    "state": ("qiskit_qdeq.execution.ibm_client", "IBMClient.state"),
    "result": ("qiskit_qdeq.execution.ibm_client", "IBMClient.result"),
    "charged": ("qiskit_qdeq.execution.ibm_client", "IBMClient.charged"),
    "checkpoint": ("qiskit_qdeq.training.saving", "save_checkpoint"),
    "rename": ("qiskit_qdeq.training._atomic", "os.replace"),
    "validation": ("qiskit_qdeq.training.trainer", "Trainer._finish_epoch"),
    "test": ("qiskit_qdeq.programs.train", "metrics_of"),
    "metrics": ("qiskit_qdeq.programs.train", "write_json"),
    "close": ("qiskit_qdeq.execution.lifetime", "close_mode"),
    "remove": ("qiskit_qdeq.programs.train", "remove_run"),
}


@dataclass(frozen=True)
class Point:
    """The n-th call of a step (from 1), and what happens before or after it.

    Attributes:
        step: one of POINTS.
        number: of the call.
        after: rather than before; of "half a line" the half is written either way.
        signal: what the process sends itself.
    """

    step: str
    number: int = 1
    after: bool = False
    signal: int = signal.SIGKILL


@dataclass(frozen=True)
class Run:
    """How a child ended.

    Attributes:
        status: exit code, or minus the signal's number.
        seconds: it took.
        delay: from the first signal of a point to the end, where the point was reached.
        output: what it wrote, standard error included.
        steps: (step, number) of all calls made, where they were asked for.
    """

    status: int
    seconds: float
    delay: float | None
    output: str
    steps: list[tuple[str, int]]


class Nursery:
    """Forks runs."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self._process, self._folder = process, folder

    def run(
        self,
        words: Sequence[str],
        environment: dict[str, str],
        points: Sequence[Point] = (),
        *,
        traced: bool = False,
        kill_after: float | None = None,
        limits: dict[str, int] | None = None,
        user: int | None = None,
    ) -> Run:
        """A whole run.

        Args:
            words: of the command line.
            environment: added to this process'.
            points: where it sends itself a signal.
            traced: whether to tell all steps.
            kill_after: seconds after which it is killed from outside.
            limits: {"file": bytes} that a file may have at most; more is an error, as on a full disk.
            user: id of the user it runs as.
        """
        log = self._folder / f"{secrets.token_hex(4)}.log"
        order = {
            "words": list(map(str, words)),
            "environment": environment,
            "points": [asdict(point) for point in points],
            "traced": traced,
            "kill_after": kill_after,
            "limits": limits or {},
            "user": user,
            "log": str(log),
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        steps = Path(f"{log}.steps")
        records = [json.loads(line) for line in steps.read_text().splitlines()] if steps.exists() else []
        sent = [record["sent"] for record in records if "sent" in record]
        return Run(
            answer["status"],
            answer["ended"] - answer["began"],
            answer["ended"] - sent[0] if sent else None,
            log.read_text(errors="replace"),
            [(record["step"], record["number"]) for record in records if "step" in record],
        )


@contextlib.contextmanager
def nursery(folder: Path) -> Iterator[Nursery]:
    """A nursery that keeps its logs in `folder`."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "agg", "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, str(Path(__file__).resolve())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        assert process.stdin is not None
        try:
            yield Nursery(process, folder)
        finally:
            process.stdin.close()


def main() -> None:
    """Fork a child per line of standard input."""
    for module, _ in POINTS.values():
        importlib.import_module(module)
    for module in ("qiskit_ibm_runtime.executor_estimator", "qiskit_qdeq.__main__", "qiskit_qdeq.programs.evaluate"):
        importlib.import_module(module)
    while line := sys.stdin.readline():
        order = json.loads(line)
        began = time.monotonic()
        child = os.fork()
        if not child:
            _live(order)
        status = _ended(child, order["kill_after"])
        print(json.dumps({"status": status, "began": began, "ended": time.monotonic()}), flush=True)


def _ended(child: int, kill_after: float | None) -> int:
    if kill_after is not None:
        end = time.monotonic() + kill_after
        while time.monotonic() < end:
            found, status = os.waitpid(child, os.WNOHANG)
            if found:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.002)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _live(order: dict[str, Any]) -> None:
    """The child: never returns."""
    status = 99
    try:
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for target, source in ((0, nothing), (1, log), (2, log)):
            os.dup2(source, target)
        os.environ.update(order["environment"])
        signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be ignored where the tests run
        steps = os.open(f"{order['log']}.steps", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        _limit(order["limits"], order["user"])
        _patch([Point(**point) for point in order["points"]], steps, order["traced"])
        from qiskit_qdeq.__main__ import main as program

        status = program(order["words"])
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(status)


def _limit(limits: dict[str, int], user: int | None) -> None:
    if "file" in limits:
        import resource

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limits["file"], limits["file"]))
    if user is not None:
        os.setgid(user)
        os.setuid(user)


def _patch(points: Sequence[Point], steps: int, traced: bool) -> None:
    # the service's noise depends on tags, and so on the run's name
    journal = importlib.import_module("qiskit_qdeq.execution.journal")
    called = os.environ.get("NURSERY_RUN", "always-the-same")
    journal.secrets = types.SimpleNamespace(token_hex=lambda size: called)  # type: ignore[attr-defined]
    for step, (module, path) in POINTS.items():
        own = [point for point in points if point.step == step]
        if own or (traced and step != "half a line"):
            owner: Any = importlib.import_module(module)
            *outer, name = path.split(".")
            for part in outer:
                owner = getattr(owner, part)
            setattr(owner, name, _counted(getattr(owner, name), step, own, steps, traced))


def _counted(
    original: Callable[..., Any], step: str, points: Sequence[Point], steps: int, traced: bool
) -> Callable[..., Any]:
    number = 0

    def reach(after: bool) -> None:
        for point in points:
            if point.number == number and point.after == after:
                os.write(steps, json.dumps({"sent": time.monotonic()}).encode() + b"\n")
                os.kill(os.getpid(), point.signal)

    def call(*arguments: Any, **options: Any) -> Any:
        nonlocal number
        if step == "rename" and not Path(arguments[1]).name.startswith(("checkpoint.", "metrics.")):
            return original(*arguments, **options)
        number += 1
        if traced:
            os.write(steps, json.dumps({"step": step, "number": number}).encode() + b"\n")
        if step == "half a line" and number in {point.number for point in points}:
            os.write(arguments[0], arguments[1][: len(arguments[1]) // 2])
        reach(False)
        result = original(*arguments, **options)
        reach(True)
        return result

    return call


if __name__ == "__main__":
    main()
