"""The scaling study as markdown: measured, computed and extrapolated figures in tables of their own."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

from qiskit_qdeq.studies.markdown import table
from qiskit_qdeq.studies.scaling.circuits import EPOCH, SHOTS
from qiskit_qdeq.studies.scaling.points import DEFAULT_QUBITS, SOLVER_STEPS

Row = Mapping[str, Any]

TITLES = {
    "num_qubits": "qubits",
    "layers": "ansatz layers",
    "batch": "batch",
    "num_features": "features",
    "num_states": "states fed back",
    "readout": "readout",
    "ansatz": "ansatz",
}
_DURATIONS = ((60.0, 1.0, "s"), (3600.0, 60.0, "min"), (86400.0, 3600.0, "h"), (3.15576e7, 86400.0, "d"))
_YEAR = 3.15576e7
#: Relative differences that are rounding: their standard errors are rounding, too.
_ROUNDING = 1e-9


def markdown(results: Mapping[str, Any]) -> str:
    """All tables."""
    parts = [
        "# How far it scales",
        "",
        f"The default point has {DEFAULT_QUBITS} qubits, D = 4 n features, K = n states fed back, three hardware-efficient "
        "layers, batch 64 and readout zz; each table changes one of them. Inputs are synthetic.",
        "",
        *_timing(results["timing"]),
        *_setting(results["timing"], results["first_use"]),
        *_device(results["device"], results["backend"]),
        *_beyond(results["growth"], results["extrapolated"]),
        *_variances(results["variance"], results["decay"]),
    ]
    return "\n".join(parts).rstrip() + "\n"


def _timing(rows: Sequence[Row]) -> Iterable[str]:
    yield from ("## Measured on this machine", "")
    columns = (
        *("encoding", "mode", "ms per step", "ms per prediction", "set-up s", "peak MiB"),
        *("solver steps", "not converged %"),
    )

    def shown(row: Row) -> tuple[str, ...]:
        solved = row["mode"] == "equilibrium"
        return (
            digits(row["ms_per_step"]),
            digits(row["ms_per_prediction"]),
            digits(row["setup_seconds"]),
            number(row["peak_mib"]),
            digits(row["solver_steps"]) if solved else "",
            digits(100 * row["unconverged"]) if solved else "",
        )

    yield from _by_axis(rows, columns, shown)


def _by_axis(rows: Sequence[Row], columns: Sequence[str], shown: Callable[[Row], Sequence[str]]) -> Iterable[str]:
    """A table per axis; a row that was refused says why in the place of its figures."""
    for axis, members in groupby(rows, key=lambda row: row["axis"]):
        lines = []
        for row in members:
            why = (f"no: {row['refused']}", *[""] * (len(columns) - 3))
            lines.append((str(row["value"]), row["encoding"], row["mode"], *(why if row["refused"] else shown(row))))
        yield from (*table((TITLES[axis], *columns), lines, 3), "")


def _setting(rows: Sequence[Row], first: Sequence[Row]) -> Iterable[str]:
    times = [f"{row['encoding']} {digits(row['setup_seconds'])} s" for row in first if not row["refused"]]
    threads = max((row["threads"] for row in rows if not row["refused"]), default=0)
    text = f"Threads: {threads}. `set-up`: building the model and what the first step takes longer than others."
    if times:
        text += " In the first process on a machine, which compiles the kernels, it takes "
        text += f"({DEFAULT_QUBITS} qubits): {', '.join(times)}."
    yield from (text, "")


def _device(rows: Sequence[Row], backend: str) -> Iterable[str]:
    yield from (f"## On a device: computed for {backend}, nothing executed", "")
    columns = (
        *("encoding", "mode", "weights", "parameters", "depth", "2-qubit gates", "depth there", "2-qubit gates there"),
        *("circuits per step", "shots per step", "circuits per sample", "QPU time per step", "QPU time per epoch"),
    )

    def shown(row: Row) -> tuple[str, ...]:
        sign = "" if row["exact"] else "≤ "
        step, epoch = row["step"], row["epoch"]
        gates = ("num_weights", "num_parameters", "depth", "two_qubit_gates", "isa_depth", "isa_two_qubit_gates")
        return (
            *(number(row[key]) for key in gates),
            sign + number(step["circuits"]),
            sign + number(step["shots"]),
            sign + number(row["prediction"]),
            sign + duration(step["qpu_seconds"]),
            sign + duration(epoch["qpu_seconds"]),
        )

    yield from _by_axis(rows, columns, shown)
    yield from (
        f"{SHOTS:,} shots a circuit, an epoch of {EPOCH:,} samples, every weight shifted; amplitudes by `probe`, angles by "
        f"Broyden's method of at most {SOLVER_STEPS} steps (≤). Circuits by formula, which equals every count above:",
        "",
        "    direct         B (1 + W)",
        "    probe          B (1 + W) + B (K + 1) + K (K + 1) / 2",
        "    T Broyden      B (1 + W) + B (T + 1) + 2 B D",
        "    W = 2 n (2 L + 1);  QPU seconds = 2 per job + (rep_delay + circuit length) shots",
        "",
    )


def _beyond(growths: Sequence[Row], rows: Sequence[Row]) -> Iterable[str]:
    yield from (
        "## Beyond this machine: extrapolated, not measured",
        "",
        "    t(n) = t0 + a n² 2^n               milliseconds of a training step",
        "    m(n) = m0 + b 16 c(n) 2^n / 2^20   MiB, c = n² + 10 n columns for amplitudes, 256 (1 + n) for angles",
        "",
        "at D = 4 n, K = n, three layers, batch 64. The error is the root mean square of (fit - measured) / measured.",
        "",
    )
    names = ("encoding", "mode", "measured to", "t0 (ms)", "a (ms)", "error %", "m0 (MiB)", "b", "error %")
    lines = []
    for row in growths:
        cells = [row["encoding"], row["mode"], f"{row['measured_to'] or ''}"]
        for name in ("ms_per_step", "peak_mib"):
            fit = row[name]
            cells += (
                [""] * 3 if fit is None else [_short(fit["constant"]), _short(fit["factor"]), _percent(fit["error"])]
            )
        lines.append(cells)
    yield from (*table(names, lines, 2), "")
    lines = []
    for row in rows:
        time, memory = row["ms_per_step"], row["peak_mib"]
        shown = ("" if time is None else duration(time / 1e3), "" if memory is None else size(memory))
        lines.append([row["encoding"], row["mode"], str(row["num_qubits"]), *shown])
    beyond = ("encoding", "mode", "qubits", "time per step, extrapolated", "memory, extrapolated")
    yield from (*table(beyond, lines, 2), "")


def _variances(rows: Sequence[Row], decays: Sequence[Row]) -> Iterable[str]:
    yield from (
        "## Trainability: variance of the gradient over random weights",
        "",
        "Var ~ b^-n, b = 1: no decay with qubits, 2: half with each. `local`: Z of wire 0, `global`: Z on all wires, both "
        "differentiated by weight 0 (random circuits: mean over weights); `loss`: cross-entropy, mean over weights. Last "
        "column is b of the equilibrium over b of direct-1, fitted to the ratios of the same draws: 1 is no change.",
        "",
    )
    names = (
        "circuit",
        "gradient of",
        "b equilibrium",
        "b direct-1",
        "b direct-4",
        "b equilibrium / b direct-1",
        "χ²",
        "χ² power",
    )
    lines: list[tuple[str, ...]] = []
    for family, members in groupby(decays, key=_family):
        cells: dict[str, dict[str, Row]] = {}
        for row in members:
            cells.setdefault(row["quantity"], {})[row["method"]] = row
        for quantity, methods in cells.items():
            if any(methods[method]["decay"] for method in methods):
                shown = [_decay(methods[method]["decay"]) for method in ("equilibrium", "direct-1", "direct-4")]
                fit = methods["equilibrium"]["decay"]
                chi = ("", "") if fit is None else (digits(fit["chi"]), digits(fit["chi_power"]))
                lines.append((family, quantity, *shown, _decay(methods["equilibrium"]["relative"]), *chi))
    yield from table(names, lines, 2)
    yield from ("", *_relative(decays))
    yield from (
        "`χ²` per degree of freedom of the equilibrium's fit, and of a power law n^-p to the same variances: near 1 is a "
        "good fit. Variances themselves, equilibrium, and in brackets over direct-1 from the same draws:",
        "",
    )
    columns = ("circuit", "qubits", "draws", "local", "global", "loss", "radius of J", "‖(1-J)⁻¹‖", "not converged %")
    lines = []
    for _, group in groupby(rows, key=lambda row: (_family(row), row["num_qubits"])):
        found = {row["quantity"]: row for row in group if row["method"] == "equilibrium"}
        row = found["local"]
        draws = f"{row['draws']}" + (f" × {row['circuits']} circuits" if row["circuits"] > 1 else "")
        lines.append(
            (
                *(_family(row), str(row["num_qubits"]), draws),
                *(_shown(found[quantity]) for quantity in ("local", "global", "loss")),
                *(f"{row['radius']:.3f}", f"{row['gain']:.3f}", digits(100 * row["unconverged"])),
            )
        )
    yield from table(columns, lines)


def _relative(decays: Sequence[Row]) -> Iterable[str]:
    """How many b of the equilibrium are those of direct-1, and which are not."""
    rows = [row for row in decays if row["method"] == "equilibrium" and row["relative"]]
    if not rows:
        return
    distance = [abs(row["relative"]["base"] - 1) for row in rows]
    equal = sum(entry < _ROUNDING for entry in distance)
    far = [
        (entry, row)
        for entry, row in zip(distance, rows, strict=True)
        if entry > max(2 * row["relative"]["error"], _ROUNDING)
    ]
    chance = math.erfc(math.sqrt(2)) * (len(rows) - equal)
    yield (
        f"Of the {len(rows)} fits in the last column {sum(entry < 0.03 for entry in distance)} are within 3 % of 1, {equal} "
        "of these equal to 1 up to rounding (as their ratios are at large n). Further from 1 than two standard errors: "
        f"{len(far)} ({chance:.1f} expected by chance), {sum(entry < 0.01 for entry, _ in far)} of these by less than 1 %"
        + (":" if far else ".")
    )
    yield ""
    if far:
        yield from (f"- {_family(row)}, {row['quantity']}: {_decay(row['relative'], 4)}" for _, row in far)
        yield ""


def _family(row: Row) -> str:
    """How a family of circuits is called."""
    layers = (
        f", {row['layers']} layer{'s' * (row['layers'] > 1)}"
        if row["ansatz"] == "hardware_efficient"
        else f", {row['ansatz']} ansatz"
    )
    return f"{row['encoding']}{layers}, scale {row['state_scale']:g}"


def _decay(fit: Row | None, places: int = 3) -> str:
    return "" if fit is None else f"{fit['base']:.{places}f} ± {fit['error']:.{places}f}"


def _shown(row: Row) -> str:
    which = "mean" if row["quantity"] == "loss" or row["ansatz"] != "hardware_efficient" else "weight"
    ratio = f"{row[f'{which}_ratio']:.2f} ± {row[f'{which}_ratio_error']:.2f}"
    return f"{row[which]:.2e} ± {row[f'{which}_error']:.0e} ({ratio})"


def number(value: float | None) -> str:
    """A whole number, or nothing.

    >>> number(12345.6)
    '12,346'
    """
    return "" if value is None else f"{value:,.0f}"


def digits(value: float | None) -> str:
    """Three digits.

    >>> digits(0.01234), digits(12.34), digits(1234.5)
    ('0.0123', '12.3', '1,234')
    """
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def duration(seconds: float) -> str:
    """Seconds in the unit that suits them.

    >>> duration(0.012), duration(90), duration(7200), duration(1e20)
    ('0.012 s', '1.5 min', '2 h', '3.17e+12 years')
    """
    for below, unit, name in _DURATIONS:
        if seconds < below:
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds / _YEAR:,.3g} years"


def size(mebibytes: float) -> str:
    """Memory in the unit that suits it.

    >>> size(100.0), size(2.0**20)
    ('100 MiB', '1 TiB')
    """
    for name in ("MiB", "GiB", "TiB", "PiB"):
        if mebibytes < 1024:
            return f"{mebibytes:.3g} {name}"
        mebibytes /= 1024
    return f"{mebibytes:.3g} EiB"


def _short(value: float) -> str:
    return f"{value:.3g}"


def _percent(value: float) -> str:
    return f"{100 * value:.0f}"
