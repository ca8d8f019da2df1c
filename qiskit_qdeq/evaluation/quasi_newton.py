"""Good Broyden's update of H for groups of samples, compiled, and what a whole compiled solve returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np

from qiskit_qdeq.evaluation.vectors import LANES, load, splat, store, where

Array = np.ndarray[Any, np.dtype[Any]]

_TINY = float(np.finfo(float).tiny)


@dataclass(frozen=True)
class QuasiNewtonSolution:
    """What a compiled Broyden leaves besides the state.

    Attributes:
        residual: ‖g‖ at the best iterate (B,).
        trace: ‖g‖ after every step (B, S + 1), NaN after a sample stopped; (B, 0) if not kept.
        steps: (B,).
        evaluations: (B,).
        status: (B,): 0 converged, 1 out of steps, 3 not finite.
        inverse: H (B, K, K), None if not kept.
    """

    residual: Array
    trace: Array
    steps: Array
    evaluations: Array
    status: Array
    inverse: Array | None


@numba.njit(inline="always")  # type: ignore[misc]
def learn(inverse, g, before, s, moved, row):  # type: ignore[no-untyped-def]
    """Rows i K + j of H after the step s, along which the residual went from `before` to g."""
    size = len(g) // LANES
    zero, scale = splat(0.0), splat(0.0)
    for j in range(size):
        store(row, j * LANES, zero)
    for i in range(size):
        value, step = zero, load(s, i * LANES)
        for j in range(size):
            entry = load(inverse, (i * size + j) * LANES)
            value += entry * (load(g, j * LANES) - load(before, j * LANES))
            store(row, j * LANES, load(row, j * LANES) + step * entry)
        store(moved, i * LANES, step - value)
        scale += step * value
    # a vanishing denominator carries no information: keep H
    factor = where(splat(_TINY), where(zero, scale, scale, zero - scale), 1.0 / scale, zero)
    for i in range(size):
        change = factor * load(moved, i * LANES)
        for j in range(size):
            at = (i * size + j) * LANES
            store(inverse, at, load(inverse, at) + change * load(row, j * LANES))
