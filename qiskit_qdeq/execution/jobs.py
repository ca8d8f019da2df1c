"""A job as it is asked for: what is sent, what it amounts to, and how its result is told from another's."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from qiskit import QuantumCircuit
from qiskit.primitives.containers.estimator_pub import EstimatorPub
from qiskit.quantum_info import SparsePauliOp

from qiskit_qdeq.evaluation.protocol import Cost
from qiskit_qdeq.exceptions import ExecutionError

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, eq=False)
class JobSpec:
    """One job.

    Attributes:
        pubs: what is sent to the primitive.
        content: digest of what is asked, the same in every process; it leaves out how the circuit was transpiled, which
            changes with the device's calibration while the question stays.
        cost: predicted.
        check: raises ExecutionError for a result that is not one of these PUBs.
        precision: for PUBs that have none.
    """

    pubs: tuple[Any, ...]
    content: str
    cost: Cost
    check: Callable[[Any], object]
    precision: float | None = None


class PendingJob(Protocol):
    """A job whose result can be waited for."""

    def result(self) -> Any:
        """The PrimitiveResult."""


def circuit_digest(circuit: QuantumCircuit, observables: Sequence[SparsePauliOp]) -> str:
    """Digest of gates, qubits, parameter names and observables, independent of the process that built them."""
    digest = hashlib.sha256(f"{circuit.num_qubits} {circuit.global_phase}".encode())
    for item in circuit.data:
        qubits = [circuit.find_bit(qubit).index for qubit in item.qubits]
        digest.update(f"{item.operation.name}{qubits}{[str(value) for value in item.operation.params]};".encode())
    for observable in observables:
        digest.update(str(sorted(zip(observable.paulis.to_labels(), observable.coeffs.tolist(), strict=True))).encode())
    return digest.hexdigest()


def content_digest(parts: Iterable[str | bytes | Array]) -> str:
    """Digest of texts and arrays, in their order."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part if isinstance(part, bytes) else _bytes(part)
        digest.update(f"{len(data)} ".encode() + data)
    return digest.hexdigest()


def spec_of(pubs: Iterable[Any], precision: float | None) -> JobSpec:
    """A job of arbitrary PUBs, whose cost nobody has predicted."""
    coerced = [EstimatorPub.coerce(pub, precision) for pub in pubs]
    parts: list[str | bytes | Array] = []
    for pub in coerced:
        values = pub.parameter_values
        names = [getattr(key, "name", str(key)) for keys in values.data for key in keys]
        parts += [circuit_digest(pub.circuit, []), str(pub.observables.tolist()), str(names), str(pub.precision)]
        parts += [np.asarray(array) for array in values.data.values()]

    def check(results: Any) -> None:
        check_results(results, [pub.shape for pub in coerced])

    return JobSpec(tuple(coerced), content_digest(parts), Cost(jobs=1, pubs=len(coerced)), check, precision)


def check_results(results: Any, shapes: Sequence[tuple[int, ...]]) -> None:
    """Raise ExecutionError unless `results` are finite real values of these shapes, one per PUB."""
    try:
        count = len(results)
    except TypeError:
        raise ExecutionError(f"returned {type(results).__name__} instead of results") from None
    if count != len(shapes):
        raise ExecutionError(f"returned {count} results for {len(shapes)} PUBs")
    for result, shape in zip(results, shapes, strict=True):
        values = np.asarray(getattr(getattr(result, "data", None), "evs", None))
        if values.shape != tuple(shape):
            raise ExecutionError(f"returned values of shape {values.shape} instead of {tuple(shape)}")
        if values.dtype.kind not in "fiu" or not np.all(np.isfinite(values)):
            raise ExecutionError("returned expectation values that are not finite real numbers")


def labelled(pubs: Iterable[Any], key: str) -> list[Any]:
    """The PUBs with the key in their circuits' metadata, which primitives hand through to the result."""
    copies: dict[int, Any] = {}
    result = []
    for pub in pubs:
        circuit = pub[0] if isinstance(pub, tuple) else pub.circuit
        rest = pub[1:] if isinstance(pub, tuple) else (pub.observables, pub.parameter_values, pub.precision)
        if id(circuit) not in copies:
            marked = circuit.copy()
            marked.metadata = {**(circuit.metadata or {}), "qdeq": key}
            copies[id(circuit)] = marked
        result.append((copies[id(circuit)], *rest))
    return result


def check_label(result: Any, key: str) -> None:
    """Raise ExecutionError if the result says that it is another job's."""
    for item in result:
        metadata = getattr(item, "metadata", None) or {}
        if (metadata.get("circuit_metadata") or {}).get("qdeq", key) != key:
            raise ExecutionError("returned the result of another job")


def _bytes(values: Array) -> bytes:
    data = np.ascontiguousarray(values, dtype=np.float64)
    return f"{data.shape}".encode() + data.tobytes()
