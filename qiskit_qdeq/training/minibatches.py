"""Which samples a training step takes: each epoch's own permutation, cut into minibatches."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from qiskit_qdeq.training.state import ORDER, stream

Array = np.ndarray[Any, np.dtype[Any]]


class Minibatches:
    """The minibatches of a run.

    Attributes:
        size: samples of all but the last one of an epoch.
        per_epoch: their number.
    """

    def __init__(self, samples: int, size: int, seed: int) -> None:
        self._samples, self._seed = samples, seed
        self.size = min(size, samples)
        self.per_epoch = math.ceil(samples / self.size)
        self._order: dict[int, Array] = {}

    def rows(self, step: int) -> Array:
        """Indices of the samples of a step."""
        epoch, position = divmod(step, self.per_epoch)
        if epoch not in self._order:
            # this epoch's and the next one's, which the last step of this one may look at
            self._order = {kept: order for kept, order in self._order.items() if kept == epoch - 1}
            self._order[epoch] = stream(self._seed, ORDER, epoch).permutation(self._samples)
        return self._order[epoch][position * self.size : (position + 1) * self.size]
