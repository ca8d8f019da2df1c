"""QPU seconds are those of IBM's published formula, and survive cutting and simulating a device."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qiskit import QuantumCircuit, generate_preset_pass_manager
from qiskit.circuit import ParameterVector
from qiskit.circuit.random import random_circuit
from qiskit.quantum_info import SparsePauliOp
from qiskit.transpiler import InstructionProperties, Target
from qiskit_ibm_runtime.executor_estimator import Estimator
from qiskit_ibm_runtime.fake_provider import FakeMelbourneV2, FakeTorino
from qiskit_ibm_runtime.fake_provider.fake_backend import FakeBackendV2

from qiskit_qdeq.evaluation.protocol import Cost
from qiskit_qdeq.execution.devices import fake_backend, sub_device
from qiskit_qdeq.execution.noise import noise_from_backend, perfect_simulator, simple_noise
from qiskit_qdeq.execution.noisy_estimator import DensityMatrixEstimator
from qiskit_qdeq.execution.runner import CircuitRunner, Request
from qiskit_qdeq.execution.timing import Timing, timing_of

TORINO = FakeTorino()


def folded(target: Target, factor: float) -> Target:
    """The target with two-qubit gates `factor` times as long."""
    result = Target(num_qubits=target.num_qubits, dt=target.dt)
    for name in ("rz", "sx", "x", "cz"):
        stretch = factor if name == "cz" else 1
        properties = {
            qubits: InstructionProperties(duration=values.duration * stretch) for qubits, values in target[name].items()
        }
        result.add_instruction(target.operation_from_name(name), properties)
    return result


def test_one_pub_on_torino_takes_what_the_formula_says_by_hand():
    # rz takes no time; all 133 qubits are reset, one of which takes 1.848 µs, and measured
    circuit, angles = QuantumCircuit(2), ParameterVector("a", 1)
    circuit.sx(0)
    circuit.rz(angles[0], 0)
    circuit.cz(0, 1)
    circuit.sx(1)
    pair = TORINO.target["cz"][(0, 1)].duration
    delay, reset, gate, readout = 250e-6, 1.848e-6, 32e-9, 1.56e-6
    observables = [SparsePauliOp("ZI"), SparsePauliOp("XI")]  # two measurement bases
    runner = CircuitRunner(circuit, [angles[0]], observables, Estimator(TORINO), backend=TORINO, optimization_level=0)
    runner._estimator.options.resilience_level = 0
    cost = runner.predict([Request(np.zeros((5, 1)), None, 1 / 32)])
    executions = 5 * 2 * 1024
    assert (cost.circuits, cost.shots, cost.jobs, cost.pubs) == (10, executions, 1, 1)
    expected = 2 + (delay + reset + gate + pair + gate + readout) * executions
    assert cost.qpu_seconds == pytest.approx(expected, abs=1e-9)


def test_repetition_delay_and_reset_asked_for_of_the_estimator_count():
    circuit = QuantumCircuit(1)
    circuit.x(0)
    estimator = Estimator(TORINO, options={"execution": {"rep_delay": 1e-3, "init_qubits": False}})
    runner = CircuitRunner(circuit, [], [SparsePauliOp("Z")], estimator, backend=TORINO)
    assert runner.timing.repetition_seconds == pytest.approx(1e-3 + 32e-9 + 1.56e-6, abs=1e-12)


def test_calibration_and_folded_circuits_count():
    timing = Timing(3e-4, folding_seconds=1e-6, readout_seconds=2.5e-4)
    circuit, options = QuantumCircuit(2), {"resilience": {"zne_mitigation": True, "zne": {"noise_factors": [1, 2, 4]}}}
    circuit.cz(0, 1)
    estimator = Estimator(TORINO, options={"resilience_level": 1, "default_shots": 1000, **options})
    runner = CircuitRunner(circuit, [], [SparsePauliOp("ZZ")], estimator, backend=TORINO)
    runner.timing = timing
    cost = runner.predict([Request(np.zeros((3, 0)))])
    shots = 16 * 64  # 1000 shots in randomizations of 64
    calibration = shots  # of one calibration circuit per job, as many as of the others
    assert cost.circuits == 3 * 3 + 1
    assert cost.shots == 3 * 3 * shots + calibration
    seconds = 2 + 3 * shots * (3e-4 + 3.01e-4 + 3.03e-4) + calibration * 2.5e-4
    assert cost.qpu_seconds == pytest.approx(seconds, abs=1e-9)


def test_exact_values_and_ideal_simulators_take_no_qpu_time():
    circuit = QuantumCircuit(1)
    noisy = noise_from_backend(sub_device(TORINO, 1))
    for simulator, shots in ((noisy, 0.0), (perfect_simulator(1), 0.1), (simple_noise(1, readout=0.1), 0.1)):
        estimator = DensityMatrixEstimator(simulator, default_precision=shots)
        runner = CircuitRunner(circuit, [], [SparsePauliOp("Z")], estimator, backend=simulator)
        assert runner.predict([Request(np.zeros((1, 0)))]).qpu_seconds == 0


@pytest.mark.parametrize("name", ["torino", "guadalupe", "kolkata", "washington"])
def test_a_simulated_part_of_a_device_has_the_device_s_timing(name):
    device = fake_backend(name)
    part = sub_device(device, 3)
    simulator = noise_from_backend(part)
    whole = timing_of(device, QuantumCircuit(part.device_qubits[0] + 1))
    cut = timing_of(simulator, QuantumCircuit(1))
    assert simulator.default_rep_delay == device.default_rep_delay
    assert cut.repetition_seconds <= whole.repetition_seconds  # of fewer readouts the longest
    assert cut.repetition_seconds == pytest.approx(whole.repetition_seconds, rel=0.05)


def test_a_device_that_does_not_tell_its_delay_has_ibm_s_default():
    device: FakeBackendV2 = FakeMelbourneV2()
    readout = device.target["measure"][(0,)].duration
    assert timing_of(device, QuantumCircuit(1)).repetition_seconds == pytest.approx(250e-6 + readout, abs=1e-12)


@settings(deadline=None, derandomize=True, max_examples=25)
@given(seed=st.integers(0, 2**16), depth=st.integers(1, 8), factor=st.sampled_from([1.0, 1.5, 3.0, 5.0]))
def test_folding_bounds_the_length_of_the_folded_circuit_tightly(seed, depth, factor):
    device = sub_device(TORINO, 4)
    manager = generate_preset_pass_manager(1, target=device.target, seed_transpiler=0)
    circuit = manager.run(random_circuit(4, depth, max_operands=2, seed=seed))
    timing = timing_of(device, circuit)
    gates = timing.repetition(factor) - timing.readout_seconds
    true = circuit.estimate_duration(folded(device.target, factor))
    assert true - 1e-12 <= gates
    # no chain of two-qubit gates is longer than the circuit itself
    assert gates <= factor * circuit.estimate_duration(device.target) + 1e-12


def test_costs_multiply_and_subtract():
    cost = Cost(3, 30, 2, 4, 1.5)
    assert 2 * cost == cost + cost == Cost(6, 60, 4, 8, 3.0)
    assert 2 * cost - cost == cost


def test_what_has_no_durations_has_no_timing():
    assert timing_of(None, QuantumCircuit(1)) is None
    untimed = QuantumCircuit(1)
    untimed.h(0)  # no gate of this device
    assert timing_of(TORINO, untimed) is None
