from __future__ import annotations

from math import comb

import numpy as np
import pytest
from qiskit.circuit import Parameter
from qiskit.quantum_info import Pauli, SparsePauliOp, Statevector

from qiskit_qdeq.circuits import check_observables, correlators, readout_observables, z_observables
from qiskit_qdeq.exceptions import InputError


def labels(observables):
    return [observable.to_list()[0][0] for observable in observables]


def test_observable_j_is_z_on_wire_j_which_is_qubit_n_minus_1_minus_j():
    for wire, observable in enumerate(z_observables(4)):
        for index in range(16):
            bit = format(index, "04b")[wire]
            value = Statevector.from_int(index, 16).expectation_value(observable).real
            assert value == (-1 if bit == "1" else 1)


def test_correlators_come_by_size_and_then_lexicographically():
    assert labels(correlators(4, 3)) == [
        "ZIII", "IZII", "IIZI", "IIIZ",
        "ZZII", "ZIZI", "ZIIZ", "IZZI", "IZIZ", "IIZZ",
        "ZZZI", "ZZIZ", "ZIZZ", "IZZZ",
    ]  # fmt: skip


@pytest.mark.parametrize("num_qubits", [1, 2, 4, 10])
@pytest.mark.parametrize(("name", "order"), [("z", 1), ("zz", 2), ("zzz", 3), ("zzzz", 4)])
def test_named_readouts_are_all_products_up_to_their_order(num_qubits, name, order):
    observables = readout_observables(num_qubits, name)
    assert len(set(labels(observables))) == len(observables)
    assert len(observables) == sum(comb(num_qubits, size) for size in range(1, order + 1))
    assert labels(observables)[:num_qubits] == labels(z_observables(num_qubits))


@pytest.mark.parametrize("name", ["zzzzz", "Z", "", "x"])
def test_an_unknown_readout_name_is_an_error_that_lists_the_known_ones(name):
    with pytest.raises(InputError, match=r"\['z', 'zz', 'zzz', 'zzzz'\]"):
        readout_observables(3, name)


def test_observables_of_the_users_own_are_kept():
    own = [SparsePauliOp(["XX", "ZI"], [0.5, -1.0]), SparsePauliOp("YI")]
    assert readout_observables(2, own) == tuple(own)
    assert check_observables(own, 2) == tuple(own)


def test_imaginary_parts_that_cancel_are_hermitian():
    assert len(check_observables([SparsePauliOp(["X", "X"], [1 + 1j, 1 - 1j])], 1)) == 1


@pytest.mark.parametrize(
    ("observables", "message"),
    [
        ([], "obs must not be empty"),
        ([SparsePauliOp("ZZ"), SparsePauliOp("ZZZ")], r"obs\[1\] acts on 3 qubits, but the circuit has 2"),
        ([SparsePauliOp("ZZ", [1j])], r"obs\[0\] is not Hermitian"),
        ([SparsePauliOp("ZZ", [np.nan])], r"obs\[0\] has a coefficient that is not finite"),
        ([SparsePauliOp("ZZ", np.array([Parameter("c")]))], r"obs\[0\] has unbound coefficients"),
        ([Pauli("ZZ")], r"obs\[0\] must be a SparsePauliOp, got Pauli"),
        (["ZZ"], r"obs\[0\] must be a SparsePauliOp, got str"),
        (SparsePauliOp("ZZ"), "must be a list of SparsePauliOp, got SparsePauliOp"),
        (3, "must be a list of SparsePauliOp, got int"),
    ],
)
def test_unusable_observables_are_errors_that_name_the_first(observables, message):
    with pytest.raises(InputError, match=message):
        check_observables(observables, 2, "obs")


@pytest.mark.parametrize("order", [0, -1, 1.5])
def test_the_order_of_correlators_is_a_positive_count(order):
    with pytest.raises(InputError, match="order must be an integer"):
        correlators(3, order)
