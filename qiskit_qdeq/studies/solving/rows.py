"""From the results of tasks to rows over seeds, and from these to the cheapest cells."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from qiskit_qdeq.studies.solving.cells import Cell
from qiskit_qdeq.studies.statistics import Spread
from qiskit_qdeq.studies.tasks import Task

Row = dict[str, Any]

MODEL = ("encoding", "state_scale")
_CELL = ("solver", "start", "tol")
_SOLVED = (
    "steps",
    "most_steps",
    "circuits",
    "solved",
    "residual",
    "largest_residual",
    "error",
    "error_95",
    "elsewhere",
)
_TRAINED = ("accuracy", "steps", "most_steps", "unsolved", "solve_circuits", "step_circuits", "ms")
_STAGE = ("accuracy", "unsolved", "radius_above_1", "norm_above_1")
_SOUGHT = ("several", "class_differs", "class_differs_of_several", "returned", "starts_solved")


def rows_of(tasks: Sequence[Task], results: Sequence[Mapping[str, Any]]) -> dict[str, list[Row]]:
    """All rows of the study, by part; figures are means over seeds, `<name>_std` their standard deviation."""
    cells: dict[str, list[Row]] = {}
    for task, result in zip(tasks, results, strict=True):
        arguments, part = task.arguments, task.arguments["part"]
        known = {name: arguments["train"][name] for name in MODEL}
        known |= {
            name: arguments[name] for name in ("weights", "shots") if name in arguments and part != "shot trainings"
        }
        for cell in result["stages" if part == "maps" else "cells"]:
            cells.setdefault(part, []).append({**known, **cell})
            for mode, (cosine, error) in cell.get("gradients", {}).items():
                gradient = {**known, **{name: cell[name] for name in _CELL}, "backward": mode}
                cells.setdefault("gradients", []).append({**gradient, "cosine": cosine, "error": error})
    measured = {part: [row for row in found if "refused" not in row] for part, found in cells.items()}
    keys = {
        "maps": ((*MODEL, "epoch"), (*_STAGE, *_SOUGHT)),
        "solves": ((*MODEL, "weights", *_CELL), _SOLVED),
        "gradients": ((*MODEL, "weights", *_CELL, "backward"), ("cosine", "error")),
        "trainings": ((*MODEL, *_CELL, "backward"), _TRAINED),
        "shots": ((*MODEL, "shots", *_CELL), (*_SOLVED, "shots_taken", "jobs", "accuracy")),
        "shot gradients": ((*MODEL, "shots", "weights", "solver", "backward"), ("cosine", "error")),
        "shot trainings": (
            (*MODEL, "solver", "start", "backward"),
            ("accuracy", "steps", "unsolved", "step_circuits", "ms"),
        ),
    }
    rows = {part: gathered(measured.get(part, []), *columns) for part, columns in keys.items()}
    rows["refused"] = _refused(cells)
    return rows


def gathered(cells: Iterable[Row], keys: Sequence[str], values: Sequence[str]) -> list[Row]:
    """One row per combination of keys, in the order they first come: means over its cells, and how many there were.

    Counts (`status`, histograms) are added up, `most_steps` and `largest_residual` are the largest, `ms` the smallest; a
    training that failed has no figures.
    """
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for cell in cells:
        groups.setdefault(tuple(cell[name] for name in keys), []).append(cell)
    rows = []
    for key, group in groups.items():
        row: Row = {**dict(zip(keys, key, strict=True)), "count": len(group)}
        for name in values:
            found = [cell[name] for cell in group if cell.get(name) is not None]
            row[name] = Spread.of(found).mean if found else None
            row[f"{name}_std"] = Spread.of(found).std if found else None
            if found and name in ("most_steps", "largest_residual", "ms"):
                row[name] = min(found) if name == "ms" else max(found)
                del row[f"{name}_std"]
        if any("failed" in cell for cell in group):
            row["failed"] = sum("failed" in cell for cell in group)
        if "status" in group[0]:
            names = sorted({name for cell in group for name in cell["status"]})
            row["status"] = {name: sum(cell["status"].get(name, 0) for cell in group) for name in names}
        for name in ("radius_histogram", "counts"):
            if name in group[0]:
                row[name] = np.sum([cell[name] for cell in group], axis=0).tolist()
        for name in ("radius_quantiles", "norm_quantiles"):
            if name in group[0]:
                row[name] = np.mean([cell[name] for cell in group], axis=0).tolist()
        rows.append(row)
    return rows


def _refused(cells: Mapping[str, Sequence[Row]]) -> list[Row]:
    """What the package refuses, once per reason: where, and the reason."""
    found: dict[tuple[str, ...], Row] = {}
    for part, rows in cells.items():
        for row in rows:
            if "refused" not in row:
                continue
            weights = row.get("weights", "") if part == "solves" else ""
            # a refusal of a start or mode holds with every solver, one of a solver with every start
            what = (row.get("backward", "") if "backward mode" in row["refused"] else "") or (
                f"start {row['start']}" if "warm start" in row["refused"] else row["solver"]
            )
            encoding = row["encoding"] if what == "probe" else ""
            key = (what, encoding, row["refused"])
            found.setdefault(
                key, {"what": what, "encoding": encoding, "reason": row["refused"], "parts": [], "cells": 0}
            )
            entry = found[key]
            entry["cells"] += 1
            name = f"{part}, {weights} weights" if weights else part
            if name not in entry["parts"]:
                entry["parts"].append(name)
    return list(found.values())


def pooled_std(rows: Iterable[Row], name: str) -> float:
    """Root mean square of the standard deviations of rows: of three seeds, one row's own says little."""
    spreads = [row[f"{name}_std"] for row in rows if row.get(f"{name}_std") is not None]
    return float(np.sqrt(np.mean(np.square(spreads)))) if spreads else 0.0


