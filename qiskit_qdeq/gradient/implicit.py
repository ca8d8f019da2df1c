"""The backward pass through an equilibrium: λ of (1 - Jᵀ) λ = ḡ, with J = ∂m/∂q at q*.

The implicit function theorem gives dL/dθ = Σ_b λ_bᵀ ∂m(u_b)/∂θ (+ the readout's own part), ḡ = ∂L/∂q*: Bai, Kolter,
Koltun 2019, theorem 1. Modes differ in how λ is found, not in what it means; `jfb` (Fung et al. 2022), `neumann` and
`shine` (Ramzi et al. 2022) are approximations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse.linalg import gmres

from qiskit_qdeq._numbers import keep_integer, keep_real
from qiskit_qdeq.equilibrium.driver import solve
from qiskit_qdeq.equilibrium.solution import Solution
from qiskit_qdeq.equilibrium.solvers import Anderson, Broyden
from qiskit_qdeq.evaluation.linear import solve_adjoint as solve_exactly
from qiskit_qdeq.evaluation.protocol import Cotangent, Evaluation, EvaluationPoint
from qiskit_qdeq.evaluation.quadratic_broyden import AffineForm
from qiskit_qdeq.exceptions import ConvergenceError, ConvergenceWarning, InputError, warn_user

Array = np.ndarray[Any, np.dtype[Any]]

#: ‖λ‖ / ‖ḡ‖ beyond which half the digits are gone.
_LARGEST_ADJOINT = 1e8
BACKWARD_MODES = ("exact", "neumann", "jfb", "shine", "broyden", "anderson", "gmres")


@dataclass(frozen=True)
class Backward:
    """How λ of (1 - Jᵀ) λ = ḡ is found.

    Args:
        mode: "exact" (K × K solve), "neumann" (Σ_{t<terms} (Jᵀ)^t ḡ), "jfb" (λ = ḡ), "shine" (the forward Broyden
            inverse; needs that solver), or an iterative solve by "broyden", "anderson" or "gmres".
        terms: terms of the Neumann series.
        tol: relative residual of the iterative modes, ‖Jᵀλ + ḡ - λ‖ ≤ tol ‖ḡ‖.
        max_steps: steps of the iterative modes.
        on_failure: "raise", "warn" or "accept" samples for which an iterative mode misses its tolerance tenfold.
        residual_limit: a sample the forward solve did not bring to its tolerance, nor its residual ‖m(q) - q‖ below this,
            takes λ = ḡ in every mode: (1 - Jᵀ)⁻¹ holds at equilibria only and is huge where solvers get stuck, while ḡ is
            the gradient of one more layer. A sample merely out of steps, with a small residual, keeps its mode.

    Raises:
        InputError: for an unknown mode or values out of range.
    """

    mode: str = "exact"
    terms: int = 5
    tol: float = 1e-8
    max_steps: int = 50
    on_failure: str = "warn"
    residual_limit: float = 0.01

    def __post_init__(self) -> None:
        if self.on_failure not in {"raise", "warn", "accept"}:
            raise InputError(f"on_failure must be 'raise', 'warn' or 'accept', got {self.on_failure!r}")
        if self.mode not in BACKWARD_MODES:
            raise InputError(f"backward mode must be one of {list(BACKWARD_MODES)}, got {self.mode!r}")
        keep_integer(self, "terms", 1)
        keep_integer(self, "max_steps", 1)
        keep_real(self, "tol", 0, np.inf, open_lower=True)
        keep_real(self, "residual_limit", 0, np.inf)


def implicit_term(
    point: EvaluationPoint, feature_cotangent: Array, backward: Backward, solution: Solution | None = None
) -> Cotangent:
    """The weight dependence of a scalar of the readout at an equilibrium, (λ, ∂L/∂h), for `EquilibriumMap.pull_back`.

    Args:
        point: the map at q*.
        feature_cotangent: ∂L/∂h (B, F).
        backward: how λ is found.
        solution: the forward solve: "shine" reuses its inverse, and its unsolved samples take λ = ḡ; without it all
            samples count as solved.

    Raises:
        InputError: for "shine" without a Broyden solution that kept its inverse.
        ConvergenceError: if no gradient exists for a sample: 1 - Jᵀ is singular, or the slope of an encoder angle infinite.
    """
    unsolved = _unsolved(solution, backward.residual_limit)
    if backward.mode == "exact":
        term = point.implicit_term(feature_cotangent)
        assert term.values is not None
        if unsolved is None:
            _check_finite(term.values, point)
            return term
        adjoint = np.where(unsolved, point.pull_features(feature_cotangent), term.values)
        _check_finite(adjoint, point)
        return Cotangent(point, values=adjoint, features=feature_cotangent)
    adjoint = adjoint_state(point, point.pull_features(feature_cotangent), backward, solution)
    return Cotangent(point, values=adjoint, features=feature_cotangent)


def adjoint_state(
    point: EvaluationPoint, cotangent: Array, backward: Backward, solution: Solution | None = None
) -> Array:
    """λ (B, K) of ḡ = ∂L/∂q* (B, K), unsolved samples taking λ = ḡ; see `implicit_term`."""
    unsolved = _unsolved(solution, backward.residual_limit)
    if unsolved is None:
        return solve_adjoint(point, cotangent, backward, solution)
    if backward.mode == "exact":
        found = solve_exactly(point.jacobian, cotangent)
    else:
        # of a cotangent of zero no mode complains
        found = solve_adjoint(point, np.where(unsolved, 0, cotangent), backward, solution)
    adjoint = np.where(unsolved, cotangent, found)
    _check_finite(adjoint, point)
    return adjoint


def _unsolved(solution: Solution | None, limit: float) -> Array | None:
    """Which samples are too far from an equilibrium for the implicit function theorem (B, 1); None if none is."""
    if solution is None or not np.count_nonzero(solution.status):
        return None
    far = ~solution.converged & ~(solution.residual <= limit)
    return far[:, None] if far.any() else None


def solve_adjoint(
    point: EvaluationPoint, cotangent: Array, backward: Backward, solution: Solution | None = None
) -> Array:
    """λ (B, K) of (1 - Jᵀ) λ = ḡ for ḡ = ∂L/∂q* (B, K); see `implicit_term`.

    Warns:
        ConvergenceWarning: where an iterative mode misses its tolerance and `backward.on_failure` is "warn".
    """
    mode = backward.mode
    _check_finite(cotangent, point)
    if mode == "jfb":
        return cotangent
    if mode == "shine":
        if solution is None or solution.inverse is None:
            raise InputError("backward mode 'shine' reuses the inverse of solver 'broyden': choose that solver")
        # H estimates (J - 1)⁻¹, so (1 - Jᵀ)⁻¹ = -Hᵀ
        result = -np.einsum("bji,bj->bi", solution.inverse, cotangent)
    elif mode == "exact":
        result = solve_exactly(point.jacobian, cotangent)
    elif mode == "neumann":
        result, power = cotangent.copy(), cotangent
        for _ in range(backward.terms - 1):
            power = np.einsum("bjk,bj->bk", point.jacobian, power)
            result += power
    else:
        result = _iterate(point.jacobian, cotangent, backward)
    _check_finite(result, point)
    return result


def _check_finite(adjoint: Array, point: EvaluationPoint) -> None:
    if math.isfinite(np.add.reduce(adjoint, axis=None)):
        return
    bad = np.flatnonzero(~np.isfinite(adjoint).all(axis=1))
    where = f"at the equilibrium of sample {bad[0]} ({len(bad)} samples)"
    if not np.isfinite(point.jacobian[bad]).all():
        raise ConvergenceError(
            f"an encoder angle has an infinite slope {where}, as arcsin(u) has at 1: its gradient does not exist. Scale the "
            "features, or use a smaller state_scale, so that inputs stay away from there."
        )
    raise ConvergenceError(
        f"1 - J is singular {where}: its gradient does not exist. Use backward mode 'jfb', a smaller state_scale, or "
        "another seed."
    )


def _iterate(jacobian: Array, cotangent: Array, backward: Backward) -> Array:
    """The adjoint equation as a fixed point of its own, scaled to ḡ of length one so that the tolerance is relative."""
    scale = np.linalg.norm(cotangent, axis=1, keepdims=True)
    scale = np.where(scale > 0, scale, 1)
    scaled = cotangent / scale
    if backward.mode == "gmres":
        found = np.array([_gmres(*pair, backward) for pair in zip(jacobian, scaled, strict=True)])
        found = found.reshape(cotangent.shape)
    else:
        kind = Broyden if backward.mode == "broyden" else Anderson
        solver = kind(tol=backward.tol, max_steps=backward.max_steps)
        found = solve(_AdjointMap(jacobian, scaled), solver, on_failure="accept").state
    gap = np.linalg.norm(scaled + np.einsum("bjk,bj->bk", jacobian, found) - found, axis=1)
    # of a singular system an iteration makes λ so large that its residual is lost to rounding
    missed = ~(gap <= 10 * backward.tol) | (np.linalg.norm(found, axis=1) > _LARGEST_ADJOINT)
    if missed.any() and backward.on_failure != "accept":
        message = (
            f"backward mode {backward.mode!r} misses its tolerance {backward.tol:g} for {missed.sum()} of {len(gap)} "
            f"samples (largest relative residual {gap.max():.2g}): use mode 'exact' or more max_steps"
        )
        if backward.on_failure == "raise":
            raise ConvergenceError(message)
        warn_user(message, ConvergenceWarning)
    return found * scale


def _gmres(jacobian: Array, cotangent: Array, backward: Backward) -> Array:
    size = len(cotangent)
    result, _ = gmres(
        np.eye(size) - jacobian.T, cotangent, rtol=backward.tol, atol=0.0, restart=size, maxiter=backward.max_steps
    )
    return np.asarray(result)


class _AdjointMap:
    """λ -> Jᵀλ + ḡ in the form solvers iterate."""

    def __init__(self, jacobian: Array, cotangent: Array) -> None:
        self.batch, self.num_states = cotangent.shape
        self._jacobian, self._cotangent = jacobian, cotangent

    @property
    def closed_form(self) -> AffineForm:
        """What the compiled Broyden takes."""
        return AffineForm(np.swapaxes(self._jacobian, 1, 2), self._cotangent)

    def values(self, state: Array, rows: Array) -> Evaluation:
        return Evaluation(np.einsum("bjk,bj->bk", self._jacobian[rows], state) + self._cotangent[rows])

    def linearize(self, state: Array, rows: Array) -> tuple[Evaluation, Array]:
        return self.values(state, rows), np.swapaxes(self._jacobian[rows], 1, 2)
