"""Rows of parameter values in, expectation values out, through any primitive with the V2 estimator contract.

A request of S rows and M observables is one PUB: parameter values (S,) broadcast against observables (M, 1). All requests of
a call go into one job, unless a limit of the service demands more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from qiskit.primitives import BaseSamplerV2
from qiskit.primitives.containers import BindingsArray, ObservablesArray
from qiskit.providers import BackendV2
from qiskit.quantum_info import PauliList, SparsePauliOp

from qiskit_qdeq.evaluation.protocol import Cost
from qiskit_qdeq.exceptions import ExecutionError, InputError
from qiskit_qdeq.execution import primitives
from qiskit_qdeq.execution.isa import to_isa
from qiskit_qdeq.execution.limits import Limits, Piece, Workload, split
from qiskit_qdeq.execution.primitives import Sampling
from qiskit_qdeq.execution.timing import timing_of

Array = np.ndarray[Any, np.dtype[Any]]

#: What a parametrized gate takes in a payload, generously.
_BYTES_PER_GATE = 100


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


class CircuitRunner:
    """Estimates observables of one parametrized circuit with any V2 estimator.

    The circuit is transpiled once, here. Parameters are bound by name, and equal observables are sent once.

    Args:
        circuit: with P unbound parameters.
        parameters: the P parameters, in the order of the columns of a request's values.
        observables: M Hermitian observables on the qubits of `circuit`.
        estimator: has ``run(pubs, *, precision=None)``, which returns a job with ``result()``.
        pass_manager: transpiles the circuit; None: Qiskit's preset one for the backend.
        backend: to transpile for; None: the one of the estimator, if it tells.
        limits: how large PUBs and jobs may be.
        optimization_level: of the preset pass manager.

    Raises:
        InputError: if the parameters are not those of the circuit, an observable does not fit it, or the transpiled
            circuit contains a gate that the backend does not support.
    """

    def __init__(
        self,
        circuit: QuantumCircuit,
        parameters: Sequence[Parameter],
        observables: Sequence[SparsePauliOp],
        estimator: Any,
        *,
        pass_manager: Any | None = None,
        backend: Any | None = None,
        limits: Limits = Limits(),  # noqa: B008  frozen, so one default for all is safe
        optimization_level: int = 1,
    ) -> None:
        _check_estimator(estimator)
        if pass_manager is not None and not callable(getattr(pass_manager, "run", None)):
            raise InputError(f"pass_manager must have a method run(circuit), got {pass_manager!r}")
        self.parameters = _check_parameters(circuit, parameters)
        distinct, self._places = _deduplicate(circuit, observables)
        own = primitives.backend_of(estimator)
        backend = own if backend is None else backend
        #: Of the backend that was transpiled for, "" if there is none.
        self.backend_name = str(getattr(backend, "name", "") or "")
        self.circuit, self.observables = to_isa(
            circuit,
            distinct,
            backend=backend,
            pass_manager=pass_manager,
            optimization_level=optimization_level,
        )
        if own is not None and self.circuit.num_qubits > (own.target.num_qubits or math.inf):
            # Qiskit's BackendEstimatorV2 ends the whole program at that, idle qubits or not.
            raise InputError(
                f"the transpiled circuit has {self.circuit.num_qubits} qubits, but the estimator's own backend takes "
                f"{own.target.num_qubits}; make the estimator for the backend that the circuit is transpiled for"
            )
        self._estimator = estimator
        self._limits = limits
        #: How long one execution keeps the backend busy; None where that has no meaning.
        self.timing = timing_of(backend, self.circuit, **primitives.repetition_options(estimator))
        # A parameter that no longer influences anything is gone from the transpiled circuit: its column is not sent.
        columns = {parameter: column for column, parameter in enumerate(self.parameters)}
        if strange := [p.name for p in self.circuit.parameters if p not in columns]:
            raise InputError(
                f"pass_manager put parameters {strange} into the circuit; use one that keeps the circuit's"
            )
        self._columns = [columns[parameter] for parameter in self.circuit.parameters]
        self._names = tuple(parameter.name for parameter in self.circuit.parameters)
        # Kept per runner, so that a minibatch does not group and convert its observables anew.
        self._group = cache(self._make_group)

    def run(self, requests: Sequence[Request]) -> tuple[list[Measurement], Cost]:
        """Measure `requests` and report what it has cost, in shots that the primitive says it took if it does.

        Raises:
            InputError: if a request cannot be sent.
            ExecutionError: if a result is not of the shape asked for, or not finite.
        """
        plan = _Plan(self, requests)
        jobs = [self._estimator.run([plan.pub(piece) for piece in pieces]) for pieces in plan.jobs]
        parts: list[list[Measurement]] = [[] for _ in requests]
        taken = []
        for pieces, job in zip(plan.jobs, jobs, strict=True):
            results = job.result()
            if len(results) != len(pieces):
                raise ExecutionError(f"job {_id_of(job)} returned {len(results)} results for {len(pieces)} PUBs")
            for piece, result in zip(pieces, results, strict=True):
                part = plan.read(piece, result, job)
                parts[piece.index].append(part)
                taken.append(int(part.shots[0]))
        return [plan.join(index, measured) for index, measured in enumerate(parts)], plan.cost(taken)

    def predict(self, requests: Sequence[Request]) -> Cost:
        """What `run` would cost, without running anything.

        Circuits are counted as parameter rows × measurement bases × noise factors, plus one readout calibration per job
        where the estimator has one. Shots are those asked for, rounded as the estimator is known to round them. QPU seconds
        follow from them by IBM's formula, see `timing`; there are none on ideal simulators and for exact values.
        """
        return _Plan(self, requests).cost()

    def _make_group(self, observables: tuple[int, ...] | None) -> _ObservableGroup:
        indices = range(len(self._places)) if observables is None else observables
        if bad := [index for index in indices if not 0 <= index < len(self._places)]:
            raise InputError(f"observables {bad} do not exist; the runner has {len(self._places)}")
        if not len(indices):
            raise InputError("observables of a request must name at least one")
        wanted = [self._places[index] for index in indices]
        distinct = sorted(set(wanted))
        chosen = [self.observables[place] for place in distinct]
        return _ObservableGroup(
            ObservablesArray(chosen).reshape(len(chosen), 1),
            np.array([distinct.index(place) for place in wanted]),
            _count_bases(chosen),
        )


@dataclass(frozen=True)
class _ObservableGroup:
    """Distinct observables as a column (M', 1), where each wanted one is among them, and the bases they need."""

    column: ObservablesArray
    places: Array
    bases: int


class _Plan:
    """The PUBs and jobs of one list of requests."""

    def __init__(self, runner: CircuitRunner, requests: Sequence[Request]) -> None:
        self._runner = runner
        self._requests = requests
        self._groups = [runner._group(request.observables) for request in requests]
        width = len(runner.parameters)
        for index, request in enumerate(requests):
            _check_request(index, request, width)
        self._rows = [np.asarray(request.values, dtype=np.float64)[:, runner._columns] for request in requests]
        known: dict[float | None, Sampling] = {}
        for request in requests:
            if request.precision not in known:
                known[request.precision] = primitives.sampling(runner._estimator, request.precision)
        self._samplings = [known[request.precision] for request in requests]
        mixed = primitives.mixes_precisions(runner._estimator)
        workloads = [
            Workload(
                rows=len(request.values),
                executions=sampling.shots * sampling.repetitions * group.bases,
                row_bytes=len(runner._columns) * 8 * 4 // 3,  # float64 in base64
                pub_bytes=runner.circuit.size() * _BYTES_PER_GATE,
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
        runner, request, column = self._runner, self._requests[piece.index], self._groups[piece.index].column
        values = BindingsArray({runner._names: self._rows[piece.index][piece.start : piece.stop]})
        pub = (runner.circuit, column, values) if runner._columns else (runner.circuit, column, None)
        # A precision of None is not sent at all: some primitives tell "not given" from "given as None".
        return pub if request.precision is None else (*pub, float(request.precision))

    def read(self, piece: Piece, result: Any, job: Any) -> Measurement:
        group, data = self._groups[piece.index], result.data
        shape = (group.column.shape[0], piece.stop - piece.start)
        values = np.asarray(data.evs)
        if values.shape != shape:
            raise ExecutionError(f"job {_id_of(job)} returned values of shape {values.shape} instead of {shape}")
        if np.iscomplexobj(values) or not np.all(np.isfinite(values)):
            raise ExecutionError(f"job {_id_of(job)} returned expectation values that are not finite real numbers")
        metadata = result.metadata or {}
        precision, shots = metadata.get("target_precision"), metadata.get("shots")
        if shots is None:
            expected = self._samplings[piece.index].shots
            shots = expected if precision is None else primitives.shots_for(precision)
        errors = np.asarray(getattr(data, "stds", np.zeros(shape)), dtype=np.float64)
        if errors.shape != shape:
            raise ExecutionError(f"job {_id_of(job)} returned std_errors of shape {errors.shape} instead of {shape}")
        if shots and not errors.any() and "shots" not in metadata:
            # StatevectorEstimator reports no error for the noise it adds.
            errors = np.full(shape, 1 / math.sqrt(shots) if precision is None else precision)
        # An extrapolation through as many points as it has parameters has no error estimate: unknown, not undefined.
        errors = np.where(np.isnan(errors), np.inf, errors) if shots else np.zeros(shape)
        return Measurement(values.T[:, group.places], errors.T[:, group.places], np.full(shape[1], shots))

    def join(self, index: int, parts: list[Measurement]) -> Measurement:
        if not parts:
            empty = np.zeros((0, len(self._groups[index].places)))
            return Measurement(empty, empty.copy(), np.zeros(0, dtype=np.int64))
        fields = zip(*((part.values, part.std_errors, part.shots) for part in parts), strict=True)
        return Measurement(*(np.concatenate(field) for field in fields))

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


def _check_estimator(estimator: Any) -> None:
    """Refuse what has a method run() but is no estimator."""
    if isinstance(estimator, type):
        raise InputError(f"estimator must be an object, got the class {estimator.__name__}: call it")
    if not callable(getattr(estimator, "run", None)):
        raise InputError(f"estimator must have a method run(pubs, *, precision), got {estimator!r}")
    if isinstance(estimator, BaseSamplerV2):
        raise InputError(f"estimator must be an estimator primitive, got the sampler {estimator!r}")
    if isinstance(estimator, BackendV2):
        raise InputError(
            f"estimator must be an estimator primitive, got the backend {estimator.name!r}: give it as backend"
        )


def _check_parameters(circuit: QuantumCircuit, parameters: Sequence[Parameter]) -> tuple[Parameter, ...]:
    chosen, own = tuple(parameters), set(circuit.parameters)
    if len(set(chosen)) < len(chosen):
        raise InputError(f"parameters names one twice: {sorted(parameter.name for parameter in chosen)}")
    if missing := sorted(parameter.name for parameter in set(chosen) - own):
        raise InputError(f"parameters {missing} do not occur in the circuit; leave them out")
    if unbound := sorted(parameter.name for parameter in own - set(chosen)):
        raise InputError(f"the circuit's parameters {unbound} are not among `parameters`; bind or add them")
    return chosen


def _deduplicate(
    circuit: QuantumCircuit, observables: Sequence[SparsePauliOp]
) -> tuple[list[SparsePauliOp], list[int]]:
    """The distinct observables, and for each given one its place among them."""
    if not len(observables):
        raise InputError("observables must contain at least one SparsePauliOp")
    places: dict[tuple[Any, ...], int] = {}
    distinct: list[SparsePauliOp] = []
    where = []
    for index, observable in enumerate(observables):
        if not isinstance(observable, SparsePauliOp):
            raise InputError(f"observables[{index}] must be a SparsePauliOp, got {type(observable).__name__}")
        if observable.num_qubits != circuit.num_qubits:
            raise InputError(
                f"observables[{index}] acts on {observable.num_qubits} qubits, the circuit has {circuit.num_qubits}"
            )
        terms = observable.simplify()
        if not np.all(np.isfinite(terms.coeffs)) or np.any(np.abs(terms.coeffs.imag) > 1e-12) or not terms.coeffs.any():
            raise InputError(f"observables[{index}] must be Hermitian, finite and not zero, got {observable}")
        key = tuple(sorted(zip(terms.paulis.to_labels(), terms.coeffs.real.tolist(), strict=True)))
        if key not in places:
            places[key] = len(distinct)
            distinct.append(SparsePauliOp(terms.paulis, terms.coeffs.real))
        where.append(places[key])
    return distinct, where


def _count_bases(observables: Sequence[SparsePauliOp]) -> int:
    """Sets of qubit-wise commuting terms, grouped as the primitives group them."""
    if not any(observable.paulis.x.any() for observable in observables):
        return 1
    labels = {label for observable in observables for label in observable.paulis.to_labels()}
    return len(PauliList(sorted(labels)).group_commuting(qubit_wise=True))


def _check_request(index: int, request: Request, width: int) -> None:
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


def _id_of(job: Any) -> str:
    name = getattr(job, "job_id", None)
    return str(name() if callable(name) else name)
