"""Exact evaluation with encoders of single-qubit rotations: multilinear in Bloch vectors, so that solving runs no circuit.

One pass of U(θ) over the 2**live basis states that the encoder reaches gives V, and V the coefficients T of `bloch`. Values,
features, both Jacobians and the whole Newton solve follow from T; the weight gradient needs the samples' columns V ψ_b once,
at the equilibrium:

    dL/dθ = 2 Re <Λ, dV/dθ>,      Λ = Σ_b (Σ_j c_bj M_j V ψ_b) ψ_b†.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter

from qiskit_qdeq.evaluation.bloch import MultilinearForm, MultilinearSolution, ProductLayout
from qiskit_qdeq.evaluation.clusters import BoundClusters, ClusteredProgram
from qiskit_qdeq.evaluation.columns import BoundColumns, ColumnEvaluator, ColumnMap, ColumnPoint
from qiskit_qdeq.evaluation.encodings import ProductEncoding
from qiskit_qdeq.evaluation.observables import Observables
from qiskit_qdeq.evaluation.program import BoundProgram, GateProgram
from qiskit_qdeq.evaluation.protocol import Cotangent, Evaluation
from qiskit_qdeq.evaluation.quasi_newton import QuasiNewtonSolution

Array = np.ndarray[Any, np.dtype[Any]]

#: Most coefficients per observable: beyond it, multiplying columns by V is cheaper.
_LARGEST_FORM = 4096
#: Coefficients of all readout observables up to which they are expanded as well.
_LARGEST_READOUT = 1 << 15
#: Entries of V from which evolving unjoined qubits apart is worth its overhead.
_SMALLEST_CLUSTERED = 1 << 14


def clustered(circuit: QuantumCircuit, parameters: Sequence[Parameter], layout: ProductLayout, dtype: str) -> Any:
    """U(θ) on the encoder's basis as `ClusteredProgram`, or None where that does not pay."""
    if 2 ** (layout.num_qubits + layout.num_live) < _SMALLEST_CLUSTERED:
        return None
    return ClusteredProgram(circuit, parameters, layout.phases, dtype)


def has_form(layout: ProductLayout) -> bool:
    """Whether an encoder reaches so few components of the wires' Bloch vectors that T is worth computing."""
    return layout.size <= _LARGEST_FORM


class ProductEvaluator(ColumnEvaluator):
    """m(x + P q; θ) for an encoder of single-qubit rotations.

    Args:
        program: U(θ).
        layout: the rotations.
        states: the K state observables.
        readouts: the F readout observables.
        injection: P (D, K).
        clusters: U(θ) again, on the encoder's basis, where V is large.
    """

    def __init__(
        self,
        program: GateProgram,
        layout: ProductLayout,
        states: Observables,
        readouts: Observables,
        injection: Array,
        clusters: ClusteredProgram | None = None,
    ) -> None:
        super().__init__(program, ProductEncoding(layout), states, readouts, injection)
        self.layout, self.clusters = layout, clusters
        #: Derivatives of the merged angles with respect to the states (G, K).
        self.slopes = np.ascontiguousarray(layout.merge(np.asarray(injection, dtype=float).T).T)
        shared = readouts.among(states)
        same = shared is not None and np.array_equal(shared, np.arange(states.num_observables))
        #: Which state observable every readout observable is, where each is one of them.
        self.shared = slice(None) if same else shared

    def bind(self, weights: Array) -> BoundProduct:
        """Build the blocks of U(θ)."""
        clusters = None if self.clusters is None else self.clusters.bind(weights)
        return BoundProduct(self, self.program.bind(weights), clusters)


