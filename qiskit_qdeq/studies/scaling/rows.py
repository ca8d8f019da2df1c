"""Tasks of the scaling study, and the rows that their results become."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from qiskit_qdeq.studies.scaling.circuits import prediction_circuits, step_circuits
from qiskit_qdeq.studies.scaling.fits import BEYOND, Growth, fit_decay, fit_growth, mebibytes, work
from qiskit_qdeq.studies.scaling.points import ENCODINGS, MODES, Axis, Point, axes
from qiskit_qdeq.studies.scaling.variance import METHODS, QUANTITIES
from qiskit_qdeq.studies.tasks import Task

Row = dict[str, Any]

_FAMILY = ("encoding", "ansatz", "layers", "state_scale")


def timing_tasks(quick: bool, memory_gib: float) -> list[Task]:
    """A task per point of every axis; points that axes share are measured once."""
    return [_timing("time", point, quick, memory_gib) for point in _points(axes(quick))]


def first_use_tasks(quick: bool, memory_gib: float) -> list[Task]:
    """The default point in processes that find no compiled kernels, which takes too long for `quick`."""
    points = [Point.of(encoding, "equilibrium") for encoding in ENCODINGS if not quick]
    return [_timing("first-use", point, quick, memory_gib) for point in points]


def _timing(what: str, point: Point, quick: bool, memory_gib: float) -> Task:
    arguments = {"point": point.as_dict(), "seconds": 0.5 if quick else 2.0, "memory_gib": memory_gib}
    return Task(f"{what}/{name(point)}", {**arguments, "first_use": what == "first-use"})


def device_tasks(quick: bool, backend: str) -> list[Task]:
    """The same points, and more qubits than can be simulated."""
    many = Axis("num_qubits", "qubits", more_qubits(quick))
    points = _points((*axes(quick), many))
    return [Task(f"device/{name(point)}", {"point": point.as_dict(), "backend": backend}) for point in points]


def more_qubits(quick: bool) -> tuple[int, ...]:
    """Which only a device has."""
    return (20, 50) if quick else (20, 30, 50, 75, 100)


def variance_tasks(quick: bool, draws: int, seed: int) -> list[Task]:
    """Every circuit of every family."""
    sizes: tuple[int, ...] = (4, 6, 8) if quick else (4, 6, 8, 10, 12)
    hardware, half = "hardware_efficient", 0.5
    families = [(encoding, hardware, layers, half, sizes) for encoding in ENCODINGS for layers in _depths(quick)]
    if not quick:
        families += [(encoding, hardware, layers, 1.0, sizes) for encoding in ENCODINGS for layers in (2, 8)]
        families += [(encoding, "paper", 0, half, (4, 10)) for encoding in ENCODINGS]
    families += [(encoding, "random", 0, half, sizes) for encoding in ENCODINGS]
    tasks = []
    for encoding, ansatz, layers, scale, qubits in families:
        for size in qubits:
            # a random circuit is a draw too
            for own in range(seed, seed + (3 if ansatz == "random" and not quick else 1)):
                arguments = {"encoding": encoding, "ansatz": ansatz, "num_qubits": size, "layers": layers}
                arguments |= {"state_scale": scale, "draws": draws, "seed": own}
                tasks.append(Task(f"variance/{encoding}-{ansatz}-{layers}-{scale:g}-{size}-{own}", arguments))
    return tasks


def _depths(quick: bool) -> tuple[int, ...]:
    return (1, 8) if quick else (1, 2, 4, 8, 16)


def _points(chosen: Sequence[Axis]) -> list[Point]:
    return list(dict.fromkeys(point for axis in chosen for point in axis.points()))


def name(point: Point) -> str:
    """Of a task."""
    parts = (f"n{point.num_qubits}", f"D{point.num_features}", f"K{point.num_states}", f"L{point.layers}")
    return "-".join((point.encoding, point.mode, *parts, f"B{point.batch}", point.readout, point.ansatz))


def point_rows(tasks: Sequence[Task], results: Sequence[Mapping[str, Any]], quick: bool) -> list[Row]:
    """A row per axis and point, in the order of the axes: the axis's name and `value`, the point, its figures."""
    points = [Point(**task.arguments["point"]) for task in tasks]
    found = dict(zip(points, results, strict=True))
    beyond = sorted({point.num_qubits for point in points} - {p.num_qubits for p in _points(axes(quick))})
    rows = []
    for axis in axes(quick):
        values = (*axis.values, *beyond) if axis.name == "num_qubits" else axis.values
        if axis.name != "num_qubits":
            values = _with_default(axis)
        for encoding in ENCODINGS:
            for mode in MODES:
                for value in values:
                    point = Point.of(encoding, mode, **{axis.name: value})
                    if point in found:
                        rows.append({"axis": axis.name, "value": value, **point.as_dict(), **found[point]})
    return rows


def _with_default(axis: Axis) -> tuple[Any, ...]:
    """The axis's values and the one at which the others cross it."""
    default = getattr(Point.of("angle", "direct"), axis.name)
    values = {*axis.values, default}
    return tuple(sorted(values)) if not isinstance(default, str) else (default, *axis.values)


