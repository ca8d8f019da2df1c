"""Classical controls: what they count, what they learn from, and what they refuse."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier

from qiskit_qdeq.data import load_split
from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.studies.controls import CONTROLS, control, run_control


@pytest.fixture(scope="module")
def split():
    return load_split("digits")


@pytest.mark.parametrize("name", CONTROLS)
def test_a_control_learns_digits_from_sixteen_averages(split, name):
    found = control(name, split)
    assert min(found["test_accuracy"], found["valid_accuracy"], found["train_accuracy"]) > 0.9
    assert found["train_seconds"] > 0


def test_parameters_are_the_trained_numbers(split):
    assert control("logistic", split)["num_parameters"] == 4 * 16 + 4
    assert control("mlp", split)["num_parameters"] == 32 * 16 + 32 + 4 * 32 + 4


def test_a_logistic_regression_that_did_not_converge_says_so_and_a_network_does_not(split, monkeypatch):
    monkeypatch.setattr(LogisticRegression, "fit", stopped_after_three_steps(LogisticRegression.fit))
    monkeypatch.setattr(MLPClassifier, "fit", stopped_after_three_steps(MLPClassifier.fit))
    with pytest.warns(ConvergenceWarning):
        control("logistic", split)
    # warnings are errors
    control("mlp", split)


def stopped_after_three_steps(fit):
    def stopped(self, x, y):
        return fit(self.set_params(max_iter=3), x, y)

    return stopped


@pytest.mark.parametrize("name", CONTROLS)
def test_labels_of_the_other_parts_change_neither_the_machine_nor_its_other_figures(split, name):
    found = control(name, split)
    wrong = control(name, replace(split, y_test=(split.y_test + 1) % 4, y_valid=(split.y_valid + 1) % 4))
    assert wrong["train_accuracy"] == found["train_accuracy"]
    assert wrong["test_accuracy"] <= 1 - found["test_accuracy"]


@pytest.mark.parametrize("name", CONTROLS)
def test_the_scale_of_the_features_does_not_matter(split, name):
    scaled = replace(split, **{f"x_{part}": 1024 * getattr(split, f"x_{part}") for part in ("train", "valid", "test")})
    first, second = control(name, split), control(name, scaled)
    assert first["test_accuracy"] == second["test_accuracy"]


def test_a_limit_keeps_that_many_training_samples_whatever_the_rest(split):
    few, many = control("svm", split, limit=20), control("svm", split)
    assert few["num_parameters"] <= 3 * 20 + 6 < many["num_parameters"]
    assert few["test_accuracy"] < many["test_accuracy"]


def test_the_seed_decides_the_samples_and_the_network(split):
    def accuracies(name, seed, limit):
        found = control(name, split, seed, limit)
        return [found[f"{part}_accuracy"] for part in ("test", "valid", "train")]

    for name, limit in (("svm", 40), ("mlp", 40)):
        first = accuracies(name, 0, limit)
        assert accuracies(name, 0, limit) == first
        assert any(accuracies(name, seed, limit) != first for seed in (1, 2, 3))


def test_a_task_takes_and_gives_plain_values():
    found = run_control(json.loads(json.dumps({"name": "svm", "data": "digits", "classes": [1, 7], "limit": 40})))
    assert json.loads(json.dumps(found)) == found
    assert (found["num_weights"], found["depth"], found["two_qubit_gates"]) == (None, None, None)
    assert np.isclose(found["test_accuracy"] * 40, round(found["test_accuracy"] * 40))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "tree"}, "name must be one of .*'tree'"),
        ({"encoding": "angle"}, "unknown arguments .*encoding"),
        ({"limit": 2}, "limit=2 is too small"),
        ({"seed": -1}, "seed=-1"),
        ({"data": "letters"}, "'letters'"),
    ],
)
def test_unusable_arguments_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        run_control(arguments)
