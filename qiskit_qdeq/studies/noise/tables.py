"""Rows of the noise study: means and standard deviations over seeds, and the noise each model stands.

A model stands noise up to the strength s from which on its accuracy stays more than so many points below that of the same
model trained and used without noise, interpolated between the strengths computed: linearly in log s, below the first in s.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from qiskit_qdeq.studies.noise.noises import KINDS, NONE, Noise
from qiskit_qdeq.studies.statistics import Spread

Row = dict[str, Any]
#: Points of accuracy.
POINTS = (1, 5)
_COLUMNS = ("accuracy", "loss", "bias", "residual", "cosine", "cosine_start", "unconverged")


def exact_rows(results: Iterable[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> list[Row]:
    """A row per encoding, model, training noise, noise and mitigation, from (arguments, result) of `exact_task`."""
    rows: list[Row] = []
    for (encoding, model, trained_in), runs in _grouped(results, "trained_in").items():
        same = {"encoding": encoding, "model": model, "trained_in": trained_in, "seeds": len(runs)}
        circuits = runs[0]["circuits"]
        clean = {name: _spread([run["clean"][name] for run in runs]) for name in ("accuracy", "loss", "unconverged")}
        rows.append({**same, "noise": NONE, "mitigation": "", "circuits": circuits, **clean})
        for noise, answers in runs[0]["noises"].items():
            gates = answers["gates"]
            costs = {**gates, "circuits": circuits, "gates_a_prediction": circuits * gates["two_qubit_gates"]}
            for mitigation in answers:
                if mitigation != "gates":
                    members = [run["noises"][noise][mitigation] for run in runs]
                    columns = {name: _spread([member[name] for member in members]) for name in _COLUMNS}
                    rows.append({**same, "noise": noise, "mitigation": mitigation, **costs, **columns})
    return rows


def measured_rows(results: Iterable[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> list[Row]:
    """A row per encoding, model, backend and resilience level, from (arguments, result) of `measured_task`."""
    rows: list[Row] = []
    results = list(results)
    for level in sorted({arguments["execution"]["resilience_level"] for arguments, _ in results}):
        members = [pair for pair in results if pair[0]["execution"]["resilience_level"] == level]
        for (encoding, model, device), runs in _grouped(members, "device").items():
            summed = {name: sum(run[name] for run in runs) for name in ("circuits", "shots", "jobs", "qpu_seconds")}
            columns = {
                name: _spread([run[name] for run in runs]) for name in ("accuracy", "loss", "bias", "unconverged")
            }
            clean = {f"clean_{name}": _spread([run["clean"][name] for run in runs]) for name in ("accuracy", "loss")}
            same = {"encoding": encoding, "model": model, "backend": device, "level": level, "seeds": len(runs)}
            rows.append({**same, "samples": runs[0]["samples"], **runs[0]["gates"], **summed, **columns, **clean})
    return rows


def standing_rows(rows: Sequence[Row]) -> list[Row]:
    """A row per encoding, model, training noise, kind of noise and mitigation: strengths from which points are lost.

    `points`: {"1": s, "5": s}; None where the strongest noise is not enough, 0 where none is needed. Of the accuracy's mean
    over seeds.
    """
    found: dict[tuple[str, ...], list[tuple[float, float]]] = {}
    for row in rows:
        noise = Noise.parse(row["noise"])
        if noise.strength is not None:
            key = row["encoding"], row["model"], row["trained_in"], noise.kind, row["mitigation"]
            found.setdefault(key, []).append((noise.strength, row["accuracy"]["mean"]))
    clean = {
        (row["encoding"], row["model"], row["trained_in"]): row["accuracy"]["mean"]
        for row in rows
        if row["noise"] == NONE
    }
    standing = []
    for (encoding, model, trained_in, kind, mitigation), curve in found.items():
        own = clean[encoding, model, trained_in]
        reference = clean.get((encoding, model, NONE), own)
        points = {str(lost): strength_at(sorted(curve), own, reference - lost / 100) for lost in POINTS}
        same = {"encoding": encoding, "model": model, "trained_in": trained_in, "kind": kind, "mitigation": mitigation}
        standing.append({**same, "points": points})
    return sorted(standing, key=lambda row: KINDS.index(row["kind"]))


def strength_at(curve: Sequence[tuple[float, float]], clean: float, level: float) -> float | None:
    """From where on accuracy stays below `level`.

    Args:
        curve: strengths, ascending and above 0, with their accuracies.
        clean: accuracy at strength 0.
        level: of accuracy.

    Returns:
        The strength; 0 if no accuracy reaches the level; None if that of the greatest strength does.

    >>> round(strength_at([(0.01, 0.97), (0.1, 0.77)], 0.97, 0.87), 4)
    0.0316
    """
    # equal but for rounding is reached
    points = [(0.0, clean), *curve]
    reached = [place for place, (_, accuracy) in enumerate(points) if accuracy >= level - 1e-9]
    if not reached:
        return 0.0
    if reached[-1] == len(points) - 1:
        return None
    (before, above), (after, below) = points[reached[-1] : reached[-1] + 2]
    share = max(0.0, (above - level) / (above - below))
    if before == 0:
        return share * after
    return math.exp(math.log(before) + share * math.log(after / before))


def row_of(rows: Iterable[Row], **wanted: Any) -> Row | None:
    """The row with these entries; None if there is none."""
    return next((row for row in rows if all(row[name] == value for name, value in wanted.items())), None)


def _grouped(
    results: Iterable[tuple[Mapping[str, Any], Mapping[str, Any]]], last: str
) -> dict[tuple[str, str, str], list[Mapping[str, Any]]]:
    groups: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for arguments, result in results:
        name = result["device"] if last == "device" else arguments[last]
        groups.setdefault((arguments["train"]["encoding"], arguments["model"], name), []).append(result)
    return groups


def _spread(values: Sequence[float | None]) -> dict[str, float | None]:
    """Mean and standard deviation over seeds; None where a seed has no value."""
    if any(value is None for value in values):
        return {"mean": None, "std": None}
    spread = Spread.of([value for value in values if value is not None])
    return {"mean": round(spread.mean, 6), "std": None if spread.std is None else round(spread.std, 6)}
