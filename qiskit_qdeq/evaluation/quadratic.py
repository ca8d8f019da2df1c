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

from qiskit_qdeq.evaluation import lanes
from qiskit_qdeq.evaluation.linear import whole_groups
from qiskit_qdeq.evaluation.threads import run_parts
from qiskit_qdeq.evaluation.vectors import LANES

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class RationalQuadratic:
    """The map q -> m(q) of a minibatch; arrays have the batch last.

    Attributes:
        constant: a, (K, B).
        linear: B, (K · K, B).
        quadratic: C, (K, K, K), C_j symmetric.
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

    def _terms(self, rows: Array | slice) -> tuple[Array, ...]:
        """The arguments of the compiled loops for the samples `rows`, a multiple of `LANES` of them."""
        chosen = [
            np.ascontiguousarray(array[..., rows])
            for array in (self.constant, self.linear, self.norm, self.norm_linear)
        ]
        return chosen[0], chosen[1], self.quadratic, chosen[2], chosen[3], self.norm_quadratic

    def linearize(self, state: Array, rows: Array) -> tuple[Array, Array]:
        """m (b, K) and ∂m/∂q (b, K, K) at `state` (b, K) for the samples `rows`."""
        count, size = state.shape
        filled = whole_groups(count)
        terms = self._terms(rows[filled])
        states = np.ascontiguousarray(state[filled].T, dtype=float)
        values, jacobian = np.empty(states.shape), np.empty((size * size, states.shape[1]))
        lanes.linearize(*terms, states, values, jacobian)
        dtype = self.constant.dtype
        found = np.ascontiguousarray(jacobian.T[:count], dtype=dtype)
        return np.ascontiguousarray(values.T[:count], dtype=dtype), found.reshape(count, size, size)

    def newton(
        self, state: Array, tol: float, rtol: float, max_steps: int, shortenings: int, keep_trace: bool = True
    ) -> NewtonResult:
        """Newton's method with shortened steps, every sample by itself, in double precision.

        A sample stops once ‖g‖ ≤ max(tol, rtol ‖m‖), g = m - q. `state` (B, K) of float64 is overwritten with the best
        iterate.
        """
        batch, size = state.shape
        filled = whole_groups(batch)
        terms = self._terms(filled)
        states = np.ascontiguousarray(state[filled].T)
        width = states.shape[1]
        trace = np.full((max_steps + 1 if keep_trace else 0, width), np.nan)
        numbers = np.empty((5 + size * size, width))
        residual, norm, counts, jacobian = numbers[0], numbers[1], numbers[2:5], numbers[5:]
        options = (tol, rtol, max_steps, shortenings, trace, residual, counts, jacobian, norm)
        run_parts(
            lanes.newton,
            [(*terms, states, first, last, *options) for first, last in lane_ranges(width, size**3)],
        )
        state[:] = states.T[:batch]
        steps, evaluations, status = counts[:, :batch].astype(np.int64)
        if keep_trace:
            trace = trace[: int(steps.max(initial=0)) + 1]
        return NewtonResult(
            residual[:batch], trace.T[:batch], steps, evaluations, status, jacobian[:, :batch], norm[:batch]
        )


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
    groups = batch // LANES
    edges = [LANES * (groups * part // 4) for part in range(4)] + [batch]
    return [(first, last) for first, last in pairwise(edges) if last > first]
