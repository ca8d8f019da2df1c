"""Result files, replaced in one piece."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from qiskit_qdeq.exceptions import QDEQError


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write a JSON file in one piece: what was there before stays until the new one is complete.

    Raises:
        OSError: naming the file, if it cannot be written.
        QDEQError: if a value is nothing that JSON has a word for; naming it, if it is not finite.
    """
    try:
        text = json.dumps(values, indent=2, allow_nan=False)
    except TypeError as error:
        raise QDEQError(f"{path} cannot be written: {error}; JSON holds texts, numbers, lists and mappings") from None
    except ValueError:
        if (place := _not_finite(values)) is None:
            raise
        raise QDEQError(f"{path} cannot be written: {place}, and JSON holds finite numbers only") from None
    write_text(path, text + "\n")


def _not_finite(values: Any, place: str = "") -> str | None:
    """Where the first number that is infinite or NaN is, such as "rows.3.loss"."""
    if isinstance(values, float) and not math.isfinite(values):
        return f"{place.removeprefix('.')} = {values}"
    items: Iterable[tuple[Any, Any]] = ()
    if isinstance(values, dict):
        items = values.items()
    elif isinstance(values, list | tuple):
        items = enumerate(values)
    found = (_not_finite(value, f"{place}.{name}") for name, value in items)
    return next((inner for inner in found if inner is not None), None)


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
