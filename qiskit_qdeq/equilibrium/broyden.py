"""Broyden on samples of a minibatch: compiled where a closed form of the map offers it, else by the general loop."""

from __future__ import annotations

from typing import Any

import numpy as np

from qiskit_qdeq.equilibrium.iteration import Iteration
from qiskit_qdeq.equilibrium.solution import Solution
from qiskit_qdeq.equilibrium.solvers import Broyden
from qiskit_qdeq.evaluation.protocol import Evaluation, RootProblem

Array = np.ndarray[Any, np.dtype[Any]]


def solve_with_broyden(
    problem: Any, solver: Broyden, state: Array, rows: Array, *, keep_inverse: bool = False, keep_trace: bool = True
) -> Solution:
    """Solve the samples `rows` of a problem from `state` (b, K), which is overwritten."""
    form: Any = problem.closed_form if hasattr(type(problem), "closed_form") else None
    if solver.starts_with_jacobian or not hasattr(form, "broyden"):
        return Iteration(Samples(problem, rows), solver, state, keep_inverse).run()
    found = form.broyden(rows, state, solver.tol, solver.rtol, solver.max_steps, keep_trace, keep_inverse)
    return Solution(
        state, found.residual, found.status, found.steps, found.evaluations, found.trace, inverse=found.inverse
    )


class Samples:
    """Some samples of a minibatch as a minibatch of their own."""

    def __init__(self, problem: RootProblem, rows: Array) -> None:
        self._problem, self._rows = problem, rows
        self.batch, self.num_states = len(rows), problem.num_states

    def values(self, state: Array, rows: Array) -> Evaluation:
        """m of some of the samples."""
        return self._problem.values(state, self._rows[rows])

    def linearize(self, state: Array, rows: Array) -> tuple[Evaluation, Array]:
        """m and ∂m/∂q of some of the samples."""
        return self._problem.linearize(state, self._rows[rows])
