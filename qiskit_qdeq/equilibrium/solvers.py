"""Batched root solvers for g(q) = m(x + P q) - q: immutable hyper-parameters and one `propose`/`update` rule each.

    newton    δ = (1 - J)⁻¹ g
    broyden   δ = -H g,  H += (s - H y)(sᵀH) / (sᵀH y)           good Broyden, H ≈ (J - 1)⁻¹
    anderson  δ = β g - (ΔQ + β ΔG)ᵀ γ,  γ = argmin ‖g - ΔGᵀ γ‖  Anderson 1965, type II
    picard    δ = damping · g

All act on (b, K) arrays of the samples still being solved; nothing mixes samples. `driver.solve` iterates them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np

from qiskit_qdeq._numbers import keep_integer, keep_real
from qiskit_qdeq.evaluation.linear import solve_adjoint
from qiskit_qdeq.exceptions import InputError

#: What is left of a Newton step that is shortened once.
SHRINK = 0.25

Array = np.ndarray[Any, np.dtype[Any]]
Memory = dict[str, Array]


@dataclass(frozen=True)
class Solver:
    """Hyper-parameters every solver has.

    A sample has converged once ‖g‖₂ ≤ max(tol, rtol · ‖m‖₂), or once a measured g cannot be told from shot noise.

    Args:
        tol: absolute tolerance on the residual ‖m(q) - q‖₂; states are expectation values, so 1 is large.
        rtol: tolerance relative to ‖m(q)‖₂, 0 to ignore.
        max_steps: steps after which a sample is given up.
        confidence: of the noise floor, see `noise.within_noise`; no effect on exact evaluators.
        averaging: measurements within noise whose states, each moved on by the solver's step, are averaged; no effect on
            exact evaluators.
    """

    name: ClassVar[str] = ""
    needs_jacobian: ClassVar[bool] = False

    tol: float = 1e-6
    rtol: float = 0.0
    max_steps: int = 50
    confidence: float = 0.95
    averaging: int = 1

    def __post_init__(self) -> None:
        keep_real(self, "tol", 0, np.inf)
        keep_real(self, "rtol", 0, np.inf)
        keep_integer(self, "max_steps", 1)
        keep_real(self, "confidence", 0, 1)
        if self.confidence in (0, 1):
            raise InputError(f"confidence must be between 0 and 1, got {self.confidence!r}")
        keep_integer(self, "averaging", 1)

    @property
    def shortenings(self) -> int:
        """How often a step that does not lower the residual is shortened."""
        return 0

    def start(self, residuals: Array, jacobian: Array | None) -> Memory:
        """What the solver remembers of each sample at first; arrays have the samples in front."""
        return {}

    def propose(self, memory: Memory, residuals: Array, jacobian: Array | None) -> Array:
        """The step δ (b, K) from residual vectors g (b, K)."""
        raise NotImplementedError

    def update(self, memory: Memory, step: Array, change: Array) -> None:
        """Learn from a step s (b, K) and the change y = g_new - g_old (b, K) it made."""


@dataclass(frozen=True)
class Newton(Solver):
    """Newton's method with the exact K × K Jacobian; a step that does not lower the residual is shortened.

    With amplitude encoding the whole solve is compiled and runs no circuit. It needs the fewest steps of all solvers and
    finds equilibria where the map is no contraction. Where no step lowers the residual any more, a sample starts again
    with Broyden, and Newton finishes; samples that converge cost nothing more.

    Args:
        tol, rtol: see `Solver`.
        max_steps: Newton steps after which a sample is given up; a rescued sample has them once more.
        max_shortenings: how often a step is cut to a quarter before a sample counts as stalled.
        rescue_steps: most Broyden steps of a stalled sample; 0 leaves it stalled.
    """

    name: ClassVar[str] = "newton"
    needs_jacobian: ClassVar[bool] = True

    max_shortenings: int = 4
    rescue_steps: int = 200

    def __post_init__(self) -> None:
        super().__post_init__()
        keep_integer(self, "max_shortenings", 0)
        keep_integer(self, "rescue_steps", 0)

    @property
    def shortenings(self) -> int:
        return self.max_shortenings

    def propose(self, memory: Memory, residuals: Array, jacobian: Array | None) -> Array:
        assert jacobian is not None
        matrix = np.eye(residuals.shape[1], dtype=residuals.dtype) - jacobian
        return solve_linear(matrix, residuals)


@dataclass(frozen=True)
class Broyden(Solver):
    """Good Broyden, per sample, no line search: the paper's solver.

    Args:
        tol, rtol, max_steps: see `Solver`.
        start_inverse: "identity" starts at H = -1 (the paper), "jacobian" at the exact inverse at the first iterate.
    """

    name: ClassVar[str] = "broyden"

    start_inverse: str = "identity"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.start_inverse not in {"identity", "jacobian"}:
            raise InputError(f"start_inverse must be 'identity' or 'jacobian', got {self.start_inverse!r}")

    @property
    def starts_with_jacobian(self) -> bool:
        """Whether the first evaluation has to bring the Jacobian."""
        return self.start_inverse == "jacobian"

    def start(self, residuals: Array, jacobian: Array | None) -> Memory:
        batch, size = residuals.shape
        unit = np.broadcast_to(np.eye(size, dtype=residuals.dtype), (batch, size, size))
        if jacobian is None:
            return {"inverse": -unit}
        columns = [solve_linear(jacobian - unit, unit[:, :, k]) for k in range(size)]
        return {"inverse": np.stack(columns, axis=2)}

    def propose(self, memory: Memory, residuals: Array, jacobian: Array | None) -> Array:
        return -np.einsum("bij,bj->bi", memory["inverse"], residuals)

    def update(self, memory: Memory, step: Array, change: Array) -> None:
        inverse = memory["inverse"]
        moved = np.einsum("bij,bj->bi", inverse, change)
        row = np.einsum("bi,bij->bj", step, inverse)
        scale = np.einsum("bi,bi->b", step, moved)
        # a vanishing denominator carries no information: keep H
        safe = np.abs(scale) > np.finfo(scale.dtype).tiny
        factor = np.where(safe, 1 / np.where(safe, scale, 1), 0)
        memory["inverse"] = inverse + (factor[:, None] * (step - moved))[:, :, None] * row[:, None, :]


@dataclass(frozen=True)
class Anderson(Solver):
    """Anderson acceleration over the last `memory` steps.

    Args:
        tol, rtol, max_steps: see `Solver`.
        memory: differences kept.
        mixing: β, the share of the residual taken.
    """

    name: ClassVar[str] = "anderson"

    memory: int = 5
    mixing: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        keep_integer(self, "memory", 1)
        keep_real(self, "mixing", 0, 1, open_lower=True)

    def start(self, residuals: Array, jacobian: Array | None) -> Memory:
        empty = np.zeros((len(residuals), 0, residuals.shape[1]), dtype=residuals.dtype)
        return {"steps": empty, "changes": empty}

    def propose(self, memory: Memory, residuals: Array, jacobian: Array | None) -> Array:
        plain: Array = self.mixing * residuals
        if memory["steps"].shape[1] == 0:
            return plain
        changes = memory["changes"]
        # pinv instead of normal equations: differences become nearly parallel as a sample converges
        scale = np.linalg.norm(changes, axis=2, keepdims=True)
        unit = changes / np.where(scale > 0, scale, 1)
        inverse = np.linalg.pinv(np.swapaxes(unit, 1, 2), rcond=1e-10)
        share = np.einsum("bmk,bk->bm", inverse, residuals) / np.where(scale > 0, scale, 1)[:, :, 0]
        return plain - np.einsum("bm,bmk->bk", share, memory["steps"] + self.mixing * changes)

    def update(self, memory: Memory, step: Array, change: Array) -> None:
        keep = slice(-self.memory, None)
        memory["steps"] = np.concatenate([memory["steps"], step[:, None]], axis=1)[:, keep]
        memory["changes"] = np.concatenate([memory["changes"], change[:, None]], axis=1)[:, keep]


@dataclass(frozen=True)
class Picard(Solver):
    """Fixed-point iteration q <- q + damping (m(q) - q); damping 1 is what L explicit layers do.

    Args:
        tol, rtol, max_steps: see `Solver`.
        damping: in (0, 1].
    """

    name: ClassVar[str] = "picard"

    max_steps: int = 200
    damping: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        keep_real(self, "damping", 0, 1, open_lower=True)

    def propose(self, memory: Memory, residuals: Array, jacobian: Array | None) -> Array:
        product: Array = self.damping * residuals
        return product


def solver(name: str | Solver, **options: Any) -> Any:
    """The solver of a name: newton, broyden, anderson, picard, probe or scipy:<method of scipy.optimize.root>.

    Args:
        name: the name, or a solver, which is returned as it is.
        options: its hyper-parameters.

    Raises:
        InputError: for an unknown name or option, listing those there are.

    >>> solver("picard", damping=0.5)
    Picard(tol=1e-06, rtol=0.0, max_steps=200, confidence=0.95, averaging=1, damping=0.5)
    """
    from qiskit_qdeq.equilibrium.probe import Probe
    from qiskit_qdeq.equilibrium.scipy_root import METHODS, ScipyRoot

    if isinstance(name, Solver):
        if options:
            raise InputError(f"options {sorted(options)} cannot be given beside a solver object")
        return name
    kinds: dict[str, type[Solver]] = {kind.name: kind for kind in (Newton, Broyden, Anderson, Picard, Probe)}
    known = [*kinds, *(f"scipy:{method}" for method in METHODS)]
    if not isinstance(name, str) or name not in known:
        raise InputError(f"solver must be one of {known}, got {name!r}")
    kind: type[Solver] = kinds.get(name, ScipyRoot)
    if kind is ScipyRoot:
        options = {"method": name.removeprefix("scipy:"), **options}
    allowed = [field.name for field in fields(kind)]
    unknown = sorted(set(options) - set(allowed))
    if unknown:
        raise InputError(f"solver {name!r} has no option {unknown}; its options are {allowed}")
    return kind(**options)


def solve_linear(matrix: Array, rhs: Array) -> Array:
    """matrix⁻¹ rhs for every sample, (b, K, K), (b, K); NaN where a matrix is singular."""
    # the compiled routine solves (1 - Aᵀ) y = c
    adjoint = np.eye(rhs.shape[1], dtype=matrix.dtype) - np.swapaxes(matrix, 1, 2)
    return solve_adjoint(adjoint, rhs)
