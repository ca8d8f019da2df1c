"""Error answers in IBM's form, ``{"errors": [{"code", "message", "solution", "more_info"}], "trace"}``.

The whole body of 1352 (HTTP 400), the text of 1217 and the reason of 1305 are known from what others published. The texts of
1200, 1201, 1202, 3211, 3250 and 3458 follow IBM's table of error codes; their HTTP statuses, and 1500 and 4317, are guesses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

MESSAGES = {
    1200: "You are not authorized to perform this action.",
    1201: "Invalid credentials.",
    1202: "Too many requests received.",
    1217: "Session has been closed.",
    1305: "Ran too long",
    1352: "You are not authorized to run a session when using the open plan.",
    1500: "An internal error occurred.",
    3211: "Job not valid.",
    3250: "Job not found.",
    3458: "Reached maximum number of concurrent jobs",
    4317: "Usage limit reached.",
}
_SOLUTIONS = {1352: "Create an instance of a different plan type or use a different execution mode."}
_MORE = "https://cloud.ibm.com/apidocs/quantum-computing#error-handling"


@dataclass
class ApiError(Exception):
    """An answer other than success.

    Attributes:
        status: of HTTP.
        code: IBM's.
        message: None: the usual one of the code.
    """

    status: int
    code: int = 1500
    message: str | None = None

    @property
    def body(self) -> dict[str, Any]:
        message = self.message or MESSAGES.get(self.code, "An error occurred.")
        solution = _SOLUTIONS.get(self.code, "Retry the action.")
        error = {"code": self.code, "message": message, "solution": solution, "more_info": _MORE}
        return {"errors": [error], "trace": "00000000-0000-4000-8000-000000000000"}
