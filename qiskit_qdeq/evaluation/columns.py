"""Exact evaluation with any encoder: encoded columns times U(θ), the unitary shared by the batch and all solver steps.

    φ_b = U S(u_b)|0>,  m_j = <φ|M_j|φ>,  ∂m_j/∂t = 2 Re <φ|M_j U ∂_t S|0>,

and the gradient of any scalar needs one adjoint pass with cotangent columns y_b = Σ_j c_bj M_j φ_b. Where the encoder
reaches few basis states, V = U on those is a matrix, every step one real matrix product, and the batch collapses to
Λ = Σ_b y_b E_b† before that pass.
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
from qiskit_qdeq.evaluation.slopes import weight_slopes
from qiskit_qdeq.evaluation.threads import matmul
from qiskit_qdeq.exceptions import InputError

Array = np.ndarray[Any, np.dtype[Any]]

#: Most basis states for which V is held as a matrix: beyond it, sweeping the columns takes fewer operations.
_MATRIX_LIMIT = 128


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

    def embedded(self, columns: Array) -> Array:
        """States (2, 2**n, C) of planar columns (2, 2**live, C) in the encoder's basis."""
        rows, phases = self.encoding.basis
        re, im = (np.ascontiguousarray(part, dtype=columns.dtype)[:, None] for part in (phases.real, phases.imag))
        states = np.zeros((2, self.program.dim, columns.shape[2]), dtype=columns.dtype)
        states[0, rows] = re * columns[0] - im * columns[1]
        states[1, rows] = re * columns[1] + im * columns[0]
        return states

    def bind(self, weights: Array) -> BoundColumns:
        """Build the blocks of U(θ)."""
        return BoundColumns(self, self.program.bind(weights))


class BoundColumns:
    """`ColumnEvaluator` at fixed weights."""

    def __init__(self, evaluator: ColumnEvaluator, program: BoundProgram) -> None:
        self.evaluator, self.program = evaluator, program

    @cached_property
    def matrix(self) -> Array | None:
        """V = U(θ) on the encoder's basis, planar (2, 2**n, 2**live), where it is small enough to be worth holding."""
        return self.swept()

    def swept(self) -> Array | None:
        """V by sweeping the encoder's basis."""
        size = len(self.evaluator.encoding.basis[0])
        if size > _MATRIX_LIMIT:
            return None
        unit = np.zeros((2, size, size), dtype=self.evaluator.program.dtype)
        np.fill_diagonal(unit[0], 1.0)
        return self.program.apply(self.evaluator.embedded(unit))

    @cached_property
    def _real_matrix(self) -> Array:
        """V as a real matrix that planar columns (or, if all are real, their real parts) are multiplied with."""
        assert self.matrix is not None
        re, im = self.matrix
        if self.evaluator.encoding.is_real:
            return self.matrix.reshape(-1, re.shape[1])
        rows, columns = re.shape
        blocks = np.empty((2, rows, 2, columns), dtype=re.dtype)
        blocks[0, :, 0], blocks[0, :, 1] = re, -im
        blocks[1, :, 0], blocks[1, :, 1] = im, re
        return blocks.reshape(2 * rows, 2 * columns)

    def apply(self, columns: Array) -> Array:
        """U times the states of planar columns (2, 2**live, C) in the encoder's basis: (2, 2**n, C)."""
        if self.matrix is None:
            return self.program.apply(self.evaluator.embedded(columns))
        parts = columns[0] if self.evaluator.encoding.is_real else columns.reshape(-1, columns.shape[2])
        product = matmul(self._real_matrix, parts)
        return product.reshape(2, -1, columns.shape[2])

    def unapply(self, columns: Array) -> Array:
        """V† times planar columns (2, 2**n, C): (2, 2**live, C)."""
        assert self.matrix is not None
        product = matmul(self._real_matrix.T, columns.reshape(-1, columns.shape[2]))
        if self.evaluator.encoding.is_real:
            return product[None]
        return product.reshape(2, -1, columns.shape[2])

    def pull_back(self, encoded: Array, outputs: Array, cotangents: Array) -> Array:
        """∂L/∂θ for columns before (2, 2**live, C) and after U (2, 2**n, C), and dL = 2 Re <cotangents, d outputs>."""
        if self.matrix is None:
            return self.program.pull_back(outputs.copy(), cotangents)
        re, im = cotangents
        if self.evaluator.encoding.is_real:
            total = matmul(cotangents.reshape(-1, cotangents.shape[2]), encoded[0].T).reshape(self.matrix.shape)
        else:
            total = np.stack([re @ encoded[0].T + im @ encoded[1].T, im @ encoded[0].T - re @ encoded[1].T])
        return self.pull_matrix(total)

    def pull_matrix(self, cotangents: Array) -> Array:
        """∂L/∂θ for dL = 2 Re <cotangents, dV>; `cotangents` (2, 2**n, 2**live) are overwritten."""
        assert self.matrix is not None
        return self.program.pull_back(self.matrix.copy(), cotangents)

    def map(self, inputs: Array, expect: Sequence[str] = ()) -> ColumnMap:
        """The map of samples (B, D)."""
        return ColumnMap(self, self.checked(inputs))

    def checked(self, inputs: Array) -> Array:
        """Samples in the evaluator's precision; InputError if they are not (B, D)."""
        width = len(self.evaluator.injection)
        if np.ndim(inputs) != 2 or np.shape(inputs)[1] != width:
            raise InputError(
                f"inputs must have shape (samples, {width}), got {np.shape(inputs)}; `model.prepare(x)` makes them from data"
            )
        return np.ascontiguousarray(inputs, dtype=self.evaluator.program.dtype)


