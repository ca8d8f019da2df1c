"""What becomes of a training run when something fails at the service: one run per fault, as a Markdown table.

python benchmarks/failures.py [word in the name of the fault ...]
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "tests"), str(HERE.parent / "tests" / "execution")]
os.environ.setdefault("OMP_NUM_THREADS", "1")

from loopback import LoopbackService
from service_runs import Outcome, short_waiting, train

OPERATIONS = ("usage", "open_session", "backend_status", "submit", "job", "results", "metrics", "close_session")


@dataclass(frozen=True)
class Case:
    """A fault, the operation it is aimed at, and settings of the service."""

    name: str
    kind: str = ""
    operation: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    cure: Mapping[str, Any] = field(default_factory=dict)


def cases() -> list[Case]:
    requests: list[tuple[str, str, dict[str, Any]]] = [
        ("connection lost before", "drop_before", {}),
        ("connection lost after", "drop_after", {}),
        ("answer cut", "cut", {}),
        ("answer torn", "torn", {}),
        ("answer no JSON", "garbage", {}),
        ("429", "status", {"status": 429, "code": 1202}),
        ("503", "status", {"status": 503}),
        ("504, though done", "status_after", {"status": 504}),
    ]
    found = [
        Case(
            f"{name}: {operation}", kind, operation, {"skip": int(operation in ("submit", "job", "results")), **options}
        )
        for name, kind, options in requests
        for operation in OPERATIONS
    ]
    found += [Case(f"job: {kind} {code}", kind, "", {"code": code, "skip": 2}) for kind, code in (
        ("job_failed", 1500), ("job_failed", 9999), ("job_cancelled", None)
    )]  # fmt: skip
    found += [
        Case("session expires", "expire_session", "", {"skip": 2}),
        Case("session expires, job queued", "expire_queued", "", {"skip": 2}),
        Case("too many pending jobs (3458)", "status", "submit", {"status": 400, "code": 3458, "skip": 1}),
        Case("job deleted before its result was read", "delete_job", "job", {"skip": 2}),
        Case("submission duplicated by the network", "duplicate", "submit", {"skip": 1}),
    ]
    for kind in ("wrong_shape", "wrong_size", "inconsistent", "nan", "other_job"):
        found.append(Case(f"result {kind}, once", kind, "", {"skip": 1}))
        found.append(Case(f"result {kind}, for good", kind, "", {"skip": 1, "sticky": True}))
    found += [
        Case("401 at submission", "status", "submit", {"status": 401, "code": 1200, "skip": 2, "times": None}),
        Case("401 while waiting", "status", "job", {"status": 401, "code": 1200, "skip": 2, "times": None}),
        Case("not ISA (3211)", "job_failed", "", {"code": 3211, "skip": 2, "times": None}),
        Case("quota (4317)", "status", "submit", {"status": 400, "code": 4317, "skip": 2, "times": None}),
        Case("service away for good", "drop_before", "submit", {"skip": 2, "times": None}),
        Case("every job fails", "job_failed", "", {"skip": 2, "times": None}),
        Case("Open Plan: session refused", settings={"open_plan": True}, cure={"open_plan": False}),
        Case("usage limit", settings={"usage_limit_seconds": 7}, cure={"usage_limit_seconds": None}),
    ]
    return found


def attempt(case: Case, undisturbed: Outcome) -> str:
    """A row of the table; a run that stopped is resumed once the fault is gone."""
    settings = dict(case.settings)
    with (
        tempfile.TemporaryDirectory() as folder,
        LoopbackService(engine="random", qubits=(0, 1, 2), **settings) as loopback,
    ):
        if case.kind:
            loopback.fail(case.kind, case.operation, **case.options)
        outcome = train(loopback, Path(folder))
        ended = "ends" if outcome.error is None else f"stops: {type(outcome.error).__name__}"
        # a session whose opening was not answered has no id here; without jobs it costs nothing, and ends after 30 minutes
        left = ", ".join("used" if session.jobs else "unused" for session in loopback.open_sessions) or "none"
        attempts, seconds = outcome.requests["submit"], outcome.seconds
        if outcome.error is not None:
            loopback.clear_faults()
            loopback.configure(**case.cure)
            outcome = train(loopback, Path(folder), resume=True)
            ended += ", resumed" if outcome.error is None else f", then {type(outcome.error).__name__}"
        equal = "yes" if outcome.equals(undisturbed) else "NO"
        return f"| {case.name} | {ended} | {attempts} | {seconds:.1f} | {outcome.twice} | {left} | {equal} |"


def main(words: list[str]) -> None:
    logging.disable(logging.CRITICAL)
    with short_waiting():
        with (
            tempfile.TemporaryDirectory() as folder,
            LoopbackService(engine="random", qubits=(0, 1, 2)) as loopback,
        ):
            undisturbed = train(loopback, Path(folder))
        print(
            f"undisturbed: {undisturbed.submitted} jobs, {undisturbed.seconds:.1f} s; pauses between attempts at 1 %\n"
        )
        print("| fault | the run | submissions | seconds | executed twice | sessions left | same result |")
        print("|---|---|---|---|---|---|---|")
        for case in cases():
            if not words or any(word in case.name for word in words):
                print(attempt(case, undisturbed), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
