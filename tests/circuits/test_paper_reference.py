"""Agreement with expectation values of the authors' own program, in single precision (arXiv:2410.23940)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from qiskit.quantum_info import Statevector

from qiskit_qdeq.circuits import AmplitudeEncoder, AngleEncoder, CircuitTemplate, paper_ansatz

REFERENCE = json.loads((Path(__file__).parents[1] / "data" / "paper_reference.json").read_text("utf-8"))


@pytest.mark.parametrize("train_extra", [True, False])
@pytest.mark.parametrize("case", REFERENCE)
def test_expectation_values_at_z_plus_x_are_those_of_the_authors_program(case, train_extra):
    kind, size = case.split("_")
    num_qubits = int(size)
    reference = REFERENCE[case]
    extra = reference["extra_angles"]
    ansatz = paper_ansatz(num_qubits) if train_extra else paper_ansatz(num_qubits, False, extra)
    weights = np.array(reference["theta"] + (extra if train_extra else []))
    encoder = AmplitudeEncoder(num_qubits**2, num_qubits) if kind == "amplitude" else AngleEncoder.paper(num_qubits)
    template = CircuitTemplate(encoder, ansatz)
    for z, x, expected in zip(reference["z"], reference["x"], reference["expval_z"], strict=True):
        state = Statevector(template.bind(np.array(z) + np.array(x), weights))
        values = [state.expectation_value(observable).real for observable in template.state_observables]
        np.testing.assert_allclose(values, expected, atol=1e-6)
