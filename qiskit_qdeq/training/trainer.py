"""The training loop: minibatch steps, validation, history, best parameters, early stop, checkpoint and resume."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from qiskit_qdeq.evaluation.protocol import Cost
from qiskit_qdeq.evaluation.threads import compute_context
from qiskit_qdeq.exceptions import CheckpointError, ConvergenceError, ConvergenceWarning, InputError, warn_user
from qiskit_qdeq.inference import evaluate, predict
from qiskit_qdeq.model import QDEQModel
from qiskit_qdeq.training.callbacks import Callback, TrainingResult
from qiskit_qdeq.training.checkpoint import Checkpoint, load_latest, save_checkpoint
from qiskit_qdeq.training.config import TrainingConfig
from qiskit_qdeq.training.identity import require_same_run, run_identity
from qiskit_qdeq.training.optimizers import clip_by_global_norm, optimizer
from qiskit_qdeq.training.schedules import schedule
from qiskit_qdeq.training.state import INITIAL, NOISE, ORDER, EpochSums, TrainingState, restore, stream, versions
from qiskit_qdeq.training.step import training_step

Array = np.ndarray[Any, np.dtype[Any]]

#: Samples on which the spectral radius of J is measured after each epoch.
_SPECTRUM_SAMPLES = 128
#: Seconds of training per second of saving, at least, at the ends of epochs.
_WORK_PER_SAVE = 10
#: Share of unsolved samples in the last epoch above which a finished run warns.
_UNCONVERGED_SHARE = 0.01


class Trainer:
    """Trains a model on labelled samples.

    Args:
        model: the structure.
        config: the run.
        x, y: training samples (N, features) and labels 0..C-1 (N,).
        x_valid, y_valid: validation samples; None keeps the last parameters instead of the best.
        callbacks: told of steps and epochs.
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
        self.model, self.config, self.callbacks = model, config, tuple(callbacks)
        self.inputs, self.labels = self._samples(x, y, "x", "y")
        if not len(self.inputs):
            raise InputError("x holds no training samples")
        self.validation = None if x_valid is None else self._samples(x_valid, y_valid, "x_valid", "y_valid")
        if self.validation is not None and not len(self.validation[0]):
            raise InputError("x_valid holds no samples: leave it out to train without validation")
        if checkpoint_every < 0:
            raise InputError(f"checkpoint_every must be >= 0, got {checkpoint_every}")
        if not checkpoint_seconds >= 0:
            raise InputError(f"checkpoint_seconds must be a number >= 0, got {checkpoint_seconds}")
        self.checkpoint = None if checkpoint is None else Path(checkpoint)
        self.checkpoint_every, self.checkpoint_seconds = checkpoint_every, checkpoint_seconds
        self._saved_step, self._saved_at, self._save_seconds = -1, -math.inf, 0.0
        self._stop = False
        self.notes = dict(notes or {})
        self.batch_size = min(config.batch_size, len(self.inputs))
        self.steps_per_epoch = math.ceil(len(self.inputs) / self.batch_size)
        self.total_steps = self.steps_per_epoch * config.epochs
        options = {"weight_decay": config.weight_decay} if config.weight_decay else {}
        self._optimizer = optimizer(config.optimizer, **options)
        self._schedule = schedule(config.schedule)
        self.state = self._fresh_state(initial_parameters)
        #: Wall-clock seconds of each step of this process, the first of which may have compiled kernels.
        self.step_seconds: list[float] = []

    def _samples(self, x: Any, y: Any, x_name: str, y_name: str) -> tuple[Array, Array]:
        inputs = self.model.prepare(x).astype(self.model.dtype)
        labels = np.asarray(y)
        if labels.shape != (len(inputs),):
            raise InputError(f"{y_name} must have shape ({len(inputs)},) to match {x_name}, got {labels.shape}")
        if len(labels) and (
            labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= self.model.num_classes
        ):
            raise InputError(f"{y_name} must hold integers 0..{self.model.num_classes - 1}")
        return inputs, labels

    def _fresh_state(self, initial: Array | None) -> TrainingState:
        model = self.model
        if initial is None:
            initial = model.initial_parameters(stream(self.config.seed, INITIAL))
        if np.shape(initial) != (model.num_parameters,) or not np.isfinite(initial).all():
            raise InputError(f"initial parameters must be finite, of shape ({model.num_parameters},)")
        parameters = np.array(initial, dtype=model.dtype)
        decay = np.zeros(len(parameters), dtype=bool)
        decay[model.num_weights : -model.num_classes] = True
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
        """Whether all steps are taken or the run ended early by its own rules."""
        return self.state.step >= self.total_steps or bool(self.state.stopped)

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
        if loaded.path == self.checkpoint:
            self._saved_step = self.state.step
        return self

    def stop(self) -> None:
        """Let `run` end after the step it is taking, with a checkpoint to resume from; safe in a signal handler."""
        self._stop = True

    def identity(self) -> dict[str, Any]:
        """What makes two runs the same: configuration, model and data."""
        return self._identity

    @cached_property
    def _identity(self) -> dict[str, Any]:
        # kept: it hashes all the data, and every checkpoint holds it
        return run_identity(self.config, self.model, (self.inputs, self.labels), self.validation)

    def run(self) -> TrainingResult:
        """Train to the end, or until `stop` is called.

        Raises:
            ConvergenceError: if loss, gradient or parameters stop being finite; the last checkpoint is kept.
            CheckpointError: if a checkpoint cannot be written.

        Warns:
            ConvergenceWarning: if more than 1 % of the last epoch's samples had no equilibrium to the tolerance.
        """
        with compute_context():
            self._run()
        state = self.state
        share = state.history[-1]["unconverged"] if state.history else 0.0
        if share > _UNCONVERGED_SHARE:
            remedy = "" if self.config.solver.name == "newton" else "solver 'newton', "
            last = " or Jacobian regularization"
            if not self.model.evaluator.is_exact:
                remedy, last = "more shots, ", ""
            warn_user(
                f"{share:.1%} of the samples of the last epoch had no equilibrium to the tolerance of solver "
                f"{self.config.solver.name!r}: try {remedy}more max_steps, a larger tol, a smaller state_scale "
                f"(now {self.model.state_scale:g}){last}",
                ConvergenceWarning,
            )
        return TrainingResult(
            state.best_parameters.copy(),
            state.parameters.copy(),
            state.history,
            state.best_epoch,
            state.step,
            state.stopped,
        )

    def _run(self) -> None:
        started = time.perf_counter()
        while not (self.finished or self._stop):
            step_started = time.perf_counter()
            self._step()
            self.step_seconds.append(time.perf_counter() - step_started)
            if self.state.step % self.steps_per_epoch == 0:
                record = self._finish_epoch(time.perf_counter() - started)
                started = time.perf_counter()
                if self.finished or self._save_is_due(epoch_ends=True):
                    self.save()
                self._tell_epoch(record)
            elif self._save_is_due(epoch_ends=False):
                self.save()
        if self._saved_step != self.state.step:
            self.save()

    def _tell_epoch(self, record: dict[str, float]) -> None:
        try:
            for callback in self.callbacks:
                callback.on_epoch(self, record)
        except BaseException:
            if self._saved_step != self.state.step:
                self.save()
            raise

    def _save_is_due(self, epoch_ends: bool) -> bool:
        if self.checkpoint_every and self.state.step % self.checkpoint_every == 0:
            return True
        # an epoch may take less time than its checkpoint, which grows with the history
        pause = max(self.checkpoint_seconds, _WORK_PER_SAVE * self._save_seconds) if self.checkpoint_seconds else 0.0
        return epoch_ends and time.perf_counter() - self._saved_at >= pause

    def save(self) -> None:
        """Write the checkpoint, if there is a file for it; its folder is made again if it is gone.

        Raises:
            CheckpointError: if it cannot be written.
        """
        if self.checkpoint is None:
            return
        started = time.perf_counter()
        document = {**self.identity(), "progress": self.state.document(), "versions": versions(), "notes": self.notes}
        try:
            self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = error.strerror or error
            raise CheckpointError(
                f"Checkpoint '{self.checkpoint}' could not be written: no folder ({reason})"
            ) from error
        save_checkpoint(self.checkpoint, self.state.arrays(), document)
        self._saved_step, self._saved_at = self.state.step, time.perf_counter()
        self._save_seconds = self._saved_at - started

    def rows(self, step: int) -> Array:
        """Training samples of a step: the epoch's permutation, cut into minibatches."""
        epoch, position = divmod(step, self.steps_per_epoch)
        order = self._order(epoch)
        return order[position * self.batch_size : (position + 1) * self.batch_size]

    def _order(self, epoch: int) -> Array:
        cached = getattr(self, "_cached_order", None)
        if cached is None or cached[0] != epoch:
            order = stream(self.config.seed, ORDER, epoch).permutation(len(self.inputs))
            cached = self._cached_order = (epoch, order)
        order_of_epoch: Array = cached[1]
        return order_of_epoch

    def _step(self) -> None:
        state, config = self.state, self.config
        self.model.evaluator.start_step(state.step, self.total_steps)
        rows = self.rows(state.step)
        warm = config.start == "warm"
        result = training_step(
            self.model,
            state.parameters,
            self.inputs[rows],
            self.labels[rows],
            config,
            direct=config.mode == "direct" or state.step < config.warmup_steps,
            initial=state.equilibria[rows] if warm else None,
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
        if warm and result.solution is not None:
            state.equilibria[rows] = result.solution.state
        state.step += 1
        state.sums.add(result, len(rows), norm)
        for callback in self.callbacks:
            callback.on_step(self, result)

    def _finish_epoch(self, seconds: float) -> dict[str, float]:
        state, sums = self.state, self.state.sums
        record: dict[str, float] = {
            "epoch": self.epoch,
            "loss": sums.loss / sums.samples,
            "penalty": sums.penalty / sums.samples,
            "accuracy": sums.correct / sums.samples,
            "residual": sums.residual / sums.samples,
            "max_residual": sums.max_residual,
            "solver_steps": sums.solver_steps / sums.samples,
            "unconverged": sums.unconverged / sums.samples,
            "gradient_norm": sums.gradient_norm / sums.steps,
            "learning_rate": self.config.learning_rate * self._schedule(state.step - 1, self.total_steps),
            "seconds": seconds,
        }
        cost = Cost(sums.circuits, sums.shots, sums.jobs)
        state.sums = EpochSums()
        if self.model.evaluator.is_exact:
            # measured, it would cost as much as many training steps
            record["spectral_radius"] = self._spectral_radius()
        if self.validation is not None:
            direct = self.config.mode == "direct" or state.step <= self.config.warmup_steps
            solver = None if direct else self.config.solver
            metrics = evaluate(self.model, state.parameters, *self.validation, solver, layers=self.config.layers)
            record |= {
                "valid_loss": metrics.loss,
                "valid_accuracy": metrics.accuracy,
                "valid_residual": metrics.residual,
            }
            cost += metrics.cost
            self._keep_best(metrics.loss, direct)
        if not self.model.evaluator.is_exact:
            record |= {"circuits": cost.circuits, "shots": cost.shots, "jobs": cost.jobs}
        if state.best_epoch < 0:
            state.best_parameters = state.parameters.copy()
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

    def _spectral_radius(self) -> float:
        """Median ρ(J) over the first samples, at their equilibria (at the last layer's state in direct mode)."""
        inputs = self.inputs[:_SPECTRUM_SAMPLES]
        direct = self.config.mode == "direct"
        solver = None if direct else self.config.solver
        state = self.state
        found = predict(self.model, state.parameters, inputs, solver, layers=self.config.layers, on_failure="accept")
        weights, _, _ = self.model.split(state.parameters)
        jacobian = self.model.evaluator.bind(weights).map(inputs).at(found.state).jacobian
        return float(np.median(np.abs(np.linalg.eigvals(jacobian)).max(axis=1)))
