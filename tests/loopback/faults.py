"""What goes wrong on command.

A fault is aimed at an operation (`OPERATIONS`, or "any") and, if it names a `tag`, at jobs that carry it; it lets `skip`
matching ones pass, then hits `times` of them (None: all), each with `probability` from its own `seed`.

=================  ===================================================================================================
request            hits a request of `operation`
-----------------  ---------------------------------------------------------------------------------------------------
drop_before        the connection is cut, nothing was done
drop_after         it was done, the connection is cut instead of an answer
status             answered with HTTP `status` and IBM's `code` (and `message`), nothing was done
status_after       it was done, answered with HTTP `status` and `code`; when the client repeats the very same request, it is
                   not done again, as IBM promises for 5xx (unless `Settings.repeats_are_safe` is False)
stall              nothing happens for `seconds`, then as usual
stall_after        it is done, the answer comes `seconds` later
duplicate          done twice (a job is submitted twice), answered once
listed_twice       GET /jobs names each job twice
expire_session     the session of the job posted is closed by the service first
delete_job         the job asked for is gone (404)
cut                the connection is cut in the middle of the answer
torn               half of the answer's text, with a length that fits
garbage            text that is no JSON
job                hits a job when it is about to run; nothing is executed or billed
-----------------  ---------------------------------------------------------------------------------------------------
job_failed         ends Failed with `code` and `message`
job_cancelled      ends Cancelled
ran_too_long       ends Cancelled with 1305 if it has more than `executions`
expire_queued      its session closes while it waits; it and its queued siblings end Failed
result             hits a result when it is delivered; with ``sticky=True`` the job hit stays that way
-----------------  ---------------------------------------------------------------------------------------------------
wrong_shape        it decodes to one row of values less
wrong_size         it decodes to one PUB less
inconsistent       its parts contradict each other: decoding fails in the client
nan                NaN where the numbers are
other_job          the result of the last other job that completed; its own, if there is none
=================  ===================================================================================================
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

OPERATIONS = (
    "token", "search", "catalog", "backends", "configuration", "properties", "backend_status", "usage",
    "open_session", "session", "close_session", "cancel_session",
    "submit", "jobs", "job", "results", "metrics", "logs", "cancel", "delete", "tags",
)  # fmt: skip
REQUEST_KINDS = (
    "drop_before", "drop_after", "status", "status_after", "stall", "stall_after", "duplicate", "listed_twice",
    "expire_session", "delete_job", "cut", "torn", "garbage",
)  # fmt: skip
JOB_KINDS = ("job_failed", "job_cancelled", "ran_too_long", "expire_queued")
RESULT_KINDS = ("wrong_shape", "wrong_size", "inconsistent", "nan", "other_job")
_DEFAULT_OPERATION = {"listed_twice": "jobs", "delete_job": "job"}


@dataclass
class Fault:
    """One command to fail; `fired` counts how often it did."""

    kind: str
    operation: str = ""
    times: int | None = 1
    skip: int = 0
    probability: float = 1.0
    seed: int = 0
    tag: str = ""
    status: int = 500
    code: int | None = None
    message: str | None = None
    seconds: float = 0.0
    executions: int = 0
    sticky: bool = False
    fired: int = 0
    hit: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.kind not in (*REQUEST_KINDS, *JOB_KINDS, *RESULT_KINDS):
            raise ValueError(f"there is no fault {self.kind!r}")
        if self.kind in JOB_KINDS:
            self.operation = "run"
        elif self.kind in RESULT_KINDS:
            self.operation = "results"
        elif not self.operation:
            self.operation = _DEFAULT_OPERATION.get(self.kind, "submit")
        if self.operation not in (*OPERATIONS, "run", "any"):
            raise ValueError(f"there is no operation {self.operation!r}")
        self._random = random.Random(self.seed)

    def strikes(self, tags: list[str]) -> bool:
        """Whether a matching event is hit; counts it."""
        if self.tag and self.tag not in tags:
            return False
        if self.times is not None and self.fired >= self.times:
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        if self._random.random() >= self.probability:
            return False
        self.fired += 1
        return True


class Faults:
    """All faults commanded, in that order."""

    def __init__(self) -> None:
        self.all: list[Fault] = []

    def add(self, kind: str, operation: str = "", **options: Any) -> int:
        """Command a fault; returns its index in `all`."""
        self.all.append(Fault(kind, operation, **options))
        return len(self.all) - 1

    def clear(self) -> None:
        self.all.clear()

    def of_request(self, operation: str, tags: list[str]) -> dict[str, Fault]:
        """Kind -> fault for the kinds that hit this request."""
        return {
            fault.kind: fault
            for fault in self._aimed(REQUEST_KINDS)
            if fault.operation in (operation, "any") and fault.strikes(tags)
        }

    def of_job(self, tags: list[str], executions: int) -> Fault | None:
        """The fault that ends a job about to run."""
        for fault in self._aimed(JOB_KINDS):
            if fault.kind == "ran_too_long" and executions <= fault.executions:
                continue
            if fault.strikes(tags):
                return fault
        return None

    def of_result(self, identity: str, tags: list[str]) -> Fault | None:
        """The fault that spoils a result being delivered."""
        for fault in self._aimed(RESULT_KINDS):
            if identity in fault.hit:
                return fault
            if fault.strikes(tags):
                if fault.sticky:
                    fault.hit.append(identity)
                return fault
        return None

    def _aimed(self, kinds: tuple[str, ...]) -> Iterator[Fault]:
        return (fault for fault in list(self.all) if fault.kind in kinds)
