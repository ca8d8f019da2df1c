"""Solves a minibatch for its equilibria by any solver: checks the start, chooses the loop, judges the result."""

from __future__ import annotations

from typing import Any

import numpy as np

from qiskit_qdeq.equilibrium.broyden import solve_with_broyden
from qiskit_qdeq.equilibrium.iteration import Iteration
from qiskit_qdeq.equilibrium.newton import solve_with_newton
from qiskit_qdeq.equilibrium.probe import Probe, solve_with_probe
from qiskit_qdeq.equilibrium.scipy_root import ScipyRoot, solve_with_scipy
from qiskit_qdeq.equilibrium.solution import Solution
from qiskit_qdeq.equilibrium.solvers import Broyden, Newton, Solver
from qiskit_qdeq.equilibrium.solvers import solver as make_solver
from qiskit_qdeq.evaluation.protocol import RootProblem
from qiskit_qdeq.exceptions import InputError

Array = np.ndarray[Any, np.dtype[Any]]


def solve(
    problem: RootProblem,
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
    chosen: Solver = solver if isinstance(solver, Solver) else make_solver(solver)
    shape = (problem.batch, problem.num_states)
    state = np.zeros(shape) if initial is None else _checked(initial, shape)
    if problem.batch == 0:
        none = np.zeros(0, dtype=np.int64)
        return Solution(state, np.zeros(0), none, none, none, np.zeros((0, 1)))
    if isinstance(chosen, ScipyRoot):
        return solve_with_scipy(problem, chosen, state).check(on_failure)
    if isinstance(chosen, Probe):
        if hasattr(type(problem), "probe"):
            return solve_with_probe(problem, chosen, state, solve).check(on_failure)
        chosen = chosen.newton
    if isinstance(chosen, Newton):
        return solve_with_newton(problem, chosen, state, keep_trace).check(on_failure)
    if isinstance(chosen, Broyden):
        rows = np.arange(problem.batch)
        found = solve_with_broyden(problem, chosen, state, rows, keep_inverse=keep_inverse, keep_trace=keep_trace)
        return found.check(on_failure)
    return Iteration(problem, chosen, state, keep_inverse).run().check(on_failure)


def _checked(initial: Array, shape: tuple[int, int]) -> Array:
    state = np.array(initial, dtype=float)
    if state.shape != shape:
        raise InputError(f"initial state must have shape (batch, num_states) = {shape}, got {state.shape}")
    if not np.isfinite(state).all():
        row = int(np.flatnonzero(~np.isfinite(state).all(axis=1))[0])
        raise InputError(f"initial state of sample {row} is not finite")
    return state


def direct_state(problem: RootProblem, layers: int, initial: Array | None = None) -> Array:
    """The state after `layers` explicit applications of the map, from zeros: DIRECT-L, also a start for a solver."""
    state = np.zeros((problem.batch, problem.num_states)) if initial is None else initial
    rows = np.arange(problem.batch)
    for _ in range(layers):
        state = problem.values(state, rows).values
    return state
