"""What stands in the cells of the solver study's tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qiskit_qdeq.studies.solving.rows import Row, chosen


def percent(row: Row | None, name: str = "accuracy", digits: int = 1) -> str:
    """Mean and spread in per cent."""
    if row is None or row.get(name) is None:
        return "-"
    std = row.get(f"{name}_std")
    return f"{100 * row[name]:.{digits}f}" + ("" if std is None else f" ± {100 * std:.{digits}f}")


def failures(row: Row | None) -> str:
    """What follows figures that are not of all seeds."""
    return f"; {row['failed']} failed" if row and row.get("failed") else ""


def number(value: Any) -> str:
    """Three digits: 12.3, 0.00123, 1.2e-07."""
    if value is None:
        return "-"
    if value == 0:
        return "0"
    return f"{value:.1e}" if abs(value) < 1e-3 else f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def tolerance(tol: float) -> str:
    """1e-6 and not 1e-06."""
    return f"{tol:g}".replace("e-0", "e-")


def one(rows: Sequence[Row], **values: Any) -> Row | None:
    """The row with these values, if there is one."""
    found = chosen(rows, **values)
    return found[0] if found else None


def named(model: tuple[str, float]) -> str:
    """Of a model."""
    return f"{model[0]}, {model[1]:g}"


def of(model: tuple[str, float]) -> dict[str, Any]:
    """A model's values in a row."""
    return {"encoding": model[0], "state_scale": model[1]}
