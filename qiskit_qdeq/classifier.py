"""A scikit-learn classifier on top of the trainer.

>>> from sklearn.datasets import load_iris
>>> from qiskit_qdeq import QDEQClassifier
>>> X, y = load_iris(return_X_y=True)
>>> QDEQClassifier(epochs=20, random_state=0).fit(X, y).score(X, y) > 0.9
True
"""

from __future__ import annotations

import os
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import train_test_split
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, check_random_state, validate_data

from qiskit_qdeq.circuits import CircuitTemplate
from qiskit_qdeq.classifier_options import (
    OF_MODEL,
    build_model,
    check_arguments,
    check_unchanged,
    chosen_solver,
    opened,
    training_config,
)
from qiskit_qdeq.equilibrium.solvers import Solver
from qiskit_qdeq.evaluation.sampling import Sampling
from qiskit_qdeq.exceptions import ConvergenceError, InputError, warn_user
from qiskit_qdeq.execution.account import Budget
from qiskit_qdeq.gradient.implicit import Backward
from qiskit_qdeq.inference import Prediction, predict
from qiskit_qdeq.model import QDEQModel
from qiskit_qdeq.readout import softmax
from qiskit_qdeq.saved_classifier import load_classifier, save_classifier
from qiskit_qdeq.training.progress import ProgressBar
from qiskit_qdeq.training.trainer import Trainer

Array = np.ndarray[Any, np.dtype[Any]]


class QDEQClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Quantum Deep Equilibrium Model as a scikit-learn classifier.

    Features are encoded as they come: scale them first (`StandardScaler` in a pipeline, or pixels normalized) so that
    they are of the order of the fed-back expectation values, which lie in [-1, 1].

    Args:
        preset: "default" or "paper", see `presets.model_config`.
        num_qubits: n; None takes as many as the features (and the bias) need as amplitudes, at least 2.
        encoding: "amplitude" or "angle".
        ansatz: "paper" (4 or 10 qubits), "random", "hardware_efficient"; None for the preset's.
        readout: "z", "zz", "zzz" or "zzzz"; None for the preset's.
        template: a `CircuitTemplate` of your own instead of the five arguments above, which must then keep their defaults.
        state_scale: factor of the state fed back; None for the preset's (0.5 default, 1 paper).
        bias: constant input appended to every sample; "auto" appends 1.0 where an amplitude is free. Without it amplitude
            encoding drops the norm of a sample and refuses zero vectors.
        mode: "implicit" (the equilibrium) or "direct" (`layers` explicit layers).
        layers: L of direct mode, warm-up and start "direct".
        warmup_steps: steps trained in direct mode first.
        solver: name or object, see `equilibrium.solver`; "auto" is "newton" with the exact backend, else "probe" for
            amplitude encoding and "broyden" for others.
        backward: backward mode, see `gradient.Backward`.
        start: "zeros", "warm" or "direct".
        regularization, regularization_strength: Jacobian penalty, see `gradient.Regularization`.
        epochs, batch_size, optimizer, learning_rate, schedule, weight_decay, clip_norm, dropout: see `TrainingConfig`.
        patience: early stop after this many epochs without a better validation loss; needs `validation_fraction`.
        validation_fraction: share of the training samples held out to choose the best epoch; 0 keeps the last one.
        backend: where circuits run, in fit and predict alike: "exact" (linear algebra, no circuits), "aer", "statevector",
            "fake:<name>", "ibm:<name>", an `Execution` (noise, mitigation, session mode), or a backend object.
            `set_params` may change it between fit and predict.
        estimator: an estimator primitive of your own (any `BaseEstimatorV2`) instead of `backend`.
        shots: executions per circuit; None is exact on simulators, the service's default on devices.
        sampling: shots or precision per purpose, and the weight gradient's estimator; see `Sampling`.
        journal: file in which `fit` keeps its jobs at a service; needs an integer `random_state`. A `fit` repeated with the
            same data and arguments, after a crash or with a larger budget, fetches what was paid for instead of running it
            again. Predictions are measured anew and use none.
        budget: the most that a call of `fit` or `partial_fit` may spend, such as "600s, 20000 circuits", see `Budget.parse`;
            with a journal all that was spent on it counts.
        dtype: "float64" or "float32", of the exact backend.
        on_failure: "raise", "warn" or "accept" samples without an equilibrium when predicting.
        verbose: show progress, of predictions too where circuits are measured.
        random_state: seed of everything random.

    Attributes:
        classes_: class labels.
        n_features_in_: features seen in fit.
        model_: the `QDEQModel`.
        parameters_: circuit weights, readout matrix and bias, flat.
        history_: one record per epoch.
        n_iter_: epochs run.
    """

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

    def fit(self, X: Any, y: Any) -> Self:
        """Train from scratch on samples X (N, features) with labels y (N,) of at least 2 classes.

        What ends it on the way (BudgetError, ServiceError and other errors of a primitive, Ctrl-C) leaves the classifier
        fitted with the steps taken so far, as the exception's note says: `history_` has the finished epochs, and `predict`,
        `save` and `partial_fit` work. InputError, ConvergenceError and what comes before the first step leave it unfitted.

        Returns:
            This classifier, fitted.

        Raises:
            InputError: (a ValueError) for data or arguments that cannot be used.
            ConvergenceError: if training leaves the numbers a computer has, or a gradient does not exist.
            BudgetError: if the next step would exceed `budget`.
            ServiceError: if a service refuses a job, or fails for too long.
            JournalError: if the journal is damaged, of another device, or cannot be written.
        """
        # whatever fails from here on leaves an unfitted classifier, never old weights with new labels
        for name in [name for name in vars(self) if name.endswith("_") and not name.startswith("_")]:
            delattr(self, name)
        check_arguments(self)
        X, labels = self._check_training_data(X, y)
        model = build_model(self, X.shape[1], len(self.classes_))
        held_out: tuple[Array, Array] | tuple[None, None] = (None, None)
        if self.validation_fraction:
            X, valid_x, labels, valid_labels = self._hold_out(X, labels)
            held_out = (valid_x, valid_labels)
        config = training_config(self, self.epochs, self.schedule, self._seed())
        with ProgressBar(self.verbose) as bar, opened(self, model, journal=self.journal, budget=self.budget) as running:
            trainer = Trainer(running, config, X, labels, *held_out, callbacks=[bar])
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
        """Make what was trained this classifier's own."""
        state = trainer.state
        self.model_ = model
        self.parameters_ = (state.parameters if state.best_epoch < 0 else state.best_parameters).copy()
        self.history_ = state.history
        self.n_iter_ = len(state.history)
        self._optimizer_state = state.optimizer
        self._built_with = {name: getattr(self, name) for name in OF_MODEL}

    def partial_fit(self, X: Any, y: Any, classes: Any = None) -> Self:
        """One epoch over X, y at a constant rate, continuing where the last call (or `fit`) ended.

        Args:
            X: samples (N, features).
            y: labels (N,).
            classes: all labels that will ever occur; required at the first call.

        Raises:
            InputError: if `classes` is missing at first, y holds a label that is not among them, or an argument that the
                model is built from was changed by `set_params` since; with a `journal`, which is for `fit`.
            BudgetError: if the next step would exceed `budget`; the classifier stays as it was, as with every error.
        """
        check_arguments(self)
        if self.journal is not None:
            raise InputError(
                f"journal={self.journal!r} is for fit, whose calls can be repeated: set_params(journal=None) for partial_fit"
            )
        first = not hasattr(self, "parameters_")
        if first:
            if classes is None:
                raise InputError("classes must list all labels at the first call of partial_fit")
            self.classes_ = np.unique(classes)
        else:
            check_unchanged(self)
            if classes is not None and not np.array_equal(np.unique(classes), self.classes_):
                raise InputError(f"classes must stay {self.classes_}, got {np.unique(classes)}")
        X, y = validate_data(self, X, y, dtype=np.float64, reset=first)
        check_classification_targets(y)
        unknown = np.setdiff1d(y, self.classes_)
        if len(unknown):
            raise InputError(f"y holds labels {unknown} that are not in classes {self.classes_}")
        if first:
            self.model_ = build_model(self, X.shape[1], len(self.classes_))
            self._built_with = {name: getattr(self, name) for name in OF_MODEL}
            self.history_, self.n_iter_ = [], 0
        labels = np.searchsorted(self.classes_, y)
        config = training_config(self, 1, "constant", self._seed() + self.n_iter_)
        with opened(self, self.model_, budget=self.budget) as running:
            trainer = Trainer(running, config, X, labels, initial_parameters=None if first else self.parameters_)
            if not first:
                trainer.state.optimizer = self._optimizer_state
            result = trainer.run()
        self.parameters_ = result.last_parameters
        self._optimizer_state = trainer.state.optimizer
        self.history_ = [*self.history_, *result.history]
        self.n_iter_ += 1
        return self

    def predict(self, X: Any) -> Array:
        """The most probable class label of every sample.

        Args:
            X: (N, n_features_in_).

        Returns:
            Labels (N,), entries of `classes_`.

        Raises:
            NotFittedError: before `fit`.
            InputError: (a ValueError, as scikit-learn's own for NaN or another number of features) for a sample that cannot
                be encoded, naming its row.
            ConvergenceError: with `on_failure="raise"` if a sample has no equilibrium; "warn" gives a `ConvergenceWarning`.
        """
        best = self.equilibrium(X).logits.argmax(axis=1)
        return self.classes_[best]

    def predict_proba(self, X: Any) -> Array:
        """Class probabilities softmax(logits), (N, C) in the order of `classes_`, of samples X; raises as `predict`.

        >>> from sklearn.datasets import load_iris
        >>> X, y = load_iris(return_X_y=True)
        >>> QDEQClassifier(epochs=2, random_state=0).fit(X, y).predict_proba(X[:5]).shape
        (5, 3)
        """
        return softmax(self.equilibrium(X).logits)

    def decision_function(self, X: Any) -> Array:
        """Logits (N, C) in the order of `classes_`; for two classes logit 1 minus logit 0, (N,). Raises as `predict`."""
        logits = self.equilibrium(X).logits
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits

    def equilibrium(self, X: Any) -> Prediction:
        """Equilibria of samples X (N, n_features_in_): state, residual, converged, steps, beside the logits.

        In direct mode the state that fed the last layer. Raises as `predict`.

        >>> from sklearn.datasets import load_iris
        >>> X, y = load_iris(return_X_y=True)
        >>> found = QDEQClassifier(epochs=2, random_state=0).fit(X, y).equilibrium(X)
        >>> found.state.shape, found.logits.shape, bool(found.converged.all())
        ((150, 3), (150, 3), True)
        """
        check_is_fitted(self, "parameters_")
        X = validate_data(self, X, dtype=np.float64, reset=False)
        chosen = None if self.mode == "direct" else chosen_solver(self)
        inputs = self.model_.prepare(X).astype(self.model_.dtype)
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
        """Write the fitted classifier to a `.safetensors` file, with a `.json` copy of its arguments for people.

        Steps before it in a pipeline (scalers) are not part of it, nor is a `template`, a `journal`, or a `random_state`
        that is no integer.

        Raises:
            InputError: for labels that are neither numbers nor str, or another ending of the path.
            CheckpointError: if the file cannot be written.
        """
        save_classifier(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, template: CircuitTemplate | None = None) -> Self:
        """The classifier that `save` wrote; predictions are the same, and `partial_fit` goes on where it was.

        Args:
            path: the file; it may come from anybody, nothing in it is executed.
            template: the circuit, if it was fitted on one of your own.

        Raises:
            CheckpointError: if the file is damaged or holds no classifier, or the template is another one.
        """
        return load_classifier(cls, path, template)

    def _check_training_data(self, X: Any, y: Any) -> tuple[Array, Array]:
        X, y = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise InputError(f"y must hold at least 2 classes, got only one class: {self.classes_[0]!r}")
        constant = np.flatnonzero(np.ptp(X, axis=0) == 0)
        if len(constant) == X.shape[1] and len(X) > 1:
            warn_user(f"all {X.shape[1]} features are constant: nothing can be learned")
        return X, labels

    def _hold_out(self, X: Array, labels: Array) -> list[Array]:
        parts: list[Array] = train_test_split(
            X, labels, test_size=self.validation_fraction, stratify=labels, random_state=self._seed()
        )
        return parts

    def _seed(self) -> int:
        if isinstance(self.random_state, int | np.integer):
            return int(self.random_state)
        return int(check_random_state(self.random_state).randint(2**31))


def _kept(options: QDEQClassifier, trainer: Trainer) -> str:
    """What is left of a fit that was ended, and how to go on."""
    more = "partial_fit goes on from there" if options.journal is None else "fit again to go on with the journal's jobs"
    return f"the classifier keeps {trainer.state.step} of {trainer.total_steps} steps; {more}"
