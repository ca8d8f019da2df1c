"""Encoded states S(u)|0> of a batch and their derivatives along input directions, built column by column.

`ProductEncoding` serves encoders made of single-qubit rotations (a Kronecker product of n one-qubit states and its
Leibniz rule); `CircuitEncoding` serves any circuit, with the angles of every gate per sample. Both return planar
columns (2, 2**live, 1 + R, B): the states first, then the derivatives along R directions T of the inputs (B, R, D), on the
basis states an encoder can reach, which may be fewer than 2**n.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numba
import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter

from qiskit_qdeq.evaluation.bloch import ProductLayout
from qiskit_qdeq.evaluation.bloch_kernels import ORDERED_JIT, sine_cosine
from qiskit_qdeq.evaluation.expressions import AngleMap
from qiskit_qdeq.evaluation.jit import JIT
from qiskit_qdeq.evaluation.program import GateTable, primitive_gates
from qiskit_qdeq.evaluation.threads import run_parts, split_columns
from qiskit_qdeq.evaluation.vectors import LANES, load, store

Array = np.ndarray[Any, np.dtype[Any]]


class Encoding(Protocol):
    """Builds encoded columns of a batch."""

    @property
    def is_real(self) -> bool:
        """Whether the imaginary parts of all columns are zero."""

    @property
    def basis(self) -> tuple[Array, Array]:
        """The states that the columns' entries multiply: numbers of basis states and their phases (2**live,)."""

    def columns(self, inputs: Array, directions: Array) -> Array:
        """S(u)|0> and its derivatives along `directions` (B, R, D): (2, 2**live, 1 + R, B)."""


class ProductEncoding:
    """Rotations R_axis(u_i) on wires, applied in order of i to |0>, on the basis of `ProductLayout`."""

    def __init__(self, layout: ProductLayout) -> None:
        self.layout = layout
        #: In a wire's basis |0>, -i|1> a rotation about x is one about y: the columns stay real.
        self._axes = np.where(np.repeat(layout.turned, np.diff(layout.starts)), 1, layout.axes)
        self._qubits = layout.num_live - 1 - np.repeat(np.arange(layout.num_live), np.diff(layout.starts))

    @property
    def is_real(self) -> bool:
        """Whether the imaginary parts of all columns are zero."""
        return bool((self.layout.dims <= 3).all())

    @property
    def basis(self) -> tuple[Array, Array]:
        """Basis states in which only live wires are not |0>, and their phases (2**live,)."""
        return self.layout.basis

    def columns(self, inputs: Array, directions: Array) -> Array:
        """S(u)|0> and its derivatives along `directions` (B, R, D): (2, 2**live, 1 + R, B)."""
        batch, count = directions.shape[:2]
        live = self.layout.num_live
        angles, slopes = self.layout.merge(inputs), self.layout.merge(directions)
        out = np.empty((2, 2**live, 1 + count, batch), dtype=inputs.dtype)
        work = [
            (self._axes, self._qubits, live, angles, slopes, out, first, last)
            for first, last in split_columns(2**live * (1 + count), batch)
        ]
        run_parts(_product_columns, work)
        return out


class CircuitEncoding:
    """Any encoder circuit over its input parameters."""

    def __init__(self, circuit: QuantumCircuit, parameters: Sequence[Parameter]) -> None:
        gates = primitive_gates(circuit)
        self._table = GateTable([(tuple(sorted(gate.qubits)), gate) for gate in gates])
        self._qubits = np.array([(*sorted(gate.qubits), -1)[:2] for gate in gates], dtype=np.int64).reshape(-1, 2)
        self._slots = np.array([i for i, gate in enumerate(gates) if gate.angle is not None], dtype=np.int64)
        self._angle_map = AngleMap([gate.angle for gate in gates if gate.angle is not None], parameters)
        self._num_qubits = circuit.num_qubits

    @property
    def is_real(self) -> bool:
        """Not known of a circuit."""
        return False

    @property
    def basis(self) -> tuple[Array, Array]:
        """All 2**n basis states, without phases."""
        return np.arange(2**self._num_qubits), np.ones(2**self._num_qubits, dtype=complex)

    def columns(self, inputs: Array, directions: Array) -> Array:
        """S(u)|0> and its derivatives along `directions` (B, R, D): (2, 2**n, 1 + R, B)."""
        batch, count = directions.shape[:2]
        angles = np.zeros((len(self._qubits), batch), dtype=inputs.dtype)
        slopes = np.zeros((len(self._qubits), count, batch), dtype=inputs.dtype)
        angles[self._slots] = self._angle_map(inputs).T
        jacobian = self._angle_map.jacobian(inputs)
        # an infinite slope, as that of arcsin(u) at 1, gives NaN, as an angle outside of its domain does
        with np.errstate(invalid="ignore"):
            slopes[self._slots] = np.moveaxis(directions @ np.swapaxes(jacobian, -1, -2), (0, 1, 2), (2, 1, 0))
        out = np.empty((2, 2**self._num_qubits, 1 + count, batch), dtype=inputs.dtype)
        table = self._table
        work = [
            (
                self._qubits,
                table.kinds,
                table.constants,
                table.generators,
                table.projectors,
                angles,
                slopes,
                out,
                first,
                last,
            )
            for first, last in split_columns(2**self._num_qubits * (1 + count), batch)
        ]
        run_parts(_circuit_columns, work)
        return out


