"""The cells on an exact simulator: solves and gradients at fixed weights, and trainings.

Errors of a state are distances to the equilibrium it belongs to: where Newton, started there, ends (residual 1e-12).
Gradients are compared with the exact implicit gradient at the equilibria that Newton finds from zeros.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from qiskit_qdeq.equilibrium.contraction import DISTINCT
from qiskit_qdeq.equilibrium.driver import direct_state, solve
from qiskit_qdeq.equilibrium.solution import Solution, Status
from qiskit_qdeq.equilibrium.solvers import Newton
from qiskit_qdeq.evaluation.protocol import EquilibriumMap
from qiskit_qdeq.exceptions import ConvergenceError, ConvergenceWarning
from qiskit_qdeq.gradient.implicit import BACKWARD_MODES, Backward
from qiskit_qdeq.studies.solving.cells import LAYERS, Cell, refusal
from qiskit_qdeq.studies.solving.places import Place, compared, weight_gradient
from qiskit_qdeq.studies.solving.prices import Prices
from qiskit_qdeq.training.config import STARTS
from qiskit_qdeq.training.minibatches import RandomStarts
from qiskit_qdeq.training.step import StepResult
from qiskit_qdeq.training.trainer import Trainer

Array = np.ndarray[Any, np.dtype[Any]]

TIGHT = Newton(tol=1e-12, max_steps=100)
#: Why random weights have no warm start.
NO_EPOCH_BEFORE = "before the first step there is no epoch whose equilibria a warm start could take: it begins at zeros"


def solve_task(arguments: Mapping[str, Any], data_dir: str | None) -> dict[str, Any]:
    """One solver from all starts to all tolerances, with the gradients of all backward modes, at fixed weights.

    `arguments`: train, epochs, weights ("random" or "trained"), solver, samples, tols.
    """
    place, epochs, trained = (
        Place.of(arguments["train"], data_dir),
        arguments["epochs"],
        arguments["weights"] == "trained",
    )
    parameters = place.snapshots((0, epochs - 1, epochs))
    model, now = place.model, parameters[epochs if trained else 0]
    weights = model.split(now)[0]
    inputs = model.prepare(place.split.x_train[: arguments["samples"]])
    labels = place.split.y_train[: len(inputs)]
    problem = model.map(weights, inputs)
    tight = solve(problem, TIGHT, on_failure="accept")
    reference = weight_gradient(model, now, problem, labels, tight, Backward())
    warm = None
    if trained:
        before = model.split(parameters[epochs - 1])[0]
        warm = solve(model.map(before, inputs), TIGHT, on_failure="accept").state
    prices, rows = Prices.of(model), []
    for start, tol in itertools.product(STARTS, arguments["tols"]):
        cell = Cell(arguments["solver"], start, tol)
        reason = refusal(cell, model) or (NO_EPOCH_BEFORE if start == "warm" and not trained else "")
        row: dict[str, Any] = {"solver": cell.solver, "start": start, "tol": tol}
        if reason:
            rows.append({**row, "refused": reason})
            continue
        fresh = model.map(weights, inputs)
        initial = first_iterate(fresh, start, warm, arguments["train"]["seed"])
        found = solve(fresh, cell.chosen(), initial, on_failure="accept", keep_inverse=cell.solver == "broyden")
        row |= described_solution(found) | errors_of(problem, found, tight)
        row["circuits"] = prices.solve(cell, found) / len(inputs)
        row["gradients"] = {}
        for mode in BACKWARD_MODES:
            if refusal(Cell(cell.solver, start, tol, mode), model):
                continue
            try:
                gradient = weight_gradient(model, now, fresh, labels, found, Backward(mode, on_failure="accept"))
            except ConvergenceError:
                # 1 - J is singular where the solver left a sample
                continue
            row["gradients"][mode] = compared(gradient, reference)
        rows.append(row)
    return {"cells": rows, "samples": len(inputs), "unsolved": float(np.mean(~tight.converged))}


def first_iterate(problem: EquilibriumMap, start: str, warm: Array | None, seed: int) -> Array | None:
    """Where all samples of a map begin; None for zeros."""
    if start == "warm":
        return warm
    if start == "random":
        return RandomStarts(problem.batch, problem.num_states, seed).of(0, np.arange(problem.batch))
    return direct_state(problem, LAYERS) if start == "direct" else None


def described_solution(found: Solution) -> dict[str, Any]:
    """Steps, evaluations, residuals, and how the samples ended."""
    residual = np.where(np.isfinite(found.residual), found.residual, np.inf)
    return {
        "steps": float(found.steps.mean()),
        "most_steps": int(found.steps.max()),
        "evaluations": float(found.evaluations.mean()),
        "solved": float(found.converged.mean()),
        "residual": finite(np.median(residual)),
        "largest_residual": finite(residual.max()),
        "status": {
            Status(int(value)).name.lower(): int(np.sum(found.status == value)) for value in np.unique(found.status)
        },
    }


def errors_of(problem: EquilibriumMap, found: Solution, tight: Solution) -> dict[str, Any]:
    """How far states are from their equilibria, and how many belong to another one than is found from zeros."""
    start = np.nan_to_num(np.array(found.state), nan=0, posinf=0, neginf=0)
    own = solve(problem, TIGHT, np.clip(start, -2, 2), on_failure="accept")
    known = own.converged
    error = np.linalg.norm(found.state - own.state, axis=1)[known]
    error = error[np.isfinite(error)]
    apart = np.linalg.norm(own.state - tight.state, axis=1) > DISTINCT
    return {
        "error": finite(np.median(error)) if len(error) else None,
        "error_95": finite(np.quantile(error, 0.95)) if len(error) else None,
        "elsewhere": float(np.mean(apart & known & tight.converged)),
    }


def finite(value: Any) -> float | None:
    """A number that JSON can hold."""
    number = float(value)
    return number if np.isfinite(number) else None


class Bill:
    """Adds up, over the steps of a training, what its solves would cost."""

    def __init__(self, prices: Prices, cell: Cell) -> None:
        self._prices, self._cell = prices, cell
        self.samples = self.steps = self.unsolved = 0
        self.most_steps = 0
        self.solve = self.step = 0.0

    def on_step(self, trainer: Trainer, result: StepResult) -> None:
        """Book a step."""
        found = result.solution
        if found is None:
            return
        self.samples += len(found.status)
        self.steps += int(found.steps.sum())
        self.most_steps = max(self.most_steps, int(found.steps.max()))
        self.unsolved += int(np.count_nonzero(~found.converged))
        self.solve += self._prices.solve(self._cell, found)
        self.step += self._prices.step(self._cell, found)

    def on_epoch(self, trainer: Trainer, record: dict[str, float]) -> None:
        """Nothing."""

    def as_dict(self) -> dict[str, float]:
        """Per sample."""
        return {
            "steps": self.steps / self.samples,
            "most_steps": self.most_steps,
            "unsolved": self.unsolved / self.samples,
            "solve_circuits": self.solve / self.samples,
            "step_circuits": self.step / self.samples,
        }


def train_task(arguments: Mapping[str, Any], data_dir: str | None) -> dict[str, Any]:
    """Train with one solver and one start, with all tolerances and backward modes asked for.

    `arguments`: train, solver, start, tols, modes.
    """
    place, rows = Place.of(arguments["train"], data_dir), []
    prices = Prices.of(place.model)
    for tol, mode in itertools.product(arguments["tols"], arguments["modes"]):
        cell = Cell(arguments["solver"], arguments["start"], tol, mode)
        row: dict[str, Any] = {"solver": cell.solver, "start": cell.start, "tol": tol, "backward": mode}
        if reason := refusal(cell, place.model):
            rows.append({**row, "refused": reason})
            continue
        bill = Bill(prices, cell)
        trainer = Trainer(
            place.model, cell.config(place.recipe), place.split.x_train, place.split.y_train, callbacks=[bill]
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            try:
                trainer.run()
            except ConvergenceError as error:
                rows.append({**row, "failed": str(error)})
                continue
        row |= bill.as_dict() | {"ms": 1e3 * _undisturbed(trainer.step_seconds), "batch": trainer.batch_size}
        rows.append({**row, "accuracy": place.accuracy(trainer.state.parameters)})
    return {"cells": rows}


def _undisturbed(seconds: Sequence[float]) -> float:
    """Of a step on a machine that does other things too: the lower decile."""
    return float(np.quantile(seconds, 0.1))
