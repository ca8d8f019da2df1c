"""Solving on the probed map: the equilibrium and its Jacobian are classical once the map has been measured.

    q_0 solves q = m̂(q) on the map from the probes;  g = m(q_0) - q_0 is measured;  q_1 = q_0 + (1 - Ĵ)⁻¹ g     (chord step)

The chord step removes what noise inside the encoder makes the map miss. But q_0 and q_1 are about equally noisy, so where
g is mere shot noise their mean is better than either. A state that is the mean of c estimates takes the share

    w = 1 - c / (c + 1) · min(1, K / Σ_j (g_j / σ_j)²),        σ² = (1 + 1/c) times the variance of one measurement

of the step: 1/(c + 1) within noise, all of it far above, as the variance that g shows demands. It counts for 1/w estimates
then (measured: docs/estimators.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from qiskit_qdeq.equilibrium.noise import noise_distance, within_noise
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
        ahead: in training, probe the next minibatch in the job of this one's gradient: one job a step instead of two. The
            map is then one update of the weights old; what that changes of the state the correction takes back, of the
            Jacobian it stays (measured: docs/economy.md).
    """

    name: ClassVar[str] = "probe"

    corrections: int = 1
    ahead: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.corrections, bool) or not isinstance(self.corrections, int) or self.corrections < 0:
            raise InputError(f"corrections must be an integer >= 0, got {self.corrections!r}")
        if not isinstance(self.ahead, bool):
            raise InputError(f"ahead must be True or False, got {self.ahead!r}")
        if self.ahead and not self.corrections:
            raise InputError("ahead=True needs corrections of at least 1: the map is older than the weights")

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
        step, share, _ = _chord(probed, state, problem.values(state, rows), estimates)
        state, estimates = state + step, 1 / share
    point = problem.at(state)
    evaluation = point.evaluation
    residuals = evaluation.values - state
    step, _, errors = _chord(probed, state, evaluation, estimates)
    noise = within_noise(residuals, errors, solver.confidence)
    if solver.corrections:
        state = state + step
    # what was measured serves the readout, here or a step further
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


def _chord(probed: Any, state: Array, evaluation: Evaluation, estimates: Array) -> tuple[Array, Array, Array | None]:
    """The share of the chord step to be taken (b, K), that share w (b,), and the errors σ of the residuals.

    `estimates` (b,): of how many estimates each state is the mean.
    """
    residuals, size = evaluation.values - state, state.shape[1]
    slopes = probed.linearize(state, np.arange(len(state)))[1]
    step = solve_linear(np.eye(size) - slopes, residuals)
    step[~np.isfinite(step).all(axis=1)] = 0
    errors = evaluation.std_errors
    if errors is not None:
        errors = errors * np.sqrt(1 + 1 / estimates)[:, None]
    share = 1 - estimates / (estimates + 1) * (size / np.fmax(noise_distance(residuals, errors), size))
    return step * share[:, None], share, errors
