"""Calling a service again after a while, where a failure may pass, and waiting that can be ended."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    stop_after_delay,
    wait_random_exponential,
)

from qiskit_qdeq.exceptions import InputError, StoppedError
from qiskit_qdeq.execution.events import Announcer
from qiskit_qdeq.execution.failures import failure_of

T = TypeVar("T")


@dataclass(frozen=True)
class Patience:
    """How long a service is given that fails.

    Attributes:
        seconds: that it may be out of reach, or too busy, at a stretch.
        attempts: jobs submitted for one request before it is given up.
    """

    seconds: float = 600.0
    attempts: int = 5

    def __post_init__(self) -> None:
        if isinstance(self.seconds, bool) or not isinstance(self.seconds, int | float) or not self.seconds >= 0:
            raise InputError(f"patience must be a number of seconds of at least 0, got {self.seconds!r}")
        if isinstance(self.attempts, bool) or not isinstance(self.attempts, int) or self.attempts < 1:
            raise InputError(f"attempts must be an integer of at least 1, got {self.attempts!r}")


class SessionClosedError(Exception):
    """A session was closed; the next attempt opens another."""


class Persistence:
    """Calls a service with patience; `stop` ends it.

    Args:
        patience: how much.
        announce: is told of every failure and pause.
    """

    def __init__(self, patience: Patience, announce: Announcer) -> None:
        self._patience, self._announce = patience, announce
        self._stopped = False

    def stop(self) -> None:
        """End any waiting with StoppedError, now or when it begins; safe in a signal handler."""
        self._stopped = True

    def call(self, call: Callable[[], T], what: str) -> T:
        """What `call` returns, perhaps at a later attempt; its last exception if there is none left."""

        def tell(state: RetryCallState) -> None:
            error = state.outcome.exception() if state.outcome else None
            reason = failure_of(error).message if error else ""
            seconds = state.next_action.sleep if state.next_action else 0.0
            self._announce("retrying", detail=f"{what}: {reason}", pause=seconds)

        return Retrying(
            stop=stop_after_delay(self._patience.seconds) | stop_after_attempt(1000),
            wait=wait_random_exponential(multiplier=0.5, max=30),
            retry=retry_if_exception(_may_pass),
            before_sleep=tell,
            sleep=self.sleep,
            reraise=True,
        )(call)

    def sleep(self, seconds: float) -> None:
        """In small pieces, so that `stop` is heard.

        Raises:
            StoppedError: after `stop`.
        """
        end = time.monotonic() + seconds
        while True:
            if self._stopped:
                raise StoppedError("waiting was ended; jobs under way are fetched when the run is resumed")
            left = end - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, 0.1))


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, SessionClosedError) or (isinstance(error, Exception) and failure_of(error).can_repeat)
