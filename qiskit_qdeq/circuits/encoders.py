"""Encoders: circuits S(u) that carry a real feature vector u into a quantum state, with their angle maps.

An encoder has a fixed circuit over G parameters and a map of the inputs to those parameters,

    u in R^D  ->  φ(u) in R^G,      |ψ(u)> = S(φ(u)) |0>,

whose derivative ∂φ/∂u turns parameter-shift derivatives of the circuit into derivatives with respect to u.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter, ParameterVector

from qiskit_qdeq.circuits._checks import check_count, check_parameters, check_reals, check_unitary
from qiskit_qdeq.exceptions import InputError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]
_AXES = ("x", "y", "z")


class Encoder(ABC):
    """A circuit S(φ(u)) of fixed structure and the map u -> φ(u) from inputs to its angles.

    Attributes:
        num_qubits: n, qubits of the circuit.
        num_features: D, length of one input u.
        num_angles: G, number of circuit parameters.
    """

    def __init__(self, num_qubits: int, num_features: int, num_angles: int) -> None:
        self.num_qubits = num_qubits
        self.num_features = num_features
        self.num_angles = num_angles

    @property
    @abstractmethod
    def parameters(self) -> tuple[Parameter, ...]:
        """The circuit's parameters in the order of the angles, length G."""

    @property
    @abstractmethod
    def circuit(self) -> QuantumCircuit:
        """The circuit S over `parameters`; the same object at every access, not to be modified."""

    @abstractmethod
    def angles(self, inputs: FloatArray) -> FloatArray:
        """Return the angles φ(u), shape (B, G), of inputs of shape (B, D)."""

    @abstractmethod
    def angles_jacobian(self, inputs: FloatArray) -> FloatArray:
        """Return the derivative ∂φ_g/∂u_i, shape (B, G, D), at inputs of shape (B, D)."""

    @property
    def product_axes(self) -> tuple[IntArray, IntArray] | None:
        """Axes (0, 1, 2 for x, y, z) and wires of the rotations if they are all of S, else None.

        Where not None, S(u)|0> is the product state of the R_axis(u_i) on their wires, in order of i.
        """
        return None

    def differentiable(self, inputs: FloatArray) -> NDArray[np.bool_]:
        """Tell per sample, shape (B,), whether the angle map φ has a derivative at its input."""
        return np.ones(len(self.validate(inputs)), dtype=bool)

    def validate(self, inputs: Any) -> FloatArray:
        """Return `inputs` as float64, shape (B, D), or raise InputError naming the sample and the reason."""
        array = check_reals("inputs", inputs)
        if array.ndim != 2 or array.shape[1] != self.num_features:
            raise InputError(
                f"inputs must have shape (samples, {self.num_features}), got {array.shape}; "
                "for a single sample use inputs[None, :]"
            )
        finite = np.isfinite(array).all(axis=1)
        if not finite.all():
            row = int(np.argmin(finite))
            column = int(np.argmin(np.isfinite(array[row])))
            raise InputError(f"inputs of sample {row} are not finite: feature {column} is {array[row, column]}")
        return array


