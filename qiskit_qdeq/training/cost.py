"""What a training step or an evaluation will cost before it is run, by the same plan that runs it.

The number of steps an iterating solver takes is not known beforehand, nor when samples leave its PUB: with the largest
number of steps the prediction is an upper bound. For `probe` and for explicit layers it is exact. `cost_estimate` adds up
whole runs.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from qiskit_qdeq.equilibrium.probe import Probe
from qiskit_qdeq.equilibrium.solvers import Broyden, Newton, Solver
from qiskit_qdeq.evaluation.estimator import EstimatorEvaluator
from qiskit_qdeq.evaluation.probe import refuse_other_encoders
from qiskit_qdeq.evaluation.protocol import Cost
from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.execution.primitives import sampling as sampling_of
from qiskit_qdeq.execution.runner import Request
from qiskit_qdeq.inference import block_size
from qiskit_qdeq.model import QDEQModel
from qiskit_qdeq.training.config import TrainingConfig


def predicted_step(
    model: QDEQModel,
    config: TrainingConfig,
    batch: int,
    solver_steps: int | None = None,
    *,
    direct: bool | None = None,
    progress: float | None = None,
    probed: bool = False,
    upcoming: int = 0,
) -> Cost:
    """Circuits, shots, jobs, PUBs and QPU seconds of one training step of `batch` samples.

    Args:
        model: one whose evaluator measures, as `executed` gives it; exact models cost nothing.
        config: the run.
        batch: samples.
        solver_steps: steps of an iterating solver, all samples together; default: its `max_steps`, an upper bound.
        direct: whether the step takes explicit layers, as those of a warm-up do; default: what `config.mode` says.
        progress: share of the run that is over, on which shots may depend (`Sampling.growth`); default: where the model's
            evaluator is.
        probed: whether the step before has probed this minibatch, as `Probe(ahead=True)` does.
        upcoming: samples of the next minibatch, if this step probes them.

    Raises:
        InputError: for a solver whose requests depend on what it finds (`scipy:*`), for what the run itself would refuse
            (Jacobian regularization, `probe` for another encoding), or for fewer than one sample.

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
    plan = _Plan(evaluator, batch, progress)
    if config.mode == "direct" if direct is None else direct:
        return plan.direct(config.layers)
    if config.regularization.active:
        raise InputError(
            f"regularization {config.regularization.kind!r} needs second derivatives, which are not measured: use the exact "
            "backend for it, or regularization 'none'"
        )
    start = config.layers if config.start == "direct" else 0
    solving = plan.solve(config.solver, solver_steps, probed=probed)
    return plan.layers(start) + solving + plan.differentiate(config.solver, upcoming)


def predicted_evaluation(
    model: QDEQModel,
    samples: int,
    solver: Solver | None,
    *,
    layers: int = 1,
    solver_steps: int | None = None,
    progress: float | None = None,
) -> Cost:
    """What `inference.predict`, and so `inference.evaluate`, costs for `samples` samples, in the blocks it takes them in.

    Args:
        model: see `predicted_step`.
        samples: how many; none cost nothing.
        solver: for the equilibrium; None for `layers` explicit layers.
        layers: L of direct mode.
        solver_steps, progress: see `predicted_step`.

    Raises:
        InputError: see `predicted_step`.
    """
    if samples < 0:
        raise InputError(f"samples must be >= 0, got {samples!r}")
    evaluator = model.evaluator
    if not isinstance(evaluator, EstimatorEvaluator):
        return Cost()

    def block(size: int) -> Cost:
        plan = _Plan(evaluator, size, progress)
        if solver is None:
            return plan.layers(layers)
        # the readout: `probe` is corrected by it, the others may have it from their last step
        return plan.solve(solver, solver_steps) + plan.layers(1)

    blocks, rest = divmod(samples, block_size(model))
    total = blocks * block(block_size(model)) if blocks else Cost()
    return total + block(rest) if rest else total


