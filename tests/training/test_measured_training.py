"""Training runs whose circuits are executed: what they cost, that they resume bit for bit, that shots suffice to learn."""

from __future__ import annotations

import numpy as np
import pytest

from qiskit_qdeq import Execution, QDEQClassifier, Sampling, Trainer, TrainingConfig, executed, model_config, solver
from qiskit_qdeq.data import load_split
from qiskit_qdeq.exceptions import CheckpointError, InputError
from qiskit_qdeq.execution.noisy_estimator import DensityMatrixEstimator
from qiskit_qdeq.training.cost import predicted_step

SAMPLING = Sampling(forward=300, growth=2.0, gradient_method="random", gradient_circuits=8)


def data(count=20):
    rng = np.random.default_rng(0)
    x = rng.uniform(0.1, 1, (count, 4))
    return x, (x[:, 0] > x[:, 1]).astype(int)


def trainer_on(model, folder, **options):
    config = TrainingConfig(solver=solver("probe"), epochs=3, batch_size=8, learning_rate=0.05, seed=1)
    return Trainer(model, config, *data(), checkpoint=folder / "run.safetensors", checkpoint_seconds=0, **options)


class StopAfter:
    def __init__(self, steps):
        self.steps = steps

    def on_step(self, trainer, result):
        self.steps -= 1
        if not self.steps:
            trainer.stop()

    def on_epoch(self, trainer, record):
        pass


@pytest.mark.filterwarnings("ignore:.*more shots")
@pytest.mark.parametrize("execution", [Execution("aer", seed=4), Execution("aer", noise="0.002,0.01,0.02", seed=4)])
def test_a_run_from_shots_resumes_to_the_numbers_of_the_uninterrupted_one(tmp_path, execution):
    model = model_config("default", 4, 2, 2).build()
    with executed(model, execution, sampling=SAMPLING) as measured:
        whole = trainer_on(measured, tmp_path).run()
    part = tmp_path / "part"
    with executed(model, execution, sampling=SAMPLING) as measured:
        trainer_on(measured, part, callbacks=[StopAfter(4)]).run()
    with executed(model, execution, sampling=SAMPLING) as measured:
        rest = trainer_on(measured, part).resume().run()
    assert rest.steps == whole.steps == 9
    np.testing.assert_array_equal(rest.last_parameters, whole.last_parameters)
    assert [record["circuits"] for record in rest.history] == [record["circuits"] for record in whole.history]


def test_a_run_does_not_go_on_with_other_shots_or_noise(tmp_path):
    model = model_config("default", 4, 2, 2).build()
    with executed(model, Execution("aer", shots=100, seed=4)) as measured:
        trainer_on(measured, tmp_path, callbacks=[StopAfter(1)]).run()
    others = (Execution("aer", shots=200, seed=4), Execution("aer", shots=100, noise="0.1,0.1,0.1", seed=4))
    for other in others:
        with executed(model, other) as measured, pytest.raises(CheckpointError, match="execution"):
            trainer_on(measured, tmp_path).resume()
    with pytest.raises(CheckpointError):
        trainer_on(model, tmp_path).resume()


@pytest.mark.filterwarnings("ignore:.*more shots")
def test_the_history_counts_what_steps_and_validation_cost(tmp_path):
    model = model_config("default", 4, 2, 2).build()
    x, y = data()
    with executed(model, Execution("aer", shots=100, seed=4)) as measured:
        config = TrainingConfig(solver=solver("probe"), epochs=1, batch_size=10)
        result = Trainer(measured, config, x, y, x[:5], y[:5]).run()
        step = predicted_step(measured, config, 10)
    size = model.num_states
    validation = 5 * (size + 1) + size * (size + 1) // 2 + 5
    [record] = result.history
    assert record["circuits"] == 2 * step.circuits + validation
    assert record["shots"] == 100 * record["circuits"]
    assert record["jobs"] == 2 * step.jobs + 2
    assert "spectral_radius" not in record


def test_digits_are_learned_from_shots_about_as_well_as_exactly():
    split = load_split("digits")
    train = split.x_train[:200], split.y_train[:200]
    options = {"epochs": 2, "batch_size": 10, "random_state": 0}
    exact = QDEQClassifier(**options).fit(*train)
    shots = QDEQClassifier(backend="aer", shots=1024, **options).fit(*train)
    scores = [model.score(split.x_test, split.y_test) for model in (exact, shots)]
    assert scores[1] > scores[0] - 0.05
    assert scores[1] > 0.8
    assert (
        exact.set_params(backend=Execution("fake:manila", shots=500, seed=0)).score(split.x_test, split.y_test) > 0.75
    )


@pytest.mark.filterwarnings("ignore:.*more shots")
def test_a_run_does_not_go_on_with_another_precision_of_the_estimator_itself(tmp_path):
    model = model_config("default", 4, 2, 2).build()
    trainer_on(model.measured(DensityMatrixEstimator(default_precision=0.1, seed=0)), tmp_path).run()
    other = model.measured(DensityMatrixEstimator(default_precision=0.2, seed=0))
    with pytest.raises(CheckpointError, match="shots"):
        trainer_on(other, tmp_path).resume()


def test_shots_said_twice_have_to_agree():
    model = model_config("default", 4, 2, 2).build()
    with (
        pytest.raises(InputError, match="forward=1024"),
        executed(model, Execution("aer", shots=512), sampling=Sampling(forward=1024)),
    ):
        pass
    with pytest.raises(InputError, match=r"unknown options \['shots'\].*sampling=Sampling"):
        model.measured(DensityMatrixEstimator(), shots=100)
