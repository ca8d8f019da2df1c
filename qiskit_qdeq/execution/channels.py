"""Noise models as plain arrays: the channel of every gate of a transpiled circuit, and what readout does to observables.

As in Aer, the channel that a noise model has for a gate on its qubits, or else for the gate on any, acts after it; gates it
has none for are perfect, and so are idle qubits. Expectation values of Aer's EstimatorV2 are those of the noisy state. With
readout they are those of measured bits: the observable's basis change is made by noisy gates, and a bit is read with

    P(read | is) = C,    Z -> ½ Σ_read (-1)^read [(C_0,read + C_1,read) 1 + (C_0,read - C_1,read) Z].
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from qiskit import QuantumCircuit, transpile
from qiskit.circuit import Instruction
from qiskit.providers import BackendV2
from qiskit.quantum_info import PTM, SuperOp

from qiskit_qdeq.circuits import CircuitTemplate
from qiskit_qdeq.evaluation.gate_angles import GateTemplate
from qiskit_qdeq.evaluation.noisy import NoisyEvaluator
from qiskit_qdeq.evaluation.noisy_circuit import NoisyCircuit, NoisyGate, check_size, noisy_gate, pauli_components
from qiskit_qdeq.evaluation.program import primitive_gates
from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.execution.devices import SubDevice, sub_device
from qiskit_qdeq.execution.isa import to_isa, without_controlled_parameters
from qiskit_qdeq.execution.noise import noise_from_backend, parse_noise
from qiskit_qdeq.execution.noisy_estimator import NO_GATES, readout_confusion

if TYPE_CHECKING:
    from qiskit_aer import AerSimulator
    from qiskit_aer.noise import NoiseModel

Array = np.ndarray[Any, np.dtype[Any]]

#: Probability up to which Aer's simulator leaves out a term of a channel.
_NEGLIGIBLE = 1e-10


def noisy_evaluator(
    template: CircuitTemplate,
    injection: Array,
    noise: str | BackendV2,
    *,
    readout: bool = True,
    optimization_level: int | None = None,
) -> NoisyEvaluator:
    """The exact evaluator of a template under noise.

    Args:
        template: encoder, ansatz and observables.
        injection: P (D, K).
        noise: rates or a fake device in words, see `parse_noise`; a noisy simulator; or a device with calibrated gates, of
            which the best qubits are taken, as many as the template has.
        readout: whether values are those of measured bits, or of the noisy state as Aer's EstimatorV2 has them.
        optimization_level: of the transpiler; None: 3 for a device object, 1 otherwise, as circuits are executed.

    Raises:
        InputError: if the noise cannot be used, or the circuit is too large.
    """
    if optimization_level not in (None, 0, 1, 2, 3) or isinstance(optimization_level, bool):
        raise InputError(f"optimization_level must be 0, 1, 2 or 3, got {optimization_level!r}")
    simulator, level = _simulator(noise, template.num_qubits)
    gates = GateTemplate(template)
    observables = (*template.state_observables, *template.readout_observables)
    if (model := simulator.options.noise_model) is None:
        raise InputError("noise is a backend without noise; leave it out to compute without")
    level = level if optimization_level is None else optimization_level
    circuit, moved = to_isa(gates.circuit, observables, backend=simulator, optimization_level=level)
    noisy = noisy_circuit(circuit, moved, model, readout=readout)
    named = noise if isinstance(noise, str) else noise.name
    return NoisyEvaluator(gates, injection, noisy, {"noise": named, "readout": readout})


def noisy_circuit(
    circuit: QuantumCircuit, observables: Sequence[Any], model: NoiseModel, *, readout: bool = True
) -> NoisyCircuit:
    """A transpiled circuit and its observables under a noise model, on the qubits that it uses.

    Raises:
        InputError: for gates of which the noise model says nothing, delays, and instructions that are no gates; for noise
            that is no channel on the gate's own qubits; for more than 8 qubits.
    """
    places = {qubit: place for place, qubit in enumerate(circuit.qubits)}
    items = [(item.operation, tuple(places[q] for q in item.qubits)) for item in circuit.data if item.name != "barrier"]
    known = NO_GATES.union(model.basis_gates, model.noise_instructions)
    strange = sorted({operation.name for operation, _ in items} - known)
    if strange or any(operation.name == "delay" for operation, _ in items):
        raise InputError(
            f"the noise model says nothing about {strange or ['delay']}, which would be computed without noise; transpile "
            "the circuit for the noisy simulator, and do not schedule it"
        )
    supports = [{q for q in range(circuit.num_qubits) if (o.paulis.x | o.paulis.z)[:, q].any()} for o in observables]
    active = sorted({qubit for _, qubits in items for qubit in qubits}.union(*supports))
    check_size(len(active))
    home = {qubit: place for place, qubit in enumerate(active)}
    channels = _Channels(model)
    fixed: dict[str, list[NoisyGate]] = {}
    gates = [
        NoisyGate(tuple(home[qubit] for qubit in gate.qubits), gate.terms, gate.angle)
        for operation, qubits in items
        for gate in _with_noise(operation, qubits, channels, fixed)
    ]
    confusion = readout_confusion(model) if readout else {}
    basis = sorted(known - NO_GATES)
    turned = [any(o.paulis.x[:, qubit].any() for o in observables) for qubit in active]
    letters = np.array(
        [
            _letters(qubit, confusion, basis if turns else None, channels) if readout else np.eye(4)
            for qubit, turns in zip(active, turned, strict=True)
        ]
    )
    components = pauli_components(observables, active, letters)
    if not readout:
        # measured distributions are normalized, Aer's expectation values are not
        components *= math.prod(channels.share(operation.name, qubits) for operation, qubits in items)
    return NoisyCircuit(len(active), tuple(gates), components)


def _simulator(noise: Any, num_qubits: int) -> tuple[AerSimulator, int]:
    """The noisy simulator that is meant, and the optimization level that circuits are executed with there."""
    from qiskit_aer import AerSimulator

    if isinstance(noise, str):
        return parse_noise(noise, num_qubits), 1
    if isinstance(noise, AerSimulator):
        if noise.num_qubits < num_qubits:
            raise InputError(f"noise is a simulator of {noise.num_qubits} qubits, the circuit has {num_qubits}")
        return noise, 1
    if isinstance(noise, BackendV2):
        device = noise if isinstance(noise, SubDevice) else sub_device(noise, num_qubits)
        return noise_from_backend(device), 3
    raise InputError(
        f"noise must be a text such as '0.001,0.01,0.02' or 'fake:torino', a noisy AerSimulator or a device, got {noise!r}"
    )


def _with_noise(
    operation: Instruction,
    qubits: tuple[int, ...],
    channels: _Channels,
    fixed: dict[str, list[NoisyGate]] | None = None,
) -> Iterator[NoisyGate]:
    """The instruction as perfect gates of one angle, and its channel; gates without parameters are kept in `fixed`."""
    perfect = None if fixed is None or operation.params else fixed.get(operation.name)
    if perfect is None:
        single = QuantumCircuit(len(qubits))
        single.append(operation, range(len(qubits)))
        perfect = [noisy_gate(gate, gate.qubits) for gate in primitive_gates(without_controlled_parameters(single))]
        if fixed is not None and not operation.params:
            fixed[operation.name] = perfect
    for gate in perfect:
        yield NoisyGate(tuple(qubits[q] for q in gate.qubits), gate.terms, gate.angle)
    if (channel := channels.of(operation.name, qubits)) is not None:
        yield NoisyGate(qubits, channel[0][None])


class _Channels:
    """The quantum errors of a noise model as transfer matrices of Pauli components, each made when it is first asked for."""

    def __init__(self, model: NoiseModel) -> None:
        self._errors: dict[tuple[str, tuple[int, ...] | None], dict[str, Any]] = {}
        for error in model.to_dict()["errors"]:
            if error["type"] != "qerror":
                continue
            for name in error["operations"]:
                for qubits in error.get("gate_qubits", [None]):
                    self._errors[name, None if qubits is None else tuple(qubits)] = error
        self._made: dict[str, tuple[Array, float]] = {}

    def of(self, name: str, qubits: tuple[int, ...]) -> tuple[Array, float] | None:
        """T (4^k, 4^k) of what follows a gate, and the trace that Aer leaves of a state's 1; None: nothing follows."""
        error = self._errors.get((name, qubits), self._errors.get((name, None)))
        if error is None:
            return None
        if error["id"] not in self._made:
            self._made[error["id"]] = _transfer(error)
        if len(self._made[error["id"]][0]) != 4 ** len(qubits):
            raise InputError(
                f"the noise model's error of {name!r} does not act on the gate's {len(qubits)} qubits alone"
            )
        return self._made[error["id"]]

    def share(self, name: str, qubits: tuple[int, ...]) -> float:
        """The trace alone; 1 where nothing follows."""
        found = self.of(name, qubits)
        return 1.0 if found is None else found[1]


