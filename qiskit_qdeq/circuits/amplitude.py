"""Amplitude encoding |ψ(u)> = u/‖u‖ by a circuit of fixed structure, and its angle map with derivative.

The circuit is the tree of uniformly controlled RY of Möttönen, Vartiainen, Bergholm and Salomaa
(quant-ph/0407010). Node j of level k splits its part of u into halves l and r and has the tree angle

    α_kj = 2 atan2(‖r‖, ‖l‖),   on the last level, where halves are single entries, signed: 2 atan2(r, l).

A level with k controls becomes 2^k RY and 2^k CZ in Gray-code order g, and its gate angles are

    φ_ki = 2^-k Σ_j (-1)^(j·g_i) α_kj.

The last CZ of each level is left out (2^m - m - 1 CZ in all): it is diagonal and every later gate only uses
its qubits as controls, so all of them commute to the end, where they flip the sign of the amplitudes whose
most significant bit is set and whose other bits have odd parity. The angle map flips those signs beforehand.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter, ParameterVector

from qiskit_qdeq.circuits._checks import check_count
from qiskit_qdeq.circuits.encoders import Encoder, FloatArray
from qiskit_qdeq.exceptions import InputError

_SMALLEST = 1e-300


class AmplitudeEncoder(Encoder):
    """Encode u as the real amplitudes of a state: <i|ψ(u)> = u_i/‖u‖ for i < D, and 0 beyond.

    i is Qiskit's statevector index. Only qubits 0 .. m-1 are used, m = max(1, ⌈log2 D⌉); the others stay |0>.
    The circuit has 2^m - 1 RY, each with a parameter of its own, and 2^m - m - 1 CZ.

    Args:
        num_features: D >= 1.
        num_qubits: n >= m; default m.

    Raises:
        InputError: if num_qubits is too small for num_features.

    References:
        Möttönen et al., Transformation of quantum states using uniformly controlled rotations,
        quant-ph/0407010.

    >>> import numpy as np
    >>> from qiskit.quantum_info import Statevector
    >>> encoder = AmplitudeEncoder(4)
    >>> angles = encoder.angles(np.array([[1.0, -1.0, 0.0, 1.0]]))
    >>> state = Statevector(encoder.circuit.assign_parameters(dict(zip(encoder.parameters, angles[0]))))
    >>> bool(np.allclose(state.data * 3**0.5, [1, -1, 0, 1]))
    True
    """

    def __init__(self, num_features: int, num_qubits: int | None = None) -> None:
        num_features = check_count("num_features", num_features)
        depth = max(1, (num_features - 1).bit_length())
        num_qubits = depth if num_qubits is None else check_count("num_qubits", num_qubits)
        if num_qubits < depth:
            raise InputError(
                f"num_qubits={num_qubits} holds at most {2**num_qubits} amplitudes, but num_features="
                f"{num_features}; use at least {depth} qubits"
            )
        super().__init__(num_qubits, num_features, num_angles=2**depth - 1)
        self._depth = depth

    def __repr__(self) -> str:
        return f"AmplitudeEncoder(num_features={self.num_features}, num_qubits={self.num_qubits})"

    @cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        """One angle per RY, in the order of the gates: level by level, each in Gray-code order."""
        return tuple(ParameterVector("angles", self.num_angles))

    @cached_property
    def circuit(self) -> QuantumCircuit:
        """The tree of uniformly controlled RY, from the most significant of the m qubits down."""
        circuit = QuantumCircuit(self.num_qubits, name="amplitude_encoder")
        angle = iter(self.parameters)
        for level in range(self._depth):
            target = self._depth - 1 - level
            circuit.ry(next(angle), target)
            for i in range(1, 2**level):
                circuit.cz(target + 1 + _trailing_zeros(i), target)
                circuit.ry(next(angle), target)
        return circuit

    def angles(self, inputs: FloatArray) -> FloatArray:
        """Return the RY angles φ(u), shape (B, 2^m - 1), in the order of `parameters`.

        The angle of a node whose part of u is all zero is 0.

        Raises:
            InputError: if a sample is the zero vector, which has no direction to encode.
        """
        leaves = self._signed_leaves(self.validate(inputs))[0]
        halves = _halves(leaves, self._depth)
        return np.concatenate(
            [2 * np.arctan2(right, left) @ _walsh(level).T for level, (left, right) in enumerate(halves)],
            axis=1,
        )

    def angles_jacobian(self, inputs: FloatArray) -> FloatArray:
        """Return ∂φ_g/∂u_i, shape (B, 2^m - 1, D), by the chain rule through the tree of norms.

        The norm of a part of u that is all zero has no derivative (see :meth:`differentiable`); 0 is used.

        Raises:
            InputError: if a sample is the zero vector.
        """
        leaves, scale = self._signed_leaves(self.validate(inputs))
        batch, size = leaves.shape
        levels = []
        for level, (left, right) in enumerate(_halves(leaves, self._depth)):
            blocks = leaves.reshape(batch, 2**level, 2, size // 2 ** (level + 1))
            if level == self._depth - 1:
                directions = np.ones_like(blocks)
            else:
                directions = _divide(blocks, np.stack([left, right], axis=2)[..., None])
            norm = np.hypot(left, right)
            slopes = 2 * _divide(_divide(np.stack([-right, left], axis=2), norm[..., None]), norm[..., None])
            tree = (directions * slopes[..., None]).reshape(batch, 1, 2**level, size // 2**level)
            levels.append((_walsh(level)[:, :, None] * tree).reshape(batch, 2**level, size))
        jacobian = np.concatenate(levels, axis=1)[:, :, : self.num_features]
        jacobian *= (_dropped_signs(self._depth)[: self.num_features] / scale[:, None])[:, None, :]
        return jacobian

    def differentiable(self, inputs: FloatArray) -> NDArray[np.bool_]:
        """Tell per sample, shape (B,), whether the angle map has a derivative at its input.

        It has none where two neighbouring inputs u_2i, u_2i+1 are both zero: the angles there depend on the
        direction from which zero is approached, although the state does not, and the shift rule chained with
        :meth:`angles_jacobian` misses the derivative along these two inputs.
        """
        leaves = self._signed_leaves(self.validate(inputs))[0]
        pairs = np.abs(_pairs(leaves)).max(axis=2)
        reached = pairs[:, : -(-self.num_features // 2)]
        return np.asarray((reached > 0).all(axis=1))

    def validate(self, inputs: Any) -> FloatArray:
        """Return `inputs` as float64, shape (B, D), or raise InputError naming the sample and the reason."""
        array = super().validate(inputs)
        zero = np.abs(array).max(axis=1) < _SMALLEST
        if zero.any():
            raise InputError(
                f"inputs of sample {int(np.argmax(zero))} are all zero: the zero vector has no direction and "
                "cannot be amplitude-encoded; drop the sample or shift the data"
            )
        return array

    def _signed_leaves(self, inputs: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Pad to 2^m, apply the signs of the CZ left out, and scale rows to a largest entry of 1."""
        scale = np.abs(inputs).max(axis=1)
        leaves = np.zeros((len(inputs), 2**self._depth))
        leaves[:, : self.num_features] = inputs / scale[:, None]
        # Adding 0.0 turns -0.0 into 0.0, for which arctan2 would not give the angle 0.
        return leaves * _dropped_signs(self._depth) + 0.0, scale


