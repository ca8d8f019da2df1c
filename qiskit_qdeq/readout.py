"""From measured features to class logits: logits = W a(d ⊙ h) + b, a linear layer and nothing more.

h (B, F) are the readout observables at the equilibrium, a is the identity or relu, d the dropout mask of training, drawn
once per sample and step. With `repeat` r every feature enters r times, as in the paper, whose head acts on z* = P q*.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np

from qiskit_qdeq.evaluation.jit import JIT
from qiskit_qdeq.exceptions import InputError

Array = np.ndarray[Any, np.dtype[Any]]

ACTIVATIONS = ("identity", "relu")


@dataclass(frozen=True)
class Readout:
    """The linear head.

    Args:
        num_features: F, readout observables.
        num_classes: C.
        activation: "identity" or "relu" (the paper; it throws negative expectation values away).
        repeat: how often each feature enters.

    Raises:
        InputError: for an unknown activation or sizes below 1.
    """

    num_features: int
    num_classes: int
    activation: str = "identity"
    repeat: int = 1

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise InputError(f"activation must be one of {list(ACTIVATIONS)}, got {self.activation!r}")
        for name in ("num_features", "num_classes", "repeat"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be >= 1, got {getattr(self, name)!r}")

    @property
    def width(self) -> int:
        """Inputs of the linear layer, F · repeat."""
        return self.num_features * self.repeat

    @property
    def shapes(self) -> tuple[tuple[int, int], tuple[int]]:
        """Shapes of W and b."""
        return (self.num_classes, self.width), (self.num_classes,)

    def activate(self, features: Array, mask: Array | None = None) -> Array:
        """a(d ⊙ h), (B, F) -> (B, F · repeat)."""
        inputs = np.repeat(features, self.repeat, axis=1) if self.repeat > 1 else features
        if mask is not None:
            inputs = inputs * mask
        return np.maximum(inputs, 0) if self.activation == "relu" else inputs

    def pull_back(self, cotangent: Array, inputs: Array, mask: Array | None = None) -> Array:
        """∂L/∂h (B, F) from ∂L/∂a (B, F · repeat); `inputs` is what `activate` returned."""
        if self.activation == "relu":
            cotangent = cotangent * (inputs > 0)
        if mask is not None:
            cotangent = cotangent * mask
        if self.repeat > 1:
            cotangent = cotangent.reshape(len(cotangent), self.num_features, self.repeat).sum(axis=2)
        return cotangent

    def dropout_mask(self, batch: int, rate: float, rng: np.random.Generator | None, dtype: Any) -> Array | None:
        """d: entries 0 with probability `rate`, else 1 / (1 - rate); None without dropout."""
        if rate == 0 or rng is None:
            return None
        kept = rng.random((batch, self.width), dtype=np.float32) >= rate
        return kept.astype(dtype) / (1 - rate)


def softmax(logits: Array) -> Array:
    """Class probabilities (B, C)."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    shifted /= shifted.sum(axis=1, keepdims=True)
    return shifted


def cross_entropy(logits: Array, labels: Array) -> tuple[float, Array, int]:
    """Mean cross-entropy -1/B Σ_b log p_b[y_b], its derivative with respect to the logits (B, C), and samples right."""
    gradient = np.empty_like(logits)
    loss, correct = _cross_entropy(logits, labels, gradient)
    return loss, gradient, correct


@numba.njit(**JIT)  # type: ignore[misc]
def _cross_entropy(logits, labels, gradient):  # type: ignore[no-untyped-def]
    batch, classes = logits.shape
    loss, correct = 0.0, 0
    for b in range(batch):
        if not 0 <= labels[b] < classes:
            raise IndexError("label outside the classes of the logits")
        best = 0
        for c in range(1, classes):
            # a NaN wins, so that it is not lost
            if not logits[b, c] <= logits[b, best]:
                best = c
        total = 0.0
        for c in range(classes):
            gradient[b, c] = np.exp(logits[b, c] - logits[b, best])
            total += gradient[b, c]
        for c in range(classes):
            gradient[b, c] /= total * batch
        gradient[b, labels[b]] -= 1 / batch
        loss += np.log(total) - (logits[b, labels[b]] - logits[b, best])
        correct += 1 if best == labels[b] else 0
    return loss / batch, correct
