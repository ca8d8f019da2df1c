"""DIRECT-L: L explicit applications of the map and the true gradient through all of them.

    q_0 = 0,  q_{l+1} = m(x + P q_l; θ),  h read at q_{L-1};
    λ_{L-1} = ∂L/∂q_{L-1},  λ_l = J_lᵀ λ_{l+1},  dL/dθ = readout part at q_{L-1} + Σ_l λ_{l+1}ᵀ ∂m(q_l)/∂θ.

The last application is the one that measures the readout, so DIRECT-1 is the plain circuit h(x).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from qiskit_qdeq.evaluation.protocol import Cotangent, EquilibriumMap, EvaluationPoint
from qiskit_qdeq.exceptions import InputError

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class DirectPass:
    """The points visited by L layers; the last one is read out."""

    points: tuple[EvaluationPoint, ...]

    @property
    def last(self) -> EvaluationPoint:
        """The point whose readout observables are measured."""
        return self.points[-1]

    def terms(self, feature_cotangent: Array) -> list[Cotangent]:
        """The summands of dL/dθ for ∂L/∂h (B, F)."""
        terms = [Cotangent(self.last, features=feature_cotangent)]
        if len(self.points) == 1:
            return terms
        cotangent = self.last.pull_features(feature_cotangent)
        for point in reversed(self.points[:-1]):
            terms.append(Cotangent(point, values=cotangent))
            if point is not self.points[0]:
                cotangent = np.einsum("bjk,bj->bk", point.jacobian, cotangent)
        return terms


def direct_pass(problem: EquilibriumMap, layers: int) -> DirectPass:
    """Run L explicit layers from the zero state.

    Raises:
        InputError: for fewer than one layer.
    """
    if layers < 1:
        raise InputError(f"layers must be >= 1, got {layers}")
    points = [problem.at(np.zeros((problem.batch, problem.num_states)))]
    for _ in range(layers - 1):
        points.append(problem.at(points[-1].values))
    return DirectPass(tuple(points))
