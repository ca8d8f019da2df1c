"""The map where an iterate is finite: no circuit has an angle that is not, and one lost sample must not end the others."""

from __future__ import annotations

from typing import Any

import numpy as np

from qiskit_qdeq.evaluation.protocol import Evaluation, RootProblem

Array = np.ndarray[Any, np.dtype[Any]]


def evaluate_finite(
    problem: RootProblem, state: Array, rows: Array, with_jacobian: bool
) -> tuple[Evaluation, Array | None]:
    """m and, if asked for, ∂m/∂q (b, K, K) at `state` (b, K) for the samples `rows`; NaN where a state is not finite."""
    finite = np.isfinite(state).all(axis=1)
    if finite.all():
        return problem.linearize(state, rows) if with_jacobian else (problem.values(state, rows), None)
    size = state.shape[1]

    def spread(found: Array) -> Array:
        result = np.full((len(state), *found.shape[1:]), np.nan)
        result[finite] = found
        return result

    if not finite.any():
        slopes = np.full((len(state), size, size), np.nan) if with_jacobian else None
        return Evaluation(np.full(state.shape, np.nan)), slopes
    evaluation, jacobian = evaluate_finite(problem, state[finite], rows[finite], with_jacobian)
    errors = None if evaluation.std_errors is None else spread(evaluation.std_errors)
    return (
        Evaluation(spread(evaluation.values), errors, evaluation.cost),
        None if jacobian is None else spread(jacobian),
    )
