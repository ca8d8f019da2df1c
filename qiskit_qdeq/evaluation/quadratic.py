"""The equilibrium map of amplitude encoding in closed form: a ratio of quadratics in the K unknowns q.

    m_j(q) = N_j(q) / d(q),   N_j = a_j + B_j q + qᵀ C_j q,   d = xᵀx + 2 xᵀP q + qᵀPᵀP q            (DESIGN section 5)

C and PᵀP are shared by the batch. Values, Jacobian and a whole Newton solve are a few thousand flops a sample, so they
are compiled loops over samples, and no circuit is touched.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np

from qiskit_qdeq.evaluation.threads import run_parts

Array = np.ndarray[Any, np.dtype[Any]]

_JIT: dict[str, Any] = {
    "cache": True,
    "nogil": True,
    "fastmath": {"reassoc", "contract", "nsz"},
    "error_model": "numpy",
}


@dataclass(frozen=True)
class RationalQuadratic:
    """The map q -> m(q) of a minibatch.

    Attributes:
        constant: a, (B, K).
        linear: B, (B, K, K).
        quadratic: C, (K, K, K), C_j symmetric.
        norm: xᵀx, (B,).
        norm_linear: 2 xᵀP, (B, K).
        norm_quadratic: PᵀP, (K, K).
    """

    constant: Array
    linear: Array
    quadratic: Array
    norm: Array
    norm_linear: Array
    norm_quadratic: Array

    @property
    def num_states(self) -> int:
        """K."""
        return int(self.constant.shape[1])

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
        values = np.empty_like(state)
        jacobian = np.empty((*state.shape, self.num_states), dtype=state.dtype)
        _linearize_all(*self._terms(), state, rows, values, jacobian)
        return values, jacobian

    def newton(
        self, state: Array, tol: float, rtol: float, max_steps: int, halvings: int
    ) -> tuple[Array, Array, Array, Array]:
        """Newton's method with step halving, every sample by itself.

        A sample stops once ‖g‖ ≤ max(tol, rtol ‖m‖), g = m - q.

        Returns:
            residuals ‖g‖ (B, max_steps + 1), NaN after a sample stopped; steps (B,); evaluations (B,); status (B,):
            0 converged, 1 out of steps, 2 no step lowers the residual, 3 not finite. `state` (B, K) is overwritten
            with the best iterate.
        """
        batch = len(state)
        trace = np.full((batch, max_steps + 1), np.nan)
        steps, evaluations, status = (np.zeros(batch, dtype=np.int64) for _ in range(3))
        parts = 1 if batch * self.num_states**3 < 1 << 15 else 4
        edges = [round(i * batch / parts) for i in range(parts + 1)]
        run_parts(
            _newton_all,
            [
                (
                    *self._terms(),
                    state,
                    first,
                    last,
                    tol,
                    rtol,
                    max_steps,
                    halvings,
                    trace,
                    steps,
                    evaluations,
                    status,
                )
                for first, last in zip(edges[:-1], edges[1:], strict=True)
            ],
        )
        return trace, steps, evaluations, status


@numba.njit(**_JIT)  # type: ignore[misc]
def _linearize(a, lin, quad, norm, norm_lin, norm_quad, q, values, jac, slope):  # type: ignore[no-untyped-def]
    """values, jac <- m(q), ∂m/∂q of one sample; `slope` (K,) is scratch for ∂d/∂q."""
    size = len(q)
    d = norm
    for k in range(size):
        s = norm_lin[k] * 0
        for l in range(size):  # noqa: E741
            s += norm_quad[k, l] * q[l]
        d += (norm_lin[k] + s) * q[k]
        slope[k] = norm_lin[k] + 2 * s
    inverse = 1 / d
    for j in range(size):
        total = a[j]
        for k in range(size):
            s = a[j] * 0
            for l in range(size):  # noqa: E741
                s += quad[j, k, l] * q[l]
            total += (lin[j, k] + s) * q[k]
            jac[j, k] = lin[j, k] + 2 * s
        m = total * inverse
        values[j] = m
        for k in range(size):
            jac[j, k] = (jac[j, k] - m * slope[k]) * inverse


@numba.njit(**_JIT)  # type: ignore[misc]
def _linearize_all(a, lin, quad, norm, norm_lin, norm_quad, state, rows, values, jac):  # type: ignore[no-untyped-def]
    slope = np.empty(state.shape[1], state.dtype)
    for i in range(len(rows)):
        b = rows[i]
        _linearize(a[b], lin[b], quad, norm[b], norm_lin[b], norm_quad, state[i], values[i], jac[i], slope)


@numba.njit(**_JIT)  # type: ignore[misc]
def solve_in_place(matrix, rhs):  # type: ignore[no-untyped-def]
    """rhs <- matrix⁻¹ rhs by Gaussian elimination with partial pivoting; NaN where the matrix is singular."""
    size = len(rhs)
    for col in range(size):
        pivot = col
        for row in range(col + 1, size):
            if abs(matrix[row, col]) > abs(matrix[pivot, col]):
                pivot = row
        if pivot != col:
            for k in range(col, size):
                matrix[col, k], matrix[pivot, k] = matrix[pivot, k], matrix[col, k]
            rhs[col], rhs[pivot] = rhs[pivot], rhs[col]
        if matrix[col, col] == 0:
            rhs[:] = np.nan
            return
        inverse = 1 / matrix[col, col]
        for row in range(col + 1, size):
            factor = matrix[row, col] * inverse
            for k in range(col + 1, size):
                matrix[row, k] -= factor * matrix[col, k]
            rhs[row] -= factor * rhs[col]
    for col in range(size - 1, -1, -1):
        for k in range(col + 1, size):
            rhs[col] -= matrix[col, k] * rhs[k]
        rhs[col] /= matrix[col, col]


@numba.njit(**_JIT)  # type: ignore[misc]
def _newton_all(  # type: ignore[no-untyped-def]
    a, lin, quad, norm, norm_lin, norm_quad, state, first, last, tol, rtol, max_steps, halvings,
    trace, steps, evaluations, status,
):  # fmt: skip
    size = state.shape[1]
    q = np.empty(size, state.dtype)
    trial = np.empty(size, state.dtype)
    delta = np.empty(size, state.dtype)
    m = np.empty(size, state.dtype)
    slope = np.empty(size, state.dtype)
    jac = np.empty((size, size), state.dtype)
    for b in range(first, last):
        q[:] = state[b]
        _linearize(a[b], lin[b], quad, norm[b], norm_lin[b], norm_quad, q, m, jac, slope)
        evaluations[b] = 1
        residual, size_of_m = _norms(m, q)
        trace[b, 0] = residual
        status[b] = 1
        for step in range(max_steps + 1):
            if not np.isfinite(residual):
                status[b] = 3
                break
            if residual <= max(tol, rtol * size_of_m):
                status[b] = 0
                break
            if step == max_steps:
                break
            # (1 - J) δ = g
            for j in range(size):
                delta[j] = m[j] - q[j]
                for k in range(size):
                    jac[j, k] = -jac[j, k]
                jac[j, j] += 1
            solve_in_place(jac, delta)
            length = 1.0
            accepted = False
            for _ in range(halvings + 1):
                for j in range(size):
                    trial[j] = q[j] + length * delta[j]
                _linearize(a[b], lin[b], quad, norm[b], norm_lin[b], norm_quad, trial, m, jac, slope)
                evaluations[b] += 1
                new_residual, new_size = _norms(m, trial)
                if new_residual <= (1 - 1e-4 * length) * residual:
                    accepted = True
                    break
                length *= 0.5
            if not accepted:
                status[b] = 2
                break
            q[:] = trial
            residual, size_of_m = new_residual, new_size
            steps[b] = step + 1
            trace[b, step + 1] = residual
        state[b] = q


@numba.njit(**_JIT)  # type: ignore[misc]
def _norms(m, q):  # type: ignore[no-untyped-def]
    """‖m - q‖ and ‖m‖."""
    g2 = m[0] * 0
    m2 = g2
    for j in range(len(q)):
        g2 += (m[j] - q[j]) ** 2
        m2 += m[j] ** 2
    return np.sqrt(g2), np.sqrt(m2)


@numba.njit(**_JIT)  # type: ignore[misc]
def solve_adjoint_all(jacobian, cotangent, out):  # type: ignore[no-untyped-def]
    """out[b] <- (1 - J_bᵀ)⁻¹ cotangent[b] for every sample."""
    size = cotangent.shape[1]
    matrix = np.empty((size, size), jacobian.dtype)
    for b in range(len(cotangent)):
        for j in range(size):
            for k in range(size):
                matrix[j, k] = -jacobian[b, k, j]
            matrix[j, j] += 1
        out[b] = cotangent[b]
        solve_in_place(matrix, out[b])