class AngleEncoder(Encoder):
    """Successive single-qubit rotations: feature i turns wire w_i about axis a_i by the angle u_i.

        |ψ(u)> = R_{a_{D-1}}(u_{D-1}) on wire w_{D-1} ... R_{a_0}(u_0) on wire w_0 |0...0>

    Args:
        axes: D letters "x", "y" or "z", in the order of the features.
        wires: D wires; wire j is Qiskit qubit num_qubits-1-j.
        num_qubits: n.

    Raises:
        InputError: if the lengths differ, or an axis or a wire does not exist.

    Attributes:
        axes: (D,) integers 0, 1, 2 for x, y, z.
        wires: (D,) integers.

    >>> encoder = AngleEncoder("yz", wires=[0, 1], num_qubits=2)
    >>> encoder.axes.tolist(), encoder.wires.tolist()
    ([1, 2], [0, 1])
    """

    def __init__(self, axes: Sequence[str], wires: Sequence[int], num_qubits: int) -> None:
        num_qubits = check_count("num_qubits", num_qubits)
        if len(axes) != len(wires) or not len(axes):
            raise InputError(
                f"axes and wires must have one entry per feature, got {len(axes)} axes and {len(wires)} wires"
            )
        super().__init__(num_qubits, num_features=len(axes), num_angles=len(axes))
        self.axes: IntArray = np.array([_axis_index(axis) for axis in axes], dtype=np.intp)
        self.wires: IntArray = np.array([_check_wire(wire, num_qubits) for wire in wires], dtype=np.intp)
        self.axes.flags.writeable = self.wires.flags.writeable = False

    @classmethod
    def paper(cls, num_qubits: int) -> AngleEncoder:
        """Return the encoder of the QDEQ paper's code (arXiv:2410.23940) for 4 or 10 qubits.

        n = 4: features 0-3 are RY on wires 0-3, 4-7 RZ, 8-11 RX, 12-15 RY.

        n = 10: features 10w .. 10w+9 all turn wire w about one and the same axis: RY, RX, RZ for
        w mod 3 = 0, 1, 2. Kept for reproduction only, because it loses nearly all of the input: rotations
        about one axis add up, so a wire sees only the sum of its ten features, and RZ on |0> (wires 2, 5, 8)
        is a mere phase. Of 100 features, 7 numbers survive. Use :meth:`layered` for models of your own.

        Raises:
            InputError: for any other number of qubits.
        """
        if num_qubits == 4:
            return cls("yyyyzzzzxxxxyyyy", [0, 1, 2, 3] * 4, 4)
        if num_qubits == 10:
            wires = np.repeat(np.arange(10), 10)
            return cls(["yxz"[wire % 3] for wire in wires], wires.tolist(), 10)
        raise InputError(
            f"the paper's angle encoder has num_qubits 4 or 10, got {num_qubits!r}; use AngleEncoder.layered"
        )

    @classmethod
    def layered(cls, num_features: int, num_qubits: int, axes: Sequence[str] = ("y", "z", "x")) -> AngleEncoder:
        """Return the encoder with feature i on wire i mod n, about axis `axes[i // n mod len(axes)]`.

        >>> AngleEncoder.layered(5, 2).axes.tolist()
        [1, 1, 2, 2, 0]
        """
        features = range(check_count("num_features", num_features))
        num_qubits = check_count("num_qubits", num_qubits)
        if not len(axes):
            raise InputError("axes must name at least one of 'x', 'y', 'z'")
        return cls(
            [axes[(i // num_qubits) % len(axes)] for i in features],
            [i % num_qubits for i in features],
            num_qubits,
        )

    def __repr__(self) -> str:
        return f"AngleEncoder(num_features={self.num_features}, num_qubits={self.num_qubits})"

    @cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        """The rotation angles, in the order of the features."""
        return tuple(ParameterVector("angles", self.num_angles))

    @cached_property
    def circuit(self) -> QuantumCircuit:
        """The rotations, in the order of the features."""
        circuit = QuantumCircuit(self.num_qubits, name="angle_encoder")
        rotations = (circuit.rx, circuit.ry, circuit.rz)
        for axis, wire, parameter in zip(self.axes, self.wires, self.parameters, strict=True):
            rotations[axis](parameter, self.num_qubits - 1 - int(wire))
        return circuit

    @property
    def product_axes(self) -> tuple[IntArray, IntArray]:
        """Axes (0, 1, 2 for x, y, z) and wires of the rotations, in the order of the features."""
        return self.axes, self.wires

    def angles(self, inputs: FloatArray) -> FloatArray:
        """Return the inputs themselves, shape (B, D)."""
        return self.validate(inputs)

    def angles_jacobian(self, inputs: FloatArray) -> FloatArray:
        """Return the identity for every sample, shape (B, D, D), as a read-only view."""
        return _identities(len(self.validate(inputs)), self.num_features)


class CircuitEncoder(Encoder):
    """Any unitary QuantumCircuit whose parameters are the inputs: feature maps, data re-uploading.

    A parameter may occur in many gates and inside ParameterExpressions. The angles are the inputs.

    Args:
        circuit: gates and barriers only; its parameters must be exactly `inputs`.
        inputs: the parameters in the order of the features; default: all, by name and vector index.

    Raises:
        InputError: if the circuit is not unitary, has no parameter, or has others than `inputs`.

    >>> from qiskit.circuit.library import zz_feature_map
    >>> CircuitEncoder(zz_feature_map(3))
    CircuitEncoder(num_features=3, num_qubits=3)
    """

    def __init__(self, circuit: QuantumCircuit, inputs: ParameterVector | Sequence[Parameter] | None = None) -> None:
        check_unitary(circuit, "the encoder circuit")
        self._parameters = check_parameters(circuit, inputs, "inputs")
        self._circuit = circuit.copy()
        size = len(self._parameters)
        super().__init__(circuit.num_qubits, num_features=size, num_angles=size)

    def __repr__(self) -> str:
        return f"CircuitEncoder(num_features={self.num_features}, num_qubits={self.num_qubits})"

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """The circuit's parameters in the order of the features."""
        return self._parameters

    @property
    def circuit(self) -> QuantumCircuit:
        """A copy of the circuit given at construction."""
        return self._circuit

    def angles(self, inputs: FloatArray) -> FloatArray:
        """Return the inputs themselves, shape (B, D)."""
        return self.validate(inputs)

    def angles_jacobian(self, inputs: FloatArray) -> FloatArray:
        """Return the identity for every sample, shape (B, D, D), as a read-only view."""
        return _identities(len(self.validate(inputs)), self.num_features)


def as_encoder(encoder: Encoder | QuantumCircuit) -> Encoder:
    """Return an Encoder as it is, wrap a QuantumCircuit in a CircuitEncoder; InputError for anything else."""
    if isinstance(encoder, Encoder):
        return encoder
    if isinstance(encoder, QuantumCircuit):
        return CircuitEncoder(encoder)
    raise InputError(f"encoder must be an Encoder or a QuantumCircuit, got {type(encoder).__name__}")


def _identities(batch: int, size: int) -> FloatArray:
    return np.broadcast_to(np.eye(size), (batch, size, size))


def _axis_index(axis: str) -> int:
    if axis not in _AXES:
        raise InputError(f"axes must be 'x', 'y' or 'z', got {axis!r}")
    return _AXES.index(axis)


def _check_wire(wire: int, num_qubits: int) -> int:
    wire = check_count("wires", wire, minimum=0)
    if wire >= num_qubits:
        raise InputError(f"wires must lie in 0..{num_qubits - 1} for num_qubits={num_qubits}, got {wire}")
    return wire
