"""Copies of one circuit on disjoint qubits of a device, to be executed together.

    |Ψ> = ⊗_c U(copy c's parameters) |0>,    <O on copy c> as if the copy were alone

up to crosstalk, which qubits left free between the copies keep small.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import rustworkx as rx
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter, ParameterVector
from qiskit.quantum_info import SparsePauliOp
from qiskit.transpiler import Target, generate_preset_pass_manager

from qiskit_qdeq.circuits._checks import check_count
from qiskit_qdeq.exceptions import InputError, warn_user
from qiskit_qdeq.execution.devices import cut_target
from qiskit_qdeq.execution.isa import check_isa
from qiskit_qdeq.execution.packing import pack
from qiskit_qdeq.execution.placement import Calibration, Place, places, routings

Array = np.ndarray[Any, np.dtype[Any]]

#: A qubit misread more often than that leaves less than half of its Z: no copy of "auto" has one.
_WORST_READOUT = 0.25


@dataclass(frozen=True, eq=False)
class Copy:
    """One copy.

    Attributes:
        circuit: in the device's instructions, on as many qubits as the template.
        qubits: of the device; the circuit's qubit i is `qubits[i]`.
        final: device qubit on which template qubit j is measured.
        two_qubit_gates: how many there are.
        two_qubit_error: their mean error.
        readout_error: mean over the qubits.
        errors: expected number of errors per execution, see `placement`.
    """

    circuit: QuantumCircuit
    qubits: tuple[int, ...]
    final: tuple[int, ...]
    two_qubit_gates: int = 0
    two_qubit_error: float = 0.0
    readout_error: float = 0.0
    errors: float = 0.0


@dataclass(frozen=True, eq=False)
class Copies:
    """Copies of one circuit on a device; `len` is their number, `str` a table of them.

    Attributes:
        copies: the one with the fewest errors first.
        template: the circuit that each of them executes.
        num_qubits: of the device.
        couplings: pairs of qubits between which the device has gates; empty on a simulator that has all.
        spare: qubits of different copies are more than this far from each other in the coupling map.
        device: its name.
    """

    copies: tuple[Copy, ...]
    template: QuantumCircuit
    num_qubits: int
    couplings: tuple[tuple[int, int], ...] = ()
    spare: int = 0
    device: str = ""

    def __len__(self) -> int:
        return len(self.copies)

    def __repr__(self) -> str:
        where = f" on {self.device}" if self.device else ""
        if not self.couplings:
            return f"Copies({len(self)} of {self.template.num_qubits} qubits side by side{where})"
        worst, best = max(self.two_qubit_errors), min(self.two_qubit_errors)
        return (
            f"Copies({len(self)} of {self.template.num_qubits} qubits{where}, more than {self.spare} apart, two-qubit error "
            f"{best:.2%} to {worst:.2%}, errors per execution {self.copies[0].errors:.2f} to {self.copies[-1].errors:.2f})"
        )

    def __str__(self) -> str:
        lines = [repr(self)]
        if self.couplings:
            lines += ["copy  qubits               2q gates  2q error  readout  errors"]
        for index, copy in enumerate(self.copies if self.couplings else ()):
            qubits = " ".join(map(str, copy.qubits))
            lines.append(
                f"{index:4d}  {qubits:<20s} {copy.two_qubit_gates:8d}  {copy.two_qubit_error:8.2%}  "
                f"{copy.readout_error:7.2%}  {copy.errors:6.2f}"
            )
        return "\n".join(lines)

    @property
    def two_qubit_errors(self) -> tuple[float, ...]:
        """Mean two-qubit error of each copy."""
        return tuple(copy.two_qubit_error for copy in self.copies)

    @property
    def error_ratio(self) -> float:
        """The worst copy's two-qubit error over the best's; 1 if all are zero."""
        worst, best = max(self.two_qubit_errors), min(self.two_qubit_errors)
        return worst / best if best else (1.0 if not worst else float("inf"))

    def circuit(self, parameters: Sequence[Parameter]) -> tuple[QuantumCircuit, tuple[ParameterVector, ...]]:
        """All copies in one circuit, and per copy a vector of new parameters in the order of `parameters`."""
        tiled, vectors = QuantumCircuit(self.num_qubits), []
        for index, copy in enumerate(self.copies):
            vector = ParameterVector(f"copy{index}", len(parameters))
            by_name = {parameter.name: new for parameter, new in zip(parameters, vector, strict=True)}
            own = {parameter: by_name[parameter.name] for parameter in copy.circuit.parameters}
            tiled.compose(copy.circuit.assign_parameters(own), list(copy.qubits), inplace=True, copy=False)
            vectors.append(vector)
        return tiled, tuple(vectors)

    def observables(self, observables: Sequence[SparsePauliOp]) -> list[SparsePauliOp]:
        """Observables of the template on every copy: all of copy 0 first."""
        return [one.apply_layout(list(copy.final), self.num_qubits) for copy in self.copies for one in observables]

    def draw(self, path: str | os.PathLike[str]) -> None:
        """Write a picture of the copies on the coupling map to a file."""
        from qiskit_qdeq.visualization.copies import plot_copies

        plot_copies(self).savefig(path)


def choose_copies(
    device: Any,
    circuit: QuantumCircuit,
    *,
    copies: int | str = "auto",
    spare: int = 1,
    max_error_ratio: float = 2.0,
    seed: int = 0,
    optimization_level: int = 3,
) -> Copies:
    """Find disjoint, connected, well-calibrated places for copies of a circuit.

    As many as possible are taken, or as many as asked for, with the fewest errors in total (`packing`). "auto" drops places
    whose two-qubit error, averaged over the gates that are executed, is more than `max_error_ratio` times that of the best
    place, and those with a qubit misread more than once in four times; a number takes them only if it must, and warns.

    Args:
        device: a backend or its target. Without couplings, as of a simulator, or None: copies are put side by side as they
            are, to be transpiled later.
        circuit: the template, parameters unbound.
        copies: how many, or "auto".
        spare: qubits of different copies are more than this far from each other; 1 leaves a qubit free between any two.
        max_error_ratio: at least 1.
        seed: of the transpiler, and of the choice among embeddings where there are too many to look at.
        optimization_level: of the transpiler, 0 to 3.

    Raises:
        InputError: if no copy fits, or fewer than asked for, or "auto" is asked of a device without couplings.

    >>> from qiskit_ibm_runtime.fake_provider import FakeTorino
    >>> circuit = QuantumCircuit(4)
    >>> for qubit in range(3):
    ...     _ = circuit.cx(qubit, qubit + 1)
    >>> len(choose_copies(FakeTorino(), circuit, copies=15))
    15
    """
    if not (copies == "auto" or (isinstance(copies, int) and not isinstance(copies, bool) and copies >= 1)):
        raise InputError(f"copies must be 'auto' or an integer of at least 1, got {copies!r}")
    check_count("spare", spare, 0)
    check_count("seed", seed, 0)
    ratio = max_error_ratio
    if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 1 <= ratio < float("inf"):
        raise InputError(f"max_error_ratio must be a finite number of at least 1, got {ratio!r}")
    if not isinstance(circuit, QuantumCircuit) or not circuit.num_qubits:
        raise InputError(f"circuit must be a QuantumCircuit with at least one qubit, got {circuit!r}")
    target = device if isinstance(device, Target) else getattr(device, "target", None)
    if device is not None and target is None:
        raise InputError(f"device must be a backend or a Target, got {device!r}")
    name = str(getattr(device, "name", "") or "")
    if target is None or target.build_coupling_map() is None:
        return _side_by_side(circuit, copies, name)
    calibration = Calibration(target)
    found = [
        place
        for routed in routings(circuit, calibration, optimization_level=optimization_level, seed=seed)
        for place in places(routed, calibration, seed)
    ]
    if not found:
        raise InputError(
            f"{name or 'the device'} has no {circuit.num_qubits} connected qubits; take a larger device or a smaller circuit"
        )
    chosen = _choose(found, calibration, copies, spare, ratio, name)
    return Copies(
        tuple(_placed(place, target) for place in chosen),
        circuit,
        len(calibration.readout),
        tuple(calibration.couplings),
        spare,
        name,
    )


def _side_by_side(circuit: QuantumCircuit, count: int | str, name: str) -> Copies:
    if isinstance(count, str):
        raise InputError(
            "copies='auto' needs a device with couplings between its qubits, as 'fake:<name>' and 'ibm:<name>' have; give a "
            "number for simulators"
        )
    width = circuit.num_qubits
    where = [tuple(range(index * width, (index + 1) * width)) for index in range(count)]
    return Copies(tuple(Copy(circuit, qubits, qubits) for qubits in where), circuit, count * width, device=name)


def _choose(
    found: list[Place], calibration: Calibration, copies: int | str, spare: int, ratio: float, name: str
) -> list[Place]:
    count = None if isinstance(copies, str) else copies
    graph = rx.PyGraph()
    graph.add_nodes_from(range(len(calibration.readout)))
    graph.add_edges_from_no_data(calibration.couplings)
    distances = np.asarray(rx.distance_matrix(graph, null_value=np.inf))

    def packed(candidates: list[Place]) -> list[Place]:
        errors = np.array([place.errors for place in candidates])
        return [candidates[index] for index in pack([p.qubits for p in candidates], errors, distances, spare, count)]

    best = min(place.two_qubit_error for place in found)
    good = [
        place
        for place in found
        if place.two_qubit_error <= ratio * best and calibration.readout[list(place.qubits)].max() <= _WORST_READOUT
    ]
    chosen = packed(good)
    if count is None:
        if not chosen:
            raise InputError(
                f"{name or 'the device'} has no place for a copy whose qubits are all read correctly in three of four "
                "cases; give the number of copies to take them anyway"
            )
        return chosen
    if len(chosen) == count:
        return chosen
    well = len(chosen)
    chosen = packed(found)
    if len(chosen) < count:
        raise InputError(
            f"copies={count} of {len(found[0].qubits)} qubits do not fit on {name or 'the device'} with spare={spare}: "
            f"{len(chosen)} were found; ask for fewer, or 'auto'"
        )
    worst = max(place.two_qubit_error for place in chosen) / best if best else 1.0
    warn_user(
        f"copies={count} needs badly calibrated qubits: the worst copy's two-qubit error is {worst:.1f} times the best's, "
        f"the most often misread qubit is wrong in {max(calibration.readout[list(p.qubits)].max() for p in chosen):.0%} of "
        f"all cases; copies='auto' takes {well} within a factor of {ratio:g}"
    )
    return chosen


def _placed(place: Place, target: Target) -> Copy:
    """The routed circuit on device qubits: gates turned round where the device has only their other direction."""
    part = cut_target(target, place.qubits)
    isa = generate_preset_pass_manager(
        1, target=part, initial_layout=list(range(len(place.qubits))), seed_transpiler=0
    ).run(place.routed.circuit)
    check_isa(isa, part)
    final = isa.layout.final_index_layout()
    return Copy(
        isa,
        place.qubits,
        tuple(place.qubits[final[qubit]] for qubit in place.routed.final),
        isa.num_nonlocal_gates(),
        place.two_qubit_error,
        place.readout_error,
        place.errors,
    )
