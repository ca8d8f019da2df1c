"""Result files, replaced in one piece."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write a JSON file in one piece: what was there before stays until the new one is complete.

    Raises:
        OSError: naming the file, if it cannot be written.
    """
    write_text(path, json.dumps(values, indent=2, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """`write_json` for text that is not JSON."""
    temporary = path.parent / f".{path.name}.{os.getpid()}.tmp"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, "utf-8")
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise OSError(f"{path} cannot be written: {error.strerror or error}") from error
