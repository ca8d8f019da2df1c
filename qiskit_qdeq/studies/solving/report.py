"""The solver study in Markdown: what pays, then a table per question, then what there is not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from qiskit_qdeq.gradient.implicit import BACKWARD_MODES
from qiskit_qdeq.studies.solving.cells import SOLVERS, Cell
from qiskit_qdeq.studies.solving.plan import LEFT_OUT, REFERENCE, WEIGHTS
from qiskit_qdeq.studies.solving.rows import Row, cheapest, chosen, models, pooled_std, start_effects
from qiskit_qdeq.training.config import STARTS

Rows = Mapping[str, Sequence[Row]]
_DEFAULT = {"start": "zeros", "tol": 1e-6, "backward": "exact"}


def markdown(rows: Rows, seeds: int) -> str:
    """All of it."""
    parts = [
        _summary(rows["trainings"], seeds),
        _starts(rows["solves"]),
        _tolerances(rows["solves"], rows["gradients"]),
        _backwards(rows),
        _trainings(rows["trainings"], seeds),
        _shots(rows["shots"]),
        _shot_gradients(rows["shot gradients"]),
        _shot_trainings(rows["shot trainings"]),
        _maps(rows["maps"]),
        _missing(rows["refused"]),
    ]
    return "\n\n".join(parts) + "\n"


def table(columns: Sequence[str], lines: Sequence[Sequence[str]], texts: int = 1) -> str:
    """A table whose first `texts` columns are texts and whose others are numbers."""
    head = ["---"] * texts + ["--:"] * (len(columns) - texts)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (columns, head, *lines))


def _percent(row: Row | None, name: str = "accuracy", digits: int = 1) -> str:
    if row is None or row.get(name) is None:
        return "-"
    std = row.get(f"{name}_std")
    return f"{100 * row[name]:.{digits}f}" + ("" if std is None else f" ± {100 * std:.{digits}f}")


def _number(value: Any) -> str:
    """Three digits: 12.3, 0.00123, 1.2e-07."""
    if value is None:
        return "-"
    if value == 0:
        return "0"
    return f"{value:.1e}" if abs(value) < 1e-3 else f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def _tol(tol: float) -> str:
    return f"{tol:g}".replace("e-0", "e-")


def _one(rows: Sequence[Row], **values: Any) -> Row | None:
    found = chosen(rows, **values)
    return found[0] if found else None


def _cell(row: Row) -> str:
    return f"`{row['solver']}`, {row['start']}, {_tol(row['tol'])}, `{row['backward']}`"


def _name(model: tuple[str, float]) -> str:
    return f"{model[0]}, {model[1]:g}"


def _of(model: tuple[str, float]) -> dict[str, Any]:
    return {"encoding": model[0], "state_scale": model[1]}


def _summary(rows: Sequence[Row], seeds: int) -> str:
    lines, sentences = [], []
    for model in models(rows):
        own = chosen(rows, **_of(model))
        best = max((row for row in own if row["accuracy"] is not None), key=lambda row: row["accuracy"])
        circuits, within = cheapest(own, "step_circuits")
        milliseconds, _ = cheapest(own, "ms")
        spread = pooled_std(own, "accuracy")
        lines.append(
            [
                _name(model),
                f"{100 * best['accuracy']:.1f}",
                f"{100 * spread:.1f}",
                f"{within} of {len(own)}",
                f"{_cell(circuits)}: {circuits['step_circuits']:.1f}, {_percent(circuits)} %",
                f"{_cell(milliseconds)}: {milliseconds['ms']:.2f}, {_percent(milliseconds)} %",
            ]
        )
        effects = start_effects(own)
        largest = max((abs(gain) for gain, _ in effects.values()), default=0.0)
        verdict = "hardly matter" if largest <= spread else "matter"
        told = ", ".join(
            f"{start} {round(100 * gain, 1) + 0.0:+.1f} points, {ratio:.2f} times the circuits"
            for start, (gain, ratio) in effects.items()
        )
        sentences.append(f"- {_name(model)}: for accuracy starts {verdict}. Against zeros: {told}.")
    columns = (
        *("model", "best %", "σ of seeds", "within σ of the best"),
        *("fewest circuits a sample and step", "fewest milliseconds a step"),
    )
    return "\n".join(
        [
            "## What pays",
            "",
            "A model is an encoding and a state_scale (0.5: default preset, 1: the paper's). Of all exact trainings, those "
            f"whose test accuracy (mean of {seeds} seeds) is within one standard deviation of the best (root mean square "
            "over the trainings of the model): the cheapest in circuits of a training step as a device would run them, and "
            "in milliseconds of a step of one minibatch on a simulator. Among many hundreds the best is partly luck.",
            "",
            table(columns, lines, 1),
            "",
            "Starts, over all trainings that differ in nothing else (circuits: of the solve alone):",
            "",
            *sentences,
        ]
    )


def _starts(rows: Sequence[Row]) -> str:
    lines = []
    for model in models(rows):
        for weights in WEIGHTS:
            for name in SOLVERS:
                found = [
                    _one(rows, **_of(model), weights=weights, solver=name, start=start, tol=1e-6) for start in STARTS
                ]
                if not any(found):
                    continue
                lines.append([_name(model), weights, f"`{name}`", *map(_solve, found)])
    return "\n".join(
        [
            "## Solvers and starts",
            "",
            "Exact, tolerance 1e-6: mean (largest) steps; circuits a sample as a device would run them; per cent not "
            "solved, and per cent in another equilibrium than from zeros, where there are any.",
            "",
            table(("model", "weights", "solver", *STARTS), lines, 3),
        ]
    )


def _solve(row: Row | None) -> str:
    if row is None:
        return "-"
    text = f"{_number(row['steps'])} ({row['most_steps']}); {_number(row['circuits'])}"
    if row["solved"] < 1:
        text += f"; {100 * (1 - row['solved']):.1f} % open"
    return text + (f"; {100 * row['elsewhere']:.1f} % elsewhere" if row["elsewhere"] else "")


def _tolerances(rows: Sequence[Row], gradients: Sequence[Row]) -> str:
    tols = list(dict.fromkeys(row["tol"] for row in rows))
    lines = []
    for model in models(rows):
        for name in SOLVERS:
            place = {**_of(model), "weights": "trained", "solver": name, "start": "zeros"}
            cells = []
            for tol in tols:
                found, slope = _one(rows, **place, tol=tol), _one(gradients, **place, tol=tol, backward="exact")
                if found is None or slope is None:
                    cells.append("-")
                else:
                    cells.append(f"{_number(found['circuits'])}; {_number(found['error'])}; {_number(slope['error'])}")
            if set(cells) != {"-"}:
                lines.append([_name(model), f"`{name}`", *cells])
    return "\n".join(
        [
            "## Tolerance",
            "",
            "Exact, from zeros, trained weights: circuits a sample; median error of z\\*, ‖q - q\\*‖; relative error of the "
            "gradient (backward `exact`).",
            "",
            table(("model", "solver", *(_tol(tol) for tol in tols)), lines, 2),
        ]
    )


def _backwards(rows: Rows) -> str:
    lines = []
    for model in models(rows["trainings"]):
        for mode in BACKWARD_MODES:
            place = {**_of(model), "solver": REFERENCE, "start": "zeros", "backward": mode}
            slopes = [_one(rows["gradients"], **place, tol=1e-6, weights=weights) for weights in WEIGHTS]
            trained = _one(rows["trainings"], **place, tol=1e-6)
            everywhere = [
                row for row in chosen(rows["trainings"], **_of(model), backward=mode) if row["accuracy"] is not None
            ]
            accuracies = [row["accuracy"] for row in everywhere]
            lines.append(
                [
                    _name(model),
                    f"`{mode}`",
                    *(
                        "-" if slope is None else f"{slope['cosine']:.4f}; {_number(slope['error'])}"
                        for slope in slopes
                    ),
                    _percent(trained),
                    f"{100 * min(accuracies):.1f} to {100 * max(accuracies):.1f}" if accuracies else "-",
                    "-" if trained is None or trained["ms"] is None else f"{trained['ms']:.2f}",
                    _percent(_one(rows["shot trainings"], **place)),
                ]
            )
    columns = (
        *("model", "backward", "trained: cosine; error", "random: cosine; error", "accuracy %", "all its cells %"),
        *("ms a step", "accuracy from shots %"),
    )
    return "\n".join(
        [
            "## Backward mode",
            "",
            f"Solver `{REFERENCE}` from zeros, tolerance 1e-6: cosine and relative error against the exact implicit "
            "gradient at trained and at random weights; test accuracy after an exact training; the range of the means of "
            "all trainings with this mode, whatever solver, start and tolerance; milliseconds; test accuracy after a "
            "training from shots. On a device all modes run the same circuits: ∂h/∂q needs the shifted encoder angles.",
            "",
            table(columns, lines, 2),
        ]
    )


def _trainings(rows: Sequence[Row], seeds: int) -> str:
    tols = list(dict.fromkeys(row["tol"] for row in rows))
    cells = [Cell(name) for name in SOLVERS]
    cells += [Cell(REFERENCE, start=start) for start in STARTS[1:]]
    cells += [Cell(REFERENCE, tol=tol) for tol in tols if tol != 1e-6]
    names = models(rows)
    lines = []
    for cell in cells:
        found = [
            _one(rows, **_of(model), solver=cell.solver, start=cell.start, tol=cell.tol, backward="exact")
            for model in names
        ]
        changed = cell.start if cell.start != "zeros" else _tol(cell.tol)
        what = f"`{cell.solver}`" if cell == Cell(cell.solver) else f"`{cell.solver}`, {changed}"
        lines.append([what, *map(_training, found)])
    return "\n".join(
        [
            "## Trainings, exact",
            "",
            f"From zeros, tolerance 1e-6, backward `exact`, or what is named. Test accuracy in per cent (mean ± standard "
            f"deviation of {seeds} seeds); mean steps of a solve; circuits a sample and step; milliseconds a step.",
            "",
            table(("cell", *map(_name, names)), lines, 1),
        ]
    )


def _training(row: Row | None) -> str:
    if row is None or row["accuracy"] is None:
        return "-"
    text = f"{_percent(row)}; {_number(row['steps'])}; {row['step_circuits']:.1f}; {row['ms']:.2f}"
    return text + (f"; {100 * row['unsolved']:.1f} % open" if row["unsolved"] else "")


def _shots(rows: Sequence[Row]) -> str:
    amounts = list(dict.fromkeys(row["shots"] for row in rows))
    lines = []
    for model in models(rows):
        for name in SOLVERS:
            for amount in amounts:
                row = _one(rows, **_of(model), solver=name, start="zeros", tol=1e-6, shots=amount)
                if row is None:
                    continue
                ends = ", ".join(f"{count} {status.replace('_', ' ')}" for status, count in row["status"].items())
                lines.append(
                    [
                        *(
                            _name(model),
                            f"`{name}`",
                            ends,
                            f"{amount:,}",
                            f"{_number(row['steps'])} ({row['most_steps']})",
                        ),
                        *(_number(row["circuits"]), _number(row["shots_taken"]), _number(row["error"])),
                        _percent(row),
                    ]
                )
    starts = []
    for model in models(rows):
        for name in SOLVERS:
            found = [_one(rows, **_of(model), solver=name, start=start, tol=1e-6, shots=1024) for start in STARTS]
            loose = _one(rows, **_of(model), solver=name, start="zeros", tol=1e-2, shots=1024)
            if any(found):
                texts = [
                    "-" if row is None else f"{_number(row['circuits'])}; {_number(row['error'])}"
                    for row in (*found, loose)
                ]
                starts.append([_name(model), f"`{name}`", *texts])
    columns = (
        *("model", "solver", "ends", "shots a circuit", "steps (most)", "circuits", "shots a sample", "error of z\\*"),
        "accuracy %",
    )
    return "\n".join(
        [
            "## From shots",
            "",
            "At trained weights, from zeros, tolerance 1e-6; a sample's own circuits, shots and median error of z\\*; how "
            "all samples of all seeds ended.",
            "",
            table(columns, lines, 3),
            "",
            "Starts, and a tolerance of 1e-2 from zeros, at 1,024 shots a circuit: circuits a sample; median error of z\\*.",
            "",
            table(("model", "solver", *STARTS, "zeros, 1e-2"), starts, 2),
        ]
    )


def _shot_gradients(rows: Sequence[Row]) -> str:
    amounts = list(dict.fromkeys(row["shots"] for row in rows))
    lines = []
    for model in models(rows):
        for weights in WEIGHTS:
            for name in dict.fromkeys(row["solver"] for row in rows):
                for mode in BACKWARD_MODES:
                    place = {**_of(model), "weights": weights, "solver": name, "backward": mode}
                    found = [_one(rows, **place, shots=amount) for amount in amounts]
                    if any(found):
                        texts = ["-" if row is None else f"{row['cosine']:.3f}; {row['error']:.2f}" for row in found]
                        lines.append([_name(model), weights, f"`{name}`", f"`{mode}`", *texts])
    return "\n".join(
        [
            "## Gradients from shots",
            "",
            "Cosine and relative error against the exact implicit gradient; all modes of a solver from the same measured "
            "circuits.",
            "",
            table(("model", "weights", "solver", "backward", *(f"{amount:,} shots" for amount in amounts)), lines, 4),
        ]
    )


def _shot_trainings(rows: Sequence[Row]) -> str:
    lines = [
        [
            *(_name((row["encoding"], row["state_scale"])), f"`{row['solver']}`", row["start"], f"`{row['backward']}`"),
            *(_percent(row), _number(row["steps"]), _number(row["step_circuits"]), _percent(row, "unsolved")),
        ]
        for row in rows
    ]
    columns = (
        "model",
        "solver",
        "start",
        "backward",
        "accuracy %",
        "steps",
        "circuits a sample and step",
        "not solved %",
    )
    return "\n".join(["## Trainings from shots", "", table(columns, lines, 4)])


def _maps(rows: Sequence[Row]) -> str:
    lines = []
    for row in rows:
        sought = row.get("several") is not None
        low, _, middle, _, high = row["radius_quantiles"]
        counts = ", ".join(
            f"{count} with {number if number < 4 else '4 or more'}"
            for number, count in enumerate(row.get("counts", []))
            if count
        )
        lines.append(
            [
                _name((row["encoding"], row["state_scale"])),
                str(row["epoch"]),
                f"{middle:.2f} ({low:.2f} to {high:.2f})",
                f"{100 * row['radius_above_1']:.1f}",
                f"{row['norm_quantiles'][2]:.2f}",
                f"{100 * row['norm_above_1']:.1f}",
                _percent(row),
                counts or "-",
                _percent(row, "class_differs") if sought else "-",
                f"{100 * row['returned']:.1f}" if sought and row["returned"] is not None else "-",
            ]
        )
    columns = (
        *("model", "epoch", "ρ(J) median (5 to 95 %)", "ρ > 1 %", "‖J‖ median", "‖J‖ > 1 %", "accuracy %"),
        *("samples by equilibria found", "another class %", "starts back at the first %"),
    )
    return "\n".join(
        [
            "## Contraction, and several equilibria",
            "",
            "J at the equilibria of all test samples, before (epoch 0), during and after training. Equilibria: Newton to "
            "1e-10 from zeros and from random starts, distinct if further apart than 1e-3; the share of samples of which "
            "one of them is of another class than the one found from zeros; the share of random starts that lead to that "
            "one.",
            "",
            table(columns, lines, 1),
        ]
    )


def _missing(refused: Sequence[Row]) -> str:
    lines = [
        [f"{row['what']}{', ' + row['encoding'] if row['encoding'] else ''}", row["reason"], "; ".join(row["parts"])]
        for row in refused
    ]
    lines.append(
        [
            "`shine` at fixed weights with solvers other than `broyden`",
            "backward mode 'shine' reuses the inverse of solver 'broyden'",
            "gradients; shot gradients",
        ]
    )
    lines += [[what, reason, "not computed"] for what, reason in LEFT_OUT]
    return "\n".join(["## Not applicable, and left out", "", table(("cells", "reason", "where"), lines, 3)])
