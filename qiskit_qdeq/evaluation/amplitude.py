"""Exact evaluation with amplitude encoding: one sweep over D columns serves the batch, the solver and the gradient.

With V the first D columns of U(θ) and φ = V u, the expectation values are m_j = <φ|M_j|φ> / uᵀu. Everything a solver
needs follows from V x and w = V P (`RationalQuadratic`), and the gradient of any scalar enters θ only through

    Λ = Σ_b (y_b / d_b) u_bᵀ  (2**n × D),     y_b = Σ_j c_bj M_j φ_b,                                    (DESIGN section 5)

whatever the batch size.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from qiskit_qdeq.evaluation import diagonal
from qiskit_qdeq.evaluation.amplitude_point import AmplitudePoint
from qiskit_qdeq.evaluation.observables import Observables
from qiskit_qdeq.evaluation.program import BoundProgram, GateProgram
from qiskit_qdeq.evaluation.protocol import Cost, Cotangent, Evaluation, ExactEvaluator
from qiskit_qdeq.evaluation.quadratic import NewtonResult, RationalQuadratic
from qiskit_qdeq.evaluation.threads import matmul, run_parts, split_columns
from qiskit_qdeq.evaluation.vectors import LANES
from qiskit_qdeq.exceptions import InputError

Array = np.ndarray[Any, np.dtype[Any]]

#: Multiplications up to which one compiled loop beats several NumPy calls.
_SMALL_MIX = 1 << 15


class AmplitudeEvaluator(ExactEvaluator):
    """m(x + P q; θ) for amplitude-encoded inputs.

    Args:
        program: U(θ).
        states: the K state observables.
        readouts: the F readout observables.
        injection: P (D, K).
    """

    def __init__(self, program: GateProgram, states: Observables, readouts: Observables, injection: Array) -> None:
        self.program, self.states, self.readouts = program, states, readouts
        self.injection = np.ascontiguousarray(injection, dtype=program.dtype)
        self.gram = self.injection.T @ self.injection
        self.double_gram = self.gram.astype(float)
        #: Whether the passes of `diagonal` serve.
        self.is_diagonal = states.is_diagonal and readouts.is_diagonal

    def bind(self, weights: Array) -> BoundAmplitude:
        """Sweep U(θ) over the D input columns."""
        program = self.program.bind(weights)
        features, states = self.injection.shape
        rows = 2 * self.program.dim
        # room for what `closed_form` puts below V, so that V is never copied
        stack = np.zeros((rows + states * states + states, features), dtype=self.program.dtype)
        columns = stack[:rows].reshape(2, self.program.dim, features)
        np.fill_diagonal(columns[0], 1.0)
        program.apply(columns)
        return BoundAmplitude(self, program, stack)


class BoundAmplitude:
    """`AmplitudeEvaluator` at fixed weights: V, and on demand w = V P, C and what gives B."""

    def __init__(self, evaluator: AmplitudeEvaluator, program: BoundProgram, stack: Array) -> None:
        self.evaluator, self.program, self._stack = evaluator, program, stack
        #: V as one real matrix (2·2**n, D), so that V x is a single real product.
        self.matrix = stack[: 2 * evaluator.program.dim]
        #: V, planar (2, 2**n, D).
        self.columns = self.matrix.reshape(2, evaluator.program.dim, -1)

    @cached_property
    def injected(self) -> Array:
        """w = V P, planar (2, 2**n, K)."""
        product = self.matrix @ self.evaluator.injection
        return product.reshape(2, self.evaluator.program.dim, product.shape[1])

    @cached_property
    def closed_form(self) -> tuple[Array, Array]:
        """V, 2 Re w_k† M_j V and Pᵀ one below the other, and C_j = Pᵀ A_j P (K, K, K) in double precision.

        Times xᵀ the first are V x, B and Pᵀx in a single product.
        """
        evaluator, rows = self.evaluator, len(self.matrix)
        states, size = evaluator.states, evaluator.injection.shape[1]
        mixed, quadratic = self._stack[rows:-size], np.empty((size, size, size))
        if states.is_diagonal and self.matrix.size * len(mixed) < _SMALL_MIX:
            injected = np.empty((rows, size), dtype=mixed.dtype)
            diagonal.mix(self.matrix, evaluator.injection, states.table, injected, mixed, quadratic)
            self.injected = injected.reshape(2, -1, size)
        else:
            moved = states.each(2 * self.injected).reshape(-1, rows)
            mixed[:] = matmul(moved, self.matrix)
            quadratic[:] = 0.5 * (mixed @ evaluator.injection).reshape(quadratic.shape)
        self._stack[-size:] = evaluator.injection.T
        return self._stack, quadratic

    def map(self, inputs: Array, expect: Sequence[str] = ()) -> AmplitudeMap:
        """The map of samples (B, D); zero vectors must have been refused before."""
        width = len(self.evaluator.injection)
        if np.ndim(inputs) != 2 or np.shape(inputs)[1] != width:
            raise InputError(
                f"inputs must have shape (samples, {width}), got {np.shape(inputs)}; `model.prepare(x)` makes them from data"
            )
        return AmplitudeMap(self, np.ascontiguousarray(inputs, dtype=self.columns.dtype))


class AmplitudeMap:
    """The equilibrium map of one minibatch."""

    cost = Cost()

    def __init__(self, bound: BoundAmplitude, inputs: Array) -> None:
        self.bound, self.inputs = bound, inputs
        self.batch = len(inputs)
        self.num_states = bound.evaluator.injection.shape[1]
        self._solved: tuple[Array, NewtonResult] | None = None

    @cached_property
    def encoded(self) -> Array:
        """V x, planar (2, 2**n, B)."""
        product = matmul(self.bound.matrix, self.inputs.T)
        return product.reshape(2, self.bound.evaluator.program.dim, self.batch)

    @cached_property
    def norm(self) -> Array:
        """xᵀx (B,)."""
        return np.vecdot(self.inputs, self.inputs)

    @cached_property
    def overlap(self) -> Array:
        """Pᵀx (K, B)."""
        return self.bound.evaluator.injection.T @ self.inputs.T

    @cached_property
    def linear(self) -> Array:
        """B of the closed form (K · K, B), with `encoded` and `overlap` from the same product."""
        rows = len(self.bound.matrix)
        product = matmul(self.bound.closed_form[0], self.inputs.T)
        self.encoded = product[:rows].reshape(2, rows // 2, self.batch)
        self.overlap = product[-self.num_states :]
        return product[rows : -self.num_states]

    @cached_property
    def constant(self) -> Array:
        """a of the closed form, m_j d at q = 0 (K, B)."""
        return self.expectations(self.encoded)

    @property
    def closed_form(self) -> RationalQuadratic:
        """m as a ratio of quadratics in q."""
        return RationalQuadratic(self)

    @property
    def is_compiled(self) -> bool:
        """Whether the passes of `diagonal` serve this minibatch."""
        return self.bound.evaluator.is_diagonal and self.batch >= LANES

    @cached_property
    def parts(self) -> list[tuple[int, int]]:
        """Ranges of samples for the passes of `diagonal`."""
        return split_columns(self.bound.evaluator.program.dim, self.batch)

    def expectations(self, columns: Array) -> Array:
        """<φ_b|M_j|φ_b> (K, B)."""
        states = self.bound.evaluator.states
        if not self.is_compiled:
            return states.expectations(columns)
        out = np.empty((self.num_states, self.batch), dtype=columns.dtype)
        run_parts(diagonal.expect, [(columns, states.table, *part, out) for part in self.parts])
        return out

    def values(self, state: Array, rows: Array) -> Evaluation:
        """m at `state` (b, K) for the samples `rows`."""
        return Evaluation(self.closed_form.linearize(state, rows)[0])

    def linearize(self, state: Array, rows: Array) -> tuple[Evaluation, Array]:
        """m and ∂m/∂q (b, K, K) at `state` for the samples `rows`."""
        values, jacobian = self.closed_form.linearize(state, rows)
        return Evaluation(values), jacobian

    def remember(self, state: Array, found: NewtonResult) -> None:
        """Keep what a solve computed at its solution for `at(state)` of this very array."""
        self._solved = (state, found)

    def at(self, state: Array) -> AmplitudePoint:
        """The whole minibatch at `state` (B, K)."""
        solved = self._solved[1] if self._solved is not None and self._solved[0] is state else None
        return AmplitudePoint(self, state, solved)

    def pull_back(self, terms: Sequence[Cotangent]) -> Array:
        """∂L/∂θ of the sum of the terms; see the module's formula."""
        if len(terms) == 1:
            point: AmplitudePoint = terms[0].point  # type: ignore[assignment]
            columns = point.output_cotangent(terms[0])
            total = matmul(columns.reshape(len(self.bound.matrix), self.batch), point.inputs)
        else:
            columns, injected = self._output_cotangents(terms)
            total = matmul(columns.reshape(len(self.bound.matrix), self.batch), self.inputs)
            if injected is not None:
                total += injected @ self.bound.evaluator.injection.T
        for term in terms:
            if term.directions is not None:
                total += self._direction_cotangents(term)
        total = total.reshape(2, -1, self.inputs.shape[1])
        return self.bound.program.pull_back(self.bound.columns, total)

    def _output_cotangents(self, terms: Sequence[Cotangent]) -> tuple[Array, Array | None]:
        """Σ Λ_b of all terms, and Σ_b Λ_b q_bᵀ (None where every state is zero)."""
        columns: Array | None = None
        injected: Array | None = None
        for term in terms:
            point: AmplitudePoint = term.point  # type: ignore[assignment]
            one = point.output_cotangent(term)
            columns = one if columns is None else columns + one
            if point.state.any():
                product = one.reshape(len(self.bound.matrix), self.batch) @ point.state
                injected = product if injected is None else injected + product
        assert columns is not None
        return columns, injected

    def _direction_cotangents(self, term: Cotangent) -> Array:
        """Σ_br y_br T_brᵀ / d_b, the part of Λ in which the direction, not the input, meets dV."""
        point: AmplitudePoint = term.point  # type: ignore[assignment]
        assert term.directions is not None
        assert term.slopes is not None
        total = np.zeros_like(self.bound.matrix)
        for r in range(term.directions.shape[1]):
            weights = (term.slopes[:, :, r] / point.norm[:, None]).T
            columns = self.bound.evaluator.states.weighted(point.columns, weights)
            directions = np.broadcast_to(term.directions[:, r], self.inputs.shape)
            total += columns.reshape(len(total), self.batch) @ directions
        return total
