"""Solving on the probed map: the equilibrium and its Jacobian are classical once the map has been measured.

    q_0 solves q = m̂(q) on the map from the probes;  g = m(q_0) - q_0 is measured;  q_1 = q_0 + (1 - Ĵ)⁻¹ g     (chord step)

The chord step removes what noise inside the encoder makes the map miss. q_0 is about as noisy as one measurement, so that g
has twice its variance; where g is no more than that, q_0 and q_1 are two equally good estimates and their mean is taken. A
state that is the mean of c estimates takes 1/(c + 1) of a step to the next (measured: docs/estimators.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from qiskit_qdeq.equilibrium.noise import within_noise
from qiskit_qdeq.equilibrium.solution import Solution, Status
from qiskit_qdeq.equilibrium.solvers import Newton, Solver, solve_linear
from qiskit_qdeq.evaluation.protocol import Evaluation
from qiskit_qdeq.exceptions import InputError

Array = np.ndarray[Any, np.dtype[Any]]

#: A longer correction has left the region where the probed Jacobian means anything.
_LARGEST_STEP = 0.5


@dataclass(frozen=True)
class Probe(Solver):
    """Measure the whole map of amplitude encoding, solve it classically, and correct by the measured residual.

    K + 1 circuits a sample and K(K+1)/2 shared by the batch give the map and its Jacobian; each correction measures one more
    circuit a sample. On an exact simulator this is `Newton`. `residual` of the solution is what was measured before the last
    correction.

    Args:
        tol, rtol, confidence: see `Solver`.
        max_steps: Newton steps on the probed map.
        corrections: measured chord steps; 0 measures the residual and keeps the state.
    """

    name: ClassVar[str] = "probe"

    corrections: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.corrections, bool) or not isinstance(self.corrections, int) or self.corrections < 0:
            raise InputError(f"corrections must be an integer >= 0, got {self.corrections!r}")

    @property
    def newton(self) -> Newton:
        """The solver of the probed map."""
        return Newton(tol=self.tol, rtol=self.rtol, max_steps=self.max_steps)


def solve_with_probe(problem: Any, solver: Probe, state: Array, solve: Any) -> Solution:
    """Solve on the probed map of `problem` and correct; `solve` is the driver's, for the probed map."""
    before = problem.cost
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        probed = problem.probe()
        found = solve(probed, solver.newton, state, on_failure="accept")
    # a map made of noisy values may have its root outside the range of the observables, where no circuit was measured
    state, rows = np.clip(found.state, -1, 1), np.arange(len(found.state))
    estimates = np.ones(len(rows))
    for _ in range(solver.corrections - 1):
        step, _, noise = _chord(probed, state, problem.values(state, rows), estimates, solver)
        state, estimates = state + step, np.where(noise, estimates + 1, 1)
    point = problem.at(state)
    step, residuals, noise = _chord(probed, state, point.evaluation, estimates, solver)
    if solver.corrections:
        state = state + step
        problem.correct(point, state)
    norms = np.linalg.norm(residuals, axis=1)
    scale = np.linalg.norm(point.values, axis=1)
    small = np.linalg.norm(step, axis=1) <= _LARGEST_STEP
    status = np.full(len(rows), int(Status.MAX_STEPS))
    if solver.corrections:
        status[small & found.converged] = int(Status.CORRECTED)
    status[noise] = int(Status.NOISE_FLOOR)
    status[norms <= np.maximum(solver.tol, solver.rtol * scale)] = int(Status.CONVERGED)
    status[~np.isfinite(norms)] = int(Status.NOT_FINITE)
    evaluations = np.full(len(rows), state.shape[1] + 1 + max(1, solver.corrections))
    return Solution(state, norms, status, found.steps, evaluations, norms[:, None], problem.cost - before)


def _chord(
    probed: Any, state: Array, evaluation: Evaluation, estimates: Array, solver: Probe
) -> tuple[Array, Array, Array]:
    """The chord step from measured values, their residuals, and which of these are mere noise.

    `estimates` (b,): of how many estimates each state is the mean.
    """
    residuals = evaluation.values - state
    slopes = probed.linearize(state, np.arange(len(state)))[1]
    step = solve_linear(np.eye(state.shape[1]) - slopes, residuals)
    errors = evaluation.std_errors
    if errors is not None:
        errors = errors * np.sqrt(1 + 1 / estimates)[:, None]
    noise = within_noise(residuals, errors, solver.confidence)
    step[noise] /= 1 + estimates[noise, None]
    step[~np.isfinite(step).all(axis=1)] = 0
    return step, residuals, noise
