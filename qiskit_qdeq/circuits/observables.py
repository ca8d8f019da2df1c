"""Observables M_j of the state that is fed back and of the readout; the package's own are products of Z.

Products of Z are diagonal, so any number of them comes from the same measured bitstrings at no extra circuit.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, combinations
from math import comb

import numpy as np
from qiskit.quantum_info import SparsePauliOp

from qiskit_qdeq.circuits._checks import check_count
from qiskit_qdeq.exceptions import InputError

_READOUT_ORDERS = {"z": 1, "zz": 2, "zzz": 3, "zzzz": 4}
#: Products of Z that are written out at most.
_MOST = 50_000
READOUTS = tuple(_READOUT_ORDERS)


def readout_observables(num_qubits: int, name: str | Sequence[SparsePauliOp]) -> tuple[SparsePauliOp, ...]:
    """Return the readout observables of a name, or check those given.

    Args:
        num_qubits: n.
        name: "z" (the paper: Z on every wire), "zz", "zzz" or "zzzz" (also all products of two, of three, of four), or
            observables.

    Raises:
        InputError: if the name is unknown or the observables do not fit n qubits.

    >>> [len(readout_observables(4, name)) for name in ("z", "zz", "zzz", "zzzz")]
    [4, 10, 14, 15]
    """
    if not isinstance(name, str):
        return check_observables(name, num_qubits, "readout observables")
    if name not in _READOUT_ORDERS:
        raise InputError(f"readout must be one of {list(_READOUT_ORDERS)} or a list of SparsePauliOp, got {name!r}")
    return correlators(num_qubits, _READOUT_ORDERS[name])


def z_observables(num_qubits: int) -> tuple[SparsePauliOp, ...]:
    """Return Z on every wire, wire 0 first.

    >>> [str(observable.paulis[0]) for observable in z_observables(3)]
    ['ZII', 'IZI', 'IIZ']
    """
    return correlators(num_qubits, order=1)


def correlators(num_qubits: int, order: int) -> tuple[SparsePauliOp, ...]:
    """Return all products of 1 .. `order` different Z: all single ones, then pairs i < j, then triples, ...

    Within one number of factors the order is lexicographic in the wires. Products of more than n factors
    do not exist and are left out.

    >>> [str(observable.paulis[0]) for observable in correlators(3, 2)]
    ['ZII', 'IZI', 'IIZ', 'ZZI', 'ZIZ', 'IZZ']
    """
    num_qubits = check_count("num_qubits", num_qubits)
    order = check_count("order", order)
    if (count := sum(comb(num_qubits, size) for size in range(1, min(order, num_qubits) + 1))) > _MOST:
        raise InputError(
            f"products of up to {order} of {num_qubits} Z are {count:,}, more than the {_MOST:,} this package makes: take "
            "products of fewer, such as readout='zz' or 'z'"
        )
    subsets = chain.from_iterable(combinations(range(num_qubits), size) for size in range(1, order + 1))
    labels = ("".join("Z" if wire in wires else "I" for wire in range(num_qubits)) for wires in subsets)
    return tuple(SparsePauliOp(label) for label in labels)


def check_observables(
    observables: Sequence[SparsePauliOp], num_qubits: int, name: str = "observables"
) -> tuple[SparsePauliOp, ...]:
    """Return `observables` as a tuple, or raise InputError.

    Args:
        observables: at least one SparsePauliOp with real, finite, bound coefficients on n qubits.
        num_qubits: n.
        name: how messages call the argument.

    Raises:
        InputError: naming the first observable that is not of this kind.
    """
    if not isinstance(observables, list | tuple):
        raise InputError(f"{name} must be a list of SparsePauliOp, got {type(observables).__name__}")
    observables = tuple(observables)
    if not observables:
        raise InputError(f"{name} must not be empty")
    for index, observable in enumerate(observables):
        if reason := _flaw(observable, num_qubits):
            raise InputError(f"{name}[{index}] {reason}")
    return observables


def _flaw(observable: SparsePauliOp, num_qubits: int) -> str | None:
    if not isinstance(observable, SparsePauliOp):
        return f"must be a SparsePauliOp, got {type(observable).__name__}"
    if observable.num_qubits != num_qubits:
        return f"acts on {observable.num_qubits} qubits, but the circuit has {num_qubits}"
    if observable.coeffs.dtype == object:
        return "has unbound coefficients; assign its parameters first"
    if not np.isfinite(observable.coeffs).all():
        return "has a coefficient that is not finite"
    coeffs = observable.simplify().coeffs
    if np.abs(coeffs.imag).max() > 1e-12 * max(1.0, np.abs(coeffs).max()):
        return "is not Hermitian: its coefficients must be real"
    return None
