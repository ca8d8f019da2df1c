"""A session or batch: opened when the first job needs it, again when the service has closed it, and closed at the end."""

from __future__ import annotations

import contextlib
from typing import Any

from qiskit.providers import BackendV2
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from qiskit_qdeq.execution.events import Announcer, noted
from qiskit_qdeq.execution.journal import Journal
from qiskit_qdeq.execution.modes import create_mode, other_modes
from qiskit_qdeq.execution.redaction import redact


class Lifetime:
    """What jobs are submitted to: the device itself, a batch or a session, whose id is in the journal while it is open.

    One that was opened, but whose id never arrived, is out of reach: it costs nothing, and the service closes it as unused.

    Args:
        backend: the device.
        mode: "job", "batch" or "session".
        max_time: seconds after which the service closes it.
        journal: learns what is opened and closed.
        announce: is told.
    """

    def __init__(
        self, backend: BackendV2, mode: str, max_time: int | None, journal: Journal, announce: Announcer
    ) -> None:
        self._backend, self._mode, self._max_time = backend, mode, max_time
        self._journal, self._announce = journal, announce
        self._current: Any = None

    @property
    def renewable(self) -> bool:
        """Whether another one can take the place of one that the service has closed."""
        return self._mode != "job"

    @property
    def advice(self) -> str:
        """What to do where the service refuses to open it, "" where nothing is to be opened."""
        return "" if self._mode == "job" or self._current is not None else other_modes(self._mode)

    def current(self) -> Any:
        """What an estimator takes as its mode; opened if it is not open. What the service answers instead is raised."""
        if self._mode == "job":
            return self._backend
        if self._current is None:
            self._current = create_mode(self._backend, self._mode, self._max_time)
            if name := self._current.session_id:
                try:
                    self._journal.opened(name, self._mode)
                except BaseException:
                    # nobody would ever close it
                    self.close()
                    raise
                self._announce("opened", name, detail=self._mode)
        return self._current

    def renew(self, reason: str) -> None:
        """The service has closed it: the next job opens another."""
        if self._current is not None:
            self._announce("notice", detail=f"the {self._mode} was closed by the service ({reason}); opening another")
        self.close()

    def close(self) -> None:
        """Close it, if it is open; a second call does nothing. What cannot be closed stays open in the journal."""
        current, self._current = self._current, None
        if current is None:
            return
        name = current.session_id or ""
        if close_mode(current, self._announce):
            # the end of a run must not fail over its journal: a resumed run closes what is closed
            with contextlib.suppress(Exception):
                self._journal.closed(name)
            self._announce("closed", name, detail=self._mode)


class Given(Lifetime):
    """The mode of an estimator object, whose owner opened it and will close it."""

    def __init__(self, mode: Any) -> None:
        self._given = mode

    @property
    def renewable(self) -> bool:
        """It is not ours to reopen."""
        return False

    @property
    def advice(self) -> str:
        """Nothing is to be opened."""
        return ""

    def current(self) -> Any:
        """The mode itself."""
        return self._given

    def renew(self, reason: str) -> None:
        """It is not ours to reopen."""

    def close(self) -> None:
        """It is not ours to close."""


def close_mode(mode: Any, announce: Announcer) -> bool:
    """Close a session or batch, with some patience for a service that does not answer; whether it is closed."""
    # whatever the reason, once more costs less than a session that stays open
    attempts = Retrying(
        stop=stop_after_attempt(4),
        wait=wait_exponential(multiplier=0.5, max=4),
        retry=retry_if_exception_type(Exception),
        reraise=True,
    )
    try:
        with noted(announce):
            attempts(mode.close)
    except Exception as error:
        announce("notice", mode.session_id or "", detail=f"could not be closed: {redact(error)}")
        return False
    return True
