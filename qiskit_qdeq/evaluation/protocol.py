"""What every evaluator of the model function offers to the layers above it, which know no circuits.

For weights θ and a minibatch x an evaluator makes an `EquilibriumMap`: q -> m(x + P q; θ), its Jacobian, the readout
features and the gradients of both. Shapes: B samples, K states, F readouts, D inputs, p weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


class Part(Enum):
    """Parts of a run between two optimizer steps, whose random choices are independent."""

    TRAINING = 0
    VALIDATION = 1
    TEST = 2


@dataclass(frozen=True)
class Cost:
    """What an evaluation would cost or has cost: circuits executed, shots taken, jobs submitted, PUBs in them.

    `qpu_seconds` is the time a device is busy with them by IBM's formula, see `execution.timing`; 0 where there is no device
    to tell how long its gates take.
    """

    circuits: int = 0
    shots: int = 0
    jobs: int = 0
    pubs: int = 0
    qpu_seconds: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.circuits + other.circuits,
            self.shots + other.shots,
            self.jobs + other.jobs,
            self.pubs + other.pubs,
            self.qpu_seconds + other.qpu_seconds,
        )

    def __sub__(self, other: Cost) -> Cost:
        return self + -1 * other

    def __rmul__(self, count: int) -> Cost:
        return Cost(
            count * self.circuits,
            count * self.shots,
            count * self.jobs,
            count * self.pubs,
            count * self.qpu_seconds,
        )


@dataclass(frozen=True)
class Evaluation:
    """Expectation values, their standard errors (None: exact) and what they cost."""

    values: Array
    std_errors: Array | None = None
    cost: Cost = field(default_factory=Cost)


@dataclass(frozen=True)
class Cotangent:
    """One summand of a scalar L whose weight gradient is wanted, at one point.

    Attributes:
        point: where the map was evaluated.
        values: ∂L/∂m (B, K), or None.
        features: ∂L/∂h (B, F), or None.
        directions: T (B or 1, R, D) input directions, or None.
        slopes: c (B, K, R): L contains Σ c_bjr (∂m_j/∂u · T_br); given together with `directions`.
        pulled: what an evaluator already computed for exactly these cotangents, for its own later use.
    """

    point: EvaluationPoint
    values: Array | None = None
    features: Array | None = None
    directions: Array | None = None
    slopes: Array | None = None
    pulled: Array | None = None


class EvaluationPoint(Protocol):
    """The map of a whole minibatch at one state q (B, K); what was computed once is kept."""

    state: Array

    @property
    def values(self) -> Array:
        """m(x + P q) (B, K)."""

    @property
    def features(self) -> Array:
        """h(x + P q) (B, F)."""

    @property
    def jacobian(self) -> Array:
        """∂m/∂q (B, K, K)."""

    @property
    def input_jacobian(self) -> Array:
        """∂m/∂u (B, K, D)."""

    def pull_inputs(self, cotangent: Array) -> Array:
        """(∂m/∂u)ᵀ cotangent: (B, K) -> (B, D)."""

    @property
    def state_slopes(self) -> Array:
        """∂(m, h)/∂q of every output by itself, fed back ones first (B, K + F, K)."""

    @property
    def input_slopes(self) -> Array:
        """∂(m, h)/∂u (B, K + F, D)."""

    @property
    def weight_slopes(self) -> Array:
        """∂(m, h)/∂θ at a fixed state (B, K + F, p)."""

    def pull_features(self, cotangent: Array) -> Array:
        """(∂h/∂q)ᵀ cotangent: (B, F) -> (B, K)."""

    def implicit_term(self, cotangent: Array) -> Cotangent:
        """The whole weight dependence of a scalar with ∂L/∂h = cotangent (B, F) at an equilibrium.

        Its `values` are λ = (1 - Jᵀ)⁻¹ (∂h/∂q)ᵀ cotangent, NaN where 1 - J is singular.
        """


class RootProblem(Protocol):
    """What solvers iterate: a map of B states of K entries and its Jacobian."""

    batch: int
    num_states: int

    def values(self, state: Array, rows: Array) -> Evaluation:
        """m at `state` (b, K) for the samples `rows` (b,) of the minibatch; a sample may occur more than once."""

    def linearize(self, state: Array, rows: Array) -> tuple[Evaluation, Array]:
        """m and ∂m/∂q (b, K, K) at `state` for the samples `rows`."""


class EquilibriumMap(RootProblem, Protocol):
    """q -> m(x + P q; θ) for the samples of one minibatch at fixed weights.

    A map that knows m in closed form has a property `closed_form` (a `RationalQuadratic` or a `MultilinearMap`), so that
    solving it needs no circuit at all, and a method `remember` that is given what the solve computed at its solution. A map
    that can be measured as one has a method `probe`, see `probe.ProbedMap`. `cost` is what all evaluations have cost so far.
    """

    cost: Cost

    def at(self, state: Array) -> EvaluationPoint:
        """The whole minibatch at `state` (B, K)."""

    def pull_back(self, terms: Sequence[Cotangent]) -> Array:
        """∂L/∂θ (p,) of the sum of the terms, in one adjoint pass."""


class BoundEvaluator(Protocol):
    """An evaluator at fixed weights; what depends on θ alone is shared by all its maps."""

    def map(self, inputs: Array, expect: Sequence[str] = ()) -> EquilibriumMap:
        """The map of the samples `inputs` (B, D).

        `expect` names what the points made by `at` will be asked for, "jacobian" or "gradient", so that an evaluator that
        measures can do so together with the values.
        """


class Evaluator(Protocol):
    """Evaluates the model function of one circuit template and one injection.

    `is_exact` tells whether it computes or measures: measuring costs circuits. `description` says in plain values how.
    """

    is_exact: bool
    #: Inputs of the next minibatch, which an evaluator that measures may probe together with this one's gradient.
    upcoming: Array | None

    @property
    def description(self) -> dict[str, Any]:
        """Plain values that differ where two evaluators would not continue each other's run."""

    def start_step(self, step: int, total: int, part: Part = Part.TRAINING) -> None:
        """Move what changes over a training run, precision and random choices, to a part of it."""

    def arrays(self) -> dict[str, Array]:
        """What was measured ahead of its use, for a checkpoint."""

    def restore(self, arrays: Mapping[str, Array]) -> None:
        """Take `arrays()` of an earlier process."""

    def already_spent(self, cost: Cost) -> None:
        """Count what earlier processes of the same run have spent, where there is a budget."""

    def interrupt(self) -> None:
        """End waiting for a service, now or when it begins; safe in a signal handler."""

    def listen(self, listener: Callable[[Any], None]) -> None:
        """Let `listener` be told of what happens to jobs at a service, where there is one."""

    def bind(self, weights: Array) -> BoundEvaluator:
        """Fix the circuit parameters θ (p,)."""


class ExactEvaluator:
    """What all evaluators have in common that compute: nothing changes over a run, and each may continue another's."""

    is_exact = True
    upcoming: Array | None = None

    @property
    def description(self) -> dict[str, Any]:
        """Nothing to tell apart."""
        return {}

    def start_step(self, step: int, total: int, part: Part = Part.TRAINING) -> None:
        """Nothing to move."""

    def arrays(self) -> dict[str, Array]:
        """Nothing is measured."""
        return {}

    def restore(self, arrays: Mapping[str, Array]) -> None:
        """Nothing to take."""

    def already_spent(self, cost: Cost) -> None:
        """Nothing is spent."""

    def interrupt(self) -> None:
        """Nothing is waited for."""

    def listen(self, listener: Callable[[Any], None]) -> None:
        """There are no jobs."""
