"""What went wrong at a service, by kind: what may be repeated, what must be looked up first, what cannot succeed.

IBM's client reports almost everything as IBMRuntimeError with the service's answer in its text: codes are read from there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from qiskit_qdeq.exceptions import QDEQError
from qiskit_qdeq.execution.redaction import redact

# in exceptions "Error code 1305; ...", in the service's answers {"errors":[{"code":1217,"message":"..."}]}
_CODE = re.compile(r"""(?:[Ee]rror code:?\s*|\bcode\\*["']:\s*)(\d{4})\b""")
_WORDS = re.compile(r""""message\\*":\s*\\*"([^"\\]+)""")
_HTTP = re.compile(r"\b([45]\d\d) (?:Client|Server) Error\b")

#: The job ended because it ran too long.
_TOO_LONG = {1305}
#: The session or batch takes no more jobs.
_CLOSED = {1216, 1217}
#: Too many jobs are pending.
_BUSY = {3458}
#: What no repetition cures, and what does.
_HOPELESS = {
    1200: "check the account's token (QiskitRuntimeService.save_account, or QISKIT_IBM_TOKEN)",
    1201: "check the account's token (QiskitRuntimeService.save_account, or QISKIT_IBM_TOKEN)",
    3211: "the circuit is not one that the device executes: transpile it for the device as it is now",
    4317: "the account's quota is used up: go on when there is time again, or with another instance",
    1352: "the account's plan has no sessions: use mode='batch' or 'job'",
}
_SESSION_IS_CLOSED = re.compile(
    r"(session|batch)[^.]*\b(closed|expired|not accepting|no longer accepting|terminated)", re.I
)
_TOO_LONG_TEXT = re.compile(r"ran (too long|longer than maximum execution time)", re.I)
_USAGE = re.compile(r"(usage|cost|time) limit|no more time available|quota", re.I)


class Kind(Enum):
    """How to go on."""

    TRANSIENT = "may be repeated"
    UNCERTAIN = "may have arrived all the same: to be looked up, then repeated"
    BUSY = "to be repeated later"
    SESSION = "needs a new session or batch"
    TOO_LONG = "must be split"
    HOPELESS = "cannot succeed"
    GONE = "not known to the service"


@dataclass(frozen=True)
class Failure:
    """A kind and what to tell the user, without credentials.

    Attributes:
        advice: what to do about it, part of the message; "" if there is nothing special.
    """

    kind: Kind
    message: str
    advice: str = ""

    @property
    def can_repeat(self) -> bool:
        """Whether the same call may succeed later."""
        return self.kind in (Kind.TRANSIENT, Kind.UNCERTAIN, Kind.BUSY)


def failure_of(error: BaseException) -> Failure:
    """The kind of an exception that a call to the service raised."""
    if isinstance(error, QDEQError):
        return Failure(Kind.HOPELESS, str(error))
    text, name = redact(error), type(error).__name__
    codes, names = _codes(text), {base.__name__ for base in type(error).__mro__}
    http = _HTTP.search(text)
    status = int(http[1]) if http else 0
    shown = _in_short(text, status)
    message = f"{name}: {shown}" if shown else name
    if names & {"IBMNotAuthorizedError", "IBMAccountError"} or status == 401:
        return _hopeless(message, 1200)
    if codes & _CLOSED or _SESSION_IS_CLOSED.search(text):
        return Failure(Kind.SESSION, message)
    if known := codes & _HOPELESS.keys():
        return _hopeless(message, min(known))
    if codes & _BUSY:
        return Failure(Kind.BUSY, message)
    if "RuntimeJobNotFound" in names or (status == 404 and "/jobs/" in text):
        return Failure(Kind.GONE, message)
    if status:
        return Failure(_of_status(status), message)
    if "JSONDecodeError" in names:
        # something answered, but not the service: a proxy, or a connection that broke in the middle
        return Failure(Kind.UNCERTAIN, f"{name}: what the service answered cannot be read")
    if names & {"IBMInputValueError", "QiskitBackendNotFoundError", "RuntimeProgramNotFound"}:
        return Failure(Kind.HOPELESS, message)
    if names & {"IBMError", "RequestException", "HTTPError", "OSError"} and not isinstance(error, ValueError):
        # no answer at all: the connection broke, or nobody answered in time
        return Failure(Kind.UNCERTAIN, message)
    return Failure(Kind.HOPELESS, message)


def failure_of_job(reason: str, *, cancelled: bool) -> Failure:
    """The kind of a job that ended without a result."""
    text = redact(reason)
    message = ("it was cancelled" if cancelled else "it failed") + (f": {text}" if text else "")
    codes = _codes(text)
    if codes & _TOO_LONG or _TOO_LONG_TEXT.search(text):
        return Failure(Kind.TOO_LONG, message)
    if codes & _CLOSED or _SESSION_IS_CLOSED.search(text):
        return Failure(Kind.SESSION, message)
    if hopeless := codes & _HOPELESS.keys():
        return _hopeless(message, min(hopeless))
    if _USAGE.search(text):
        return _hopeless(message, 4317)
    return Failure(Kind.TRANSIENT, message)


def _hopeless(message: str, code: int) -> Failure:
    advice = _HOPELESS[code]
    return Failure(Kind.HOPELESS, f"{message.rstrip('.')}; {advice}", advice)


def _codes(text: str) -> set[int]:
    return {int(code) for code in _CODE.findall(text)}


def _in_short(text: str, status: int) -> str:
    """The service's own words, without address and JSON around them."""
    words = _WORDS.search(text)
    if not (words and status):
        return text
    return f"error {', '.join(map(str, sorted(_codes(text))))} (HTTP {status}): {words[1]}"


def _of_status(status: int) -> Kind:
    if status == 429:
        return Kind.BUSY
    if status == 408 or status >= 500:
        return Kind.UNCERTAIN
    return Kind.HOPELESS
