"""From measured features to class logits: logits = W a(d ⊙ h) + b, a linear layer and nothing more, or not even that.

h (B, F) are the readout observables at the equilibrium, a is the identity or relu, d the dropout mask of training, drawn
once per sample and step. With `repeat` r every feature enters r times, as in the paper, whose head acts on z* = P q*.
Without a head W = 1 and b = 0 stay as they are: a class per feature, as in Wang et al. 2022 (QuantumNAS).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numba
import numpy as np

from qiskit_qdeq.evaluation.jit import JIT
from qiskit_qdeq.exceptions import InputError

Array = np.ndarray[Any, np.dtype[Any]]

ACTIVATIONS = ("identity", "relu")
HEADS = ("linear", "none")


@dataclass(frozen=True)
class Readout:
    """The head.

    Args:
        num_features: F, readout observables.
        num_classes: C.
        activation: "identity" or "relu" (the paper; it throws negative expectation values away).
        repeat: how often each feature enters.
        head: "linear", or "none": logits = a(d ⊙ h), nothing to train, F · repeat must be C.

    Raises:
        InputError: for an unknown activation or head, sizes below 1, or features without a head that are not C.
    """

    num_features: int
    num_classes: int
    activation: str = "identity"
    repeat: int = 1
    # not in the repr, whose digest is in the files of models saved before there was a choice
    head: str = field(default="linear", repr=False)

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise InputError(f"activation must be one of {list(ACTIVATIONS)}, got {self.activation!r}")
        if self.head not in HEADS:
            raise InputError(f"head must be one of {list(HEADS)}, got {self.head!r}")
        for name in ("num_features", "num_classes", "repeat"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be >= 1, got {getattr(self, name)!r}")
        if self.head == "none" and self.width != self.num_classes:
            raise InputError(
                f"head 'none' reads one logit per class, but {self.num_features} readout observables entering {self.repeat} "
                f"times each make {self.width} for {self.num_classes} classes: choose another readout ('z' has one per "
                "qubit), repeat 1, or head 'linear'"
            )

    @property
    def width(self) -> int:
        """Inputs of the linear layer, F · repeat."""
        return self.num_features * self.repeat

    @property
    def num_parameters(self) -> int:
        """Trained entries of W and b."""
        return 0 if self.head == "none" else self.num_classes * (self.width + 1)

    @property
    def shapes(self) -> tuple[tuple[int, int], tuple[int]]:
        """Shapes of W and b."""
        return (self.num_classes, self.width), (self.num_classes,)

    def split(self, parameters: Array) -> tuple[Array, Array]:
        """W (C, width) and b (C,) from this part of the flat parameters; constants 1 and 0 without a head."""
        if self.head == "none":
            return np.eye(self.num_classes, dtype=parameters.dtype), np.zeros(self.num_classes, parameters.dtype)
        return parameters[: -self.num_classes].reshape(self.shapes[0]), parameters[-self.num_classes :]

    def gradient(self, slope: Array, inputs: Array) -> Array:
        """∂L/∂(W, b), flat, from ∂L/∂logits (B, C) and what `activate` returned."""
        if self.head == "none":
            return np.zeros(0, dtype=slope.dtype)
        return np.concatenate([(slope.T @ inputs).ravel(), slope.sum(axis=0)])

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
