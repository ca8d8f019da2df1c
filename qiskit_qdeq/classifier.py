"""A scikit-learn classifier on top of the trainer.

>>> from sklearn.datasets import load_iris
>>> from qiskit_qdeq import QDEQClassifier
>>> X, y = load_iris(return_X_y=True)
>>> QDEQClassifier(epochs=20, random_state=0).fit(X, y).score(X, y) > 0.9
True
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from scipy.special import log_softmax
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import validate_data

from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.learner import Learner
from qiskit_qdeq.readout import softmax

Array = np.ndarray[Any, np.dtype[Any]]

_LABELS = "classes"


class QDEQClassifier(ClassifierMixin, Learner):  # type: ignore[misc]
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
        start: "zeros", "warm", "random" or "direct", see `TrainingConfig`.
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

    kind = "classifier"
    loss = "cross_entropy"

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
        first = self._check_further_epoch()
        if first:
            if classes is None:
                raise InputError("classes must list all labels at the first call of partial_fit")
            self.classes_ = np.unique(classes)
        elif classes is not None and not np.array_equal(np.unique(classes), self.classes_):
            raise InputError(f"classes must stay {self.classes_}, got {np.unique(classes)}")
        X, y = validate_data(self, X, y, dtype=np.float64, reset=first)
        check_classification_targets(y)
        unknown = np.setdiff1d(y, self.classes_)
        if len(unknown):
            raise InputError(f"y holds labels {unknown} that are not in classes {self.classes_}")
        return self._train_epoch(X, np.searchsorted(self.classes_, y), first=first)

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

    def predict_log_proba(self, X: Any) -> Array:
        """Logarithms of what `predict_proba` gives, o - log Σ_c exp o_c of logits o (N, C): finite for any probability.

        >>> from sklearn.datasets import load_iris
        >>> X, y = load_iris(return_X_y=True)
        >>> found = QDEQClassifier(epochs=2, random_state=0).fit(X, y).predict_log_proba(X[:5])
        >>> found.shape, bool((found < 0).all())
        ((5, 3), True)
        """
        found: Array = log_softmax(self.equilibrium(X).logits, axis=1)
        return found

    def decision_function(self, X: Any) -> Array:
        """Logits (N, C) in the order of `classes_`; for two classes logit 1 minus logit 0, (N,). Raises as `predict`."""
        logits = self.equilibrium(X).logits
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits

    def _check_training_data(self, X: Any, y: Any) -> tuple[Array, Array]:
        X, y = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise InputError(f"y must hold at least 2 classes, got only one class: {self.classes_[0]!r}")
        return X, labels

    def _num_outputs(self) -> int:
        return len(self.classes_)

    def _strata(self, targets: Array) -> Array:
        return targets

    def _targets_to_file(self) -> tuple[dict[str, Array], dict[str, Any]]:
        classes = self.classes_
        if classes.dtype.kind not in "biufUO" or (classes.dtype.itemsize > 8 and classes.dtype.kind in "iuf"):
            raise InputError(f"classes of dtype {classes.dtype} cannot be stored: use numbers or str as labels")
        words = classes.dtype.kind in "UO"
        if words and not all(isinstance(label, str) for label in classes):
            raise InputError(f"classes {classes.tolist()} cannot be stored: use numbers or str as labels")
        labels = {"kind": classes.dtype.kind, "words": [str(label) for label in classes] if words else None}
        return {} if words else {_LABELS: classes}, {"labels": labels}

    def _targets_from_file(self, arrays: Mapping[str, Array], document: Mapping[str, Any]) -> None:
        labels = document["labels"]
        words = labels["words"]
        self.classes_ = arrays[_LABELS] if words is None else np.array(words, object if labels["kind"] == "O" else str)
        if self.classes_.ndim != 1:
            raise ValueError(f"classes of shape {self.classes_.shape}")