class BoundProduct(BoundColumns):
    """`ProductEvaluator` at fixed weights."""

    evaluator: ProductEvaluator

    def __init__(self, evaluator: ProductEvaluator, program: BoundProgram, clusters: BoundClusters | None) -> None:
        super().__init__(evaluator, program)
        self._clusters = clusters

    @cached_property
    def matrix(self) -> Array | None:
        """V, planar (2, 2**n, 2**live)."""
        return self._clusters.matrix if self._clusters is not None else self.swept()

    def pull_matrix(self, cotangents: Array) -> Array:
        """∂L/∂θ for dL = 2 Re <cotangents, dV>; `cotangents` (2, 2**n, 2**live) are overwritten."""
        return super().pull_matrix(cotangents) if self._clusters is None else self._clusters.pull_back(cotangents)

    @cached_property
    def _coefficients(self) -> Array:
        assert self.matrix is not None
        return self.evaluator.layout.coefficients(self.matrix, self.evaluator.states)

    @cached_property
    def form(self) -> MultilinearForm:
        """q -> m and ∂m/∂q."""
        return MultilinearForm(self.evaluator.layout, self.evaluator.slopes, self._coefficients)

    @cached_property
    def input_form(self) -> MultilinearForm:
        """The states' observables with derivatives along all D inputs."""
        unit = np.eye(self.evaluator.layout.num_features)
        slopes = np.ascontiguousarray(self.evaluator.layout.merge(unit).T)
        return MultilinearForm(self.evaluator.layout, slopes, self._coefficients)

    @cached_property
    def readout_form(self) -> MultilinearForm | None:
        """q -> h and ∂h/∂q, where there are few enough readout observables."""
        evaluator = self.evaluator
        if evaluator.readouts.num_observables * evaluator.layout.size > _LARGEST_READOUT:
            return None
        assert self.matrix is not None
        return MultilinearForm(
            evaluator.layout, evaluator.slopes, evaluator.layout.coefficients(self.matrix, evaluator.readouts)
        )

    def map(self, inputs: Array, expect: Sequence[str] = ()) -> ProductMap:
        """The map of samples (B, D)."""
        return ProductMap(self, self.checked(inputs))


@dataclass(frozen=True)
class MultilinearMap:
    """A form at the samples of a minibatch; `base` (G, B) are the merged angles of their data."""

    form: MultilinearForm
    base: Array

    def newton(
        self, state: Array, tol: float, rtol: float, max_steps: int, shortenings: int, keep_trace: bool = True
    ) -> MultilinearSolution:
        """See `MultilinearForm.newton`."""
        return self.form.newton(self.base, state, tol, rtol, max_steps, shortenings, keep_trace)

    def broyden(
        self,
        rows: Array,
        state: Array,
        tol: float,
        rtol: float,
        max_steps: int,
        keep_trace: bool = True,
        keep_inverse: bool = False,
    ) -> QuasiNewtonSolution:
        """See `MultilinearForm.broyden`, for the samples `rows`."""
        base = np.ascontiguousarray(self.base[:, rows])
        return self.form.broyden(base, state, tol, rtol, max_steps, keep_trace, keep_inverse)


class ProductMap(ColumnMap):
    """The equilibrium map of one minibatch."""

    bound: BoundProduct

    def __init__(self, bound: BoundProduct, inputs: Array) -> None:
        super().__init__(bound, inputs)
        self._solved: tuple[Array, MultilinearSolution] | None = None

    @cached_property
    def base(self) -> Array:
        """Merged angles of the data (G, B)."""
        return np.ascontiguousarray(self.bound.evaluator.layout.merge(self.inputs).T, dtype=float)

    @property
    def closed_form(self) -> MultilinearMap:
        """The closed form that the compiled solve iterates."""
        return MultilinearMap(self.bound.form, self.base)

    def remember(self, state: Array, found: MultilinearSolution) -> None:
        """Keep what a solve computed at its solution for `at(state)` of this very array."""
        self._solved = (state, found)

    def values(self, state: Array, rows: Array) -> Evaluation:
        """m at `state` (b, K) for the samples `rows`."""
        values = self.bound.form.values(self.base, state, rows)
        return Evaluation(values.astype(self.inputs.dtype, copy=False))

    def linearize(self, state: Array, rows: Array) -> tuple[Evaluation, Array]:
        """m and ∂m/∂q (b, K, K) at `state` for the samples `rows`."""
        values, jacobian = self.bound.form.linearize(self.base, state, rows)
        return Evaluation(values.astype(self.inputs.dtype, copy=False)), jacobian.astype(self.inputs.dtype, copy=False)

    def at(self, state: Array) -> ProductPoint:
        """The whole minibatch at `state` (B, K)."""
        solved = self._solved[1] if self._solved is not None and self._solved[0] is state else None
        return ProductPoint(self, state, solved)