def chosen(rows: Iterable[Row], **values: Any) -> list[Row]:
    """Rows with these values."""
    return [row for row in rows if all(row.get(name) == value for name, value in values.items())]


def models(rows: Iterable[Row]) -> list[tuple[str, float]]:
    """Encodings and state scales among rows."""
    return list(dict.fromkeys((row["encoding"], row["state_scale"]) for row in rows))


def able(rows: Iterable[Row]) -> list[Row]:
    """Trainings of which no seed failed: a mean over the seeds that are left is no mean of all."""
    return [row for row in rows if row["accuracy"] is not None and not row.get("failed")]


def cheapest(rows: Sequence[Row], cost: str) -> tuple[Row, int]:
    """Of at least one training of one model, those whose accuracy is within one pooled standard deviation of the best: that
    of least `cost`, and how many there are. Of equal costs the package's default backward mode and tolerance come first."""
    limit = max(row["accuracy"] for row in rows) - pooled_std(rows, "accuracy")
    within = [row for row in rows if row["accuracy"] >= limit - 1e-12]
    default = Cell(within[0]["solver"])

    def order(row: Row) -> tuple[Any, ...]:
        return (
            round(row[cost], 3),
            row["backward"] != default.backward,
            row["start"] != default.start,
            row["tol"] != default.tol,
        )

    return min(within, key=order), len(within)


def start_effects(rows: Sequence[Row]) -> dict[str, tuple[float, float]]:
    """Start -> mean difference of accuracy from start zeros, and ratio of the circuits of a solve, over the trainings of one
    model that differ in nothing else; `probe`, whose circuits no start changes, left out."""
    groups: dict[tuple[Any, ...], dict[str, Row]] = {}
    for row in rows:
        if row["solver"] != "probe":
            key = row["solver"], row["tol"], row["backward"]
            groups.setdefault(key, {})[row["start"]] = row
    effects: dict[str, tuple[float, float]] = {}
    for start in dict.fromkeys(row["start"] for row in rows):
        pairs = [(group["zeros"], group[start]) for group in groups.values() if {"zeros", start} <= group.keys()]
        if start != "zeros" and pairs:
            gains = [other["accuracy"] - zeros["accuracy"] for zeros, other in pairs]
            ratios = [np.log(other["solve_circuits"] / zeros["solve_circuits"]) for zeros, other in pairs]
            effects[start] = float(np.mean(gains)), float(np.exp(np.mean(ratios)))
    return effects


def compact(rows: Sequence[Row]) -> dict[str, Any]:
    """Rows as one line each, four digits, under a header: a table of thousands of rows in a small file.

    >>> compact([{"solver": "newton", "steps": 2.34567, "status": {"converged": 5}}, {"solver": "picard", "steps": None}])
    {'columns': 'solver,steps,status', 'rows': ['newton,2.346,converged:5', 'picard,,']}
    """
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [",".join(_short(row.get(name)) for name in columns) for row in rows]
    return {"columns": ",".join(columns), "rows": lines}


def _short(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return " ".join(f"{name}:{count}" for name, count in value.items())
    return " ".join(map(_short, value)) if isinstance(value, list) else str(value)
