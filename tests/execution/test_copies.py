"""Copies of a circuit on a device: disjoint, connected, apart, executable there, and as many as fit."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qiskit import QuantumCircuit
from qiskit.circuit import Measure, Parameter, ParameterVector
from qiskit.circuit.library import CXGate, CZGate, ECRGate, RZGate, SXGate, XGate
from qiskit.quantum_info import Operator, SparsePauliOp, Statevector
from qiskit.transpiler import CouplingMap, InstructionProperties, Target

from qiskit_qdeq import choose_copies, model_config
from qiskit_qdeq.evaluation.gate_angles import GateTemplate
from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.execution.devices import fake_backend
from qiskit_qdeq.execution.noise import perfect_simulator

GATES = {"cz": CZGate, "cx": CXGate, "ecr": ECRGate}


def device(pairs, size, *, gate="ecr", errors=None, readout=None):
    """A target with one two-qubit gate, in the directions given."""
    target = Target(num_qubits=size)
    everywhere = {(qubit,): InstructionProperties(1e-8, 1e-4) for qubit in range(size)}
    for one in (RZGate(Parameter("a")), SXGate(), XGate()):
        target.add_instruction(one, dict(everywhere))
    readout = [0.01] * size if readout is None else readout
    target.add_instruction(Measure(), {(qubit,): InstructionProperties(1e-6, readout[qubit]) for qubit in range(size)})
    errors = [0.005] * len(pairs) if errors is None else errors
    target.add_instruction(
        GATES[gate](), {pair: InstructionProperties(5e-7, error) for pair, error in zip(pairs, errors, strict=True)}
    )
    return target


def line(size, **options):
    return device([(qubit, qubit + 1) for qubit in range(size - 1)], size, **options)


def chain(size):
    circuit, angles = QuantumCircuit(size), ParameterVector("t", size)
    for qubit in range(size):
        circuit.ry(angles[qubit], qubit)
    for qubit in range(size - 1):
        circuit.cx(qubit, qubit + 1)
    return circuit


def distances(pairs, size):
    """Floyd and Warshall's, written out."""
    found = np.where(np.eye(size), 0.0, np.inf)
    for first, second in pairs:
        found[first, second] = found[second, first] = 1
    for middle in range(size):
        found = np.minimum(found, found[:, middle, None] + found[None, middle])
    return found


def most(candidates, fits):
    """The largest number of candidates of which any two fit together, by trying all."""
    if not candidates:
        return 0
    first, *rest = candidates
    return max(most(rest, fits), 1 + most([other for other in rest if fits(first, other)], fits))


@st.composite
def devices(draw):
    size = draw(st.integers(3, 11))
    # a tree keeps most of it connected, further pairs close cycles
    pairs = {(draw(st.integers(max(0, qubit - 3), qubit - 1)), qubit) for qubit in range(1, size)}
    pairs |= draw(st.sets(st.tuples(st.integers(0, size - 1), st.integers(0, size - 1)), max_size=3))
    undirected = sorted({(min(pair), max(pair)) for pair in pairs if pair[0] != pair[1]})
    dropped = draw(st.sets(st.sampled_from(undirected), max_size=2))
    kept = [pair for pair in undirected if pair not in dropped] or undirected[:1]
    pairs = [pair if draw(st.booleans()) else pair[::-1] for pair in kept]
    errors = [draw(st.sampled_from([0.001, 0.003, 0.02])) for _ in pairs]
    return size, pairs, errors, draw(st.sampled_from(sorted(GATES)))


