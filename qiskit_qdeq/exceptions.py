"""Every error and warning this package raises on purpose."""

from __future__ import annotations

import sys
import warnings


class QDEQError(Exception):
    """Base of all errors of qiskit-qdeq."""


class InputError(QDEQError, ValueError):
    """An argument or a data value that cannot be used; the message names it and says what to do."""


class DataFileError(InputError):
    """A data file that is missing, damaged or of another format; the message names the file and the byte."""


class CheckpointError(QDEQError, RuntimeError):
    """A checkpoint that is damaged, incomplete or of another configuration."""


class ConvergenceError(QDEQError, RuntimeError):
    """Raised on request (``on_failure="raise"``) when samples have no equilibrium to the tolerance."""


class ExecutionError(QDEQError, RuntimeError):
    """A primitive returned a result that cannot be used; the message names the job."""


class JobTooLongError(ExecutionError):
    """The service ended a job because it ran too long; what it asked for must be split."""


class ServiceError(ExecutionError):
    """A service refused a request, or failed it too often; the message says which, why, and how to go on."""


class JournalError(CheckpointError):
    """A journal of jobs that is damaged, of another run, or cannot be written."""


class BudgetError(QDEQError, RuntimeError):
    """The next job would exceed the budget; nothing of it was submitted."""


class StoppedError(QDEQError, RuntimeError):
    """Waiting for a service was ended on request; the jobs under way are fetched when the run is resumed."""


class StudyError(QDEQError, RuntimeError):
    """Some tasks of a study failed; those that are done are kept."""


class MissingExtraError(QDEQError, ImportError):
    """An optional dependency is not installed; the message names the extra that brings it."""


class ConvergenceWarning(UserWarning):
    """Some samples did not reach the equilibrium tolerance; their results carry their status."""


class CheckpointWarning(UserWarning):
    """A damaged checkpoint was replaced by the one saved before it."""


def warn_user(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the line of the user's code that led here, not at a line of this package or of scikit-learn."""
    frame, level = sys._getframe(1), 2
    while frame.f_back and str(frame.f_globals.get("__name__")).partition(".")[0] in ("qiskit_qdeq", "sklearn"):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)
