"""What a training run tells others: callbacks and the log while it goes on, a result at its end."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from qiskit_qdeq._html import grid
from qiskit_qdeq.training.step import StepResult

if TYPE_CHECKING:
    from qiskit_qdeq.training.trainer import Trainer

Array = np.ndarray[Any, np.dtype[Any]]

logger = logging.getLogger("qiskit_qdeq.training")

#: Figures of the history that a result shows.
_FIGURES = ("loss", "accuracy", "valid_loss", "valid_accuracy", "residual", "unconverged")


class Callback(Protocol):
    """Is told what happens; what it raises ends the run, after the checkpoint of that epoch has been written.

    It may have three methods more, which are called if they are there:

    - ``on_start(trainer)``: `Trainer.run` begins, perhaps at a later step than the first (``trainer.state.step``);
    - ``on_evaluation(trainer, done, total)``: samples of the validation part, before it begins and after each block;
    - ``on_job(event)``: something happened to a job at a service, see `execution.events.JobEvent`.
    """

    def on_step(self, trainer: Trainer, result: StepResult) -> None:
        """After every optimizer step: ``trainer.state.step`` are taken, the last one gave `result`."""

    def on_epoch(self, trainer: Trainer, record: dict[str, float]) -> None:
        """After every epoch, with its history record."""


class Audience:
    """All who are told: callbacks, in their order, and the log.

    Args:
        callbacks: see `Callback`.
    """

    def __init__(self, callbacks: Sequence[Callback]) -> None:
        self.callbacks = tuple(callbacks)

    def listeners(self) -> list[Callable[[Any], None]]:
        """Those who want to know of jobs."""
        return self._with("on_job")

    def start(self, trainer: Trainer) -> None:
        """The run begins."""
        logger.info(
            "training on %d samples, step %d of %d", len(trainer.inputs), trainer.state.step, trainer.total_steps
        )
        for on_start in self._with("on_start"):
            on_start(trainer)

    def step(self, trainer: Trainer, result: StepResult) -> None:
        """A step was taken."""
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug("step %d: loss %.6g, %s", trainer.state.step, result.loss, result.cost)
        for callback in self.callbacks:
            callback.on_step(trainer, result)

    def epoch(self, trainer: Trainer, record: dict[str, float]) -> None:
        """An epoch has ended."""
        if logger.isEnabledFor(logging.INFO):
            logger.info("epoch %s", ", ".join(f"{name} {value:.6g}" for name, value in record.items())[len("epoch ") :])
        for callback in self.callbacks:
            callback.on_epoch(trainer, record)

    def evaluation(self, trainer: Trainer, total: int) -> Callable[[int], None]:
        """A validation of `total` samples begins; returns what is to be told of those done."""

        def tell(done: int) -> None:
            for on_evaluation in self._with("on_evaluation"):
                on_evaluation(trainer, done, total)

        tell(0)
        return tell

    def end(self, trainer: Trainer) -> None:
        """The run has ended, or was stopped."""
        reason = trainer.state.stopped or ("" if trainer.finished else "asked to")
        logger.info("training ended after step %d%s", trainer.state.step, f": {reason}" if reason else "")

    def _with(self, name: str) -> list[Callable[..., None]]:
        found = (getattr(callback, name, None) for callback in self.callbacks)
        return [method for method in found if method is not None]


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

    def __repr__(self) -> str:
        last = self.history[-1] if self.history else {}
        figures = "".join(f", {name} {last[name]:.4g}" for name in _FIGURES if name in last)
        return f"TrainingResult({', '.join(self._facts())}{figures})"

    def _repr_html_(self) -> str:
        epochs = {int(record["epoch"]): record for record in self.history}
        shown = sorted({min(epochs), max(epochs), *({self.best_epoch} & epochs.keys())}) if epochs else []
        header = ["", *(f"epoch {epoch}{' (best)' if epoch == self.best_epoch else ''}" for epoch in shown)]
        names = [name for name in _FIGURES if shown and name in epochs[shown[0]]]
        rows = [[name, *(f"{epochs[epoch][name]:.4g}" for epoch in shown)] for name in names]
        return grid("TrainingResult", header, rows, [", ".join(self._facts())])

    def _facts(self) -> list[str]:
        best = [f"best epoch {self.best_epoch}"] if self.best_epoch >= 0 else []
        stopped = [f"stopped: {self.stopped}"] if self.stopped else []
        return [f"{len(self.history)} epochs", f"{self.steps} steps", *best, *stopped]