@numba.njit(**ORDERED_JIT)  # type: ignore[misc]
def _product_columns(axes, qubits, num_qubits, inputs, directions, out, first, last):  # type: ignore[no-untyped-def]
    count = directions.shape[1]
    dim = 1 << num_qubits
    dtype = out.dtype
    # one-qubit states and derivatives: (qubit, component, re/im, lane), and one leading entry per direction
    pair = np.empty((num_qubits, 2, 2, LANES), dtype)
    slope = np.empty((count, num_qubits, 2, 2, LANES), dtype)
    state = np.empty((2, dim, LANES), dtype)
    tangent = np.empty((count, 2, dim, LANES), dtype)
    half, cosine, sine = np.zeros(LANES), np.empty(LANES), np.empty(LANES)
    room = np.empty(3 * LANES)
    rate = np.empty(LANES, dtype)
    for start in range(first, last, LANES):
        width = min(LANES, last - start)
        pair[:] = 0
        slope[:] = 0
        pair[:, 0, 0, :] = 1
        for i in range(len(axes)):
            for c in range(width):
                half[c] = 0.5 * inputs[start + c, i]
            sines, cosines = sine_cosine(load(half, 0), room)
            store(sine, 0, sines)
            store(cosine, 0, cosines)
            q = qubits[i]
            _rotate(pair[q], axes[i], cosine, sine, width)
            for r in range(count):
                _rotate(slope[r, q], axes[i], cosine, sine, width)
                for c in range(width):
                    rate[c] = 0.5 * directions[start + c, r, i]
                _add_derivative(slope[r, q], pair[q], axes[i], rate, width)
        state[:, 0, :] = 0
        state[0, 0, :] = 1
        tangent[:, :, 0, :] = 0
        for q in range(num_qubits):
            size = 1 << q
            for r in range(count):
                t = tangent[r]
                for i in range(size):
                    _leibniz(t, state, slope[r, q, 1], pair[q, 1], i, i + size, width)
                    _leibniz(t, state, slope[r, q, 0], pair[q, 0], i, i, width)
            for i in range(size):
                for c in range(width):
                    x, y = state[0, i, c], state[1, i, c]
                    state[0, i + size, c] = x * pair[q, 1, 0, c] - y * pair[q, 1, 1, c]
                    state[1, i + size, c] = x * pair[q, 1, 1, c] + y * pair[q, 1, 0, c]
                    state[0, i, c] = x * pair[q, 0, 0, c] - y * pair[q, 0, 1, c]
                    state[1, i, c] = x * pair[q, 0, 1, c] + y * pair[q, 0, 0, c]
        for i in range(dim):
            for part in range(2):
                for c in range(width):
                    out[part, i, 0, start + c] = state[part, i, c]
                for r in range(count):
                    for c in range(width):
                        out[part, i, 1 + r, start + c] = tangent[r, part, i, c]


@numba.njit(inline="always")  # type: ignore[misc]
def _leibniz(tangent, state, slope, pair, source, target, width):  # type: ignore[no-untyped-def]
    """tangent[target] <- tangent[source] ⊗ pair + state[source] ⊗ slope."""
    for c in range(width):
        t, ti = tangent[0, source, c], tangent[1, source, c]
        x, y = state[0, source, c], state[1, source, c]
        tangent[0, target, c] = t * pair[0, c] - ti * pair[1, c] + x * slope[0, c] - y * slope[1, c]
        tangent[1, target, c] = t * pair[1, c] + ti * pair[0, c] + x * slope[1, c] + y * slope[0, c]


