"""How long a device is busy with a circuit, by the formula IBM publishes for its usage:

    about 2 s per job + (rep_delay + circuit length) × executions

IBM Quantum documentation, "Workload usage", section "Estimate usage before submitting a job",
https://quantum.cloud.ibm.com/docs/en/guides/estimate-job-run-time. An execution is one shot of one circuit, mitigation's
own circuits included; the length has the qubits' reset before it and their measurement after it, as in the code there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from qiskit import QuantumCircuit
from qiskit.exceptions import QiskitError

#: Of a job that the service does not divide: loading it into the control electronics.
JOB_SECONDS = 2.0
#: IBM: "250 microseconds on most IBM Quantum backends". For devices that do not tell.
REPETITION_DELAY = 250e-6


@dataclass(frozen=True)
class Timing:
    """Seconds a device spends on a circuit.

    Attributes:
        repetition_seconds: one execution: repetition delay, reset, gates and measurement.
        folding_seconds: what each unit of noise factor above 1 adds to it, see `repetition`.
        readout_seconds: one execution of a readout calibration circuit, which has no gates.
        job_seconds: overhead of a job.
    """

    repetition_seconds: float
    folding_seconds: float = 0.0
    readout_seconds: float = 0.0
    job_seconds: float = JOB_SECONDS

    def repetition(self, noise_factor: float = 1.0) -> float:
        """One execution with its two-qubit gates folded: noise factor f repeats each f times on average.

        The longest chain of two-qubit gates is taken f times as long, one-qubit gates are not repeated. This bounds the
        length of the folded circuit from above. The one-qubit gates of twirling and of measurement bases are left out: they
        join those of the circuit, and the pulses they add are below a hundredth of the usual repetition delay.
        """
        return self.repetition_seconds + (noise_factor - 1) * self.folding_seconds


def timing_of(
    backend: Any, circuit: QuantumCircuit, *, rep_delay: float | None = None, init_qubits: bool = True
) -> Timing | None:
    """The timing of a circuit on a backend, or None if the backend has no durations, as ideal simulators have none.

    Args:
        backend: a device, or a simulator made from one.
        circuit: in the backend's instruction set, parameters unbound; every qubit is measured at the end.
        rep_delay: seconds between repetitions; None: the backend's default.
        init_qubits: whether the qubits are reset before each repetition.

    >>> from qiskit_ibm_runtime.fake_provider import FakeTorino
    >>> circuit = QuantumCircuit(2)
    >>> _ = circuit.x(0)
    >>> timing = timing_of(FakeTorino(), circuit)
    >>> round(1e6 * timing.repetition_seconds, 3)  # 250 µs delay, 1.708 µs reset, 0.032 µs gate, 1.56 µs measurement
    253.3
    """
    target = getattr(backend, "target", None)
    if target is None:
        return None
    readout = max(_durations(target, "measure", circuit.num_qubits), default=None)
    if readout is None:
        return None
    try:
        length = circuit.estimate_duration(target)
    except QiskitError:  # a gate without a duration, or control flow
        return None
    delay = default_rep_delay(backend) if rep_delay is None else rep_delay
    delay = REPETITION_DELAY if delay is None else delay
    reset = max(_durations(target, "reset", circuit.num_qubits), default=0.0) if init_qubits else 0.0
    idle = delay + reset + readout
    return Timing(idle + length, _two_qubit_length(circuit, target), idle)


def default_rep_delay(backend: Any) -> float | None:
    """Seconds between repetitions where nobody asks for others; None if the backend does not tell.

    IBM's backends and its fake ones look it up in their configuration, which has turned microseconds into seconds.
    """
    delay = getattr(backend, "default_rep_delay", None)
    return float(delay) if isinstance(delay, int | float) and math.isfinite(delay) else None


def _durations(target: Any, name: str, num_qubits: int) -> Iterator[float]:
    """The known durations of an operation of one qubit, on the first qubits of the target."""
    properties = target[name] if name in target.operation_names else None
    for qubits, values in (properties or {}).items():
        duration = getattr(values, "duration", None)
        if duration is not None and qubits is not None and qubits[0] < num_qubits:
            yield float(duration)


def _two_qubit_length(circuit: QuantumCircuit, target: Any) -> float:
    """The longest chain of two-qubit gates, in seconds, whatever stands between them."""
    ends = dict.fromkeys(circuit.qubits, 0.0)
    places = {qubit: place for place, qubit in enumerate(circuit.qubits)}
    for instruction in circuit.data:
        pair = instruction.qubits
        if len(pair) != 2 or instruction.name not in target.operation_names:
            continue
        values = target[instruction.name][tuple(places[qubit] for qubit in pair)]
        ends[pair[0]] = ends[pair[1]] = max(ends[qubit] for qubit in pair) + float(values.duration)
    return max(ends.values(), default=0.0)
