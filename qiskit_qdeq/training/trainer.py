"""The training loop: minibatch steps, validation, history, best parameters, early stop, checkpoint and resume."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from qiskit_qdeq.evaluation.protocol import Part
from qiskit_qdeq.evaluation.threads import compute_context
from qiskit_qdeq.exceptions import (
    CheckpointError,
    ConvergenceError,
    InputError,
    StoppedError,
)
from qiskit_qdeq.inference import evaluate
from qiskit_qdeq.losses import checked_targets
from qiskit_qdeq.model import QDEQModel
from qiskit_qdeq.training.budget import require_affordable
from qiskit_qdeq.training.callbacks import Audience, Callback, TrainingResult
from qiskit_qdeq.training.checkpoint import Checkpoint, load_latest
from qiskit_qdeq.training.config import TrainingConfig
from qiskit_qdeq.training.identity import require_same_run, run_identity
from qiskit_qdeq.training.minibatches import Minibatches, RandomStarts
from qiskit_qdeq.training.optimizers import clip_by_global_norm, optimizer
from qiskit_qdeq.training.saving import CheckpointFile
from qiskit_qdeq.training.schedules import schedule
from qiskit_qdeq.training.spectrum import spectral_radius
from qiskit_qdeq.training.state import (
    INITIAL,
    NOISE,
    SPENT,
    EpochSums,
    TrainingState,
    measured_ahead,
    restore,
    stream,
    versions,
)
from qiskit_qdeq.training.step import training_step
from qiskit_qdeq.training.unsolved import warn_of_unsolved

Array = np.ndarray[Any, np.dtype[Any]]


class Trainer:
    """Trains a model on labelled samples.

    Args:
        model: the structure.
        config: the run.
        x, y: training samples (N, features) and labels 0..C-1 (N,), or targets (N, C) of loss "squared_error".
        x_valid, y_valid: validation samples; None keeps the last parameters instead of the best.
        callbacks: told of steps and epochs, see `Callback`.
        checkpoint: file to keep the run in, or None. It is written at the end of an epoch if `checkpoint_seconds` have
            passed since it was written last, and ten times what writing takes; every `checkpoint_every` steps; and when
            the run ends or is stopped.
        checkpoint_every: steps between further checkpoints, 0 for none.
        checkpoint_seconds: see there; with 0 every epoch is saved. A killed process loses this much work, or ten times
            what writing takes, and the epoch it was in.
        initial_parameters: start from these instead of random ones.
        notes: plain values kept in the checkpoint beside the run's own, such as where the data came from.

    Raises:
        InputError: for data that do not fit the model.
    """

    def __init__(
        self,
        model: QDEQModel,
        config: TrainingConfig,
        x: Any,
        y: Any,
        x_valid: Any = None,
        y_valid: Any = None,
        *,
        callbacks: Sequence[Callback] = (),
        checkpoint: str | os.PathLike[str] | None = None,
        checkpoint_every: int = 0,
        checkpoint_seconds: float = 1.0,
        initial_parameters: Array | None = None,
        notes: Mapping[str, Any] | None = None,
    ) -> None:
        self.model, self.config, self._tell = model, config, Audience(callbacks)
        for listener in self._tell.listeners():
            model.evaluator.listen(listener)
        self.inputs, self.targets = self._samples(x, y, "x", "y")
        if not len(self.inputs):
            raise InputError("x holds no training samples")
        self.validation = None if x_valid is None else self._samples(x_valid, y_valid, "x_valid", "y_valid")
        if self.validation is not None and not len(self.validation[0]):
            raise InputError("x_valid holds no samples: leave it out to train without validation")
        self.checkpoint = None if checkpoint is None else Path(checkpoint)
        self._file = CheckpointFile(self.checkpoint, checkpoint_every, checkpoint_seconds)
        self._stop = False
        self.notes = dict(notes or {})
        self._minibatches = Minibatches(len(self.inputs), config.batch_size, config.seed)
        self._random_starts = RandomStarts(len(self.inputs), model.num_states, config.seed)
        self.batch_size, self.steps_per_epoch = self._minibatches.size, self._minibatches.per_epoch
        self.total_steps = self.steps_per_epoch * config.epochs
        options = {"weight_decay": config.weight_decay} if config.weight_decay else {}
        self._optimizer = optimizer(config.optimizer, **options)
        self._schedule = schedule(config.schedule)
        self.state = self._fresh_state(initial_parameters)
        #: Wall-clock seconds of each step of this process, the first of which may have compiled kernels.
        self.step_seconds: list[float] = []

    def _samples(self, x: Any, y: Any, x_name: str, y_name: str) -> tuple[Array, Array]:
        inputs = self.model.prepare(x)
        sizes = len(inputs), self.model.num_classes
        return inputs, checked_targets(self.config.loss, y, *sizes, self.model.dtype, y_name, x_name)

    def _fresh_state(self, initial: Array | None) -> TrainingState:
        model = self.model
        if initial is None:
            initial = model.initial_parameters(stream(self.config.seed, INITIAL))
        if np.shape(initial) != (model.num_parameters,) or not np.isfinite(initial).all():
            raise InputError(f"initial parameters must be finite, of shape ({model.num_parameters},)")
        parameters = np.array(initial, dtype=model.dtype)
        decay = np.zeros(len(parameters), dtype=bool)
        if model.readout.head == "linear":
            decay[model.num_weights : -model.num_classes] = True
        elif self.config.weight_decay:
            raise InputError(
                f"weight_decay {self.config.weight_decay} decays the readout matrix, which a model with head 'none' lacks: "
                "leave it out"
            )
        warm = self.config.start == "warm"
        return TrainingState(
            parameters,
            self._optimizer.init(len(parameters), model.dtype, decay),
            parameters.copy(),
            np.zeros((len(self.inputs) if warm else 0, model.num_states), dtype=model.dtype),
        )

    @property
    def epoch(self) -> int:
        """Epochs finished."""
        return self.state.step // self.steps_per_epoch

    @property
    def finished(self) -> bool:
        """Whether all steps are taken and evaluated, or the run ended early by its own rules."""
        return bool(self.state.stopped) or (self.state.step >= self.total_steps and not self._epoch_is_open)

    @property
    def _epoch_is_open(self) -> bool:
        """Whether the steps of an epoch are taken, but its evaluation is not."""
        return self.state.step % self.steps_per_epoch == 0 and len(self.state.history) < self.epoch

    def resume(self, source: str | os.PathLike[str] | Checkpoint | None = None) -> Trainer:
        """Continue from a checkpoint of this very run: same configuration, model and data.

        With the schedule "constant", whose rates do not depend on the number of epochs, a run may go on to more epochs
        than it was started with. Where the file is damaged, the generation before it is taken, with a warning.

        Args:
            source: the file, or what was read from it; None for the trainer's own.

        Raises:
            CheckpointError: if it is damaged or of another run; each difference is listed.
        """
        source = source or self.checkpoint
        if source is None:
            raise InputError("source must name a checkpoint: this trainer has none of its own")
        loaded = source if isinstance(source, Checkpoint) else load_latest(source)
        require_same_run(loaded, self.identity())
        self.state = restore(loaded, self._optimizer, self.state)
        self.model.evaluator.restore(measured_ahead(loaded))
        self.model.evaluator.already_spent(self.state.spent)
        if loaded.path == self.checkpoint:
            self._file.take_as(self.state)
        return self

    def stop(self) -> None:
        """Let `run` end after the step it is taking, with a checkpoint to resume from; safe in a signal handler.

        Waiting for a service ends at once: the step is taken again by the resumed run, with the jobs already submitted.
        """
        self._stop = True
        self.model.evaluator.interrupt()

    def identity(self) -> dict[str, Any]:
        """What makes two runs the same: configuration, model and data."""
        return self._identity

    @cached_property
    def _identity(self) -> dict[str, Any]:
        # kept: it hashes all the data, and every checkpoint holds it
        return run_identity(self.config, self.model, (self.inputs, self.targets), self.validation)

    def run(self) -> TrainingResult:
        """Train to the end, or until `stop` is called.

        Raises:
            ConvergenceError: if loss, gradient or parameters stop being finite; the last checkpoint is kept.
            CheckpointError: if a checkpoint cannot be written.
            BudgetError: if the next jobs would exceed the budget; a checkpoint of the last step is written before, as it
                is with every error of a primitive or a service.

        Warns:
            ConvergenceWarning: if more than 1 % of the last epoch's samples had no equilibrium to the tolerance.
        """
        self._tell.start(self)
        with compute_context(), self.state.clock:
            try:
                self._run()
            except StoppedError:
                if not self._stop:
                    raise
        self._tell.end(self)
        state = self.state
        if state.history:
            warn_of_unsolved(self.model, self.config, state.history[-1]["unconverged"])
        return TrainingResult(
            state.best_parameters.copy(),
            state.parameters.copy(),
            state.history,
            state.best_epoch,
            state.step,
            state.stopped,
        )

    def _run(self) -> None:
        if not (self._file.exists or self.model.evaluator.is_exact):
            # jobs may be submitted before the first step ends: their run must be there to be resumed
            self.save()
        clock = self.state.clock
        started = clock.seconds
        while not self._stop:
            if self._epoch_is_open:
                record = self._finish_epoch(clock.seconds - started)
                started = clock.seconds
                if self.finished or self._file.is_due(self.state, epoch_ends=True):
                    self.save()
                self._tell_epoch(record)
            elif self.finished:
                break
            else:
                step_started = time.perf_counter()
                self._step()
                self.step_seconds.append(time.perf_counter() - step_started)
                if self._file.is_due(self.state, epoch_ends=False) and not self._epoch_is_open:
                    self.save()
        if not self._file.holds(self.state):
            self.save()

    @contextlib.contextmanager
    def _measuring(self) -> Iterator[None]:
        """What measures leaves the state as it was if it fails: whatever ends it leaves a run to continue."""
        try:
            yield
        except BaseException as error:
            if not self.model.evaluator.is_exact:
                try:
                    self.save()
                except CheckpointError as other:
                    error.add_note(str(other))
            raise

    def _tell_epoch(self, record: dict[str, float]) -> None:
        try:
            self._tell.epoch(self, record)
        except BaseException:
            if not self._file.holds(self.state):
                self.save()
            raise

    def save(self) -> None:
        """Write the checkpoint, if there is a file for it; its folder is made again if it is gone.

        Raises:
            CheckpointError: if it cannot be written.
        """
        document = {**self.identity(), "versions": versions(), "notes": self.notes}
        self._file.write(self.state, document, self.model.evaluator.arrays())

    def rows(self, step: int) -> Array:
        """Training samples of a step."""
        return self._minibatches.rows(step)

    def _step(self) -> None:
        state, config = self.state, self.config
        self.model.evaluator.start_step(state.step, self.total_steps)
        rows = self.rows(state.step)
        direct = config.mode == "direct" or state.step < config.warmup_steps
        ahead = not direct and getattr(config.solver, "ahead", False) and state.step + 1 < self.total_steps
        self.model.evaluator.upcoming = self.inputs[self.rows(state.step + 1)] if ahead else None
        with self._measuring():
            require_affordable(self.model, config, len(rows), direct=direct)
            result = training_step(
                self.model,
                state.parameters,
                self.inputs[rows],
                self.targets[rows],
                config,
                direct=direct,
                initial=None if direct else self._first_iterate(rows),
                rng=lambda: stream(config.seed, NOISE, state.step),
            )
        gradient = result.gradient.astype(state.parameters.dtype, copy=False)
        norm = clip_by_global_norm(gradient, config.clip_norm) if config.clip_norm else float(np.linalg.norm(gradient))
        if not (math.isfinite(norm) and math.isfinite(result.loss)):
            raise ConvergenceError(
                f"loss {result.loss} or gradient norm {norm} is not finite at step {state.step}: lower learning_rate "
                f"({config.learning_rate}) or state_scale ({self.model.state_scale}), or set clip_norm"
            )
        rate = config.learning_rate * self._schedule(state.step, self.total_steps)
        with np.errstate(over="ignore", invalid="ignore"):
            self._optimizer.step(state.optimizer, state.parameters, gradient, rate)
            # their squares too: what comes after multiplies them
            squares = float(np.dot(state.parameters, state.parameters))
        if not math.isfinite(squares):
            raise ConvergenceError(
                f"the parameters have diverged at step {state.step}, largest {np.abs(state.parameters).max():.3g}: lower "
                f"learning_rate ({config.learning_rate:g})"
            )
        if config.start == "warm" and result.solution is not None:
            state.equilibria[rows] = result.solution.state
        state.step += 1
        state.sums.add(result, len(rows), norm)
        self._tell.step(self, result)

    def _first_iterate(self, rows: Array) -> Array | None:
        """Where the solves of the samples `rows` begin (b, K); None where the step decides."""
        if self.config.start == "warm":
            return self.state.equilibria[rows]
        return self._random_starts.of(self.epoch, rows) if self.config.start == "random" else None

    def _finish_epoch(self, seconds: float) -> dict[str, float]:
        state, sums = self.state, self.state.sums
        counts = self.config.loss == "cross_entropy"
        record: dict[str, float] = {
            "epoch": self.epoch,
            "loss": sums.loss / sums.samples,
            "penalty": sums.penalty / sums.samples,
            **({"accuracy": sums.correct / sums.samples} if counts else {}),
            "residual": sums.residual / sums.samples,
            "max_residual": sums.max_residual,
            "solver_steps": sums.solver_steps / sums.samples,
            "unconverged": sums.unconverged / sums.samples,
            "gradient_norm": sums.gradient_norm / sums.steps,
            "learning_rate": self.config.learning_rate * self._schedule(state.step - 1, self.total_steps),
            "seconds": seconds,
        }
        cost = sums.cost
        if self.model.evaluator.is_exact:
            # measured, it would cost as much as many training steps
            record["spectral_radius"] = spectral_radius(self.model, state.parameters, self.inputs, self.config)
        if self.validation is not None:
            direct = self.config.mode == "direct" or state.step <= self.config.warmup_steps
            solver = None if direct else self.config.solver
            self.model.evaluator.start_step(state.step - 1, self.total_steps, Part.VALIDATION)
            tell = self._tell.evaluation(self, len(self.validation[0]))
            with self._measuring():
                metrics = evaluate(
                    self.model,
                    state.parameters,
                    *self.validation,
                    solver,
                    layers=self.config.layers,
                    loss=self.config.loss,
                    tell=tell,
                )
            record["valid_loss"] = metrics.loss
            if metrics.accuracy is not None:
                record["valid_accuracy"] = metrics.accuracy
            record["valid_residual"] = metrics.residual
            cost += metrics.cost
            self._keep_best(metrics.loss, direct)
        if not self.model.evaluator.is_exact:
            record |= {name: getattr(cost, name) for name in SPENT}
        if state.best_epoch < 0:
            state.best_parameters = state.parameters.copy()
        state.sums = EpochSums()
        state.history.append(record)
        return record

    def _keep_best(self, loss: float, direct: bool) -> None:
        state = self.state
        # parameters of the direct warm-up belong to another model: only equilibrium epochs compete
        if direct and self.config.mode == "implicit":
            return
        if loss < state.best_loss:
            state.best_loss, state.best_epoch, state.stale_epochs = loss, self.epoch, 0
            state.best_parameters = state.parameters.copy()
            return
        state.stale_epochs += 1
        if self.config.patience and state.stale_epochs >= self.config.patience:
            state.stopped = f"no better validation loss in {self.config.patience} epochs"
