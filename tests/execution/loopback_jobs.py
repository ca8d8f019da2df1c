"""A small circuit, its exact values, and estimators that carry tags: what the tests of the loopback service send."""

from __future__ import annotations

import warnings

import numpy as np
from qiskit import QuantumCircuit, generate_preset_pass_manager
from qiskit.circuit import ParameterVector
from qiskit.primitives.containers.observables_array import ObservablesArray
from qiskit.quantum_info import SparsePauliOp, Statevector
from qiskit_ibm_runtime import EstimatorV2
from qiskit_ibm_runtime.executor_estimator import Estimator

ROWS = np.random.default_rng(0).uniform(0, 3, (6, 6))
Z = [SparsePauliOp("I" * (2 - j) + "Z" + "I" * j) for j in range(3)]


def circuit():
    angles = ParameterVector("x", 6)
    built = QuantumCircuit(3)
    for wire in range(3):
        built.ry(angles[wire], wire)
    built.cx(0, 1)
    built.cx(1, 2)
    for wire in range(3):
        built.rz(angles[3 + wire] + 0.1, wire)
        built.ry(angles[wire], wire)
    built.cx(2, 0)
    return built


def pub_for(target, rows=ROWS):
    isa = generate_preset_pass_manager(1, target=target, seed_transpiler=1).run(circuit())
    observables = ObservablesArray([z.apply_layout(isa.layout) for z in Z]).reshape(3, 1)
    return isa, observables, rows


def exact_values(rows=ROWS):
    states = [Statevector(circuit().assign_parameters(row)) for row in rows]
    return np.array([[state.expectation_value(z).real for state in states] for z in Z])


def client_side(mode, *tags, level=0, shots=256):
    estimator = Estimator(mode=mode, options={"default_shots": shots, "resilience_level": level})
    estimator.options.environment.job_tags = list(tags)
    return estimator


def legacy(mode, *tags, shots=256):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        estimator = EstimatorV2(mode=mode, options={"default_shots": shots})
    estimator.options.environment.job_tags = list(tags)
    return estimator
