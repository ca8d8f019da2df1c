"""What a training run tells others: callbacks while it goes on, a result at its end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from qiskit_qdeq.training.step import StepResult

if TYPE_CHECKING:
    from qiskit_qdeq.training.trainer import Trainer

Array = np.ndarray[Any, np.dtype[Any]]


class Callback(Protocol):
    """Is told what happens; what it raises ends the run, after the checkpoint of that epoch has been written.

    One that also has a method ``on_job(event)`` is told of jobs at a service, see `execution.events.JobEvent`.
    """

    def on_step(self, trainer: Trainer, result: StepResult) -> None:
        """After every optimizer step."""

    def on_epoch(self, trainer: Trainer, record: dict[str, float]) -> None:
        """After every epoch, with its history record."""


@dataclass(frozen=True)
class TrainingResult:
    """A finished run.

    Attributes:
        parameters: of the best validation loss; the last ones where nothing was validated.
        last_parameters: after the last step.
        history: one record per epoch.
        best_epoch: epoch of `parameters`, -1 where nothing was validated.
        steps: optimizer steps.
        stopped: why the run ended early, or "".
    """

    parameters: Array
    last_parameters: Array
    history: list[dict[str, float]]
    best_epoch: int
    steps: int
    stopped: str