class ColumnMap:
    """The equilibrium map of one minibatch."""

    cost = Cost()

    def __init__(self, bound: BoundColumns, inputs: Array) -> None:
        self.bound, self.inputs = bound, inputs
        self.batch = len(inputs)
        self.num_states = bound.evaluator.injection.shape[1]

    def values(self, state: Array, rows: Array) -> Evaluation:
        """m at `state` (b, K) for the samples `rows`."""
        return Evaluation(ColumnPoint(self.bound, self.moved(state, rows), state).values)

    def linearize(self, state: Array, rows: Array) -> tuple[Evaluation, Array]:
        """m and ∂m/∂q (b, K, K) at `state` for the samples `rows`."""
        point = ColumnPoint(self.bound, self.moved(state, rows), state)
        jacobian = point.jacobian
        return Evaluation(point.values), jacobian

    def at(self, state: Array) -> ColumnPoint:
        """The whole minibatch at `state` (B, K)."""
        return ColumnPoint(self.bound, self.moved(state, slice(None)), state)

    def moved(self, state: Array, rows: Array | slice) -> Array:
        """u = x + P q of the samples `rows`."""
        moved: Array = self.inputs[rows] + state @ self.bound.evaluator.injection.T
        return moved.astype(self.inputs.dtype, copy=False)

    def pull_back(self, terms: Sequence[Cotangent]) -> Array:
        """∂L/∂θ of the sum of the terms, in one adjoint pass over all their columns."""
        parts = [part for term in terms for part in columns_of(term)]
        if len(parts) == 1:
            return self.bound.pull_back(*parts[0])
        encoded, outputs, cotangents = (np.concatenate(column, axis=2) for column in zip(*parts, strict=True))
        return self.bound.pull_back(encoded, outputs, cotangents)


