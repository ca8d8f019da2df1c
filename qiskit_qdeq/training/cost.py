"""What a training step or a prediction will cost before it is run, by the same plan that runs it.

The number of steps an iterating solver takes is not known beforehand, nor when samples leave its PUB: with the largest
number of steps the prediction is an upper bound. For `probe` it is exact.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from qiskit_qdeq.equilibrium.probe import Probe
from qiskit_qdeq.equilibrium.solvers import Broyden, Solver
from qiskit_qdeq.evaluation.estimator import EstimatorEvaluator
from qiskit_qdeq.evaluation.protocol import Cost
from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.execution.runner import Request
from qiskit_qdeq.model import QDEQModel
from qiskit_qdeq.training.config import TrainingConfig


def predicted_step(model: QDEQModel, config: TrainingConfig, batch: int, solver_steps: int | None = None) -> Cost:
    """Circuits, shots, jobs and PUBs of one training step of `batch` samples.

    Args:
        model: one whose evaluator measures, as `executed` gives it; exact models cost nothing.
        config: the run.
        batch: samples.
        solver_steps: steps of an iterating solver, all samples together; default: its `max_steps`, an upper bound.

    Raises:
        InputError: for a solver whose requests depend on what it finds (`scipy:*`), or fewer than one sample.

    >>> from qiskit_qdeq import Execution, executed, model_config, solver
    >>> model = model_config("default", 16, 4, 4).build()
    >>> with executed(model, Execution("aer", shots=1000)) as measured:
    ...     predicted_step(measured, TrainingConfig(solver=solver("probe")), batch=32)
    Cost(circuits=2378, shots=2378000, jobs=2, pubs=4, qpu_seconds=0.0)
    """
    evaluator = model.evaluator
    if batch < 1:
        raise InputError(f"batch must be >= 1, got {batch!r}")
    if not isinstance(evaluator, EstimatorEvaluator):
        return Cost()
    plan = _Plan(evaluator, batch)
    if config.mode == "direct":
        return plan.direct(config.layers)
    return plan.solve(config.solver, solver_steps) + plan.differentiate(config.solver)


class _Plan:
    """The jobs of a step, as numbers of rows per purpose."""

    def __init__(self, evaluator: EstimatorEvaluator, batch: int) -> None:
        self._evaluator, self._batch = evaluator, batch
        gates, first = evaluator.gates, evaluator.gates.num_encoder_angles
        terms = [len(rule.shifts) for rule in gates.rules]
        self._encoder_shifts, self._weight_shifts = batch * sum(terms[:first]), batch * sum(terms[first:])

    def job(self, **rows: int) -> Cost:
        """One job of a request per purpose; a purpose may be numbered, as in `forward2`."""
        evaluator = self._evaluator
        width = len(evaluator.runner.parameters)
        requests = [
            Request(np.zeros((count, width)), None, evaluator.precision(purpose.rstrip("2")))
            for purpose, count in rows.items()
            if count
        ]
        return evaluator.runner.predict(requests) if requests else Cost()

    def solve(self, solver: Solver, steps: int | None) -> Cost:
        """The forward solve."""
        batch, size = self._batch, self._evaluator.injection.shape[1]
        if isinstance(solver, Probe):
            probing = self.job(forward=batch * (size + 1), forward2=size * (size + 1) // 2)
            return probing + max(0, solver.corrections - 1) * self.job(forward=batch)
        if solver.name == "scipy":
            raise InputError("the cost of solver 'scipy:...' depends on what it finds and cannot be predicted")
        count = solver.max_steps if steps is None else steps
        with_jacobian = self.job(forward=batch, jacobian=self._encoder_shifts)
        if solver.needs_jacobian:
            return (count + 1) * with_jacobian
        first = isinstance(solver, Broyden) and solver.starts_with_jacobian
        return (with_jacobian if first else self.job(forward=batch)) + count * self.job(forward=batch)

    def differentiate(self, solver: Solver) -> Cost:
        """The readout at the solution and both gradients: one job, and one more for sampled weight shifts."""
        probing = isinstance(solver, Probe)
        sampling = self._evaluator.sampling
        rows: dict[str, Any] = {"forward": self._batch} if probing else {"jacobian": self._encoder_shifts}
        if sampling.gradient_method == "shift":
            return self.job(**rows, gradient=self._weight_shifts)
        return self.job(**rows) + self.job(gradient=self._batch * sampling.gradient_circuits)

    def direct(self, layers: int) -> Cost:
        """Explicit layers: values and weight shifts of each in one job, then the Jacobians of all but the first."""
        sampling, batch = self._evaluator.sampling, self._batch
        jacobians = (layers - 1) * self.job(jacobian=self._encoder_shifts)
        if sampling.gradient_method == "shift":
            return layers * self.job(forward=batch, gradient=self._weight_shifts) + jacobians
        sampled = self.job(**{"gradient" + "2" * layer: batch * sampling.gradient_circuits for layer in range(layers)})
        return layers * self.job(forward=batch) + jacobians + sampled
