"""The whole equilibrium map of amplitude encoding from K + 1 circuits a sample and K(K+1)/2 shared by the batch.

With u = x + P q every expectation value is a ratio of quadratics in q, m = N / d (DESIGN section 5):

    N(q) = a + B q + qᵀ C q,                    d(q) = ‖x + P q‖²
    a = ‖x‖² m(x)                               one circuit a sample
    B_k = (N(s e_k) - a - s² C_kk) / s          K circuits a sample, N(s e_k) = ‖x + s P e_k‖² m(x + s P e_k)
    C_kl from m(P e_k) and m(P (e_k + e_l))     K(K+1)/2 circuits in all

Noise after the encoder is linear in the encoded state and leaves this exact; noise inside it does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from qiskit_qdeq.circuits import AmplitudeEncoder
from qiskit_qdeq.evaluation.protocol import Evaluation
from qiskit_qdeq.evaluation.sloped_point import SlopedPoint
from qiskit_qdeq.exceptions import InputError

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Probes:
    """The inputs at which a minibatch is measured.

    Attributes:
        samples: x and x + s_k P e_k, (B, K + 1, D).
        steps: s (B, K).
        shared: P e_k and P (e_k + e_l), k < l: (K (K + 1) / 2, D).
    """

    samples: Array
    steps: Array
    shared: Array


def probes(inputs: Array, injection: Array) -> Probes:
    """Where to measure: s_k = ‖x‖ / ‖P e_k‖ keeps the error of B small without leaving the size of x.

    Raises:
        InputError: if a column of the injection is zero or columns cancel, so that a probe is the zero vector.
    """
    size = injection.shape[1]
    lengths = np.linalg.norm(injection, axis=0)
    pairs = injection[:, _upper(size)[0]] + injection[:, _upper(size)[1]]
    if not lengths.all() or not np.linalg.norm(pairs, axis=0).all():
        raise InputError(
            "solver 'probe' needs an injection whose columns, and their sums in pairs, are not zero (state_scale > 0)"
        )
    steps = np.linalg.norm(inputs, axis=1)[:, None] / lengths
    # away from cancelling the sample: the sign for which x + s P e_k is the longer vector
    steps = np.where(inputs @ injection < 0, -steps, steps)
    moved = inputs[:, None, :] + steps[:, :, None] * injection.T
    samples = np.concatenate([inputs[:, None, :], moved], axis=1)
    return Probes(samples, steps, np.concatenate([injection, pairs], axis=1).T)


@dataclass(frozen=True)
class Measured:
    """A minibatch's probes and their values, which may be older than the weights they are used with.

    Attributes:
        inputs: x (B, D).
        samples: values at `Probes.samples` (B, K + 1, M).
        shared: values at `Probes.shared` (K (K + 1) / 2, M).
    """

    inputs: Array
    samples: Array
    shared: Array

    def arrays(self) -> dict[str, Array]:
        """For a checkpoint."""
        return {"inputs": self.inputs, "samples": self.samples, "shared": self.shared}


def refuse_other_encoders(encoder: Any) -> None:
    """Raise InputError unless the map of circuits with this encoder can be probed."""
    if not isinstance(encoder, AmplitudeEncoder):
        raise InputError(
            "solver 'probe' needs amplitude encoding, under which the map is a ratio of quadratics; use 'broyden', "
            f"got {encoder!r}"
        )


class ProbedMap:
    """All M observables as functions of q, from their values at the probes; a map that solvers can iterate for free.

    Args:
        inputs: x (B, D).
        injection: P (D, K).
        found: the inputs that were measured.
        samples: values at `found.samples` (B, K + 1, M).
        shared: values at `found.shared` (K (K + 1) / 2, M).
        states: which of the M observables are fed back (K,).
    """

    def __init__(
        self, inputs: Array, injection: Array, found: Probes, samples: Array, shared: Array, states: Array
    ) -> None:
        self.batch, self.num_states = len(inputs), injection.shape[1]
        self.states = states
        self._norm = np.vecdot(inputs, inputs)
        self._overlap = inputs @ injection
        self._gram = injection.T @ injection
        self._quadratic = self._shared_terms(found, shared)
        numerators = samples * np.vecdot(found.samples, found.samples)[:, :, None]
        self._constant = numerators[:, 0]
        curvature = np.einsum("mkk->km", self._quadratic)
        steps = found.steps[:, :, None]
        # (B, M, K)
        self._linear = ((numerators[:, 1:] - self._constant[:, None]) / steps - steps * curvature).swapaxes(1, 2)

    def _shared_terms(self, found: Probes, shared: Array) -> Array:
        """C (M, K, K)."""
        size = self.num_states
        numerators = shared * np.vecdot(found.shared, found.shared)[:, None]
        squares = numerators[:size]
        rows, columns = _upper(size)
        mixed = 0.5 * (numerators[size:] - squares[rows] - squares[columns])
        terms = np.zeros((shared.shape[1], size, size))
        terms[:, np.arange(size), np.arange(size)] = squares.T
        terms[:, rows, columns] = terms[:, columns, rows] = mixed.T
        return terms

    def all_values(self, state: Array, rows: Array | slice = slice(None)) -> Array:
        """All M expectation values at `state` (b, K) for the samples `rows`: (b, M)."""
        return self._numerator(state, rows) / self._denominator(state, rows)[:, None]

    def all_slopes(self, state: Array, rows: Array | slice = slice(None)) -> Array:
        """Their derivatives with respect to q, (b, M, K)."""
        distance = self._denominator(state, rows)[:, None, None]
        slopes = self._linear[rows] + 2 * np.einsum("mkl,bl->bmk", self._quadratic, state)
        change = 2 * (self._overlap[rows] + state @ self._gram)
        result: Array = (slopes - self.all_values(state, rows)[:, :, None] * change[:, None, :]) / distance
        return result

    def values(self, state: Array, rows: Array) -> Evaluation:
        """m at `state` (b, K) for the samples `rows`."""
        return Evaluation(self.all_values(state, rows)[:, self.states])

    def linearize(self, state: Array, rows: Array) -> tuple[Evaluation, Array]:
        """m and ∂m/∂q (b, K, K) at `state` for the samples `rows`."""
        return self.values(state, rows), self.all_slopes(state, rows)[:, self.states]

    def _numerator(self, state: Array, rows: Array | slice) -> Array:
        result: Array = (
            self._constant[rows]
            + np.einsum("bmk,bk->bm", self._linear[rows], state)
            + np.einsum("mkl,bk,bl->bm", self._quadratic, state, state, optimize=True)
        )
        return result

    def _denominator(self, state: Array, rows: Array | slice) -> Array:
        result: Array = self._norm[rows] + np.vecdot(2 * self._overlap[rows] + state @ self._gram, state)
        return result


class PredictedPoint(SlopedPoint):
    """A probed map at one state, as the layers above see a point; nothing is measured.

    Args:
        probed: the map.
        state: q (B, K).
        readouts: which of the M observables are read out.
    """

    def __init__(self, probed: ProbedMap, state: Array, readouts: Array) -> None:
        super().__init__(probed.states, readouts)
        self._probed, self.state = probed, state
        self._slopes = probed.all_slopes(state)

    @property
    def features(self) -> Array:
        """h (B, F)."""
        result: Array = self._probed.all_values(self.state)[:, self._readouts]
        return result

    @property
    def state_slopes(self) -> Array:
        """∂<M>/∂q (B, M, K)."""
        return self._slopes


def _upper(size: int) -> tuple[Array, Array]:
    return np.triu_indices(size, 1)
