"""Ctrl-C and SIGTERM: the first lets a run end after its step, with a checkpoint; the second ends it at once."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Terminated(KeyboardInterrupt):
    """SIGTERM, on the same way out as Ctrl-C."""


@contextlib.contextmanager
def stopping(stop: Callable[[], None]) -> Iterator[Callable[[], None]]:
    """Call `stop` at the first signal; the function it yields raises if there was one.

    Raises:
        KeyboardInterrupt: at the second signal (Terminated for SIGTERM).
    """
    received: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if len(received) > 1:
            raise _interrupt(number)
        # not print: a handler may run in the middle of one
        with contextlib.suppress(OSError):
            os.write(2, b"\nstopping, with a checkpoint (once more to stop at once)\n")
        stop()

    def check() -> None:
        if received:
            raise _interrupt(received[0])

    with _handling(_SIGNALS, handle):
        yield check


@contextlib.contextmanager
def terminating() -> Iterator[None]:
    """Let SIGTERM raise `Terminated`, as Ctrl-C raises KeyboardInterrupt."""

    def handle(number: int, frame: FrameType | None) -> None:
        raise _interrupt(number)

    with _handling((signal.SIGTERM,), handle):
        yield


def _interrupt(number: int) -> KeyboardInterrupt:
    return Terminated() if number == signal.SIGTERM else KeyboardInterrupt()


@contextlib.contextmanager
def _handling(numbers: tuple[signal.Signals, ...], handle: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    # Python lets only the main thread set handlers; a signal that is ignored (nohup, a shell's background) stays so
    main = threading.current_thread() is threading.main_thread()
    wanted = [number for number in numbers if main and signal.getsignal(number) != signal.SIG_IGN]
    before: dict[signal.Signals, Any] = {number: signal.signal(number, handle) for number in wanted}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, signal.SIG_DFL if earlier is None else earlier)
