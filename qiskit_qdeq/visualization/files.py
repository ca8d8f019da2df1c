"""Writes figures to PNG files, each completely or not at all."""

from __future__ import annotations

import contextlib
import io
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from qiskit_qdeq.circuits._checks import check_count
from qiskit_qdeq.exceptions import InputError


def save_figures(folder: str | os.PathLike[str], figures: Mapping[str, Figure], dpi: int = 120) -> dict[str, Path]:
    """Write each figure to `<folder>/<name>.png`.

    All figures are drawn before the first file is touched; a file is written beside its target and then
    renamed, so a reader sees the old picture or the new one. The folder is made if it is not there.

    Args:
        folder: where the files go.
        figures: name -> figure; names become file names.
        dpi: dots per inch; 120 makes a figure of notebook width 840 pixels wide.

    Returns:
        The path of every file, by name.

    Raises:
        InputError: for a name that is no plain file name, two names that differ in case only, a value that
            is no Figure, or a `dpi` below 1.
        OSError: if the folder or a file cannot be written.
    """
    dpi = check_count("dpi", dpi)
    if not isinstance(figures, Mapping):
        raise InputError(f"figures must be a mapping name -> Figure, got {type(figures).__name__}")
    _check_names(list(figures))
    target = Path(folder)
    for name, figure in figures.items():
        if not isinstance(figure, Figure):
            raise InputError(f"figures[{name!r}] must be a matplotlib Figure, got {type(figure).__name__}")
    images = {name: png_of(figure, dpi) for name, figure in figures.items()}
    target.mkdir(parents=True, exist_ok=True)
    return {name: write_image(target / f"{name}.png", image) for name, image in images.items()}


def _check_names(names: list[Any]) -> None:
    for name in names:
        if not isinstance(name, str) or not name or name.startswith(".") or set(name) & set("/\\:\0"):
            raise InputError(f"figures has the name {name!r}, which is no plain file name")
    folded = [name.casefold() for name in names]
    for name in names:
        if folded.count(name.casefold()) > 1:
            raise InputError(f"figures has two names that differ from {name!r} in case only: rename one")


def png_of(figure: Figure, dpi: int = 120) -> bytes:
    """The figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def write_image(path: Path, image: bytes) -> Path:
    """Write the file in one piece."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        temporary.write_bytes(image)
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    return path
