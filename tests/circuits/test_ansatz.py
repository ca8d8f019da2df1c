from __future__ import annotations

import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter, ParameterVector
from qiskit.circuit.library import efficient_su2
from qiskit.quantum_info import Operator

from qiskit_qdeq.circuits import Ansatz, as_ansatz, hardware_efficient_ansatz, paper_ansatz, random_ansatz
from qiskit_qdeq.exceptions import InputError


def gates(circuit):
    """List (name, wires) per instruction."""
    last = circuit.num_qubits - 1
    return [(item.operation.name, *(last - circuit.find_bit(qubit).index for qubit in item.qubits)) for item in circuit]


def weights_in_order_of_gates(circuit):
    return [parameter for item in circuit for parameter in item.operation.params]


@pytest.mark.parametrize(
    ("num_qubits", "counts", "num_random", "num_weights"),
    [
        (4, {"rx": 12, "ry": 12, "rz": 14, "cx": 16, "crx": 1, "h": 1, "sx": 1}, 35, 39),
        (10, {"rx": 23, "ry": 18, "rz": 11, "cx": 14, "crx": 4, "h": 4, "sx": 4}, 40, 56),
    ],
)
def test_the_paper_ansatz_has_the_gates_and_weights_of_the_paper(num_qubits, counts, num_random, num_weights):
    circuit = paper_ansatz(num_qubits)
    assert dict(circuit.count_ops()) == counts
    assert circuit.num_parameters == num_weights
    vector = weights_in_order_of_gates(circuit)
    assert [parameter.index for parameter in vector] == list(range(num_weights))
    assert {parameter.vector.name for parameter in vector} == {"weights"}
    random_rotations = [gate for gate in gates(circuit)[:50] if gate[0] != "cx"]
    assert len(random_rotations) == num_random


def test_the_closing_block_of_the_paper_for_four_qubits():
    assert gates(paper_ansatz(4))[50:] == [
        ("rx", 0), ("ry", 1), ("rz", 3), ("crx", 0, 2), ("h", 3), ("sx", 2), ("cx", 3, 0)
    ]  # fmt: skip


def test_the_closing_block_of_the_paper_repeats_at_four_offsets_for_ten_qubits():
    extra = [g for o in (0, 2, 4, 6) for g in (("rx", o), ("ry", o + 1), ("rz", o + 3), ("crx", o, o + 2))]
    closing = [g for o in (0, 2, 4, 6) for g in (("h", o + 3), ("sx", o + 2), ("cx", o + 3, o))]
    assert gates(paper_ansatz(10))[50:] == extra + closing


@pytest.mark.parametrize("num_qubits", [4, 10])
def test_fixed_extra_angles_are_the_trained_ones_bound(num_qubits):
    trained = paper_ansatz(num_qubits)
    size = 4 if num_qubits == 4 else 16
    extra = np.linspace(-2, 2, size)
    fixed = paper_ansatz(num_qubits, train_extra=False, extra_angles=extra)
    assert fixed.num_parameters == trained.num_parameters - size
    values = np.random.default_rng(0).normal(size=fixed.num_parameters)
    bound_fixed = fixed.assign_parameters(values)
    bound_trained = trained.assign_parameters(np.concatenate([values, extra]))
    assert [item.operation.params for item in bound_fixed] == [item.operation.params for item in bound_trained]
    assert gates(bound_fixed) == gates(bound_trained)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_qubits": 5}, "num_qubits 4 and 10, got 5"),
        ({"num_qubits": "4"}, "num_qubits must be an integer"),
        ({"num_qubits": 4, "train_extra": False}, "extra_angles must be 4 finite numbers"),
        ({"num_qubits": 10, "train_extra": False, "extra_angles": [0.1] * 4}, "extra_angles must be 16"),
        ({"num_qubits": 4, "train_extra": False, "extra_angles": [0, 0, 0, np.nan]}, "finite"),
        (
            {"num_qubits": 4, "train_extra": False, "extra_angles": ["a"] * 4},
            "extra_angles must be real numbers",
        ),
        ({"num_qubits": 4, "extra_angles": [0.1] * 4}, "train_extra=False"),
    ],
)
def test_unusable_paper_options_are_errors(arguments, message):
    with pytest.raises(InputError, match=message):
        paper_ansatz(**arguments)


def test_the_same_seed_gives_the_same_random_ansatz_and_another_seed_another():
    assert gates(random_ansatz(5, seed=7)) == gates(random_ansatz(5, seed=np.random.default_rng(7)))
    assert gates(random_ansatz(5, seed=7)) != gates(random_ansatz(5, seed=8))


@pytest.mark.parametrize(("num_qubits", "groups"), [(1, 0), (3, 0), (4, 1), (5, 1), (6, 2), (10, 4)])
def test_a_random_ansatz_closes_with_the_groups_whose_wires_exist(num_qubits, groups):
    circuit = random_ansatz(num_qubits, num_gates=30, seed=1)
    assert circuit.size() == 30 + 7 * groups
    counts = circuit.count_ops()
    assert (counts.get("crx", 0), counts.get("h", 0), counts.get("sx", 0)) == (groups, groups, groups)
    vector = weights_in_order_of_gates(circuit)
    assert [parameter.index for parameter in vector] == list(range(circuit.num_parameters))
    assert gates(circuit)[30 : 30 + 4 * groups] == gates(paper_ansatz(10))[50 : 50 + 4 * groups]
    assert gates(circuit)[30 + 4 * groups :] == gates(paper_ansatz(10))[66 : 66 + 3 * groups]


