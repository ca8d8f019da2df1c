"""Exact evaluation with any encoder: encoded columns times U(θ), the unitary shared by the batch and all solver steps.

    φ_b = U S(u_b)|0>,  m_j = <φ|M_j|φ>,  ∂m_j/∂t = 2 Re <φ|M_j U ∂_t S|0>,

and the gradient of any scalar needs one adjoint pass with cotangent columns y_b = Σ_j c_bj M_j φ_b. Where 2**n is small
U is a matrix and every step one real matrix product, and the batch collapses to Λ = Σ_b y_b E_b† before that pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from qiskit_qdeq.evaluation.encodings import Encoding
from qiskit_qdeq.evaluation.linear import solve_adjoint
from qiskit_qdeq.evaluation.observables import Observables
from qiskit_qdeq.evaluation.program import BoundProgram, GateProgram
from qiskit_qdeq.evaluation.protocol import Cost, Cotangent, Evaluation, ExactEvaluator
from qiskit_qdeq.evaluation.threads import matmul
from qiskit_qdeq.exceptions import InputError

Array = np.ndarray[Any, np.dtype[Any]]

#: Largest 2**n for which U is held as a matrix: beyond it, sweeping the columns takes fewer operations.
_MATRIX_LIMIT = 64


class ColumnEvaluator(ExactEvaluator):
    """m(x + P q; θ) for an encoder that builds its states column by column.

    Args:
        program: U(θ).
        encoding: S(u)|0> and its derivatives.
        states: the K state observables.
        readouts: the F readout observables.
        injection: P (D, K).
    """

    def __init__(
        self,
        program: GateProgram,
        encoding: Encoding,
        states: Observables,
        readouts: Observables,
        injection: Array,
    ) -> None:
        self.program, self.encoding, self.states, self.readouts = program, encoding, states, readouts
        self.injection = np.ascontiguousarray(injection, dtype=program.dtype)

    def bind(self, weights: Array) -> BoundColumns:
        """Build the blocks of U(θ), and U itself where it is small."""
        return BoundColumns(self, self.program.bind(weights))


class BoundColumns:
    """`ColumnEvaluator` at fixed weights."""

    def __init__(self, evaluator: ColumnEvaluator, program: BoundProgram) -> None:
        self.evaluator, self.program = evaluator, program

    @cached_property
    def unitary(self) -> Array | None:
        """U(θ), planar (2, 2**n, 2**n), where it is small enough to be worth holding."""
        dim = self.evaluator.program.dim
        if dim > _MATRIX_LIMIT:
            return None
        columns = np.zeros((2, dim, dim), dtype=self.evaluator.program.dtype)
        np.fill_diagonal(columns[0], 1.0)
        return self.program.apply(columns)

    @cached_property
    def _real_unitary(self) -> Array:
        assert self.unitary is not None
        re, im = self.unitary
        return np.block([[re, -im], [im, re]])

    def apply(self, columns: Array) -> Array:
        """U times planar columns (2, 2**n, C)."""
        if self.unitary is None:
            return self.program.apply(columns.copy())
        product = matmul(self._real_unitary, columns.reshape(len(self._real_unitary), columns.shape[2]))
        return product.reshape(columns.shape)

    def pull_back(self, encoded: Array, outputs: Array, cotangents: Array) -> Array:
        """∂L/∂θ for columns (2, 2**n, C) before and after U, and dL = 2 Re <cotangents, d outputs>."""
        if self.unitary is None:
            return self.program.pull_back(outputs.copy(), cotangents)
        re, im = cotangents
        total = np.stack([re @ encoded[0].T + im @ encoded[1].T, im @ encoded[0].T - re @ encoded[1].T])
        return self.program.pull_back(self.unitary.copy(), total)

    def map(self, inputs: Array, expect: Sequence[str] = ()) -> ColumnMap:
        """The map of samples (B, D)."""
        width = len(self.evaluator.injection)
        if np.ndim(inputs) != 2 or np.shape(inputs)[1] != width:
            raise InputError(
                f"inputs must have shape (samples, {width}), got {np.shape(inputs)}; `model.prepare(x)` makes them from data"
            )
        return ColumnMap(self, np.ascontiguousarray(inputs, dtype=self.evaluator.program.dtype))


class ColumnMap:
    """The equilibrium map of one minibatch."""

    cost = Cost()

    def __init__(self, bound: BoundColumns, inputs: Array) -> None:
        self.bound, self.inputs = bound, inputs
        self.batch = len(inputs)
        self.num_states = bound.evaluator.injection.shape[1]

    def values(self, state: Array, rows: Array) -> Evaluation:
        """m at `state` (b, K) for the samples `rows`."""
        return Evaluation(ColumnPoint(self.bound, self._moved(state, rows), state).values)

    def linearize(self, state: Array, rows: Array) -> tuple[Evaluation, Array]:
        """m and ∂m/∂q (b, K, K) at `state` for the samples `rows`."""
        point = ColumnPoint(self.bound, self._moved(state, rows), state)
        jacobian = point.jacobian
        return Evaluation(point.values), jacobian

    def at(self, state: Array) -> ColumnPoint:
        """The whole minibatch at `state` (B, K)."""
        return ColumnPoint(self.bound, self._moved(state, slice(None)), state)

    def _moved(self, state: Array, rows: Array | slice) -> Array:
        moved: Array = self.inputs[rows] + state @ self.bound.evaluator.injection.T
        return moved.astype(self.inputs.dtype, copy=False)

    def pull_back(self, terms: Sequence[Cotangent]) -> Array:
        """∂L/∂θ of the sum of the terms, in one adjoint pass over all their columns."""
        parts = [part for term in terms for part in _columns_of(term)]
        encoded, outputs, cotangents = (np.concatenate(column, axis=2) for column in zip(*parts, strict=True))
        return self.bound.pull_back(encoded, outputs, cotangents)


class ColumnPoint:
    """Samples at inputs u, with what was computed of them."""

    def __init__(self, bound: BoundColumns, inputs: Array, state: Array) -> None:
        self.bound, self.inputs, self.state = bound, inputs, state
        self._encoded: Array | None = None
        self._outputs: Array | None = None

    def _along(self, directions: Array) -> tuple[Array, Array]:
        """Encoded columns and outputs for the states and the given directions, (2, 2**n, 1 + R, B) each."""
        encoded = self.bound.evaluator.encoding.columns(self.inputs, directions)
        flat = encoded.reshape(2, encoded.shape[1], encoded.shape[2] * encoded.shape[3])
        return encoded, self.bound.apply(flat).reshape(encoded.shape)

    def _injected(self) -> tuple[Array, Array]:
        """Columns along the K directions of the injection; they serve J and the readout's pull-back."""
        if self._encoded is None or self._encoded.shape[2] == 1:
            injection = self.bound.evaluator.injection.T
            shape = (len(self.inputs), *injection.shape)
            self._encoded, self._outputs = self._along(np.broadcast_to(injection, shape))
        assert self._encoded is not None
        assert self._outputs is not None
        return self._encoded, self._outputs

    @property
    def encoded(self) -> Array:
        """S(u)|0>, planar (2, 2**n, B)."""
        if self._encoded is None:
            nothing = np.empty((len(self.inputs), 0, self.inputs.shape[1]), dtype=self.inputs.dtype)
            self._encoded, self._outputs = self._along(nothing)
        return self._encoded[:, :, 0]

    @property
    def outputs(self) -> Array:
        """φ = U S(u)|0>, planar (2, 2**n, B)."""
        _ = self.encoded
        assert self._outputs is not None
        return self._outputs[:, :, 0]

    @cached_property
    def values(self) -> Array:
        """m (B, K)."""
        return np.ascontiguousarray(self.bound.evaluator.states.expectations(self.outputs).T)

    @cached_property
    def features(self) -> Array:
        """h (B, F)."""
        return np.ascontiguousarray(self.bound.evaluator.readouts.expectations(self.outputs).T)

    @cached_property
    def jacobian(self) -> Array:
        """∂m/∂q (B, K, K)."""
        return self._slopes(self._injected()[1])

    @cached_property
    def input_jacobian(self) -> Array:
        """∂m/∂u (B, K, D)."""
        size = self.inputs.shape[1]
        directions = np.broadcast_to(np.eye(size, dtype=self.inputs.dtype), (len(self.inputs), size, size))
        step = 16
        parts = [self._slopes(self._along(directions[:, first : first + step])[1]) for first in range(0, size, step)]
        return np.concatenate(parts, axis=2)

    def _slopes(self, outputs: Array) -> Array:
        """∂m_j along the directions of columns (2, 2**n, 1 + R, B): (B, K, R)."""
        product = self.bound.evaluator.states.cross(outputs[:, :, 0], outputs[:, :, 1:])
        return np.ascontiguousarray(2 * product.transpose(2, 0, 1))

    def pull_features(self, cotangent: Array) -> Array:
        """(∂h/∂q)ᵀ cotangent, (B, F) -> (B, K)."""
        tangents = self._injected()[1][:, :, 1:]
        weighted = self.bound.evaluator.readouts.weighted(self.outputs, np.ascontiguousarray(cotangent.T))
        return 2 * np.einsum("xnb,xnkb->bk", weighted, tangents)

    def implicit_term(self, cotangent: Array) -> Cotangent:
        """λ = (1 - Jᵀ)⁻¹ (∂h/∂q)ᵀ cotangent, (B, F) -> (B, K), with the features' own part."""
        adjoint = solve_adjoint(self.jacobian, self.pull_features(cotangent))
        return Cotangent(self, values=adjoint, features=cotangent)


def _columns_of(term: Cotangent) -> list[tuple[Array, Array, Array]]:
    """The (encoded, output, cotangent) columns of one term: the states, and the tangents if it has directions."""
    point: ColumnPoint = term.point  # type: ignore[assignment]
    evaluator = point.bound.evaluator
    outputs = point.outputs
    total = np.zeros_like(outputs)
    if term.values is not None:
        total += evaluator.states.weighted(outputs, np.ascontiguousarray(term.values.T))
    if term.features is not None:
        total += evaluator.readouts.weighted(outputs, np.ascontiguousarray(term.features.T))
    if term.directions is None:
        return [(point.encoded, outputs, total)]
    assert term.slopes is not None
    shape = (len(point.inputs), *term.directions.shape[1:])
    encoded, moved = point._along(np.broadcast_to(term.directions, shape).astype(outputs.dtype))
    parts = []
    for r in range(shape[1]):
        weights = np.ascontiguousarray(term.slopes[:, :, r].T)
        total += evaluator.states.weighted(moved[:, :, 1 + r], weights)
        parts.append((encoded[:, :, 1 + r], moved[:, :, 1 + r], evaluator.states.weighted(outputs, weights)))
    return [(point.encoded, outputs, total), *parts]
