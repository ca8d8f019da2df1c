"""Iterates any solver on a minibatch: converged samples drop out, every sample stops by itself, the best iterate stays."""

from __future__ import annotations

from typing import Any

import numpy as np

from qiskit_qdeq.equilibrium.scipy_root import ScipyRoot, solve_with_scipy
from qiskit_qdeq.equilibrium.solution import Solution, Status
from qiskit_qdeq.equilibrium.solvers import SHRINK, Broyden, Memory, Newton, Solver
from qiskit_qdeq.equilibrium.solvers import solver as make_solver
from qiskit_qdeq.evaluation.protocol import Cost, EquilibriumMap
from qiskit_qdeq.exceptions import InputError

Array = np.ndarray[Any, np.dtype[Any]]


def solve(
    problem: EquilibriumMap,
    solver: Solver | str,
    initial: Array | None = None,
    on_failure: str = "warn",
    keep_inverse: bool = False,
    keep_trace: bool = True,
) -> Solution:
    """Solve q = m(x + P q) for every sample of a minibatch.

    Args:
        problem: the map of the minibatch.
        solver: hyper-parameters, or a solver's name, see `solvers.solver`.
        initial: first iterate (B, K); zeros if None.
        on_failure: "raise", "warn" or "accept" samples that do not reach the tolerance.
        keep_inverse: return the quasi-Newton inverse that `shine` needs.
        keep_trace: return the residual after every step; False spares a compiled solve the memory.

    Raises:
        ConvergenceError: with `on_failure="raise"`.
        InputError: for an initial state of another shape or with entries that are not finite.
    """
    chosen: Solver = make_solver(solver)
    shape = (problem.batch, problem.num_states)
    state = np.zeros(shape) if initial is None else _checked(initial, shape)
    if problem.batch == 0:
        none = np.zeros(0, dtype=np.int64)
        return Solution(state, np.zeros(0), none, none, none, np.zeros((0, 1)))
    if isinstance(chosen, ScipyRoot):
        return solve_with_scipy(problem, chosen, state).check(on_failure)
    if isinstance(chosen, Newton) and hasattr(type(problem), "quadratic"):
        return _solve_closed_form(problem, chosen, state, keep_trace).check(on_failure)
    return _Iteration(problem, chosen, state, keep_inverse).run().check(on_failure)


def _checked(initial: Array, shape: tuple[int, int]) -> Array:
    state = np.array(initial, dtype=float)
    if state.shape != shape:
        raise InputError(f"initial state must have shape (batch, num_states) = {shape}, got {state.shape}")
    if not np.isfinite(state).all():
        row = int(np.flatnonzero(~np.isfinite(state).all(axis=1))[0])
        raise InputError(f"initial state of sample {row} is not finite")
    return state


def direct_state(problem: EquilibriumMap, layers: int, initial: Array | None = None) -> Array:
    """The state after `layers` explicit applications of the map, from zeros: DIRECT-L, also a start for a solver."""
    state = np.zeros((problem.batch, problem.num_states)) if initial is None else initial
    rows = np.arange(problem.batch)
    for _ in range(layers):
        state = problem.values(state, rows).values
    return state


def _solve_closed_form(problem: Any, solver: Newton, state: Array, keep_trace: bool) -> Solution:
    """Newton on the ratio of quadratics, compiled; no circuit is run beyond what the map already did."""
    found = problem.quadratic.newton(state, solver.tol, solver.rtol, solver.max_steps, solver.shortenings, keep_trace)
    problem.remember(state, found)
    return Solution(state, found.residual, found.status, found.steps, found.evaluations, found.trace)


class _Iteration:
    """The working arrays of one solve. `rows` are the samples still iterated, and index all per-sample results."""

    def __init__(self, problem: EquilibriumMap, solver: Solver, state: Array, keep_inverse: bool) -> None:
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
        size = state.shape[1]
        self.inverse = np.zeros((batch, size, size)) if keep_inverse and isinstance(solver, Broyden) else None

    def run(self) -> Solution:
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
            self.solver.update(memory, step, residuals - before)
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
        jacobian = None
        if with_jacobian:
            evaluation, jacobian = self.problem.linearize(state, rows)
        else:
            evaluation = self.problem.values(state, rows)
        self.cost += evaluation.cost
        np.add.at(self.evaluations, rows, 1)
        return evaluation.values - state, jacobian

    def _move(self, step: Array, residuals: Array) -> tuple[Array, Array | None, Array]:
        """Take the step, shortened for samples whose residual it would not lower (if the solver shortens at all)."""
        start, trial = self.state, self.state + step
        fresh, jacobian = self._evaluate(trial, self.rows, self.solver.needs_jacobian)
        if self.solver.shortenings:
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
        if not done.any():
            return residuals, jacobian
        self._keep(memory, np.flatnonzero(done))
        left = ~done
        self.rows, self.state = self.rows[left], self.state[left]
        for name in memory:
            memory[name] = memory[name][left]
        return residuals[left], None if jacobian is None else jacobian[left]

    def _keep(self, memory: Memory, finished: Array) -> None:
        if self.inverse is not None and "inverse" in memory:
            self.inverse[self.rows[finished]] = memory["inverse"][finished]


def _lowers(norms: Array, before: Array, lengths: Array | float) -> Array:
    """Whether residuals are lower by more than rounding; False for NaN."""
    result: Array = norms <= (1 - 1e-4 * np.asarray(lengths)) * before
    return result
