"""How long a run has trained: wall-clock seconds of all processes that took its steps, compilation of kernels apart."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

from numba.core import event


class Stopwatch(event.Listener):  # type: ignore[misc]
    """Runs while it is entered, and stands still while numba compiles.

    Args:
        seconds: what earlier processes have taken.
    """

    def __init__(self, seconds: float = 0.0) -> None:
        self._before, self._since = float(seconds), 0.0
        self._running, self._compilations = False, 0

    @property
    def seconds(self) -> float:
        """Seconds so far."""
        return self._before + (time.perf_counter() - self._since if self._running else 0.0)

    def __enter__(self) -> Stopwatch:
        event.register("numba:compile", self)
        self._go_on()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        event.unregister("numba:compile", self)
        self._hold()
        self._compilations = 0

    def on_start(self, event: Any) -> None:
        """A compilation begins, maybe within another one."""
        self._compilations += 1
        self._hold()

    def on_end(self, event: Any) -> None:
        """A compilation ends."""
        # one that was under way when this was entered ends without having begun
        self._compilations = max(self._compilations - 1, 0)
        if not self._compilations and not self._running:
            self._go_on()

    def _hold(self) -> None:
        self._before, self._running = self.seconds, False

    def _go_on(self) -> None:
        self._since, self._running = time.perf_counter(), True
