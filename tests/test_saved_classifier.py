"""A classifier from a file is the classifier that was saved, and no file of anybody does more than be refused."""

from __future__ import annotations

import numpy as np
import pytest
from qiskit.circuit.library import real_amplitudes, zz_feature_map
from sklearn.datasets import load_iris
from sklearn.exceptions import NotFittedError

from qiskit_qdeq import CircuitTemplate, QDEQClassifier
from qiskit_qdeq.equilibrium import Anderson, ScipyRoot
from qiskit_qdeq.exceptions import CheckpointError, InputError
from qiskit_qdeq.gradient import Backward
from qiskit_qdeq.training.checkpoint import load_checkpoint, save_checkpoint

X, Y = load_iris(return_X_y=True)
X = X / 10


def fitted(labels=Y, **arguments):
    return QDEQClassifier(**{"epochs": 2, "random_state": 0, **arguments}).fit(X, labels)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "classifier.safetensors"


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"dtype": "float32", "optimizer": "sgd"},
        {"solver": Anderson(tol=1e-7), "backward": Backward("neumann", terms=3), "random_state": None},
        {"solver": ScipyRoot(), "encoding": "angle", "epochs": 1},
        {"mode": "direct", "layers": 2, "num_qubits": np.int64(3)},
    ],
    ids=lambda arguments: "-".join(arguments) or "default",
)
def test_a_loaded_classifier_predicts_and_goes_on_bit_for_bit(path, arguments):
    first = fitted(**arguments)
    first.save(path)
    second = QDEQClassifier.load(path)
    np.testing.assert_array_equal(second.predict_proba(X), first.predict_proba(X))
    np.testing.assert_array_equal(second.predict(X), first.predict(X))
    assert second.get_params() == first.get_params()
    assert (second.history_, second.n_iter_, second.n_features_in_) == (first.history_, first.n_iter_, 4)
    for classifier in (first, second):
        classifier.set_params(random_state=1).partial_fit(X, Y)
    np.testing.assert_array_equal(second.parameters_, first.parameters_)


@pytest.mark.parametrize(
    "names", [["a", "b", "ccc"], np.array(["x", "y", "z"], object), [1.0, 2.0, -5.0], [-3, 7, 2**40]], ids=str
)
def test_labels_come_back_as_they_were(path, names):
    first = fitted(np.asarray(names)[Y])
    first.save(path)
    second = QDEQClassifier.load(path)
    assert second.classes_.dtype == first.classes_.dtype
    assert second.predict(X).tolist() == first.predict(X).tolist()


def test_a_template_of_ones_own_is_given_again_and_checked(path):
    def template(reps):
        return CircuitTemplate(
            zz_feature_map(4, reps=1), real_amplitudes(4, reps=reps, parameter_prefix="w"), readout="z"
        )

    first = fitted(template=template(1), state_scale=0.05, epochs=1)
    first.save(path)
    second = QDEQClassifier.load(path, template=template(1))
    np.testing.assert_array_equal(second.predict_proba(X), first.predict_proba(X))
    with pytest.raises(CheckpointError, match="give the same one as template"):
        QDEQClassifier.load(path)
    with pytest.raises(CheckpointError, match="another one"):
        QDEQClassifier.load(path, template=template(2))
    fitted().save(path)
    with pytest.raises(CheckpointError, match="leave template out"):
        QDEQClassifier.load(path, template=template(1))


def test_feature_names_are_kept(path):
    first = fitted()
    first.feature_names_in_ = np.array(["a", "b", "c", "d"], object)
    first.save(path)
    assert QDEQClassifier.load(path).feature_names_in_.tolist() == ["a", "b", "c", "d"]


def test_what_cannot_be_saved_is_said_before_anything_is_written(path):
    with pytest.raises(NotFittedError):
        QDEQClassifier().save(path)
    with pytest.raises(InputError, match=r"\.safetensors"):
        fitted().save(path.with_suffix(".pkl"))
    odd = fitted()
    odd.classes_ = np.array([(1, 2), "b", 3.0], object)
    with pytest.raises(InputError, match="labels"):
        odd.save(path)
    assert not list(path.parent.iterdir())


def test_a_damaged_or_foreign_file_is_refused(path):
    fitted().save(path)
    good = path.read_bytes()
    for blob in (good[:-1], b"", b"\x80\x04."):
        path.write_bytes(blob)
        with pytest.raises(CheckpointError, match=r"classifier\.safetensors"):
            QDEQClassifier.load(path)
    save_checkpoint(path, {}, {"progress": {}}, keep_previous=False)
    with pytest.raises(CheckpointError, match="holds no classifier"):
        QDEQClassifier.load(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("arguments", {}),
        ("arguments", {"template": None, "colour": "red"}),
        ("arguments", {"template": None, "solver": {"solver": "secant"}}),
        ("arguments", {"template": None, "num_qubits": 99}),
        ("arguments", None),
        ("features", 0),
        ("features", 2**70),
        ("features", "4"),
        ("labels", {"kind": "i"}),
        ("labels", {"kind": "U", "words": ["a", ["b"]]}),
        ("circuit", ""),
        ("feature_names", 3),
        ("epochs", "many"),
    ],
)
def test_a_file_with_nonsense_in_a_valid_envelope_is_refused(path, key, value):
    fitted().save(path)
    found = load_checkpoint(path)
    save_checkpoint(path, found.arrays, {**found.document, key: value}, keep_previous=False)
    with pytest.raises(CheckpointError, match=r"classifier\.safetensors"):
        QDEQClassifier.load(path)


@pytest.mark.parametrize(
    "change",
    [
        {"parameters": np.zeros(3)},
        {"classes": np.zeros((2, 2), int)},
        {"classes": np.zeros(0, int)},
        {"optimizer/steps": np.array(-1)},
        {"history/loss": np.zeros(9)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_file_with_arrays_that_do_not_fit_is_refused(path, change):
    fitted().save(path)
    found = load_checkpoint(path)
    save_checkpoint(path, {**found.arrays, **change}, found.document, keep_previous=False)
    with pytest.raises(CheckpointError, match=r"classifier\.safetensors"):
        QDEQClassifier.load(path)
