"""What a model answers and how noise changes it: accuracy, residual, bias of its expectation values, gradient.

residual    ‖m'(q) - m(q)‖₂ at the noiseless model's own last input state q, m' the noisy map, mean over samples: of an
            equilibrium model, for which m(q*) = q*, the residual of the noiseless z* under the noisy map
bias        mean |z'_j - z_j| of the values that feed or would feed the state: z* of an equilibrium model, the finally
            measured <Z_j> of the others
cosine      <g', g> / (‖g'‖ ‖g‖) of the gradients of the training loss of one minibatch, all parameters
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from qiskit_qdeq.equilibrium.driver import solve
from qiskit_qdeq.equilibrium.solvers import Solver
from qiskit_qdeq.evaluation.protocol import Cost
from qiskit_qdeq.evaluation.threads import compute_context
from qiskit_qdeq.gradient.direct import direct_pass
from qiskit_qdeq.gradient.regularization import Regularization
from qiskit_qdeq.losses import loss_and_slope
from qiskit_qdeq.model import QDEQModel
from qiskit_qdeq.studies.noise.models import StudyModel
from qiskit_qdeq.training.step import training_step

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Response:
    """What a model says about N labelled samples.

    Attributes:
        state: the state fed into the last evaluation (N, K).
        values: z* of an equilibrium model, else the last measured values of the state observables (N, K).
        accuracy, loss: of the labels.
        unconverged: share of samples without an equilibrium; 0 of explicit layers.
        cost: circuits, shots, jobs.
    """

    state: Array
    values: Array
    accuracy: float
    loss: float
    unconverged: float
    cost: Cost


def respond(
    model: QDEQModel, parameters: Array, inputs: Array, labels: Array, solver: Solver | None, layers: int
) -> Response:
    """Ask a model, exact, noisy or measured.

    Args:
        model: evaluates the circuits.
        parameters: θ, W, b, flat.
        inputs: what `model.prepare` returned (N, D).
        labels: (N,).
        solver: for the equilibrium; None: `layers` explicit layers.
        layers: L.
    """
    weights, matrix, bias = model.split(parameters)
    with compute_context():
        problem = model.evaluator.bind(weights).map(inputs)
        if solver is None:
            point, unconverged = direct_pass(problem, layers).last, 0.0
            values = point.values
        else:
            solution = solve(problem, solver, on_failure="accept")
            point, unconverged = problem.at(solution.state), float(np.mean(~solution.converged))
            values = solution.state
        logits = model.readout.activate(point.features) @ matrix.T + bias
    loss, _, correct = loss_and_slope("cross_entropy", logits, labels)
    return Response(point.state, values, (correct or 0) / len(labels), loss, unconverged, problem.cost)


def residual(noisy: QDEQModel, clean: QDEQModel, parameters: Array, inputs: Array, state: Array) -> float:
    """‖m'(q) - m(q)‖₂ at `state` (N, K), mean over samples."""
    weights = clean.split(parameters)[0]
    with compute_context():
        first, second = (model.evaluator.bind(weights).map(inputs).at(state).values for model in (noisy, clean))
    return float(np.linalg.norm(first - second, axis=1).mean())


def gradient(model: QDEQModel, study: StudyModel, parameters: Array, inputs: Array, labels: Array) -> Array:
    """Of the loss of a minibatch with respect to all parameters, without dropout and penalty."""
    config = replace(study.config, dropout=0.0, regularization=Regularization())
    with compute_context():
        found = training_step(
            model,
            parameters,
            inputs,
            labels,
            config,
            direct=study.solver is None,
            initial=None,
            rng=np.random.default_rng,
        )
    return found.gradient


def cosine(first: Array, second: Array) -> float | None:
    """Of the angle between two gradients; None where one of them is zero or not finite."""
    length = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float(first @ second / length) if np.isfinite(length) and length > 0 else None
