"""Execution modes of Qiskit Runtime as one context manager that closes on any exit."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from qiskit.providers import BackendV2

from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.execution.redaction import redact

MODES = ("job", "batch", "session")


@contextlib.contextmanager
def open_mode(backend: BackendV2, mode: str = "job", max_time: int | None = None) -> Iterator[Any]:
    """Open what `Estimator(mode=...)` takes, and close it on any exit, KeyboardInterrupt included.

    Args:
        backend: an IBM device, or a fake backend or simulator, which needs no account.
        mode: "job" (the backend itself), "batch" or "session"; Open Plan accounts cannot open sessions.
        max_time: seconds after which the service closes the batch or session; None: the service's own limit.

    Yields:
        The backend, a `Batch` or a `Session`.

    Raises:
        InputError: if the mode is unknown, `max_time` comes with "job", or the service refuses to open it.
    """
    check_mode(mode, max_time)
    if mode == "job":
        yield backend
        return
    from qiskit_ibm_runtime.exceptions import IBMError

    try:
        opened = create_mode(backend, mode, max_time)
    except IBMError as error:
        reason = f"{type(error).__name__}: {redact(error)}"
        raise InputError(
            f"the service did not open a {mode} on {backend.name} ({reason}); {other_modes(mode)}"
        ) from None
    try:
        yield opened
    except BaseException:
        # what went wrong matters more than a close that fails after it
        with contextlib.suppress(Exception):
            opened.close()
        raise
    opened.close()


def check_mode(mode: str, max_time: int | None) -> None:
    """Raise InputError unless `mode` is known and `max_time` (seconds or None) has a meaning with it."""
    if mode not in MODES:
        raise InputError(f"mode must be one of {', '.join(MODES)}, got {mode!r}")
    if max_time is None:
        return
    if mode == "job":
        raise InputError("max_time has no effect with mode='job'; use mode='batch' or 'session', or leave it out")
    if isinstance(max_time, bool) or not isinstance(max_time, int) or max_time < 1:
        raise InputError(f"max_time must be a whole number of seconds of at least 1, got {max_time!r}")


def create_mode(backend: BackendV2, mode: str, max_time: int | None) -> Any:
    """A new `Batch` or `Session`; what the service answers instead is raised as it is."""
    from qiskit_ibm_runtime import Batch, Session

    return (Batch if mode == "batch" else Session)(backend=backend, max_time=max_time)


def other_modes(mode: str) -> str:
    """Advice for a mode that cannot be opened."""
    other = "'job'" if mode == "batch" else "'batch' or 'job', as Open Plan accounts cannot open sessions"
    return f"use mode={other}"
