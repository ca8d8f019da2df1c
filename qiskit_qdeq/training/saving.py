"""When the checkpoint of a run is written: at the ends of epochs, not too often, and never with a run half told."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from qiskit_qdeq.exceptions import CheckpointError, InputError
from qiskit_qdeq.training.checkpoint import save_checkpoint
from qiskit_qdeq.training.state import MEASURED, TrainingState

#: Seconds of training per second of saving, at least, at the ends of epochs.
_WORK_PER_SAVE = 10

Array = np.ndarray[Any, np.dtype[Any]]


class CheckpointFile:
    """The file of a run, or none.

    Args:
        path: the file; None writes nothing.
        every: steps between checkpoints, 0 for none.
        seconds: between those at the ends of epochs; 0 for one at each.

    Raises:
        InputError: for numbers below 0.
    """

    def __init__(self, path: Path | None, every: int, seconds: float) -> None:
        if every < 0:
            raise InputError(f"checkpoint_every must be >= 0, got {every}")
        if not seconds >= 0:
            raise InputError(f"checkpoint_seconds must be a number >= 0, got {seconds}")
        self.path, self.every, self._pause = path, every, seconds
        self._saved: tuple[int, int] | None = None
        self._saved_at, self._took = -math.inf, 0.0

    @property
    def exists(self) -> bool:
        """Whether this run is in the file."""
        return self._saved is not None

    def holds(self, state: TrainingState) -> bool:
        """Whether the file has this very state."""
        return self._saved == _position(state)

    def take_as(self, state: TrainingState) -> None:
        """The file has this state: it was read from there."""
        self._saved = _position(state)

    def is_due(self, state: TrainingState, epoch_ends: bool) -> bool:
        """Whether it is time to write it again."""
        if self.every and state.step % self.every == 0:
            return True
        # an epoch may take less time than its checkpoint, which grows with the history
        pause = max(self._pause, _WORK_PER_SAVE * self._took) if self._pause else 0.0
        return epoch_ends and time.perf_counter() - self._saved_at >= pause

    def write(self, state: TrainingState, document: Mapping[str, Any], measured: Mapping[str, Array]) -> None:
        """Write the state, and what was `measured` ahead of its use; the folder is made again if it is gone.

        Raises:
            CheckpointError: if it cannot be written.
        """
        if self.path is None:
            return
        started = time.perf_counter()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = error.strerror or error
            raise CheckpointError(f"Checkpoint '{self.path}' could not be written: no folder ({reason})") from error
        arrays = {**state.arrays(), **{f"{MEASURED}{name}": array for name, array in measured.items()}}
        # beside the progress, which is the same for every repetition of the run
        save_checkpoint(self.path, arrays, {**document, "progress": state.document(), "seconds": state.clock.seconds})
        self._saved, self._saved_at = _position(state), time.perf_counter()
        self._took = self._saved_at - started


def _position(state: TrainingState) -> tuple[int, int]:
    """Steps taken and epochs told of."""
    return state.step, len(state.history)
