"""A scikit-learn regressor on top of the trainer.

    y = μ + σ ⊙ (W a(h) + b),      h at the equilibrium, μ and σ mean and standard deviation of the training targets

>>> import numpy as np
>>> from qiskit_qdeq import QDEQRegressor
>>> X = np.random.default_rng(0).uniform(-1, 1, (60, 2))
>>> y = 100 * np.sin(2 * X[:, 0] + X[:, 1])
>>> QDEQRegressor(random_state=0).fit(X, y).score(X, y) > 0.9
True
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.utils.validation import validate_data

from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.learner import Learner

Array = np.ndarray[Any, np.dtype[Any]]


class QDEQRegressor(RegressorMixin, Learner):  # type: ignore[misc]
    """Quantum Deep Equilibrium Model as a scikit-learn regressor, of one or several targets.

    It minimizes the squared error of targets scaled to mean 0 and variance 1, which `history_` is about. Arguments are those
    of `QDEQClassifier`, with the same meaning.

    Attributes:
        target_mean_: μ (outputs,).
        target_scale_: σ (outputs,), 1 where a target is constant.
        n_features_in_: features seen in fit.
        model_: the `QDEQModel`.
        parameters_: circuit weights, readout matrix and bias, flat.
        history_: one record per epoch.
        n_iter_: epochs run.
    """

    kind = "regressor"
    loss = "squared_error"

    target_mean_: Array
    target_scale_: Array

    def partial_fit(self, X: Any, y: Any) -> Self:
        """One epoch over X, y at a constant rate, continuing where the last call (or `fit`) ended.

        The first call decides how targets are scaled.

        Args:
            X: samples (N, features).
            y: targets (N,) or (N, outputs).

        Raises:
            InputError: if y has another number of outputs than before, or an argument that the model is built from was
                changed by `set_params` since; with a `journal`, which is for `fit`.
            BudgetError: if the next step would exceed `budget`; the regressor stays as it was, as with every error.
        """
        first = self._check_further_epoch()
        X, y = self._validated(X, y, reset=first)
        if first:
            self._choose_scale(y)
        elif y.ndim - 1 != self._is_table or (y.ndim == 2 and y.shape[1] != len(self.target_mean_)):
            raise InputError(f"y must have targets of shape {self._shape()} per sample as before, got {y.shape[1:]}")
        return self._train_epoch(X, self._scaled(y), first=first)

    def predict(self, X: Any) -> Array:
        """Targets of samples X (N, n_features_in_): (N,) or (N, outputs), as y was in `fit`.

        Raises:
            NotFittedError: before `fit`.
            InputError: (a ValueError, as scikit-learn's own for NaN or another number of features) for a sample that cannot
                be encoded, naming its row.
            ConvergenceError: with `on_failure="raise"` if a sample has no equilibrium; "warn" gives a `ConvergenceWarning`.
        """
        outputs = self.equilibrium(X).logits
        found: Array = outputs * self.target_scale_ + self.target_mean_
        return found if self._is_table else found[:, 0]

    def _check_training_data(self, X: Any, y: Any) -> tuple[Array, Array]:
        X, y = self._validated(X, y, reset=True)
        self._choose_scale(y)
        return X, self._scaled(y)

    def _validated(self, X: Any, y: Any, *, reset: bool) -> tuple[Array, Array]:
        X, y = validate_data(self, X, y, dtype=np.float64, multi_output=True, y_numeric=True, reset=reset)
        return X, np.asarray(y, dtype=np.float64)

    def _choose_scale(self, y: Array) -> None:
        self._is_table = y.ndim == 2
        table = y.reshape(len(y), -1)
        with np.errstate(over="ignore", invalid="ignore"):
            mean, scale = table.mean(axis=0), table.std(axis=0)
        if not np.isfinite([mean, scale]).all():
            raise InputError(f"y is too large to be scaled, up to {np.abs(y).max():.3g}: divide it by a constant")
        self.target_mean_ = mean
        # of equal numbers the standard deviation is zero but for rounding
        self.target_scale_ = np.where(scale > 1e-14 * np.abs(mean), scale, 1.0)

    def _scaled(self, y: Array) -> Array:
        scaled: Array = (y.reshape(len(y), -1) - self.target_mean_) / self.target_scale_
        return scaled

    def _shape(self) -> tuple[int, ...]:
        return self.target_mean_.shape if self._is_table else ()

    def _num_outputs(self) -> int:
        return len(self.target_mean_)

    def _strata(self, targets: Array) -> None:
        return None

    def _targets_to_file(self) -> tuple[dict[str, Array], dict[str, Any]]:
        arrays = {"target_mean": self.target_mean_, "target_scale": self.target_scale_}
        return arrays, {"targets": {"is_table": self._is_table}}

    def _targets_from_file(self, arrays: Mapping[str, Array], document: Mapping[str, Any]) -> None:
        self.target_mean_, self.target_scale_ = arrays["target_mean"], arrays["target_scale"]
        self._is_table = document["targets"]["is_table"]
        shapes = {self.target_mean_.shape, self.target_scale_.shape}
        outputs = self.target_mean_.shape[0] if self.target_mean_.ndim == 1 else 0
        known = shapes == {(outputs,)} and np.isfinite([self.target_mean_, self.target_scale_]).all()
        if not outputs or not known or type(self._is_table) is not bool or (outputs > 1 and not self._is_table):
            raise ValueError(f"its targets are scaled by arrays of shapes {shapes}, table {self._is_table!r}")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
