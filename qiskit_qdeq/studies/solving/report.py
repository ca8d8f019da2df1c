"""The solver study in Markdown: what pays, then a table per question, then what there is not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from qiskit_qdeq.gradient.implicit import BACKWARD_MODES
from qiskit_qdeq.studies.markdown import table
from qiskit_qdeq.studies.solving.cells import SOLVERS, Cell
from qiskit_qdeq.studies.solving.plan import LEFT_OUT, REFERENCE, WEIGHTS
from qiskit_qdeq.studies.solving.rows import Row, able, cheapest, chosen, models, pooled_std, start_effects
from qiskit_qdeq.studies.solving.tables import failures, named, number, of, one, percent, tolerance
from qiskit_qdeq.training.config import STARTS

Rows = Mapping[str, Sequence[Row]]


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


def _cell(row: Row) -> str:
    return f"`{row['solver']}`, {row['start']}, {tolerance(row['tol'])}, `{row['backward']}`"


def _summary(rows: Sequence[Row], seeds: int) -> str:
    lines, sentences, missing = [], [], []
    for model in models(rows):
        every = chosen(rows, **of(model))
        own = able(every)
        if len(own) < len(every):
            missing.append(f"{len(every) - len(own)} of {len(every)} ({named(model)})")
        if not own:
            lines.append([named(model), *["-"] * 5])
            continue
        circuits, within = cheapest(own, "step_circuits")
        milliseconds, _ = cheapest(own, "ms")
        spread = pooled_std(own, "accuracy")
        lines.append(
            [
                named(model),
                f"{100 * max(row['accuracy'] for row in own):.1f}",
                f"{100 * spread:.1f}",
                f"{within} of {len(own)}",
                f"{_cell(circuits)}: {circuits['step_circuits']:.1f}, {percent(circuits)} %",
                f"{_cell(milliseconds)}: {milliseconds['ms']:.2f}, {percent(milliseconds)} %",
            ]
        )
        effects = start_effects(own)
        largest = max((abs(gain) for gain, _ in effects.values()), default=0.0)
        verdict = "hardly matter" if largest <= spread else "matter"
        told = ", ".join(
            f"{start} {round(100 * gain, 1) + 0.0:+.1f} points, {ratio:.2f} times the circuits"
            for start, (gain, ratio) in effects.items()
        )
        if told:
            sentences.append(f"- {named(model)}: for accuracy starts {verdict}. Against zeros: {told}.")
    columns = (
        *("model", "best %", "σ of seeds", "within σ of the best"),
        *("fewest circuits a sample and step", "fewest milliseconds a step"),
    )
    about_starts = "Starts, over all trainings that differ in nothing else (circuits: of the solve alone):"
    return "\n".join(
        [
            "## What pays",
            "",
            "A model is an encoding and a state_scale (0.5: default preset, 1: the paper's). Of all exact trainings, those "
            f"whose test accuracy (mean of {seeds} seeds) is within one standard deviation of the best (root mean square "
            "over the trainings of the model): the cheapest in circuits of a training step as a device would run them, and "
            "in milliseconds of a step of one minibatch on a simulator. Among many hundreds the best is partly luck.",
            "",
            *table(columns, lines, 1),
            *(["", f"Left out are trainings of which a seed failed: {'; '.join(missing)}."] if missing else []),
            *(["", about_starts, "", *sentences] if sentences else []),
        ]
    )


def _starts(rows: Sequence[Row]) -> str:
    lines = []
    for model in models(rows):
        for weights in WEIGHTS:
            for name in SOLVERS:
                found = [
                    one(rows, **of(model), weights=weights, solver=name, start=start, tol=1e-6) for start in STARTS
                ]
                if not any(found):
                    continue
                lines.append([named(model), weights, f"`{name}`", *map(_solve, found)])
    return "\n".join(
        [
            "## Solvers and starts",
            "",
            "Exact, tolerance 1e-6: mean (largest) steps; circuits a sample as a device would run them; per cent not "
            "solved, and per cent in another equilibrium than from zeros, where there are any.",
            "",
            *table(("model", "weights", "solver", *STARTS), lines, 3),
        ]
    )


def _solve(row: Row | None) -> str:
    if row is None:
        return "-"
    text = f"{number(row['steps'])} ({row['most_steps']}); {number(row['circuits'])}"
    if row["solved"] < 1:
        text += f"; {100 * (1 - row['solved']):.1f} % open"
    return text + (f"; {100 * row['elsewhere']:.1f} % elsewhere" if row["elsewhere"] else "")


def _tolerances(rows: Sequence[Row], gradients: Sequence[Row]) -> str:
    tols = list(dict.fromkeys(row["tol"] for row in rows))
    lines = []
    for model in models(rows):
        for name in SOLVERS:
            place = {**of(model), "weights": "trained", "solver": name, "start": "zeros"}
            cells = []
            for tol in tols:
                found, slope = one(rows, **place, tol=tol), one(gradients, **place, tol=tol, backward="exact")
                if found is None or slope is None:
                    cells.append("-")
                else:
                    cells.append(f"{number(found['circuits'])}; {number(found['error'])}; {number(slope['error'])}")
            if set(cells) != {"-"}:
                lines.append([named(model), f"`{name}`", *cells])
    return "\n".join(
        [
            "## Tolerance",
            "",
            "Exact, from zeros, trained weights: circuits a sample; median error of z\\*, ‖q - q\\*‖; relative error of the "
            "gradient (backward `exact`).",
            "",
            *table(("model", "solver", *(tolerance(tol) for tol in tols)), lines, 2),
        ]
    )


def _backwards(rows: Rows) -> str:
    lines = []
    for model in models(rows["trainings"]):
        for mode in BACKWARD_MODES:
            place = {**of(model), "solver": REFERENCE, "start": "zeros", "backward": mode}
            slopes = [one(rows["gradients"], **place, tol=1e-6, weights=weights) for weights in WEIGHTS]
            trained = one(rows["trainings"], **place, tol=1e-6)
            measured = one(rows["shot trainings"], **place)
            accuracies = [row["accuracy"] for row in able(chosen(rows["trainings"], **of(model), backward=mode))]
            lines.append(
                [
                    named(model),
                    f"`{mode}`",
                    *("-" if slope is None else f"{slope['cosine']:.4f}; {number(slope['error'])}" for slope in slopes),
                    percent(trained) + failures(trained),
                    f"{100 * min(accuracies):.1f} to {100 * max(accuracies):.1f}" if accuracies else "-",
                    "-" if trained is None or trained["ms"] is None else f"{trained['ms']:.2f}",
                    percent(measured) + failures(measured),
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
            *table(columns, lines, 2),
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
            one(rows, **of(model), solver=cell.solver, start=cell.start, tol=cell.tol, backward="exact")
            for model in names
        ]
        changed = cell.start if cell.start != "zeros" else tolerance(cell.tol)
        what = f"`{cell.solver}`" if cell == Cell(cell.solver) else f"`{cell.solver}`, {changed}"
        lines.append([what, *map(_training, found)])
    return "\n".join(
        [
            "## Trainings, exact",
            "",
            f"From zeros, tolerance 1e-6, backward `exact`, or what is named. Test accuracy in per cent (mean ± standard "
            f"deviation of {seeds} seeds); mean steps of a solve; circuits a sample and step; milliseconds a step.",
            "",
            *table(("cell", *map(named, names)), lines, 1),
        ]
    )


def _training(row: Row | None) -> str:
    if row is None or row["accuracy"] is None:
        return "-" + failures(row)
    text = f"{percent(row)}; {number(row['steps'])}; {row['step_circuits']:.1f}; {row['ms']:.2f}"
    return text + (f"; {100 * row['unsolved']:.1f} % open" if row["unsolved"] else "") + failures(row)


def _shots(rows: Sequence[Row]) -> str:
    amounts = list(dict.fromkeys(row["shots"] for row in rows))
    lines = []
    for model in models(rows):
        for name in SOLVERS:
            for amount in amounts:
                row = one(rows, **of(model), solver=name, start="zeros", tol=1e-6, shots=amount)
                if row is None:
                    continue
                ends = ", ".join(f"{count} {status.replace('_', ' ')}" for status, count in row["status"].items())
                lines.append(
                    [
                        *(
                            named(model),
                            f"`{name}`",
                            ends,
                            f"{amount:,}",
                            f"{number(row['steps'])} ({row['most_steps']})",
                        ),
                        *(number(row["circuits"]), number(row["shots_taken"]), number(row["error"])),
                        percent(row),
                    ]
                )
    starts = []
    for model in models(rows):
        for name in SOLVERS:
            found = [one(rows, **of(model), solver=name, start=start, tol=1e-6, shots=1024) for start in STARTS]
            loose = one(rows, **of(model), solver=name, start="zeros", tol=1e-2, shots=1024)
            if any(found):
                texts = [
                    "-" if row is None else f"{number(row['circuits'])}; {number(row['error'])}"
                    for row in (*found, loose)
                ]
                starts.append([named(model), f"`{name}`", *texts])
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
            *table(columns, lines, 3),
            "",
            "Starts, and a tolerance of 1e-2 from zeros, at 1,024 shots a circuit: circuits a sample; median error of z\\*.",
            "",
            *table(("model", "solver", *STARTS, "zeros, 1e-2"), starts, 2),
        ]
    )


def _shot_gradients(rows: Sequence[Row]) -> str:
    amounts = list(dict.fromkeys(row["shots"] for row in rows))
    lines = []
    for model in models(rows):
        for weights in WEIGHTS:
            for name in dict.fromkeys(row["solver"] for row in rows):
                for mode in BACKWARD_MODES:
                    place = {**of(model), "weights": weights, "solver": name, "backward": mode}
                    found = [one(rows, **place, shots=amount) for amount in amounts]
                    if any(found):
                        texts = ["-" if row is None else f"{row['cosine']:.3f}; {row['error']:.2f}" for row in found]
                        lines.append([named(model), weights, f"`{name}`", f"`{mode}`", *texts])
    return "\n".join(
        [
            "## Gradients from shots",
            "",
            "Cosine and relative error against the exact implicit gradient; all modes of a solver from the same measured "
            "circuits.",
            "",
            *table(("model", "weights", "solver", "backward", *(f"{amount:,} shots" for amount in amounts)), lines, 4),
        ]
    )


def _shot_trainings(rows: Sequence[Row]) -> str:
    lines = [
        [
            *(named((row["encoding"], row["state_scale"])), f"`{row['solver']}`", row["start"], f"`{row['backward']}`"),
            *(
                percent(row) + failures(row),
                number(row["steps"]),
                number(row["step_circuits"]),
                percent(row, "unsolved"),
            ),
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
    return "\n".join(["## Trainings from shots", "", *table(columns, lines, 4)])


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
                named((row["encoding"], row["state_scale"])),
                str(row["epoch"]),
                f"{middle:.2f} ({low:.2f} to {high:.2f})",
                f"{100 * row['radius_above_1']:.1f}",
                f"{row['norm_quantiles'][2]:.2f}",
                f"{100 * row['norm_above_1']:.1f}",
                percent(row),
                counts or "-",
                percent(row, "class_differs") if sought else "-",
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
            *table(columns, lines, 1),
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
    return "\n".join(["## Not applicable, and left out", "", *table(("cells", "reason", "where"), lines, 3)])
