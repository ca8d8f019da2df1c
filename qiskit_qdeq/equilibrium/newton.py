"""Newton's method on a minibatch, and the way round for samples it leaves at a minimum of ‖g‖ that is no equilibrium.

Where the map is far from a contraction ‖g‖ has such minima, and no step along a Newton direction leaves them. Broyden,
which has no line search, does: it starts where Newton started, and where it comes close Newton finishes. Of the samples
Newton leaves, 97 to 100 % are solved so, at about 20 evaluations each (amplitude, angle and ZZ-feature-map encoders,
state_scale 0.3 to 2); Broyden from Newton's last iterate, Anderson, damped Picard and Newton from other starts each found
fewer or took longer.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from qiskit_qdeq.equilibrium.broyden import Samples, solve_with_broyden
from qiskit_qdeq.equilibrium.iteration import Iteration
from qiskit_qdeq.equilibrium.solution import Solution, Status
from qiskit_qdeq.equilibrium.solvers import Broyden, Newton
from qiskit_qdeq.evaluation.protocol import RootProblem

Array = np.ndarray[Any, np.dtype[Any]]

#: Residual at which Newton takes over from Broyden: it then needs two or three steps to any tolerance.
_CLOSE = 1e-3
#: Residual below which a sample without a better step is held up by rounding (float32), not by a minimum.
_ROUNDING = 1e-5


def solve_with_newton(problem: RootProblem, solver: Newton, state: Array, keep_trace: bool) -> Solution:
    """Solve from `state` (B, K), which is overwritten; every sample is treated by itself."""
    start = state.copy()
    found = _newton(problem, solver, state, keep_trace)
    if not (solver.rescue_steps and np.count_nonzero(found.status)):
        return found
    stuck = (found.status == Status.STALLED) | (found.status == Status.NOT_FINITE)
    rows = np.flatnonzero(stuck & (found.residual > _ROUNDING) & np.isfinite(found.residual))
    return _rescue(problem, solver, start, found, rows, keep_trace) if len(rows) else found


def _newton(problem: Any, solver: Newton, state: Array, keep_trace: bool) -> Solution:
    if not hasattr(type(problem), "closed_form"):
        return Iteration(problem, solver, state).run()
    # compiled; no circuit is run beyond what the map already did
    found = problem.closed_form.newton(state, solver.tol, solver.rtol, solver.max_steps, solver.shortenings, keep_trace)
    problem.remember(state, found)
    return Solution(state, found.residual, found.status, found.steps, found.evaluations, found.trace)


def _rescue(
    problem: RootProblem, solver: Newton, start: Array, found: Solution, rows: Array, keep_trace: bool
) -> Solution:
    """`found`, continued for the samples `rows` by Broyden from `start` and, where that comes closer, by Newton."""
    broyden = Broyden(max(solver.tol, _CLOSE), solver.rtol, solver.rescue_steps)
    near = solve_with_broyden(problem, broyden, start[rows], rows, keep_trace=keep_trace)
    closer = near.residual < found.residual[rows]
    moved = rows[closer]
    steps, evaluations = found.steps.copy(), found.evaluations.copy()
    steps[rows] += near.steps
    evaluations[rows] += near.evaluations
    state, residual, status = found.state, found.residual.copy(), found.status.copy()
    cost, traces = found.cost + near.cost, [(rows, near.trace)]
    if len(moved):
        state = found.state.copy()
        state[moved] = near.state[closer]
        if hasattr(type(problem), "closed_form"):
            # every sample once more, those already solved stay: what the map remembers has to be of one state
            last = _take(_newton(problem, solver, state, keep_trace), moved)
        else:
            last = _newton(Samples(problem, moved), solver, state[moved], keep_trace)
            state[moved] = last.state
        steps[moved] += last.steps
        evaluations[moved] += last.evaluations
        residual[moved], status[moved] = last.residual, last.status
        cost += last.cost
        traces.append((moved, last.trace))
    trace = _continued(found.trace, traces) if found.trace.shape[1] else found.trace
    return Solution(state, residual, status, steps, evaluations, trace, cost)


def _take(found: Solution, rows: Array) -> Solution:
    return Solution(
        found.state[rows],
        found.residual[rows],
        found.status[rows],
        found.steps[rows],
        found.evaluations[rows],
        found.trace[rows],
    )


def _continued(trace: Array, later: list[tuple[Array, Array]]) -> Array:
    """Residuals (B, S + 1) with those of later solves of some samples behind; each begins at a state already booked."""
    width = trace.shape[1] + sum(more.shape[1] - 1 for _, more in later)
    result = np.full((len(trace), width), np.nan)
    result[:, : trace.shape[1]] = trace
    length = np.count_nonzero(~np.isnan(trace), axis=1)
    for rows, more in later:
        for row, residuals in zip(rows, more, strict=True):
            booked = residuals[1:][~np.isnan(residuals[1:])]
            result[row, length[row] : length[row] + len(booked)] = booked
            length[row] += len(booked)
    return result[:, : max(1, length.max())]
