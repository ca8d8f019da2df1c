"""Where a person reads how far a run is: bars in a terminal or notebook, single lines in a file or pipe."""

from __future__ import annotations

import shutil
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TextIO

from tqdm import TqdmWarning

from qiskit_qdeq.execution.waiting import duration

with warnings.catch_warnings():
    # in a notebook without ipywidgets tqdm takes its text bar, and would warn of it where nobody asked for a bar
    warnings.simplefilter("ignore", TqdmWarning)
    from tqdm.auto import tqdm

_BAR = "{desc} {n_fmt}/{total_fmt} |{bar}| {elapsed}<{remaining}{postfix}"
#: Seconds between lines where there is something new to say, and where there is not.
_NEWS, _NO_NEWS = 10.0, 60.0


class Display(Protocol):
    """Shows one task at a time."""

    def begin(self, title: str, total: int, done: int) -> None:
        """A task of `total` pieces, `done` of which are behind it."""

    def advance(self, done: int) -> None:
        """Pieces done so far."""

    def figures(self, figures: Mapping[str, str]) -> None:
        """What came of them, to be shown from the next time on."""

    def status(self, text: str, state: str) -> None:
        """What it waits for now; `state` is the same without what only time changes."""

    def note(self, text: str) -> None:
        """A line that stays."""

    def end(self) -> None:
        """The task is over, or given up."""


def display(stream: TextIO | None = None) -> Display:
    """What suits `stream`, standard error if it is None; a notebook's own bars where there is one."""
    stream = stream or sys.stderr
    if _in_notebook() or stream.isatty():
        return BarDisplay(stream)
    return LineDisplay(stream)


def _in_notebook() -> bool:
    return any(kind.__module__ == "tqdm.notebook" for kind in tqdm.__mro__)


class BarDisplay:
    """A bar, and below it a line of what it waits for."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._bar: Any = None
        self._line: Any = None

    def begin(self, title: str, total: int, done: int) -> None:
        """See `Display`."""
        self.end()
        self._bar = tqdm(total=total, initial=done, desc=title, file=self._stream, mininterval=0.2, bar_format=_BAR)

    def advance(self, done: int) -> None:
        """See `Display`."""
        if self._bar is not None:
            self._bar.update(done - self._bar.n)

    def figures(self, figures: Mapping[str, str]) -> None:
        """See `Display`."""
        if self._bar is not None:
            self._bar.set_postfix(figures, refresh=False)

    def status(self, text: str, state: str) -> None:
        """See `Display`."""
        if self._bar is None:
            return
        if self._line is None and text:
            self._line = tqdm(total=0, position=1, leave=False, bar_format="{desc}", file=self._stream)
        if self._line is not None:
            # what does not fit would be wrapped, and every renewal would begin on another line
            width = sys.maxsize if _in_notebook() else shutil.get_terminal_size().columns - 1
            self._line.set_description_str(text[:width])
        self._bar.refresh()

    def note(self, text: str) -> None:
        """See `Display`."""
        tqdm.write(text, file=self._stream)

    def end(self) -> None:
        """See `Display`."""
        for shown in (self._line, self._bar):
            if shown is not None:
                shown.close()
        self._bar = self._line = None


class LineDisplay:
    """A line at a time: soon where there is something new, seldom where there is not.

    Args:
        stream: to write to.
        clock: gives seconds.
    """

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._clock = stream, clock
        self._title, self._total, self._done = "", 0, 0
        self._figures: dict[str, str] = {}
        self._text = self._state = ""
        self._began = self._written = 0.0
        self._shown: tuple[Any, ...] = ()

    def begin(self, title: str, total: int, done: int) -> None:
        """See `Display`."""
        self.end()
        self._title, self._total, self._done, self._figures = title, total, done, {}
        self._text = self._state = ""
        self._began = self._clock()
        self._write()

    def advance(self, done: int) -> None:
        """See `Display`."""
        self._done = done
        self._write_if_due()

    def figures(self, figures: Mapping[str, str]) -> None:
        """See `Display`."""
        self._figures = dict(figures)

    def status(self, text: str, state: str) -> None:
        """See `Display`."""
        self._text, self._state = text, state
        self._write_if_due()

    def note(self, text: str) -> None:
        """See `Display`."""
        print(text, file=self._stream, flush=True)

    def end(self) -> None:
        """See `Display`."""
        if self._title:
            self._text = self._state = ""
            if self._news != self._shown:
                self._write()
        self._title = ""

    @property
    def _news(self) -> tuple[Any, ...]:
        return self._done, self._state, self._figures

    def _write_if_due(self) -> None:
        pause = _NEWS if self._news != self._shown else _NO_NEWS
        if self._title and self._clock() - self._written >= pause:
            self._write()

    def _write(self) -> None:
        now = self._clock()
        figures = "".join(f", {name} {value}" for name, value in self._figures.items())
        status = f"; {self._text}" if self._text else ""
        self.note(f"[{duration(now - self._began)}] {self._title} {self._done}/{self._total}{figures}{status}")
        self._shown, self._written = self._news, now
