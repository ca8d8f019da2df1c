"""The circuit template of a model: encoder and ansatz in one circuit, parameter order, and observables.

m_j(u; θ) = <0| S(u)† U(θ)† M_j U(θ) S(u) |0>
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter, ParameterVector
from qiskit.circuit.library import get_standard_gate_name_mapping
from qiskit.quantum_info import SparsePauliOp
from qiskit.transpiler.passes import RemoveBarriers

from qiskit_qdeq._html import facts
from qiskit_qdeq.circuits._checks import check_reals
from qiskit_qdeq.circuits.ansatz import Ansatz, as_ansatz
from qiskit_qdeq.circuits.encoders import Encoder, FloatArray, IntArray, as_encoder
from qiskit_qdeq.circuits.observables import check_observables, readout_observables, z_observables
from qiskit_qdeq.exceptions import InputError


@dataclass(frozen=True, init=False, eq=False, repr=False)
class CircuitTemplate:
    """Encoder S, ansatz U and observables M of a model, checked against each other.

    Args:
        encoder: an Encoder, or a circuit whose parameters are the inputs.
        ansatz: an Ansatz, or a circuit whose parameters are the weights.
        weights: the order of the ansatz circuit's parameters; default: by name and vector index.
        state_observables: the K observables fed back; default: Z on every wire.
        readout: the F observables of the readout, or their name "z", "zz", "zzz" or "zzzz".

    Raises:
        InputError: if qubit counts differ, parameter names clash, or a part is not usable.

    >>> from qiskit_qdeq.circuits import AmplitudeEncoder, paper_ansatz
    >>> template = CircuitTemplate(AmplitudeEncoder(16), paper_ansatz(4), readout="z")
    >>> template.num_weights, template.depth, template.two_qubit_gates
    (39, 48, 28)
    """

    encoder: Encoder
    ansatz: QuantumCircuit
    weights: tuple[Parameter, ...]
    state_observables: tuple[SparsePauliOp, ...]
    readout_observables: tuple[SparsePauliOp, ...]

    def __init__(
        self,
        encoder: Encoder | QuantumCircuit,
        ansatz: QuantumCircuit | Ansatz,
        *,
        weights: ParameterVector | Sequence[Parameter] | None = None,
        state_observables: Sequence[SparsePauliOp] | None = None,
        readout: str | Sequence[SparsePauliOp] = "zz",
    ) -> None:
        encoder = as_encoder(encoder)
        checked = as_ansatz(ansatz, weights)
        size = encoder.num_qubits
        if checked.circuit.num_qubits != size:
            raise InputError(
                f"the encoder has {size} qubits, the ansatz {checked.circuit.num_qubits}; they must be equal"
            )
        names = {parameter.name for parameter in encoder.parameters}
        if clash := sorted(names & {parameter.name for parameter in checked.weights}):
            raise InputError(
                f"encoder and ansatz both have parameters named {clash}; build one over a ParameterVector of "
                "another name"
            )
        if state_observables is None:
            state_observables = z_observables(size)
        fields = {
            "encoder": encoder,
            "ansatz": checked.circuit,
            "weights": checked.weights,
            "state_observables": check_observables(state_observables, size, "state_observables"),
            "readout_observables": readout_observables(size, readout),
        }
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    @property
    def num_qubits(self) -> int:
        """Number n of qubits."""
        return self.encoder.num_qubits

    @property
    def num_features(self) -> int:
        """Length D of an input u."""
        return self.encoder.num_features

    @property
    def num_angles(self) -> int:
        """Number G of encoder angles."""
        return self.encoder.num_angles

    @property
    def num_weights(self) -> int:
        """Number p of weights."""
        return len(self.weights)

    @property
    def num_states(self) -> int:
        """Number K of state observables."""
        return len(self.state_observables)

    @property
    def num_readouts(self) -> int:
        """Number F of readout observables."""
        return len(self.readout_observables)

    @cached_property
    def circuit(self) -> QuantumCircuit:
        """The circuit U(θ) S(φ) over the encoder's parameters and the weights; not to be modified."""
        circuit = QuantumCircuit(self.num_qubits, name="qdeq")
        circuit.compose(self.encoder.circuit, inplace=True)
        circuit.compose(self.ansatz, inplace=True)
        return circuit

    @cached_property
    def angle_positions(self) -> IntArray:
        """Where the encoder's angles stand in ``circuit.parameters``, shape (G,)."""
        return self._positions(self.encoder.parameters)

    @cached_property
    def weight_positions(self) -> IntArray:
        """Where the weights stand in ``circuit.parameters``, shape (p,)."""
        return self._positions(self.weights)

    @property
    def depth(self) -> int:
        """Depth of the circuit in one- and two-qubit gates, barriers left out."""
        return int(self._elementary.depth())

    @property
    def two_qubit_gates(self) -> int:
        """Number of two-qubit gates of the circuit."""
        return int(self._elementary.num_nonlocal_gates())

    def parameter_values(self, inputs: ArrayLike, weights: ArrayLike) -> FloatArray:
        """Return the circuit's parameter values in the order of ``circuit.parameters``: Qiskit sorts by name.

        Args:
            inputs: (B, D).
            weights: (p,), shared by the batch, or (B, p).

        Returns:
            Array of shape (B, G + p), as a PUB of Qiskit's primitives takes it.

        Raises:
            InputError: if a shape is wrong or a value is not finite.
        """
        return self.arrange(self.encoder.angles(self.encoder.validate(inputs)), weights)

    def arrange(self, angles: ArrayLike, weights: ArrayLike) -> FloatArray:
        """Join angles (..., G) and weights (..., p), broadcast, to values (..., G + p) as circuit.parameters.

        Raises:
            InputError: if a last axis is wrong, a value is not finite, or the leading axes do not broadcast.
        """
        angles = _check_values("angles", angles, self.num_angles)
        weights = _check_values("weights", weights, self.num_weights)
        try:
            leading = np.broadcast_shapes(angles.shape[:-1], weights.shape[:-1])
        except ValueError:
            raise InputError(f"angles {angles.shape} and weights {weights.shape} do not broadcast") from None
        values = np.empty((*leading, self.num_angles + self.num_weights))
        values[..., self.angle_positions] = angles
        values[..., self.weight_positions] = weights
        return values

    def bind(self, inputs: ArrayLike, weights: ArrayLike) -> QuantumCircuit:
        """Return the circuit of one sample, `inputs` (D,), with `weights` (p,) bound.

        Raises:
            InputError: if a shape is wrong or a value is not finite.
        """
        angles = self.encoder.angles(check_reals("inputs", inputs)[None])[0]
        weights = _check_values("weights", weights, self.num_weights)
        if weights.ndim != 1:
            raise InputError(f"weights must have shape ({self.num_weights},), got {weights.shape}")
        mapping = dict(zip(self.encoder.parameters, angles, strict=True))
        mapping |= zip(self.weights, weights, strict=True)
        return self.circuit.assign_parameters(mapping)

    def draw(self, *args: Any, **kwargs: Any) -> Any:
        """Draw the circuit; arguments and result are those of QuantumCircuit.draw."""
        return self.circuit.draw(*args, **kwargs)

    def __repr__(self) -> str:
        return (
            f"CircuitTemplate({self.encoder!r}, {self.num_weights} weights, "
            f"{self.num_states} state and {self.num_readouts} readout observables)"
        )

    def _repr_html_(self) -> str:
        rows = {
            "encoder": repr(self.encoder),
            "qubits": self.num_qubits,
            "weights": self.num_weights,
            "state / readout observables": f"{self.num_states} / {self.num_readouts}",
            "depth": self.depth,
            "two-qubit gates": self.two_qubit_gates,
        }
        return facts("CircuitTemplate", rows)

    @cached_property
    def _elementary(self) -> QuantumCircuit:
        """The circuit without barriers, opened down to one- and two-qubit gates of Qiskit's library."""
        library = get_standard_gate_name_mapping()
        circuit = RemoveBarriers()(self.circuit)
        while names := {item.operation.name for item in circuit.data if _is_composite(item.operation, library)}:
            circuit = circuit.decompose(list(names))
        return circuit

    def _positions(self, parameters: Sequence[Parameter]) -> IntArray:
        order = {parameter: position for position, parameter in enumerate(self.circuit.parameters)}
        return np.array([order[parameter] for parameter in parameters], dtype=np.intp)


def _is_composite(operation: Any, library: dict[str, Any]) -> bool:
    known = operation.name in library or operation.name == "unitary"
    return operation.definition is not None and not (known and operation.num_qubits <= 2)


def _check_values(name: str, values: ArrayLike, size: int) -> FloatArray:
    array = check_reals(name, values)
    if array.ndim == 0 or array.shape[-1] != size:
        raise InputError(f"{name} must have a last axis of length {size}, got shape {array.shape}")
    if not np.isfinite(array).all():
        raise InputError(f"{name} must be finite, got {array[~np.isfinite(array)][0]}")
    return array
