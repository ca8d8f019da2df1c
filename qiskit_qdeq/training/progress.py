"""Progress a person can follow: epoch, loss, accuracy, residual; where circuits are measured, also what they have cost, and
what a service is doing with them and for how long, between steps too: a long queue does not look like a hang.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self, TextIO

from numba.core import event

from qiskit_qdeq.execution.account import Account
from qiskit_qdeq.execution.events import TROUBLE, JobEvent
from qiskit_qdeq.execution.waiting import JobStatus
from qiskit_qdeq.model import QDEQModel
from qiskit_qdeq.training.display import Display, display
from qiskit_qdeq.training.step import StepResult
from qiskit_qdeq.training.trainer import Trainer

#: Seconds without a step after which a person wants to know why.
_PATIENCE = 2.0
#: Seconds between renewals of what is shown.
_RENEWAL = 1.0


class ProgressBar:
    """A `Trainer` callback, which can be told of evaluations too; a context manager, so that it ends on any exit.

    Args:
        enabled: False shows nothing at all.
        stream: where to show it; None is standard error.
    """

    def __init__(self, enabled: bool = True, stream: TextIO | None = None) -> None:
        self._enabled, self._stream = enabled, stream
        self._display: Display | None = None
        self._jobs, self._account, self._part = JobStatus(), Account(), ""
        self._begun = False
        self._noted: set[str] = set()
        self._before_first_step, self._renewing = ExitStack(), ExitStack()
        # shown by the thread that computes and by the one that renews
        self._lock = threading.RLock()

    def __enter__(self) -> Self:
        if self._enabled:
            self._display = display(self._stream)
            compilations = self._before_first_step.enter_context(event.install_recorder("numba:compile"))
            timer = threading.Timer(_PATIENCE, self._explain_the_wait, [compilations.buffer])
            timer.daemon = True
            timer.start()
            self._before_first_step.callback(timer.cancel)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._before_first_step.close()
        self._end()
        self._display = None

    def on_start(self, trainer: Trainer) -> None:
        """Begin where the first step can take long."""
        if not trainer.model.evaluator.is_exact:
            self._begin("training", trainer.total_steps, trainer.state.step, trainer.model)

    def on_step(self, trainer: Trainer, result: StepResult) -> None:
        """Advance by one step."""
        if self._display is None:
            return
        self._before_first_step.close()
        exact = trainer.model.evaluator.is_exact
        if not self._begun:
            self._begin("training", trainer.total_steps, trainer.state.step - 1, trainer.model)
        with self._lock:
            if not exact:
                sums = trainer.state.sums
                means = {name: getattr(sums, name) / sums.samples for name in ("loss", "residual")}
                if result.correct is not None:
                    means["accuracy"] = sums.correct / sums.samples
                epoch = (trainer.state.step - 1) // trainer.steps_per_epoch + 1
                self._show(trainer, {"epoch": epoch, **means})
            self._display.advance(trainer.state.step)

    def on_epoch(self, trainer: Trainer, record: dict[str, float]) -> None:
        """Show the finished epoch's figures."""
        if self._display is None:
            return
        with self._lock:
            self._show(trainer, record)
            if trainer.finished:
                self._end()

    def on_evaluation(self, trainer: Trainer, done: int, total: int) -> None:
        """Show how far the validation is."""
        self._part = f"validation {done}/{total}" if done < total else ""

    def on_job(self, event: JobEvent) -> None:
        """Show what happens to a job; trouble stays on a line of its own."""
        with self._lock:
            self._jobs.on_job(event)
            if event.kind in TROUBLE and event.kind != "retrying":
                self._note(str(event))
        self._renew()

    def evaluation(self, model: QDEQModel, title: str, samples: int) -> Callable[[int], None]:
        """Begin to show an evaluation; returns what `inference.evaluate` is to tell of samples done.

        Args:
            model: it is shown only where circuits are measured.
            title: what is evaluated.
            samples: how many.
        """

        def tell(done: int) -> None:
            with self._lock:
                if self._display is not None and self._begun:
                    self._display.advance(done)
                    if done >= samples:
                        self._end()

        self._end()
        if not model.evaluator.is_exact:
            self._begin(title, samples, 0, model)
        return tell

    def _begin(self, title: str, total: int, done: int, model: QDEQModel) -> None:
        with self._lock:
            if self._display is None:
                return
            self._begun = True
            self._display.begin(title, total, done)
            if not model.evaluator.is_exact:
                self._account = getattr(model.evaluator, "account", self._account)
                self._renewing.callback(_repeated(self._renew))

    def _end(self) -> None:
        with self._lock:
            self._renewing.close()
            if self._display is not None and self._begun:
                self._display.end()
            self._begun, self._part = False, ""

    def _show(self, trainer: Trainer, record: dict[str, float]) -> None:
        shown = {"epoch": f"{int(record['epoch'])}/{trainer.config.epochs}", "loss": f"{record['loss']:.3f}"}
        if "valid_accuracy" in record:
            shown["valid acc"] = f"{record['valid_accuracy']:.1%}"
        elif "accuracy" in record:
            shown["acc"] = f"{record['accuracy']:.1%}"
        elif "valid_loss" in record:
            shown["valid loss"] = f"{record['valid_loss']:.3f}"
        if trainer.config.mode == "implicit":
            shown["residual"] = f"{record['residual']:.0e}"
        if self._display is not None and self._begun:
            self._display.figures(shown)

    def _renew(self) -> None:
        with self._lock:
            if self._display is not None and self._begun:
                text = "; ".join(filter(None, (self._part, _spent(self._account), str(self._jobs))))
                self._display.status(text, self._part + self._jobs.state)

    def _note(self, text: str) -> None:
        if self._display is not None and text not in self._noted:
            self._noted.add(text)
            self._display.note(text)

    def _explain_the_wait(self, compilations: list[Any]) -> None:
        # kernels kept on disk are loaded without such an event: then it is the step itself that takes this long
        if compilations:
            with self._lock:
                self._note("compiling kernels not used on this machine before (10 to 15 s the first time) ...")


def _spent(account: Account) -> str:
    """What was spent, and what is left of limits."""
    spent, left = account.spent, account.left
    words = []
    for name, text in (
        ("circuits", f"{spent.circuits:,} circuits"),
        ("shots", f"{spent.shots:,} shots"),
        ("qpu_seconds", f"QPU {spent.qpu_seconds:,.1f} s"),
    ):
        if name in left:
            words.append(f"{text} ({left[name]:,.{int(name == 'qpu_seconds')}f} left)")
        elif getattr(spent, name) and name != "circuits":
            words.append(text)
    return ", ".join(words)


def _repeated(call: Callable[[], None]) -> Callable[[], None]:
    """Call again and again in a thread of its own; what is returned ends that."""
    ended = threading.Event()

    def repeat() -> None:
        # a stream that is gone ends showing, and nothing else
        with contextlib.suppress(OSError, ValueError):
            while not ended.wait(_RENEWAL):
                call()

    threading.Thread(target=repeat, name="qdeq-progress", daemon=True).start()
    return ended.set
