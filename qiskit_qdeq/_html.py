"""What a notebook shows of a result: small tables of escaped text, without script or style of their own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from qiskit_qdeq.evaluation.protocol import Cost

Array = np.ndarray[Any, np.dtype[Any]]


def facts(title: str, rows: Mapping[str, object], notes: Iterable[str] = ()) -> str:
    """A table with a name and a value in each row.

    >>> facts("Solution", {"samples": 3})
    '<table><caption>Solution</caption><tr><th>samples</th><td>3</td></tr></table>'
    """
    body = "".join(f"<tr><th>{escape(name)}</th><td>{escape(str(value))}</td></tr>" for name, value in rows.items())
    return _table(title, body, notes)


def grid(title: str, header: Sequence[str], rows: Iterable[Sequence[str]], notes: Iterable[str] = ()) -> str:
    """A table with a header; the first cell of a row is its name.

    >>> grid("Cost", ["", "jobs"], [["step", "2"]])
    '<table><caption>Cost</caption><tr><th></th><th>jobs</th></tr><tr><th>step</th><td>2</td></tr></table>'
    """
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join(
        f"<tr><th>{escape(name)}</th>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"
        for name, *cells in rows
    )
    return _table(title, f"<tr>{head}</tr>{body}", notes)


def spread(values: Array, style: str) -> str:
    """Median and maximum in the format `style`; a dash where there is no value.

    >>> spread(np.array([1.0, 2.0, 6.0]), ".1f")
    'median 2.0 max 6.0'
    """
    if not len(values):
        return "-"
    return f"median {np.median(values):{style}} max {np.max(values):{style}}"


def share(flags: Array) -> str:
    """How many of how many.

    >>> share(np.array([True, False, True]))
    '2 of 3'
    """
    return f"{np.count_nonzero(flags)} of {len(flags)}"


def cost_rows(cost: Cost) -> dict[str, str]:
    """What was executed, as rows of a table; none where everything was computed."""
    if not cost.circuits:
        return {}
    time = {"QPU seconds": f"{cost.qpu_seconds:,.1f}"} if cost.qpu_seconds else {}
    return {"circuits": f"{cost.circuits:,}", "shots": f"{cost.shots:,}", "jobs": f"{cost.jobs:,}", **time}


def _table(title: str, body: str, notes: Iterable[str]) -> str:
    caption = f"<caption>{escape(title)}</caption>" if title else ""
    return f"<table>{caption}{body}</table>" + "".join(f"<p>{escape(note)}</p>" for note in notes)