@given(devices(), st.integers(1, 3), st.integers(0, 2))
@settings(deadline=None, derandomize=True, max_examples=30)
def test_copies_are_disjoint_connected_apart_supported_and_as_many_as_fit(case, width, spare):
    size, pairs, errors, gate = case
    apart = distances(pairs, size)
    target = device(pairs, size, gate=gate, errors=errors)
    circuit = chain(width)
    connected = [
        part for part in itertools.combinations(range(size), width)
        if np.isfinite(distances([p for p in pairs if set(p) <= set(part)], size)[np.ix_(part, part)]).all()
    ]  # fmt: skip
    if not connected:
        with pytest.raises(InputError, match="connected qubits"):
            choose_copies(target, circuit, spare=spare)
        return
    found = choose_copies(target, circuit, spare=spare, max_error_ratio=1000)
    for copy in found.copies:
        assert len(set(copy.qubits)) == width
        assert tuple(sorted(copy.qubits)) in connected
        assert set(copy.final) == set(copy.qubits)
    for one, other in itertools.combinations(found.copies, 2):
        assert apart[np.ix_(one.qubits, other.qubits)].min() > spare
    tiled, _ = found.circuit(circuit.parameters)
    for item in tiled.data:
        assert target.instruction_supported(item.name, tuple(tiled.find_bit(qubit).index for qubit in item.qubits))
    assert len(found) == most(connected, lambda one, other: apart[np.ix_(one, other)].min() > spare)


@pytest.mark.parametrize("gate", GATES)
def test_every_copy_does_what_the_template_does(gate):
    template = chain(3)
    template.cx(0, 2)
    # gates in alternating directions
    pairs = [(qubit, qubit + 1) if qubit % 2 else (qubit + 1, qubit) for qubit in range(10)]
    found = choose_copies(device(pairs, 11, gate=gate), template)
    assert len(found) == 3
    values = np.random.default_rng(0).uniform(-3, 3, (3, 3))
    tiled, vectors = found.circuit(template.parameters)
    state = Statevector(
        tiled.assign_parameters(
            {p: v for vector, row in zip(vectors, values, strict=True) for p, v in zip(vector, row, strict=True)}
        )
    )
    labels = [SparsePauliOp("XZI"), SparsePauliOp("IYX"), SparsePauliOp(["ZZZ", "IIX"], [0.3, -1.2])]
    expected = [
        Statevector(template.assign_parameters(row)).expectation_value(label) for row in values for label in labels
    ]
    measured = [state.expectation_value(observable) for observable in found.observables(labels)]
    np.testing.assert_allclose(measured, expected, atol=1e-10)


@pytest.mark.parametrize("encoding", ["amplitude", "angle"])
@pytest.mark.parametrize("name", ["sherbrooke", "brisbane", "torino"])
def test_at_least_15_good_copies_of_4_qubits_are_found_on_large_devices(name, encoding):
    backend = fake_backend(name)
    circuit = GateTemplate(model_config("default", 16, 4, 4, encoding=encoding).build().template).circuit
    found = choose_copies(backend, circuit)
    assert len(found) >= 15
    assert found.error_ratio <= 2
    apart = CouplingMap(found.couplings)
    apart.make_symmetric()
    matrix = apart.distance_matrix
    assert all(matrix[np.ix_(a.qubits, b.qubits)].min() > 1 for a, b in itertools.combinations(found.copies, 2))
    # what two-qubit gates are executed with what error, read off the circuit that is sent
    for copy in found.copies:
        errors = []
        for item in copy.circuit.data:
            if len(item.qubits) == 2:
                pair = tuple(copy.qubits[copy.circuit.find_bit(qubit).index] for qubit in item.qubits)
                errors.append(backend.target[item.name][pair].error)
        assert len(errors) == copy.two_qubit_gates
        assert copy.two_qubit_error == pytest.approx(np.mean(errors))


def test_bad_gates_and_bad_readout_are_avoided_and_taken_only_if_asked_for_with_a_warning():
    errors = [0.004] * 4 + [0.05] + [0.006] * 4
    target = line(10, errors=errors, readout=[0.01] * 9 + [0.4])
    circuit = chain(2)
    found = choose_copies(target, circuit)
    assert len(found) == 3
    assert found.error_ratio <= 2
    assert not {(4, 5), (8, 9)} & {tuple(sorted(copy.qubits)) for copy in found.copies}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(choose_copies(target, circuit, copies=2)) == 2
    far = line(5, errors=[0.004, 0.5, 0.5, 0.05])
    with pytest.warns(UserWarning, match=r"12\.5 times the best's.*'auto' takes 1"):
        forced = choose_copies(far, circuit, copies=2)
    assert forced.error_ratio == pytest.approx(12.5)
    assert "12.5" not in repr(forced)
    assert "0.40% to 5.00%" in repr(forced)


