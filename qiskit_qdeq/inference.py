"""Applying a trained model: logits, equilibria and metrics, in batches of bounded memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from qiskit_qdeq._html import cost_rows, facts, share, spread
from qiskit_qdeq.circuits import AmplitudeEncoder
from qiskit_qdeq.equilibrium.driver import solve
from qiskit_qdeq.equilibrium.solution import Solution
from qiskit_qdeq.equilibrium.solvers import Solver
from qiskit_qdeq.evaluation.protocol import Cost
from qiskit_qdeq.evaluation.threads import compute_context
from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.gradient.direct import direct_pass
from qiskit_qdeq.losses import loss_and_slope
from qiskit_qdeq.model import QDEQModel

Array = np.ndarray[Any, np.dtype[Any]]

#: Samples evaluated together at most: enough for full speed, little enough for a small machine.
BATCH = 512
#: Bytes of encoded columns (2**n amplitudes and their K derivatives per sample) held at once.
_COLUMN_BYTES = 2**28


@dataclass(frozen=True)
class Prediction:
    """What a model says about N samples.

    Attributes:
        logits: (N, C).
        state: equilibria, or the state that fed the last layer in direct mode (N, K).
        residual: ‖m(q) - q‖₂ at that state (N,).
        converged: whether the solver reached its tolerance (N,); all True in direct mode.
        steps: solver steps (N,), layers in direct mode.
        cost: circuits, shots, jobs and PUBs; nothing on an exact simulator.
    """

    logits: Array
    state: Array
    residual: Array
    converged: Array
    steps: Array
    cost: Cost = field(default_factory=Cost)

    def __repr__(self) -> str:
        if not len(self.logits):
            return "Prediction(0 samples)"
        return (
            f"Prediction({len(self.logits)} samples, {self.logits.shape[1]} logits, {int(self.converged.sum())} converged, "
            f"residual {spread(self.residual, '.1e')}, steps {spread(self.steps, '.0f')})"
        )

    def _repr_html_(self) -> str:
        rows: dict[str, object] = {
            "logits": " × ".join(map(str, self.logits.shape)),
            "samples converged": share(self.converged),
            "residual ‖m(q) - q‖": spread(self.residual, ".1e"),
            "steps": spread(self.steps, ".0f"),
            **cost_rows(self.cost),
        }
        return facts("Prediction", rows)


@dataclass(frozen=True)
class Metrics:
    """Mean loss and accuracy on labelled samples, how well their equilibria were solved, and what that cost.

    There is no accuracy (None) of the loss "squared_error".
    """

    loss: float
    accuracy: float | None
    residual: float
    max_residual: float
    unconverged: float
    mean_steps: float
    cost: Cost = field(default_factory=Cost)


def predict(
    model: QDEQModel,
    parameters: Array,
    inputs: Array,
    solver: Solver | None,
    *,
    layers: int = 1,
    on_failure: str = "warn",
    tell: Callable[[int], None] | None = None,
) -> Prediction:
    """Logits of prepared samples (N, D).

    Args:
        model: the structure.
        parameters: θ, W, b, flat.
        inputs: what `model.prepare` returned.
        solver: for the equilibrium; None for `layers` explicit layers.
        layers: L of direct mode.
        on_failure: "raise", "warn" or "accept" samples without an equilibrium.
        tell: is told how many samples are done, after each block of them.

    Raises:
        ConvergenceError: with `on_failure="raise"`.
        InputError: for parameters of another length, or a sample that leaves the domain of the encoder's angles.
    """
    if parameters.shape != (model.num_parameters,):
        raise InputError(f"parameters must have shape ({model.num_parameters},), got {parameters.shape}")
    if not np.isfinite(parameters).all():
        raise InputError("parameters must be finite")
    with compute_context():
        return _predict(model, parameters, inputs, solver, layers, on_failure, tell)


def block_size(model: QDEQModel) -> int:
    """Samples that `predict` evaluates together, which decides its jobs."""
    if not model.evaluator.is_exact:
        return BATCH
    # with amplitude encoding the derivatives of all samples are combinations of the same K columns
    columns = 2 if isinstance(model.template.encoder, AmplitudeEncoder) else 1 + model.num_states
    return max(1, min(BATCH, _COLUMN_BYTES // (16 * 2**model.template.num_qubits * columns)))


def _predict(
    model: QDEQModel,
    parameters: Array,
    inputs: Array,
    solver: Solver | None,
    layers: int,
    on_failure: str,
    tell: Callable[[int], None] | None,
) -> Prediction:
    weights, matrix, bias = model.split(parameters)
    bound = model.evaluator.bind(weights)
    parts: list[tuple[Array, Solution]] = []
    cost = Cost()
    size = block_size(model)
    for first in range(0, len(inputs), size):
        problem = bound.map(inputs[first : first + size])
        if solver is None:
            visited = direct_pass(problem, layers)
            point = visited.last
            gap = np.linalg.norm(point.values - point.state, axis=1)
            count = np.full(problem.batch, layers)
            solution = Solution(point.state, gap, np.zeros_like(count), count, count, gap[:, None])
        else:
            solution = solve(problem, solver, on_failure="accept")
            point = problem.at(solution.state)
        parts.append((model.readout.activate(point.features) @ matrix.T + bias, solution))
        cost += problem.cost
        if tell is not None:
            tell(first + problem.batch)
    merged = _merge([solution for _, solution in parts], model.num_states)
    merged.check(on_failure)
    logits = np.concatenate([part for part, _ in parts]) if parts else np.zeros((0, model.num_classes))
    lost = np.flatnonzero(~np.isfinite(logits).all(axis=1))
    if len(lost):
        raise InputError(
            f"sample {lost[0]} ({len(lost)} in all) has no finite logits: with the state fed back its features leave the "
            "domain of the encoder's angles. Use a smaller state_scale, or angles defined for all values"
        )
    return Prediction(logits, merged.state, merged.residual, merged.converged, merged.steps, cost)


def evaluate(
    model: QDEQModel,
    parameters: Array,
    inputs: Array,
    targets: Array,
    solver: Solver | None,
    *,
    layers: int = 1,
    loss: str = "cross_entropy",
    tell: Callable[[int], None] | None = None,
) -> Metrics:
    """Loss, accuracy and residuals on prepared samples with labels, or targets for another `loss`; see `predict`."""
    if not len(inputs):
        raise InputError("inputs holds no samples to evaluate")
    found = predict(model, parameters, inputs, solver, layers=layers, on_failure="accept", tell=tell)
    value, _, correct = loss_and_slope(loss, found.logits, targets)
    return Metrics(
        value,
        None if correct is None else correct / len(inputs),
        float(np.median(found.residual)),
        float(np.max(found.residual)),
        float(np.mean(~found.converged)),
        float(np.mean(found.steps)),
        found.cost,
    )


def _merge(parts: list[Solution], num_states: int) -> Solution:
    def join(name: str) -> Array:
        return np.concatenate([getattr(part, name) for part in parts]) if parts else np.zeros(0)

    state = join("state") if parts else np.zeros((0, num_states))
    return Solution(
        state,
        join("residual"),
        join("status"),
        join("steps"),
        join("evaluations"),
        np.zeros((len(state), 0)),
        sum((part.cost for part in parts), Cost()),
    )
