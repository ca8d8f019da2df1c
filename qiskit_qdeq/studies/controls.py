"""Classical controls: what logistic regression, a small network and an RBF machine make of a circuit's own inputs.

Features are standardized with the training part's mean and standard deviation. Hyperparameters are fixed, the same for
every data set; nothing is chosen by the test part.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from qiskit_qdeq.data import DataSplit, load_split
from qiskit_qdeq.data.split import check_limit, make_generator, stratified_subset
from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.programs.arguments import from_mapping

CONTROLS = ("logistic", "mlp", "svm")
#: Training samples of the RBF machine: on CIFAR-10 fit and scores take 2.6 minutes of one core, growing with their square.
SVM_SAMPLES = 20_000
_HIDDEN = 32
_EPOCHS = 100
_BATCH = 256


@dataclass(frozen=True)
class ControlArguments:
    """A control and the data it gets, in plain values; see `load_split` for the data's."""

    name: str = field(default="logistic", metadata={"choices": CONTROLS})
    data: str = "digits"
    data_dir: str | None = None
    num_qubits: int = 4
    classes: tuple[int, ...] | None = None
    seed: int = 0
    limit: int | None = None


def run_control(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """One control as a task for any process: plain values in, plain values out.

    Args:
        arguments: fields of `ControlArguments`: name, data, data_dir, num_qubits, classes, seed, and limit, which keeps at
            most so many samples in each part.

    Returns:
        What `control` returns, and None as num_weights, depth and two_qubit_gates: there is no circuit.

    Raises:
        InputError: for arguments or data that cannot be used.
    """
    options = from_mapping(ControlArguments, arguments)
    split = load_split(
        options.data,
        data_dir=options.data_dir,
        num_qubits=options.num_qubits,
        classes=options.classes,
        limit=options.limit,
    )
    return {**control(options.name, split, options.seed), "num_weights": None, "depth": None, "two_qubit_gates": None}


def control(name: str, split: DataSplit, seed: int = 0, limit: int | None = None) -> dict[str, Any]:
    """Train a classical classifier on the features of a split.

    - "logistic": multinomial logistic regression with the L2 penalty ‖W‖²/2 (C = 1), to convergence: scikit-learn
      warns if 5,000 steps are too few.
    - "mlp": one hidden layer of 32 ReLU units, Adam at 0.001, batch 256, 100 epochs, L2 penalty 1e-4.
    - "svm": kernel exp(-γ‖x - x'‖²), γ = 1/(D Var x), C = 10, on at most 20,000 training samples unless `limit` says
      otherwise: its time grows with their square.

    Args:
        name: "logistic", "mlp" or "svm".
        split: the data.
        seed: of the network, and of the samples that a limit keeps.
        limit: training samples kept at most, each class with its share.

    Returns:
        test_accuracy, valid_accuracy, train_accuracy (of the samples trained on), num_parameters (of the machine: dual
        coefficients and intercepts, support vectors apart), train_seconds.

    Raises:
        InputError: for an unknown name, or a limit or seed that cannot be used.

    >>> from qiskit_qdeq.data import load_split
    >>> control("logistic", load_split("digits"))["num_parameters"]  # 4 × 16 + 4
    68
    """
    if name not in CONTROLS:
        raise InputError(f"name={name!r} is not one of {', '.join(map(repr, CONTROLS))}")
    limit = check_limit(limit, "limit", split.num_classes)
    if limit is None and name == "svm":
        limit = SVM_SAMPLES
    kept = stratified_subset(split.y_train, limit, make_generator(seed))

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    classifier = _classifier(name, seed, len(kept))
    pipeline = make_pipeline(StandardScaler(), classifier)
    x, y = split.x_train[kept], split.y_train[kept]
    started = time.perf_counter()
    with warnings.catch_warnings():
        if name == "mlp":
            # the network's epochs are a choice, not a failure
            warnings.simplefilter("ignore", ConvergenceWarning)
        pipeline.fit(x, y)
    seconds = time.perf_counter() - started
    return {
        "test_accuracy": float(pipeline.score(split.x_test, split.y_test)),
        "valid_accuracy": float(pipeline.score(split.x_valid, split.y_valid)),
        "train_accuracy": float(pipeline.score(x, y)),
        "num_parameters": sum(int(np.size(array)) for array in _trained_arrays(name, classifier)),
        "train_seconds": seconds,
    }


def _classifier(name: str, seed: int, samples: int) -> Any:
    if name == "logistic":
        from sklearn.linear_model import LogisticRegression

        return LogisticRegression(C=1.0, max_iter=5000)
    if name == "svm":
        from sklearn.svm import SVC

        return SVC(C=10.0, kernel="rbf", gamma="scale", cache_size=500)
    from sklearn.neural_network import MLPClassifier

    return MLPClassifier(
        (_HIDDEN,),
        alpha=1e-4,
        batch_size=min(_BATCH, samples),
        learning_rate_init=1e-3,
        max_iter=_EPOCHS,
        n_iter_no_change=_EPOCHS,
        random_state=int(seed),
    )


def _trained_arrays(name: str, classifier: Any) -> list[Any]:
    if name == "mlp":
        return [*classifier.coefs_, *classifier.intercepts_]
    return [classifier.dual_coef_ if name == "svm" else classifier.coef_, classifier.intercept_]
