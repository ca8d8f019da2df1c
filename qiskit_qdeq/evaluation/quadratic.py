"""The equilibrium map of amplitude encoding in closed form: a ratio of quadratics in the K unknowns q.

    m_j(q) = N_j(q) / d(q),   N_j = a_j + B_j q + qᵀ C_j q,   d = xᵀx + 2 xᵀP q + qᵀPᵀP q            (DESIGN section 5)

C and PᵀP are shared by the batch. Values, Jacobian and a whole Newton solve are a few hundred multiplications a sample and
run no circuit; `quadratic_kernels` has the compiled loops.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qiskit_qdeq.evaluation import quadratic_kernels as kernels
from qiskit_qdeq.evaluation.linear import whole_groups
from qiskit_qdeq.evaluation.quadratic_broyden import broyden
from qiskit_qdeq.evaluation.quasi_newton import QuasiNewtonSolution
from qiskit_qdeq.evaluation.threads import run_parts, split_columns
from qiskit_qdeq.evaluation.vectors import LANES

if TYPE_CHECKING:
    from qiskit_qdeq.evaluation.amplitude import AmplitudeMap

Array = np.ndarray[Any, np.dtype[Any]]

#: Amplitudes of a sample up to which the solve makes columns and features too: more would not stay in the first cache.
_CACHED = 64


class RationalQuadratic:
    """The map q -> m(q) of a minibatch, which keeps a, B, xᵀx and Pᵀx; C and PᵀP are those of its weights."""

    def __init__(self, source: AmplitudeMap) -> None:
        self._source = source

    def linearize(self, state: Array, rows: Array) -> tuple[Array, Array]:
        """m (b, K) and ∂m/∂q (b, K, K) at `state` (b, K) for the samples `rows`."""
        count, size = state.shape
        filled = whole_groups(count)
        terms = self._chosen(rows[filled])
        states = np.ascontiguousarray(state[filled].T, dtype=float)
        values, jacobian = np.empty(states.shape), np.empty((size * size, states.shape[1]))
        bound = self._source.bound
        kernels.linearize(*terms, bound.closed_form[1], bound.evaluator.double_gram, states, values, jacobian)
        dtype = self._source.inputs.dtype
        found = np.ascontiguousarray(jacobian.T[:count], dtype=dtype)
        return np.ascontiguousarray(values.T[:count], dtype=dtype), found.reshape(count, size, size)

    def newton(
        self, state: Array, tol: float, rtol: float, max_steps: int, shortenings: int, keep_trace: bool = True
    ) -> NewtonResult:
        """Newton's method with shortened steps, every sample by itself, in double precision.

        A sample stops once ‖g‖ ≤ max(tol, rtol ‖m‖), g = m - q. `state` (B, K) of float64 is overwritten with the best
        iterate.
        """
        source, (batch, size) = self._source, state.shape
        bound, evaluator = source.bound, source.bound.evaluator
        linear, encoded = source.linear, source.encoded
        dim, dtype, width, start = encoded.shape[1], encoded.dtype, max(batch, LANES), state
        observed = source.is_compiled and dim <= _CACHED
        if observed:
            table, (masks, mixing) = evaluator.states.table, evaluator.readouts.products
            terms = [np.empty((0, 0), dtype), linear, source.overlap, source.norm]
            columns, values = np.empty_like(encoded), np.empty((batch, len(masks)), dtype)
        else:
            table, masks, mixing = np.empty((0, 0), dtype), np.empty(0, np.int64), None
            filled = np.minimum(np.arange(width), batch - 1) if width > batch else slice(None)
            terms, start = self._chosen(filled), state[filled]
            columns, values = np.empty((2, 0, 0), dtype), np.empty((0, 0), dtype)
        found, numbers = np.empty((width, size)), np.empty((5 + size + size * size, width))
        trace = np.full((max_steps + 1, width), np.nan) if keep_trace else np.empty((0, width))
        given = (*terms, bound.closed_form[1], evaluator.double_gram, encoded, bound.injected, table, masks)
        options = (start, tol, rtol, max_steps, shortenings, trace, found, numbers, columns, values)
        # a step counts like K³ / 4 amplitudes
        parts = split_columns(max(dim, size**3 // 4), width)
        run_parts(kernels.newton, [(*given, *part, *options) for part in parts])
        if width > batch:
            found, numbers, trace = found[:batch], numbers[:, :batch], trace[:, :batch]
        state[:] = found
        steps, evaluations, status = numbers[2:5].astype(np.int64)
        if keep_trace:
            trace = trace[: int(steps.max(initial=0)) + 1]
        slope, jacobian = numbers[5 : 5 + size], numbers[5 + size :]
        result = (numbers[0], trace.T, steps, evaluations, status, found, numbers[1], slope, jacobian)
        if not observed:
            return NewtonResult(*result)
        return NewtonResult(*result, columns, values if mixing is None else values @ mixing.T)

    def broyden(
        self, rows: Array, state: Array, tol: float, rtol: float, max_steps: int, keep_trace: bool, keep_inverse: bool
    ) -> QuasiNewtonSolution:
        """See `quadratic_broyden.broyden`, for the samples `rows`."""
        constant, linear, overlap, norms = self._chosen(rows)
        bound = self._source.bound
        given = (constant, linear, overlap, norms), bound.closed_form[1], bound.evaluator.double_gram
        return broyden(*given, state, tol, rtol, max_steps, keep_trace, keep_inverse)

    def _chosen(self, rows: Array | slice) -> list[Array]:
        """a, B, Pᵀx and xᵀx of the samples `rows`."""
        source = self._source
        # first, as it also gives ψ, of which the others are made
        linear = source.linear
        arrays = (source.constant, linear, source.overlap, source.norm)
        return [np.ascontiguousarray(array[..., rows]) for array in arrays]


@dataclass(frozen=True)
class NewtonResult:
    """What the compiled solve leaves besides the state.

    Attributes:
        residual: ‖g‖ at the solution (B,).
        trace: ‖g‖ after every step (B, S + 1), NaN after a sample stopped; (B, 0) if not kept.
        steps: (B,).
        evaluations: (B,).
        status: (B,): 0 converged, 1 out of steps, 2 no step lowers the residual, 3 not finite.
        state: the solution (B, K), for what is computed there later.
        norm: d at the solution, (B,).
        slope: ∂d/∂q at the solution, (K, B).
        jacobian: ∂m/∂q at the solution, (K · K, B).
        columns: φ at the solution, planar (2, 2**n, B), where the solve passed them, and
        features: h there (B, F).
    """

    residual: Array
    trace: Array
    steps: Array
    evaluations: Array
    status: Array
    state: Array
    norm: Array
    slope: Array
    jacobian: Array
    columns: Array | None = None
    features: Array | None = None
