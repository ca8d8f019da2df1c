"""Probing ahead: one job a step, the next minibatch's map measured with this one's gradient."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import build_model

from qiskit_qdeq import Execution, Sampling, Trainer, TrainingConfig, executed, solver
from qiskit_qdeq.evaluation.weight_gradient import _systematic
from qiskit_qdeq.exceptions import CheckpointError, InputError

# ten samples and a hundred shots: some of them end beside their equilibrium
pytestmark = pytest.mark.filterwarnings("ignore::qiskit_qdeq.exceptions.ConvergenceWarning")

CONFIG = TrainingConfig(
    solver=solver("probe", ahead=True), epochs=2, batch_size=4, learning_rate=0.05, schedule="constant"
)


class Watch:
    """Keeps the cost of every step."""

    def __init__(self, stop_at: int = -1) -> None:
        self.jobs: list[int] = []
        self._stop_at = stop_at

    def on_step(self, trainer, result):
        self.jobs.append(result.cost.jobs)
        if trainer.state.step == self._stop_at:
            trainer.stop()

    def on_epoch(self, trainer, record):
        pass


def data():
    rng = np.random.default_rng(3)
    return rng.normal(size=(10, 6)), rng.integers(0, 3, 10)


def train(config, execution, *, watch=None, path=None, resume=False, sampling=None, valid=False):
    model = build_model("amplitude")
    x, y = data()
    with executed(model, execution, sampling=sampling) as measured:
        parts = (x[:4], y[:4]) if valid else ()
        callbacks = [watch] if watch else []
        trainer = Trainer(measured, config, x, y, *parts, callbacks=callbacks, checkpoint=path)
        if resume:
            trainer.resume()
        return trainer.run()


@pytest.mark.parametrize("sampling", [None, Sampling(gradient_method="random", gradient_circuits=20)])
def test_every_step_but_the_first_is_one_job(sampling):
    watch = Watch()
    train(CONFIG, Execution("aer", shots=100, seed=0), watch=watch, sampling=sampling, valid=True)
    assert watch.jobs == [2, 1, 1, 1, 1, 1]
    watch = Watch()
    plain = dataclasses.replace(CONFIG, solver=solver("probe"))
    train(plain, Execution("aer", shots=100, seed=0), watch=watch, sampling=sampling)
    assert watch.jobs == [2] * 6


def test_warm_up_probes_nothing():
    watch = Watch()
    config = dataclasses.replace(CONFIG, warmup_steps=2)
    train(config, Execution("aer", shots=100, seed=0), watch=watch)
    assert watch.jobs == [1, 1, 2, 1, 1, 1]


def test_a_map_probed_ahead_is_the_map_where_the_weights_stay():
    still = dataclasses.replace(CONFIG, learning_rate=1e-13)
    found = train(still, Execution("statevector"))
    plain = train(dataclasses.replace(still, solver=solver("probe")), Execution("statevector"))
    for one, other in zip(found.history, plain.history, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], abs=1e-9)
        assert one["gradient_norm"] == pytest.approx(other["gradient_norm"], abs=1e-7)


def test_the_correction_takes_back_what_one_update_of_the_weights_changes():
    exact = train(dataclasses.replace(CONFIG, solver=solver("newton")), Execution("statevector"))
    ahead = train(CONFIG, Execution("statevector"))
    moved = np.abs(exact.last_parameters - build_model("amplitude").initial_parameters(0)).max()
    assert np.abs(ahead.last_parameters - exact.last_parameters).max() < 0.2 * moved
    assert ahead.history[-1]["loss"] == pytest.approx(exact.history[-1]["loss"], abs=0.02)


@pytest.mark.parametrize("stop", [1, 3, 4])
def test_a_resumed_run_uses_what_was_probed_before_it_stopped(tmp_path, stop):
    execution = Execution("aer", shots=100, seed=1)
    whole = train(CONFIG, execution)
    path = tmp_path / "run.safetensors"
    train(CONFIG, execution, watch=Watch(stop), path=path)
    watch = Watch()
    again = train(CONFIG, execution, path=path, resume=True, watch=watch)
    np.testing.assert_array_equal(again.last_parameters, whole.last_parameters)
    assert watch.jobs == [1] * (6 - stop)


def test_measurements_of_another_model_are_refused():
    with executed(build_model("amplitude"), Execution("aer", shots=10)) as measured:
        evaluator = measured.evaluator
        with pytest.raises(InputError, match="missing"):
            evaluator.restore({"inputs": np.zeros((2, 4))})
        with pytest.raises(InputError, match="another model"):
            evaluator.restore({"inputs": np.zeros((2, 4)), "samples": np.zeros((2, 1, 1)), "shared": np.zeros((1, 1))})
        evaluator.restore({})
        assert evaluator.arrays() == {}


def test_a_run_with_and_one_without_are_not_the_same(tmp_path):
    path = tmp_path / "run.safetensors"
    train(CONFIG, Execution("aer", shots=10, seed=0), path=path)
    plain = dataclasses.replace(CONFIG, solver=solver("probe"))
    with pytest.raises(CheckpointError, match="ahead"):
        train(plain, Execution("aer", shots=10, seed=0), path=path, resume=True)


@pytest.mark.parametrize(("options", "message"), [({"ahead": 1}, "True or False"), ({"corrections": 0}, "corrections")])
def test_impossible_solvers_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        solver("probe", **{"ahead": True, **options})


@settings(deadline=None, derandomize=True)
@given(
    weights=st.lists(st.floats(0.01, 10), min_size=1, max_size=30),
    count=st.integers(1, 60),
    seed=st.integers(0, 99),
)
def test_systematic_draws_are_as_many_as_expected_or_one_beside(weights, count, seed):
    probability = np.array(weights) / sum(weights)
    drawn = np.bincount(_systematic(probability, count, np.random.default_rng(seed)), minlength=len(weights))
    assert drawn.sum() == count
    assert (np.abs(drawn - count * probability) < 1 + 1e-9).all()


def test_systematic_draws_are_unbiased():
    probability = np.array([0.5, 0.3, 0.15, 0.05])
    rng = np.random.default_rng(0)
    mean = np.mean([np.bincount(_systematic(probability, 3, rng), minlength=4) for _ in range(4000)], axis=0)
    np.testing.assert_allclose(mean, 3 * probability, atol=0.03)
