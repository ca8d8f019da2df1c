"""Amplitude encoding at one state q of a minibatch: features, Jacobians, and the columns their cotangents pull back.

    φ = V (x + P q),   h_f = φ†M_f φ / d,   y = Σ_f c_f M_f φ / d,   (∂h/∂q)ᵀ c = 2 (Re w†y - (Σ_f c_f h_f) Pᵀu / d)

Diagonal observables of a minibatch that fills the vectors take the compiled passes of `diagonal`, all others NumPy.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from qiskit_qdeq.evaluation import diagonal
from qiskit_qdeq.evaluation.linear import solve_adjoint
from qiskit_qdeq.evaluation.protocol import Cotangent
from qiskit_qdeq.evaluation.quadratic import NewtonResult
from qiskit_qdeq.evaluation.slopes import quotient_slopes, weight_slopes
from qiskit_qdeq.evaluation.threads import matmul, run_parts

if TYPE_CHECKING:
    from qiskit_qdeq.evaluation.amplitude import AmplitudeMap

Array = np.ndarray[Any, np.dtype[Any]]


class AmplitudePoint:
    """An `AmplitudeMap` at one state."""

    def __init__(self, source: AmplitudeMap, state: Array, solved: NewtonResult | None = None) -> None:
        self._source = source
        self._evaluator = source.bound.evaluator
        #: What the solver computed here, if this is a solution.
        self.solved = solved
        if solved is None:
            # a copy: a read-only array would have every pass compiled once more
            self.state = np.array(state, dtype=source.inputs.dtype, order="C")
            self._moved = bool(self.state.any())
            return
        self.state = solved.state.astype(source.inputs.dtype, copy=False)
        self._moved = True
        if solved.columns is not None and solved.features is not None:
            self.columns, self.features = solved.columns, solved.features

    @cached_property
    def inputs(self) -> Array:
        """u = x + P q (B, D)."""
        if not self._moved:
            return self._source.inputs
        moved: Array = self._source.inputs + self.state @ self._evaluator.injection.T
        return moved

    @cached_property
    def columns(self) -> Array:
        """φ = V u, planar (2, 2**n, B)."""
        if not self._moved:
            return self._source.encoded
        moved = self._source.bound.injected.reshape(-1, self._source.num_states) @ self.state.T
        moved += self._source.encoded.reshape(moved.shape)
        return moved.reshape(2, len(moved) // 2, self._source.batch)

    @cached_property
    def norm(self) -> Array:
        """uᵀu (B,)."""
        if not self._moved:
            return self._source.norm
        if self.solved is not None:
            return self.solved.norm.astype(self.state.dtype, copy=False)
        cross = 2 * self._source.overlap + self._evaluator.gram @ self.state.T
        return self._source.norm + np.vecdot(cross.T, self.state)

    @cached_property
    def values(self) -> Array:
        """m (B, K)."""
        return np.ascontiguousarray((self._source.expectations(self.columns) / self.norm).T)

    @cached_property
    def features(self) -> Array:
        """h (B, F)."""
        if not self._source.is_compiled:
            return np.ascontiguousarray((self._evaluator.readouts.expectations(self.columns) / self.norm).T)
        masks, mixing = self._evaluator.readouts.products
        moved = self._moved and "columns" not in self.__dict__
        encoded = self._source.encoded if moved else self.columns
        columns = np.empty_like(encoded) if moved else encoded
        values = np.empty((self._source.batch, len(masks)), dtype=encoded.dtype)
        injected = self._source.bound.injected
        run_parts(
            diagonal.observe,
            [
                (encoded, injected, self.state, self.norm, masks, *part, moved, columns, values)
                for part in self._source.parts
            ],
        )
        self.columns = columns
        return values if mixing is None else values @ mixing.T

    @cached_property
    def jacobian(self) -> Array:
        """∂m/∂q (B, K, K)."""
        if self.solved is not None:
            size = self._source.num_states
            return np.ascontiguousarray(self.solved.jacobian.T.reshape(-1, size, size), dtype=self.state.dtype)
        return self._source.closed_form.linearize(self.state, np.arange(self._source.batch))[1]

    @cached_property
    def input_jacobian(self) -> Array:
        """∂m/∂u = 2 (A_j u - m_j u) / d, (B, K, D)."""
        return self._along(self._source.bound.matrix, self.inputs, readouts=False)

    @property
    def state_slopes(self) -> Array:
        """∂(m, h)/∂q (B, K + F, K)."""
        moved = self._source.bound.injected.reshape(len(self._source.bound.matrix), -1)
        return self._along(moved, self.inputs @ self._evaluator.injection)

    @property
    def input_slopes(self) -> Array:
        """∂(m, h)/∂u (B, K + F, D)."""
        return self._along(self._source.bound.matrix, self.inputs)

    @property
    def weight_slopes(self) -> Array:
        """∂(m, h)/∂θ (B, K + F, p)."""
        evaluator = self._evaluator
        encoded = np.zeros((2, evaluator.program.dim, len(self.inputs)), dtype=self.state.dtype)
        encoded[0, : self.inputs.shape[1]] = self.inputs.T / np.sqrt(self.norm)
        return weight_slopes(self._source.bound.program, encoded, (evaluator.states, evaluator.readouts))

    def _along(self, moved: Array, overlap: Array, *, readouts: bool = True) -> Array:
        """∂m, or ∂(m, h), along directions T from V T (2·2**n, R) and uᵀT (B, R)."""
        at = (self.columns, moved, overlap, self.norm)
        slopes = quotient_slopes(self._evaluator.states, self.values, *at)
        if not readouts:
            return slopes
        return np.concatenate([slopes, quotient_slopes(self._evaluator.readouts, self.features, *at)], axis=1)

    def pull_inputs(self, cotangent: Array) -> Array:
        """(∂m/∂u)ᵀ c = 2 (Σ_j c_j A_j u - (Σ_j c_j m_j) u) / d, (B, K) -> (B, D)."""
        moved = self._evaluator.states.weighted(self.columns, cotangent.T / self.norm)
        product = matmul(moved.reshape(len(self._source.bound.matrix), self._source.batch).T, self._source.bound.matrix)
        product -= (np.vecdot(cotangent, self.values) / self.norm)[:, None] * self.inputs
        product *= 2
        return product

    def pull_features(self, cotangent: Array) -> Array:
        """(∂h/∂q)ᵀ cotangent = 2 (Re w† y - (Σ_f c_f h_f) uᵀP) / d, (B, F) -> (B, K)."""
        flat = self._pulled(cotangent).reshape(len(self._source.bound.matrix), self._source.batch)
        return self._state_cotangent(flat, np.vecdot(cotangent, self.features) / self.norm)

    def _state_cotangent(self, pulled: Array, scale: Array) -> Array:
        """2 (Re w† y / d - scale · uᵀP) from y / d (2·2**n, B) and scale = Σ_f c_f h_f / d (B,)."""
        product = pulled.T @ self._source.bound.injected.reshape(len(pulled), self._source.num_states)
        overlap = self._source.overlap.T
        if self._moved:
            overlap = overlap + self.state @ self._evaluator.gram
        product -= scale[:, None] * overlap
        product *= 2
        return product

    def _pulled(self, cotangent: Array) -> Array:
        """Σ_f c_f M_f φ / d."""
        if self._source.is_compiled:
            return self._pull(cotangent, None)
        return self._evaluator.readouts.weighted(self.columns, cotangent.T / self.norm)

    def _pull(self, cotangent: Array, adjoint: Array | None) -> Array:
        """Σ_f c_f M_f φ / d, and with `adjoint` λ in it and Σ_j λ_j M_j φ / d added; see `diagonal.pull`."""
        source, evaluator = self._source, self._evaluator
        masks, mixing = evaluator.readouts.products
        if mixing is not None:
            cotangent = cotangent @ mixing
        pulled = np.empty_like(self.columns)
        if adjoint is None or self.solved is None:
            slope = jacobian = np.empty((0, 0))
            adjoint, implicit = np.empty((0, 0), self.state.dtype), False
        else:
            slope, jacobian, implicit = self.solved.slope, self.solved.jacobian, True
        given = (source.bound.injected, evaluator.states.table, slope, jacobian, adjoint, pulled)
        cotangent = np.ascontiguousarray(cotangent)
        run_parts(
            diagonal.pull,
            [(self.columns, cotangent, self.norm, masks, *part, implicit, *given) for part in source.parts],
        )
        return pulled

    def implicit_term(self, cotangent: Array) -> Cotangent:
        """λ = (1 - Jᵀ)⁻¹ (∂h/∂q)ᵀ cotangent, (B, F) -> (B, K), with the features' own part.

        At a solution with diagonal observables one compiled pass also gives the columns that λ and `cotangent` pull back.
        """
        if self.solved is None or not self._source.is_compiled:
            adjoint = solve_adjoint(self.jacobian, self.pull_features(cotangent))
            return Cotangent(self, values=adjoint, features=cotangent)
        adjoint = np.empty_like(self.state)
        pulled = self._pull(cotangent, adjoint)
        return Cotangent(self, values=adjoint, features=cotangent, pulled=pulled)

    def output_cotangent(self, term: Cotangent) -> Array:
        """The columns Λ_b that multiply u_bᵀ, planar (2, 2**n, B)."""
        if term.pulled is not None:
            return term.pulled
        columns: Array | None = None
        values = term.values
        if term.directions is not None:
            assert term.slopes is not None
            overlap = np.einsum("bd,brd->br", self.inputs, np.broadcast_to(
                term.directions, (self._source.batch, *term.directions.shape[1:])))  # fmt: skip
            shift = -2 * np.einsum("bjr,br->bj", term.slopes, overlap) / self.norm[:, None]
            values = shift if values is None else values + shift
        if values is not None:
            weights = values.T / self.norm
            columns = self._evaluator.states.weighted(self.columns, weights)
        if term.features is not None:
            pulled = self._pulled(term.features)
            columns = pulled if columns is None else columns + pulled
        if term.directions is not None:
            assert term.slopes is not None
            assert columns is not None
            for r in range(term.directions.shape[1]):
                turned = self._source.bound.matrix @ np.broadcast_to(term.directions[:, r], self.inputs.shape).T
                weights = (term.slopes[:, :, r] / self.norm[:, None]).T
                columns = columns + self._evaluator.states.weighted(turned.reshape(columns.shape), weights)
        if columns is None:
            columns = np.zeros_like(self.columns)
        return columns
