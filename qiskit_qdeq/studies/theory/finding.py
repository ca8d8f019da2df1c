"""What a check needs and what it gives: sizes, seed and data go in, a table, sentences and a figure come out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from qiskit_qdeq.data import DataSplit, load_split
from qiskit_qdeq.model import QDEQModel
from qiskit_qdeq.presets import model_config
from qiskit_qdeq.studies.markdown import table

Array = np.ndarray[Any, np.dtype[Any]]

ENCODINGS = ("amplitude", "angle")


@dataclass(frozen=True)
class Setting:
    """What a check is run with.

    Args:
        quick: small sizes, for a look.
        seed: of every random number.
        data: name of the data set, see `load_split`.
        data_dir: folder of its images.
    """

    quick: bool = False
    seed: int = 0
    data: str = "digits"
    data_dir: str | None = None

    def size(self, full: int, quick: int) -> int:
        """The one of two sizes that is asked for."""
        return quick if self.quick else full

    def split(self, num_qubits: int = 4, limit: int | None = None) -> DataSplit:
        """The data set with the features that fit `num_qubits`."""
        return load_split(self.data, data_dir=self.data_dir, num_qubits=num_qubits, limit=limit)


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Args:
        title: one line.
        columns: names of the table's columns.
        rows: its rows: texts, integers, reals; None where there is nothing to say.
        notes: how to read it, one sentence or formula each.
        figure: the picture.
        values: more figures than the table has room for, plain values and arrays.
    """

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[Any, ...]]
    notes: tuple[str, ...]
    figure: Figure
    values: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Everything but the figure, as JSON can hold it."""
        return {
            "title": self.title,
            "rows": [dict(zip(self.columns, map(_plain, row), strict=True)) for row in self.rows],
            "notes": list(self.notes),
            "values": _plain(self.values),
        }

    def text(self) -> list[str]:
        """Title and table in aligned columns."""
        cells = [self.columns, *(tuple(map(_cell, row)) for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in cells]
        return [self.title, *lines]

    def markdown(self) -> list[str]:
        """The table in Markdown."""
        # a bar in a cell would end it
        columns, *lines = ([_cell(value).replace("|", "\\|") for value in row] for row in (self.columns, *self.rows))
        return table(columns, lines, len(columns))


def paper_model(encoding: str, num_qubits: int = 4, num_classes: int = 4, **overrides: Any) -> QDEQModel:
    """The paper's model, n² features, state_scale 1; `overrides` are fields of `ModelConfig`."""
    return model_config("paper", num_qubits**2, num_classes, num_qubits, encoding=encoding, **overrides).build()


def share(chosen: Any) -> float:
    """Per cent of True in an array."""
    return 100 * float(np.mean(chosen))


def number(value: float) -> str:
    """Three digits, and more of a share that they would make all of it: 100 is no rounded 99.97.

    >>> number(99.97), number(100.0), number(0.00123), number(12345.6)
    ('99.97', '100', '0.00123', '12346')
    """
    if abs(value) >= 1000 and math.isfinite(value):
        return f"{value:.0f}"
    texts = (f"{value:.{digits}g}" for digits in range(3, 18))
    return next(text for text in texts if text != "100" or value == 100)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return number(value) if isinstance(value, float) else str(value)


def _plain(value: Any) -> Any:
    """JSON has neither arrays nor infinities: the latter become null."""
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
