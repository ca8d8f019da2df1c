"""The model function measured through EstimatorV2: exact or noisy simulators and devices behind the same protocol.

All observables of a circuit come from the same executions, and everything that is wanted at one time (values, shifted
encoder angles, shifted weights of every sample) goes out as one job. A point expected to be differentiated fetches its
shifts together with its values.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from qiskit_qdeq.circuits import AmplitudeEncoder, CircuitTemplate
from qiskit_qdeq.evaluation.estimator_point import EstimatorPoint, Observed, floored_errors
from qiskit_qdeq.evaluation.gate_angles import GateTemplate
from qiskit_qdeq.evaluation.probe import Measured, PredictedPoint, ProbedMap, probes, refuse_other_encoders
from qiskit_qdeq.evaluation.protocol import Cost, Cotangent, Evaluation, Part
from qiskit_qdeq.evaluation.sampling import Sampling, progress_of
from qiskit_qdeq.evaluation.weight_gradient import Plan, gradient_plan
from qiskit_qdeq.exceptions import ConvergenceError, InputError
from qiskit_qdeq.execution.account import Account
from qiskit_qdeq.execution.copies import Copies
from qiskit_qdeq.execution.events import Announcer, Listener
from qiskit_qdeq.execution.primitives import innermost
from qiskit_qdeq.execution.primitives import sampling as sampling_of
from qiskit_qdeq.execution.runner import CircuitRunner, Measurement, Request
from qiskit_qdeq.execution.tiling import TiledRunner

Array = np.ndarray[Any, np.dtype[Any]]

_RUNNER_OPTIONS = ("backend", "pass_manager", "limits", "optimization_level", "account")


class EstimatorEvaluator:
    """m(x + P q; θ) through any estimator of the V2 contract.

    Args:
        template: encoder, ansatz and observables.
        injection: P (D, K).
        estimator: `run(pubs)` -> job, as `qiskit.primitives.BaseEstimatorV2`.
        sampling: shots or precision per purpose and the weight gradient's estimator.
        seed: of randomly chosen shifts; the estimator's own noise is seeded by whoever made it.
        notes: plain values kept in `description`: what else decides the results, such as noise and mitigation.
        copies: of the circuit that are executed together, each for another row: a number, "auto" for as many well-calibrated
            ones as the device has room for, or those chosen before with `choose_copies`.
        runner_options: for `CircuitRunner`: backend or pass_manager to transpile the template for, limits.

    Raises:
        InputError: if a gate has no shift rule, or the injection has another shape.
    """

    is_exact = False

    def __init__(
        self,
        template: CircuitTemplate,
        injection: Array,
        estimator: Any,
        *,
        sampling: Sampling | None = None,
        seed: int = 0,
        notes: Mapping[str, Any] | None = None,
        copies: int | str | Copies = 1,
        **runner_options: Any,
    ) -> None:
        if injection.shape != (template.num_features, template.num_states):
            raise InputError(
                f"injection must have shape (num_features, num_states) = "
                f"{(template.num_features, template.num_states)}, got {injection.shape}"
            )
        self.template, self.injection = template, np.asarray(injection, dtype=float)
        self.gates = GateTemplate(template)
        self.sampling = sampling or Sampling()
        self.estimator, self.seed, self._notes = estimator, seed, dict(notes or {})
        #: Where state and readout observables stand among all that are measured; equal ones are sent once.
        self.states = np.arange(template.num_states)
        self.readouts = template.num_states + np.arange(template.num_readouts)
        observables = (*template.state_observables, *template.readout_observables)
        self.num_observables = len(observables)
        if unknown := sorted(set(runner_options) - set(_RUNNER_OPTIONS)):
            raise InputError(
                f"unknown options {unknown}; there are {list(_RUNNER_OPTIONS)}. Shots and precision are given as "
                "sampling=Sampling(forward=...)"
            )
        arguments = (self.gates.circuit, self.gates.parameters, observables, estimator)
        self.runner: CircuitRunner | TiledRunner
        if isinstance(copies, int) and copies == 1:
            self.runner = CircuitRunner(*arguments, **runner_options)
        else:
            if runner_options.pop("pass_manager", None) is not None:
                raise InputError(
                    "pass_manager cannot be given with copies, which are transpiled one by one; leave it out"
                )
            self.runner = TiledRunner(*arguments, copies=copies, **runner_options)
        #: As asked for: which qubits "auto" takes changes with every calibration of the device.
        self._copies = len(copies) if isinstance(copies, Copies) else copies
        if self.sampling.gradient_method == "fixed" and not isinstance(template.encoder, AmplitudeEncoder):
            raise InputError(
                "gradient_method 'fixed' needs amplitude encoding, where samples enter as outer products; use 'shift', "
                f"got {template.encoder!r}"
            )
        self.progress = 0.0
        #: Inputs (B, D) of the next minibatch, to be probed together with this one's gradient; None: when their turn comes.
        self.upcoming: Array | None = None
        #: What was probed ahead.
        self.ahead: Measured | None = None
        self.rng = np.random.default_rng(seed)

    @property
    def description(self) -> dict[str, Any]:
        """Which estimator on which backend, sampling, seed and notes."""
        tiled = {} if self._copies == 1 else {"copies": self._copies}
        return {
            **self._notes,
            **tiled,
            "estimator": type(innermost(self.estimator)).__name__,
            "backend": self.runner.backend_name,
            "sampling": dataclasses.asdict(self.sampling),
            # the estimator's own default decides where no precision is asked for
            "shots": sampling_of(self.estimator, self.sampling.precision("forward")).shots,
            "seed": self.seed,
        }

    @property
    def account(self) -> Account:
        """What may be spent and has been."""
        return self.runner.account

    def start_step(self, step: int, total: int, part: Part = Part.TRAINING) -> None:
        """Move precision schedules and random choices to a part of a run, so that a resumed run repeats them."""
        self.progress = progress_of(step, total)
        self.rng = np.random.default_rng([self.seed, step])
        restart = getattr(self.estimator, "restart", None)
        if restart is not None:
            restart(len(Part) * step + part.value)

    def reserve(self, cost: Callable[[], Cost]) -> None:
        """Make sure that the budget has room for what is about to be measured, where there is a budget.

        Raises:
            BudgetError: if it has not.
        """
        if not self.account.budget:
            return
        # what is asked again in a resumed run may be paid already
        reserve = getattr(self.estimator, "reserve", None)
        if reserve is None:
            self.account.check(cost(), "the next step")
        else:
            reserve(cost)

    def arrays(self) -> dict[str, Array]:
        """What was measured ahead of its use, for a checkpoint."""
        return {} if self.ahead is None else self.ahead.arrays()

    def restore(self, arrays: Mapping[str, Array]) -> None:
        """Take `arrays()` of an earlier process.

        Raises:
            InputError: if they are not of this model.
        """
        self.ahead = None
        if not arrays:
            return
        size, count = self.injection.shape[1], self.num_observables
        try:
            inputs, samples, shared = (
                np.asarray(arrays[name], dtype=float) for name in ("inputs", "samples", "shared")
            )
        except KeyError as missing:
            raise InputError(f"array {missing} of what was measured ahead is missing") from None
        wanted = (len(inputs), size + 1, count), (size * (size + 1) // 2, count)
        if inputs.shape[1:] != self.injection.shape[:1] or (samples.shape, shared.shape) != wanted:
            raise InputError("what was measured ahead is of another model")
        self.ahead = Measured(inputs, samples, shared)

    def already_spent(self, cost: Cost) -> None:
        """Count what earlier processes of the same run have spent by its checkpoint, unless a journal knows better."""
        journal = getattr(self.estimator, "already_spent", None)
        if journal is None:
            self.account.spent = cost
        else:
            journal(cost)

    def interrupt(self) -> None:
        """End waiting for a service, now or when it begins; safe in a signal handler."""
        interrupt = getattr(self.estimator, "interrupt", None)
        if interrupt is not None:
            interrupt()

    def listen(self, listener: Listener) -> None:
        """Let `listener` be told of what happens to jobs at a service, where there is one."""
        announce = getattr(self.estimator, "announce", None)
        if isinstance(announce, Announcer):
            announce.listeners.append(listener)

    def precision(self, purpose: str) -> float | None:
        """The precision asked of the estimator at this point of a run."""
        return self.sampling.precision(purpose, self.progress)

    def bind(self, weights: Array) -> BoundEstimator:
        """Fix the circuit parameters θ (p,)."""
        return BoundEstimator(self, np.asarray(weights, dtype=float))


class BoundEstimator:
    """`EstimatorEvaluator` at fixed weights."""

    def __init__(self, evaluator: EstimatorEvaluator, weights: Array) -> None:
        self.evaluator = evaluator
        #: β (G,) and ∂β/∂θ (G, p).
        self.angles = evaluator.gates.ansatz_angles(weights)
        self.slopes = evaluator.gates.ansatz_jacobian(weights)

    def map(self, inputs: Array, expect: Sequence[str] = ()) -> EstimatorMap:
        """The map of samples (B, D); `expect` names what points will be asked for: "jacobian", "gradient"."""
        width = len(self.evaluator.injection)
        if np.ndim(inputs) != 2 or np.shape(inputs)[1] != width:
            raise InputError(
                f"inputs must have shape (samples, {width}), got {np.shape(inputs)}; `model.prepare(x)` makes them from data"
            )
        return EstimatorMap(self, np.asarray(inputs, dtype=float), frozenset(expect))


class EstimatorMap:
    """The equilibrium map of one minibatch; `cost` is what all its measurements have cost so far."""

    def __init__(self, bound: BoundEstimator, inputs: Array, expect: frozenset[str]) -> None:
        self.bound, self.inputs, self.expect = bound, inputs, expect
        self.evaluator = bound.evaluator
        self.batch, self.num_states = len(inputs), self.evaluator.injection.shape[1]
        self.cost = Cost()
        self.probed: ProbedMap | None = None
        #: Predicts the gradient's cotangent (B, M) at a point before it is measured, to choose shifts by; None: nobody can.
        self.foresee: Callable[[PredictedPoint], Cotangent] | None = None
        self._known: EstimatorPoint | None = None
        #: The last measurement of every sample, which serves the readout if the solve ends there.
        self._latest = Observed.nothing(self.batch, self.evaluator.num_observables, self.num_states)

    def values(self, state: Array, rows: Array) -> Evaluation:
        """m at `state` (b, K) for the samples `rows` (b,), with standard errors."""
        base = self.base_rows(self._inputs(state, rows))
        [measured], cost = self.run([self.request(base, "forward")])
        return self._evaluation(state, rows, measured, cost)

    def linearize(self, state: Array, rows: Array) -> tuple[Evaluation, Array]:
        """m and ∂m/∂q (b, K, K) at `state` for the samples `rows`, in one job."""
        inputs = self._inputs(state, rows)
        base = self.base_rows(inputs)
        shifted, reduce = self.encoder_shifts(inputs, base)
        [measured, moved], cost = self.run([self.request(base, "forward"), self.request(shifted, "jacobian")])
        slopes = reduce(moved.values)[:, self.evaluator.states] @ self.evaluator.injection
        return self._evaluation(state, rows, measured, cost), slopes

    def probe(self) -> ProbedMap:
        """Measure the whole map, for amplitude encoding: see `probe.ProbedMap`.

        Raises:
            InputError: for another encoder.
        """
        refuse_other_encoders(self.evaluator.template.encoder)
        if self.probed is None:
            measured = self.evaluator.ahead
            if measured is None or not np.array_equal(measured.inputs, self.inputs):
                requests, read = self.probing(self.inputs)
                measured = read(self.run(requests)[0])
            injection = self.evaluator.injection
            found = probes(self.inputs, injection)
            self.probed = ProbedMap(
                self.inputs, injection, found, measured.samples, measured.shared, self.evaluator.states
            )
        return self.probed

    def probing(self, inputs: Array) -> tuple[list[Request], Callable[[Sequence[Measurement]], Measured]]:
        """What to measure for the whole map of samples (B, D), and how to read it."""
        found = probes(inputs, self.evaluator.injection)
        rows = found.samples.reshape(-1, inputs.shape[1])
        requests = [
            self.request(self.base_rows(rows), "forward"),
            self.request(self.base_rows(found.shared), "forward"),
        ]

        def read(measured: Sequence[Measurement]) -> Measured:
            samples, shared = measured
            # laid out as a checkpoint gives them back: sums depend on it in the last bit
            values = np.ascontiguousarray(samples.values).reshape(*found.samples.shape[:2], -1)
            return Measured(np.ascontiguousarray(inputs), values, np.ascontiguousarray(shared.values))

        return requests, read

    def at(self, state: Array) -> EstimatorPoint:
        """The whole minibatch at `state` (B, K)."""
        known = self._known
        if known is not None and known.state is state:
            return known
        return EstimatorPoint(self, state, self._latest)

    def correct(self, point: EstimatorPoint, state: Array) -> None:
        """`at(state)` of this very array is `point`, measured nearby, carried over along the probed map."""
        self._known = EstimatorPoint(self, state, measured=point)

    def pull_back(self, terms: Sequence[Cotangent]) -> Array:
        """∂L/∂θ of the sum of the terms; whatever has not been measured yet goes out as one job."""
        plans: list[tuple[Plan, Array, Array | None]] = []
        for term in terms:
            point: EstimatorPoint = term.point  # type: ignore[assignment]
            plans.append(point.gradient_plan(self._cotangent(term)))
        wanted = [plan.rows for plan, _, values in plans if values is None]
        found = iter(self.run([self.request(rows, "gradient") for rows in wanted])[0] if wanted else [])
        gradient = np.zeros(len(self.bound.angles))
        for plan, cotangent, values in plans:
            gradient += plan.reduce(next(found).values if values is None else values, cotangent)
        result: Array = gradient @ self.bound.slopes
        return result

    def foreseen(self, state: Array) -> Array | None:
        """The cotangent C (B, M) that is expected at `state`, None where the map has not been probed."""
        if self.foresee is None or self.probed is None:
            return None
        try:
            expected = self._cotangent(self.foresee(PredictedPoint(self.probed, state, self.evaluator.readouts)))
        except ConvergenceError:
            expected = np.full((self.batch, self.evaluator.num_observables), np.nan)
        # of what cannot be foreseen all samples are alike
        return np.where(np.isfinite(expected).all(axis=1, keepdims=True), expected, 1.0)

    def plan(self, base: Array, cotangent: Array | None, inputs: Array) -> Plan:
        """Which rows of angles give the weight gradient at `base`, the angles of `inputs`."""
        evaluator = self.evaluator
        slopes, sampling, rng = self.bound.slopes, evaluator.sampling, evaluator.rng
        return gradient_plan(evaluator.gates, base, slopes, cotangent, sampling, rng, inputs)

    def base_rows(self, inputs: Array) -> Array:
        """Gate angles (b, E + G) of inputs u (b, D)."""
        angles = self.evaluator.gates.encoder_angles(inputs)
        return np.concatenate(
            [angles, np.broadcast_to(self.bound.angles, (len(angles), len(self.bound.angles)))], axis=1
        )

    def encoder_shifts(self, inputs: Array, base: Array) -> tuple[Array, Any]:
        """Rows that measure ∂<M>/∂u, and what turns their values (S, M) into it, (b, M, D)."""
        gates = self.evaluator.gates
        if not self.evaluator.template.encoder.differentiable(inputs).all():
            warnings.warn(
                "the encoder's angles have no derivative at some samples (neighbouring features that are both zero), so the "
                "Jacobian measured there is incomplete: use solver 'probe' with backward modes that need no other Jacobian, "
                "or data without such zeros",
                UserWarning,
                stacklevel=4,
            )
        slopes = gates.encoder_jacobian(inputs)
        rows, index, coefficients = gates.shift_rows(base, np.arange(gates.num_encoder_angles))
        moves = coefficients[:, None] * np.equal.outer(index, np.arange(gates.num_encoder_angles))

        def reduce(values: Array) -> Array:
            by_angle = values.reshape(len(base), len(index), -1).swapaxes(1, 2) @ moves
            result: Array = by_angle @ slopes
            return result

        return rows.reshape(-1, base.shape[1]), reduce

    def request(self, rows: Array, purpose: str) -> Request:
        """A request for all observables at rows of angles."""
        return Request(rows, None, self.evaluator.precision(purpose))

    def run(self, requests: Sequence[Request]) -> tuple[list[Measurement], Cost]:
        """Measure, in one job where limits allow, and book the cost."""
        measured, cost = self.evaluator.runner.run(requests)
        self.cost += cost
        return measured, cost

    def _inputs(self, state: Array, rows: Array | slice) -> Array:
        result: Array = self.inputs[rows] + state @ self.evaluator.injection.T
        return result

    def _evaluation(self, state: Array, rows: Array, measured: Measurement, cost: Cost) -> Evaluation:
        self._latest.put(rows, state, measured)
        states = self.evaluator.states
        return Evaluation(measured.values[:, states], floored_errors(measured, states), cost)

    def _cotangent(self, term: Cotangent) -> Array:
        """C (B, M) over all observables."""
        if term.directions is not None:
            raise InputError(
                "Jacobian regularization needs second derivatives, which are not measured: use the exact backend for it, or "
                "regularization 'none'"
            )
        total = np.zeros((self.batch, self.evaluator.num_observables))
        if term.values is not None:
            total[:, self.evaluator.states] = term.values
        if term.features is not None:
            total[:, self.evaluator.readouts] = term.features
        return total
