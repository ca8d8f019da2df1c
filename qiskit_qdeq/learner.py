"""What scikit-learn estimators of this package have in common: arguments, training, equilibria and files.

A subclass says what its targets are: how they are checked and kept, the loss, and how many outputs they need.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.model_selection import train_test_split
from sklearn.utils.validation import check_is_fitted, check_random_state, validate_data

from qiskit_qdeq.circuits import CircuitTemplate
from qiskit_qdeq.equilibrium.solvers import Solver
from qiskit_qdeq.evaluation.sampling import Sampling
from qiskit_qdeq.exceptions import ConvergenceError, InputError, warn_user
from qiskit_qdeq.execution.account import Budget
from qiskit_qdeq.gradient.implicit import Backward
from qiskit_qdeq.inference import Prediction, predict
from qiskit_qdeq.learner_options import (
    OF_MODEL,
    build_model,
    check_arguments,
    check_unchanged,
    chosen_solver,
    opened,
    training_config,
)
from qiskit_qdeq.model import QDEQModel
from qiskit_qdeq.saved_learner import load_learner, save_learner
from qiskit_qdeq.training.progress import ProgressBar
from qiskit_qdeq.training.trainer import Trainer

Array = np.ndarray[Any, np.dtype[Any]]


class Learner(BaseEstimator, ABC):  # type: ignore[misc]
    """A model with its training behind scikit-learn's methods; arguments are described in `QDEQClassifier`."""

    #: What a file of it is called, and what is minimized.
    kind: ClassVar[str]
    loss: ClassVar[str]

    parameters_: Array
    n_iter_: int

    def __init__(
        self,
        preset: str = "default",
        *,
        num_qubits: int | None = None,
        encoding: str = "amplitude",
        ansatz: str | None = None,
        readout: str | None = None,
        template: CircuitTemplate | None = None,
        state_scale: float | None = None,
        bias: float | str = "auto",
        mode: str = "implicit",
        layers: int = 1,
        warmup_steps: int = 0,
        solver: str | Solver = "auto",
        backward: str | Backward = "exact",
        start: str = "zeros",
        regularization: str = "none",
        regularization_strength: float = 0.0,
        epochs: int = 100,
        batch_size: int = 64,
        optimizer: str = "adam",
        learning_rate: float = 0.1,
        schedule: str = "cosine",
        weight_decay: float = 0.0,
        clip_norm: float = 1.0,
        dropout: float = 0.0,
        patience: int = 0,
        validation_fraction: float = 0.0,
        backend: Any = "exact",
        estimator: Any = None,
        shots: int | None = None,
        sampling: Sampling | None = None,
        journal: str | os.PathLike[str] | None = None,
        budget: Budget | str | None = None,
        dtype: str = "float64",
        on_failure: str = "warn",
        verbose: bool = False,
        random_state: Any = None,
    ) -> None:
        self.preset = preset
        self.num_qubits = num_qubits
        self.encoding = encoding
        self.ansatz = ansatz
        self.readout = readout
        self.template = template
        self.state_scale = state_scale
        self.bias = bias
        self.mode = mode
        self.layers = layers
        self.warmup_steps = warmup_steps
        self.solver = solver
        self.backward = backward
        self.start = start
        self.regularization = regularization
        self.regularization_strength = regularization_strength
        self.epochs = epochs
        self.batch_size = batch_size
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.schedule = schedule
        self.weight_decay = weight_decay
        self.clip_norm = clip_norm
        self.dropout = dropout
        self.patience = patience
        self.validation_fraction = validation_fraction
        self.backend = backend
        self.estimator = estimator
        self.shots = shots
        self.sampling = sampling
        self.journal = journal
        self.budget = budget
        self.dtype = dtype
        self.on_failure = on_failure
        self.verbose = verbose
        self.random_state = random_state

    @abstractmethod
    def _check_training_data(self, X: Any, y: Any) -> tuple[Array, Array]:
        """Samples and what the loss compares outputs with; keeps what predictions need to undo that."""

    @abstractmethod
    def _num_outputs(self) -> int:
        """C."""

    @abstractmethod
    def _strata(self, targets: Array) -> Array | None:
        """Classes whose shares a validation set keeps, if there are any."""

    @abstractmethod
    def _targets_to_file(self) -> tuple[dict[str, Array], dict[str, Any]]:
        """Arrays and plain values from which `_targets_from_file` restores what `_check_training_data` keeps."""

    @abstractmethod
    def _targets_from_file(self, arrays: Mapping[str, Array], document: Mapping[str, Any]) -> None:
        """Take what `_targets_to_file` gave; ValueError for anything else."""

    def fit(self, X: Any, y: Any) -> Self:
        """Train from scratch on samples X (N, features) with targets y.

        What ends it on the way (BudgetError, ServiceError and other errors of a primitive, Ctrl-C) leaves the estimator
        fitted with the steps taken so far, as the exception's note says: `history_` has the finished epochs, and `predict`,
        `save` and `partial_fit` work. InputError, ConvergenceError and what comes before the first step leave it unfitted.

        Args:
            X: (N, features).
            y: a classifier's labels (N,), of at least 2 classes; a regressor's numbers (N,) or (N, outputs).

        Returns:
            This estimator, fitted.

        Raises:
            InputError: (a ValueError) for data or arguments that cannot be used.
            ConvergenceError: if training leaves the numbers a computer has, or a gradient does not exist.
            BudgetError: if the next step would exceed `budget`.
            ServiceError: if a service refuses a job, or fails for too long.
            JournalError: if the journal is damaged, of another device, or cannot be written.
        """
        # whatever fails from here on leaves an unfitted estimator, never old weights with new targets
        for name in [name for name in vars(self) if name.endswith("_") and not name.startswith("_")]:
            delattr(self, name)
        check_arguments(self)
        X, targets = self._check_training_data(X, y)
        _warn_of_constants(X)
        model = build_model(self, X.shape[1], self._num_outputs())
        held_out: tuple[Array, Array] | tuple[None, None] = (None, None)
        if self.validation_fraction:
            X, valid_x, targets, valid_targets = self._hold_out(X, targets)
            held_out = (valid_x, valid_targets)
        config = training_config(self, self.epochs, self.schedule, self._seed())
        with ProgressBar(self.verbose) as bar, opened(self, model, journal=self.journal, budget=self.budget) as running:
            trainer = Trainer(running, config, X, targets, *held_out, callbacks=[bar])
            try:
                trainer.run()
            except (InputError, ConvergenceError):
                raise
            except BaseException as error:
                if trainer.state.step and np.isfinite(trainer.state.parameters).all():
                    self._take(model, trainer)
                    error.add_note(_kept(self, trainer))
                raise
        self._take(model, trainer)
        return self

    def _take(self, model: QDEQModel, trainer: Trainer) -> None:
        """Make what was trained this estimator's own."""
        state = trainer.state
        self.model_ = model
        self.parameters_ = (state.parameters if state.best_epoch < 0 else state.best_parameters).copy()
        self.history_ = state.history
        self.n_iter_ = len(state.history)
        self._optimizer_state = state.optimizer
        self._built_with = {name: getattr(self, name) for name in OF_MODEL}

    def _check_further_epoch(self) -> bool:
        """Whether `partial_fit` is called for the first time, by an estimator whose arguments allow it."""
        check_arguments(self)
        if self.journal is not None:
            raise InputError(
                f"journal={self.journal!r} is for fit, whose calls can be repeated: set_params(journal=None) for partial_fit"
            )
        first = not hasattr(self, "parameters_")
        if not first:
            check_unchanged(self)
        return first

    def _train_epoch(self, X: Array, targets: Array, *, first: bool) -> Self:
        """One epoch at a constant rate, from where the last one ended."""
        if first:
            self.model_ = build_model(self, X.shape[1], self._num_outputs())
            self._built_with = {name: getattr(self, name) for name in OF_MODEL}
            self.history_, self.n_iter_ = [], 0
        config = training_config(self, 1, "constant", self._seed() + self.n_iter_)
        with opened(self, self.model_, budget=self.budget) as running:
            trainer = Trainer(running, config, X, targets, initial_parameters=None if first else self.parameters_)
            if not first:
                trainer.state.optimizer = self._optimizer_state
            result = trainer.run()
        self.parameters_ = result.last_parameters
        self._optimizer_state = trainer.state.optimizer
        self.history_ = [*self.history_, *result.history]
        self.n_iter_ += 1
        return self

    def equilibrium(self, X: Any) -> Prediction:
        """Equilibria of samples X (N, n_features_in_): state, residual, converged, steps, beside the logits.

        In direct mode the state that fed the last layer. Raises as `predict`.

        >>> from sklearn.datasets import load_iris
        >>> from qiskit_qdeq import QDEQClassifier
        >>> X, y = load_iris(return_X_y=True)
        >>> found = QDEQClassifier(epochs=2, random_state=0).fit(X, y).equilibrium(X)
        >>> found.state.shape, found.logits.shape, bool(found.converged.all())
        ((150, 3), (150, 3), True)
        """
        check_is_fitted(self, "parameters_")
        X = validate_data(self, X, dtype=np.float64, reset=False)
        chosen = None if self.mode == "direct" else chosen_solver(self)
        inputs = self.model_.prepare(X)
        with ProgressBar(self.verbose) as bar, opened(self, self.model_) as running:
            running.evaluator.listen(bar.on_job)
            tell = bar.evaluation(running, "predicting", len(inputs))
            return predict(
                running,
                self.parameters_,
                inputs,
                chosen,
                layers=self.layers,
                on_failure=self.on_failure,
                tell=tell,
            )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted estimator to a `.safetensors` file, with a `.json` copy of its arguments for people.

        Steps before it in a pipeline (scalers) are not part of it, nor is a `template`, a `journal`, or a `random_state`
        that is no integer.

        Raises:
            InputError: for labels that are neither numbers nor str, or another ending of the path.
            CheckpointError: if the file cannot be written.
        """
        save_learner(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, template: CircuitTemplate | None = None) -> Self:
        """The estimator that `save` wrote; predictions are the same, and `partial_fit` goes on where it was.

        Args:
            path: the file; it may come from anybody, nothing in it is executed.
            template: the circuit, if it was fitted on one of your own.

        Raises:
            CheckpointError: if the file is damaged or holds another kind of estimator, or the template is another one.
        """
        return load_learner(cls, path, template)

    def _hold_out(self, X: Array, targets: Array) -> list[Array]:
        strata = self._strata(targets)
        parts: list[Array] = train_test_split(
            X, targets, test_size=self.validation_fraction, stratify=strata, random_state=self._seed()
        )
        return parts

    def _seed(self) -> int:
        if isinstance(self.random_state, int | np.integer):
            return int(self.random_state)
        return int(check_random_state(self.random_state).randint(2**31))


def _warn_of_constants(X: Array) -> None:
    constant = np.flatnonzero(np.ptp(X, axis=0) == 0)
    if len(constant) == X.shape[1] and len(X) > 1:
        warn_user(f"all {X.shape[1]} features are constant: nothing can be learned")


def _kept(options: Learner, trainer: Trainer) -> str:
    """What is left of a fit that was ended, and how to go on."""
    more = "partial_fit goes on from there" if options.journal is None else "fit again to go on with the journal's jobs"
    return f"the {options.kind} keeps {trainer.state.step} of {trainer.total_steps} steps; {more}"
