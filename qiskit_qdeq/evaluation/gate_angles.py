"""Circuits over the angles of their gates, one parameter a gate, so that shift rules act on single gates.

A shift rule differentiates with respect to the angle of one gate. Inputs u and weights θ enter through the angle map:
repeated parameters, coefficients and expressions are its Jacobian, and the chain rule gives

    ∂m/∂u = Σ_a ∂m/∂α_a ∂α_a/∂u,      ∂m/∂θ = Σ_a ∂m/∂α_a ∂α_a/∂θ.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from qiskit import QuantumCircuit
from qiskit.circuit import Instruction, Parameter, ParameterExpression, ParameterVector

from qiskit_qdeq.circuits import CircuitTemplate
from qiskit_qdeq.circuits._checks import check_reals
from qiskit_qdeq.evaluation.expressions import AngleMap
from qiskit_qdeq.evaluation.program import elementary_operations, generator_of, is_parametrized
from qiskit_qdeq.evaluation.shift_rules import ShiftRule, shift_rows, shift_rule
from qiskit_qdeq.exceptions import InputError

Array = np.ndarray[Any, np.dtype[Any]]


class GateTemplate:
    """The circuit of a template over gate angles: E of the encoder, then G of the ansatz.

    On |0...0> it prepares the states that the template's circuit prepares, up to a global phase.

    Args:
        template: encoder and ansatz.

    Attributes:
        circuit: U S, the circuit to execute; its `parameters` are in the order of the rows, E + G.
        encoder: S over its gate angles, which are functions of the encoder's own angles φ(u).
        ansatz: U over its gate angles, which are functions of the weights.
        rules: shift rule of every angle, E + G.

    Raises:
        InputError: for a gate that cannot be unrolled to gates with a shift rule.

    >>> from qiskit_qdeq.circuits import AngleEncoder, paper_ansatz
    >>> gates = GateTemplate(CircuitTemplate(AngleEncoder.paper(10), paper_ansatz(10)))
    >>> gates.template.num_angles, gates.num_encoder_angles
    (100, 7)
    """

    def __init__(self, template: CircuitTemplate) -> None:
        self.template = template
        encoder = template.encoder
        self.encoder = GateAngles(encoder.circuit, encoder.parameters, "encoder", range(template.num_qubits))
        # sorted behind "encoder" by Qiskit, so that circuit.parameters has the order of the rows
        self.ansatz = GateAngles(template.ansatz, template.weights, "trainable", self.encoder.idle_qubits)
        self.circuit = self.encoder.circuit.compose(self.ansatz.circuit)
        self.parameters: tuple[Parameter, ...] = self.encoder.parameters + self.ansatz.parameters
        self.rules: tuple[ShiftRule, ...] = self.encoder.rules + self.ansatz.rules

    @property
    def num_encoder_angles(self) -> int:
        """E."""
        return len(self.encoder.parameters)

    @property
    def num_ansatz_angles(self) -> int:
        """G."""
        return len(self.ansatz.parameters)

    def encoder_angles(self, inputs: ArrayLike) -> Array:
        """Gate angles of the encoder (B, E) at inputs (B, D).

        Raises:
            InputError: if the encoder cannot encode an input, or an angle is not finite.
        """
        return self.encoder(self.template.encoder.angles(check_reals("inputs", inputs)))

    def encoder_jacobian(self, inputs: ArrayLike) -> Array:
        """∂(gate angles)/∂u (B, E, D) at inputs (B, D), chained through the encoder's own angles.

        Raises:
            InputError: if the encoder cannot encode an input, or a derivative is not finite.
        """
        inputs = check_reals("inputs", inputs)
        encoder = self.template.encoder
        jacobian: Array = self.encoder.jacobian(encoder.angles(inputs)) @ encoder.angles_jacobian(inputs)
        return jacobian

    def ansatz_angles(self, weights: ArrayLike) -> Array:
        """Gate angles of the ansatz (..., G) at weights (..., p).

        Raises:
            InputError: for another number of weights, or if an angle is not finite.
        """
        return self.ansatz(weights)

    def ansatz_jacobian(self, weights: ArrayLike) -> Array:
        """∂(gate angles)/∂θ (..., G, p) at weights (..., p).

        Raises:
            InputError: for another number of weights, or if a derivative is not finite.
        """
        return self.ansatz.jacobian(weights)

    def rows(self, inputs: ArrayLike, weights: ArrayLike) -> Array:
        """Values (B, E + G) of `parameters` for inputs (B, D) and weights (p,) or (B, p).

        Raises:
            InputError: see `encoder_angles` and `ansatz_angles`.
        """
        encoder, ansatz = self.encoder_angles(inputs), self.ansatz_angles(weights)
        return np.concatenate([encoder, np.broadcast_to(ansatz, (len(encoder), self.num_ansatz_angles))], axis=1)

    def shift_rows(self, rows: Array, which: Sequence[int] | Array | None = None) -> tuple[Array, Array, Array]:
        """Rows (B, R, E + G), angle indices (R,) and coefficients (R,) for derivatives at `rows`; see `shift_rows`."""
        return shift_rows(rows, self.rules, which)


class GateAngles:
    """A circuit with one parameter per parametrized gate, and these gate angles α as functions of its parameters p.

    Composite gates that hold parameters are unrolled to rotations of one angle; gates without parameters stay as they are.
    Rotations of one kind that follow each other on the same qubits become one, whose angle is the sum. Global phases,
    barriers, and rotations about z of qubits that are still |0> are left out.

    Args:
        circuit: unitary circuit.
        parameters: its parameters p, in the order of the values given later.
        name: of the vector of gate angles.
        idle_qubits: qubits known to be |0> before the circuit.

    Attributes:
        circuit: the circuit over `parameters`.
        parameters: one per gate angle, A in gate order.
        rules: their shift rules.
        idle_qubits: those given that the circuit does not touch.

    Raises:
        InputError: for instructions that are not unitary gates or cannot be unrolled, and see `AngleMap`.

    >>> p = Parameter("p")
    >>> circuit = QuantumCircuit(2)
    >>> for angle in (p, 2 * p, p * p):
    ...     _ = circuit.rx(angle, 0)
    >>> _ = circuit.crx(p, 0, 1)
    >>> gates = GateAngles(circuit, [p])
    >>> gates([3.0]).tolist(), gates.jacobian([3.0]).tolist()
    ([18.0, 3.0], [[9.0], [1.0]])
    """

    def __init__(
        self,
        circuit: QuantumCircuit,
        parameters: Sequence[Parameter],
        name: str = "angles",
        idle_qubits: Collection[int] = (),
    ) -> None:
        gates, idle = _merge(circuit, idle_qubits)
        angles = [gate.angle for gate in gates if gate.angle is not None]
        self._map = AngleMap(angles, parameters)
        self.idle_qubits = idle
        self.parameters: tuple[Parameter, ...] = tuple(ParameterVector(name, len(angles)))
        self.circuit = QuantumCircuit(circuit.num_qubits, name=name)
        rules = []
        fresh = iter(self.parameters)
        for gate in gates:
            operation = gate.operation
            if gate.angle is not None:
                generator, factor = generator_of(operation)
                rules.append(shift_rule(0.5 * factor * generator))
                operation = operation.base_class(next(fresh))
            self.circuit.append(operation, gate.qubits)
        self.rules: tuple[ShiftRule, ...] = tuple(rules)

    def __call__(self, values: ArrayLike) -> Array:
        """Gate angles α (..., A) at parameter values (..., d).

        Raises:
            InputError: for another number of values, or if an angle is not finite.
        """
        values = self._check(values)
        with np.errstate(all="ignore"):
            return _finite("gate angle", self._map(values), values.ndim - 1)

    def jacobian(self, values: ArrayLike) -> Array:
        """∂α/∂p (..., A, d) at parameter values (..., d); read-only.

        Raises:
            InputError: for another number of values, or if a derivative is not finite.
        """
        values = self._check(values)
        with np.errstate(all="ignore"):
            jacobian = self._map.jacobian(values)
        jacobian = _finite("derivative of gate angle", jacobian, jacobian.ndim - 2)
        return np.broadcast_to(jacobian, (*values.shape[:-1], *jacobian.shape[-2:]))

    def _check(self, values: ArrayLike) -> Array:
        array = check_reals("values", values)
        if array.ndim == 0 or array.shape[-1] != self._map.num_parameters:
            raise InputError(f"values must have shape (..., {self._map.num_parameters}), got {array.shape}")
        return array


@dataclass
class _Gate:
    """A gate on its qubits; `angle` is None if it holds no parameter."""

    operation: Instruction
    qubits: tuple[int, ...]
    angle: ParameterExpression | None


def _merge(circuit: QuantumCircuit, idle_qubits: Collection[int]) -> tuple[list[_Gate], frozenset[int]]:
    """The elementary gates in order, neighbouring rotations of one kind added up, and the qubits still idle."""
    gates: list[_Gate] = []
    latest: dict[int, _Gate] = {}
    idle = set(idle_qubits)
    for operation, qubits in elementary_operations(circuit, widest_constant=circuit.num_qubits):
        angle = operation.params[0] if is_parametrized(operation) else None
        if angle is not None and idle.issuperset(qubits) and _is_diagonal(operation):
            continue
        idle.difference_update(qubits)
        before = latest.get(qubits[0])
        if angle is not None and before and _same_rotation(before, operation, qubits, latest):
            before.angle = before.angle + angle
            continue
        gate = _Gate(operation, qubits, angle)
        gates.append(gate)
        latest.update(dict.fromkeys(qubits, gate))
    return gates, frozenset(idle)


def _same_rotation(before: _Gate, operation: Instruction, qubits: tuple[int, ...], latest: dict[int, _Gate]) -> bool:
    return (
        before.angle is not None
        and before.qubits == qubits
        and before.operation.base_class is operation.base_class
        and all(latest[qubit] is before for qubit in qubits)
    )


def _is_diagonal(operation: Instruction) -> bool:
    generator, _ = generator_of(operation)
    return not np.any(generator - np.diag(np.diag(generator)))


def _finite(name: str, array: Array, leading: int) -> Array:
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        place = tuple(bad[0].tolist())
        where = f" of sample {', '.join(map(str, place[:leading]))}" if leading else ""
        raise InputError(f"{name} {place[leading]}{where} is {array[place]}: its expression is undefined there")
    return array
