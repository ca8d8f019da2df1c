"""Puts a parametrized circuit into the instruction set of a backend, once, with its observables on the right qubits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qiskit import QuantumCircuit
from qiskit.circuit import ControlledGate, ParameterExpression
from qiskit.quantum_info import SparsePauliOp
from qiskit.transpiler import TranspilerError, generate_preset_pass_manager

from qiskit_qdeq.exceptions import InputError

#: Instructions no backend lists, because they do nothing.
_IDLE = {"barrier"}


def to_isa(
    circuit: QuantumCircuit,
    observables: Sequence[SparsePauliOp],
    *,
    backend: Any | None = None,
    pass_manager: Any | None = None,
    optimization_level: int = 1,
) -> tuple[QuantumCircuit, list[SparsePauliOp]]:
    """Transpile `circuit` and move `observables` to the qubits it ended up on.

    Without a pass manager, Qiskit's preset one is taken for the backend, with a fixed seed so that the same circuit gives
    the same instructions in every process; without a backend too, both are returned as they are.

    Args:
        circuit: over unbound parameters.
        observables: on the qubits of `circuit`.
        backend: has a `target`.
        pass_manager: has a method `run`.
        optimization_level: of the preset pass manager, 0 to 3.

    Raises:
        InputError: if the circuit does not fit on the backend, or contains afterwards what its target does not support.
    """
    target = getattr(backend, "target", None)
    if target is not None:
        _check_size("circuit", circuit, target)
    if pass_manager is None and target is not None:
        pass_manager = generate_preset_pass_manager(
            optimization_level=optimization_level, target=target, seed_transpiler=0
        )
    if type(backend).__module__.startswith("qiskit_aer."):
        circuit = without_controlled_parameters(circuit)
    if pass_manager is None:
        return circuit, list(observables)
    try:
        isa = pass_manager.run(circuit)
    except TranspilerError as error:
        raise InputError(
            f"the circuit cannot be transpiled: {error.message}; give a pass_manager made for its device"
        ) from None
    if target is not None:
        check_isa(isa, target)
    return isa, [observable.apply_layout(isa.layout, isa.num_qubits) for observable in observables]


def without_controlled_parameters(circuit: QuantumCircuit) -> QuantumCircuit:
    """The circuit with parametrized controlled gates (crx, cp, cu ...) unrolled to plain ones, else as it is.

    Aer does not bind the parameters of controlled gates: it silently runs something else, or a single row of many
    (qiskit-aer issues 2323, 2391, 2403).
    """
    while names := {
        instruction.name
        for instruction in circuit.data
        if isinstance(instruction.operation, ControlledGate)
        and any(isinstance(angle, ParameterExpression) for angle in instruction.params)
    }:
        circuit = circuit.decompose(list(names))
    return circuit


def check_isa(circuit: QuantumCircuit, target: Any) -> None:
    """Raise InputError naming the first instruction of `circuit` that `target` does not support.

    Primitives that do not check it themselves fail late, or simulate the gate without the device's noise.
    """
    _check_size("the transpiled circuit", circuit, target)
    anywhere = _connects_all(target)
    places = {qubit: place for place, qubit in enumerate(circuit.qubits)}
    for instruction in circuit.data:
        name, qubits = instruction.name, tuple(places[qubit] for qubit in instruction.qubits)
        known = name in target.operation_names if anywhere else target.instruction_supported(name, qubits)
        if not known and name not in _IDLE:
            raise InputError(
                f"the backend does not support {name!r} on qubits {qubits}; transpile for it: pass the backend "
                "without a pass_manager, or make the pass_manager for this backend"
            )


def _check_size(name: str, circuit: QuantumCircuit, target: Any) -> None:
    if not _connects_all(target) and circuit.num_qubits > target.num_qubits:
        raise InputError(
            f"{name} has {circuit.num_qubits} qubits, but the backend has {target.num_qubits}; "
            "take a larger backend or a smaller circuit, and make the pass_manager for this backend"
        )


def _connects_all(target: Any) -> bool:
    """Whether the target is a simulator's: its number of qubits is only what memory holds if all of them are used."""
    return target.num_qubits is None or target.build_coupling_map() is None
