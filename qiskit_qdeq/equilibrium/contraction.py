"""How far the map q -> m(x + P q) is from a contraction at and around its equilibrium, sample by sample.

    ρ(J), ‖J‖₂ at q*;   Lip ≥ sup over the box [-1, 1]^K of ‖∂m/∂q‖₂;   ‖q - q*‖ ≤ ‖g(q)‖ / (1 - Lip) where Lip < 1.

Where Lip < 1 the equilibrium is unique and plain iteration finds it (Banach). Where it is not, several may exist, and a
search from other starts tells whether a second one was found.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from qiskit_qdeq._html import facts, spread
from qiskit_qdeq.equilibrium.driver import solve
from qiskit_qdeq.equilibrium.solution import Solution
from qiskit_qdeq.equilibrium.solvers import Newton, Solver
from qiskit_qdeq.evaluation.protocol import EquilibriumMap
from qiskit_qdeq.exceptions import InputError

Array = np.ndarray[Any, np.dtype[Any]]

#: Two solved states further apart than this are two equilibria.
DISTINCT = 1e-3


@dataclass(frozen=True)
class ContractionReport:
    """Contraction of the map of B samples.

    Attributes:
        spectral_radius: ρ(J) at q*, (B,): plain iteration converges nearby where it is below 1.
        singular_value: ‖J‖₂ at q*, (B,).
        lipschitz: a bound on ‖∂m/∂q‖₂ over the whole state box, (B,); infinite where none is known.
        error_bound: ‖g‖ / (1 - lipschitz), (B,); infinite where `lipschitz` is not below 1.
        equilibria: distinct equilibria found from all starts, (B,).
        starts: random starts from which they were sought, (B,); without any, `equilibria` has only the solution's.
    """

    spectral_radius: Array
    singular_value: Array
    lipschitz: Array
    error_bound: Array
    equilibria: Array
    starts: Array

    def __str__(self) -> str:
        lines = [f"  {name.ljust(17)} {value}" for name, value in self._rows().items()]
        return "\n".join([f"contraction over {len(self.spectral_radius)} samples", *lines])

    def __repr__(self) -> str:
        if not len(self.spectral_radius):
            return "ContractionReport(0 samples)"
        several = f", {np.mean(self.equilibria > 1):.1%} with several equilibria" if self.starts.any() else ""
        radius = spread(self.spectral_radius, ".3f")
        return f"ContractionReport({len(self.spectral_radius)} samples, spectral radius {radius}{several})"

    def _repr_html_(self) -> str:
        return facts(f"contraction over {len(self.spectral_radius)} samples", self._rows())

    def _rows(self) -> dict[str, str]:
        if not len(self.spectral_radius):
            return {}
        several = f"found for {np.mean(self.equilibria > 1):.1%}" if self.starts.any() else "not sought (starts=0)"
        return {
            "spectral radius": f"{spread(self.spectral_radius, '.3f')} (above 1: {np.mean(self.spectral_radius > 1):.1%})",
            "‖J‖₂ at q*": spread(self.singular_value, ".3f"),
            "Lipschitz bound": f"{spread(self.lipschitz, '.3f')} (below 1: {np.mean(self.lipschitz < 1):.1%})",
            "error bound": f"median {np.median(self.error_bound):.2g}",
            "several equilibria": several,
        }


def contraction(
    problem: EquilibriumMap,
    solution: Solution,
    lipschitz: Array,
    *,
    starts: int = 0,
    solver: Solver | None = None,
    seed: int | np.random.Generator | None = 0,
) -> ContractionReport:
    """Measure how far a solved map is from a contraction.

    Args:
        problem: the map of the minibatch.
        solution: its equilibria.
        lipschitz: bound over the state box per sample (B,), from `QDEQModel.lipschitz_bound`.
        starts: random starts in [-1, 1]^K from which further equilibria are sought; 0 seeks none.
        solver: for that search; Newton if None.
        seed: of the starts.

    Raises:
        InputError: for a negative number of starts.
    """
    if starts < 0:
        raise InputError(f"starts must be >= 0, got {starts}")
    jacobian = problem.at(solution.state).jacobian
    with np.errstate(divide="ignore", invalid="ignore"):
        bound = np.where(lipschitz < 1, solution.residual / np.maximum(1 - lipschitz, 0), np.inf)
    return ContractionReport(
        np.abs(np.linalg.eigvals(jacobian)).max(axis=1),
        np.linalg.norm(jacobian, ord=2, axis=(1, 2)),
        lipschitz,
        bound,
        _count_equilibria(problem, solution, starts, solver or Newton(tol=1e-9), np.random.default_rng(seed)),
        np.full(len(lipschitz), starts),
    )


def _count_equilibria(
    problem: EquilibriumMap, solution: Solution, starts: int, solver: Solver, rng: np.random.Generator
) -> Array:
    found = [[state] if ok else [] for state, ok in zip(solution.state, solution.converged, strict=True)]
    for _ in range(starts):
        start: Array = rng.uniform(-1, 1, solution.state.shape)  # type: ignore[assignment]
        other = solve(problem, solver, start, on_failure="accept")
        for row in np.flatnonzero(other.converged):
            if all(np.linalg.norm(other.state[row] - state) > DISTINCT for state in found[row]):
                found[row].append(other.state[row])
    return np.array([len(states) for states in found])


def amplitude_lipschitz(inputs: Array, injection: Array, norms: Array) -> Array:
    """Bound on ‖∂m/∂q‖₂ over q in [-1, 1]^K for amplitude encoding, (B,).

    m_j is a Rayleigh quotient of A_j, so ∂m_j/∂u = 2 (A_j - m_j) u / uᵀu has length at most 2 ‖M_j‖ / ‖u‖ and

        ‖∂m/∂q‖₂ ≤ 2 ‖P‖₂ (Σ_j ‖M_j‖²)^(1/2) / min_q ‖x + P q‖,

    which is the paper's 2n / ‖u‖ for K = n, P = nearest-neighbour upsampling.

    Args:
        inputs: x, (B, D).
        injection: P, (D, K).
        norms: ‖M_j‖, (K,).
    """
    gram = injection.T @ injection
    overlap = inputs @ injection
    spread = np.linalg.norm(injection, 2)
    length = np.linalg.norm(inputs, axis=1)
    if np.allclose(gram, np.diag(np.diag(gram))) and np.diag(gram).all():
        # columns of P are orthogonal: the minimum over the box separates
        nearest = np.clip(-overlap / np.diag(gram), -1, 1)
        squared = length**2 + (2 * overlap * nearest + np.diag(gram) * nearest**2).sum(axis=1)
        shortest = np.sqrt(np.maximum(squared, 0))
    else:
        shortest = np.maximum(length - spread * np.sqrt(injection.shape[1]), 0)
    with np.errstate(divide="ignore"):
        bound: Array = 2 * spread * np.linalg.norm(norms) / shortest
    return bound


def rotation_lipschitz(injection: Array, norms: Array, batch: int) -> Array:
    """The same for one rotation exp(-i u_g G_g / 2) per input: |∂m_j/∂u_g| ≤ ‖M_j‖, so ‖∂m/∂q‖₂ ≤ (Σ_j ‖M_j‖²)^(1/2) c.

    c² is the smaller of Σ_k (Σ_g |P_gk|)² and D ‖P‖₂².
    """
    by_entries = np.linalg.norm(np.abs(injection).sum(axis=0))
    by_norm = np.sqrt(len(injection)) * np.linalg.norm(injection, 2)
    return np.full(batch, np.linalg.norm(norms) * min(by_entries, by_norm))
