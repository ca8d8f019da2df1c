"""Ansätze: circuits U(θ) with the trainable weights θ.

All builders return a QuantumCircuit over ``ParameterVector("weights", p)``; any unitary circuit will do.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter, ParameterVector

from qiskit_qdeq.circuits._checks import check_count, check_parameters, check_reals, check_unitary
from qiskit_qdeq.exceptions import InputError

_ROTATIONS = ("rx", "ry", "rz", "crx")
_GROUP_WIRES = 4


@dataclass(frozen=True)
class Ansatz:
    """A circuit U(θ) and the order of its weights θ.

    Attributes:
        circuit: gates and barriers only; a copy of the circuit given.
        weights: exactly the circuit's parameters, in the order in which weight vectors hold their values.

    Raises:
        InputError: if the circuit is not unitary, or has other parameters than `weights`.
    """

    circuit: QuantumCircuit
    weights: tuple[Parameter, ...]

    def __post_init__(self) -> None:
        circuit = check_unitary(self.circuit, "the ansatz circuit").copy()
        object.__setattr__(self, "circuit", circuit)
        # nothing to train is said by an empty tuple
        if self.weights or circuit.parameters:
            object.__setattr__(self, "weights", check_parameters(circuit, self.weights, "weights"))


def as_ansatz(ansatz: QuantumCircuit | Ansatz, weights: ParameterVector | Sequence[Parameter] | None = None) -> Ansatz:
    """Return an Ansatz as it is, or check a circuit and fix the order of its weights.

    Args:
        ansatz: an Ansatz, or a unitary circuit whose parameters must be exactly `weights`.
        weights: the parameters in order; default: all of the circuit's, by name and vector index.

    Raises:
        InputError: if the circuit is not unitary, has no parameter, or has others than `weights`.
    """
    if isinstance(ansatz, Ansatz):
        if weights is not None:
            raise InputError("weights are already fixed by the Ansatz; pass its circuit to choose another order")
        return ansatz
    check_unitary(ansatz, "the ansatz circuit")
    check_parameters(ansatz, weights, "weights")
    return Ansatz(ansatz, tuple(ansatz.parameters if weights is None else weights))


def paper_ansatz(
    num_qubits: int, train_extra: bool = True, extra_angles: Sequence[float] | None = None
) -> QuantumCircuit:
    """Return the ansatz of the QDEQ paper's code (arXiv:2410.23940) for 4 or 10 qubits.

    A random layer of 50 RX, RY, RZ and CNOT, then per group (wire offset o) the extra rotations RX(o),
    RY(o+1), RZ(o+3), CRX(o -> o+2), then per group H(o+3), SX(o+2), CNOT(o+3 -> o). n = 4 has one group,
    n = 10 four, at offsets 0, 2, 4, 6. The weights are the rotations of the random layer in order of
    appearance (35 for n = 4, 40 for n = 10), then the extra angles in order of appearance (4 or 16).

    Args:
        num_qubits: 4 or 10.
        train_extra: False keeps the extra angles as fixed numbers: they are not trained in the authors' code.
        extra_angles: the fixed numbers, 4 or 16, if `train_extra` is False.

    Raises:
        InputError: for another number of qubits, or extra angles missing, superfluous or not finite.

    >>> paper_ansatz(4).num_parameters
    39
    >>> paper_ansatz(4, train_extra=False, extra_angles=[0.1] * 4).num_parameters
    35
    """
    gates = json.loads(files("qiskit_qdeq.circuits").joinpath("paper_circuits.json").read_text("utf-8"))
    if str(check_count("num_qubits", num_qubits)) not in gates:
        raise InputError(
            f"the paper's ansatz exists for num_qubits 4 and 10, got {num_qubits!r}; for others use "
            "ansatz='random', or random_ansatz(...)"
        )
    layer, extra, closing = (gates[str(num_qubits)][key] for key in ("random_layer", "extra_gates", "closing_gates"))
    if not train_extra:
        extra = [[*gate, angle] for gate, angle in zip(extra, _check_extra(extra_angles, len(extra)), strict=True)]
    elif extra_angles is not None:
        raise InputError("extra_angles are weights if train_extra is True; leave them out or set train_extra=False")
    return _build(num_qubits, [*layer, *extra, *closing], "paper_ansatz")


def random_ansatz(
    num_qubits: int, num_gates: int = 50, seed: int | np.random.Generator | None = None
) -> QuantumCircuit:
    """Return an ansatz of the paper's kind: a random layer, then the extra rotations and closing gates.

    The layer draws each gate from RX, RY, RZ, CNOT (without CNOT if n = 1) on random wires; the groups that
    follow are those of :func:`paper_ansatz` at offsets 0, 2, 4, ... as long as all wires of a group exist.

    Args:
        num_qubits: n.
        num_gates: gates of the random layer.
        seed: seed of the draws; the same seed gives the same circuit.

    Raises:
        InputError: if a count is below 1, the seed is unusable, or no rotation was drawn.
    """
    num_qubits = check_count("num_qubits", num_qubits)
    num_gates = check_count("num_gates", num_gates)
    try:
        rng = np.random.default_rng(seed)
    except (TypeError, ValueError):
        raise InputError(f"seed must be a non-negative integer or a Generator, got {seed!r}") from None
    kinds = ["rx", "ry", "rz", "cnot"][: 4 if num_qubits > 1 else 3]
    layer: list[list[Any]] = []
    for _ in range(num_gates):
        kind = kinds[rng.integers(len(kinds))]
        wires = rng.choice(num_qubits, size=2 if kind == "cnot" else 1, replace=False)
        layer.append([kind, *wires.tolist()])
    offsets = range(0, num_qubits - _GROUP_WIRES + 1, 2)
    extra = [gate for o in offsets for gate in (["rx", o], ["ry", o + 1], ["rz", o + 3], ["crx", o, o + 2])]
    closing = [gate for o in offsets for gate in (["h", o + 3], ["sx", o + 2], ["cnot", o + 3, o])]
    circuit = _build(num_qubits, [*layer, *extra, *closing], "random_ansatz")
    if not circuit.num_parameters:
        raise InputError(f"no rotation among num_gates={num_gates} random gates; draw more gates or another seed")
    return circuit


def hardware_efficient_ansatz(num_qubits: int, layers: int, entanglement: str = "linear") -> QuantumCircuit:
    """Return `layers` times (RY and RZ on every wire, then a chain of CX), then RY on every wire.

    Args:
        num_qubits: n.
        layers: number of repetitions; the circuit has n (2 layers + 1) weights.
        entanglement: "linear" (CX from wire j to j+1) or "circular" (and from the last wire to wire 0).

    Raises:
        InputError: if a count is below 1 or the entanglement is unknown.
    """
    num_qubits = check_count("num_qubits", num_qubits)
    layers = check_count("layers", layers)
    if entanglement not in ("linear", "circular"):
        raise InputError(f"entanglement must be 'linear' or 'circular', got {entanglement!r}")
    wires = range(num_qubits)
    chain: list[list[Any]] = [["cnot", wire, wire + 1] for wire in wires[:-1]]
    if entanglement == "circular" and num_qubits > 2:
        chain.append(["cnot", num_qubits - 1, 0])
    layer = [["ry", wire] for wire in wires] + [["rz", wire] for wire in wires] + chain
    return _build(num_qubits, layer * layers + [["ry", wire] for wire in wires], "hardware_efficient_ansatz")


def _build(num_qubits: int, gates: Sequence[Sequence[Any]], name: str) -> QuantumCircuit:
    """Build a circuit from [name, *wires] lists; a rotation without an angle takes the next weight."""
    circuit = QuantumCircuit(num_qubits, name=name)
    num_wires = {"cnot": 2, "crx": 2}
    free = [kind in _ROTATIONS and len(rest) == num_wires.get(kind, 1) for kind, *rest in gates]
    weights = iter(ParameterVector("weights", sum(free)))
    for (kind, *rest), is_free in zip(gates, free, strict=True):
        wires = rest[: num_wires.get(kind, 1)]
        qubits = [num_qubits - 1 - wire for wire in wires]
        angle = [next(weights)] if is_free else rest[len(wires) :]
        getattr(circuit, "cx" if kind == "cnot" else kind)(*angle, *qubits)
    return circuit


def _check_extra(extra_angles: Sequence[float] | None, expected: int) -> list[float]:
    angles = check_reals("extra_angles", [] if extra_angles is None else extra_angles)
    if angles.shape != (expected,) or not np.isfinite(angles).all():
        raise InputError(
            f"extra_angles must be {expected} finite numbers if train_extra is False, got {extra_angles!r}"
        )
    return [float(angle) for angle in angles]
