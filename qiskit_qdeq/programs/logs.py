"""The package's log in a file or on standard error for as long as a program runs, without credentials."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator

from tqdm import tqdm

from qiskit_qdeq.exceptions import InputError, QDEQError
from qiskit_qdeq.execution.redaction import redact
from qiskit_qdeq.programs.arguments import LogArguments

_PACKAGE = "qiskit_qdeq"
#: Warnings, which the program prints itself.
_PRINTED = "qiskit_qdeq.warnings"

logger = logging.getLogger("qiskit_qdeq.programs")


@contextlib.contextmanager
def logged(options: LogArguments) -> Iterator[None]:
    """Log as the options say; whatever ends the program is the last entry.

    Raises:
        InputError: if the file cannot be written, or the options contradict each other.
    """
    if options.quiet and options.verbose:
        raise InputError(
            "--quiet prints nothing and --verbose prints more: give one of them (--log-file goes with both)"
        )
    level = logging.DEBUG if options.verbose else logging.INFO
    handlers = [] if options.log_file is None else [_file_handler(options.log_file)]
    if options.verbose:
        handlers.append(_BesideBars())
    package = logging.getLogger(_PACKAGE)
    before = package.level
    for handler in handlers:
        handler.setFormatter(RedactingFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        handler.setLevel(level)
        package.addHandler(handler)
    if handlers:
        package.setLevel(level if not before else min(level, before))
    try:
        yield
    except BaseException as error:
        known = isinstance(error, QDEQError | KeyboardInterrupt)
        logger.error("ended by %s: %s", type(error).__name__, error, exc_info=not known or options.verbose)
        raise
    finally:
        package.setLevel(before)
        for handler in handlers:
            package.removeHandler(handler)
            handler.close()


class RedactingFormatter(logging.Formatter):
    """Formats a record, exceptions included, and takes credentials out of the whole of it."""

    def format(self, record: logging.LogRecord) -> str:
        """The text of a record."""
        return redact(super().format(record))


class _LogFile(logging.FileHandler):
    """A file that can fill the disk without ending the run."""

    _failed = False

    def handleError(self, record: logging.LogRecord) -> None:
        """Say it once."""
        if not self._failed:
            self._failed = True
            print(f"warning: log file {self.baseFilename}: {sys.exc_info()[1]}", file=sys.stderr)


class _BesideBars(logging.Handler):
    """Standard error, above progress bars."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record."""
        if record.name != _PRINTED:
            with contextlib.suppress(OSError, ValueError):
                tqdm.write(self.format(record), file=sys.stderr)


def _file_handler(path: str) -> logging.Handler:
    try:
        return _LogFile(path, encoding="utf-8", errors="backslashreplace")
    except (OSError, ValueError) as error:
        raise InputError(f"--log-file {path} cannot be written: {getattr(error, 'strerror', None) or error}") from None