class ColumnPoint:
    """Samples at inputs u, with what was computed of them."""

    def __init__(self, bound: BoundColumns, inputs: Array, state: Array) -> None:
        self.bound, self.inputs, self.state = bound, inputs, state
        self._encoded: Array | None = None
        self._outputs: Array | None = None

    def _along(self, directions: Array) -> tuple[Array, Array]:
        """Encoded columns (2, 2**live, 1 + R, B) and outputs (2, 2**n, 1 + R, B): the states and the given directions."""
        encoded = self.bound.evaluator.encoding.columns(self.inputs, directions)
        flat = encoded.reshape(2, encoded.shape[1], encoded.shape[2] * encoded.shape[3])
        outputs = self.bound.apply(flat)
        return encoded, outputs.reshape(*outputs.shape[:2], *encoded.shape[2:])

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
        """S(u)|0> in the encoder's basis, planar (2, 2**live, B)."""
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
        return self._slopes(self._injected()[1], self.bound.evaluator.states)

    @cached_property
    def input_jacobian(self) -> Array:
        """∂m/∂u (B, K, D)."""
        return self._along_inputs(self.bound.evaluator.states)

    @property
    def state_slopes(self) -> Array:
        """∂(m, h)/∂q (B, K + F, K)."""
        return self._slopes(self._injected()[1], *self._observables)

    @property
    def input_slopes(self) -> Array:
        """∂(m, h)/∂u (B, K + F, D)."""
        return self._along_inputs(*self._observables)

    @property
    def weight_slopes(self) -> Array:
        """∂(m, h)/∂θ (B, K + F, p)."""
        return weight_slopes(self.bound.program, self.bound.evaluator.embedded(self.encoded), self._observables)

    @property
    def _observables(self) -> tuple[Observables, Observables]:
        return self.bound.evaluator.states, self.bound.evaluator.readouts

    def _along_inputs(self, *observables: Observables) -> Array:
        """Derivatives of the observables along every input, a few inputs at a time."""
        size = self.inputs.shape[1]
        directions = np.broadcast_to(np.eye(size, dtype=self.inputs.dtype), (len(self.inputs), size, size))
        step = 16
        parts = [
            self._slopes(self._along(directions[:, first : first + step])[1], *observables)
            for first in range(0, size, step)
        ]
        return np.concatenate(parts, axis=2)

    def pull_inputs(self, cotangent: Array) -> Array:
        """(∂m/∂u)ᵀ cotangent: (B, K) -> (B, D)."""
        result: Array = np.einsum("bj,bjd->bd", cotangent, self.input_jacobian)
        return result

    def _slopes(self, outputs: Array, *observables: Observables) -> Array:
        """Derivatives of the observables along the directions of columns (2, 2**n, 1 + R, B): (B, M, R)."""
        products = [each.cross(outputs[:, :, 0], outputs[:, :, 1:]) for each in observables]
        product = np.concatenate(products) if len(products) > 1 else products[0]
        return np.ascontiguousarray(2 * product.transpose(2, 0, 1))

    def pull_features(self, cotangent: Array) -> Array:
        """(∂h/∂q)ᵀ cotangent, (B, F) -> (B, K)."""
        weighted = self.bound.evaluator.readouts.weighted(self.outputs, np.ascontiguousarray(cotangent.T))
        return 2 * np.einsum("xnb,xnkb->bk", weighted, self._injected()[1][:, :, 1:])

    def state_weights(self, term: Cotangent) -> tuple[Array | None, Array | None]:
        """∂L/∂m (B, K) and ∂L/∂h (B, F) of a term."""
        return term.values, term.features

    def implicit_term(self, cotangent: Array) -> Cotangent:
        """λ = (1 - Jᵀ)⁻¹ (∂h/∂q)ᵀ cotangent, (B, F) -> (B, K), with the features' own part."""
        adjoint = solve_adjoint(self.jacobian, self.pull_features(cotangent))
        return Cotangent(self, values=adjoint, features=cotangent)


def columns_of(term: Cotangent) -> list[tuple[Array, Array, Array]]:
    """The (encoded, output, cotangent) columns of one term: the states, and the tangents if it has directions."""
    point: ColumnPoint = term.point  # type: ignore[assignment]
    evaluator = point.bound.evaluator
    outputs = point.outputs
    total: Array | None = None
    for observables, weights in zip((evaluator.states, evaluator.readouts), point.state_weights(term), strict=True):
        if weights is not None:
            columns = observables.weighted(outputs, np.ascontiguousarray(weights.T))
            total = columns if total is None else total + columns
    if total is None:
        total = np.zeros_like(outputs)
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
