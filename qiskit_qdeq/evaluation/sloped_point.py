"""What follows from the derivatives along q of all measured observables, wherever they come from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from qiskit_qdeq.evaluation.linear import solve_adjoint
from qiskit_qdeq.evaluation.protocol import Cotangent

Array = np.ndarray[Any, np.dtype[Any]]


class SlopedPoint(ABC):
    """A minibatch at one state, with M observables of which some are fed back and some read out.

    Args:
        states: which of the M observables are fed back (K,).
        readouts: which are read out (F,).
    """

    def __init__(self, states: Array, readouts: Array) -> None:
        self._states, self._readouts = states, readouts

    @property
    @abstractmethod
    def state_slopes(self) -> Array:
        """∂<M>/∂q (B, M, K)."""

    @property
    def jacobian(self) -> Array:
        """∂m/∂q (B, K, K)."""
        return self.state_slopes[:, self._states]

    def pull_features(self, cotangent: Array) -> Array:
        """(∂h/∂q)ᵀ cotangent, (B, F) -> (B, K)."""
        result: Array = np.einsum("bfk,bf->bk", self.state_slopes[:, self._readouts], cotangent)
        return result

    def implicit_term(self, cotangent: Array) -> Cotangent:
        """λ = (1 - Jᵀ)⁻¹ (∂h/∂q)ᵀ cotangent, (B, F) -> (B, K), with the features' own part."""
        adjoint = solve_adjoint(self.jacobian, self.pull_features(cotangent))
        return Cotangent(self, values=adjoint, features=cotangent)  # type: ignore[arg-type]
