"""The paper's tables from the records of their tasks: figures per row, markdown, and differences beside seed noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from qiskit_qdeq.studies.markdown import table
from qiskit_qdeq.studies.paper_rows import TABLES, Row
from qiskit_qdeq.studies.statistics import Spread, difference

Figures = dict[str, Any]

_TITLES = {
    "paper": "authors' model",
    "default": "default preset",
    "ablation": "ablation",
    "baseline": "baselines",
    "control": "classical, same pixels",
}
_NAMES = {
    "wang": "Wang et al., no head",
    "pca": "PCA features, DIRECT-1",
    "vae": "VAE code, DIRECT-1",
    "logistic": "logistic regression",
    "mlp": "MLP, 32 hidden units",
    "svm": "RBF SVM",
}
_COLUMNS = (
    *(
        "model",
        "test accuracy %",
        "published %",
        "after 1 layer %",
        "residual",
        "residual (paper's)",
        "not converged %",
    ),
    *("runtime s", "ms/step", "peak MiB", "depth", "2-qubit gates", "parameters", "circuits/step", "circuits/sample"),
)


def figures_of(
    row: Row, records: Sequence[Mapping[str, Any]], profile: Mapping[str, Any] | None, published: Mapping[str, Any]
) -> Figures:
    """What the table says of a row.

    Args:
        row: of the table.
        records: results of its seeds.
        profile: result of its profile.
        published: figures by `Row.published_key`; fractions as `test_accuracy`.
    """
    accuracy = [record["test_accuracy"] for record in records]
    spread = Spread.of(accuracy)
    first = records[0]
    found: Figures = {
        "table": row.table,
        "group": row.group,
        "name": row.name,
        "encoding": row.encoding,
        "test_accuracy": accuracy,
        "mean": spread.mean,
        "std": spread.std,
        "best": published.get("best", {}).get("test_accuracy"),
        "published": published.get(row.published_key, {}).get("test_accuracy"),
        "num_parameters": first.get("num_parameters"),
        "depth": first.get("depth"),
        "two_qubit_gates": first.get("two_qubit_gates"),
        "train_accuracy": _mean(records, "train_accuracy"),
        "residual": _mean(records, "test_residual"),
        "paper_residual": _mean(records, "paper_residual"),
        "unconverged": _mean(records, "test_unconverged") if row.is_implicit else None,
        "layers": _layers(records),
        "steps": first.get("steps"),
        "runtime_s": _mean(records, "train_seconds")
        if profile is None
        else profile["ms_per_step"] * first["steps"] / 1e3,
    }
    names = ("ms_per_step", "peak_mib", "train_circuits", "inference_circuits")
    return found | {name: None if profile is None else profile[name] for name in names}


def _mean(records: Sequence[Mapping[str, Any]], name: str) -> float | None:
    values = [record.get(name) for record in records]
    return None if None in values else sum(values) / len(values)  # type: ignore[arg-type]


def _layers(records: Sequence[Mapping[str, Any]]) -> dict[str, float] | None:
    """Accuracy after explicit layers, mean over seeds."""
    if not all(record.get("layers") for record in records):
        return None
    return {name: sum(record["layers"][name] for record in records) / len(records) for name in records[0]["layers"]}


def markdown(rows: Sequence[Figures], skipped: Sequence[str] = ()) -> str:
    """All tables with their differences, as markdown."""
    parts = []
    for name, group in groupby(rows, key=lambda row: row["table"]):
        members = list(group)
        best = members[0].get("best")
        known = [] if best is None else [f"The paper's best: {100 * best:.2f} %.", ""]
        parts += [f"## {TABLES[name].title}", "", *known, *_table(members), "", *_differences(members), ""]
    parts += [f"Not run: {reason}." for reason in skipped]
    return "\n".join(parts).rstrip() + "\n"


def _table(rows: Sequence[Figures]) -> list[str]:
    lines: list[list[str]] = []
    for (group, encoding), members in groupby(rows, key=lambda row: (row["group"], row["encoding"])):
        title = _TITLES[group] + (f", {encoding} encoding" if encoding else "")
        lines += [[f"**{title}**", *[""] * (len(_COLUMNS) - 1)], *map(_cells, members)]
    return table(_COLUMNS, lines)


def row_name(row: Figures) -> str:
    """How a row is called in tables and figures."""
    name = str(_NAMES.get(row["name"], row["name"]))
    return f"{name}, angle" if row["encoding"] == "angle" else name


def _cells(row: Figures) -> list[str]:
    after_one = row["layers"]["1"] if row["layers"] else None
    return [
        row_name(row),
        _percent(row["mean"]) + ("" if row["std"] is None else f" ± {100 * row['std']:.2f}"),
        _percent(row["published"]),
        _percent(after_one),
        _number(row["residual"], ".1e"),
        _number(row["paper_residual"], ".1e"),
        _percent(row["unconverged"], 1),
        _number(row["runtime_s"], ".1f"),
        _number(row["ms_per_step"], ".2f"),
        _number(row["peak_mib"], ".0f"),
        *(_number(row[name], ",d") for name in ("depth", "two_qubit_gates", "num_parameters")),
        *(_number(row[name], ",d") for name in ("train_circuits", "inference_circuits")),
    ]


def _percent(value: float | None, digits: int = 2) -> str:
    return "" if value is None else f"{100 * value:.{digits}f}"


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _differences(rows: Sequence[Figures]) -> list[str]:
    """How the rows differ, in points of accuracy, each with its standard error."""
    found = {(row["group"], row["encoding"], row["name"]): row for row in rows}
    lines = []
    for (group, encoding, name), row in found.items():
        if name == "IMPLICIT":
            others = [(key, other) for key, other in found.items() if key[:2] == (group, encoding) and key[2] != name]
            lines += [
                _compared(f"{_TITLES[group]}, {encoding}: IMPLICIT - {key[2]}", row, other) for key, other in others
            ]
            read = row["layers"]["1"] if row["layers"] else None
            if read is not None:
                points = 100 * (row["mean"] - read)
                lines.append((f"{_TITLES[group]}, {encoding}: read at q* - read after one layer", f"{points:+.2f}", ""))
    ours, theirs = (found.get((group, "amplitude", "IMPLICIT")) for group in ("default", "paper"))
    for name in ("logistic", "svm"):
        control = found.get(("control", "", name))
        lines += [_compared(f"default preset, IMPLICIT - {_NAMES[name]}", ours, control)] if ours and control else []
    lines += [_compared("IMPLICIT, default preset - authors' model", ours, theirs)] if ours and theirs else []
    return table(("difference of test accuracies", "points", "in standard errors"), lines) if lines else []


def _compared(label: str, first: Figures, second: Figures) -> tuple[str, str, str]:
    value, error = difference(Spread.of(first["test_accuracy"]), Spread.of(second["test_accuracy"]))
    if not error:
        return label, f"{100 * value:+.2f}", ""
    return label, f"{100 * value:+.2f} ± {100 * error:.2f}", f"{value / error:+.1f}"
