"""Spending a budget of QPU seconds well: shots, minibatches and steps for it, before anything is spent.

    T = n · (t_job + (r_f f + r_g g) τ / k) + evaluation

One job a step (`Probe(ahead=True)`) of r_f rows for values and probes at f shots and r_g shifted rows at g shots, k copies
of the circuit at a time, τ seconds each execution. Half of a step is overhead: more shots in fewer steps, or fewer in more,
change little then. f = 3 g, because an error of what is read out is in the gradient of every shift. Shots grow over the
run: early steps need a direction, late ones a precise one.
"""

from __future__ import annotations

import copy
import math
from dataclasses import asdict, dataclass, replace
from typing import Any

from qiskit_qdeq.equilibrium.probe import Probe
from qiskit_qdeq.evaluation.estimator import EstimatorEvaluator
from qiskit_qdeq.evaluation.sampling import Sampling
from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.model import QDEQModel
from qiskit_qdeq.training.config import TrainingConfig
from qiskit_qdeq.training.cost import predicted_evaluation, predicted_step
from qiskit_qdeq.training.cost_estimate import CostEstimate, estimate_cost

#: Shots of values over shots of a shifted circuit.
FORWARD_RATIO = 3
#: Shots of the last step over shots of the first.
GROWTH = 4.0
#: Shots of a shifted circuit, in the middle of the run: fewer are not worth a circuit, more not worth a step.
_FEWEST, _MOST = 16, 4096


@dataclass(frozen=True)
class EconomyPlan:
    """How a budget will be spent.

    Attributes:
        seconds: the budget.
        copies: of the circuit that are executed together.
        batch_size: samples of a step.
        epochs: passes over `samples`.
        samples: training samples used.
        sampling: shots per purpose, of the first step, and their growth.
        estimate: the cost by IBM's formula.
    """

    seconds: float
    copies: int
    batch_size: int
    epochs: int
    samples: int
    sampling: Sampling
    estimate: CostEstimate

    @property
    def steps(self) -> int:
        """n."""
        return self.estimate.steps

    def as_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold."""
        return {**{name: value for name, value in asdict(self).items() if name != "estimate"}, "steps": self.steps}

    @property
    def headline(self) -> str:
        """Steps, samples, copies and shots in two lines."""
        first, growth = self.sampling, self.sampling.growth
        assert first.forward is not None
        assert first.gradient is not None
        return "\n".join(
            [
                f"plan for {self.seconds:,.0f} s of QPU time: {self.steps:,} step{'s' * (self.steps > 1)} of "
                f"{self.batch_size} samples ({self.epochs} x {self.samples:,}), one job each, "
                f"{self.copies} cop{'ies' if self.copies > 1 else 'y'} of the circuit at a time",
                f"shots: values {first.forward:,.0f} to {growth * first.forward:,.0f}, shifts {first.gradient:,.0f} to "
                f"{growth * first.gradient:,.0f} from the first step to the last",
            ]
        )

    def __str__(self) -> str:
        return f"{self.headline}\n{self.estimate}"


def plan_economy(
    model: QDEQModel, config: TrainingConfig, seconds: float, train_samples: int, test_samples: int = 0
) -> EconomyPlan:
    """Shots, epochs and samples that a budget of QPU seconds is enough for.

    Args:
        model: one measured on the device, with its copies; how it is sampled so far does not matter.
        config: the run; its solver must be `Probe(ahead=True)`, its `epochs` do not matter.
        seconds: the budget.
        train_samples: there are; fewer are used if the budget is not enough for one epoch.
        test_samples: to be evaluated at the end, once.

    Raises:
        InputError: if the backend tells no durations, or the budget is not enough for a step and the evaluation.
    """
    evaluator = model.evaluator
    if not isinstance(evaluator, EstimatorEvaluator) or evaluator.runner.timing is None:
        raise InputError("economy needs a device, or a fake one, whose durations are known: fake:NAME or ibm:NAME")
    if not (isinstance(config.solver, Probe) and config.solver.ahead):
        raise InputError(f"economy needs solver Probe(ahead=True), got {config.solver!r}")
    if not 0 < seconds < math.inf:
        raise InputError(f"seconds of the budget must be a positive number, got {seconds!r}")
    batch = min(config.batch_size, train_samples)

    def step(shots: int) -> float:
        return predicted_step(_sampled(model, shots, 1.0), config, batch, probed=True, upcoming=batch).qpu_seconds

    def evaluation(shots: int) -> float:
        # the last shots of a run are twice those of its middle
        return predicted_evaluation(_sampled(model, shots, GROWTH), test_samples, config.solver, progress=1).qpu_seconds

    shots = _largest(lambda count: step(count) <= 2 * evaluator.runner.timing.job_seconds, _FEWEST, _MOST)
    available = seconds - evaluation(shots) - step(shots)
    steps = int(available // step(shots))
    per_epoch = math.ceil(train_samples / batch)
    epochs = max(1, steps // per_epoch)
    samples = train_samples if steps >= per_epoch else steps * batch
    if steps < 1:
        raise InputError(
            f"a budget of {seconds:g} s is not enough: a step takes {step(shots):.1f} s and the evaluation of "
            f"{test_samples} samples {evaluation(shots):.1f} s; take more, fewer test samples (--limit) or more copies"
        )
    chosen = replace(config, epochs=epochs)

    def total(count: int) -> CostEstimate:
        return estimate_cost(_sampled(model, count, GROWTH), chosen, samples, 0, test_samples)

    shots = _largest(lambda count: total(count).total.qpu_seconds <= seconds, 1, _MOST)
    planned = _sampled(model, shots, GROWTH)
    copies = len(getattr(evaluator.runner, "copies", (None,)))
    found = planned.evaluator
    assert isinstance(found, EstimatorEvaluator)
    return EconomyPlan(seconds, copies, batch, epochs, samples, found.sampling, total(shots))


def _sampled(model: QDEQModel, shots: int, growth: float) -> QDEQModel:
    """The model with about `shots` shots for a shift in the middle of the run."""
    other, evaluator = copy.copy(model), copy.copy(model.evaluator)
    assert isinstance(evaluator, EstimatorEvaluator)
    first = max(1, round(shots / math.sqrt(growth)))
    evaluator.sampling = Sampling(forward=FORWARD_RATIO * first, gradient=first, growth=growth)
    other.evaluator = evaluator
    return other


def _largest(allowed: Any, least: int, most: int) -> int:
    """The largest integer for which a condition holds that fails from somewhere on; `least` if it never does."""
    while least < most:
        middle = (least + most + 1) // 2
        least, most = (middle, most) if allowed(middle) else (least, middle - 1)
    return least
