"""Which samples a training step takes: each epoch's own permutation, cut into minibatches."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from qiskit_qdeq.training.state import ORDER, START, stream

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


class RandomStarts:
    """First iterates of start "random": uniform in [-1, 1]^K, for every sample another one in every epoch.

    A sample comes once in an epoch, and its draw depends on its index and not on the minibatch it is in.
    """

    def __init__(self, samples: int, num_states: int, seed: int) -> None:
        self._shape, self._seed = (samples, num_states), seed
        self._drawn: tuple[int, Array] | None = None

    def of(self, epoch: int, rows: Array) -> Array:
        """Those of the samples `rows` in an epoch (b, K)."""
        if self._drawn is None or self._drawn[0] != epoch:
            self._drawn = epoch, stream(self._seed, START, epoch).uniform(-1, 1, self._shape)
        return self._drawn[1][rows]
