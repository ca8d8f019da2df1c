"""Noise models against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from qiskit import QuantumCircuit, transpile
from qiskit.primitives import BackendEstimatorV2

from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.execution.noise import noise_from_backend, parse_noise, perfect_simulator, simple_noise
from qiskit_qdeq.execution.noisy_estimator import DensityMatrixEstimator


def exact(simulator, circuit, observable):
    return float(DensityMatrixEstimator(simulator).run([(circuit, observable)]).result()[0].data.evs)


def flipped(num_qubits=1, cz=False):
    circuit = QuantumCircuit(num_qubits)
    circuit.x(range(num_qubits))
    if cz:
        circuit.cz(0, 1)
    return circuit


def test_each_rate_does_what_its_formula_says():
    assert exact(simple_noise(1, one_qubit=0.1), flipped(), "Z") == pytest.approx(-0.9)
    assert exact(simple_noise(1, amplitude_damping=0.1), flipped(), "Z") == pytest.approx(-0.8)
    assert exact(simple_noise(1, readout=0.1), QuantumCircuit(1), "Z") == pytest.approx(0.8)
    assert exact(simple_noise(2, two_qubit=0.1), flipped(2, cz=True), "IZ") == pytest.approx(-0.9)
    assert exact(simple_noise(2, two_qubit=0.1), flipped(2, cz=True), "ZZ") == pytest.approx(0.9)
    assert exact(simple_noise(2, readout=0.1), QuantumCircuit(2), "ZZ") == pytest.approx(0.64)


def test_phase_damping_shrinks_coherence_and_nothing_else():
    circuit = QuantumCircuit(1)
    circuit.sx(0)
    noise = simple_noise(1, phase_damping=0.19)
    # √(1 - 0.19) = 0.9, once; the basis change to Y is perfect in rz but costs one sx, after which only Z is read
    assert exact(noise, circuit, "Y") == pytest.approx(-0.9)
    assert exact(noise, flipped(), "Z") == pytest.approx(-1)


def test_rz_costs_nothing():
    circuit = QuantumCircuit(1)
    circuit.rz(0.3, 0)
    assert exact(simple_noise(1, one_qubit=0.5), circuit, "Z") == 1


def test_zero_rates_are_no_noise():
    assert exact(simple_noise(1), flipped(), "Z") == -1
    assert exact(parse_noise("0,0,0", 1), flipped(), "Z") == -1


@pytest.mark.parametrize("name", ["one_qubit", "two_qubit", "readout", "amplitude_damping", "phase_damping"])
@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan")])
def test_rates_must_be_probabilities(name, rate):
    with pytest.raises(InputError, match=f"{name} must be a probability"):
        simple_noise(1, **{name: rate})


def test_damping_rates_must_fit_together():
    with pytest.raises(InputError, match="amplitude_damping \\+ phase_damping"):
        simple_noise(1, amplitude_damping=0.6, phase_damping=0.6)


def test_text_and_rates_mean_the_same():
    circuit = transpile(flipped(2, cz=True), simple_noise(2))
    rates = simple_noise(2, one_qubit=1e-3, two_qubit=0.01, readout=0.02)
    assert exact(parse_noise("1e-3, 0.01 ,.02", 2), circuit, "ZZ") == exact(rates, circuit, "ZZ")


@pytest.mark.parametrize("text", ["", "0.1", "0.1,0.2", "a,b,c", "0.1,0.2,0.3,0.4", "-0.1,0,0", "torino", "nan,0,0"])
def test_other_texts_are_refused_with_the_forms_there_are(text):
    with pytest.raises(InputError, match="noise must be three rates"):
        parse_noise(text, 2)


def test_text_of_a_device_takes_its_noise():
    simulator = parse_noise("fake:manila", 3)
    assert simulator.num_qubits == 3
    circuit = transpile(flipped(3), simulator)
    assert -0.999 < exact(simulator, circuit, "IIZ") < -0.8


def test_device_noise_changes_values_by_gates_and_by_readout(device):
    simulator = noise_from_backend(device)
    idle = QuantumCircuit(4)
    readout = np.array([device.target["measure"][(q,)].error for q in range(4)])
    labels = ["IIIZ", "IIZI", "IZII", "ZIII"]
    values = np.array([exact(simulator, idle, label) for label in labels])
    np.testing.assert_allclose(values, 1 - 2 * readout, atol=1e-12)
    circuit = QuantumCircuit(4)
    for _ in range(20):
        circuit.sx(0)
    assert exact(simulator, circuit, "IIIZ") < values[0] - 1e-4


def test_noisy_simulator_serves_other_estimators(device):
    simulator = noise_from_backend(device)
    circuit = transpile(flipped(4), simulator, seed_transpiler=0)
    value = BackendEstimatorV2(backend=simulator).run([(circuit, "IIIZ")], precision=0.02).result()[0].data.evs
    assert abs(value - exact(simulator, circuit, "IIIZ")) < 0.1
    assert value > -1


def test_perfect_simulator_has_no_noise():
    assert perfect_simulator(2).options.noise_model is None
    assert exact(perfect_simulator(1), flipped(), "Z") == -1