class ProductPoint(ColumnPoint):
    """A `ProductMap` at one state."""

    bound: BoundProduct

    def __init__(self, source: ProductMap, state: Array, solved: MultilinearSolution | None) -> None:
        super().__init__(source.bound, source.moved(state, slice(None)), state)
        self._source, self._solved = source, solved
        self._rows = np.arange(source.batch)

    def _cast(self, array: Array) -> Array:
        return array.astype(self.inputs.dtype, copy=False)

    @cached_property
    def _linearized(self) -> tuple[Array, Array]:
        if self._solved is not None:
            return self._cast(self._solved.values), self._cast(self._solved.jacobian)
        values, jacobian = self.bound.form.linearize(self._source.base, self.state, self._rows)
        return self._cast(values), self._cast(jacobian)

    @cached_property
    def _read(self) -> tuple[Array, Array] | None:
        """h and ∂h/∂q (B, F, K), where they are not better found from columns."""
        shared = self.bound.evaluator.shared
        if shared is not None:
            values, jacobian = self._linearized
            return values[:, shared], jacobian[:, shared]
        form = self.bound.readout_form
        if form is None:
            return None
        values, jacobian = form.linearize(self._source.base, self.state, self._rows)
        return self._cast(values), self._cast(jacobian)

    @cached_property
    def values(self) -> Array:
        """m (B, K)."""
        return self._linearized[0]

    @cached_property
    def jacobian(self) -> Array:
        """∂m/∂q (B, K, K)."""
        return self._linearized[1]

    @cached_property
    def features(self) -> Array:
        """h (B, F)."""
        if self._read is not None:
            return self._read[0]
        return np.ascontiguousarray(self.bound.evaluator.readouts.expectations(self.outputs).T)

    @cached_property
    def input_jacobian(self) -> Array:
        """∂m/∂u (B, K, D)."""
        base = self._source.base.copy()
        # one state after the other: a matrix product's last bits would depend on the size of the batch
        for slopes, entries in zip(self.bound.evaluator.slopes.T, np.transpose(self.state), strict=True):
            base += slopes[:, None] * entries
        zero = np.zeros((len(self.inputs), self.inputs.shape[1]))
        return self._cast(self.bound.input_form.linearize(base, zero, self._rows)[1])

    @property
    def state_slopes(self) -> Array:
        """∂(m, h)/∂q (B, K + F, K)."""
        return super().state_slopes if self._read is None else np.concatenate([self.jacobian, self._read[1]], axis=1)

    def pull_features(self, cotangent: Array) -> Array:
        """(∂h/∂q)ᵀ cotangent, (B, F) -> (B, K)."""
        if self._read is not None:
            return np.einsum("bf,bfk->bk", cotangent, self._read[1])
        evaluator = self.bound.evaluator
        weighted = evaluator.readouts.weighted(self.outputs, np.ascontiguousarray(cotangent.T))
        injection = evaluator.injection.T
        directions = np.broadcast_to(injection, (len(self.inputs), *injection.shape))
        tangents = evaluator.encoding.columns(self.inputs, directions)[:, :, 1:]
        back = self.bound.unapply(weighted)
        return 2 * np.einsum("xnb,xnkb->bk", back, tangents[: len(back)])

    def state_weights(self, term: Cotangent) -> tuple[Array | None, Array | None]:
        """∂L/∂m and ∂L/∂h of a term; where readouts are state observables, the latter is added to the former."""
        shared = self.bound.evaluator.shared
        if shared is None or term.features is None:
            return term.values, term.features
        values = term.features @ np.eye(self.state.shape[1], dtype=term.features.dtype)[shared]
        return values if term.values is None else values + term.values, None