def test_a_random_ansatz_draws_every_kind_of_gate_on_every_wire():
    drawn = gates(random_ansatz(3, num_gates=400, seed=0))
    assert {gate for gate in drawn if len(gate) == 2} == {(k, w) for k in ("rx", "ry", "rz") for w in range(3)}
    assert {gate[1:] for gate in drawn if gate[0] == "cx"} == {(a, b) for a in range(3) for b in range(3) if a != b}
    share = np.mean([gate[0] == "cx" for gate in drawn])
    assert 0.15 < share < 0.35


def test_a_random_ansatz_without_any_rotation_is_an_error():
    seeds = (seed for seed in range(100) if np.random.default_rng(seed).integers(4) == 3)
    with pytest.raises(InputError, match="no rotation among num_gates=1"):
        random_ansatz(2, num_gates=1, seed=next(seeds))


@pytest.mark.parametrize("seed", [-1, "one", 0.5])
def test_unusable_seeds_are_errors(seed):
    with pytest.raises(InputError, match="seed must be a non-negative integer or a Generator"):
        random_ansatz(3, seed=seed)


@pytest.mark.parametrize("num_gates", [0, -1, 2.5])
def test_random_gates_must_be_a_positive_count(num_gates):
    with pytest.raises(InputError, match="num_gates must be an integer"):
        random_ansatz(4, num_gates=num_gates)


def test_hardware_efficient_layers_and_their_entanglement():
    linear = hardware_efficient_ansatz(3, layers=2)
    layer = [("ry", w) for w in range(3)] + [("rz", w) for w in range(3)] + [("cx", 0, 1), ("cx", 1, 2)]
    assert gates(linear) == layer * 2 + [("ry", w) for w in range(3)]
    assert linear.num_parameters == 3 * 5
    assert [parameter.index for parameter in weights_in_order_of_gates(linear)] == list(range(15))
    circular = hardware_efficient_ansatz(3, layers=1, entanglement="circular")
    assert [gate for gate in gates(circular) if gate[0] == "cx"] == [("cx", 0, 1), ("cx", 1, 2), ("cx", 2, 0)]


@pytest.mark.parametrize(("num_qubits", "num_cx"), [(1, 0), (2, 1)])
def test_a_circle_of_fewer_than_three_wires_is_a_line(num_qubits, num_cx):
    counts = hardware_efficient_ansatz(num_qubits, 1, "circular").count_ops()
    assert counts.get("cx", 0) == num_cx


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((3, 0), "layers must be an integer of at least 1"),
        ((0, 1), "num_qubits must be an integer of at least 1"),
        ((3, 1, "full"), "entanglement must be 'linear' or 'circular', got 'full'"),
    ],
)
def test_unusable_hardware_efficient_options_are_errors(arguments, message):
    with pytest.raises(InputError, match=message):
        hardware_efficient_ansatz(*arguments)


def test_as_ansatz_takes_circuits_of_qiskits_library():
    ansatz = as_ansatz(efficient_su2(3, reps=4))
    assert len(ansatz.weights) == 30
    assert [weight.index for weight in ansatz.weights] == list(range(30))
    assert as_ansatz(ansatz) is ansatz


def test_as_ansatz_keeps_the_order_given_and_copies_the_circuit():
    weights = ParameterVector("w", 2)
    circuit = QuantumCircuit(1)
    circuit.ry(weights[0] * 2, 0)
    circuit.rz(weights[1], 0)
    ansatz = as_ansatz(circuit, [weights[1], weights[0]])
    assert ansatz.weights == (weights[1], weights[0])
    before = Operator(ansatz.circuit.assign_parameters([0.1, 0.2]))
    circuit.x(0)
    assert Operator(ansatz.circuit.assign_parameters([0.1, 0.2])) == before


def test_unbound_parameters_must_be_weights():
    weight, other = Parameter("w"), Parameter("phase")
    circuit = QuantumCircuit(1)
    circuit.ry(weight, 0)
    circuit.rz(other, 0)
    with pytest.raises(InputError, match=r"parameters \['phase'\] are not among the weights"):
        as_ansatz(circuit, [weight])
    circuit.measure_all()
    with pytest.raises(InputError, match="the ansatz circuit has classical bits"):
        as_ansatz(circuit)


def test_the_weights_of_an_ansatz_cannot_be_given_twice():
    ansatz = as_ansatz(paper_ansatz(4))
    with pytest.raises(InputError, match="already fixed"):
        as_ansatz(ansatz, ansatz.weights)


def test_a_handmade_ansatz_is_checked_too():
    circuit = QuantumCircuit(1)
    circuit.ry(Parameter("w"), 0)
    with pytest.raises(InputError, match="do not occur"):
        as_ansatz(Ansatz(circuit, (Parameter("v"),)))


def test_the_papers_ansatz_for_other_sizes_names_the_argument_that_has_one():
    with pytest.raises(InputError, match=r"num_qubits 4 and 10, got 5; for others use ansatz='random'"):
        paper_ansatz(5)
