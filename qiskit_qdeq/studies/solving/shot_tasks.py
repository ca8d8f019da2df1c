"""The cells where circuits are measured: solves at fixed trained weights, gradients, and trainings of a chosen subset."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qiskit_qdeq.data.split import stratified_subset
from qiskit_qdeq.equilibrium.driver import solve
from qiskit_qdeq.evaluation.protocol import Cost
from qiskit_qdeq.exceptions import ConvergenceError, ConvergenceWarning
from qiskit_qdeq.execution.description import Execution
from qiskit_qdeq.execution.devices import device_identity
from qiskit_qdeq.execution.running import executed
from qiskit_qdeq.gradient.implicit import BACKWARD_MODES, Backward
from qiskit_qdeq.model import QDEQModel
from qiskit_qdeq.studies.solving.cells import SOLVERS, Cell, refusal
from qiskit_qdeq.studies.solving.exact_tasks import TIGHT, described_solution, errors_of, first_iterate
from qiskit_qdeq.studies.solving.places import Place, compared, weight_gradient
from qiskit_qdeq.studies.tasks import Task
from qiskit_qdeq.training.config import STARTS
from qiskit_qdeq.training.trainer import Trainer

Array = np.ndarray[Any, np.dtype[Any]]

#: The package's own where circuits are measured: all their starts and tolerances are, and the gradients at their solutions.
DEFAULT_SOLVERS = ("broyden", "probe")


@dataclass(frozen=True)
class ShotPlace:
    """Where the shot part runs: a name such as "aer", or a backend object, and the execution mode or an open session.

    Attributes:
        journals: folder for the journals of jobs at a service, by which a task that is done again fetches what was paid for.
    """

    backend: Any = "aer"
    mode: str = "job"
    session: Any = None
    journals: Path | None = None

    @property
    def is_local(self) -> bool:
        """Whether worker processes can have one each: a simulation that a name stands for."""
        return isinstance(self.backend, str) and not self.backend.startswith("ibm:")

    @property
    def description(self) -> str:
        """In words, which tell two simulators of different noise apart."""
        return self.backend if isinstance(self.backend, str) else f"given:{device_identity(self.backend)}"

    def execution(self, shots: int, seed: int) -> Execution:
        """For a number of shots."""
        name = self.backend if isinstance(self.backend, str) else "given"
        return Execution(name, shots=shots, seed=seed, mode=self.mode)

    def running(self, model: QDEQModel, shots: int, seed: int, label: str) -> AbstractContextManager[QDEQModel]:
        """`model` with its circuits run there; `label` names the journal."""
        given = {} if isinstance(self.backend, str) else {"backend": self.backend, "session": self.session}
        journal = None if self.journals is None else self.journals / f"{label}.jsonl"
        return executed(model, self.execution(shots, seed), journal=journal, **given)


def shot_cells(tols: Sequence[float]) -> list[Cell]:
    """What is measured at fixed weights: of the default solvers all starts and tolerances, of the others all starts at the
    default tolerance and all tolerances from zeros; of krylov, which takes hundreds of circuits, the default."""
    cells = []
    for name, start, tol in itertools.product(SOLVERS, STARTS, tols):
        cell, default = Cell(name, start, tol), Cell(name)
        crossed = name in DEFAULT_SOLVERS or start == default.start or tol == default.tol
        if cell == default or (crossed and name != "scipy:krylov"):
            cells.append(cell)
    return cells


def shots_task(arguments: Mapping[str, Any], data_dir: str | None, device: ShotPlace) -> dict[str, Any]:
    """All solvers from shots at trained weights: steps, circuits, how solves end, errors, accuracy.

    `arguments`: train, epochs, samples, shots, tols.
    """
    place, epochs, seed = Place.of(arguments["train"], data_dir), arguments["epochs"], arguments["train"]["seed"]
    snapshots = place.snapshots((epochs - 1, epochs))
    model, parameters = place.model, snapshots[epochs]
    before, weights = (model.split(snapshots[epoch])[0] for epoch in (epochs - 1, epochs))
    kept = stratified_subset(place.split.y_test, arguments["samples"], np.random.default_rng(0))
    inputs, labels = model.prepare(place.split.x_test[kept]), place.split.y_test[kept]
    problem = model.map(weights, inputs)
    tight = solve(problem, TIGHT, on_failure="accept")
    exact = _accuracy(model, parameters, problem.at(tight.state).features, labels)
    rows: list[dict[str, Any]] = []
    with device.running(model, arguments["shots"], seed, Task("", arguments).label) as measured:
        for cell in shot_cells(arguments["tols"]):
            row: dict[str, Any] = {"solver": cell.solver, "start": cell.start, "tol": cell.tol}
            if reason := refusal(cell, model):
                rows.append({**row, "refused": reason})
                continue
            chosen = cell.chosen()
            warm = None
            if cell.start == "warm":
                earlier = solve(measured.map(before, inputs), chosen, on_failure="accept")
                warm = np.nan_to_num(np.clip(earlier.state, -1, 1))
            fresh = measured.map(weights, inputs)
            initial = first_iterate(fresh, cell.start, warm, seed)
            found = solve(fresh, chosen, initial, on_failure="accept")
            solving = fresh.cost
            row |= described_solution(found) | errors_of(problem, found, tight)
            row["accuracy"] = _accuracy(model, parameters, fresh.at(found.state).features, labels)
            rows.append({**row, **_per_sample(solving, len(inputs))})
    return {"cells": rows, "samples": len(inputs), "exact_accuracy": exact}


def _accuracy(model: QDEQModel, parameters: Array, features: Array, labels: Array) -> float:
    _, matrix, bias = model.split(parameters)
    logits = model.readout.activate(features) @ matrix.T + bias
    return float(np.mean(logits.argmax(axis=1) == labels))


def _per_sample(cost: Cost, samples: int) -> dict[str, float]:
    return {"circuits": cost.circuits / samples, "shots_taken": cost.shots / samples, "jobs": float(cost.jobs)}


def gradients_task(arguments: Mapping[str, Any], data_dir: str | None, device: ShotPlace) -> dict[str, Any]:
    """Gradients of all backward modes from the same measured circuits, against the exact implicit gradient.

    `arguments`: train, epochs, weights, samples, shots, repeats.
    """
    place, epochs, seed = Place.of(arguments["train"], data_dir), arguments["epochs"], arguments["train"]["seed"]
    model = place.model
    parameters = place.snapshots((0, epochs))[epochs if arguments["weights"] == "trained" else 0]
    weights = model.split(parameters)[0]
    inputs = model.prepare(place.split.x_train[: arguments["samples"]])
    labels = place.split.y_train[: len(inputs)]
    problem = model.map(weights, inputs)
    tight = solve(problem, TIGHT, on_failure="accept")
    exact = weight_gradient(model, parameters, problem, labels, tight, Backward())
    rows: list[dict[str, Any]] = []
    with device.running(model, arguments["shots"], seed, Task("", arguments).label) as measured:
        bound = measured.evaluator.bind(weights)
        for name, repeat in itertools.product(DEFAULT_SOLVERS, range(arguments["repeats"])):
            cell = Cell(name)
            if reason := refusal(cell, model):
                rows += [{"solver": name, "refused": reason}] if repeat == 0 else []
                continue
            fresh = bound.map(inputs, ("jacobian", "gradient"))
            found = solve(fresh, cell.chosen(), on_failure="accept", keep_inverse=name == "broyden")
            point = fresh.at(found.state)
            for mode in BACKWARD_MODES:
                if refusal(Cell(name, backward=mode), model):
                    continue
                backward = Backward(mode, on_failure="accept")
                try:
                    gradient = weight_gradient(model, parameters, fresh, labels, found, backward, point)
                except ConvergenceError:
                    continue
                cosine, error = compared(gradient, exact)
                rows.append({"solver": name, "backward": mode, "cosine": cosine, "error": error})
            rows[-1]["circuits"] = fresh.cost.circuits / len(inputs)
    circuits = {row["solver"]: row.pop("circuits") for row in rows if "circuits" in row}
    return {"cells": rows, "circuits": circuits, "samples": len(inputs), "length": float(np.linalg.norm(exact))}


def shot_train_task(arguments: Mapping[str, Any], data_dir: str | None, device: ShotPlace) -> dict[str, Any]:
    """Train from shots with one solver, for every start and backward mode asked for.

    `arguments`: train (its epochs and batch size are the recipe's where it has none), solver, choices (start, mode), shots,
    samples.
    """
    place, rows, label = Place.of(arguments["train"], data_dir), [], Task("", arguments).label
    chosen = stratified_subset(place.split.y_train, arguments["samples"], np.random.default_rng(0))
    for number, (start, mode) in enumerate(arguments["choices"]):
        cell = Cell(arguments["solver"], start, backward=mode)
        row: dict[str, Any] = {"solver": cell.solver, "start": start, "backward": mode}
        if reason := refusal(cell, place.model):
            rows.append({**row, "refused": reason})
            continue
        with (
            device.running(place.model, arguments["shots"], place.recipe.seed, f"{label}-{number}") as measured,
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore", ConvergenceWarning)
            trainer = Trainer(
                measured, cell.config(place.recipe), place.split.x_train[chosen], place.split.y_train[chosen]
            )
            try:
                trainer.run()
            except ConvergenceError as error:
                rows.append({**row, "failed": str(error)})
                continue
        history, samples = trainer.state.history, len(chosen) * len(trainer.state.history)
        row |= {
            "accuracy": place.accuracy(trainer.state.parameters),
            "steps": float(np.mean([record["solver_steps"] for record in history])),
            "unsolved": float(np.mean([record["unconverged"] for record in history])),
            "step_circuits": trainer.state.spent.circuits / samples,
            "shots": trainer.state.spent.shots / samples,
            "ms": 1e3 * float(np.median(trainer.step_seconds)),
        }
        rows.append(row)
    return {"cells": rows}
