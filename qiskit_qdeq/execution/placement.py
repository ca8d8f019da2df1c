"""Places of a device where one copy of a circuit can run without further routing, and what goes wrong at each of them.

The circuit is routed once on every shape of n connected qubits that the device has in plenty; VF2 then finds all embeddings
of a shape. At a place, one execution suffers on average

    errors = Σ_gates ε_gate + Σ_qubits (ε_readout + t_idle / (6 T1) + t_idle / (3 T2))

errors, the last two terms being the infidelity of idling.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
import rustworkx as rx
from qiskit import QuantumCircuit
from qiskit.transpiler import CouplingMap, Target, TranspilerError, generate_preset_pass_manager

from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.execution.devices import calibrated, gate_error, neighbours_of, readout_errors

Array = np.ndarray[Any, np.dtype[Any]]

#: Shapes that are tried, routings per shape, and embeddings looked at per shape.
_SHAPES, _ROUTINGS, _EMBEDDINGS = 6, 8, 100_000
_NO_GATES = ("measure", "reset", "delay")


@dataclass(frozen=True, eq=False)
class Routed:
    """A circuit routed on a few connected qubits, all couplings taken as usable in both directions.

    Attributes:
        couplings: pairs of qubits of the shape.
        circuit: in the device's gates.
        final: template qubit j is measured on qubit `final[j]`.
    """

    couplings: tuple[tuple[int, int], ...]
    circuit: QuantumCircuit
    final: tuple[int, ...]

    @cached_property
    def counts(self) -> Counter[tuple[str, tuple[int, ...]]]:
        """How often each gate acts on each (sorted) set of qubits."""
        return Counter((name, tuple(sorted(qubits))) for name, qubits in _gates(self.circuit))

    @property
    def two_qubit_gates(self) -> int:
        """Number of two-qubit gates."""
        return sum(count for (_, qubits), count in self.counts.items() if len(qubits) == 2)


@dataclass(frozen=True, eq=False)
class Place:
    """Where a copy can run.

    Attributes:
        routed: the circuit, whose qubit i runs on device qubit `qubits[i]`.
        qubits: of the device.
        two_qubit_error: mean error of its two-qubit gates, each counted as often as it is executed.
        readout_error: mean over its qubits.
        errors: expected number of errors per execution.
    """

    routed: Routed
    qubits: tuple[int, ...]
    two_qubit_error: float
    readout_error: float
    errors: float


class Calibration:
    """What a target says about its qubits and gates; gates that always fail are left out."""

    def __init__(self, target: Target) -> None:
        self.target = target
        found = neighbours_of(target)
        #: All pairs of coupled qubits, each once.
        self.couplings = [(first, second) for first, near in found.items() for second in near if first < second]
        #: Qubit -> its neighbours and the error of the best gate between the two.
        self.neighbours = {
            qubit: {other: error for other, error in near.items() if error < 1} for qubit, near in found.items()
        }
        self.readout = np.array(readout_errors(target))

    @property
    def usable(self) -> list[tuple[int, int]]:
        """Those whose gate does not always fail."""
        return [(first, second) for first, second in self.couplings if second in self.neighbours[first]]

    @cached_property
    def two_qubit(self) -> Array:
        """Error of the best gate between two qubits; NaN where there is none."""
        errors = np.full((len(self.readout),) * 2, np.nan)
        for first, near in self.neighbours.items():
            for second, error in near.items():
                errors[first, second] = error
        return errors

    @cached_property
    def idle_rate(self) -> Array:
        """1/(6 T1) + 1/(3 T2) of every qubit in 1/s; zero where unknown."""
        rates = np.zeros(len(self.readout))
        for qubit, properties in enumerate(self.target.qubit_properties or ()):
            if properties is not None:
                rates[qubit] = _inverse(properties.t1) / 6 + _inverse(properties.t2) / 3
        return rates

    @cached_property
    def durations(self) -> dict[str, float]:
        """Median duration of every gate in seconds; zero where unknown."""
        found = {}
        for name, properties in calibrated(self.target):
            known = [p.duration for p in properties.values() if p is not None and p.duration is not None]
            found[name] = float(np.median(known)) if known else 0.0
        return found

    def one_qubit(self, name: str) -> Array:
        """Error of a one-qubit gate on every qubit."""
        properties = self.target[name] if name in self.target.operation_names else None
        return np.array([gate_error((properties or {}).get((qubit,))) for qubit in range(len(self.readout))])


def routings(circuit: QuantumCircuit, calibration: Calibration, *, optimization_level: int, seed: int) -> list[Routed]:
    """The circuit routed on each shape of connected qubits, the one with the fewest two-qubit gates first.

    Raises:
        InputError: if the device has no such shape, or the circuit cannot be transpiled to its gates.
    """
    found = calibrated(calibration.target)
    basis = [name for name, where in found if name not in _NO_GATES and len(next(iter(where))) <= 2]
    routed = [
        min(
            (_route(circuit, shape, basis, optimization_level, seed + offset) for offset in range(_ROUTINGS)),
            key=lambda one: (one.two_qubit_gates, one.circuit.depth()),
        )
        for shape in shapes(calibration, circuit.num_qubits)
    ]
    return sorted(routed, key=lambda one: one.two_qubit_gates)


def shapes(calibration: Calibration, num_qubits: int) -> list[tuple[tuple[int, int], ...]]:
    """Couplings of the most frequent kinds of connected qubits, grown in breadth and in depth from each qubit."""
    kinds: list[tuple[Any, list[int]]] = []
    graph = _graph(range(len(calibration.readout)), calibration.usable)
    for start in range(len(calibration.readout)):
        for deep in (False, True):
            grown = _grown(start, num_qubits, calibration.neighbours, deep)
            if len(grown) < num_qubits:
                continue
            part = graph.subgraph(sorted(grown))
            for kind, seen in kinds:
                if rx.is_isomorphic(kind, part):
                    seen[0] += 1
                    break
            else:
                kinds.append((part, [1]))
    kinds.sort(key=lambda item: -item[1][0])
    return [tuple(sorted(tuple(sorted(edge)) for edge in kind.edge_list())) for kind, _ in kinds[:_SHAPES]]


def places(routed: Routed, calibration: Calibration, seed: int) -> list[Place]:
    """The best embedding of a routed circuit into each set of qubits that has one.

    On dense devices with more embeddings than can be looked at, equal parts of them are taken from several orders of the
    qubits.
    """
    count = routed.circuit.num_qubits
    pattern = _graph(range(count), routed.couplings)
    found = np.array(list(_embeddings(pattern, calibration, seed)), dtype=np.int64).reshape(-1, count)
    two_qubit, errors = np.zeros(len(found)), np.zeros(len(found))
    for (name, qubits), times in routed.counts.items():
        if len(qubits) == 2:
            two_qubit += times * calibration.two_qubit[found[:, qubits[0]], found[:, qubits[1]]]
        else:
            errors += times * calibration.one_qubit(name)[found[:, qubits[0]]]
    idle = idle_times(routed.circuit, calibration.durations)
    errors += two_qubit + calibration.readout[found].sum(axis=1) + calibration.idle_rate[found] @ idle
    best: dict[frozenset[int], Place] = {}
    for index in np.lexsort((*found.T[::-1], errors)):
        qubits = tuple(int(qubit) for qubit in found[index])
        place = Place(
            routed,
            qubits,
            float(two_qubit[index]) / max(1, routed.two_qubit_gates),
            float(calibration.readout[found[index]].mean()),
            float(errors[index]),
        )
        best.setdefault(frozenset(qubits), place)
    return list(best.values())


def idle_times(circuit: QuantumCircuit, durations: dict[str, float]) -> Array:
    """Seconds each qubit idles between its first gate and the end of the circuit."""
    ends, busy = np.zeros(circuit.num_qubits), np.zeros(circuit.num_qubits)
    starts = np.full(circuit.num_qubits, np.inf)
    for name, qubits in _gates(circuit):
        where, length = list(qubits), durations.get(name, 0.0)
        begin = ends[where].max()
        starts[where] = np.minimum(starts[where], begin)
        ends[where] = begin + length
        busy[where] += length
    return np.where(np.isfinite(starts), ends.max(initial=0) - starts - busy, 0.0)


def _route(
    circuit: QuantumCircuit, couplings: Sequence[tuple[int, int]], basis: list[str], level: int, seed: int
) -> Routed:
    both = [*couplings, *((second, first) for first, second in couplings)]
    try:
        isa = generate_preset_pass_manager(
            level,
            basis_gates=basis,
            coupling_map=CouplingMap(both) if both else None,
            seed_transpiler=seed,
        ).run(circuit)
    except TranspilerError as error:
        raise InputError(f"the circuit cannot be transpiled to the device's gates {basis}: {error.message}") from None
    final = range(circuit.num_qubits) if isa.layout is None else isa.layout.final_index_layout()
    return Routed(tuple(couplings), isa, tuple(final))


def _embeddings(pattern: Any, calibration: Calibration, seed: int) -> Iterator[list[int]]:
    """Device qubits of the pattern's nodes."""
    size = len(calibration.readout)
    whole = list(islice(_matches(pattern, calibration, np.arange(size)), _EMBEDDINGS))
    if len(whole) < _EMBEDDINGS:
        yield from whole
        return
    rng = np.random.default_rng(seed)
    for _ in range(20):
        yield from islice(_matches(pattern, calibration, rng.permutation(size)), _EMBEDDINGS // 20)


def _matches(pattern: Any, calibration: Calibration, order: Array) -> Iterator[list[int]]:
    """All embeddings, the search beginning at the device qubits that stand first in `order`."""
    position = np.argsort(order)
    graph = _graph(order, [(position[first], position[second]) for first, second in calibration.usable])
    for mapping in rx.vf2_mapping(graph, pattern, subgraph=True, induced=False, id_order=True):
        where = {node: int(order[position]) for position, node in mapping.items()}
        yield [where[node] for node in range(len(pattern))]


def _graph(nodes: Any, edges: Sequence[tuple[int, int]]) -> Any:
    graph = rx.PyGraph()
    graph.add_nodes_from(list(nodes))
    graph.add_edges_from_no_data([(int(first), int(second)) for first, second in edges])
    return graph


def _grown(start: int, count: int, neighbours: dict[int, dict[int, float]], deep: bool) -> set[int]:
    """Up to `count` qubits connected with `start`."""
    found, waiting = {start}, sorted(neighbours[start])
    while waiting and len(found) < count:
        new = waiting.pop(0)
        if new in found:
            continue
        found.add(new)
        further = [qubit for qubit in sorted(neighbours[new]) if qubit not in found]
        waiting = further + waiting if deep else waiting + further
    return found


def _gates(circuit: QuantumCircuit) -> Iterator[tuple[str, tuple[int, ...]]]:
    places = {qubit: index for index, qubit in enumerate(circuit.qubits)}
    for item in circuit.data:
        if item.name != "barrier":
            yield item.name, tuple(places[qubit] for qubit in item.qubits)


def _inverse(seconds: float | None) -> float:
    return 1 / seconds if seconds else 0.0
