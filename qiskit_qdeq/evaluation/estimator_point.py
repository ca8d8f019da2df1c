"""A minibatch measured at one state: values, features and their derivatives, fetched together where they will be needed.

Derivatives along q come from shifted encoder angles, ∂<M>/∂q = ∂<M>/∂φ · ∂φ/∂u · P, or from the probed map.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qiskit_qdeq.evaluation.protocol import Evaluation
from qiskit_qdeq.evaluation.sloped_point import SlopedPoint
from qiskit_qdeq.evaluation.weight_gradient import Plan
from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.execution.runner import Measurement

if TYPE_CHECKING:
    from qiskit_qdeq.evaluation.estimator import EstimatorMap

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass
class Observed:
    """What is known of a minibatch at one state each: values and errors (B, M), shots and states; NaN where unknown."""

    values: Array
    std_errors: Array
    shots: Array
    states: Array

    @classmethod
    def nothing(cls, batch: int, observables: int, num_states: int) -> Observed:
        """Of no sample anything."""
        values, errors = np.full((2, batch, observables), np.nan)
        return cls(values, errors, np.zeros(batch), np.full((batch, num_states), np.nan))

    def put(self, rows: Array, states: Array, measured: Measurement) -> None:
        """Book measurements of the samples `rows` at `states`."""
        self.values[rows], self.std_errors[rows], self.shots[rows] = (
            measured.values,
            measured.std_errors,
            measured.shots,
        )
        self.states[rows] = states

    def taken(self, rows: Array | slice = slice(None)) -> Measurement:
        """What is known of the samples `rows`."""
        return Measurement(self.values[rows], self.std_errors[rows], self.shots[rows])


class EstimatorPoint(SlopedPoint):
    """An `EstimatorMap` at one state.

    Args:
        source: the map.
        state: q (B, K).
        known: measurements that may have been made at this very state, for some of the samples.
        measured: a point measured nearby, whose values are carried over along the probed map and whose weight shifts are
            used as they are; None to measure here.
    """

    def __init__(
        self, source: EstimatorMap, state: Array, known: Observed | None = None, measured: EstimatorPoint | None = None
    ) -> None:
        super().__init__(source.evaluator.states, source.evaluator.readouts)
        self._source, self._evaluator = source, source.evaluator
        self.state = state
        self._measured = measured
        self._inputs = source.inputs + np.asarray(state, dtype=float) @ self._evaluator.injection.T
        self._forward = Observed.nothing(source.batch, self._evaluator.num_observables, source.num_states)
        if known is not None:
            same = np.flatnonzero((known.states == state).all(axis=1))
            self._forward.put(same, state[same], known.taken(same))
        self._carried: Array | None = None
        self._slopes: Array | None = None
        self._plan: tuple[Plan, Array] | None = None

    @property
    def observed(self) -> Array:
        """All observables (B, M)."""
        if self._measured is not None:
            if self._carried is None:
                probed = self._source.probe()
                moved = probed.all_values(self.state) - probed.all_values(self._measured.state)
                self._carried = self._measured.observed + moved
            return self._carried
        if np.isnan(self._forward.states).any():
            self._fetch()
        return self._forward.values

    @property
    def evaluation(self) -> Evaluation:
        """m with its standard errors; the cost is booked on the map."""
        if "gradient" in self._source.expect:
            self._fetch()
        values = self.values
        return Evaluation(values, floored_errors(self._forward.taken(), self._evaluator.states))

    @property
    def values(self) -> Array:
        """m (B, K)."""
        result: Array = self.observed[:, self._evaluator.states]
        return result

    @property
    def features(self) -> Array:
        """h (B, F)."""
        if "gradient" in self._source.expect and self._measured is None:
            self._fetch()
        result: Array = self.observed[:, self._evaluator.readouts]
        return result

    @property
    def input_jacobian(self) -> Array:
        """∂m/∂u (B, K, D)."""
        result: Array = self.input_slopes[:, self._evaluator.states]
        return result

    @property
    def state_slopes(self) -> Array:
        """∂<M>/∂q (B, M, K)."""
        if self._source.probed is not None:
            return self._source.probed.all_slopes(self.state)
        result: Array = self.input_slopes @ self._evaluator.injection
        return result

    @property
    def input_slopes(self) -> Array:
        """∂<M>/∂u (B, M, D)."""
        if self._slopes is None:
            self._fetch(slopes=True)
        assert self._slopes is not None
        return self._slopes

    @property
    def weight_slopes(self) -> Array:
        """∂<M>/∂θ (B, M, p); with it everything else that differentiates here is fetched.

        Raises:
            InputError: for a gradient method that estimates sums over the batch only.
        """
        if self._measured is not None:
            return self._measured.weight_slopes
        if self._evaluator.sampling.draws_shifts:
            raise InputError(
                f"gradient_method {self._evaluator.sampling.gradient_method!r} estimates the gradient of one scalar, not of "
                "every output of every sample: use Sampling(gradient_method='shift') or 'fixed'"
            )
        if self._plan is None:
            self._fetch(slopes=self._source.probed is None, gradient=True)
        assert self._plan is not None
        plan, values = self._plan
        result: Array = plan.slopes(values) @ self._source.bound.slopes
        return result

    def pull_inputs(self, cotangent: Array) -> Array:
        """(∂m/∂u)ᵀ cotangent: (B, K) -> (B, D)."""
        result: Array = np.einsum("bj,bjd->bd", cotangent, self.input_jacobian)
        return result

    def gradient_plan(self, cotangent: Array) -> tuple[Plan, Array, Array | None]:
        """What gives the weight gradient for C (B, M): rows and, if they were fetched already, their values."""
        if self._measured is not None:
            return self._measured.gradient_plan(cotangent)
        if self._plan is not None:
            plan, values = self._plan
            return plan, cotangent, values
        return self._source.plan(self._source.base_rows(self._inputs), cotangent, self._inputs), cotangent, None

    def _fetch(self, slopes: bool = False, gradient: bool = False) -> None:
        """Measure what is missing here, and what is expected to be asked for, as one job."""
        source = self._source
        base = source.base_rows(self._inputs)
        slopes = (slopes or ("jacobian" in source.expect and source.probed is None)) and self._slopes is None
        gradient = (gradient or "gradient" in source.expect) and self._plan is None
        expected = None
        if gradient and self._evaluator.sampling.draws_shifts:
            # chosen shifts are weighted with the cotangent, which is not known yet; a probed map foresees it
            expected = source.foreseen(self.state)
            gradient = expected is not None
        requests, reduce, plan = [], None, None
        missing = np.flatnonzero(np.isnan(self._forward.states).any(axis=1))
        if len(missing):
            requests.append(source.request(base[missing], "forward"))
        if slopes:
            rows, reduce = source.encoder_shifts(self._inputs, base)
            requests.append(source.request(rows, "jacobian"))
        if gradient:
            plan = source.plan(base, expected, self._inputs)
            requests.append(source.request(plan.rows, "gradient"))
        if not requests:
            return
        upcoming = self._evaluator.upcoming
        read_ahead = None
        if gradient and upcoming is not None:
            probing, read_ahead = source.probing(upcoming)
            requests += probing
        found = iter(source.run(requests)[0])
        if len(missing):
            self._forward.put(missing, self.state[missing], next(found))
        if reduce is not None:
            self._slopes = reduce(next(found).values)
        if plan is not None:
            self._plan = (plan, next(found).values)
        if read_ahead is not None:
            self._evaluator.ahead = read_ahead(list(found))


def floored_errors(measured: Measurement, observables: Array) -> Array | None:
    """Standard errors (b, len(observables)); None if exact, and never zero for a finite number of shots.

    Shots that all gave the same outcome report a zero that no residual could be compared with.
    """
    if not measured.shots.any():
        return None
    result: Array = np.maximum(measured.std_errors[:, observables], 1 / np.maximum(measured.shots, 1)[:, None])
    return result