def test_couplings_whose_gate_always_fails_are_never_used_but_keep_copies_apart():
    found = choose_copies(line(5, errors=[0.004, 1.0, 0.004, 0.004]), chain(2), spare=1)
    assert [tuple(sorted(copy.qubits)) for copy in found.copies] in ([(0, 1), (3, 4)], [(3, 4), (0, 1)])


def test_the_best_copies_are_chosen_by_the_errors_of_gates_readout_and_idling():
    target = line(8, errors=[0.005, 0.005, 0.004, 0.009, 0.004, 0.005, 0.005], readout=[0.2] * 4 + [0.01] * 4)
    [copy] = choose_copies(target, chain(2), copies=1).copies
    assert sorted(copy.qubits) == [4, 5]
    one_qubit = sum(count for name, count in copy.circuit.count_ops().items() if name in ("sx", "x"))
    # rotations are free of error in no model here: rz has the same calibration as sx
    rotations = copy.circuit.count_ops()["rz"]
    assert copy.errors == pytest.approx(0.004 + 0.02 + 1e-4 * (one_qubit + rotations), abs=1e-3)


def test_putting_a_copy_in_place_keeps_its_unitary():
    found = choose_copies(line(4, gate="cx"), chain(2))
    for copy in found.copies:
        values = dict(zip(copy.circuit.parameters, (0.3, -1.2), strict=True))
        bound = Operator(copy.circuit.assign_parameters(values))
        order = [copy.qubits.index(qubit) for qubit in copy.final]
        wanted = QuantumCircuit(2)
        wanted.compose(chain(2).assign_parameters([0.3, -1.2]), order, inplace=True)
        assert bound.equiv(Operator(wanted))


def test_the_same_copies_are_found_every_time(torino):
    first, second = (choose_copies(torino, chain(4), copies=5) for _ in range(2))
    assert [copy.qubits for copy in first.copies] == [copy.qubits for copy in second.copies]


def test_copies_stand_side_by_side_on_a_simulator_without_couplings():
    found = choose_copies(perfect_simulator(8), chain(2), copies=3)
    assert [copy.qubits for copy in found.copies] == [(0, 1), (2, 3), (4, 5)]
    assert "side by side" in str(found)
    with pytest.raises(InputError, match="give a number"):
        choose_copies(perfect_simulator(8), chain(2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"copies": 0}, "copies must be 'auto' or an integer"),
        ({"copies": "many"}, "copies must be 'auto' or an integer"),
        ({"copies": True}, "copies must be 'auto' or an integer"),
        ({"copies": 4}, "copies=4 of 2 qubits do not fit .* 3 were found"),
        ({"spare": -1}, "spare"),
        ({"max_error_ratio": 0.5}, "max_error_ratio"),
        ({"max_error_ratio": float("nan")}, "max_error_ratio"),
        ({"circuit": chain(9)}, "has no 9 connected qubits"),
        ({"circuit": "cx"}, "circuit must be a QuantumCircuit"),
        ({"device": "torino"}, "device must be a backend or a Target"),
    ],
)
def test_what_cannot_be_done_is_an_input_error(change, message):
    arguments = {"device": line(8), "circuit": chain(2), **change}
    with pytest.raises(InputError, match=message):
        choose_copies(**arguments)


def test_auto_says_so_where_all_qubits_are_read_badly():
    with pytest.raises(InputError, match="read correctly in three of four"):
        choose_copies(line(4, readout=[0.3] * 4), chain(2))
