"""The backward pass through an equilibrium: λ of (1 - Jᵀ) λ = ḡ, with J = ∂m/∂q at q*.

The implicit function theorem gives dL/dθ = Σ_b λ_bᵀ ∂m(u_b)/∂θ (+ the readout's own part), ḡ = ∂L/∂q*: Bai, Kolter,
Koltun 2019, theorem 1. Modes differ in how λ is found, not in what it means; `jfb` (Fung et al. 2022), `neumann` and
`shine` (Ramzi et al. 2022) are approximations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse.linalg import gmres

from qiskit_qdeq.equilibrium.driver import solve
from qiskit_qdeq.equilibrium.solution import Solution
from qiskit_qdeq.equilibrium.solvers import Anderson, Broyden
from qiskit_qdeq.evaluation.protocol import Evaluation, EvaluationPoint
from qiskit_qdeq.exceptions import ConvergenceError, InputError

Array = np.ndarray[Any, np.dtype[Any]]

BACKWARD_MODES = ("exact", "neumann", "jfb", "shine", "broyden", "anderson", "gmres")


@dataclass(frozen=True)
class Backward:
    """How λ of (1 - Jᵀ) λ = ḡ is found.

    Args:
        mode: "exact" (K × K solve), "neumann" (Σ_{t<terms} (Jᵀ)^t ḡ), "jfb" (λ = ḡ), "shine" (the forward Broyden
            inverse; needs that solver), or an iterative solve by "broyden", "anderson" or "gmres".
        terms: terms of the Neumann series.
        tol: residual of the iterative modes, ‖Jᵀλ + ḡ - λ‖ ≤ max(tol ‖ḡ‖, tol²).
        max_steps: steps of the iterative modes.

    Raises:
        InputError: for an unknown mode or values out of range.
    """

    mode: str = "exact"
    terms: int = 5
    tol: float = 1e-8
    max_steps: int = 50

    def __post_init__(self) -> None:
        if self.mode not in BACKWARD_MODES:
            raise InputError(f"backward mode must be one of {list(BACKWARD_MODES)}, got {self.mode!r}")
        for name in ("terms", "max_steps"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise InputError(f"{name} must be an integer >= 1, got {getattr(self, name)!r}")
        if not (np.isfinite(self.tol) and self.tol > 0):
            raise InputError(f"tol must be a finite number > 0, got {self.tol!r}")


def solve_adjoint(
    point: EvaluationPoint, feature_cotangent: Array, backward: Backward, solution: Solution | None = None
) -> Array:
    """λ (B, K) for ḡ = (∂h/∂q)ᵀ ∂L/∂h at a solved point.

    Args:
        point: the map at q*.
        feature_cotangent: ∂L/∂h (B, F).
        backward: the mode.
        solution: the forward solve, whose inverse "shine" reuses.

    Raises:
        InputError: for "shine" without a Broyden solution that kept its inverse.
        ConvergenceError: if 1 - Jᵀ is singular for a sample, so that no gradient exists there.
    """
    mode = backward.mode
    if mode == "exact":
        return _finite(point.adjoint(feature_cotangent))
    cotangent = point.pull_features(feature_cotangent)
    if mode == "jfb":
        return cotangent
    if mode == "shine":
        if solution is None or solution.inverse is None:
            raise InputError("backward mode 'shine' reuses the inverse of solver 'broyden': choose that solver")
        # H estimates (J - 1)⁻¹, so (1 - Jᵀ)⁻¹ = -Hᵀ
        return -np.einsum("bji,bj->bi", solution.inverse, cotangent)
    jacobian = point.jacobian
    if mode == "neumann":
        result, power = cotangent.copy(), cotangent
        for _ in range(backward.terms - 1):
            power = np.einsum("bjk,bj->bk", jacobian, power)
            result += power
    elif mode == "gmres":
        result = np.stack([_gmres(*pair, backward) for pair in zip(jacobian, cotangent, strict=True)])
    else:
        result = _iterate(jacobian, cotangent, backward)
    return _finite(result)


def _finite(result: Array) -> Array:
    if not np.isfinite(result.sum()):
        bad = np.flatnonzero(~np.isfinite(result).all(axis=1))
        raise ConvergenceError(
            f"1 - J is singular at the equilibrium of sample {bad[0]} ({len(bad)} samples): its gradient does not "
            "exist. Use backward mode 'jfb', a smaller state_scale, or another seed."
        )
    return result


def _gmres(jacobian: Array, cotangent: Array, backward: Backward) -> Array:
    size = len(cotangent)
    result, _ = gmres(
        np.eye(size) - jacobian.T, cotangent, rtol=backward.tol, atol=0.0, restart=size, maxiter=backward.max_steps
    )
    return np.asarray(result)


def _iterate(jacobian: Array, cotangent: Array, backward: Backward) -> Array:
    """The adjoint equation as a fixed point of its own, scaled to ḡ of length one so that the tolerance is relative."""
    scale = np.linalg.norm(cotangent, axis=1, keepdims=True)
    scale = np.where(scale > 0, scale, 1)
    kind = Broyden if backward.mode == "broyden" else Anderson
    found = solve(
        _AdjointMap(jacobian, cotangent / scale),
        kind(tol=backward.tol, max_steps=backward.max_steps),
        on_failure="accept",
    )
    product: Array = found.state * scale
    return product


class _AdjointMap:
    """λ -> Jᵀλ + ḡ in the form solvers iterate."""

    def __init__(self, jacobian: Array, cotangent: Array) -> None:
        self.batch, self.num_states = cotangent.shape
        self._jacobian, self._cotangent = jacobian, cotangent

    def values(self, state: Array, rows: Array) -> Evaluation:
        return Evaluation(np.einsum("bjk,bj->bk", self._jacobian[rows], state) + self._cotangent[rows])

    def linearize(self, state: Array, rows: Array) -> tuple[Evaluation, Array]:
        return self.values(state, rows), np.swapaxes(self._jacobian[rows], 1, 2)

    def at(self, state: Array) -> EvaluationPoint:
        raise NotImplementedError("the adjoint equation has no readout")

    def pull_back(self, terms: Any) -> Array:
        raise NotImplementedError("the adjoint equation has no weights")
