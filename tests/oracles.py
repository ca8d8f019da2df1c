"""Random circuits, handmade maps and finite differences for the tests of the numerical core."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.circuit.library import get_standard_gate_name_mapping, zz_feature_map
from qiskit.quantum_info import SparsePauliOp, Statevector

from qiskit_qdeq.circuits import (
    AmplitudeEncoder,
    AngleEncoder,
    CircuitEncoder,
    CircuitTemplate,
    Encoder,
    hardware_efficient_ansatz,
)
from qiskit_qdeq.evaluation.protocol import Cost, Evaluation
from qiskit_qdeq.model import QDEQModel

Array = np.ndarray[Any, np.dtype[Any]]

#: name -> (qubits, angles)
ROTATIONS = {
    "rx": (1, 1),
    "ry": (1, 1),
    "rz": (1, 1),
    "p": (1, 1),
    "r": (1, 2),
    "u": (1, 3),
    "rxx": (2, 1),
    "ryy": (2, 1),
    "rzz": (2, 1),
    "rzx": (2, 1),
    "crx": (2, 1),
    "cry": (2, 1),
    "crz": (2, 1),
    "cp": (2, 1),
    "cu": (2, 4),
    "xx_plus_yy": (2, 2),
    "xx_minus_yy": (2, 2),
    "u1": (1, 1),
    "u2": (1, 2),
    "u3": (1, 3),
    "cu1": (2, 1),
    "cu3": (2, 3),
}
FIXED = {
    **dict.fromkeys(("h", "x", "y", "z", "s", "sdg", "t", "tdg", "sx", "sxdg"), 1),
    **dict.fromkeys(("cx", "cy", "cz", "ch", "csx", "swap", "iswap", "dcx", "ecr"), 2),
    **dict.fromkeys(("ccx", "cswap", "ccz"), 3),
}
_LIBRARY = get_standard_gate_name_mapping()
_SPECIAL = {"xx_plus_yy", "xx_minus_yy"}


def append_gate(circuit: QuantumCircuit, name: str, angles: list[Any], qubits: list[int]) -> None:
    """Append a gate of Qiskit's library by its name."""
    circuit.append(type(_LIBRARY[name])(*angles), [int(q) for q in qubits])


def random_expression(rng: np.random.Generator, parameters: ParameterVector) -> Any:
    """An angle over the parameters: plain, affine or curved."""
    a, b = (parameters[int(i)] for i in rng.integers(len(parameters), size=2))
    choices = [
        a,
        a,
        -a,
        0.5 * a + 0.3,
        a + 2 * b,
        a * b,
        a.sin() + b,
        a**2,
        (0.3 * a).exp(),
        (a * a + 1).log(),
        a.arctan() - b,
        a / (b * b + 1),
        0.7,
    ]
    return choices[rng.integers(len(choices))]


def random_circuit(
    rng: np.random.Generator, num_qubits: int, num_gates: int, parameters: ParameterVector
) -> QuantumCircuit:
    """Gates of every kind on random qubits; every parameter occurs, most of them in several gates."""
    circuit = QuantumCircuit(num_qubits)
    for parameter in parameters:
        circuit.ry(parameter, int(rng.integers(num_qubits)))
    kinds = [("rotation", name) for name, (size, _) in ROTATIONS.items() if size <= num_qubits]
    kinds += [("fixed", name) for name, size in FIXED.items() if size <= num_qubits]
    for _ in range(num_gates):
        kind, name = kinds[rng.integers(len(kinds))]
        size, count = ROTATIONS[name] if kind == "rotation" else (FIXED[name], 0)
        qubits = rng.permutation(num_qubits)[:size].tolist()
        append_gate(circuit, name, [random_expression(rng, parameters) for _ in range(count)], qubits)
    return circuit


def random_observables(
    rng: np.random.Generator, num_qubits: int, count: int, letters: str = "IXYZ"
) -> list[SparsePauliOp]:
    """Sums of one to four Pauli strings with real coefficients."""
    sums = []
    for _ in range(count):
        size = int(rng.integers(1, 5))
        labels = ["".join(rng.choice(list(letters), num_qubits)) for _ in range(size)]
        sums.append(SparsePauliOp(labels, rng.normal(size=size)))
    return sums


def random_encoder(rng: np.random.Generator, kind: str, num_qubits: int) -> Encoder:
    """An encoder of a kind: "amplitude", "padded", "layered", "angle", "paper", "zz" or "reupload"."""
    if kind == "amplitude":
        return AmplitudeEncoder(2**num_qubits)
    if kind == "padded":
        return AmplitudeEncoder(int(rng.integers(1, 2**num_qubits)), num_qubits)
    if kind == "layered":
        return AngleEncoder.layered(int(rng.integers(1, 3 * num_qubits + 2)), num_qubits)
    if kind == "angle":
        size = int(rng.integers(1, 3 * num_qubits + 2))
        wires = rng.integers(num_qubits, size=size).tolist()
        return AngleEncoder(list(rng.choice(list("xyz"), size)), wires, num_qubits)
    if kind == "paper":
        return AngleEncoder.paper(num_qubits)
    if kind == "zz":
        return CircuitEncoder(zz_feature_map(num_qubits, reps=2))
    inputs = ParameterVector("x", int(rng.integers(1, 5)))
    return CircuitEncoder(random_circuit(rng, num_qubits, 8, inputs), inputs)


def random_template(
    rng: np.random.Generator, kind: str, num_qubits: int, *, num_weights: int = 6, num_gates: int = 14
) -> CircuitTemplate:
    """Any encoder, a random ansatz, diagonal or general observables."""
    weights = ParameterVector("w", num_weights)
    letters = ("IZ", "IXYZ")
    return CircuitTemplate(
        random_encoder(rng, kind, num_qubits),
        random_circuit(rng, num_qubits, num_gates, weights),
        weights=weights,
        state_observables=random_observables(rng, num_qubits, int(rng.integers(1, 5)), letters[rng.integers(2)]),
        readout=random_observables(rng, num_qubits, int(rng.integers(1, 6)), letters[rng.integers(2)]),
    )