@numba.njit(inline="always")  # type: ignore[misc]
def _rotate(pair, axis, cosine, sine, width):  # type: ignore[no-untyped-def]
    """pair <- exp(-i u σ_axis / 2) pair, one-qubit states (2, re/im, lane)."""
    for c in range(width):
        a, ai, b, bi = pair[0, 0, c], pair[0, 1, c], pair[1, 0, c], pair[1, 1, c]
        x, s = cosine[c], sine[c]
        if axis == 0:
            pair[0, 0, c], pair[0, 1, c] = x * a + s * bi, x * ai - s * b
            pair[1, 0, c], pair[1, 1, c] = x * b + s * ai, x * bi - s * a
        elif axis == 1:
            pair[0, 0, c], pair[0, 1, c] = x * a - s * b, x * ai - s * bi
            pair[1, 0, c], pair[1, 1, c] = x * b + s * a, x * bi + s * ai
        else:
            pair[0, 0, c], pair[0, 1, c] = x * a + s * ai, x * ai - s * a
            pair[1, 0, c], pair[1, 1, c] = x * b - s * bi, x * bi + s * b


@numba.njit(inline="always")  # type: ignore[misc]
def _add_derivative(slope, pair, axis, rate, width):  # type: ignore[no-untyped-def]
    """slope += rate · (-i σ_axis) pair."""
    for c in range(width):
        a, ai, b, bi = pair[0, 0, c], pair[0, 1, c], pair[1, 0, c], pair[1, 1, c]
        if axis == 0:
            slope[0, 0, c] += rate[c] * bi
            slope[0, 1, c] -= rate[c] * b
            slope[1, 0, c] += rate[c] * ai
            slope[1, 1, c] -= rate[c] * a
        elif axis == 1:
            slope[0, 0, c] -= rate[c] * b
            slope[0, 1, c] -= rate[c] * bi
            slope[1, 0, c] += rate[c] * a
            slope[1, 1, c] += rate[c] * ai
        else:
            slope[0, 0, c] += rate[c] * ai
            slope[0, 1, c] -= rate[c] * a
            slope[1, 0, c] -= rate[c] * bi
            slope[1, 1, c] += rate[c] * b


@numba.njit(**JIT)  # type: ignore[misc]
def _circuit_columns(  # type: ignore[no-untyped-def]
    qubits, kinds, constants, generators, projectors, angles, slopes, out, first, last
):
    dim, count = out.shape[1], out.shape[2]
    work = np.empty((count, dim, last - first), np.complex128)
    moved = np.empty((dim, last - first), np.complex128)
    work[:] = 0
    work[0, 0, :] = 1
    cosine = np.empty(last - first)
    sine = np.empty(last - first)
    for g in range(len(qubits)):
        kind = kinds[g]
        for c in range(last - first):
            cosine[c] = np.cos(0.5 * angles[g, first + c])
            sine[c] = np.sin(0.5 * angles[g, first + c])
        for r in range(count):
            if kind < 0:
                moved[:] = 0
                _add_product(constants[-1 - kind], qubits[g], work[r], moved)
                work[r] = moved
                continue
            moved[:] = 0
            _add_product(projectors[kind], qubits[g], work[r], moved)
            for i in range(dim):
                for c in range(last - first):
                    moved[i, c] *= cosine[c] - 1
                    moved[i, c] += work[r, i, c]
                    work[r, i, c] *= -1j * sine[c]
            _add_product(generators[kind], qubits[g], work[r], moved)
            work[r] = moved
        if kind >= 0 and count > 1:
            moved[:] = 0
            _add_product(generators[kind], qubits[g], work[0], moved)
            for r in range(count - 1):
                for i in range(dim):
                    for c in range(last - first):
                        work[1 + r, i, c] += -0.5j * slopes[g, r, first + c] * moved[i, c]
    for r in range(count):
        for i in range(dim):
            for c in range(last - first):
                out[0, i, r, first + c] = work[r, i, c].real
                out[1, i, r, first + c] = work[r, i, c].imag


@numba.njit(inline="always")  # type: ignore[misc]
def _add_product(matrix, pair, source, target):  # type: ignore[no-untyped-def]
    """target += M source, M (4 × 4, leading corner for one qubit) on the qubits of `pair`."""
    dim, width = source.shape
    low = 1 << pair[0]
    high = 0 if pair[1] < 0 else 1 << pair[1]
    local = 2 if pair[1] < 0 else 4
    for i in range(dim):
        if i & low or i & high:
            continue
        for r in range(local):
            row = i + (low if r & 1 else 0) + (high if r & 2 else 0)
            for s in range(local):
                entry = matrix[r, s]
                if entry == 0:
                    continue
                column = i + (low if s & 1 else 0) + (high if s & 2 else 0)
                for c in range(width):
                    target[row, c] += entry * source[column, c]
