"""Circuits of parts that never interact: each is simulated by itself, with the noise of its own qubits."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qiskit import QuantumCircuit, transpile
from qiskit.circuit import ParameterVector
from qiskit.primitives import StatevectorEstimator
from qiskit.primitives.containers.observables_array import ObservablesArray
from qiskit_ibm_runtime.fake_provider import FakeManilaV2

from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.execution.devices import sub_device
from qiskit_qdeq.execution.noise import noise_from_backend, simple_noise
from qiskit_qdeq.execution.noisy_estimator import DensityMatrixEstimator
from qiskit_qdeq.execution.product_estimator import ProductEstimator


def evaluate(estimator, *pub, **arguments):
    return estimator.run([pub], **arguments).result()[0]


def parts_circuit(parts, size, rng):
    """Random rotations on all qubits, entangled within the parts only."""
    circuit, angles = QuantumCircuit(size), ParameterVector("t", 2 * size)
    for qubit in range(size):
        circuit.ry(angles[qubit], qubit)
    for part in parts:
        for first, second in itertools.pairwise(part):
            circuit.crx(float(rng.uniform(-3, 3)), first, second)
            circuit.cx(second, first)
    circuit.barrier()
    for qubit in range(size):
        circuit.rx(angles[size + qubit] + 0.2, qubit)
    return circuit


@settings(deadline=None, derandomize=True, max_examples=15)
@given(st.permutations(range(6)), st.sampled_from([(2, 2, 2), (1, 3, 2), (6,), (1,) * 6]), st.integers(0, 1000))
def test_values_are_those_of_the_whole_circuit(order, sizes, seed):
    rng = np.random.default_rng(seed)
    ends = np.cumsum((0, *sizes))
    parts = [order[start:stop] for start, stop in itertools.pairwise(ends)]
    circuit = parts_circuit(parts, 6, rng)
    # terms that span parts, sums over several of them, multiples of the identity
    labels = ["".join(rng.choice(list("IIXYZ"), 6)) for _ in range(5)]
    observables = [labels[0], labels[1], {label: rng.normal() for label in dict.fromkeys(labels[2:])}, {"IIIIII": 0.3}]
    column = ObservablesArray(observables).reshape(4, 1)
    values = rng.uniform(-3, 3, (3, 12))
    own = evaluate(ProductEstimator(), circuit, column, values)
    np.testing.assert_allclose(
        own.data.evs, evaluate(StatevectorEstimator(), circuit, column, values).data.evs, atol=1e-12
    )
    assert own.data.evs.shape == (4, 3)
    assert not own.data.stds.any()
    pairwise = evaluate(ProductEstimator(), circuit, observables[:3], values)
    np.testing.assert_allclose(pairwise.data.evs, own.data.evs[[0, 1, 2], [0, 1, 2]], atol=1e-12)


def test_noise_is_that_of_all_qubits_simulated_together():
    backend = FakeManilaV2()
    circuit = transpile(parts_circuit([(1, 0), (3, 4)], 5, np.random.default_rng(1)), backend, optimization_level=0)
    values = np.random.default_rng(0).uniform(-3, 3, (4, 10))
    column = ObservablesArray(["IIIZZ", "ZZIII", "XIIIX", "IYIXI", {"IIZII": 0.5, "IZIII": 2}]).reshape(5, 1)
    whole = evaluate(DensityMatrixEstimator(noise_from_backend(backend)), circuit, column, values).data.evs
    own = evaluate(ProductEstimator(backend), circuit, column, values).data.evs
    np.testing.assert_allclose(own, whole, atol=1e-10)
    ideal = evaluate(StatevectorEstimator(), circuit, column, values).data.evs
    assert np.abs(own - ideal).max() > 0.05


def test_each_part_is_as_if_it_were_alone_on_its_qubits(torino):
    # 133 qubits, of which 9 are used
    places = [(0, 1, 2), (40, 41, 42), (130, 118, 117)]
    circuit, alone = QuantumCircuit(133), []
    angles = ParameterVector("t", 9)
    for index, qubits in enumerate(places):
        own = QuantumCircuit(3)
        for qubit in range(3):
            own.sx(qubit)
            own.rz(angles[3 * index + qubit], qubit)
            own.sx(qubit)
        own.cz(0, 1)
        own.cz(1, 2)
        own.sx(2)
        circuit.compose(own, qubits, inplace=True)
        alone.append(own)
    values = np.random.default_rng(0).uniform(-3, 3, (2, 9))
    labels = ["ZII", "IZZ", "XYI"]
    wide = []
    for qubits in places:
        for label in labels:
            letters = ["I"] * 133
            for qubit, letter in zip(qubits, reversed(label), strict=True):
                letters[132 - qubit] = letter
            wide.append("".join(letters))
    column = ObservablesArray(wide).reshape(9, 1)
    own = evaluate(ProductEstimator(torino), circuit, column, values).data.evs.reshape(3, 3, 2)
    for index, qubits in enumerate(places):
        estimator = DensityMatrixEstimator(noise_from_backend(sub_device(torino, qubits)))
        expected = evaluate(
            estimator, alone[index], ObservablesArray(labels).reshape(3, 1), values[:, 3 * index : 3 * index + 3]
        )
        np.testing.assert_allclose(own[index], expected.data.evs, atol=1e-10)


def test_shots_scatter_as_their_errors_say_and_seeds_repeat():
    noise = simple_noise(6, two_qubit=0.02, readout=0.03)
    circuit = transpile(parts_circuit([(0, 1, 2), (3, 4, 5)], 6, np.random.default_rng(0)), noise)
    column = ObservablesArray(["IIIIIZ", "ZZIIII", {"IIIIXX": 1, "ZIIIII": -0.5}]).reshape(3, 1)
    values = np.random.default_rng(2).uniform(-3, 3, (40, 12))
    exact = evaluate(ProductEstimator(noise), circuit, column, values).data
    estimator = ProductEstimator(noise, default_shots=500, seed=7)
    first = evaluate(estimator, circuit, column, values)
    assert first.metadata["shots"] == 500
    scores = (first.data.evs - exact.evs) / first.data.stds
    assert np.abs(scores).max() < 4.5
    assert 0.8 < scores.std() < 1.2
    again = evaluate(ProductEstimator(noise, default_shots=500, seed=7), circuit, column, values)
    np.testing.assert_array_equal(first.data.evs, again.data.evs)
    assert (evaluate(estimator, circuit, column, values).data.evs != first.data.evs).any()
    estimator.restart(0)
    np.testing.assert_array_equal(first.data.evs, evaluate(estimator, circuit, column, values).data.evs)
    estimator.restart(1)
    assert (first.data.evs != evaluate(estimator, circuit, column, values).data.evs).any()
    assert evaluate(estimator, circuit, column, values, precision=0.1).metadata["shots"] == 100


def test_shots_of_different_parts_are_independent():
    circuit = QuantumCircuit(2)
    circuit.h([0, 1])
    runs = [
        evaluate(ProductEstimator(default_shots=100, seed=seed), circuit, ["IZ", "ZI"]).data.evs for seed in range(200)
    ]
    assert abs(np.corrcoef(np.array(runs).T)[0, 1]) < 0.25


def test_a_circuit_without_parameters_is_measured():
    circuit = QuantumCircuit(30)
    circuit.x(range(0, 30, 2))
    found = evaluate(ProductEstimator(), circuit, ["I" * 29 + "Z", "Z" + "I" * 29, "I" * 30])
    np.testing.assert_allclose(found.data.evs, [-1, 1, 1])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ProductEstimator("torino"), "backend must be a device"),
        (lambda: ProductEstimator(default_precision=-1), "default_precision"),
        (lambda: ProductEstimator(default_shots=0), "default_shots"),
        (lambda: evaluate(ProductEstimator(), QuantumCircuit(30), ["Z" * 30]), "connects 30 qubits, .* more than the 22"),
        (lambda: evaluate(ProductEstimator(FakeManilaV2()), QuantumCircuit(7), ["ZIIIIII"]), "only 5 qubits"),
        (lambda: evaluate(ProductEstimator(), QuantumCircuit(1), ["Z"], precision=-0.1), "precision"),
    ],
)  # fmt: skip
def test_what_cannot_be_simulated_is_an_input_error(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_gates_the_noise_model_does_not_know_are_an_input_error():
    circuit = QuantumCircuit(2)
    circuit.ry(0.3, 0)
    with pytest.raises(InputError, match="ry"):
        evaluate(ProductEstimator(FakeManilaV2()), circuit, ["IZ"])
