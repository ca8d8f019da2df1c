"""The noise study's tables, as markdown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from qiskit_qdeq.studies.markdown import table
from qiskit_qdeq.studies.noise.noises import KINDS, NONE, Noise
from qiskit_qdeq.studies.noise.tables import POINTS, Row, row_of

TITLES = {
    "depolarizing": "depolarizing rate of two-qubit gates",
    "damping": "amplitude damping per gate and qubit",
    "readout": "readout error",
}
MITIGATIONS = {"zne": "extrapolated to zero noise", "readout": "readout mitigated perfectly"}
_CURVES: tuple[tuple[str, str, str], ...] = (
    ("accuracy", "", "test accuracy, per cent"),
    ("accuracy", "zne", "test accuracy, per cent, extrapolated to zero noise"),
    ("bias", "", "bias of the state's values, mean |z' - z|"),
    ("residual", "", "residual of the noiseless state under the noisy map"),
    ("cosine_start", "", "gradient cosine at random parameters"),
    ("cosine", "", "gradient cosine at the trained parameters"),
)


def markdown(results: Mapping[str, Any]) -> str:
    """All tables of `rows`, `standing`, `measured` and `backend`, one encoding after the other."""
    encodings = list(dict.fromkeys(row["encoding"] for row in results["exact"]))
    sizes = f"{_seeds(results['seeds'])}, {results['test_samples']} test samples"
    parts = [f"# Noise: {results['data']}, {results['num_qubits']} qubits, {sizes}"]
    for encoding in encodings:
        rows, standing, measured, backend = (
            [row for row in results[name] if row["encoding"] == encoding]
            for name in ("exact", "standing", "measured", "backend")
        )
        models = list(dict.fromkeys(row["model"] for row in rows))
        parts += [f"# {encoding} encoding"] if len(encodings) > 1 else []
        parts += [_models(rows, models), _standing(standing, models), *_curves(rows, models)]
        parts += [_devices(rows, models), _trained(rows, models)]
        parts += [_measured("From shots, fake devices", measured)] if measured else []
        parts += [_measured("From shots, the backend given", backend)] if backend else []
    return "\n\n".join(part for part in parts if part) + "\n"


def _models(rows: Sequence[Row], models: Sequence[str]) -> str:
    noises = [row["noise"] for row in rows if row["model"] == models[0] and "two_qubit_gates" in row]
    plain = next((noise for noise in noises if Noise.parse(noise).device is None), None)
    targets = [plain, *dict.fromkeys(noise for noise in noises if Noise.parse(noise).device)]
    targets = [target for target in targets if target is not None]
    header = ["model", "accuracy without noise (%)", "circuits a prediction"]
    header += [f"two-qubit gates (depth): {'all-to-all' if noise == plain else noise}" for noise in targets]
    header += ["two-qubit gates a prediction"]
    lines = []
    for model in models:
        clean = _first(rows, model=model, trained_in=NONE, noise=NONE)
        line = [f"`{model}`", _percent(clean["accuracy"]), str(clean["circuits"])]
        found = [_first(rows, model=model, trained_in=NONE, noise=noise) for noise in targets]
        line += [f"{row['two_qubit_gates']} ({row['depth']})" for row in found]
        lines.append([*line, str(found[0]["gates_a_prediction"]) if found else ""])
    return _section("Models, trained without noise", header, lines)


def _standing(standing: Sequence[Row], models: Sequence[str]) -> str:
    """At which strength points are lost."""
    kinds = [kind for kind in KINDS if any(row["kind"] == kind for row in standing)]
    header = ["model", "trained in", "mitigation"]
    header += [f"{kind}, {lost} point{'s' * (lost > 1)}" for kind in kinds for lost in POINTS]
    lines = []
    for trained_in in dict.fromkeys(row["trained_in"] for row in standing):
        for mitigation in ("", "zne"):
            for model in models:
                same = {"model": model, "trained_in": trained_in, "mitigation": mitigation}
                found = [row_of(standing, **same, kind=kind) for kind in kinds]
                if any(found):
                    cells = [_strength(row, str(lost)) for row in found for lost in POINTS]
                    lines.append([f"`{model}`", trained_in, MITIGATIONS.get(mitigation, ""), *cells])
    return _section("Noise that a model stands: strength from which on accuracy is 1 and 5 points lower", header, lines)


def _strength(row: Row | None, lost: str) -> str:
    if row is None:
        return ""
    return "beyond" if row["points"][lost] is None else f"{row['points'][lost]:.2g}"


def _curves(rows: Sequence[Row], models: Sequence[str]) -> list[str]:
    parts = []
    for kind in KINDS:
        words = [row["noise"] for row in rows if Noise.parse(row["noise"]).kind == kind]
        words = sorted(dict.fromkeys(words), key=lambda word: Noise.parse(word).strength or 0.0)
        for column, mitigation, title in _CURVES:
            form: Callable[[Any], str] = _percent if column == "accuracy" else _plain
            lines = []
            for model in models:
                same = {"model": model, "trained_in": NONE, "mitigation": mitigation}
                found = [row_of(rows, **same, noise=word) for word in words]
                if any(found):
                    lines.append([f"`{model}`", *("" if row is None else form(row[column]) for row in found)])
            header = ["model", *(word.partition(":")[2] for word in words)]
            parts.append(_section(f"{TITLES[kind].capitalize()}: {title}", header, lines))
    return parts


def _devices(rows: Sequence[Row], models: Sequence[str]) -> str:
    devices = list(dict.fromkeys(row["noise"] for row in rows if Noise.parse(row["noise"]).device))
    trained = [word for word in dict.fromkeys(row["trained_in"] for row in rows) if word != NONE]
    header = ["device", "model", "two-qubit gates", "depth", "two-qubit gates a prediction", "accuracy (%)"]
    header += [MITIGATIONS["readout"], *(f"trained in {word}" for word in trained)]
    header += ["bias", "residual", "cosine, random", "cosine, trained"]
    table = []
    for device in devices:
        for model in models:
            same = {"model": model, "noise": device}
            row = _first(rows, **same, trained_in=NONE)
            cells = [str(row[name]) for name in ("two_qubit_gates", "depth", "gates_a_prediction")]
            others = [row, _first(rows, **same, trained_in=NONE, mitigation="readout")]
            others += [_first(rows, **same, trained_in=word) for word in trained]
            cells += [_percent(other["accuracy"]) for other in others]
            cells += [_plain(row[name]) for name in ("bias", "residual", "cosine_start", "cosine")]
            table.append([device.partition(":")[2], f"`{model}`", *cells])
    return _section("Noise of fake devices, exactly", header, table)


def _trained(rows: Sequence[Row], models: Sequence[str]) -> str:
    trained = list(dict.fromkeys(row["trained_in"] for row in rows))
    if trained == [NONE]:
        return ""
    header = ["model", "trained in", *(f"used in {word}" for word in trained)]
    table = [
        [
            f"`{model}`",
            word,
            *(_percent(_first(rows, model=model, trained_in=word, noise=at)["accuracy"]) for at in trained),
        ]
        for model in models
        for word in trained
    ]
    return _section("Trained in noise and used in it: test accuracy, per cent", header, table)


def _measured(title: str, rows: Sequence[Row]) -> str:
    header = ["backend", "model", "resilience level", "two-qubit gates", "depth", "accuracy (%)", "without noise (%)"]
    header += ["loss", "without noise", "bias", "circuits", "QPU seconds"]
    table = [
        [
            *(row["backend"], f"`{row['model']}`", str(row["level"]), str(row["two_qubit_gates"]), str(row["depth"])),
            *(_percent(row["accuracy"]), _percent(row["clean_accuracy"])),
            *(_plain(row["loss"]), _plain(row["clean_loss"]), _plain(row["bias"])),
            *(str(row["circuits"]), f"{row['qpu_seconds']:.0f}"),
        ]
        for row in rows
    ]
    return _section(f"{title}: {rows[0]['samples']} samples, {_seeds(rows[0]['seeds'])}", header, table)


def _first(rows: Sequence[Row], **wanted: Any) -> Row:
    found = row_of(rows, **{"mitigation": "", **wanted})
    assert found is not None, wanted
    return found


def _percent(spread: Mapping[str, float | None]) -> str:
    return _plain({name: None if value is None else 100 * value for name, value in spread.items()}, 1)


def _plain(spread: Mapping[str, float | None], digits: int = 3) -> str:
    if spread["mean"] is None:
        return ""
    return f"{spread['mean']:.{digits}f}" + ("" if spread["std"] is None else f" ± {spread['std']:.{digits}f}")


def _seeds(count: int) -> str:
    return f"{count} seed{'s' * (count > 1)}"


def _section(title: str, header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    if not lines:
        return ""
    return "\n".join([f"## {title}", "", *table(header, lines)])
