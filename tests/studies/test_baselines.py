"""The paper's baselines as tasks of plain values."""

from __future__ import annotations

import json

import numpy as np
import pytest
from oracles import statevector_values

from qiskit_qdeq.data import load_split, pca_features
from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.studies import baselines
from qiskit_qdeq.studies.baselines import BaselineArguments, baseline_split, run_baseline

FEW = {"epochs": 2, "limit": 60}
KEYS = {
    *("test_accuracy", "valid_accuracy", "train_accuracy", "train_seconds"),
    *("num_parameters", "num_weights", "depth", "two_qubit_gates"),
}


@pytest.mark.parametrize("encoding", ["amplitude", "angle"])
@pytest.mark.parametrize("name", ["wang", "pca"])
def test_a_task_takes_and_gives_plain_values_and_repeats(name, encoding):
    arguments = json.loads(json.dumps({"name": name, "encoding": encoding, "classes": [0, 3, 6, 9], "seed": 1, **FEW}))
    found, again = run_baseline(arguments), run_baseline(arguments)
    assert set(found) == KEYS
    assert json.loads(json.dumps(found)) == found
    assert {**found, "train_seconds": 0} == {**again, "train_seconds": 0}
    assert found["num_parameters"] == {"wang": 39, "pca": 39 + 4 * 17}[name]
    assert found["num_weights"] == 39


def test_the_circuit_of_wang_predicts_by_its_largest_expectation_value(monkeypatch):
    seen = []

    class Watched(baselines.Trainer):
        def run(self):
            result = super().run()
            seen.append((self.model, self.config, result.parameters))
            return result

    monkeypatch.setattr(baselines, "Trainer", Watched)
    found = run_baseline({"name": "wang", **FEW})
    ((model, config, parameters),) = seen
    split = load_split("digits", limit=60)
    values = statevector_values(model.template, split.x_test, parameters, model.template.state_observables)
    assert found["test_accuracy"] == np.mean(values.argmax(axis=1) == split.y_test)
    assert (config.mode, config.layers, config.dropout, config.clip_norm) == ("direct", 1, 0.0, 0.25)
    assert (config.optimizer, config.learning_rate, config.batch_size) == ("adam", 0.005, 256)


def test_it_learns():
    found = run_baseline({"name": "pca", "epochs": 60, "learning_rate": 0.05, "scaling": "range"})
    assert found["test_accuracy"] > 0.8


def test_its_features_are_those_of_all_pixels():
    found = baseline_split(BaselineArguments("pca", limit=60))
    np.testing.assert_array_equal(found.x_test, pca_features(load_split("digits", pooled=False, limit=60), 16).x_test)
    assert baseline_split(BaselineArguments("wang", limit=60)).name == "digits"


def test_the_autoencoders_code_feeds_a_circuit():
    pytest.importorskip("torch", reason="needs PyTorch: the extra `torch`")
    found = run_baseline({"name": "vae", **FEW})
    assert set(found) == KEYS
    assert found["num_parameters"] == 39 + 4 * 17


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "qnn"}, "name must be one of .*'qnn'"),
        ({"encoding": "phase"}, "encoding must be one of .*'phase'"),
        ({"classes": [0, 1, 2]}, "head 'none' .* make 4 for 3 classes"),
        ({"mode": "direct"}, "unknown arguments .*mode"),
        ({"epochs": 0}, "epochs"),
        ({"name": "wang", "scaling": "range"}, "scaling 'range' .*'wang' has pooled pixels"),
        ({"name": "pca", "scaling": "minmax"}, "scaling must be one of .*'minmax'"),
    ],
)
def test_unusable_arguments_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        run_baseline(arguments)
