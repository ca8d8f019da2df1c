"""Jacobian regularization at the equilibrium, q* held fixed (Bai, Koltun, Kolter 2021), exact in the reduced space.

    state        γ/B Σ_b ‖J_b‖²_F,        J = ∂m/∂q (K × K)
    input        γ/B Σ_b ‖∂m_b/∂u‖²_F,    (K × D)
    hutchinson   γ/(B D) Σ_b ‖vᵀ P ∂m_b/∂u‖²,  one Gaussian v in R^D per sample: the paper's estimate in its D space

Each is a sum of directional derivatives of m, so its weight gradient rides on the same adjoint pass as the loss's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from qiskit_qdeq._numbers import real
from qiskit_qdeq.evaluation.protocol import Cotangent, EvaluationPoint
from qiskit_qdeq.exceptions import InputError

Array = np.ndarray[Any, np.dtype[Any]]

_KINDS = ("none", "state", "input", "hutchinson")


@dataclass(frozen=True)
class Regularization:
    """What is penalized and how much.

    Args:
        kind: "none", "state", "input" or "hutchinson".
        strength: γ ≥ 0.

    Raises:
        InputError: for an unknown kind or a negative or non-finite strength.
    """

    kind: str = "none"
    strength: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise InputError(f"regularization must be one of {list(_KINDS)}, got {self.kind!r}")
        strength = real("Regularization", "regularization_strength", self.strength, 0, np.inf)
        object.__setattr__(self, "strength", strength)
        if (self.kind == "none") != (self.strength == 0):
            raise InputError(
                f"regularization {self.kind!r} with regularization_strength {self.strength!r} has no effect: give a kind "
                f"other than 'none' ({', '.join(_KINDS[1:])}) and a strength > 0, or neither"
            )

    @property
    def active(self) -> bool:
        """Whether anything is added to the loss."""
        return self.kind != "none" and self.strength > 0

    def penalty(
        self, point: EvaluationPoint, injection: Array, rng: np.random.Generator | None
    ) -> tuple[float, Cotangent]:
        """The penalty and the summand of its weight gradient.

        Args:
            point: the map at q*.
            injection: P (D, K).
            rng: for "hutchinson".
        """
        batch, size = point.state.shape
        if self.kind == "state":
            jacobian = point.jacobian
            scale = self.strength / batch
            directions = injection.T[None].astype(jacobian.dtype)
            return scale * float(np.sum(jacobian**2)), Cotangent(
                point, directions=directions, slopes=2 * scale * jacobian
            )
        if self.kind == "input":
            slopes = point.input_jacobian
            scale = self.strength / batch
            unit = np.broadcast_to(2 * scale * np.eye(size, dtype=slopes.dtype), (batch, size, size))
            return scale * float(np.sum(slopes**2)), Cotangent(point, directions=slopes, slopes=unit)
        if rng is None:
            raise InputError("rng is needed for the Hutchinson estimate")
        scale = self.strength / (batch * len(injection))
        probe = (rng.standard_normal((batch, len(injection))) @ injection).astype(point.values.dtype)
        product = point.pull_inputs(probe)
        return scale * float(np.sum(product**2)), Cotangent(
            point, directions=product[:, None], slopes=2 * scale * probe[:, :, None]
        )
