"""An estimator that simulates what a device does: exact noisy distribution, readout errors, then shots.

    p = C diag(U ρ U†),    counts ~ Multinomial(shots, p),    <O> = Σ_bits counts(bits) O(bits) / shots

ρ is the circuit's density matrix under the noise model (or its pure state without one), U the basis change of a group of
observables, C the readout confusion. All observables of a group come from the same counts, so their errors are correlated as
on hardware. Aer's own EstimatorV2 adds independent Gaussians instead and ignores readout errors.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from qiskit import QuantumCircuit, transpile
from qiskit.circuit import ParameterExpression
from qiskit.primitives import BaseEstimatorV2, DataBin, PrimitiveJob, PrimitiveResult, PubResult
from qiskit.primitives.containers.estimator_pub import EstimatorPub

from qiskit_qdeq.circuits._checks import check_count
from qiskit_qdeq.evaluation.protocol import Array
from qiskit_qdeq.exceptions import InputError, QDEQError
from qiskit_qdeq.execution.noise import BINDABLE_GATES, PERFECT_GATES
from qiskit_qdeq.execution.pauli_groups import MeasuredGroup, measured_groups

if TYPE_CHECKING:
    from qiskit_aer import AerSimulator
    from qiskit_aer.noise import NoiseModel

#: Instructions that are no gates, whose noise is not that of a gate.
NO_GATES = {"barrier", "delay", "reset", "measure", "id"}
_CHUNK_NUMBERS = 2**22


class DensityMatrixEstimator(BaseEstimatorV2):  # type: ignore[misc]
    """Estimates expectation values from simulated shots, with noise or without.

    The number of shots of a PUB is ⌈1/precision²⌉ for every parameter set and group of observables that can be measured
    together; precision 0 gives the exact values of the noisy state, readout errors included, with standard errors 0.

    Standard errors are those of the counts plus one count each of the smallest and the largest outcome value of the
    observable (Laplace's rule): equal outcomes in a finite sample never give 0, which no sample can establish.

    Every call draws fresh noise: the generator advances by one number per `run`, so that equal seeds and equal sequences of
    calls give equal results, and two calls in a sequence differ.

    Args:
        noise: a noisy simulator (see `noise`) or a noise model; None: a perfect device.
        default_precision: where neither the PUB nor `run` gives one; 0: exact.
        default_shots: instead of `default_precision`.
        seed: of the shots.
        max_parallel_threads: of Aer.

    Raises:
        InputError: if an argument cannot be used, or the noise model has readout errors that act on several qubits at once.
    """

    def __init__(
        self,
        noise: AerSimulator | NoiseModel | None = None,
        *,
        default_precision: float = 0.0,
        default_shots: int | None = None,
        seed: int | np.random.Generator | None = None,
        max_parallel_threads: int = 1,
    ) -> None:
        from qiskit_aer import AerSimulator
        from qiskit_aer.noise import NoiseModel

        model = noise.options.noise_model if isinstance(noise, AerSimulator) else noise
        if not (model is None or isinstance(model, NoiseModel)):
            raise InputError(f"noise must be a noisy AerSimulator, a NoiseModel or None, got {type(noise).__name__}")
        if default_shots is not None and default_precision:
            raise InputError("default_shots and default_precision say the same; give one of them")
        self._default_precision = check_precision("default_precision", default_precision)
        if default_shots is not None:
            self._default_precision = check_count("default_shots", default_shots) ** -0.5
        self._confusion = {} if model is None else readout_confusion(model)
        self._basis = None if model is None else NO_GATES.union(model.basis_gates, model.noise_instructions)
        self._simulator = AerSimulator(
            method="statevector" if model is None else "density_matrix",
            noise_model=model,
            runtime_parameter_bind_enable=True,
            max_parallel_threads=check_count("max_parallel_threads", max_parallel_threads),
        )
        self.reseed(seed)

    @property
    def default_precision(self) -> float:
        """The precision where none is given; 0: exact."""
        return self._default_precision

    def reseed(self, seed: int | np.random.Generator | None) -> None:
        """Start another stream of random numbers."""
        self._seed, self._generator = seed, np.random.default_rng(seed)
        self.restart(0)

    def restart(self, position: int) -> None:
        """Begin the stream of `position`, such as a training step: a resumed run continues as an uninterrupted one.

        No effect without an integer seed.
        """
        if isinstance(self._seed, int | np.integer):
            self._generator = np.random.default_rng([int(self._seed), position])

    def run(self, pubs: Iterable[Any], *, precision: float | None = None) -> PrimitiveJob[Any]:
        """Estimate the expectation values of each PUB (circuit, observables, parameter values, precision).

        Returns:
            A job whose results have `data.evs` and `data.stds`, of the broadcast shape of observables and parameter values,
            and `metadata` with target_precision, shots and circuit_metadata.

        Raises:
            InputError: if a precision is negative or not finite, or a circuit has gates for which the noise model has no
                meaning, as they would run without noise.
        """
        if precision is not None:
            check_precision("precision", precision)
        default = self._default_precision if precision is None else precision
        coerced = [EstimatorPub.coerce(pub, default) for pub in pubs]
        for pub in coerced:
            self._check(pub)
        # drawn here, not in the job's thread: results must not depend on which job runs first
        job = PrimitiveJob(self._run, coerced, int(self._generator.integers(2**63)))
        job._submit()
        return job

    def _check(self, pub: EstimatorPub) -> None:
        check_precision("precision", pub.precision)
        if (
            pub.parameter_values.num_parameters
            and not np.isfinite(pub.parameter_values.as_array(pub.circuit.parameters)).all()
        ):
            raise InputError("the parameter values of a PUB contain NaN or infinity")
        if self._basis is None:
            return
        if strange := set(pub.circuit.count_ops()) - self._basis:
            raise InputError(
                f"the noise model says nothing about the gates {sorted(strange)}, which would run without noise; transpile "
                f"the circuit for the noisy simulator, whose gates are {sorted(self._basis - NO_GATES)}"
            )
        if unbindable := _parametrized(pub.circuit) - BINDABLE_GATES:
            raise InputError(
                f"Aer does not bind the parameters of the gates {sorted(unbindable)}; transpile the circuit to a basis "
                "whose parametrized gates are plain rotations"
            )

    def _run(self, pubs: list[EstimatorPub], seed: int) -> PrimitiveResult[Any]:
        generator = np.random.default_rng(seed)
        return PrimitiveResult([self._run_pub(pub, generator) for pub in pubs], metadata={"version": 2})

    def _run_pub(self, pub: EstimatorPub, generator: np.random.Generator) -> PubResult:
        shots = _shots(pub.precision)
        points = np.arange(pub.parameter_values.size).reshape(pub.parameter_values.shape)
        which = np.arange(pub.observables.size).reshape(pub.observables.shape)
        points, which = np.broadcast_arrays(points, which)
        shape, points, which = points.shape, points.ravel(), which.ravel()
        offsets, groups = measured_groups([dict(item) for item in np.ravel(pub.observables.__array__())])
        values, variances = offsets[which], np.zeros(which.size)
        for group in groups:
            entries = np.flatnonzero(np.isin(which, list(group.worth)))
            circuit = self._measured(pub.circuit, group)
            for rows in _chunks(np.unique(points[entries]), len(group.qubits)):
                weights = self._probabilities(pub, circuit, group, rows)
                if shots:
                    weights = generator.multinomial(shots, weights) / shots
                inside = entries[np.isin(points[entries], rows)]
                for index, worth in group.worth.items():
                    own = inside[which[inside] == index]
                    place = np.searchsorted(rows, points[own])
                    mean = weights @ worth
                    values[own] += mean[place]
                    if shots:
                        variances[own] += _variance(mean, weights @ worth**2, worth, shots)[place] / shots
        data = DataBin(evs=values.reshape(shape), stds=np.sqrt(variances).reshape(shape), shape=shape)
        metadata = {
            "target_precision": pub.precision,
            "shots": shots,
            "circuit_metadata": pub.circuit.metadata,
        }
        return PubResult(data, metadata=metadata)

    def _probabilities(self, pub: EstimatorPub, circuit: QuantumCircuit, group: MeasuredGroup, rows: Array) -> Array:
        """Distribution of the read outcomes (rows, 2^k) of the group's qubits for some parameter sets of the PUB."""
        parameters = list(circuit.parameters)
        # a parameter of the global phase alone is gone by now
        columns = [list(pub.circuit.parameters).index(parameter) for parameter in parameters]
        values = pub.parameter_values.as_array(pub.circuit.parameters)
        bindings = values.reshape(pub.parameter_values.size, values.shape[-1])[rows][:, columns]
        outcomes = self._simulate(circuit, parameters, bindings).reshape((len(rows),) + (2,) * len(group.qubits))
        for bit, qubit in enumerate(group.qubits):
            if (confusion := self._confusion.get(qubit, self._confusion.get(None))) is not None:
                axis = len(group.qubits) - bit
                outcomes = np.moveaxis(np.tensordot(outcomes, confusion, axes=(axis, 0)), -1, axis)
        # rounding can leave -1e-17, which the multinomial refuses
        probabilities = np.clip(outcomes.reshape(len(rows), -1), 0.0, None)
        return probabilities / probabilities.sum(axis=1, keepdims=True)

    def _measured(self, circuit: QuantumCircuit, group: MeasuredGroup) -> QuantumCircuit:
        """The circuit with the group's basis change and what Aer is to save."""
        measured = circuit.copy()
        rotations = QuantumCircuit(circuit.num_qubits)
        for qubit, axis in zip(group.qubits, group.axes, strict=True):
            if axis == "Y":
                rotations.sdg(qubit)
            if axis != "Z":
                rotations.h(qubit)
        if self._basis is None:
            if not set(circuit.count_ops()) <= NO_GATES.union(PERFECT_GATES):
                measured = transpile(measured, basis_gates=list(PERFECT_GATES), optimization_level=0)
        elif rotations.data:
            rotations = transpile(rotations, basis_gates=sorted(self._basis - NO_GATES), optimization_level=1)
        measured.compose(rotations, measured.qubits, inplace=True)
        # Aer cannot bind a parametrized global phase at run time, and it does not matter
        measured.global_phase = 0
        measured.save_probabilities([measured.qubits[qubit] for qubit in group.qubits], label="p")
        return measured

    def _simulate(self, circuit: QuantumCircuit, parameters: list[Any], bindings: Array) -> Array:
        # without parameters all rows are the same state
        binds = [dict(zip(parameters, bindings.T.tolist(), strict=True))] if parameters else None
        result = self._simulator.run(circuit, parameter_binds=binds, shots=1).result()
        if not result.success:
            raise QDEQError(f"the simulator could not run the circuit: {result.status}")
        saved = np.array([experiment.data.p for experiment in result.results])
        return saved if parameters else np.repeat(saved, len(bindings), axis=0)


def _chunks(rows: Array, num_bits: int) -> Iterator[Array]:
    """Parts of `rows` whose distributions fit in memory."""
    length = max(1, _CHUNK_NUMBERS >> num_bits)
    return (rows[start : start + length] for start in range(0, len(rows), length))


def _parametrized(circuit: QuantumCircuit) -> set[str]:
    return {item.name for item in circuit.data if any(isinstance(p, ParameterExpression) for p in item.params)}


def check_precision(name: str, precision: float) -> float:
    """`precision`, or InputError unless it is finite and at least 0."""
    if not (0 <= precision < math.inf):
        raise InputError(f"{name} must be a number of at least 0 (0: exact), got {precision!r}")
    return float(precision)


def _shots(precision: float) -> int:
    """⌈1/precision²⌉, without a shot too many where precision is the rounded inverse root of a whole number."""
    return math.ceil(precision**-2 * (1 - 1e-12)) if precision else 0


def _variance(mean: Array, square: Array, worth: Array, shots: int) -> Array:
    low, high = worth.min(), worth.max()
    smoothed = (shots * mean + low + high) / (shots + 2)
    return np.maximum((shots * square + low**2 + high**2) / (shots + 2) - smoothed**2, 0.0)


def readout_confusion(model: NoiseModel) -> dict[int | None, Array]:
    """Qubit -> P(read | is) (2, 2), rows is; None for all qubits that have none of their own."""
    errors = model.to_dict()["errors"]
    if any("measure" in error["operations"] for error in errors if error["type"] == "qerror"):
        raise InputError("noise has quantum errors on measurements; describe them as readout errors")
    confusion: dict[int | None, Array] = {}
    for error in errors:
        if error["type"] != "roerror":
            continue
        matrix = np.asarray(error["probabilities"], dtype=float)
        for qubits in error.get("gate_qubits", [(None,)]):
            if len(qubits) != 1 or matrix.shape != (2, 2):
                raise InputError(f"noise has a readout error on qubits {qubits} together; only independent ones work")
            confusion[qubits[0]] = matrix
    return confusion