class _Plan:
    """The jobs of a minibatch, as numbers of rows per purpose."""

    def __init__(self, evaluator: EstimatorEvaluator, batch: int, progress: float | None) -> None:
        self._evaluator, self._batch = evaluator, batch
        self._progress = evaluator.progress if progress is None else progress
        gates, first = evaluator.gates, evaluator.gates.num_encoder_angles
        terms = [len(rule.shifts) for rule in gates.rules]
        size = evaluator.injection.shape[0]
        shifted = size * (size + 1) // 2 if evaluator.sampling.gradient_method == "fixed" else batch
        self._encoder_shifts, self._weight_shifts = batch * sum(terms[:first]), shifted * sum(terms[first:])

    def job(self, **rows: int) -> Cost:
        """One job of a request per purpose; a purpose may be numbered, as in `forward2`."""
        runner, sampling = self._evaluator.runner, self._evaluator.sampling
        width = len(runner.parameters)
        requests = [
            Request(np.broadcast_to(0.0, (count, width)), None, sampling.precision(purpose.rstrip("2"), self._progress))
            for purpose, count in rows.items()
            if count
        ]
        return runner.predict(requests) if requests else Cost()

    def layers(self, count: int) -> Cost:
        """Values of the whole batch, `count` times one after the other."""
        return count * self.job(forward=self._batch)

    def solve(self, solver: Solver, steps: int | None, *, probed: bool = False) -> Cost:
        """The forward solve, for `probe` without the measurement at its solution."""
        batch, size = self._batch, self._evaluator.injection.shape[1]
        if isinstance(solver, Probe):
            refuse_other_encoders(self._evaluator.template.encoder)
            probing = Cost() if probed else self.job(forward=batch * (size + 1), forward2=size * (size + 1) // 2)
            return probing + self.layers(max(0, solver.corrections - 1))
        if solver.name == "scipy":
            raise InputError("the cost of solver 'scipy:...' depends on what it finds and cannot be predicted")
        count = solver.max_steps if steps is None else steps
        if isinstance(solver, Newton):
            return self._newton(solver, count, bound=steps is None)
        if isinstance(solver, Broyden) and solver.starts_with_jacobian:
            return self._linearized() + self.layers(count)
        return self.layers(count + 1)

    def _newton(self, solver: Newton, count: int, *, bound: bool) -> Cost:
        iteration = (count + 1) * self._linearized()
        precision = self._evaluator.sampling.precision("forward", self._progress)
        if not bound or sampling_of(self._evaluator.estimator, precision).shots:
            return iteration
        # only without noise are steps shortened, all lengths in one job, and samples rescued by Broyden and Newton again
        if solver.shortenings:
            iteration += count * self._linearized(solver.shortenings)
        rescue = self.layers(solver.rescue_steps + 1) + iteration if solver.rescue_steps else Cost()
        return iteration + rescue

    def _linearized(self, points: int = 1) -> Cost:
        """Values and encoder shifts at `points` points per sample, in one job."""
        return self.job(forward=points * self._batch, jacobian=points * self._encoder_shifts)

    def differentiate(self, solver: Solver, upcoming: int = 0) -> Cost:
        """The readout at the solution, both gradients and probes of the next minibatch: one job.

        One more for sampled weight shifts, unless a probed map foresees what they are to be weighted with.
        """
        sampling = self._evaluator.sampling
        rows: dict[str, Any] = {"forward": self._batch}
        if not isinstance(solver, Probe):
            rows["jacobian"] = self._encoder_shifts
        shifts = self._weight_shifts
        if sampling.draws_shifts:
            shifts = self._batch * sampling.gradient_circuits
            if not isinstance(solver, Probe):
                return self.job(**rows) + self.job(gradient=shifts)
        rows["gradient"] = shifts
        if upcoming:
            size = self._evaluator.injection.shape[1]
            rows |= {"forward2": upcoming * (size + 1), "forward22": size * (size + 1) // 2}
        return self.job(**rows)

    def direct(self, layers: int) -> Cost:
        """Explicit layers: values and weight shifts of each in one job, then the Jacobians of all but the first."""
        sampling, batch = self._evaluator.sampling, self._batch
        jacobians = (layers - 1) * self.job(jacobian=self._encoder_shifts)
        if not sampling.draws_shifts:
            return layers * self.job(forward=batch, gradient=self._weight_shifts) + jacobians
        sampled = self.job(**{"gradient" + "2" * layer: batch * sampling.gradient_circuits for layer in range(layers)})
        return self.layers(layers) + jacobians + sampled
