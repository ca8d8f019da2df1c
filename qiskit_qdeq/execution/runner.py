"""Rows of parameter values in, expectation values out, through any primitive with the V2 estimator contract.

A request of S rows and M observables is one PUB: parameter values (S,) broadcast against observables (M, 1). All requests of
a call go into one job, unless a limit of the service demands more.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from qiskit.primitives import BaseSamplerV2
from qiskit.primitives.containers.observables_array import ObservablesArray
from qiskit.providers import BackendV2
from qiskit.quantum_info import SparsePauliOp

from qiskit_qdeq.evaluation.protocol import Cost
from qiskit_qdeq.exceptions import ExecutionError, InputError, JobTooLongError
from qiskit_qdeq.execution import primitives
from qiskit_qdeq.execution.account import Account
from qiskit_qdeq.execution.durable import DurableEstimator
from qiskit_qdeq.execution.isa import to_isa
from qiskit_qdeq.execution.jobs import PendingJob, circuit_digest
from qiskit_qdeq.execution.limits import Limits, Piece, halved
from qiskit_qdeq.execution.plan import Measurement, ObservableGroup, Plan, Request, count_bases
from qiskit_qdeq.execution.timing import timing_of

__all__ = ["CircuitRunner", "Measurement", "Request"]

#: What a parametrized gate takes in a payload, generously.
_BYTES_PER_GATE = 100


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
        account: what may be spent; None: as much as is asked.

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
        account: Account | None = None,
    ) -> None:
        _check_estimator(estimator)
        if pass_manager is not None and not callable(getattr(pass_manager, "run", None)):
            raise InputError(f"pass_manager must have a method run(circuit), got {pass_manager!r}")
        self.parameters = check_parameters(circuit, parameters)
        distinct, self._places = deduplicated(circuit, observables)
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
        self.account = account or Account()
        #: Of the question, which stays when the device is calibrated anew and the circuit transpiled another way.
        self.digest = circuit_digest(circuit, distinct)
        # counting the gates takes longer than planning a job
        self._pub_bytes = self.circuit.size() * _BYTES_PER_GATE
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
            BudgetError: if it would exceed the account's budget.
            ExecutionError: if a result is not of the shape asked for, or not finite; see also `DurableEstimator`.
        """
        plan = Plan(self, requests)
        jobs = self._submit(plan)
        parts: list[list[Measurement]] = [[] for _ in requests]
        cost = Cost()
        for pieces, job in zip(plan.jobs, jobs, strict=True):
            for measured, results in self._collect(plan, pieces, job):
                taken = []
                for piece, result in zip(measured, results, strict=True):
                    part = plan.read(piece, result)
                    parts[piece.index].append(part)
                    taken.append(int(part.shots[0]))
                cost += plan.job_cost(measured, taken)
        return [plan.join(index, measured) for index, measured in enumerate(parts)], cost

    def _submit(self, plan: Plan) -> list[PendingJob]:
        if isinstance(
            self._estimator, DurableEstimator
        ):  # which asks its account itself, as it knows what is paid already
            return [self._estimator.submit_job(plan.job(pieces)) for pieces in plan.jobs]
        cost = plan.cost()
        self.account.check(cost)
        jobs = [self._estimator.run([plan.pub(piece) for piece in pieces]) for pieces in plan.jobs]
        self.account.book(cost)
        return jobs

    def _collect(self, plan: Plan, pieces: list[Piece], job: Any) -> Iterator[tuple[list[Piece], Any]]:
        """The results of a job; of its halves if it ran too long."""
        try:
            results = job.result()
        except JobTooLongError:
            halves = halved(pieces)
            jobs = [
                self._estimator.submit_job(plan.job(half), parent=job.key, part=part)
                for part, half in enumerate(halves)
            ]
            for half, smaller in zip(halves, jobs, strict=True):
                yield from self._collect(plan, half, smaller)
            return
        try:
            plan.check(pieces, results)
        except ExecutionError as error:
            raise ExecutionError(f"job {_id_of(job)} {error}") from None
        yield pieces, results

    def predict(self, requests: Sequence[Request]) -> Cost:
        """What `run` would cost, without running anything.

        Circuits are counted as parameter rows × measurement bases × noise factors, plus one readout calibration per job
        where the estimator has one. Shots are those asked for, rounded as the estimator is known to round them. QPU seconds
        follow from them by IBM's formula, see `timing`; there are none on ideal simulators and for exact values.
        """
        return Plan(self, requests).cost()

    def _make_group(self, observables: tuple[int, ...] | None) -> ObservableGroup:
        indices = range(len(self._places)) if observables is None else observables
        if bad := [index for index in indices if not 0 <= index < len(self._places)]:
            raise InputError(f"observables {bad} do not exist; the runner has {len(self._places)}")
        if not len(indices):
            raise InputError("observables of a request must name at least one")
        wanted = [self._places[index] for index in indices]
        distinct = sorted(set(wanted))
        chosen = [self.observables[place] for place in distinct]
        return ObservableGroup(
            ObservablesArray(chosen).reshape(len(chosen), 1),
            np.array([distinct.index(place) for place in wanted]),
            count_bases(chosen),
        )


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


def check_parameters(circuit: QuantumCircuit, parameters: Sequence[Parameter]) -> tuple[Parameter, ...]:
    """`parameters`, or InputError unless they are the circuit's."""
    chosen, own = tuple(parameters), set(circuit.parameters)
    if len(set(chosen)) < len(chosen):
        raise InputError(f"parameters names one twice: {sorted(parameter.name for parameter in chosen)}")
    if missing := sorted(parameter.name for parameter in set(chosen) - own):
        raise InputError(f"parameters {missing} do not occur in the circuit; leave them out")
    if unbound := sorted(parameter.name for parameter in own - set(chosen)):
        raise InputError(f"the circuit's parameters {unbound} are not among `parameters`; bind or add them")
    return chosen


def deduplicated(
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


def _id_of(job: Any) -> str:
    name = getattr(job, "job_id", None)
    return str(name() if callable(name) else name)
