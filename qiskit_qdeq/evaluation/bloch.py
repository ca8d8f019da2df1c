"""Expectation values of product states as multilinear functions of one-qubit Bloch vectors, T(θ) being their coefficients.

S(u)|0> is a product of one-qubit states with Bloch vectors r_w(u) = (1, X_w, Y_w, Z_w), so that

    m_j(u) = Tr(U† M_j U ⊗_w ρ_w) = Σ_P T_jP Π_w r_w[P_w],      T_jP = Tr(U† M_j U P) / 2^n.

Only components that a wire's rotations can reach are kept: (1, X, Z) where it is only ever turned about y, and none where it
is only turned about z. T depends on θ alone; once it is known, a solver step runs no circuit. T is found by interpolation:
expectation values at all products of as many states per wire as it has components determine it, axis by axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from qiskit_qdeq.evaluation import bloch_broyden, bloch_newton, interpolation_kernels
from qiskit_qdeq.evaluation import bloch_kernels as kernels
from qiskit_qdeq.evaluation.observables import Observables
from qiskit_qdeq.evaluation.quasi_newton import QuasiNewtonSolution
from qiskit_qdeq.evaluation.threads import run_parts
from qiskit_qdeq.evaluation.vectors import LANES

Array = np.ndarray[Any, np.dtype[Any]]

_X, _Y, _Z = range(3)
#: Product states and, of V times them, rows that are held at once: what fits the processor's nearer caches.
_TAIL, _ROWS = 256, 64


class ProductLayout:
    """Which rotations turn which wire: R_axis(u_i) in order of i, successive ones about one axis merged to one angle.

    Wires that no rotation moves out of |0> are left out; what remains are the live wires, G merged angles in all.

    Args:
        axes: (D,) 0, 1, 2 for x, y, z.
        wires: (D,).
        num_qubits: n.
    """

    def __init__(self, axes: Array, wires: Array, num_qubits: int) -> None:
        self.num_qubits, self.num_features = num_qubits, len(axes)
        self.wires: list[int] = []
        order: list[int] = []
        begins: list[int] = []
        merged: list[int] = []
        #: First merged angle of every live wire, and their number (live + 1,).
        starts = [0]
        slots: list[list[int]] = []
        for wire in range(num_qubits):
            features = [int(i) for i in np.flatnonzero(np.asarray(wires) == wire)]
            while features and axes[features[0]] == _Z:
                del features[0]
            if not features:
                continue
            reached = {_Z}
            for position, i in enumerate(features):
                if position == 0 or axes[i] != axes[features[position - 1]]:
                    begins.append(len(order))
                    merged.append(int(axes[i]))
                order.append(i)
                turned = {_X, _Y, _Z} - {int(axes[i])}
                reached |= turned if turned & reached else set()
            self.wires.append(wire)
            starts.append(len(merged))
            slots.append(sorted(reached))
        self._order, self._begins = np.array(order, dtype=np.int64), np.array(begins, dtype=np.int64)
        #: Axis of every merged angle (G,), wire by wire.
        self.axes = np.array(merged, dtype=np.int64)
        self.starts = np.array(starts, dtype=np.int64)
        #: Components per live wire, the constant one included, and which of X, Y, Z the others are.
        self.dims = np.array([1 + len(kept) for kept in slots], dtype=np.int64)
        self.slots = np.array([(*kept, -1)[:3] for kept in slots], dtype=np.int64).reshape(-1, 3)

    @property
    def num_live(self) -> int:
        """Live wires."""
        return len(self.wires)

    @property
    def size(self) -> int:
        """Coefficients per observable, Π dims."""
        return int(np.prod(self.dims, dtype=object))

    @property
    def turned(self) -> Array:
        """Live wires (live,) that are only turned about x: their second basis state is -i|1>, so that states are real."""
        result: Array = (self.dims == 3) & (self.slots[:, 0] == _Y)
        return result

    @property
    def phases(self) -> dict[int, complex]:
        """For the Qiskit qubit of every live wire, in order, the phase of its second basis state."""
        return {
            self.num_qubits - 1 - wire: -1j if turned else 1
            for wire, turned in zip(self.wires, self.turned, strict=True)
        }

    @cached_property
    def basis(self) -> tuple[Array, Array]:
        """Basis states in which only live wires are not |0>, the first live wire leading, and their phases (2**live,)."""
        rows, phases = np.zeros(1, dtype=np.int64), np.ones(1, dtype=complex)
        for qubit, phase in self.phases.items():
            rows = (rows[:, None] + np.array([0, 1 << qubit])).ravel()
            phases = np.outer(phases, [1, phase]).ravel()
        return rows, phases

    def merge(self, inputs: Array) -> Array:
        """Merged angles (..., G) of inputs (..., D); linear."""
        if not len(self._begins):
            return np.zeros((*inputs.shape[:-1], 0), dtype=inputs.dtype)
        ordered = inputs[..., self._order]
        if len(self._begins) == len(self._order):
            return ordered
        result: Array = np.add.reduceat(ordered, self._begins, axis=-1)
        return result

    @cached_property
    def split(self) -> int:
        """Live wires in the left half, which has about as many coefficients as the right one."""
        sizes = [np.prod(self.dims[:h]) + np.prod(self.dims[h:]) for h in range(self.num_live + 1)]
        return int(np.argmin(sizes))

    @cached_property
    def nodes(self) -> tuple[Array, Array]:
        """One-qubit states per live wire to interpolate at (live, 4, 2, 2), and the matrices from values there to T."""
        spinors = np.zeros((self.num_live, 4, 2, 2))
        matrices = np.zeros((self.num_live, 4, 4))
        for w, d in enumerate(self.dims):
            vectors = _simplex(self.slots[w], int(d))
            for p, (x, y, z) in enumerate(vectors):
                # the Bloch vector's state with a real first component, in the wire's basis
                low = np.sqrt(max(0.0, (1 + z) / 2))
                high = [-y, 0] if self.turned[w] else [x, y]
                spinors[w, p] = [[low, 0], [high[0] / (2 * low), high[1] / (2 * low)]]
            design = np.hstack([np.ones((d, 1)), vectors[:, self.slots[w, : d - 1]]])
            matrices[w, :d, :d] = np.linalg.inv(design)
        return spinors, matrices

    @cached_property
    def heads(self) -> tuple[int, Array]:
        """How many leading wires are held fixed at a time, and their states at the nodes, planar (N, 2, 2**leading)."""
        spinors, _ = self.nodes
        leading, heads = 0, np.ones((1, 1), dtype=complex)
        while np.prod(self.dims[leading:]) > _TAIL:
            states = spinors[leading, : self.dims[leading]]
            heads = np.kron(heads, states[:, :, 0] + 1j * states[:, :, 1])
            leading += 1
        return leading, np.stack([heads.real, heads.imag], axis=1)

    def coefficients(self, columns: Array, observables: Observables) -> Array:
        """T (J, Π dims) from V, U times `basis`, planar (2, 2**n, 2**live)."""
        spinors, matrices = self.nodes
        dim = columns.shape[1]
        # rows of V are computed with side by side, up to whole groups of lanes
        padded = np.zeros((2, columns.shape[2], -(-dim // LANES) * LANES))
        padded[:, :, :dim] = columns.transpose(0, 2, 1)
        if observables.is_diagonal:
            leading, heads = self.heads
            values = _diagonal_values(padded, heads, spinors[leading:], self.dims[leading:], observables.table)
        else:
            height = padded.shape[2]
            work = np.empty((2, 2, self.size * height))
            interpolation_kernels.expand(padded, np.array([[1.0], [0.0]]), spinors, self.dims, 0, height, work)
            points = work[self.num_live % 2].reshape(2, self.size, height)[:, :, :dim]
            values = observables.expectations(np.ascontiguousarray(points.transpose(0, 2, 1)))
        values = np.ascontiguousarray(values, dtype=float)
        interpolation_kernels.transform(values, matrices, self.dims)
        return values


def _simplex(slots: Array, dim: int) -> Array:
    """`dim` unit vectors (dim, 3) in the plane or space of a wire's components, as far apart as they can be, none at -z."""
    if dim == 4:
        r = np.sqrt(8) / 3
        s, c = r * np.sqrt(3) / 2, -r / 2
        return np.array([[0, 0, 1], [r, 0, -1 / 3], [c, s, -1 / 3], [c, -s, -1 / 3]])
    angles = 2 * np.pi * np.arange(dim) / dim
    vectors = np.zeros((dim, 3))
    vectors[:, slots[0]], vectors[:, _Z] = np.sin(angles), np.cos(angles)
    return vectors


