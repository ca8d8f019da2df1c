"""The exact evaluator of a circuit template: picks the fastest exact method for its encoder."""

from __future__ import annotations

from typing import Any

import numpy as np

from qiskit_qdeq.circuits import AmplitudeEncoder, CircuitTemplate
from qiskit_qdeq.evaluation.amplitude import AmplitudeEvaluator
from qiskit_qdeq.evaluation.bloch import ProductLayout
from qiskit_qdeq.evaluation.columns import ColumnEvaluator
from qiskit_qdeq.evaluation.encodings import CircuitEncoding, ProductEncoding
from qiskit_qdeq.evaluation.observables import Observables
from qiskit_qdeq.evaluation.product import ProductEvaluator, clustered, has_form
from qiskit_qdeq.evaluation.program import GateProgram
from qiskit_qdeq.exceptions import InputError

Array = np.ndarray[Any, np.dtype[Any]]
_DTYPES = ("float64", "float32")


def exact_evaluator(
    template: CircuitTemplate, injection: Array, dtype: str = "float64"
) -> AmplitudeEvaluator | ColumnEvaluator:
    """Noiseless evaluation of m(x + P q; θ) by linear algebra (DESIGN section 5).

    Amplitude encoding and single-qubit rotations on few wires are solved in closed form, rotations on many wires as product
    states, anything else by simulating the encoder circuit for all samples at once.

    Args:
        template: encoder, ansatz and observables.
        injection: P, (D, K).
        dtype: "float64", or "float32" for half the memory and about 1e-6 accuracy.

    Raises:
        InputError: for another dtype or an injection of another shape.
    """
    if dtype not in _DTYPES:
        raise InputError(f"dtype must be one of {_DTYPES}, got {dtype!r}")
    if injection.shape != (template.num_features, template.num_states):
        raise InputError(
            f"injection must have shape (num_features, num_states) = "
            f"{(template.num_features, template.num_states)}, got {injection.shape}"
        )
    program = GateProgram(template.ansatz, template.weights, dtype)
    states = Observables(template.state_observables, dtype)
    readouts = Observables(template.readout_observables, dtype)
    encoder = template.encoder
    if isinstance(encoder, AmplitudeEncoder):
        return AmplitudeEvaluator(program, states, readouts, injection)
    if encoder.product_axes is None:
        encoding = CircuitEncoding(encoder.circuit, encoder.parameters)
        return ColumnEvaluator(program, encoding, states, readouts, injection)
    layout = ProductLayout(*encoder.product_axes, encoder.num_qubits)
    if has_form(layout):
        clusters = clustered(template.ansatz, template.weights, layout, dtype)
        return ProductEvaluator(program, layout, states, readouts, injection, clusters)
    return ColumnEvaluator(program, ProductEncoding(layout), states, readouts, injection)