def _transfer(error: dict[str, Any]) -> tuple[Array, float]:
    """The channel without the terms that Aer's simulator leaves out, normalized, and the trace that Aer leaves."""
    from qiskit_aer.noise import QuantumError

    kept = [place for place, probability in enumerate(error["probabilities"]) if probability > _NEGLIGIBLE]
    share = sum(error["probabilities"][place] for place in kept)
    probabilities = [error["probabilities"][place] / share for place in kept]
    instructions = [error["instructions"][place] for place in kept]
    channel = QuantumError.from_dict({**error, "instructions": instructions, "probabilities": probabilities})
    return PTM(SuperOp(channel)).data.real, share


def _letters(qubit: int, confusion: dict[int | None, Array], basis: list[str] | None, channels: _Channels) -> Array:
    """What is measured on a qubit in the place of I, X, Y, Z, as components (4, 4).

    Without `basis`, the gates there are, nothing changes the basis: nobody asks for X and Y.
    """
    read = confusion.get(qubit, confusion.get(None, np.eye(2))) @ [1.0, -1.0]
    bit = np.array([read.sum() / 2, 0.0, 0.0, (read[0] - read[1]) / 2])
    letters = np.array([np.eye(4)[0], bit, bit, bit])
    for row, names in ((1, ("h",)), (2, ("sdg", "h"))) if basis is not None else ():
        change = QuantumCircuit(1)
        for name in names:
            getattr(change, name)(0)
        for item in reversed(transpile(change, basis_gates=basis, optimization_level=1).data):
            for gate in reversed(list(_with_noise(item.operation, (qubit,), channels))):
                letters[row] = letters[row] @ gate.terms[0]
    return letters