def _diagonal_values(columns: Array, heads: Array, spinors: Array, dims: Array, table: Array) -> Array:
    """Σ_s table[:, s] |(V ψ)_s|² (J, size) for all product states ψ, some rows s and one of the `heads` at a time."""
    size, height = int(np.prod(dims, dtype=np.int64)), columns.shape[2]
    rows = min(height, _ROWS)
    signs = np.zeros((height, len(table)))
    signs[: table.shape[1]] = table.T
    totals = np.zeros((len(heads), size, len(table)))

    def add(node: int) -> None:
        work, density = np.empty((2, 2, size * rows)), np.empty((size, rows))
        product = np.empty((size, len(table)))
        for first in range(0, height, rows):
            interpolation_kernels.expand(columns, heads[node], spinors, dims, first, rows, work)
            interpolation_kernels.square(work[len(dims) % 2], density)
            totals[node] += np.dot(density, signs[first : first + rows], out=product)

    run_parts(add, [(node,) for node in range(len(heads))])
    return np.asarray(totals.reshape(-1, len(table)).T)


@dataclass(frozen=True)
class MultilinearSolution:
    """What the compiled solve leaves besides the state; see `NewtonResult`.

    Attributes:
        residual: ‖g‖ at the solution (B,).
        trace: ‖g‖ after every step (B, S + 1), NaN after a sample stopped; (B, 0) if not kept.
        steps: (B,).
        evaluations: (B,).
        status: (B,): 0 converged, 1 out of steps, 2 no step lowers the residual, 3 not finite.
        values: m at the solution (B, K).
        jacobian: ∂m/∂q at the solution (B, K, K).
    """

    residual: Array
    trace: Array
    steps: Array
    evaluations: Array
    status: Array
    values: Array
    jacobian: Array