def growth_rows(timing: Sequence[Row]) -> list[Row]:
    """Fits of time and memory against qubits, per encoding and mode."""
    rows = []
    for encoding in ENCODINGS:
        for mode in MODES:
            members = [
                row
                for row in timing
                if (row["axis"], row["encoding"], row["mode"]) == ("num_qubits", encoding, mode) and not row["refused"]
            ]
            n = [row["num_qubits"] for row in members]
            time = fit_growth(n, [row["ms_per_step"] for row in members], work)
            heavy = [row for row in members if row["peak_mib"] is not None]
            memory = fit_growth(
                [row["num_qubits"] for row in heavy], [row["peak_mib"] for row in heavy], mebibytes(encoding)
            )
            rows.append(
                {
                    "encoding": encoding,
                    "mode": mode,
                    "measured_to": max(n, default=None),
                    "ms_per_step": None if time is None else time.as_dict(),
                    "peak_mib": None if memory is None else memory.as_dict(),
                }
            )
    return rows


def extrapolated_rows(growths: Sequence[Row]) -> list[Row]:
    """What the fits say for more qubits than were measured: extrapolated, every one of them."""
    rows = []
    for row in growths:
        for n in BEYOND:
            values = {
                name: None if row[name] is None else Growth(**row[name])(n, basis)
                for name, basis in (("ms_per_step", work), ("peak_mib", mebibytes(row["encoding"])))
            }
            rows.append(
                {"extrapolated": True, "num_qubits": n, "encoding": row["encoding"], "mode": row["mode"], **values}
            )
    return rows


def formula_rows(device: Sequence[Row]) -> list[Row]:
    """Circuits counted for a step and a prediction, and by the formula, wherever the formula applies."""
    rows = []
    for row in device:
        if row["refused"] or row["ansatz"] != "hardware_efficient":
            continue
        point = Point(**{key: row[key] for key in Point.__dataclass_fields__})
        rows.append(
            {
                "point": name(point),
                "counted": row["step"]["circuits"],
                "formula": step_circuits(point),
                "prediction": prediction_circuits(point)[0],
            }
        )
    return rows


def variance_rows(tasks: Sequence[Task], results: Sequence[Mapping[str, Any]]) -> list[Row]:
    """A row per circuit, method and quantity; random circuits are means over their seeds."""
    groups: dict[tuple[Any, ...], list[tuple[Mapping[str, Any], Mapping[str, Any]]]] = {}
    for task, result in zip(tasks, results, strict=True):
        key = tuple(task.arguments[field] for field in (*_FAMILY, "num_qubits"))
        groups.setdefault(key, []).append((task.arguments, result))
    rows = []
    for key, members in groups.items():
        found = [result for _, result in members]
        shared = {
            **dict(zip((*_FAMILY, "num_qubits"), key, strict=True)),
            "draws": members[0][0]["draws"],
            "circuits": len(members),
            **{name: float(np.mean([one[name] for one in found])) for name in ("radius", "gain", "unconverged")},
        }
        for method in METHODS:
            for quantity in QUANTITIES:
                rows.append({**shared, "method": method, "quantity": quantity, **_pooled(found, method, quantity)})
    return rows


def _pooled(found: Sequence[Mapping[str, Any]], method: str, quantity: str) -> Row:
    """Means over circuits; their scatter, where there are several, says more than the errors of each."""
    figures = [one["gradients"][method][quantity] for one in found]
    row: Row = {}
    for key in ("weight", "mean", "weight_ratio", "mean_ratio"):
        values = [one[key] for one in figures]
        errors = [one[f"{key}_error"] for one in figures]
        own = float(np.sqrt(np.sum(np.square(errors)))) / len(errors)
        scatter = float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0
        row[key], row[f"{key}_error"] = float(np.mean(values)), max(own, scatter)
    return row


def decay_rows(variances: Sequence[Row]) -> list[Row]:
    """Var ~ b^-n per family, method and quantity, and b of the equilibrium over b of direct-1 from the ratios themselves.

    Of observables the partial derivative by weight 0, of the loss and of random circuits the mean over weights.
    """
    rows = []
    for family, members in _families(variances):
        for method in METHODS:
            for quantity in QUANTITIES:
                chosen = [row for row in members if row["method"] == method and row["quantity"] == quantity]
                which = "mean" if quantity == "loss" or chosen[0]["ansatz"] != "hardware_efficient" else "weight"
                n = [row["num_qubits"] for row in chosen]
                columns = {
                    "decay": (which, f"{which}_error"),
                    "relative": (f"{which}_ratio", f"{which}_ratio_error"),
                }
                fits = {
                    kind: fit_decay(n, [row[value] for row in chosen], [row[error] for row in chosen])
                    for kind, (value, error) in columns.items()
                }
                found = {kind: None if fit is None else fit.as_dict() for kind, fit in fits.items()}
                rows.append({**family, "method": method, "quantity": quantity, "of": which, **found})
    return rows


def _families(variances: Sequence[Row]) -> Iterator[tuple[Row, list[Row]]]:
    keys = dict.fromkeys(tuple(row[field] for field in _FAMILY) for row in variances)
    for key in keys:
        yield (
            dict(zip(_FAMILY, key, strict=True)),
            [row for row in variances if tuple(row[field] for field in _FAMILY) == key],
        )
