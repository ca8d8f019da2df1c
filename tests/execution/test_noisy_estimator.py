"""The density-matrix estimator against Qiskit's own estimators, closed forms and the statistics of repeated calls."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qiskit import QuantumCircuit, transpile
from qiskit.circuit import Parameter, ParameterVector
from qiskit.primitives import BackendEstimatorV2, StatevectorEstimator
from qiskit.primitives.containers.observables_array import ObservablesArray
from qiskit.quantum_info import SparseObservable, SparsePauliOp, Statevector, random_statevector, random_unitary
from qiskit_aer.noise import NoiseModel, ReadoutError, depolarizing_error

from qiskit_qdeq.circuits import AngleEncoder, CircuitTemplate, paper_ansatz
from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.execution.noise import noise_from_backend, simple_noise
from qiskit_qdeq.execution.noisy_estimator import DensityMatrixEstimator
from qiskit_qdeq.execution.pauli_groups import measured_groups

OBSERVABLES = ["ZIII", "IIZZ", "XIYI", "IXXZ", {"ZZII": 0.5, "XXXX": -0.3, "IIII": 0.2}]


@pytest.fixture(scope="module")
def template():
    return CircuitTemplate(AngleEncoder.paper(4), paper_ansatz(4))


def values_for(circuit, *shape, seed=0):
    return np.random.default_rng(seed).uniform(-np.pi, np.pi, (*shape, circuit.num_parameters))


def evaluate(estimator, *pub, **arguments):
    return estimator.run([pub], **arguments).result()[0]


def test_exact_values_are_those_of_the_statevector_whatever_the_gates(template):
    # the paper's ansatz has a parametrized crx, which Aer's own EstimatorV2 silently misreads
    circuit, values = template.circuit, values_for(template.circuit, 3)
    observables = ObservablesArray(OBSERVABLES).reshape(5, 1)
    own = evaluate(DensityMatrixEstimator(), circuit, observables, values)
    reference = evaluate(StatevectorEstimator(), circuit, observables, values)
    np.testing.assert_allclose(own.data.evs, reference.data.evs, atol=1e-12)
    assert own.data.evs.shape == (5, 3)
    assert not own.data.stds.any()
    assert own.metadata["shots"] == 0


@pytest.mark.parametrize("gate", ["crx", "cry", "crz", "cp", "rzz", "rxx", "rzx"])
def test_parameters_of_two_qubit_gates_are_bound_correctly(gate):
    angle = Parameter("a")
    circuit = QuantumCircuit(2, global_phase=angle)
    circuit.ry(0.4, 0)
    circuit.ry(1.1 * angle, 1)
    getattr(circuit, gate)(2 * angle + 0.1, 0, 1)
    values, observables = [[0.3], [-1.7]], ObservablesArray(["ZI", "XY", "YX", "IX"]).reshape(4, 1)
    own = evaluate(DensityMatrixEstimator(), circuit, observables, values).data.evs
    np.testing.assert_allclose(own, evaluate(StatevectorEstimator(), circuit, observables, values).data.evs, atol=1e-12)


def test_composite_gates_and_a_parameter_of_the_phase_alone():
    phase = Parameter("b")
    circuit = QuantumCircuit(2, global_phase=phase)
    circuit.unitary(random_unitary(4, seed=3), [0, 1])
    expected = Statevector(circuit.assign_parameters([0.3])).expectation_value(SparsePauliOp("XY")).real
    assert evaluate(DensityMatrixEstimator(), circuit, "XY", [0.3]).data.evs == pytest.approx(expected)


@settings(max_examples=40)
@given(
    terms=st.lists(st.tuples(st.text("IXYZ01+-rl", min_size=3, max_size=3), st.floats(-2, 2)), min_size=1, max_size=6),
    seed=st.integers(0, 2**31),
)
def test_groups_reproduce_every_observable(terms, seed):
    state = random_statevector(8, seed=seed)
    offsets, groups = measured_groups([dict(terms)])
    total = offsets[0]
    for group in groups:
        basis = QuantumCircuit(3)
        for qubit, axis in zip(group.qubits, group.axes, strict=True):
            if axis == "X":
                basis.ry(-np.pi / 2, qubit)
            if axis == "Y":
                basis.rx(np.pi / 2, qubit)
        total += state.evolve(basis).probabilities(list(group.qubits)) @ group.worth[0]
    operator = SparsePauliOp.from_sparse_observable(SparseObservable.from_list(list(dict(terms).items())))
    assert total == pytest.approx(state.expectation_value(operator).real, abs=1e-10)


def test_all_diagonal_observables_share_one_group():
    _, groups = measured_groups([{"ZII": 1.0, "XXI": 1.0}, {"IZZ": 1.0}, {"1I0": 1.0}, {"IXI": 1.0}])
    assert [group.axes for group in groups] == [("Z", "Z", "Z"), ("X", "X")]
    assert [sorted(group.worth) for group in groups] == [[0, 1, 2], [0, 3]]


def test_noisy_values_agree_with_the_backend_estimator_readout_included(torino, device, template):
    simulator = noise_from_backend(device)
    isa = transpile(template.circuit, simulator, optimization_level=3, seed_transpiler=5, initial_layout=[2, 0, 3, 1])
    values = values_for(isa, 3)
    observables = [SparsePauliOp(label).apply_layout(isa.layout) for label in ("ZIII", "IIIZ", "IZZI", "XIYI")]
    pub = (isa, ObservablesArray(observables).reshape(4, 1), values)
    reference = evaluate(BackendEstimatorV2(backend=simulator, options={"seed_simulator": 11}), *pub, precision=0.01)
    exact = evaluate(DensityMatrixEstimator(simulator), *pub).data.evs
    assert np.abs((exact - reference.data.evs) / reference.data.stds).max() < 5
    ideal = evaluate(StatevectorEstimator(), *pub).data.evs
    assert np.abs((ideal - reference.data.evs) / reference.data.stds).max() > 5


def test_circuits_of_a_large_device_measure_only_what_is_observed(torino):
    model = NoiseModel(basis_gates=["rz", "sx", "x", "cz"])
    model.add_all_qubit_quantum_error(depolarizing_error(0.1, 1), ["x"])
    model.add_readout_error(ReadoutError([[0.9, 0.1], [0.3, 0.7]]), [120])
    circuit = QuantumCircuit(133)
    circuit.x(120)
    circuit.cz(120, 7)
    observable = SparseObservable.from_sparse_list([("Z", [120], 1.0), ("Z", [7], 0.25)], 133)
    # P(1) = 0.95 of which 0.7 are read as 1, and 0.1 of the rest
    ones = 0.95 * 0.7 + 0.05 * 0.1
    assert evaluate(DensityMatrixEstimator(model), circuit, observable).data.evs == pytest.approx(1 - 2 * ones + 0.25)


def test_shots_scatter_about_the_exact_value_as_the_standard_errors_say(template):
    noise = simple_noise(4, one_qubit=1e-3, two_qubit=0.01, readout=0.05)
    isa = transpile(template.circuit, noise)
    pub = (isa, ObservablesArray(OBSERVABLES).reshape(5, 1), np.repeat(values_for(isa, 1), 200, axis=0))
    exact = evaluate(DensityMatrixEstimator(noise), isa, ObservablesArray(OBSERVABLES), pub[2][0]).data.evs
    data = evaluate(DensityMatrixEstimator(noise, seed=3), *pub, precision=0.05).data
    assert data.evs.shape == (5, 200)
    scatter = data.evs.std(axis=1, ddof=1)
    np.testing.assert_allclose(scatter, data.stds.mean(axis=1), rtol=0.25)
    assert np.abs((data.evs.mean(axis=1) - exact) / (scatter / np.sqrt(200))).max() < 5


def test_observables_of_a_group_share_their_shots():
    circuit = QuantumCircuit(2)
    circuit.h(0)
    circuit.cx(0, 1)
    data = evaluate(DensityMatrixEstimator(default_shots=101), circuit, ["IZ", "ZI", "ZZ"]).data
    assert data.evs[0] == data.evs[1] != 0
    assert data.evs[2] == 1


def test_standard_error_of_equal_outcomes_is_not_zero():
    data = evaluate(DensityMatrixEstimator(default_shots=100), QuantumCircuit(1), ["Z", "1", "I"]).data
    np.testing.assert_array_equal(data.evs, [1, 0, 1])
    # Laplace: p = 1/102, of 100 shots; the identity alone is certain
    laplace = np.sqrt(1 / 102 * 101 / 102 / 100)
    np.testing.assert_allclose(data.stds, [2 * laplace, laplace, 0])


def test_every_call_draws_fresh_noise_and_equal_seeds_repeat_the_sequence():
    circuit = QuantumCircuit(1)
    circuit.h(0)

    def sequence(seed):
        estimator = DensityMatrixEstimator(default_shots=10_000, seed=seed)
        return [float(evaluate(estimator, circuit, "Z").data.evs) for _ in range(4)]

    first = sequence(7)
    assert len(set(first)) == 4
    assert first == sequence(7) == sequence(np.random.default_rng(7))
    assert first != sequence(8)
    estimator = DensityMatrixEstimator(default_shots=10_000)
    estimator.reseed(7)
    # results belong to the order of submission, not to that of reading
    jobs = [estimator.run([(circuit, "Z")]) for _ in range(4)]
    assert [float(job.result()[0].data.evs) for job in reversed(jobs)] == first[::-1]


def test_chunks_do_not_change_results(monkeypatch):
    circuit = QuantumCircuit(1)
    circuit.rx(Parameter("a"), 0)
    pub = (circuit, ObservablesArray(["Z", "Y"]).reshape(2, 1), values_for(circuit, 7))
    whole = evaluate(DensityMatrixEstimator(default_shots=50, seed=1), *pub).data.evs
    monkeypatch.setattr("qiskit_qdeq.execution.noisy_estimator._CHUNK_NUMBERS", 4)
    np.testing.assert_array_equal(evaluate(DensityMatrixEstimator(default_shots=50, seed=1), *pub).data.evs, whole)


def test_shapes_broadcast_as_in_the_reference(template):
    circuit, values = template.circuit, values_for(template.circuit, 2, 3)
    estimator, reference = DensityMatrixEstimator(), StatevectorEstimator()
    for observables in ("ZIII", ObservablesArray(["ZIII", "XIII", "IIIY"]), ObservablesArray([["ZIII"], ["XIII"]])):
        own = evaluate(estimator, circuit, observables, values).data
        expected = evaluate(reference, circuit, observables, values).data.evs
        assert own.evs.shape == own.stds.shape == (2, 3)
        np.testing.assert_allclose(own.evs, expected, atol=1e-12)


def test_observables_and_parameters_may_be_paired_one_to_one_or_be_none_at_all():
    circuit = QuantumCircuit(1)
    circuit.ry(Parameter("a"), 0)
    values = [[0.1], [0.2], [0.3], [0.4]]
    data = evaluate(DensityMatrixEstimator(), circuit, ["Z", "X", "Z", "Y"], values).data
    np.testing.assert_allclose(data.evs, [np.cos(0.1), np.sin(0.2), np.cos(0.3), 0], atol=1e-12)
    assert evaluate(DensityMatrixEstimator(), circuit, "Z", np.empty((0, 1))).data.evs.shape == (0,)


def test_parameters_are_bound_by_name_not_by_position():
    first, second = ParameterVector("b", 1), ParameterVector("a", 1)
    circuit = QuantumCircuit(2)
    circuit.rx(first[0], 0)
    circuit.rx(second[0], 1)
    values = {tuple(first): [[0.3], [0.4]], tuple(second): [[1.3], [1.4]]}
    data = evaluate(DensityMatrixEstimator(), circuit, ObservablesArray(["IZ", "ZI"]).reshape(2, 1), values).data
    np.testing.assert_allclose(data.evs, np.cos([[0.3, 0.4], [1.3, 1.4]]), atol=1e-12)


def test_each_pub_has_its_own_precision():
    circuit = QuantumCircuit(1)
    estimator = DensityMatrixEstimator(default_shots=1000)
    job = estimator.run([(circuit, "Z"), (circuit, "Z", None, 0.1), (circuit, "Z", None, 0.0)])
    metadata = [result.metadata for result in job.result()]
    assert [item["shots"] for item in metadata] == [1000, 100, 0]
    assert [item["target_precision"] for item in metadata] == [1000**-0.5, 0.1, 0.0]
    assert evaluate(estimator, circuit, "Z", precision=0.03).metadata["shots"] == 1112
    for shots in range(1, 3000, 7):
        assert evaluate(estimator, circuit, "I", precision=shots**-0.5).metadata["shots"] == shots


def test_gates_without_noise_are_refused():
    circuit = QuantumCircuit(2)
    circuit.h(0)
    noise = simple_noise(2, one_qubit=0.1)
    with pytest.raises(InputError, match=r"gates \['h'\], which would run without noise"):
        DensityMatrixEstimator(noise).run([(circuit, "ZZ")])
    DensityMatrixEstimator(noise).run([(transpile(circuit, noise), "ZZ")]).result()


def test_gates_that_cannot_be_bound_are_refused_under_noise():
    circuit = QuantumCircuit(2)
    circuit.crx(Parameter("a"), 0, 1)
    model = NoiseModel(basis_gates=["crx", "cx"])
    with pytest.raises(InputError, match=r"does not bind the parameters of the gates \['crx'\]"):
        DensityMatrixEstimator(model).run([(circuit, "ZZ", [0.1])])


def test_what_cannot_be_honoured_is_refused():
    with pytest.raises(InputError, match="give one of them"):
        DensityMatrixEstimator(default_precision=0.1, default_shots=10)
    with pytest.raises(InputError, match="default_shots must be an integer of at least 1"):
        DensityMatrixEstimator(default_shots=0)
    with pytest.raises(InputError, match="default_precision must be a number of at least 0"):
        DensityMatrixEstimator(default_precision=float("nan"))
    with pytest.raises(InputError, match="precision must be a number of at least 0"):
        DensityMatrixEstimator().run([(QuantumCircuit(1), "Z")], precision=-0.1)
    with pytest.raises(InputError, match="noise must be a noisy AerSimulator"):
        DensityMatrixEstimator("fake:torino")
    circuit = QuantumCircuit(1)
    circuit.rx(Parameter("a"), 0)
    with pytest.raises(InputError, match="NaN"):
        DensityMatrixEstimator().run([(circuit, "Z", [np.nan])])
    model = NoiseModel()
    model.add_readout_error(ReadoutError(np.eye(4)[[1, 0, 2, 3]]), [0, 1])
    with pytest.raises(InputError, match="only independent ones"):
        DensityMatrixEstimator(model)
    model = NoiseModel()
    model.add_all_qubit_quantum_error(depolarizing_error(0.1, 1), ["measure"])
    with pytest.raises(InputError, match="quantum errors on measurements"):
        DensityMatrixEstimator(model)


def test_a_batch_costs_far_less_than_one_circuit_at_a_time(template):
    values = values_for(template.circuit, 64)
    estimator = DensityMatrixEstimator(default_shots=100)
    evaluate(estimator, template.circuit, "ZIII", values[:1])
    started = time.process_time()
    evaluate(estimator, template.circuit, "ZIII", values)
    batch = time.process_time() - started
    started = time.process_time()
    for row in values:
        evaluate(estimator, template.circuit, "ZIII", row)
    assert batch < time.process_time() - started