class MultilinearForm:
    """q -> <M_j> of a minibatch, with ∂/∂q, from T.

    Args:
        layout: the encoder's rotations.
        slopes: derivatives of the merged angles with respect to the K states (G, K).
        coefficients: T (J, Π dims).
    """

    def __init__(self, layout: ProductLayout, slopes: Array, coefficients: Array) -> None:
        self._count, self._states = len(coefficients), slopes.shape[1]
        dims, split = layout.dims, layout.split
        left = int(np.prod(dims[:split], dtype=np.int64))
        cube = coefficients.reshape(self._count, left, -1)
        moves = np.array(
            [slopes[a:b].any(axis=0) for a, b in zip(layout.starts[:-1], layout.starts[1:], strict=True)], dtype=bool
        ).reshape(layout.num_live, self._states)
        self._fixed = (
            layout.axes, layout.starts, slopes, moves, dims, layout.slots, split, self._count,
            _padded(cube.reshape(-1, cube.shape[2])),
            _padded(cube.transpose(0, 2, 1).reshape(-1, left)),
        )  # fmt: skip

    def values(self, base: Array, state: Array, rows: Array) -> Array:
        """<M_j> (b, J) at `state` (b, K) for samples `rows` with merged angles `base` (G, B) of their data."""
        return self._evaluate(base, state, rows, False)[0]

    def linearize(self, base: Array, state: Array, rows: Array) -> tuple[Array, Array]:
        """<M_j> (b, J) and its derivatives along the states (b, J, K)."""
        return self._evaluate(base, state, rows, True)

    def _evaluate(self, base: Array, state: Array, rows: Array, with_slopes: bool) -> tuple[Array, Array]:
        batch = len(rows)
        values = np.empty((batch, self._count))
        jacobian = np.empty((batch if with_slopes else 0, self._count, self._states))
        state = np.ascontiguousarray(state, dtype=float)
        work = [(*self._fixed, base, state, rows, *part, values, jacobian) for part in _ranges(batch)]
        run_parts(kernels.linearize, work)
        return values, jacobian

    def newton(
        self,
        base: Array,
        state: Array,
        tol: float,
        rtol: float,
        max_steps: int,
        shortenings: int,
        keep_trace: bool = True,
    ) -> MultilinearSolution:
        """Newton's method with shortened steps, every sample by itself, in double precision.

        A sample stops once ‖g‖ ≤ max(tol, rtol ‖m‖), g = m - q. `state` (B, K) of float64 is overwritten with the best
        iterate.
        """
        batch, size = state.shape
        trace = np.full((max_steps + 1 if keep_trace else 0, batch), np.nan)
        residual = np.empty(batch)
        counts = np.zeros((3, batch), dtype=np.int64)
        values, jacobian = np.empty((batch, size)), np.empty((batch, size, size))
        options = (tol, rtol, max_steps, shortenings, trace, residual, counts, values, jacobian)
        run_parts(bloch_newton.newton, [(*self._fixed, base, state, *part, *options) for part in _ranges(batch)])
        if keep_trace:
            trace = trace[: int(counts[0].max(initial=0)) + 1]
        steps, evaluations, status = counts
        return MultilinearSolution(residual, trace.T, steps, evaluations, status, values, jacobian)

    def broyden(
        self,
        base: Array,
        state: Array,
        tol: float,
        rtol: float,
        max_steps: int,
        keep_trace: bool = True,
        keep_inverse: bool = False,
    ) -> QuasiNewtonSolution:
        """Good Broyden from H = -1, every sample by itself, in double precision; it stops as `newton` does.

        `state` (B, K) of float64 is overwritten with the best iterate.
        """
        batch, size = state.shape
        trace = np.full((max_steps + 1 if keep_trace else 0, batch), np.nan)
        residual = np.empty(batch)
        counts = np.zeros((3, batch), dtype=np.int64)
        inverse = np.empty((batch if keep_inverse else 0, size, size))
        options = (tol, rtol, max_steps, trace, residual, counts, inverse)
        run_parts(bloch_broyden.broyden, [(*self._fixed, base, state, *part, *options) for part in _ranges(batch)])
        if keep_trace:
            trace = trace[: int(counts[0].max(initial=0)) + 1]
        steps, evaluations, status = counts
        return QuasiNewtonSolution(residual, trace.T, steps, evaluations, status, inverse if keep_inverse else None)


def _padded(matrix: Array) -> Array:
    """The matrix with zero rows up to a multiple of the kernels' tile."""
    out = np.zeros((-(-len(matrix) // kernels.TILE) * kernels.TILE, matrix.shape[1]))
    out[: len(matrix)] = matrix
    return out


def _ranges(batch: int) -> Sequence[tuple[int, int]]:
    """Parts of a batch of eight groups of lanes each, so that lanes that finish early find other samples."""
    step = 8 * LANES
    return [(first, min(first + step, batch)) for first in range(0, batch, step)] or [(0, 0)]
