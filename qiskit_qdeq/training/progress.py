"""A progress bar a person can follow: epoch, loss, accuracy, residual."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from tqdm.auto import tqdm

from qiskit_qdeq.training.step import StepResult
from qiskit_qdeq.training.trainer import Trainer


class ProgressBar:
    """A `Trainer` callback; a context manager, so that the bar is closed on any exit."""

    def __init__(self, enabled: bool = True) -> None:
        self._enabled = enabled
        self._bar: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def on_step(self, trainer: Trainer, result: StepResult) -> None:
        """Advance by one step."""
        if self._bar is None:
            self._bar = tqdm(
                total=trainer.total_steps,
                initial=trainer.state.step - 1,
                desc="training",
                unit="step",
                disable=not self._enabled,
                mininterval=0.2,
            )
        self._bar.update(1)

    def on_epoch(self, trainer: Trainer, record: dict[str, float]) -> None:
        """Show the finished epoch's figures."""
        if self._bar is None:
            return
        shown = {"epoch": f"{int(record['epoch'])}/{trainer.config.epochs}", "loss": f"{record['loss']:.3f}"}
        accuracy = record.get("valid_accuracy", record["accuracy"])
        shown["valid acc" if "valid_accuracy" in record else "acc"] = f"{accuracy:.1%}"
        if trainer.config.mode == "implicit":
            shown["residual"] = f"{record['residual']:.0e}"
        self._bar.set_postfix(shown, refresh=False)