def statevector_values(template: CircuitTemplate, inputs: Array, weights: Array, observables: Any) -> Array:
    """<M_j> per sample (B, observables) by Qiskit's Statevector; amplitudes are set, not prepared."""
    ansatz = template.ansatz.assign_parameters(dict(zip(template.weights, weights, strict=True)))
    rows = []
    for u in inputs:
        if isinstance(template.encoder, AmplitudeEncoder):
            amplitudes = np.zeros(2**template.num_qubits)
            amplitudes[: len(u)] = u / np.linalg.norm(u)
            start = Statevector(amplitudes)
        else:
            encoder = template.encoder
            start = Statevector(encoder.circuit.assign_parameters(dict(zip(encoder.parameters, u, strict=True))))
        state = start.evolve(ansatz)
        rows.append([state.expectation_value(observable).real for observable in observables])
    return np.array(rows)


def central_difference(function: Callable[[Array], Any], at: Array, step: float = 1e-5) -> Array:
    """∂f/∂x by central differences: the shape of f followed by the shape of x."""
    columns = []
    for index in np.ndindex(at.shape):
        shift = np.zeros(at.shape)
        shift[index] = step
        columns.append((np.asarray(function(at + shift)) - np.asarray(function(at - shift))) / (2 * step))
    stacked = np.stack(columns, axis=-1)
    return stacked.reshape(*stacked.shape[:-1], *at.shape)


def relative_error(found: Array, expected: Array) -> float:
    """‖found - expected‖ / max(‖expected‖, 1e-3): a vanishing derivative is compared absolutely."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    return float(np.linalg.norm(found - expected) / max(np.linalg.norm(expected), 1e-3))


def reuploading_encoder(num_qubits: int = 3) -> QuantumCircuit:
    """Two inputs a qubit, each uploaded twice, once inside an expression that is not affine."""
    x = ParameterVector("x", 2 * num_qubits)
    circuit = QuantumCircuit(num_qubits)
    for i in range(num_qubits):
        circuit.ry(x[i], i)
        circuit.rz(x[i + num_qubits] * x[i], i)
    for i in range(num_qubits - 1):
        circuit.cx(i, i + 1)
    for i in range(num_qubits):
        circuit.rx(0.5 * x[i] + x[i + num_qubits].sin(), i)
    return circuit


def build_model(
    kind: str, *, state_scale: float = 1.0, num_classes: int = 3, readout: str = "zz", **options: Any
) -> QDEQModel:
    """A three-qubit model with 9 weights and 6 inputs (amplitude: 6 of 8 amplitudes)."""
    encoder: Any = {
        "amplitude": lambda: AmplitudeEncoder(6, 3),
        "angle": lambda: AngleEncoder.layered(6, 3),
        "circuit": reuploading_encoder,
    }[kind]()
    template = CircuitTemplate(encoder, hardware_efficient_ansatz(3, 1), readout=readout)
    return QDEQModel(template, num_classes, state_scale=state_scale, **options)


def draw_problem(model: QDEQModel, batch: int, seed: int = 0) -> tuple[Any, Array, Array]:
    """The map of random samples at random parameters, with the inputs and the parameters."""
    rng = np.random.default_rng(seed)
    parameters = model.initial_parameters(rng)
    inputs = model.prepare(rng.normal(size=(batch, model.num_features)))
    return model.evaluator.bind(model.split(parameters)[0]).map(inputs), inputs, parameters


class HandmadeMap:
    """An `EquilibriumMap` without closed form from m(state, rows), which counts evaluations per sample."""

    def __init__(
        self,
        function: Callable[[Array, Array], Array],
        batch: int,
        num_states: int,
        jacobian: Callable[[Array, Array], Array] | None = None,
    ) -> None:
        self.batch, self.num_states = batch, num_states
        self._function, self._jacobian = function, jacobian
        self.counts = np.zeros(batch, dtype=int)
        self.asked: list[Array] = []

    def values(self, state: Array, rows: Array) -> Evaluation:
        """m at `state` for the samples `rows`; books who asked."""
        assert state.shape == (len(rows), self.num_states)
        # a solver may ask for several states of one sample at once
        np.add.at(self.counts, rows, 1)
        self.asked.append(np.array(rows))
        return Evaluation(self._function(state, rows), cost=Cost(circuits=len(rows), jobs=1))

    def linearize(self, state: Array, rows: Array) -> tuple[Evaluation, Array]:
        """m and ∂m/∂q, given or by central differences."""
        evaluation = self.values(state, rows)
        if self._jacobian is not None:
            return evaluation, self._jacobian(state, rows)
        columns = []
        for k in range(self.num_states):
            shift = np.zeros(self.num_states)
            shift[k] = 1e-6
            columns.append((self._function(state + shift, rows) - self._function(state - shift, rows)) / 2e-6)
        return evaluation, np.stack(columns, axis=2)

    def at(self, state: Array) -> Any:
        """Not needed by solvers."""
        raise AssertionError("a solver has no business with points")

    def pull_back(self, terms: Any) -> Array:
        """Not needed by solvers."""
        raise AssertionError("a solver has no business with gradients")


def without_closed_form(problem: Any) -> HandmadeMap:
    """The same map with its closed form hidden."""
    return HandmadeMap(
        lambda state, rows: problem.values(state, rows).values,
        problem.batch,
        problem.num_states,
        lambda state, rows: problem.linearize(state, rows)[1],
    )
