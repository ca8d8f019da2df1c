"""A program's file as a job of Qiskit Serverless or Functions: arguments and result are JSON files that the platform names.

The client of the platform is not needed, and not imported: a job is a script that reads the file at $ARGUMENTS_PATH and
writes the one at $RESULTS_PATH.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from qiskit_qdeq.__main__ import main as run_command
from qiskit_qdeq.__main__ import program, run_guarded
from qiskit_qdeq._files import write_json
from qiskit_qdeq.exceptions import InputError

_ARGUMENTS, _RESULTS = "ARGUMENTS_PATH", "RESULTS_PATH"
_LARGEST_FILE = 2**20


def run_script(name: str) -> int:
    """Run a program's file: the exit code.

    Without words on the command line, and with $ARGUMENTS_PATH, it is a job: `main(arguments=...)` is called with the
    fields in that JSON file, and what it returns is written to $RESULTS_PATH. Without $ARGUMENTS_PATH it is a command, as
    it is for --help. Words beside $ARGUMENTS_PATH are refused.

    Args:
        name: of the command, such as "train".
    """
    words = sys.argv[1:]
    if _ARGUMENTS not in os.environ or {"-h", "--help"} & set(words):
        return run_command([name, *words])
    return run_guarded(lambda: _job(name, words))


def _job(name: str, words: list[str]) -> int:
    if words:
        raise InputError(
            f"${_ARGUMENTS} names a file of arguments, and the command line has {' '.join(words)!r}: "
            f"put them into the file, or unset ${_ARGUMENTS}"
        )
    target = os.environ.get(_RESULTS)
    if not target:
        raise InputError(f"${_RESULTS} must name the file for the result, as ${_ARGUMENTS} names the arguments'")
    result = program(name).main(arguments=_arguments(Path(os.environ[_ARGUMENTS])))
    write_json(Path(target), result)
    return 0


def _arguments(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise InputError(f"${_ARGUMENTS} {path} is larger than {_LARGEST_FILE} bytes: it holds no arguments")
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"${_ARGUMENTS} {path} cannot be read as JSON: {error}") from None
    if not isinstance(found, dict):
        raise InputError(f"${_ARGUMENTS} {path} must hold a JSON object of arguments, got {type(found).__name__}")
    return found
