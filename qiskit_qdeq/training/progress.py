"""A progress bar a person can follow: epoch, loss, accuracy, residual; and a word while kernels are compiled."""

from __future__ import annotations

import sys
import threading
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

from numba.core import event
from tqdm.auto import tqdm

from qiskit_qdeq.training.step import StepResult
from qiskit_qdeq.training.trainer import Trainer

#: Seconds without a step after which a person wants to know why.
_PATIENCE = 2.0


class ProgressBar:
    """A `Trainer` callback; a context manager, so that the bar is closed on any exit."""

    def __init__(self, enabled: bool = True) -> None:
        self._enabled = enabled
        self._bar: Any = None
        self._before_first_step = ExitStack()

    def __enter__(self) -> Self:
        if self._enabled:
            compilations = self._before_first_step.enter_context(event.install_recorder("numba:compile"))
            timer = threading.Timer(_PATIENCE, _explain_the_wait, [compilations.buffer])
            timer.daemon = True
            timer.start()
            self._before_first_step.callback(timer.cancel)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._before_first_step.close()
        if self._bar is not None:
            self._bar.close()

    def on_step(self, trainer: Trainer, result: StepResult) -> None:
        """Advance by one step."""
        if self._bar is None:
            self._before_first_step.close()
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


def _explain_the_wait(compilations: list[Any]) -> None:
    # kernels kept on disk are loaded without such an event: then it is the step itself that takes this long
    if compilations:
        print("compiling kernels, once per machine and version (about 15 s) ...", file=sys.stderr, flush=True)
