"""The equilibrium map of amplitude encoding in closed form: a ratio of quadratics in the K unknowns q.

    m_j(q) = N_j(q) / d(q),   N_j = a_j + B_j q + qᵀ C_j q,   d = xᵀx + 2 xᵀP q + qᵀPᵀP q            (DESIGN section 5)

C and PᵀP are shared by the batch. Values, Jacobian and a whole Newton solve are a few hundred multiplications a sample and
run no circuit; `lanes` has the compiled loops.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from qiskit_qdeq.evaluation.lanes import BLOCK, LANES, lane_kernels
from qiskit_qdeq.evaluation.threads import run_parts

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class RationalQuadratic:
    """The map q -> m(q) of a minibatch; arrays have the batch last.

    Attributes:
        constant: a, (K, B).
        linear: B, (K · K, B).
        quadratic: C, (K, K, K), C_j symmetric, as `padded` returns it.
        norm: xᵀx, (B,).
        norm_linear: 2 xᵀP, (K, B).
        norm_quadratic: PᵀP, (K, K).
    """

    constant: Array
    linear: Array
    quadratic: Array
    norm: Array
    norm_linear: Array
    norm_quadratic: Array

    @property
    def _terms(self) -> tuple[Array, ...]:
        return (
            self.constant,
            self.linear,
            self.quadratic,
            self.norm,
            self.norm_linear,
            self.norm_quadratic,
        )

    def linearize(self, state: Array, rows: Array) -> tuple[Array, Array]:
        """m (b, K) and ∂m/∂q (b, K, K) at `state` (b, K) for the samples `rows`."""
        values = np.empty(state.shape, dtype=self.constant.dtype)
        jacobian = np.empty((*state.shape, state.shape[1]), dtype=self.constant.dtype)
        kernels = lane_kernels(state.shape[1])
        kernels.linearize(*self._terms, np.ascontiguousarray(state, dtype=float), rows, values, jacobian)
        return values, jacobian

    def newton(
        self, state: Array, tol: float, rtol: float, max_steps: int, shortenings: int, keep_trace: bool = True
    ) -> NewtonResult:
        """Newton's method with shortened steps, every sample by itself, in double precision.

        A sample stops once ‖g‖ ≤ max(tol, rtol ‖m‖), g = m - q. `state` (B, K) of float64 is overwritten with the best
        iterate.
        """
        batch, size = state.shape
        trace = np.full((max_steps + 1 if keep_trace else 0, batch), np.nan)
        residual = np.empty(batch)
        counts = np.zeros((3, batch), dtype=np.int64)
        jacobian, norm = np.empty((size * size, batch)), np.empty(batch)
        kernel = lane_kernels(size).newton
        options = (tol, rtol, max_steps, shortenings, trace, residual, counts, jacobian, norm)
        run_parts(
            kernel,
            [(*self._terms, state, first, last, *options) for first, last in lane_ranges(batch, size**3)],
        )
        if keep_trace:
            trace = trace[: int(counts[0].max(initial=0)) + 1]
        steps, evaluations, status = counts
        return NewtonResult(residual, trace.T, steps, evaluations, status, jacobian, norm)


@dataclass(frozen=True)
class NewtonResult:
    """What the compiled solve leaves besides the state.

    Attributes:
        residual: ‖g‖ at the solution (B,).
        trace: ‖g‖ after every step (B, S + 1), NaN after a sample stopped; (B, 0) if not kept.
        steps: (B,).
        evaluations: (B,).
        status: (B,): 0 converged, 1 out of steps, 2 no step lowers the residual, 3 not finite.
        jacobian: ∂m/∂q at the solution, (K · K, B).
        norm: d at the solution, (B,).
    """

    residual: Array
    trace: Array
    steps: Array
    evaluations: Array
    status: Array
    jacobian: Array
    norm: Array


def lane_ranges(batch: int, work: int) -> list[tuple[int, int]]:
    """Ranges of samples for the lane kernels, whole groups each: several where `work` per sample makes threads pay."""
    if batch * work < 1 << 16:
        return [(0, batch)]
    groups = -(-batch // LANES)
    edges = [min(batch, LANES * (groups * part // 4)) for part in range(4)] + [batch]
    return [(first, last) for first, last in pairwise(edges) if last > first]


def padded(quadratic: Array) -> Array:
    """C (K, K, K) as (K, K, K rounded up to a multiple of the block) in double precision."""
    size = len(quadratic)
    width = -(-size // BLOCK) * BLOCK
    out = np.zeros((size, size, width))
    out[:, :, :size] = quadratic
    return out
