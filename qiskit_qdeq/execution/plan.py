"""Which PUBs and jobs a list of requests becomes, what they cost, and what their results mean."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from qiskit.primitives.containers.bindings_array import BindingsArray
from qiskit.primitives.containers.observables_array import ObservablesArray
from qiskit.quantum_info import PauliList, SparsePauliOp

from qiskit_qdeq.evaluation.protocol import Cost
from qiskit_qdeq.exceptions import ExecutionError, InputError
from qiskit_qdeq.execution import primitives
from qiskit_qdeq.execution.jobs import JobSpec, check_results, content_digest
from qiskit_qdeq.execution.limits import Piece, Workload, split
from qiskit_qdeq.execution.primitives import Sampling

if TYPE_CHECKING:
    from qiskit_qdeq.execution.runner import CircuitRunner

Array = np.ndarray[Any, np.dtype[Any]]

#: More repetitions make a payload larger than a job of its own is worth.
_MOST_REPEATS = 32


@dataclass(frozen=True, eq=False)
class Request:
    """Expectation values wanted at S rows of parameter values.

    Attributes:
        values: (S, P), columns in the order of the runner's `parameters`.
        observables: indices into the runner's observables, in the order wanted; None: all of them.
        precision: standard error asked for; None: the estimator's default.
    """

    values: Array
    observables: tuple[int, ...] | None = None
    precision: float | None = None


@dataclass(frozen=True, eq=False)
class Measurement:
    """What a request got.

    Attributes:
        values: (S, M).
        std_errors: (S, M); zero if exact, infinite where the primitive cannot tell.
        shots: (S,) of each measurement basis of the row; zero if exact.
    """

    values: Array
    std_errors: Array
    shots: Array


@dataclass(frozen=True)
class ObservableGroup:
    """Distinct observables as a column (M', 1), where each wanted one is among them, and the bases they need."""

    column: ObservablesArray
    places: Array
    bases: int


class Plan:
    """The PUBs and jobs of one list of requests."""

    def __init__(self, runner: CircuitRunner, requests: Sequence[Request]) -> None:
        self._runner = runner
        width = len(runner.parameters)
        for index, request in enumerate(requests):
            check_request(index, request, width)
        mixed = primitives.mixes_precisions(runner._estimator)
        self._repeats = [1] * len(requests) if mixed else _repeats(requests)
        self._requests = requests = _repeated(requests, self._repeats)
        self._groups = [runner._group(request.observables) for request in requests]
        self._rows = [np.asarray(request.values, dtype=np.float64)[:, runner._columns] for request in requests]
        known: dict[float | None, Sampling] = {}
        for request in requests:
            if request.precision not in known:
                known[request.precision] = primitives.sampling(runner._estimator, request.precision)
        self._samplings = [known[request.precision] for request in requests]
        workloads = [
            Workload(
                rows=len(request.values),
                executions=sampling.shots * sampling.repetitions * group.bases,
                row_bytes=len(runner._columns) * 8 * 4 // 3,  # float64 in base64
                pub_bytes=runner._pub_bytes,
                lane=None if mixed else request.precision,
            )
            for request, sampling, group in zip(requests, self._samplings, self._groups, strict=True)
        ]
        limits = primitives.limits_of(runner._estimator, runner._limits)
        if not runner._columns:
            # Without parameters there is nothing to broadcast over, so every row is a PUB.
            limits = replace(limits, max_rows_per_pub=1)
        self.jobs = split(workloads, limits)

    def pub(self, piece: Piece) -> tuple[Any, ...]:
        """What is sent."""
        runner, request, column = self._runner, self._requests[piece.index], self._groups[piece.index].column
        values = BindingsArray({runner._names: self._rows[piece.index][piece.start : piece.stop]})
        pub = (runner.circuit, column, values) if runner._columns else (runner.circuit, column, None)
        # A precision of None is not sent at all: some primitives tell "not given" from "given as None".
        return pub if request.precision is None else (*pub, float(request.precision))

    def job(self, pieces: Sequence[Piece]) -> JobSpec:
        """One job of these pieces, for a service."""
        parts: list[str | bytes | Array] = [self._runner.digest]
        for piece in pieces:
            request = self._requests[piece.index]
            parts += [f"{request.observables} {request.precision}"]
            parts += [np.asarray(request.values, dtype=np.float64)[piece.start : piece.stop]]
        return JobSpec(
            tuple(self.pub(piece) for piece in pieces),
            content_digest(parts),
            self.job_cost(pieces),
            lambda results: self.check(pieces, results),
        )

    def check(self, pieces: Sequence[Piece], results: Any) -> None:
        """Raise ExecutionError unless these are results of these pieces."""
        shapes = [(self._groups[piece.index].column.shape[0], piece.stop - piece.start) for piece in pieces]
        check_results(results, shapes)
        for result, shape in zip(results, shapes, strict=True):
            errors = getattr(result.data, "stds", None)
            if errors is not None and np.shape(errors) != shape:
                raise ExecutionError(f"returned std_errors of shape {np.shape(errors)} instead of {shape}")

    def read(self, piece: Piece, result: Any) -> Measurement:
        """What the checked result of a piece says."""
        group, data = self._groups[piece.index], result.data
        values = np.asarray(data.evs)
        shape = values.shape
        metadata = result.metadata or {}
        precision, shots = metadata.get("target_precision"), metadata.get("shots")
        if shots is None:
            expected = self._samplings[piece.index].shots
            shots = expected if precision is None else primitives.shots_for(precision)
        errors = np.asarray(getattr(data, "stds", np.zeros(shape)), dtype=np.float64)
        if shots and not errors.any() and "shots" not in metadata:
            # StatevectorEstimator reports no error for the noise it adds.
            errors = np.full(shape, 1 / math.sqrt(shots) if precision is None else precision)
        # An extrapolation through as many points as it has parameters has no error estimate: unknown, not undefined.
        errors = np.where(np.isnan(errors), np.inf, errors) if shots else np.zeros(shape)
        return Measurement(values.T[:, group.places], errors.T[:, group.places], np.full(shape[1], shots))

    def join(self, index: int, parts: list[Measurement]) -> Measurement:
        """The measurement of a whole request."""
        if not parts:
            empty = np.zeros((0, len(self._groups[index].places)))
            return Measurement(empty, empty.copy(), np.zeros(0, dtype=np.int64))
        fields = zip(*((part.values, part.std_errors, part.shots) for part in parts), strict=True)
        values, errors, shots = (np.concatenate(field) for field in fields)
        times = self._repeats[index]
        if times == 1:
            return Measurement(values, errors, shots)
        # rows stand beside their repetitions
        values, errors = (array.reshape(-1, times, array.shape[1]) for array in (values, errors))
        return Measurement(values.mean(axis=1), np.sqrt((errors**2).sum(axis=1)) / times, shots[::times] * times)

    def cost(self, taken: Sequence[int] | None = None) -> Cost:
        """Of all jobs, with `taken` shots per row and basis of each PUB, or those that are expected."""
        total, each = Cost(), iter(taken or ())
        for pieces in self.jobs:
            total += self.job_cost(pieces, None if taken is None else [next(each) for _ in pieces])
        return total

    def job_cost(self, pieces: Sequence[Piece], taken: Sequence[int] | None = None) -> Cost:
        """Of one job, its readout calibration included."""
        samplings = [self._samplings[piece.index] for piece in pieces]
        if taken is None:
            taken = [sampling.shots for sampling in samplings]
        timing, circuits, shots, seconds = self._runner.timing, 0, 0, 0.0
        for piece, sampling, each in zip(pieces, samplings, taken, strict=True):
            settings = (piece.stop - piece.start) * self._groups[piece.index].bases
            circuits += settings * sampling.repetitions
            shots += settings * sampling.repetitions * each
            if timing is not None:
                seconds += settings * each * sum(map(timing.repetition, sampling.noise_factors))
        if calibration := samplings[0].calibration_shots:
            circuits += 1
            shots += calibration
            seconds += calibration * timing.readout_seconds if timing is not None else 0.0
        # a job without shots is an exact simulation, which has no counterpart on a device
        if timing is not None and shots:
            seconds += timing.job_seconds
        return Cost(circuits, shots, 1, len(pieces), seconds)


def _repeats(requests: Sequence[Request]) -> list[int]:
    """How often the rows of each request are run at the coarsest precision asked for, so that all fit into one job.

    A job costs about as much as 8,000 executions; where the precisions are too far apart, each has a job of its own.
    """
    precisions = [request.precision for request in requests]
    if None in precisions or not requests:
        return [1] * len(requests)
    shots = [primitives.shots_for(precision, 1e-12) for precision in precisions if precision is not None]
    times = [math.ceil(each / min(shots)) for each in shots]
    return times if max(times) <= _MOST_REPEATS else [1] * len(requests)


def _repeated(requests: Sequence[Request], times: Sequence[int]) -> list[Request]:
    if max(times, default=1) == 1:
        return list(requests)
    coarsest = max(request.precision for request in requests if request.precision is not None)
    return [
        Request(np.repeat(np.asarray(request.values), count, axis=0), request.observables, coarsest)
        for request, count in zip(requests, times, strict=True)
    ]


def count_bases(observables: Sequence[SparsePauliOp]) -> int:
    """Sets of qubit-wise commuting terms, grouped as the primitives group them."""
    if not any(observable.paulis.x.any() for observable in observables):
        return 1
    labels = {label for observable in observables for label in observable.paulis.to_labels()}
    return len(PauliList(sorted(labels)).group_commuting(qubit_wise=True))


def check_request(index: int, request: Request, width: int) -> None:
    """Raise InputError unless `request` has finite rows of `width` values and a usable precision."""
    values = np.asarray(request.values)
    if values.ndim != 2 or values.shape[1] != width:
        raise InputError(f"values of request {index} must have shape (rows, {width}), got {values.shape}")
    if values.dtype.kind not in "fiu" or not np.all(np.isfinite(values)):
        raise InputError(f"values of request {index} must be finite real numbers")
    precision = request.precision
    if precision is not None and not (isinstance(precision, float | int) and 0 < precision < math.inf):
        raise InputError(
            f"precision of request {index} must be a positive number, got {precision!r}; None takes the estimator's "
            "default, which is exact for exact simulators"
        )
