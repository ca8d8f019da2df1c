"""An estimator for circuits of parts that never interact, such as copies of one circuit: each part is simulated by itself.

    ρ = ⊗_c ρ_c,    <Σ_c O_c> = Σ_c tr(O_c ρ_c),    σ² = Σ_c σ_c²

25 copies of 4 qubits cost 25 density matrices of 4 qubits, where one of all 100 would not fit anywhere. Each part has the
noise of its own qubits; **crosstalk between parts is not simulated**: calibration data, from which noise models are made, do
not tell it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import rustworkx as rx
from qiskit import QuantumCircuit
from qiskit.primitives import BaseEstimatorV2, DataBin, PrimitiveJob, PrimitiveResult, PubResult
from qiskit.primitives.containers.estimator_pub import EstimatorPub
from qiskit.primitives.containers.observables_array import ObservablesArray
from qiskit.providers import BackendV2

from qiskit_qdeq.evaluation.protocol import Array
from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.execution.devices import SubDevice, cut_target
from qiskit_qdeq.execution.noise import noise_from_backend
from qiskit_qdeq.execution.noisy_estimator import DensityMatrixEstimator, check_precision
from qiskit_qdeq.execution.primitives import shots_for
from qiskit_qdeq.execution.timing import default_rep_delay

#: Qubits of a part whose density matrix, or state without noise, is still simulated.
_LARGEST_NOISY, _LARGEST = 11, 22


class ProductEstimator(BaseEstimatorV2):  # type: ignore[misc]
    """Estimates expectation values of each connected part of a circuit as `DensityMatrixEstimator` does.

    Qubits are connected by gates and by terms of observables that act on both. Shots, standard errors and seeds mean the
    same as there.

    Args:
        backend: the device whose qubits, gates and calibration are simulated, of any size, such as a fake backend of 127
            qubits; a simulator without couplings, whose noise is the same on all qubits; or None: no noise.
        default_precision: where neither the PUB nor `run` gives one; 0: exact.
        default_shots: instead of `default_precision`.
        seed: of the shots.

    Raises:
        InputError: if an argument cannot be used.

    >>> circuit = QuantumCircuit(60)
    >>> for qubit in range(0, 60, 2):
    ...     circuit.h(qubit)
    ...     circuit.cx(qubit, qubit + 1)  # doctest: +ELLIPSIS
    <...
    >>> ProductEstimator().run([(circuit, ["I" * 58 + "ZZ", "Z" + "I" * 59])]).result()[0].data.evs.round(12).tolist()
    [1.0, 0.0]
    """

    def __init__(
        self,
        backend: BackendV2 | None = None,
        *,
        default_precision: float = 0.0,
        default_shots: int | None = None,
        seed: int | np.random.Generator | None = None,
    ) -> None:
        from qiskit_aer import AerSimulator

        if backend is not None and not isinstance(backend, BackendV2):
            raise InputError(f"backend must be a device such as a fake backend, or None, got {backend!r}")
        self.backend = backend
        simulator = backend if isinstance(backend, AerSimulator) and backend.coupling_map is None else None
        #: Of all parts, where their qubits do not differ.
        self._uniform = DensityMatrixEstimator(
            simulator, default_precision=default_precision, default_shots=default_shots
        )
        self._differ = backend is not None and simulator is None
        self._noisy = self._differ or (simulator is not None and simulator.options.noise_model is not None)
        self._parts: dict[tuple[int, ...], DensityMatrixEstimator] = {}
        self.reseed(seed)

    @property
    def default_precision(self) -> float:
        """The precision where none is given; 0: exact."""
        return self._uniform.default_precision

    def reseed(self, seed: int | np.random.Generator | None) -> None:
        """Start another stream of random numbers."""
        self._seed, self._generator = seed, np.random.default_rng(seed)
        self.restart(0)

    def restart(self, position: int) -> None:
        """Begin the stream of `position`, such as a training step; no effect without an integer seed."""
        if isinstance(self._seed, int | np.integer):
            self._generator = np.random.default_rng([int(self._seed), position])

    def run(self, pubs: Iterable[Any], *, precision: float | None = None) -> PrimitiveJob[Any]:
        """Estimate the expectation values of each PUB (circuit, observables, parameter values, precision).

        Raises:
            InputError: if a part is too large to be simulated; see also `DensityMatrixEstimator`.
        """
        default = self.default_precision if precision is None else check_precision("precision", precision)
        work = []
        for whole, parts in [_split(EstimatorPub.coerce(pub, default)) for pub in pubs]:
            estimators = [self._estimator_of(part.qubits) for part in parts]
            jobs = []
            for part, estimator in zip(parts, estimators, strict=True):
                # drawn here, not in the job's thread: results must not depend on which job runs first
                estimator.reseed(int(self._generator.integers(2**63)))
                jobs.append((part, estimator.run([part.pub])))
            work.append((whole, jobs))
        job = PrimitiveJob(_gather, work)
        job._submit()
        return job

    def _estimator_of(self, qubits: tuple[int, ...]) -> DensityMatrixEstimator:
        """What simulates the part on these qubits."""
        largest = _LARGEST_NOISY if self._noisy else _LARGEST
        if len(qubits) > largest:
            raise InputError(
                f"a part of the circuit connects {len(qubits)} qubits, from {qubits[0]} to {qubits[-1]}, more than the "
                f"{largest} that can be simulated; a product of smaller parts can"
            )
        if not self._differ:
            return self._uniform
        if qubits not in self._parts:
            assert self.backend is not None  # some device
            size = self.backend.target.num_qubits
            if qubits[-1] >= size:
                raise InputError(f"the circuit has a gate on qubit {qubits[-1]}, but the backend only {size} qubits")
            device = SubDevice(
                cut_target(self.backend.target, qubits), self.backend.name, qubits, default_rep_delay(self.backend)
            )
            self._parts[qubits] = DensityMatrixEstimator(noise_from_backend(device))
        return self._parts[qubits]


@dataclass(frozen=True, eq=False)
class _Whole:
    """A PUB: which of its points and observables each value belongs to, and what identities add."""

    pub: EstimatorPub
    points: Array
    which: Array
    offsets: Array


@dataclass(frozen=True, eq=False)
class _Part:
    """A connected part: its qubits, ascending, its PUB of shape (observables, points), and their places among all."""

    qubits: tuple[int, ...]
    pub: tuple[Any, ...]
    observables: Array


def _split(pub: EstimatorPub) -> tuple[_Whole, list[_Part]]:
    points = np.arange(pub.parameter_values.size).reshape(pub.parameter_values.shape)
    which = np.arange(pub.observables.size).reshape(pub.observables.shape)
    points, which = np.broadcast_arrays(points, which)
    offsets = np.zeros(pub.observables.size)
    terms: list[tuple[int, str, float, list[int]]] = []
    for index, observable in enumerate(np.ravel(pub.observables.__array__())):
        for label, coefficient in dict(observable).items():
            support = [qubit for qubit, letter in enumerate(reversed(label)) if letter != "I"]
            if support:
                terms.append((index, label, coefficient, support))
            else:
                offsets[index] += coefficient
    gates = list(_gates(pub.circuit))
    members, home = _components(pub.circuit.num_qubits, gates, [support for *_, support in terms])
    asked: dict[int, dict[int, dict[str, float]]] = {}
    for index, label, coefficient, support in terms:
        component = home[support[0]]
        short = "".join(label[-1 - qubit] for qubit in reversed(members[component]))
        asked.setdefault(component, {}).setdefault(index, {})[short] = coefficient
    circuits = _restricted(pub.circuit, gates, {component: members[component] for component in asked}, home)
    values = pub.parameter_values.as_array(pub.circuit.parameters)
    values = values.reshape(pub.parameter_values.size, values.shape[-1])
    columns = {parameter: index for index, parameter in enumerate(pub.circuit.parameters)}
    parts = []
    for component, observables in sorted(asked.items()):
        circuit = circuits[component]
        own = values[:, [columns[parameter] for parameter in circuit.parameters]]
        column = ObservablesArray(list(observables.values())).reshape(len(observables), 1)
        where = np.array(list(observables))
        parts.append(_Part(tuple(members[component]), (circuit, column, own, pub.precision), where))
    return _Whole(pub, points, which, offsets), parts


def _components(num_qubits: int, gates: list[tuple[str, list[int]]], supports: Iterable[list[int]]) -> tuple[Any, Any]:
    """The connected parts, each with its qubits ascending, and the number of the part of every qubit."""
    graph = rx.PyGraph()
    graph.add_nodes_from(range(num_qubits))
    for qubits in (*(where for name, where in gates if name != "barrier"), *supports):
        graph.add_edges_from_no_data([(qubits[0], other) for other in qubits[1:]])
    members = sorted(sorted(component) for component in rx.connected_components(graph))
    return members, {qubit: number for number, qubits in enumerate(members) for qubit in qubits}


def _restricted(
    circuit: QuantumCircuit, gates: list[tuple[str, list[int]]], members: dict[int, list[int]], home: dict[int, int]
) -> dict[int, QuantumCircuit]:
    """The gates of each part. Barriers between parts have no effect on what is simulated."""
    circuits = {component: QuantumCircuit(len(qubits)) for component, qubits in members.items()}
    position = {qubit: index for qubits in members.values() for index, qubit in enumerate(qubits)}
    for item, (name, qubits) in zip(circuit.data, gates, strict=True):
        component = home[qubits[0]]
        if name != "barrier" and component in circuits:
            circuits[component].append(item.operation, [position[qubit] for qubit in qubits], copy=False)
    return circuits


def _gates(circuit: QuantumCircuit) -> Iterator[tuple[str, list[int]]]:
    places = {qubit: index for index, qubit in enumerate(circuit.qubits)}
    for item in circuit.data:
        yield item.name, [places[qubit] for qubit in item.qubits]


def _gather(work: list[tuple[_Whole, list[tuple[_Part, Any]]]]) -> PrimitiveResult[Any]:
    return PrimitiveResult([_result(whole, jobs) for whole, jobs in work], metadata={"version": 2})


def _result(whole: _Whole, jobs: list[tuple[_Part, Any]]) -> PubResult:
    pub = whole.pub
    values = np.repeat(whole.offsets[:, None], pub.parameter_values.size, axis=1)
    variances, shots = np.zeros_like(values), shots_for(pub.precision, 1e-12)
    for part, job in jobs:
        result = job.result()[0]
        values[part.observables] += result.data.evs
        variances[part.observables] += result.data.stds**2
    where = (whole.which, whole.points)
    data = DataBin(evs=values[where], stds=np.sqrt(variances[where]), shape=whole.points.shape)
    metadata = {"target_precision": pub.precision, "shots": shots, "circuit_metadata": pub.circuit.metadata}
    return PubResult(data, metadata=metadata)
