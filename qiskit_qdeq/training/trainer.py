"""The training loop: minibatch steps, validation, history, best parameters, early stop, checkpoint and resume."""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from qiskit_qdeq.evaluation.threads import compute_context
from qiskit_qdeq.exceptions import ConvergenceError, InputError
from qiskit_qdeq.inference import evaluate, predict
from qiskit_qdeq.model import QDEQModel
from qiskit_qdeq.training.checkpoint import load_checkpoint, require, save_checkpoint
from qiskit_qdeq.training.config import TrainingConfig
from qiskit_qdeq.training.optimizers import clip_by_global_norm, optimizer
from qiskit_qdeq.training.schedules import schedule
from qiskit_qdeq.training.state import INITIAL, NOISE, ORDER, EpochSums, TrainingState, restore, stream, versions
from qiskit_qdeq.training.step import StepResult, training_step

Array = np.ndarray[Any, np.dtype[Any]]

#: Samples on which the spectral radius of J is measured after each epoch.
_SPECTRUM_SAMPLES = 128


class Callback(Protocol):
    """Is told what happens; what it raises ends the run, after the checkpoint of that epoch has been written."""

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


class Trainer:
    """Trains a model on labelled samples.

    Args:
        model: the structure.
        config: the run.
        x, y: training samples (N, features) and labels 0..C-1 (N,).
        x_valid, y_valid: validation samples; None keeps the last parameters instead of the best.
        callbacks: told of steps and epochs.
        checkpoint: file written after every epoch (and every `checkpoint_every` steps), or None.
        checkpoint_every: steps between checkpoints, 0 for epochs only.
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
        self.checkpoint = None if checkpoint is None else Path(checkpoint)
        self.checkpoint_every = checkpoint_every
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

    def resume(self, path: str | os.PathLike[str] | None = None) -> Trainer:
        """Continue from a checkpoint of this very run: same configuration, model and data.

        Raises:
            CheckpointError: if it is damaged or of another run; each difference is listed.
        """
        source = path or self.checkpoint
        if source is None:
            raise InputError("path must name a checkpoint: this trainer has none of its own")
        loaded = load_checkpoint(source)
        require(loaded, self.identity())
        self.state = restore(loaded, self._optimizer, self.state)
        return self

    def identity(self) -> dict[str, Any]:
        """What makes two runs the same: configuration, model and data."""
        return self._identity

    @cached_property
    def _identity(self) -> dict[str, Any]:
        # kept: it hashes all the data, and every checkpoint holds it
        config = self.config.as_dict()
        return {
            "training": config,
            "model": {
                "circuit": circuit_digest(self.model),
                "description": repr(self.model),
                "num_parameters": self.model.num_parameters,
                "activation": self.model.readout.activation,
                "dtype": self.model.dtype,
            },
            "data": {
                "samples": len(self.inputs),
                "train": data_digest(self.inputs, self.labels),
                "valid": "" if self.validation is None else data_digest(*self.validation),
            },
        }

    def run(self) -> TrainingResult:
        """Train to the end.

        Raises:
            ConvergenceError: if loss or gradient stop being finite; the last checkpoint is kept.
            CheckpointError: if a checkpoint cannot be written.
        """
        with compute_context():
            self._run()
        state = self.state
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
        while self.state.step < self.total_steps and not self.state.stopped:
            step_started = time.perf_counter()
            self._step()
            self.step_seconds.append(time.perf_counter() - step_started)
            if self.state.step % self.steps_per_epoch == 0:
                record = self._finish_epoch(time.perf_counter() - started)
                started = time.perf_counter()
                self.save()
                for callback in self.callbacks:
                    callback.on_epoch(self, record)
            elif self.checkpoint_every and self.state.step % self.checkpoint_every == 0:
                self.save()

    def save(self) -> None:
        """Write the checkpoint, if there is a file for it."""
        if self.checkpoint is not None:
            document = {
                **self.identity(),
                "progress": self.state.document(),
                "versions": versions(),
                "notes": self.notes,
            }
            save_checkpoint(self.checkpoint, self.state.arrays(), document)

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
        self._optimizer.step(state.optimizer, state.parameters, gradient, rate)
        if warm and result.solution is not None:
            state.equilibria[rows] = result.solution.state
        state.step += 1
        _add(state.sums, result, len(rows), norm)
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
            "spectral_radius": self._spectral_radius(),
            "seconds": seconds,
        }
        state.sums = EpochSums()
        if self.validation is not None:
            direct = self.config.mode == "direct" or state.step <= self.config.warmup_steps
            solver = None if direct else self.config.solver
            metrics = evaluate(self.model, state.parameters, *self.validation, solver, layers=self.config.layers)
            record |= {
                "valid_loss": metrics.loss,
                "valid_accuracy": metrics.accuracy,
                "valid_residual": metrics.residual,
            }
            self._keep_best(metrics.loss, direct)
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


def circuit_digest(model: QDEQModel) -> str:
    """Digest of everything about a model that is not a parameter: gates, observables, injection, bias."""
    template = model.template
    digest = hashlib.sha256()
    for item in template.circuit.data:
        qubits = [template.circuit.find_bit(q).index for q in item.qubits]
        digest.update(f"{item.operation.name}{qubits}{[str(p) for p in item.operation.params]};".encode())
    for observable in (*template.state_observables, *template.readout_observables):
        digest.update(str(observable.to_list()).encode())
    digest.update(np.ascontiguousarray(model.injection).tobytes())
    digest.update(f"{model.bias!r}{model.readout!r}".encode())
    return digest.hexdigest()


def data_digest(inputs: Array, labels: Array) -> str:
    """Digest of samples and labels in their order."""
    digest = hashlib.sha256(np.ascontiguousarray(inputs).tobytes())
    digest.update(np.ascontiguousarray(labels, dtype=np.int64).tobytes())
    return digest.hexdigest()


def _add(sums: EpochSums, result: StepResult, samples: int, norm: float) -> None:
    sums.samples += samples
    sums.steps += 1
    sums.loss += result.loss * samples
    sums.penalty += result.penalty * samples
    sums.correct += result.correct
    sums.gradient_norm += norm
    if result.solution is not None:
        finite = result.solution.residual[np.isfinite(result.solution.residual)]
        sums.residual += float(finite.sum())
        sums.max_residual = max(sums.max_residual, float(finite.max(initial=0.0)))
        sums.solver_steps += int(result.solution.steps.sum())
        sums.unconverged += int(np.count_nonzero(~result.solution.converged))
