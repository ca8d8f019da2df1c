"""Iterates any solver on a minibatch: converged samples drop out, every sample stops by itself, the best iterate stays."""

from __future__ import annotations

from typing import Any

import numpy as np

from qiskit_qdeq.equilibrium.evaluating import evaluate_finite
from qiskit_qdeq.equilibrium.noise import within_noise
from qiskit_qdeq.equilibrium.solution import Solution, Status
from qiskit_qdeq.equilibrium.solvers import SHRINK, Broyden, Memory, Solver
from qiskit_qdeq.evaluation.protocol import Cost, RootProblem

Array = np.ndarray[Any, np.dtype[Any]]


class Iteration:
    """The working arrays of one solve. `rows` are the samples still iterated, and index all per-sample results."""

    def __init__(self, problem: RootProblem, solver: Solver, state: Array, keep_inverse: bool = False) -> None:
        self.problem, self.solver = problem, solver
        batch = len(state)
        self.rows = np.arange(batch)
        self.state = state
        self.best = state.copy()
        self.best_residual = np.full(batch, np.inf)
        self.status = np.full(batch, int(Status.MAX_STEPS))
        self.steps = np.zeros(batch, dtype=np.int64)
        self.evaluations = np.zeros(batch, dtype=np.int64)
        self.trace = [np.full(batch, np.nan)]
        self.cost = Cost()
        #: Standard errors (b, K) of the latest values of `rows`, None if these are exact.
        self.errors: Array | None = None
        #: Sum and number of the states averaged at the noise floor.
        self.tail = np.zeros_like(self.best)
        self.within = np.zeros(batch, dtype=np.int64)
        size = state.shape[1]
        self.inverse = np.zeros((batch, size, size)) if keep_inverse and isinstance(solver, Broyden) else None

    def run(self) -> Solution:
        """Take steps until every sample has stopped."""
        with_jacobian = self.solver.needs_jacobian or (
            isinstance(self.solver, Broyden) and self.solver.starts_with_jacobian
        )
        residuals, jacobian = self._evaluate(self.state, self.rows, with_jacobian)
        memory = self.solver.start(residuals, jacobian)
        residuals, jacobian = self._record(memory, residuals, jacobian)
        for _ in range(self.solver.max_steps):
            if not len(self.rows):
                break
            before = residuals
            step = self.solver.propose(memory, residuals, jacobian)
            residuals, jacobian, step = self._move(step, residuals)
            # from a residual that was mere noise nothing is learnt
            known = (self.within[self.rows] == 0)[:, None]
            self.solver.update(memory, known * step, known * (residuals - before))
            moved = self.status[self.rows] != Status.STALLED
            self.trace.append(np.full(len(self.best), np.nan))
            self.steps[self.rows[moved]] += 1
            residuals, jacobian = self._record(memory, residuals, jacobian)
        self._keep(memory, np.arange(len(self.rows)))
        return Solution(
            self.best,
            self.best_residual,
            self.status,
            self.steps,
            self.evaluations,
            np.stack(self.trace, axis=1),
            self.cost,
            self.inverse,
        )

    def _evaluate(self, state: Array, rows: Array, with_jacobian: bool) -> tuple[Array, Array | None]:
        """g and, if asked for, J at `state` for the samples `rows`."""
        evaluation, jacobian = evaluate_finite(self.problem, state, rows, with_jacobian)
        self.cost += evaluation.cost
        self.errors = evaluation.std_errors
        np.add.at(self.evaluations, rows, 1)
        return evaluation.values - state, jacobian

    def _move(self, step: Array, residuals: Array) -> tuple[Array, Array | None, Array]:
        """Take the step, shortened for samples whose residual it would not lower (if the solver shortens at all)."""
        start, trial = self.state, self.state + step
        fresh, jacobian = self._evaluate(trial, self.rows, self.solver.needs_jacobian)
        # noise alone raises half of all residuals, and a shorter step would be no remedy
        if self.solver.shortenings and self.errors is None:
            before = np.linalg.norm(residuals, axis=1)
            worse = np.flatnonzero(~_lowers(np.linalg.norm(fresh, axis=1), before, 1.0))
            if len(worse):
                self._shorten(worse, step, residuals, trial, fresh, jacobian)
        self.state = trial
        return fresh, jacobian, trial - start

    def _shorten(
        self, worse: Array, step: Array, residuals: Array, trial: Array, fresh: Array, jacobian: Array | None
    ) -> None:
        """Try all shorter steps of the samples `worse` in one evaluation and take the longest that lowers the residual."""
        lengths = SHRINK ** np.arange(1, self.solver.shortenings + 1)
        count, size = len(lengths), step.shape[1]
        states = self.state[worse, None] + lengths[:, None] * step[worse, None]
        found, slopes = self._evaluate(states.reshape(-1, size), np.repeat(self.rows[worse], count), True)
        found = found.reshape(len(worse), count, size)
        before = np.linalg.norm(residuals[worse], axis=1)[:, None]
        accepted = _lowers(np.linalg.norm(found, axis=2), before, lengths)
        for i, sample in enumerate(worse):
            if accepted[i].any():
                choice = int(accepted[i].argmax())
                trial[sample], fresh[sample] = states[i, choice], found[i, choice]
                if jacobian is not None and slopes is not None:
                    jacobian[sample] = slopes[i * count + choice]
            elif np.isfinite(fresh[sample]).all():
                self.status[self.rows[sample]] = Status.STALLED
                trial[sample], fresh[sample] = self.state[sample], residuals[sample]

    def _record(self, memory: Memory, residuals: Array, jacobian: Array | None) -> tuple[Array, Array | None]:
        """Book the current residuals and drop samples that are done."""
        norms = np.linalg.norm(residuals, axis=1)
        moved = self.status[self.rows] != Status.STALLED
        self.trace[-1][self.rows[moved]] = norms[moved]
        better = norms < self.best_residual[self.rows]
        improved = self.rows[better]
        self.best[improved] = self.state[better]
        self.best_residual[improved] = norms[better]
        scale = np.linalg.norm(residuals + self.state, axis=1)
        finite = np.isfinite(norms)
        converged = finite & (norms <= np.maximum(self.solver.tol, self.solver.rtol * scale))
        self.status[self.rows[converged]] = Status.CONVERGED
        self.status[self.rows[~finite]] = Status.NOT_FINITE
        done = converged | ~finite | (self.status[self.rows] == Status.STALLED)
        if self.errors is not None:
            done |= self._at_noise_floor(memory, residuals, jacobian, done)
            self.errors = self.errors[~done]
        if not done.any():
            return residuals, jacobian
        self._keep(memory, np.flatnonzero(done))
        left = ~done
        self.rows, self.state = self.rows[left], self.state[left]
        for name in memory:
            memory[name] = memory[name][left]
        return residuals[left], None if jacobian is None else jacobian[left]

    def _at_noise_floor(self, memory: Memory, residuals: Array, jacobian: Array | None, done: Array) -> Array:
        """Book samples whose residual is mere noise; which of them are done. The last state stands, not the luckiest."""
        within = within_noise(residuals, self.errors, self.solver.confidence) & ~done
        rows = self.rows[within]
        self.within[rows] += 1
        moved = self.solver.propose(memory, residuals, jacobian) if self.solver.averaging > 1 else 0
        self.tail[rows] += (self.state + moved)[within]
        finished = within & (self.within[self.rows] >= self.solver.averaging)
        rows = self.rows[finished]
        self.best[rows] = self.tail[rows] / self.within[rows, None]
        self.best_residual[rows] = np.linalg.norm(residuals[finished], axis=1)
        self.status[rows] = Status.NOISE_FLOOR
        return finished

    def _keep(self, memory: Memory, finished: Array) -> None:
        if self.inverse is not None and "inverse" in memory:
            self.inverse[self.rows[finished]] = memory["inverse"][finished]


def _lowers(norms: Array, before: Array, lengths: Array | float) -> Array:
    """Whether residuals are lower by more than rounding; False for NaN."""
    result: Array = norms <= (1 - 1e-4 * np.asarray(lengths)) * before
    return result