def _halves(leaves: FloatArray, depth: int) -> list[tuple[FloatArray, FloatArray]]:
    """Return per level k the norms of both halves of its nodes, (B, 2^k) each; on the last level signed."""
    pairs = _pairs(leaves)
    halves = [(pairs[..., 0], pairs[..., 1])]
    for _ in range(depth - 1):
        norms = _pairs(np.hypot(*halves[0]))
        halves.insert(0, (norms[..., 0], norms[..., 1]))
    return halves


def _pairs(values: FloatArray) -> FloatArray:
    return values.reshape(len(values), values.shape[1] // 2, 2)


def _walsh(level: int) -> FloatArray:
    """Return the (2^k, 2^k) matrix 2^-k (-1)^(j·g_i) from tree angles j to gate angles i, g the Gray code."""
    index = np.arange(2**level)
    gray = index ^ (index >> 1)
    return np.asarray(_parity_signs(gray[:, None] & index[None, :]) / 2**level)


def _dropped_signs(depth: int) -> FloatArray:
    """Return the diagonal, (2^m,), of the product of the CZ left out: the top qubit with every other one."""
    index = np.arange(2**depth)
    top = 2 ** (depth - 1)
    return np.where(index & top, _parity_signs(index & (top - 1)), 1.0)


def _parity_signs(index: NDArray[np.int_]) -> FloatArray:
    return np.where(np.bitwise_count(index) % 2, -1.0, 1.0)


def _trailing_zeros(number: int) -> int:
    return (number & -number).bit_length() - 1


def _divide(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    """Divide, with 0 where the denominator is 0."""
    zero = denominator == 0
    return np.where(zero, 0.0, numerator / np.where(zero, 1.0, denominator))
