"""A runner that measures k rows of parameter values in one execution, on k copies of the circuit.

    S rows of P values  ->  ⌈S/k⌉ rows of k P values,    row s runs on copy s mod k

so that circuits, shots and QPU time fall by about k. The last row is filled up with repeated rows, whose values are thrown
away.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from qiskit.quantum_info import SparsePauliOp
from qiskit.transpiler import PassManager

from qiskit_qdeq.evaluation.protocol import Cost
from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.execution import primitives
from qiskit_qdeq.execution.account import Account
from qiskit_qdeq.execution.copies import Copies, choose_copies
from qiskit_qdeq.execution.jobs import circuit_digest, content_digest
from qiskit_qdeq.execution.limits import Limits
from qiskit_qdeq.execution.plan import Measurement, Request, check_request
from qiskit_qdeq.execution.runner import CircuitRunner, check_parameters, deduplicated
from qiskit_qdeq.execution.timing import Timing

Array = np.ndarray[Any, np.dtype[Any]]


class TiledRunner:
    """Estimates observables of a parametrized circuit as `CircuitRunner` does, k rows at a time.

    Requests for the same observables at the same precision share executions. Each row has the shots asked for, its values
    and errors are those of its own copy; under noise they depend on which copy that is.

    Args:
        circuit: with P unbound parameters.
        parameters: the P parameters, in the order of the columns of a request's values.
        observables: M Hermitian observables on the qubits of `circuit`.
        estimator: has ``run(pubs, *, precision=None)``, which returns a job with ``result()``.
        copies: how many, "auto", or those chosen before with `choose_copies` for this circuit and device.
        backend: with the couplings and calibration to choose from; None: the one of the estimator, if it tells.
        limits: how large PUBs and jobs may be.
        optimization_level: of the transpiler; None: 3 on devices, 1 on simulators.
        account: what may be spent.

    Raises:
        InputError: if no or too few copies fit, or `copies` are of another circuit; see `choose_copies`, `CircuitRunner`.
    """

    def __init__(
        self,
        circuit: QuantumCircuit,
        parameters: Sequence[Parameter],
        observables: Sequence[SparsePauliOp],
        estimator: Any,
        *,
        copies: int | str | Copies = "auto",
        backend: Any | None = None,
        limits: Limits = Limits(),  # noqa: B008  frozen, so one default for all is safe
        optimization_level: int | None = None,
        account: Account | None = None,
    ) -> None:
        self.parameters = check_parameters(circuit, parameters)
        distinct, _ = deduplicated(circuit, observables)
        backend = primitives.backend_of(estimator) if backend is None else backend
        if not isinstance(copies, Copies):
            level = 3 if optimization_level is None else optimization_level
            copies = choose_copies(backend, circuit, copies=copies, optimization_level=level)
        elif not _equal(copies.template, circuit):
            raise InputError("copies were chosen for another circuit; choose them for this one with choose_copies")
        #: Where the copies are.
        self.copies = copies
        tiled, vectors = copies.circuit(self.parameters)
        unbound, own = [parameter for vector in vectors for parameter in vector], set(tiled.parameters)
        #: A parameter without influence is gone from the transpiled copies.
        self._columns = [column for column, parameter in enumerate(unbound) if parameter in own]
        placed = bool(copies.couplings)
        self._tiled = CircuitRunner(
            tiled,
            [unbound[column] for column in self._columns],
            copies.observables(observables),
            estimator,
            backend=backend,
            pass_manager=PassManager() if placed else None,
            limits=limits,
            optimization_level=1 if optimization_level is None else optimization_level,
            account=account,
        )
        self._tiled.digest = content_digest([circuit_digest(circuit, distinct), f"{len(copies)} copies"])
        self._num_observables = len(observables)

    @property
    def circuit(self) -> QuantumCircuit:
        """All copies, in the backend's instructions."""
        return self._tiled.circuit

    @property
    def observables(self) -> list[SparsePauliOp]:
        """The distinct observables of all copies, on the qubits of `circuit`."""
        return self._tiled.observables

    @property
    def backend_name(self) -> str:
        """Of the backend that was transpiled for, "" if there is none."""
        return self._tiled.backend_name

    @property
    def digest(self) -> str:
        """Of the question that rows are put to, which stays when the copies move to other qubits."""
        return self._tiled.digest

    @property
    def account(self) -> Account:
        """What may be spent and has been."""
        return self._tiled.account

    @property
    def timing(self) -> Timing | None:
        """How long one execution of all copies keeps the backend busy; None where that has no meaning."""
        return self._tiled.timing

    def run(self, requests: Sequence[Request]) -> tuple[list[Measurement], Cost]:
        """Measure `requests`; the cost is that of the executions of all copies together.

        Raises:
            InputError: if a request cannot be sent.
        """
        merged, where = self._merged(requests)
        measured, cost = self._tiled.run(self._tile(merged))
        rows = [self._untile(one, request) for one, request in zip(measured, merged, strict=True)]
        return [
            _part(rows[group], first, len(request.values))
            for (group, first), request in zip(where, requests, strict=True)
        ], cost

    def predict(self, requests: Sequence[Request]) -> Cost:
        """What `run` would cost, without running anything."""
        return self._tiled.predict(self._tile(self._merged(requests)[0]))

    def _merged(self, requests: Sequence[Request]) -> tuple[list[Request], list[tuple[int, int]]]:
        """Requests of the same kind as one, and where the rows of each are found: its number and the first row."""
        numbers: dict[Any, int] = {}
        values: list[list[Array]] = []
        where = []
        for index, request in enumerate(requests):
            check_request(index, request, len(self.parameters))
            wanted = None if request.observables is None else tuple(request.observables)
            number = numbers.setdefault((wanted, request.precision), len(values))
            if number == len(values):
                values.append([])
            where.append((number, sum(map(len, values[number]))))
            values[number].append(np.asarray(request.values, dtype=float))
        merged = [
            Request(np.concatenate(values[number]), observables, precision)
            for (observables, precision), number in numbers.items()
        ]
        return merged, where

    def _tile(self, requests: Sequence[Request]) -> list[Request]:
        tiled = []
        for request in requests:
            count, each = len(self.copies), len(request.values)
            rows = -(-each // count)
            # np.resize repeats from the first row on
            filled = np.resize(request.values, (rows * count, request.values.shape[1])) if each else request.values
            chosen = filled.reshape(rows, count * request.values.shape[1])[:, self._columns]
            tiled.append(Request(chosen, self._everywhere(request.observables), request.precision))
        return tiled

    def _everywhere(self, observables: tuple[int, ...] | None) -> tuple[int, ...] | None:
        """Indices of the template's observables as those of all copies."""
        if observables is None:
            return None
        size = self._num_observables
        if bad := [index for index in observables if not 0 <= index < size]:
            raise InputError(f"observables {bad} do not exist; the runner has {size}")
        return tuple(copy * size + index for copy in range(len(self.copies)) for index in observables)

    def _untile(self, measured: Measurement, request: Request) -> Measurement:
        each, count = len(request.values), len(self.copies)
        width = self._num_observables if request.observables is None else len(request.observables)
        values, errors = (
            array.reshape(len(array) * count, width)[:each] for array in (measured.values, measured.std_errors)
        )
        return Measurement(values, errors, np.repeat(measured.shots, count)[:each])


def _part(measured: Measurement, first: int, length: int) -> Measurement:
    inside = slice(first, first + length)
    return Measurement(measured.values[inside], measured.std_errors[inside], measured.shots[inside])


def _equal(first: QuantumCircuit, second: QuantumCircuit) -> bool:
    """Whether two circuits are the same but for the identity of equally named parameters."""
    names = [sorted(parameter.name for parameter in circuit.parameters) for circuit in (first, second)]
    if names[0] != names[1] or first.num_qubits != second.num_qubits:
        return False
    values = {name: 0.1 + index for index, name in enumerate(names[0])}
    bound = [
        circuit.assign_parameters({parameter: values[parameter.name] for parameter in circuit.parameters})
        for circuit in (first, second)
    ]
    return bool(bound[0] == bound[1])
