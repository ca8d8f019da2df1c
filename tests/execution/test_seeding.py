from __future__ import annotations

import numpy as np
import pytest
from known_estimators import ESTIMATORS, aer, client, legacy, simulator
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from qiskit.primitives import BackendEstimatorV2, StatevectorEstimator
from qiskit.quantum_info import SparsePauliOp

from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.execution.runner import CircuitRunner, Request
from qiskit_qdeq.execution.seeding import SeededEstimator, has_frozen_noise

ROWS = np.full((6, 1), 1.2)

FROZEN = {
    "statevector": lambda: StatevectorEstimator(default_precision=0.05, seed=7),
    "aer": lambda: aer(default_precision=0.05, run_options={"seed_simulator": 7}),
    "backend": lambda: BackendEstimatorV2(backend=simulator(), options={"seed_simulator": 7}),
    "legacy": lambda: legacy(simulator={"seed_simulator": 7}),
    "client": lambda: client(simulator={"seed_simulator": 7}),
}


def measure(estimator, requests=1):
    angle = Parameter("a")
    circuit = QuantumCircuit(1)
    circuit.ry(angle, 0)
    runner = CircuitRunner(circuit, [angle], [SparsePauliOp("Z")], estimator)
    return np.array([item.values for item in runner.run([Request(ROWS)] * requests)[0]])


@pytest.mark.parametrize("name", ESTIMATORS)
def test_noise_is_fresh_in_every_call_and_every_pub(name):
    seeded = SeededEstimator(ESTIMATORS[name](), 3)
    first, second = measure(seeded, 2)
    third = measure(seeded)[0]
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, third)
    assert not np.array_equal(second, third)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_equal_seeds_and_positions_repeat_the_noise(name):
    one, other = (SeededEstimator(ESTIMATORS[name](), 3) for _ in range(2))
    for seeded in (one, other):
        seeded.restart(5)
    expected = measure(one, 2)
    assert np.array_equal(measure(other, 2), expected)
    one.restart(6)
    assert not np.array_equal(measure(one, 2), expected)
    one.restart(5)
    assert np.array_equal(measure(one, 2), expected)
    assert not np.array_equal(measure(SeededEstimator(ESTIMATORS[name](), 4), 2), expected)


@pytest.mark.parametrize("name", FROZEN)
def test_a_fixed_seed_is_noticed_and_put_back(name):
    estimator = FROZEN[name]()
    assert np.array_equal(measure(estimator), measure(estimator))
    assert has_frozen_noise(estimator)
    seeded = SeededEstimator(estimator, 3)
    assert not np.array_equal(measure(seeded), measure(seeded))
    assert not has_frozen_noise(seeded)
    assert has_frozen_noise(estimator)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_estimators_without_a_seed_are_not_frozen(name):
    estimator = ESTIMATORS[name]()
    assert not has_frozen_noise(estimator)
    assert not np.array_equal(measure(estimator), measure(estimator))


def test_an_estimator_of_its_own_kind_is_reseeded():
    class Own(StatevectorEstimator):
        def reseed(self, seed):
            self._seed = np.random.default_rng(seed)

    seeded = SeededEstimator(Own(default_precision=0.05), 3)
    first = measure(seeded)
    assert not np.array_equal(measure(seeded), first)
    seeded.restart(0)
    assert np.array_equal(measure(seeded), first)


def test_mistakes_are_refused():
    class Unknown:
        def run(self, pubs, *, precision=None):
            raise AssertionError

    with pytest.raises(InputError, match="Unknown"):
        SeededEstimator(Unknown(), 3)
    for seed in (-1, 0.5, None, True):
        with pytest.raises(InputError, match="seed"):
            SeededEstimator(StatevectorEstimator(), seed)
    with pytest.raises(InputError, match="position"):
        SeededEstimator(StatevectorEstimator(), 0).restart(-1)
