"""Zero-noise extrapolation without shots: expectation values as a fixed combination of those under several noises.

    m(q) = Σ_s c_s m_s(q),    ∂m/∂q = Σ_s c_s ∂m_s/∂q,    ∂L/∂θ = Σ_s ∂/∂θ (c_s ∂L/∂m · m_s)

An equilibrium is one of the extrapolated map, as it is found where every measured value is mitigated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from qiskit_qdeq.evaluation.protocol import BoundEvaluator, Cost, Cotangent, Evaluation, ExactEvaluator
from qiskit_qdeq.evaluation.sloped_point import SlopedPoint

Array = np.ndarray[Any, np.dtype[Any]]


class Extrapolated(ExactEvaluator):
    """Exact evaluators of one template, combined.

    Args:
        parts: the evaluators m_s.
        coefficients: c_s.
    """

    def __init__(self, parts: Sequence[Any], coefficients: Sequence[float]) -> None:
        self.parts, self.coefficients = tuple(parts), tuple(coefficients)

    @property
    def description(self) -> dict[str, Any]:
        """Those of the parts, with their coefficients."""
        parts = [part.description for part in self.parts]
        return {"extrapolated": parts, "coefficients": list(self.coefficients)}

    def bind(self, weights: Array) -> BoundEvaluator:
        """Bind every part; the maps know no derivatives along inputs, which Jacobian penalties would take."""
        return _Bound([part.bind(weights) for part in self.parts], self.coefficients)  # type: ignore[return-value]


class _Bound:
    def __init__(self, parts: Sequence[Any], coefficients: Sequence[float]) -> None:
        self._parts, self._coefficients = parts, coefficients

    def map(self, inputs: Array, expect: Sequence[str] = ()) -> _Map:
        return _Map([part.map(inputs, expect) for part in self._parts], self._coefficients)


class _Map:
    cost = Cost()

    def __init__(self, parts: Sequence[Any], coefficients: Sequence[float]) -> None:
        self.parts, self.coefficients = parts, coefficients
        self.batch, self.num_states = parts[0].batch, parts[0].num_states

    def combined(self, arrays: Sequence[Array]) -> Array:
        result: Array = np.tensordot(self.coefficients, np.array(arrays), axes=1)
        return result

    def values(self, state: Array, rows: Array) -> Evaluation:
        return Evaluation(self.combined([part.values(state, rows).values for part in self.parts]))

    def linearize(self, state: Array, rows: Array) -> tuple[Evaluation, Array]:
        found = [part.linearize(state, rows) for part in self.parts]
        values = self.combined([evaluation.values for evaluation, _ in found])
        return Evaluation(values), self.combined([jacobian for _, jacobian in found])

    def at(self, state: Array) -> _Point:
        return _Point(self, state)

    def pull_back(self, terms: Sequence[Cotangent]) -> Array:
        total: Any = 0.0
        for place, (part, factor) in enumerate(zip(self.parts, self.coefficients, strict=True)):
            total = total + part.pull_back([_scaled(term, place, factor) for term in terms])
        result: Array = total
        return result


class _Point(SlopedPoint):
    def __init__(self, source: _Map, state: Array) -> None:
        self._source, self.state = source, state
        self.parts = [part.at(state) for part in source.parts]
        states = state.shape[1]
        super().__init__(np.arange(states), states + np.arange(self.features.shape[1]))

    @cached_property
    def values(self) -> Array:
        return self._source.combined([part.values for part in self.parts])

    @cached_property
    def features(self) -> Array:
        return self._source.combined([part.features for part in self.parts])

    @cached_property
    def state_slopes(self) -> Array:
        return self._source.combined([part.state_slopes for part in self.parts])


def _scaled(term: Cotangent, place: int, factor: float) -> Cotangent:
    """The summand of one part."""
    arrays = {
        name: None if (array := getattr(term, name)) is None else factor * array
        for name in ("values", "features", "slopes")
    }
    point: Any = term.point
    return replace(term, point=point.parts[place], pulled=None, **arrays)
