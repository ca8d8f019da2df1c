"""Exact evaluation under noise: what the samples share is applied to the observables, once per weights.

    m_j(u; θ) = tr(M_j(θ) ρ(u)),    M_j(θ) = E_U†(M_j),    ρ(u) = E_S(|0><0|),

E_U and E_S the noisy ansatz and encoder, gate by gate with the channel of each, E_U† the adjoint (Heisenberg picture).
States and observables are real vectors of 4ⁿ Pauli components. Derivatives along q are those of ρ, forward through the
encoder; for the weights, L depends on θ through R_j = Σ_b (∂L/∂m_bj) ρ_b alone, so that one pass with a column per
observable gives

    ∂L/∂θ = Σ_j ∂/∂θ tr(M_j(θ) R_j),

whatever the batch.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from qiskit_qdeq.evaluation import pauli_kernels
from qiskit_qdeq.evaluation.gate_angles import GateTemplate
from qiskit_qdeq.evaluation.noisy_circuit import NoisyCircuit, NoisyGate
from qiskit_qdeq.evaluation.pauli_program import PauliProgram, padded
from qiskit_qdeq.evaluation.protocol import Cost, Cotangent, Evaluation, ExactEvaluator
from qiskit_qdeq.evaluation.sloped_point import SlopedPoint
from qiskit_qdeq.evaluation.threads import run_parts
from qiskit_qdeq.evaluation.vectors import LANES
from qiskit_qdeq.exceptions import InputError

Array = np.ndarray[Any, np.dtype[Any]]

#: Numbers of a part of the batch: some lanes of samples, so that a part stays in the cache and parts can run beside others.
_PART = 1 << 16


class NoisyEvaluator(ExactEvaluator):
    """m(x + P q; θ) of a noisy circuit, without sampling.

    Args:
        gates: encoder and ansatz over gate angles.
        injection: P (D, K).
        circuit: the noisy circuit over `gates.parameters`; its observables are those of the states, then of the readout.
        notes: plain values that `description` is to hold beside a digest of the circuit.

    Raises:
        InputError: if the injection has another shape.
    """

    def __init__(
        self, gates: GateTemplate, injection: Array, circuit: NoisyCircuit, notes: dict[str, Any] | None = None
    ) -> None:
        template = gates.template
        if injection.shape != (template.num_features, template.num_states):
            raise InputError(
                f"injection must have shape (num_features, num_states) = "
                f"{(template.num_features, template.num_states)}, got {injection.shape}"
            )
        self.gates, self.injection = gates, np.asarray(injection, dtype=float)
        self.circuit, self._notes = circuit, dict(notes or {})
        self.observables, which = _distinct(circuit.observables)
        self.states, self.readouts = which[: template.num_states], which[template.num_states :]
        sampled, shared = _split(circuit.gates, gates)
        self.sampled, self.shared = PauliProgram(sampled, gates.parameters), PauliProgram(shared, gates.parameters)
        angles = [gate.angle for gate in sampled if gate.angle is not None]
        #: Angles of the samples' part that depend on weights: routing may put gates of the ansatz before the encoder's last.
        self.mixed = np.flatnonzero([not angle.parameters.isdisjoint(gates.ansatz.parameters) for angle in angles])

    @property
    def description(self) -> dict[str, Any]:
        """Notes and a digest of circuit and noise."""
        digest = hashlib.sha256(np.round(self.circuit.observables, 9).tobytes())
        for gate in self.circuit.gates:
            digest.update(f"{gate.qubits}{gate.angle}".encode() + (np.round(gate.terms, 9) + 0.0).tobytes())
        return {**self._notes, "noisy_circuit": digest.hexdigest()}

    @cached_property
    def ground(self) -> Array:
        """Components (4ⁿ,) of |0...0>: 1 for every product of Z."""
        result: Array = np.ones(1)
        for _ in range(self.circuit.num_qubits):
            result = np.kron([1.0, 0.0, 0.0, 1.0], result)
        return result

    def bind(self, weights: Array) -> BoundNoisy:
        """Propagate the observables through the ansatz."""
        return BoundNoisy(self, np.asarray(weights, dtype=float))


class BoundNoisy:
    """`NoisyEvaluator` at fixed weights."""

    def __init__(self, evaluator: NoisyEvaluator, weights: Array) -> None:
        self.evaluator = evaluator
        gates = evaluator.gates
        #: Gate angles of the ansatz (G,), and ∂/∂θ (G, p).
        self.angles, self.slopes = gates.ansatz_angles(weights), gates.ansatz_jacobian(weights)
        self._row = np.concatenate([np.zeros(gates.num_encoder_angles), self.angles])
        self._shared = evaluator.shared.angle_map(self._row)

    @cached_property
    def observables(self) -> Array:
        """M(θ) (M, 4ⁿ)."""
        return self.evaluator.shared.pull(self.evaluator.observables, self._shared)

    def rows(self, inputs: Array) -> Array:
        """All gate angles (b, E + G) of inputs (b, D)."""
        angles = self.evaluator.gates.encoder_angles(inputs)
        return np.concatenate([angles, np.broadcast_to(self.angles, (len(angles), len(self.angles)))], axis=1)

    def by_weights(self, program: PauliProgram, rows: Array) -> Array:
        """∂(angles of a program)/∂θ (..., S, p) at rows of gate angles."""
        jacobian = program.angle_map.jacobian(rows)[..., self.evaluator.gates.num_encoder_angles :]
        result: Array = jacobian @ self.slopes
        return result

    def shared_gradient(self, states: Array) -> Array:
        """∂/∂θ (p,) of Σ_m tr(M_m(θ) states_m) through the shared part, for states (M, 4ⁿ)."""
        gradient = self.evaluator.shared.gradient(self.evaluator.observables, states, self._shared)
        result: Array = gradient @ self.by_shared_weights
        return result

    @cached_property
    def by_shared_weights(self) -> Array:
        """∂(angles of the shared part)/∂θ (S, p)."""
        return self.by_weights(self.evaluator.shared, self._row)

    def shifted_observables(self) -> Array:
        """(M(angle s + π/2) - M(angle s - π/2)) / 2 for every angle of the shared part (S, M, 4ⁿ)."""
        shared, observables = self.evaluator.shared, self.evaluator.observables
        out = np.empty((len(self._shared), *observables.shape))
        for slot in range(len(out)):
            for shift, sign in ((np.pi / 2, 0.5), (-np.pi / 2, -0.5)):
                moved = self._shared.copy()
                moved[slot] += shift
                pulled = sign * shared.pull(observables, moved)
                out[slot] = pulled if sign > 0 else out[slot] + pulled
        return out

    def map(self, inputs: Array, expect: Sequence[str] = ()) -> NoisyMap:
        """The map of samples (B, D)."""
        width = len(self.evaluator.injection)
        if np.ndim(inputs) != 2 or np.shape(inputs)[1] != width:
            raise InputError(
                f"inputs must have shape (samples, {width}), got {np.shape(inputs)}; `model.prepare(x)` makes them from data"
            )
        return NoisyMap(self, np.asarray(inputs, dtype=float))


class NoisyMap:
    """The equilibrium map of one minibatch."""

    cost = Cost()

    def __init__(self, bound: BoundNoisy, inputs: Array) -> None:
        self.bound, self.inputs, self.evaluator = bound, inputs, bound.evaluator
        self.batch, self.num_states = len(inputs), bound.evaluator.injection.shape[1]

    def values(self, state: Array, rows: Array) -> Evaluation:
        """m at `state` (b, K) for the samples `rows`."""
        return Evaluation(self.observed(self.moved(state, rows))[0][:, self.evaluator.states])

    def linearize(self, state: Array, rows: Array) -> tuple[Evaluation, Array]:
        """m and ∂m/∂q (b, K, K) at `state` for the samples `rows`."""
        observed, slopes = self.observed(self.moved(state, rows), self.evaluator.injection)
        return Evaluation(observed[:, self.evaluator.states]), slopes[:, self.evaluator.states]

    def at(self, state: Array) -> NoisyPoint:
        """The whole minibatch at `state` (B, K)."""
        return NoisyPoint(self, state)

    def moved(self, state: Array, rows: Array | slice) -> Array:
        """u = x + P q of the samples `rows`."""
        with np.errstate(invalid="ignore"):
            result: Array = self.inputs[rows] + np.asarray(state, dtype=float) @ self.evaluator.injection.T
        return result

    def observed(self, inputs: Array, directions: Array | None = None) -> tuple[Array, Array]:
        """All observables (b, M) at inputs u (b, D), and their slopes (b, M, R) along directions (D, R) or (b, D, R)."""
        # a solver may leave the numbers a computer has: the sample's values then say so, the others stay
        lost: Array = np.logical_not(np.isfinite(inputs).all(axis=1))
        inputs = np.where(lost[:, None], 1.0, inputs)
        slopes = None if directions is None else self._angle_slopes(inputs, directions)
        found = self._expected(self.bound.rows(inputs), slopes)
        found[..., lost] = np.nan
        return np.ascontiguousarray(found[0].T), np.ascontiguousarray(found[1:].transpose(2, 1, 0))

    def pull_back(self, terms: Sequence[Cotangent]) -> Array:
        """∂L/∂θ of the sum of the terms, in one pass over the ansatz."""
        evaluator = self.evaluator
        shared = np.zeros((len(evaluator.observables), len(evaluator.ground)))
        gradient = np.zeros(evaluator.gates.template.num_weights)
        for term in terms:
            point: NoisyPoint = term.point  # type: ignore[assignment]
            rows, weights = self.bound.rows(point.inputs), self._cotangent(term)[..., None]
            slopes = None
            if term.directions is not None:
                assert term.slopes is not None
                slopes = self._angle_slopes(point.inputs, np.swapaxes(term.directions, 1, 2))
                weights = np.concatenate([weights, self._chosen(evaluator.states).T @ term.slopes], axis=2)
            for first, last in self._parts(len(rows), weights.shape[2]):
                states = self._states(rows[first:last], None if slopes is None else slopes[first:last])
                shared += np.einsum("rpb,bmr->mp", states[..., : last - first], weights[first:last], optimize=True)
            if len(evaluator.mixed):
                gradient += self._mixed_gradient(rows, slopes, weights)
        return gradient + self.bound.shared_gradient(shared)

    def _mixed_gradient(self, rows: Array, slopes: Array | None, weights: Array) -> Array:
        """∂L/∂θ through the samples' part, by the shift rule, which holds for derivatives along inputs as well."""
        mixed = self.evaluator.mixed
        by_angle = np.empty((len(rows), len(mixed)))
        for place, slot in enumerate(mixed.tolist()):
            up, down = (self._expected(rows, slopes, (slot, shift)) for shift in (np.pi / 2, -np.pi / 2))
            by_angle[:, place] = 0.5 * np.einsum("rmb,bmr->b", up - down, weights)
        jacobian = self.bound.by_weights(self.evaluator.sampled, rows)[..., mixed, :]
        result: Array = np.einsum("bi,bip->p", by_angle, np.broadcast_to(jacobian, (len(rows), *jacobian.shape[-2:])))
        return result

    def _cotangent(self, term: Cotangent) -> Array:
        """∂L/∂<M> (B, M) over all observables, of which states and readout may share some."""
        total = np.zeros((self.batch, len(self.evaluator.observables)))
        for given, which in ((term.values, self.evaluator.states), (term.features, self.evaluator.readouts)):
            if given is not None:
                total += given @ self._chosen(which)
        return total

    def _chosen(self, which: Array) -> Array:
        """(len(which), M), 1 where an observable is the one named: an observable may be named twice."""
        return np.eye(len(self.evaluator.observables))[which]

    def _angle_slopes(self, inputs: Array, directions: Array) -> Array:
        """Slopes (b, S, R) of the angles of the samples' part along directions of u."""
        gates = self.evaluator.gates
        jacobian = self.evaluator.sampled.angle_map.jacobian(self.bound.rows(inputs))[..., : gates.num_encoder_angles]
        result: Array = jacobian @ (gates.encoder_jacobian(inputs) @ directions)
        return result

    def weight_slopes(self, inputs: Array) -> Array:
        """∂<M>/∂θ (b, M, p) of every sample by itself, by the shift rule for the shared part's angles."""
        rows, mixed = self.bound.rows(inputs), self.evaluator.mixed
        differences = self.bound.shifted_observables()
        found = self._expected(rows, None, observables=differences.reshape(-1, differences.shape[2]))[0]
        found = found.reshape(*differences.shape[:2], len(rows))
        result: Array = np.einsum("smb,sp->bmp", found, self.bound.by_shared_weights, optimize=True)
        if len(mixed):
            jacobian = self.bound.by_weights(self.evaluator.sampled, rows)[..., mixed, :]
            for place, slot in enumerate(mixed.tolist()):
                up, down = (self._expected(rows, None, (slot, shift))[0] for shift in (np.pi / 2, -np.pi / 2))
                here = np.broadcast_to(jacobian[..., place, :], (len(rows), jacobian.shape[-1]))
                result += 0.5 * (up - down).T[:, :, None] * here[:, None, :]
        return result

    def _expected(
        self,
        rows: Array,
        slopes: Array | None,
        shift: tuple[int, float] | None = None,
        observables: Array | None = None,
    ) -> Array:
        """All observables (1 + R, M, b), values first, at rows of gate angles with slopes (b, S, R), one angle shifted."""
        observables = self.bound.observables if observables is None else observables
        count = 1 + (0 if slopes is None else slopes.shape[2])
        out = np.empty((count, len(observables), len(rows)))

        def compute(first: int, last: int) -> None:
            states = self._states(rows[first:last], None if slopes is None else slopes[first:last], shift)
            found = np.empty((count, len(observables), states.shape[2]))
            pauli_kernels.expectations(observables, states, found)
            out[..., first:last] = found[..., : last - first]

        run_parts(compute, self._parts(len(rows), count))
        return out

    def _states(self, rows: Array, slopes: Array | None, shift: tuple[int, float] | None = None) -> Array:
        """Components (1 + R, 4ⁿ, C) of ρ and its derivatives at rows (b, E + G), C ≥ b a multiple of `LANES`."""
        program, ground = self.evaluator.sampled, self.evaluator.ground
        width, count = padded(len(rows)), 0 if slopes is None else slopes.shape[2]
        angles = np.zeros((program.angle_map.num_angles, width))
        angles[:, : len(rows)] = program.angle_map(rows).T
        if shift is not None:
            angles[shift[0]] += shift[1]
        rates = np.zeros((len(angles), count, width))
        if slopes is not None:
            rates[..., : len(rows)] = slopes.transpose(1, 2, 0)
        states = np.zeros((1 + count, len(ground), width))
        states[0] = ground[:, None]
        program.apply(states, angles, rates)
        return states

    def _parts(self, batch: int, count: int) -> list[tuple[int, int]]:
        """Ranges of samples, of whole lanes, whose `count` columns each are held together."""
        size = max(1, _PART // (count * len(self.evaluator.ground) * LANES)) * LANES
        return [(first, min(first + size, batch)) for first in range(0, batch, size)]


class NoisyPoint(SlopedPoint):
    """A minibatch at one state, with what was computed of it."""

    def __init__(self, source: NoisyMap, state: Array) -> None:
        states, readouts = source.evaluator.states, source.evaluator.readouts
        super().__init__(np.arange(len(states)), len(states) + np.arange(len(readouts)))
        #: Of the distinct observables those fed back, then those read out.
        self._order = np.concatenate([states, readouts])
        self._source, self.state = source, state
        self.inputs = source.moved(state, slice(None))
        self._observed: Array | None = None

    @property
    def values(self) -> Array:
        """m (B, K)."""
        return self._all()[:, self._source.evaluator.states]

    @property
    def features(self) -> Array:
        """h (B, F)."""
        return self._all()[:, self._source.evaluator.readouts]

    @cached_property
    def input_jacobian(self) -> Array:
        """∂m/∂u (B, K, D)."""
        result: Array = self.input_slopes[:, : self.state.shape[1]]
        return result

    def pull_inputs(self, cotangent: Array) -> Array:
        """(∂m/∂u)ᵀ cotangent: (B, K) -> (B, D)."""
        result: Array = np.einsum("bj,bjd->bd", cotangent, self.input_jacobian)
        return result

    def _all(self) -> Array:
        if self._observed is None:
            self._observed = self._source.observed(self.inputs)[0]
        return self._observed

    @property
    def input_slopes(self) -> Array:
        """∂(m, h)/∂u (B, K + F, D)."""
        return self._source.observed(self.inputs, np.eye(self.inputs.shape[1]))[1][:, self._order]

    @property
    def weight_slopes(self) -> Array:
        """∂(m, h)/∂θ at a fixed state (B, K + F, p)."""
        return self._source.weight_slopes(self.inputs)[:, self._order]

    @cached_property
    def state_slopes(self) -> Array:
        """∂(m, h)/∂q (B, K + F, K)."""
        evaluator = self._source.evaluator
        if not evaluator.gates.template.encoder.differentiable(self.inputs).all():
            warnings.warn(
                "the encoder's angles have no derivative at some samples (neighbouring features that are both zero), and "
                "noisy values depend on these angles, so the Jacobian there is incomplete: use data without such zeros",
                UserWarning,
                stacklevel=4,
            )
        self._observed, slopes = self._source.observed(self.inputs, evaluator.injection)
        result: Array = slopes[:, self._order]
        return result


def _distinct(observables: Array) -> tuple[Array, Array]:
    """Every observable once, and the number of each among them."""
    seen: dict[bytes, int] = {}
    which = [seen.setdefault(row.tobytes(), len(seen)) for row in observables + 0.0]
    first = [which.index(number) for number in range(len(seen))]
    return observables[first], np.array(which, dtype=np.intp)


def _split(gates: Sequence[NoisyGate], template: GateTemplate) -> tuple[list[NoisyGate], list[NoisyGate]]:
    """The gates from which a path leads to one that depends on inputs, with these, and all others, which may come later."""
    before: list[NoisyGate] = []
    after: list[NoisyGate] = []
    reached: set[int] = set()
    for gate in reversed(gates):
        if _depends(gate, template.encoder.parameters) or reached.intersection(gate.qubits):
            reached.update(gate.qubits)
            before.append(gate)
        else:
            after.append(gate)
    return before[::-1], after[::-1]


def _depends(gate: NoisyGate, parameters: Sequence[Any]) -> bool:
    return gate.angle is not None and not gate.angle.parameters.isdisjoint(parameters)
