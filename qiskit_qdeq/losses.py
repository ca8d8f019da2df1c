"""Losses of training: what a minibatch's outputs are worth, and the derivative of that.

cross_entropy   -1/B Σ_b log softmax(o_b)[y_b],     labels y (B,) of C classes
squared_error   1/(B C) Σ_bc (o_bc - y_bc)²,        targets y (B, C)
"""

from __future__ import annotations

from typing import Any

import numpy as np

from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.readout import cross_entropy

Array = np.ndarray[Any, np.dtype[Any]]

LOSSES = ("cross_entropy", "squared_error")


def loss_and_slope(loss: str, outputs: Array, targets: Array) -> tuple[float, Array, int | None]:
    """The loss of outputs (B, C), its derivative with respect to them, and how many samples are right (None: not counted).

    >>> import numpy as np
    >>> value, slope, _ = loss_and_slope("squared_error", np.array([[1.0], [2.0]]), np.array([[1.0], [0.0]]))
    >>> value, slope.tolist()
    (2.0, [[0.0], [2.0]])
    """
    if loss == "cross_entropy":
        return cross_entropy(outputs, targets)
    gap = outputs - targets
    # squares of what is far off may be infinite, which the trainer reports
    with np.errstate(over="ignore", invalid="ignore"):
        return float(np.mean(gap**2)), 2 * gap / gap.size, None


def checked_targets(loss: str, targets: Any, samples: int, outputs: int, dtype: str, name: str, of: str) -> Array:
    """What the loss compares outputs with: labels (samples,), or targets (samples, outputs) of type `dtype`.

    Raises:
        InputError: for another shape, labels out of range, or targets that are not finite; `name` and `of` say which.
    """
    array = np.asarray(targets)
    if loss == "cross_entropy":
        if outputs < 2:
            raise InputError(f"num_classes must be >= 2, got {outputs}: one class leaves nothing to learn")
        if array.shape != (samples,):
            raise InputError(f"{name} must have shape ({samples},) to match {of}, got {array.shape}")
        if samples and (array.dtype.kind not in "iu" or array.min() < 0 or array.max() >= outputs):
            raise InputError(f"{name} must hold integers 0..{outputs - 1}")
        return array
    if array.shape != (samples, outputs):
        raise InputError(
            f"{name} must have shape ({samples}, {outputs}), a target per output of every sample of {of}, got {array.shape}"
        )
    if array.dtype.kind not in "iuf" or not np.isfinite(array).all():
        raise InputError(f"{name} must hold finite numbers")
    return array.astype(dtype)
