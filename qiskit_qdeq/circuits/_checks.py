"""Checks that encoders, ansätze and templates share: counts, wires, and that a circuit is unitary."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qiskit import QuantumCircuit
from qiskit.circuit import Barrier, CircuitInstruction, Gate, Parameter, ParameterExpression
from qiskit.circuit.library import get_standard_gate_name_mapping

from qiskit_qdeq.evaluation.expressions import AngleMap
from qiskit_qdeq.exceptions import InputError


def check_count(name: str, value: Any, minimum: int = 1) -> int:
    """Return `value` as an int of at least `minimum`, or raise InputError naming the argument `name`."""
    try:
        count = operator.index(value)
    except TypeError:
        raise InputError(f"{name} must be an integer, got {value!r}") from None
    if isinstance(value, bool) or count < minimum:
        raise InputError(f"{name} must be an integer of at least {minimum}, got {value!r}")
    return count


def check_reals(name: str, values: Any) -> NDArray[np.float64]:
    """Return `values` as a float64 array, or raise InputError if it is ragged or not of real numbers."""
    try:
        array = np.asarray(values)
    except ValueError:
        raise InputError(f"{name} must be a rectangular array of real numbers") from None
    if array.dtype.kind not in "fiub":
        raise InputError(f"{name} must be real numbers, got an array of dtype {array.dtype}")
    return array.astype(np.float64, copy=False)


def check_parameters(
    circuit: QuantumCircuit, parameters: Sequence[Parameter] | None, role: str
) -> tuple[Parameter, ...]:
    """Return the parameters of `circuit` in the caller's order, or in Qiskit's (by name, vectors by index).

    Args:
        circuit: a circuit whose unbound parameters must be exactly `parameters`.
        parameters: the order wanted, or None.
        role: what the parameters are to the caller, "inputs" or "weights"; used in messages.

    Raises:
        InputError: if there is none, if one occurs twice, or if the circuit has others or lacks some.
    """
    own = list(circuit.parameters)
    chosen = own if parameters is None else list(parameters)
    if strange := [item for item in chosen if not isinstance(item, Parameter)]:
        raise InputError(f"{role} must be a ParameterVector or Parameters, but contain {strange[0]!r}")
    if not chosen:
        raise InputError(f"the circuit has no parameters to serve as {role}; build it over a ParameterVector")
    if len(set(chosen)) < len(chosen):
        raise InputError(f"{role} names the same parameter twice: {sorted(p.name for p in chosen)}")
    if missing := sorted(p.name for p in set(chosen) - set(own)):
        raise InputError(f"{role} {missing} do not occur in the circuit; leave them out or use them in a gate")
    if unbound := sorted(p.name for p in set(own) - set(chosen)):
        raise InputError(f"the circuit's parameters {unbound} are not among the {role}; bind or add them")
    return tuple(chosen)


def check_unitary(circuit: QuantumCircuit, name: str) -> QuantumCircuit:
    """Return `circuit`, or raise InputError if it is not made of unitary gates with real angles and barriers only."""
    if not isinstance(circuit, QuantumCircuit):
        raise InputError(f"{name} must be a QuantumCircuit, got {type(circuit).__name__}")
    if circuit.num_qubits == 0:
        raise InputError(f"{name} has no qubits")
    if circuit.num_clbits or circuit.num_vars:
        raise InputError(
            f"{name} has classical bits or variables; the observables are measured by the package, so "
            "build the circuit without them (QuantumCircuit.remove_final_measurements() drops both)"
        )
    for instruction in circuit.data:
        _check_instruction(instruction, name)
    AngleMap(_angles(circuit), circuit.parameters)
    return circuit


def _angles(circuit: QuantumCircuit) -> list[ParameterExpression]:
    """The gate angles of a circuit that are more than a parameter or a number, also inside of the user's own gates."""
    library = get_standard_gate_name_mapping()
    found: list[ParameterExpression] = []
    for instruction in circuit.data:
        operation = instruction.operation
        free = [p for p in operation.params if isinstance(p, ParameterExpression) and p.parameters]
        if free and operation.name not in library and isinstance(operation.definition, QuantumCircuit):
            found += _angles(operation.definition)
        else:
            found += [p for p in free if not isinstance(p, Parameter)]
    return found


def _check_instruction(instruction: CircuitInstruction, name: str) -> None:
    operation = instruction.operation
    definition = getattr(operation, "definition", None)
    if isinstance(operation, Barrier):
        return
    if isinstance(operation, Gate):
        if definition is None and not hasattr(operation, "__array__"):
            raise InputError(f"{name} contains the opaque gate {operation.name!r}; give it a definition")
        return
    if isinstance(definition, QuantumCircuit) and not definition.num_clbits:
        for inner in definition.data:
            _check_instruction(inner, name)
        return
    raise InputError(
        f"{name} contains {operation.name!r}, which is no unitary gate; measurements, resets, delays and "
        "classical control cannot be differentiated, so remove it or turn it into a Gate"
    )
