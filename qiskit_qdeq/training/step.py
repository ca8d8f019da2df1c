"""Loss and gradient of one minibatch, through the equilibrium or through explicit layers.

implicit   q* solves q = m(x + P q);  ḡ = (∂h/∂q)ᵀ ∂L/∂h;  λ = (1 - Jᵀ)⁻¹ ḡ;
           dL/dθ = Σ_b λᵀ ∂m/∂θ + (∂L/∂h)ᵀ ∂h/∂θ,  one adjoint pass                       (DESIGN section 7);
           λ = ḡ for a sample left far from any equilibrium, see `Backward.residual_limit`
direct     L layers from zero and the gradient through all of them
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from qiskit_qdeq.equilibrium.driver import direct_state, solve
from qiskit_qdeq.equilibrium.solution import Solution
from qiskit_qdeq.evaluation.protocol import Cost, EquilibriumMap, EvaluationPoint
from qiskit_qdeq.gradient.direct import direct_pass
from qiskit_qdeq.gradient.implicit import implicit_term
from qiskit_qdeq.losses import loss_and_slope
from qiskit_qdeq.model import QDEQModel
from qiskit_qdeq.training.config import TrainingConfig

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class StepResult:
    """What one minibatch gave.

    Attributes:
        loss: mean loss, without the penalty.
        penalty: Jacobian regularization added to it.
        correct: samples classified right (with dropout, if there is any); None where the loss compares numbers.
        gradient: ∂(loss + penalty)/∂parameters, flat.
        solution: the forward solve, None in direct mode.
        cost: circuits, shots, jobs.
    """

    loss: float
    penalty: float
    correct: int | None
    gradient: Array
    solution: Solution | None
    cost: Cost


def training_step(
    model: QDEQModel,
    parameters: Array,
    inputs: Array,
    targets: Array,
    config: TrainingConfig,
    *,
    direct: bool,
    initial: Array | None,
    rng: Callable[[], np.random.Generator],
) -> StepResult:
    """Loss and gradient of a minibatch.

    Args:
        model: the structure.
        parameters: θ, W, b, flat.
        inputs: prepared x (B, D).
        targets: labels (B,), or targets (B, C) of loss "squared_error".
        config: the run.
        direct: explicit layers instead of the equilibrium.
        initial: first iterate (B, K) or None.
        rng: makes the generator of this step's dropout and Hutchinson noise; called only where there is any.
    """
    weights, _, _ = model.split(parameters)
    expect = ("gradient",) if direct else ("jacobian", "gradient")
    problem = model.evaluator.bind(weights).map(inputs, expect)
    noise = rng() if config.dropout or config.regularization.kind == "hutchinson" else None
    mask = model.readout.dropout_mask(len(inputs), config.dropout, noise, parameters.dtype)
    if direct:
        layers = direct_pass(problem, config.layers)
        head = _Head(model, parameters, layers.last, targets, mask, config.loss)
        terms = layers.terms(head.feature_cotangent)
        penalty, solution = 0.0, None
    else:
        if hasattr(problem, "foresee"):
            problem.foresee = lambda point: implicit_term(
                point, _Head(model, parameters, point, targets, mask, config.loss).feature_cotangent, config.backward
            )
        solution = _equilibrium(problem, config, initial)
        point = problem.at(solution.state)
        head = _Head(model, parameters, point, targets, mask, config.loss)
        terms = [implicit_term(point, head.feature_cotangent, config.backward, solution)]
        penalty = 0.0
        if config.regularization.active:
            penalty, term = config.regularization.penalty(point, model.injection, noise)
            terms.append(term)
    gradient = np.concatenate([problem.pull_back(terms), head.gradient])
    return StepResult(head.loss, penalty, head.correct, gradient, solution, problem.cost)


def _equilibrium(problem: EquilibriumMap, config: TrainingConfig, initial: Array | None) -> Solution:
    if initial is None and config.start == "direct":
        initial = direct_state(problem, config.layers)
    # unconverged samples are counted in the history; a run is not stopped by a few of them
    return solve(
        problem,
        config.solver,
        initial,
        on_failure="accept",
        keep_inverse=config.backward.mode == "shine",
        keep_trace=False,
    )


class _Head:
    """Readout and loss at a point, with the derivatives with respect to h, W and b."""

    def __init__(
        self,
        model: QDEQModel,
        parameters: Array,
        point: EvaluationPoint,
        targets: Array,
        mask: Array | None,
        loss: str,
    ) -> None:
        _, matrix, bias = model.split(parameters)
        activated = model.readout.activate(point.features, mask)
        logits = activated @ matrix.T + bias
        self.loss, slope, self.correct = loss_and_slope(loss, logits, targets)
        self.gradient = model.readout.gradient(slope, activated)
        self.feature_cotangent = model.readout.pull_back(slope @ matrix, activated, mask).astype(
            point.features.dtype, copy=False
        )
