"""The estimator primitives, each on a small noiseless simulator."""

from __future__ import annotations

import warnings
from functools import cache

import numpy as np
from qiskit.primitives import BackendEstimatorV2, StatevectorEstimator
from qiskit.quantum_info import Statevector


@cache
def simulator():
    """The instruction set and connectivity of a five-qubit device, without its noise."""
    from qiskit_aer import AerSimulator
    from qiskit_ibm_runtime.fake_provider import FakeManilaV2

    backend = AerSimulator.from_backend(FakeManilaV2())
    backend.set_options(noise_model=None, max_parallel_threads=1)
    return backend


def aer(**options):
    from qiskit_aer.primitives import EstimatorV2

    return EstimatorV2(options={"backend_options": {"max_parallel_threads": 1}, **options})


def client(**options):
    from qiskit_ibm_runtime.executor_estimator import Estimator

    return Estimator(mode=simulator(), options={"resilience_level": 0, "default_shots": 400, **options})


def legacy(**options):
    from qiskit_ibm_runtime import EstimatorV2

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return EstimatorV2(mode=simulator(), options={"default_shots": 1000, **options})


ESTIMATORS = {
    "statevector": lambda: StatevectorEstimator(default_precision=0.05),
    "aer": lambda: aer(default_precision=0.05),
    "backend": lambda: BackendEstimatorV2(backend=simulator(), options={"default_precision": 0.05}),
    "legacy": legacy,
    "client": client,
    "client-mitigated": lambda: client(resilience_level=1),
}


def exact_values(circuit, parameters, observables, rows):
    """<ψ|M|ψ> (S, M) by Qiskit's Statevector."""
    states = [Statevector(circuit.assign_parameters(dict(zip(parameters, row, strict=True)))) for row in rows]
    return np.array([[state.expectation_value(item).real for item in observables] for state in states])
