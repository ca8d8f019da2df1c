"""The circuits of the model: encoders S(u), ansätze U(θ), observables M_j, and the template that joins them.

Convention, used everywhere in the package: *wire* j counts from the most significant bit, like the letters
of a :class:`~qiskit.quantum_info.SparsePauliOp` label read left to right. Wire j of n is Qiskit qubit n-1-j.
"""

from __future__ import annotations

from qiskit_qdeq.circuits.amplitude import AmplitudeEncoder
from qiskit_qdeq.circuits.ansatz import (
    Ansatz,
    as_ansatz,
    hardware_efficient_ansatz,
    paper_ansatz,
    random_ansatz,
)
from qiskit_qdeq.circuits.encoders import AngleEncoder, CircuitEncoder, Encoder, as_encoder
from qiskit_qdeq.circuits.observables import (
    check_observables,
    correlators,
    readout_observables,
    z_observables,
)
from qiskit_qdeq.circuits.template import CircuitTemplate

__all__ = [
    "AmplitudeEncoder",
    "AngleEncoder",
    "Ansatz",
    "CircuitEncoder",
    "CircuitTemplate",
    "Encoder",
    "as_ansatz",
    "as_encoder",
    "check_observables",
    "correlators",
    "hardware_efficient_ansatz",
    "paper_ansatz",
    "random_ansatz",
    "readout_observables",
    "z_observables",
]
