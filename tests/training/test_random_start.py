"""Start "random": what a sample starts from depends on seed, epoch and sample alone, and the equilibrium not on it."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import qiskit_qdeq.training.trainer as trainer_module
from qiskit_qdeq import TrainingConfig, model_config, solver
from qiskit_qdeq.training.minibatches import RandomStarts
from qiskit_qdeq.training.trainer import Trainer

CONFIG = TrainingConfig(start="random", epochs=2, batch_size=4, solver=solver("broyden", tol=1e-9), seed=5)


def trained(config):
    model = model_config("default", 4, 2, 2).build()
    rng = np.random.default_rng(0)
    trainer = Trainer(model, config, rng.normal(size=(10, 4)), np.arange(10) % 2)
    trainer.run()
    return trainer


def starts_of(config, monkeypatch):
    """Sample and epoch -> first iterate, as training steps are given them."""
    seen, step = {}, trainer_module.training_step

    def watched(model, parameters, inputs, targets, *rest, initial, **others):
        for x, start in zip(inputs, initial, strict=True):
            seen.setdefault(tuple(x), []).append(start)
        return step(model, parameters, inputs, targets, *rest, initial=initial, **others)

    with monkeypatch.context() as patched:
        patched.setattr(trainer_module, "training_step", watched)
        trained(config)
    return seen


def test_a_sample_starts_in_the_same_place_whatever_minibatch_it_is_in(monkeypatch):
    small, large = (starts_of(dataclasses.replace(CONFIG, batch_size=size), monkeypatch) for size in (3, 10))
    assert small.keys() == large.keys()
    assert len(small) == 10
    for sample, starts in small.items():
        np.testing.assert_array_equal(starts, large[sample])
        assert not np.array_equal(starts[0], starts[1])


@settings(deadline=None, derandomize=True, max_examples=30)
@given(st.integers(1, 40), st.integers(1, 5), st.integers(0, 9), st.integers(0, 3), st.data())
def test_draws_do_not_depend_on_the_order_or_company_they_are_asked_in(samples, states, seed, epoch, data):
    rows = np.array(data.draw(st.lists(st.integers(0, samples - 1), min_size=1, max_size=8)))
    whole = RandomStarts(samples, states, seed).of(epoch, np.arange(samples))
    asked = RandomStarts(samples, states, seed)
    asked.of(epoch + 1, rows)
    np.testing.assert_array_equal(asked.of(epoch, rows), whole[rows])
    assert np.abs(whole).max() <= 1


def test_draws_are_uniform_in_the_range_of_expectation_values():
    draws = RandomStarts(20_000, 3, 1).of(0, np.arange(20_000))
    # standard errors of mean 0 and variance 1/3 are 0.0024 and 0.0012
    assert np.abs(draws.mean()) < 0.01
    assert abs(draws.var() - 1 / 3) < 0.006
    assert len(np.unique(draws)) == draws.size


def test_where_the_equilibrium_is_unique_a_random_start_trains_the_same_model():
    zeros = trained(dataclasses.replace(CONFIG, start="zeros"))
    found = trained(CONFIG)
    np.testing.assert_allclose(found.state.parameters, zeros.state.parameters, atol=1e-6)
    assert not np.array_equal(found.state.parameters, zeros.state.parameters)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_seed_of_the_run_is_the_seed_of_its_starts(seed):
    draws = [RandomStarts(5, 2, chosen).of(0, np.arange(5)) for chosen in (seed, seed, seed + 1)]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])
