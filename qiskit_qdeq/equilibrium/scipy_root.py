"""Every method of `scipy.optimize.root` on the per-sample systems, evaluations of one round gathered into one batch.

SciPy solves one system at a time and asks for one function value at a time. Each sample's solver runs in a thread of its
own that blocks on its request; once all running solvers wait, their requests are answered by one evaluator call.
"""

from __future__ import annotations

import threading
import warnings
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from scipy import optimize

from qiskit_qdeq.equilibrium.evaluating import evaluate_finite
from qiskit_qdeq.equilibrium.noise import within_noise
from qiskit_qdeq.equilibrium.solution import Solution, Status
from qiskit_qdeq.equilibrium.solvers import Solver
from qiskit_qdeq.evaluation.protocol import Cost, RootProblem
from qiskit_qdeq.exceptions import InputError

Array = np.ndarray[Any, np.dtype[Any]]

METHODS = (
    "hybr",
    "lm",
    "broyden1",
    "broyden2",
    "anderson",
    "linearmixing",
    "diagbroyden",
    "excitingmixing",
    "krylov",
    "df-sane",
)
_WITH_JACOBIAN = frozenset({"hybr", "lm"})


@dataclass(frozen=True)
class ScipyRoot(Solver):
    """A method of `scipy.optimize.root`; `max_steps` limits function evaluations per sample.

    Args:
        tol, rtol: see `Solver`; a sample is stopped as soon as its residual is below.
        max_steps: evaluations per sample.
        method: "hybr", "lm" (both with the exact Jacobian), "broyden1", "broyden2", "anderson", "linearmixing",
            "diagbroyden", "excitingmixing", "krylov" or "df-sane".
    """

    name: ClassVar[str] = "scipy"

    max_steps: int = 200
    method: str = "hybr"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.method not in METHODS:
            raise InputError(f"method must be one of {list(METHODS)}, got {self.method!r}")

    @property
    def with_jacobian(self) -> bool:
        """Whether the method takes the exact Jacobian."""
        return self.method in _WITH_JACOBIAN


class _Finished(Exception):
    """Raised inside SciPy to leave a solve that has converged, diverged or used up its evaluations."""


class _Sample:
    """One sample's side of the conversation between its solver thread and the batch loop."""

    def __init__(self, row: int, state: Array) -> None:
        self.row = row
        self.best = state.copy()
        self.best_residual = np.inf
        self.trace: list[float] = []
        self.status = Status.MAX_STEPS
        self.request: Array | None = None
        self.answer: tuple[Array, Array | None, bool] | None = None
        self.answered = threading.Semaphore(0)


def solve_with_scipy(problem: RootProblem, solver: ScipyRoot, state: Array) -> Solution:
    """Run one SciPy solver per sample, in rounds of one batch evaluation each."""
    samples = [_Sample(row, state[row]) for row in range(len(state))]
    waiting = threading.Semaphore(0)
    threads = [
        threading.Thread(target=_run, args=(sample, solver, state[sample.row], waiting), daemon=True)
        for sample in samples
    ]
    with warnings.catch_warnings():
        # what SciPy warns about, an ill-conditioned matrix of its own, shows in the sample's status
        warnings.simplefilter("ignore", RuntimeWarning)
        cost = _converse(problem, solver, samples, threads, waiting)
    length = max((len(sample.trace) for sample in samples), default=1)
    trace = np.full((len(samples), max(length, 1)), np.nan)
    for sample in samples:
        trace[sample.row, : len(sample.trace)] = sample.trace
    evaluations = np.array([len(sample.trace) for sample in samples], dtype=np.int64)
    return Solution(
        np.array([sample.best for sample in samples]).reshape(state.shape),
        np.array([sample.best_residual for sample in samples]),
        np.array([int(sample.status) for sample in samples], dtype=np.int64),
        np.maximum(evaluations - 1, 0),
        evaluations,
        trace,
        cost,
    )


def _converse(
    problem: RootProblem,
    solver: ScipyRoot,
    samples: list[_Sample],
    threads: list[threading.Thread],
    waiting: threading.Semaphore,
) -> Cost:
    """Start the solver threads and answer their requests round by round until all have ended."""
    cost = Cost()
    try:
        for thread in threads:
            thread.start()
        running = list(samples)
        while running:
            for _ in running:
                waiting.acquire()
            running = [sample for sample in running if sample.request is not None]
            if running:
                cost += _answer(problem, solver, running)
    finally:
        # whatever went wrong here, no solver thread may be left waiting
        for sample in samples:
            sample.answer = None
            sample.answered.release()
        for thread in threads:
            if thread.is_alive():
                thread.join()
    return cost


def _answer(problem: RootProblem, solver: ScipyRoot, running: list[_Sample]) -> Cost:
    rows = np.array([sample.row for sample in running])
    states = np.array([sample.request for sample in running])
    evaluation, jacobian = evaluate_finite(problem, states, rows, solver.with_jacobian)
    noise = within_noise(evaluation.values - states, evaluation.std_errors, solver.confidence)
    for i, sample in enumerate(running):
        slopes = None if jacobian is None else jacobian[i] - np.eye(states.shape[1])
        sample.request = None
        sample.answer = (evaluation.values[i], slopes, bool(noise[i]))
        sample.answered.release()
    return evaluation.cost


def _run(sample: _Sample, solver: ScipyRoot, start: Array, waiting: threading.Semaphore) -> None:
    """A solver thread: ask for values until SciPy, or our own criterion, is done."""

    def ask(state: Array) -> Any:
        sample.request = np.array(state, dtype=float)
        waiting.release()
        sample.answered.acquire()
        if sample.answer is None:
            raise _Finished
        values, slopes, noise = sample.answer
        _book(sample, solver, np.array(state, dtype=float), values, noise)
        return (values - state, slopes) if solver.with_jacobian else values - state

    options: dict[str, Any] = {}
    if solver.method not in _WITH_JACOBIAN:
        options = {"maxfev" if solver.method == "df-sane" else "maxiter": solver.max_steps}
    try:
        with np.errstate(all="ignore"):
            optimize.root(
                ask, start, method=solver.method, jac=solver.with_jacobian or None, tol=1e-15, options=options
            )
        if sample.status not in (Status.CONVERGED, Status.NOISE_FLOOR):
            sample.status = Status.STALLED
    except _Finished:
        pass
    except (ValueError, ArithmeticError, np.linalg.LinAlgError, optimize.NoConvergence):
        # SciPy gives up on its own matrices: the sample keeps its best iterate and says so
        sample.status = Status.STALLED
    finally:
        sample.request = None
        waiting.release()


def _book(sample: _Sample, solver: ScipyRoot, state: Array, values: Array, noise: bool) -> None:
    residual = float(np.linalg.norm(values - state))
    sample.trace.append(residual)
    if residual < sample.best_residual:
        sample.best, sample.best_residual = state, residual
    if not np.isfinite(residual):
        sample.status = Status.NOT_FINITE
        raise _Finished
    if residual <= max(solver.tol, solver.rtol * float(np.linalg.norm(values))):
        sample.status = Status.CONVERGED
        raise _Finished
    if noise:
        sample.best, sample.best_residual = state, residual
        sample.status = Status.NOISE_FLOOR
        raise _Finished
    if len(sample.trace) > solver.max_steps:
        sample.status = Status.MAX_STEPS
        raise _Finished
