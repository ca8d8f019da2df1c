"""What a whole training run will cost on a backend before any of it is run: per step, epoch and evaluation, and in all.

The sum over all steps, smaller last minibatches, warm-up and growing shots included, of what `cost` predicts for each.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from qiskit_qdeq._html import grid
from qiskit_qdeq.circuits._checks import check_count
from qiskit_qdeq.equilibrium.probe import Probe
from qiskit_qdeq.equilibrium.solvers import Solver
from qiskit_qdeq.evaluation.estimator import EstimatorEvaluator
from qiskit_qdeq.evaluation.protocol import Cost
from qiskit_qdeq.evaluation.sampling import PURPOSES, Sampling, progress_of
from qiskit_qdeq.execution.primitives import shots_for
from qiskit_qdeq.model import QDEQModel
from qiskit_qdeq.training.config import TrainingConfig
from qiskit_qdeq.training.cost import predicted_evaluation, predicted_step

#: What IBM's free plan gives in 28 days, rolling: https://quantum.cloud.ibm.com/docs/en/guides/plans-overview
OPEN_PLAN_SECONDS = 600
_COLUMNS = ("", "jobs", "circuits", "shots", "QPU time")


@dataclass(frozen=True)
class CostEstimate:
    """What a run will cost; printing it gives a table, `as_dict` plain values.

    QPU seconds follow IBM's formula (`execution.timing`): what the run counts in job and batch mode. A session counts the
    time it is open, so what this computer does between jobs comes on top.

    Attributes:
        steps: training steps.
        batch_size: samples of a step; the last one of an epoch may have fewer.
        first_step, last_step: of that many samples; they differ where shots grow.
        epochs: the training steps of each epoch.
        validations: each epoch's validation, () if there is none.
        test: evaluations after the run, or without one.
        exact: this is what will be executed; False: no more than this, as solvers stop when they can and patience may
            end the run early.
        solver_steps: steps of an iterating solver that were assumed; None: as many as it may take.
    """

    steps: int
    batch_size: int
    first_step: Cost
    last_step: Cost
    epochs: tuple[Cost, ...]
    validations: tuple[Cost, ...]
    test: Cost
    exact: bool
    solver_steps: int | None = None

    @classmethod
    def of_evaluation(cls, model: QDEQModel, samples: int, solver: Solver | None, *, layers: int = 1) -> CostEstimate:
        """What `inference.predict` or `evaluate` alone will cost.

        Raises:
            InputError: see `cost.predicted_evaluation`.
        """
        cost = predicted_evaluation(model, samples, solver, layers=layers)
        return cls(0, 0, Cost(), Cost(), (), (), cost, solver is None or isinstance(solver, Probe))

    @property
    def total(self) -> Cost:
        """Of the whole run."""
        return sum((*self.epochs, *self.validations, self.test), Cost())

    def as_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold."""
        return {**asdict(self), "total": asdict(self.total)}

    def _repr_html_(self) -> str:
        return grid("CostEstimate", _COLUMNS, (_cells(label, cost) for label, cost in self._rows()), self._remarks())

    def __repr__(self) -> str:
        total = self.total
        return (
            f"CostEstimate({self.steps:,} steps, {'' if self.exact else 'at most '}{total.jobs:,} jobs, "
            f"{total.circuits:,} circuits, {total.shots:,} shots, QPU time {_clock(total.qpu_seconds)})"
        )

    def __str__(self) -> str:
        rows = [_COLUMNS, *(_cells(label, cost) for label, cost in self._rows())]
        widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
        lines = [
            "  ".join(
                [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
            )
            for row in rows
        ]
        return "\n".join([*lines, *self._remarks()])

    def _rows(self) -> Iterator[tuple[str, Cost]]:
        yield from _range(f"step ({self.batch_size} samples)", (self.first_step, self.last_step))
        yield from _range("epoch", self.epochs)
        yield from _range("validation", self.validations)
        if self.test.jobs:
            yield "evaluation at the end" if self.steps else "evaluation", self.test
        if self.steps or not self.test.jobs:
            yield f"whole run ({self.steps:,} steps)", self.total

    def _remarks(self) -> Iterator[str]:
        total = self.total
        if not total.jobs:
            yield "Nothing is executed: the model is computed exactly, or nothing is left to do."
            return
        if self.exact:
            yield "Exactly this will be executed."
        elif self.solver_steps is not None:
            yield f"This is for {self.solver_steps} solver steps for all samples together."
        else:
            yield "At most this will be executed: solvers stop when they are done, and patience may end a run early."
        if not total.qpu_seconds:
            yield "QPU time is known for devices and fake devices, and shots."
            return
        share = total.qpu_seconds / OPEN_PLAN_SECONDS
        amount = f"{share:.1%} of that" if share < 1 else f"{share:,.1f} times as much"
        yield f"IBM's Open Plan allows {OPEN_PLAN_SECONDS} s of QPU time in 28 days; this is {amount}."


def estimate_cost(
    model: QDEQModel,
    config: TrainingConfig,
    train_samples: int,
    valid_samples: int = 0,
    test_samples: int | Sequence[int] = 0,
    *,
    solver_steps: int | None = None,
    first_step: int = 0,
) -> CostEstimate:
    """What `Trainer(model, config, ...).run()` and evaluations after it will cost, without running anything.

    Args:
        model: one whose evaluator measures, as `executed` gives it; exact models cost nothing.
        config: the run; `patience` is taken to end nothing early.
        train_samples: training samples.
        valid_samples: validation samples, evaluated after every epoch.
        test_samples: samples evaluated once after training; several numbers for several parts.
        solver_steps: steps of an iterating solver, all samples together; default: its `max_steps`, an upper bound.
        first_step: steps a resumed run has behind it.

    Raises:
        InputError: for impossible numbers, and for what the run itself would refuse; see `cost.predicted_step`.

    >>> from qiskit_qdeq import Execution, estimate_cost, executed, model_config, solver
    >>> model = model_config("default", 16, 4, 4).build()
    >>> config = TrainingConfig(solver=solver("probe"), epochs=5, batch_size=16)
    >>> with executed(model, Execution("aer", shots=1024)) as measured:
    ...     print(estimate_cost(measured, config, train_samples=40, valid_samples=20))
                            jobs  circuits       shots  QPU time
    each step (16 samples)     2     1,194   1,222,656         -
    each epoch                 6     2,990   3,061,760         -
    each validation            2       130     133,120         -
    whole run (15 steps)      40    15,600  15,974,400         -
    Exactly this will be executed.
    QPU time is known for devices and fake devices, and shots.
    """
    parts = [test_samples] if isinstance(test_samples, int) else list(test_samples)
    for name, value, least in (("train_samples", train_samples, 1), ("valid_samples", valid_samples, 0)):
        check_count(name, value, least)
    for value in parts:
        check_count("test_samples", value, 0)
    check_count("first_step", first_step, 0)
    batch = min(config.batch_size, train_samples)
    per_epoch = math.ceil(train_samples / batch)
    total = per_epoch * config.epochs
    steps = _Steps(model, config, total, solver_steps, (batch, train_samples - (per_epoch - 1) * batch, per_epoch))
    epochs, validations = [], []
    for end in range(per_epoch, total + 1, per_epoch):
        if end > first_step:
            whole = range(max(first_step, end - per_epoch), end - 1)
            epochs.append(steps.cost(whole, batch) + steps.cost([end - 1], train_samples - (per_epoch - 1) * batch))
            validations.append(steps.evaluation(end - 1, valid_samples))
    left = max(0, total - first_step)
    last = total - 1
    return CostEstimate(
        left,
        batch,
        steps.cost([first_step] if left else [], batch),
        steps.cost([last] if left else [], batch),
        tuple(epochs),
        tuple(validations) if valid_samples else (),
        sum((steps.evaluation(last, samples, after=True) for samples in parts), Cost()),
        (config.mode == "direct" or isinstance(config.solver, Probe)) and not (config.patience and valid_samples),
        None if config.mode == "direct" or isinstance(config.solver, Probe) else solver_steps,
    )


class _Steps:
    """The costs of the steps of a run; those that ask for the same are predicted once."""

    def __init__(
        self,
        model: QDEQModel,
        config: TrainingConfig,
        total: int,
        solver_steps: int | None,
        batches: tuple[int, int, int],
    ) -> None:
        #: Samples of a step, of an epoch's last step, and steps of an epoch.
        self._batch, self._last_batch, self._per_epoch = batches
        self._model, self._config, self._total, self._solver_steps = model, config, total, solver_steps
        evaluator = model.evaluator
        self._sampling = evaluator.sampling if isinstance(evaluator, EstimatorEvaluator) else Sampling()
        self._known: dict[tuple[Any, ...], Cost] = {}

    def cost(self, steps: Sequence[int], batch: int) -> Cost:
        """Of training steps of `batch` samples each."""
        # one step stands for all that ask for the same
        alike: dict[tuple[Any, ...], list[int]] = {}
        for step in steps:
            key = ("step", batch, self._is_direct(step), self._shots(step), *self._ahead(step).values())
            found = alike.setdefault(key, [step, 0])
            found[1] += 1
        total = Cost()
        for key, (step, count) in alike.items():
            if key not in self._known:
                self._known[key] = predicted_step(
                    self._model,
                    self._config,
                    batch,
                    self._solver_steps,
                    direct=self._is_direct(step),
                    progress=progress_of(step, self._total),
                    **self._ahead(step),
                )
            total += count * self._known[key]
        return total

    def evaluation(self, step: int, samples: int, *, after: bool = False) -> Cost:
        """Of evaluating samples when `step` was the last one taken; `after` the run, warm-up or not."""
        config = self._config
        direct = config.mode == "direct" if after else self._is_direct(step)
        key = ("evaluation", samples, direct, self._shots(step))
        if key not in self._known:
            self._known[key] = predicted_evaluation(
                self._model,
                samples,
                None if direct else config.solver,
                layers=config.layers,
                solver_steps=self._solver_steps,
                progress=progress_of(step, self._total),
            )
        return self._known[key]

    def _ahead(self, step: int) -> dict[str, Any]:
        """Whether the step before has probed this step's samples, and how many this one probes for the next."""
        first, config = self._config.warmup_steps, self._config
        if config.mode == "direct" or step < first or not getattr(config.solver, "ahead", False):
            return {"probed": False, "upcoming": 0}
        following = step + 1
        is_last = following % self._per_epoch == self._per_epoch - 1
        size = self._last_batch if is_last else self._batch
        return {"probed": step > first, "upcoming": size if following < self._total else 0}

    def _is_direct(self, step: int) -> bool:
        return self._config.mode == "direct" or step < self._config.warmup_steps

    def _shots(self, step: int) -> tuple[int, ...]:
        """Shots of each purpose: what distinguishes the requests of one step from those of another."""
        if self._sampling.growth == 1:
            return ()
        progress = progress_of(step, self._total)
        precisions = (self._sampling.precision(purpose, progress) for purpose in PURPOSES)
        return tuple(0 if precision is None else shots_for(precision) for precision in precisions)


def _range(name: str, costs: Sequence[Cost]) -> Iterator[tuple[str, Cost]]:
    """One row if the costs are the same, else the first and the last."""
    if not costs or not any(cost.jobs for cost in costs):
        return
    if all(cost == costs[0] for cost in costs):
        yield f"each {name}", costs[0]
    else:
        yield f"first {name}", costs[0]
        yield f"last {name}", costs[-1]


def _cells(label: str, cost: Cost) -> tuple[str, ...]:
    return label, f"{cost.jobs:,}", f"{cost.circuits:,}", f"{cost.shots:,}", _clock(cost.qpu_seconds)


def _clock(seconds: float) -> str:
    """Seconds, rounded up, as h:mm:ss.

    >>> _clock(3725.2)
    '1:02:06'
    """
    if not seconds:
        return "-"
    minutes, rest = divmod(math.ceil(seconds), 60)
    return f"{minutes // 60:,}:{minutes % 60:02}:{rest:02}"
