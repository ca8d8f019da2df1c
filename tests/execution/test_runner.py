from __future__ import annotations

import math
import string

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from known_estimators import ESTIMATORS, aer, client, exact_values, simulator
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter, ParameterVector
from qiskit.primitives import (
    BackendEstimatorV2,
    PrimitiveJob,
    PrimitiveResult,
    PubResult,
    StatevectorEstimator,
    StatevectorSampler,
)
from qiskit.primitives.containers import DataBin
from qiskit.quantum_info import SparsePauliOp
from qiskit.transpiler import generate_preset_pass_manager
from qiskit_ibm_runtime.fake_provider import FakeManilaV2

from qiskit_qdeq.evaluation.protocol import Cost
from qiskit_qdeq.exceptions import ExecutionError, InputError
from qiskit_qdeq.execution.limits import Limits
from qiskit_qdeq.execution.primitives import backend_of
from qiskit_qdeq.execution.runner import CircuitRunner, Request
from qiskit_qdeq.execution.seeding import SeededEstimator

OBSERVABLES = [
    SparsePauliOp("ZII"),
    SparsePauliOp.from_list([("XXI", 0.5), ("IIZ", -0.3)]),
    SparsePauliOp("IZI"),
    SparsePauliOp.from_list([("IYI", 0.4), ("III", 0.1)]),
    SparsePauliOp.from_list([("ZII", 0.5), ("ZII", 0.5)]),
]


def build(seed=0, qubits=3, count=8):
    """A random circuit over parameters with random names, in an order of their own."""
    rng = np.random.default_rng(seed)
    names = rng.permutation(list(string.ascii_letters))[:count]
    parameters = [Parameter(str(name)) for name in names]
    circuit = QuantumCircuit(qubits)
    for parameter in [parameters[place] for place in rng.permutation(count)]:
        gate = ("rx", "ry", "rz")[rng.integers(3)]
        getattr(circuit, gate)(rng.uniform(0.5, 1.5) * parameter, int(rng.integers(qubits)))
        control, target = rng.permutation(qubits)[:2].tolist()
        circuit.cx(control, target)
    return circuit, parameters


def draw(rows, columns=8, seed=1):
    return np.random.default_rng(seed).uniform(-np.pi, np.pi, (rows, columns))


class Recorder(StatevectorEstimator):
    """Keeps the PUBs and arguments of every call."""

    def __init__(self, **options):
        super().__init__(**options)
        self.calls = []

    def run(self, pubs, **arguments):
        self.calls.append((pubs, arguments))
        return super().run(pubs, **arguments)


class Replying:
    """Gives back the fields it is told, of any shape."""

    def __init__(self, metadata=None, **fields):
        self.fields, self.metadata = fields, metadata

    def run(self, pubs, *, precision=None):
        result = PubResult(DataBin(**self.fields), metadata=self.metadata)
        job = PrimitiveJob(lambda: PrimitiveResult([result]))
        job._submit()
        self.job = job
        return job


@settings(max_examples=20)
@given(st.integers(0, 1000), st.permutations(range(5)), st.integers(0, 3))
def test_transpiled_to_any_layout_values_are_those_of_the_circuit(seed, order, level):
    backend = simulator()
    manager = generate_preset_pass_manager(
        level, target=backend.target, initial_layout=list(order)[:3], seed_transpiler=seed
    )
    circuit, parameters = build(seed)
    runner = CircuitRunner(circuit, parameters, OBSERVABLES, aer(), pass_manager=manager, backend=backend)
    assert runner.circuit.num_qubits == 5
    rows = draw(3, seed=seed)
    (measurement,), cost = runner.run([Request(rows)])
    np.testing.assert_allclose(
        measurement.values, exact_values(circuit, parameters, OBSERVABLES, rows), rtol=0, atol=1e-10
    )
    assert not measurement.std_errors.any()
    assert not measurement.shots.any()
    assert cost == runner.predict([Request(rows)])


@pytest.mark.parametrize("name", ESTIMATORS)
def test_values_agree_with_the_statevector_within_their_errors(name):
    circuit, parameters = build()
    runner = CircuitRunner(circuit, parameters, OBSERVABLES, SeededEstimator(ESTIMATORS[name](), 5))
    rows = draw(6)
    requests = [Request(rows), Request(rows[:2], (2, 0, 2)), Request(rows[:3], (0,), 0.1), Request(rows[:0])]
    measured, cost = runner.run(requests)
    exact = exact_values(circuit, parameters, OBSERVABLES, rows)
    wanted = [exact, exact[:2][:, [2, 0, 2]], exact[:3][:, [0]], exact[:0]]
    for measurement, values in zip(measured, wanted, strict=True):
        assert measurement.values.shape == measurement.std_errors.shape == values.shape
        assert measurement.shots.shape == (len(values),)
        # Twirling estimates the error from few randomizations: it can be too small, so the shots bound it.
        errors = np.maximum(measurement.std_errors, measurement.shots[:, None] ** -0.5)
        assert np.all(np.abs(measurement.values - values) < 5 * errors)
    assert np.all(measured[2].shots >= 100)
    assert np.all(measured[2].std_errors < 0.2)
    assert np.all(measured[0].std_errors[:, [0, 2]] <= 0.2)
    # Z and Z, X and Z, Y: three bases; one of them for Z alone
    settings_measured = 6 * 3 + 2 + 3
    jobs = 2 if name in ("legacy", "client", "client-mitigated") else 1
    assert cost == runner.predict(requests)
    assert (cost.jobs, cost.pubs) == (jobs, 3)
    assert cost.circuits == settings_measured + (jobs if name == "client-mitigated" else 0)
    if name not in ("client-mitigated",):
        shots = {"legacy": 1001}.get(name, 400)
        assert cost.shots == shots * (6 * 3 + 2) + 100 * 3


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"resilience_level": 1},
        {"resilience_level": 1, "twirling": {"num_randomizations": 3}},
        {"resilience_level": 1, "twirling": {"shots_per_randomization": 30, "num_randomizations": 2}},
        {"resilience_level": 1, "resilience": {"measure_noise_learning": {"num_randomizations": 5}}},
        {"resilience_level": 2},
        {"resilience": {"zne_mitigation": True, "zne": {"noise_factors": [1, 3], "extrapolator": "linear"}}},
    ],
)
def test_predicted_shots_are_those_submitted_to_the_device(options):
    from qiskit_ibm_runtime.executor_estimator.prepare import prepare

    circuit, parameters = build()
    recorder = client(**options)
    programs = []

    class Recording(type(recorder)):
        def run(self, pubs, **arguments):
            programs.append(prepare(pubs, self.options, add_tags=True, backend=simulator())[0])
            raise ConnectionError("not sent")

    recorder.__class__ = Recording
    runner = CircuitRunner(circuit, parameters, OBSERVABLES, recorder)
    requests = [Request(draw(3)), Request(draw(2), (0,))]
    with pytest.raises(ConnectionError, match="not sent"):
        runner.run(requests)
    (program,) = programs
    assert runner.predict(requests).shots == program.shots * sum(item.size() for item in program.items)


def test_a_large_device_is_reached_by_its_layout():
    from qiskit_aer import AerSimulator
    from qiskit_ibm_runtime.fake_provider import FakeTorino

    circuit, parameters = build()
    device = FakeTorino()

    class Noiseless(FakeTorino):
        def run(self, circuits, **options):
            return AerSimulator(max_parallel_threads=1).run(circuits, shots=options["shots"], seed_simulator=3)

    estimator = BackendEstimatorV2(backend=Noiseless())
    runner = CircuitRunner(circuit, parameters, OBSERVABLES, estimator)
    assert runner.circuit.num_qubits == 133
    assert set(runner.circuit.count_ops()) <= set(device.target.operation_names)
    rows = draw(2)
    (measurement,), _ = runner.run([Request(rows, precision=0.02)])
    exact = exact_values(circuit, parameters, OBSERVABLES, rows)
    assert np.all(np.abs(measurement.values - exact) < 5 * 0.02)
    with pytest.raises(InputError, match="133 qubits, but the estimator's own backend takes 30"):
        CircuitRunner(circuit, parameters, OBSERVABLES, BackendEstimatorV2(backend=AerSimulator()), backend=device)


def test_the_same_circuit_is_transpiled_alike_every_time():
    circuit, parameters = build()
    runners = [CircuitRunner(circuit, parameters, OBSERVABLES, client(), optimization_level=3) for _ in range(2)]
    assert runners[0].circuit == runners[1].circuit
    assert backend_of(client()) is simulator()


def test_a_parameter_lost_in_transpilation_is_left_out():
    a, b = Parameter("a"), Parameter("b")
    circuit = QuantumCircuit(1)
    circuit.ry(a, 0)
    circuit.rz(b, 0)

    class DropLast:
        def run(self, circuit):
            shorter = circuit.copy_empty_like()
            shorter.append(circuit.data[0])
            return shorter

    runner = CircuitRunner(circuit, [b, a], [SparsePauliOp("Z")], StatevectorEstimator(), pass_manager=DropLast())
    (measurement,), _ = runner.run([Request(np.array([[0.3, 0.7], [0.1, 0.2]]))])
    np.testing.assert_allclose(measurement.values[:, 0], np.cos([0.7, 0.2]), atol=1e-12)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_circuit_without_parameters_is_measured_row_by_row(name):
    circuit = QuantumCircuit(1)
    circuit.ry(1.0, 0)
    estimator = SeededEstimator(ESTIMATORS[name](), 5)
    runner = CircuitRunner(circuit, [], [SparsePauliOp("Z"), SparsePauliOp("X")], estimator)
    (measurement,), cost = runner.run([Request(np.zeros((8, 0)))])
    assert np.all(np.abs(measurement.values - [np.cos(1), np.sin(1)]) < 0.3)
    assert len(np.unique(measurement.values[:, 0])) > 1
    assert cost.pubs == 8


def test_one_job_with_one_pub_per_request_and_each_observable_once():
    circuit, parameters = build()
    recorder = Recorder()
    runner = CircuitRunner(circuit, parameters, OBSERVABLES, recorder)
    (first, second), cost = runner.run([Request(draw(4)), Request(draw(2), (4, 2, 0), 0.1)])
    ((pubs, arguments),) = recorder.calls
    assert arguments == {}
    assert [len(pub) for pub in pubs] == [3, 4]
    assert [pub[1].shape for pub in pubs] == [(4, 1), (2, 1)]
    assert [pub[2].shape for pub in pubs] == [(4,), (2,)]
    assert np.array_equal(first.values[:, 0], first.values[:, 4])
    assert np.array_equal(second.values[:, 0], second.values[:, 2])
    assert np.all(second.std_errors == 0.1)
    # ZII, IZI and IIZ, XXI and IZ, IYI take three bases; exact rows take no shots
    assert cost == Cost(circuits=4 * 3 + 2, shots=2 * 100, jobs=1, pubs=2)


@pytest.mark.parametrize(
    ("limits", "jobs", "pubs"),
    [
        (Limits(max_rows_per_pub=3), 1, 5),
        (Limits(max_executions_per_job=25 * 5), 3, 5),
        (Limits(max_payload_bytes=16 * 100 + 4 * 8 * 11), 3, 4),
    ],
)
def test_split_by_limits_the_results_come_back_in_order(limits, jobs, pubs):
    circuit, parameters = build()
    recorder = Recorder()
    whole = CircuitRunner(circuit, parameters, OBSERVABLES[:1], StatevectorEstimator())
    parts = CircuitRunner(circuit, parameters, OBSERVABLES[:1], recorder, limits=limits)
    requests = [Request(draw(7), precision=0.2), Request(draw(4, seed=5), precision=0.2)]
    measured, cost = parts.run(requests)
    assert (len(recorder.calls), sum(len(call[0]) for call in recorder.calls)) == (cost.jobs, cost.pubs)
    assert cost == parts.predict(requests)
    assert cost.jobs > 1 or cost.pubs > 2
    expected, _ = whole.run([Request(request.values) for request in requests])
    for got, exact in zip(measured, expected, strict=True):
        assert np.all(np.abs(got.values - exact.values) < 1.0)
    exact_parts = CircuitRunner(circuit, parameters, OBSERVABLES[:1], StatevectorEstimator(), limits=limits)
    for got, exact in zip(exact_parts.run([Request(r.values) for r in requests])[0], expected, strict=True):
        assert np.array_equal(got.values, exact.values)


def test_aer_gets_pubs_of_a_size_it_handles_in_linear_time():
    circuit, parameters = build(count=2)
    request = Request(draw(1100, 2))
    plain = CircuitRunner(circuit, parameters, OBSERVABLES[:1], aer())
    bound_late = aer(backend_options={"max_parallel_threads": 1, "runtime_parameter_bind_enable": True})
    fast = CircuitRunner(circuit, parameters, OBSERVABLES[:1], bound_late)
    assert (plain.predict([request]).pubs, fast.predict([request]).pubs) == (3, 1)
    np.testing.assert_allclose(plain.run([request])[0][0].values, fast.run([request])[0][0].values, atol=1e-12)


def test_ibm_jobs_stay_below_ten_million_executions():
    circuit, parameters = build()
    request = Request(draw(3000), precision=1 / 64)
    device = CircuitRunner(circuit, parameters, OBSERVABLES[:1], client())
    assert (device.predict([request]).jobs, device.predict([request]).shots) == (2, 3000 * 4096)
    with pytest.raises(InputError, match="one row takes 100000000 shots"):
        device.predict([Request(draw(1), precision=1e-4)])
    simulated = CircuitRunner(circuit, parameters, OBSERVABLES[:1], aer())
    assert simulated.predict([request, Request(draw(1), precision=1e-4)]).jobs == 1


def test_different_precisions_share_a_job_of_ibms_estimator():
    circuit, parameters = build()
    runner = CircuitRunner(circuit, parameters, OBSERVABLES[:2], client())
    requests = [Request(draw(3), precision=1 / 20), Request(draw(5, seed=1), precision=1 / 40)]
    exact, _ = CircuitRunner(circuit, parameters, OBSERVABLES[:2], aer()).run(
        [Request(request.values) for request in requests]
    )
    measured, cost = runner.run(requests)
    predicted = runner.predict(requests)
    assert (cost.jobs, cost.pubs) == (predicted.jobs, predicted.pubs) == (1, 2)
    assert (cost.circuits, cost.shots) == (predicted.circuits, predicted.shots)
    for found, truth, shots in zip(measured, exact, (400, 1600), strict=True):
        assert found.values.shape == truth.values.shape
        assert (found.shots == shots).all()
        assert (found.std_errors <= 1.3 / math.sqrt(shots)).all()
        np.testing.assert_allclose(found.values, truth.values, atol=5 / math.sqrt(shots))
    far = [Request(draw(1), precision=1 / 2), Request(draw(1), precision=1 / 64)]
    assert runner.predict(far).jobs == 2


def test_precision_is_refused_before_anything_is_sent():
    circuit, parameters = build()
    recorder = Recorder()
    runner = CircuitRunner(circuit, parameters, OBSERVABLES, recorder)
    for precision in (0, 0.0, -0.1, float("nan"), float("inf"), "fine"):
        with pytest.raises(InputError, match="precision of request 1"):
            runner.run([Request(draw(2)), Request(draw(2), precision=precision)])
    assert recorder.calls == []


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Request(np.zeros((2, 7))), r"values of request 0 must have shape \(rows, 8\), got \(2, 7\)"),
        (Request(np.zeros(8)), "values of request 0"),
        (Request(np.full((2, 8), np.nan)), "finite"),
        (Request(np.zeros((2, 8), dtype=complex)), "real"),
        (Request(np.zeros((2, 8)), (5,)), r"observables \[5\] do not exist"),
        (Request(np.zeros((2, 8)), (-1,)), r"observables \[-1\] do not exist"),
        (Request(np.zeros((2, 8)), ()), "at least one"),
    ],
)
def test_requests_that_cannot_be_sent_are_refused(request_, message):
    circuit, parameters = build()
    with pytest.raises(InputError, match=message):
        CircuitRunner(circuit, parameters, OBSERVABLES, StatevectorEstimator()).run([request_])


def test_what_does_not_belong_to_the_circuit_is_refused():
    circuit, parameters = build()
    estimator = StatevectorEstimator()
    for wrong, message in [
        (parameters[:-1], "not among"),
        ([*parameters, Parameter("extra")], "do not occur"),
        ([*parameters, parameters[0]], "twice"),
    ]:
        with pytest.raises(InputError, match=message):
            CircuitRunner(circuit, wrong, OBSERVABLES, estimator)
    for observable, message in [
        (SparsePauliOp("ZZ"), "2 qubits"),
        (SparsePauliOp("ZZZ", 1j), "Hermitian"),
        (SparsePauliOp("ZZZ", 0.0), "not zero"),
        ("ZZZ", "SparsePauliOp"),
    ]:
        with pytest.raises(InputError, match=message):
            CircuitRunner(circuit, parameters, [observable], estimator)
    with pytest.raises(InputError, match="at least one"):
        CircuitRunner(circuit, parameters, [], estimator)
    with pytest.raises(InputError, match="run"):
        CircuitRunner(circuit, parameters, OBSERVABLES, None)


def test_a_gate_the_device_lacks_is_named():
    class Unchanged:
        def run(self, circuit):
            return circuit

    angles = ParameterVector("x", 2)
    circuit = QuantumCircuit(2)
    circuit.rz(angles[0], 0)
    circuit.barrier()
    circuit.ry(angles[1], 1)
    arguments = (list(angles), [SparsePauliOp("ZZ")], client())
    with pytest.raises(InputError, match=r"'ry' on qubits \(1,\)"):
        CircuitRunner(circuit, *arguments, pass_manager=Unchanged())
    far = QuantumCircuit(5)
    far.rz(angles[0], 0)
    far.rz(angles[1], 0)
    far.cx(0, 4)
    with pytest.raises(InputError, match=r"'cx' on qubits \(0, 4\)"):
        CircuitRunner(far, list(angles), [SparsePauliOp("ZIIII")], client(), pass_manager=Unchanged())
    with pytest.raises(InputError, match="6 qubits"):
        CircuitRunner(QuantumCircuit(6), [], [SparsePauliOp("ZIIIII")], client())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"evs": np.zeros((2, 1)), "stds": np.zeros((2, 1))}, "shape"),
        ({"evs": np.zeros(2), "stds": np.zeros(2)}, "shape"),
        ({"evs": np.array([[0.0, np.nan]]), "stds": np.zeros((1, 2))}, "finite"),
        ({"evs": np.array([[0.0, 1j]]), "stds": np.zeros((1, 2))}, "real"),
        ({"evs": np.zeros((1, 2)), "stds": np.zeros(2)}, "std_errors"),
    ],
)
def test_a_wrong_result_names_its_job(fields, message):
    circuit, parameters = build()
    estimator = Replying(**fields)
    runner = CircuitRunner(circuit, parameters, OBSERVABLES[:1], estimator)
    with pytest.raises(ExecutionError, match=message) as caught:
        runner.run([Request(draw(2))])
    assert estimator.job.job_id() in str(caught.value)


def test_an_unknown_error_is_infinite_and_shots_are_those_reported():
    circuit, parameters = build()
    estimator = Replying({"shots": 123}, evs=np.zeros((1, 2)), stds=np.array([[np.nan, np.inf]]))
    (measurement,), cost = CircuitRunner(circuit, parameters, OBSERVABLES[:1], estimator).run([Request(draw(2))])
    assert np.all(np.isposinf(measurement.std_errors))
    assert measurement.shots.tolist() == [123, 123]
    assert cost.shots == 246


def test_an_estimator_that_reports_nothing_is_taken_at_its_word():
    circuit, parameters = build()
    estimator = Replying(evs=np.zeros((1, 2)))
    (measurement,), cost = CircuitRunner(circuit, parameters, OBSERVABLES[:1], estimator).run(
        [Request(draw(2), precision=1000**-0.5)]
    )
    np.testing.assert_allclose(measurement.std_errors, 1000**-0.5)
    assert cost.shots == 2000


def test_the_service_speaks_for_itself():
    class Refusing:
        def run(self, pubs, *, precision=None):
            raise PermissionError("session closed")

    circuit, parameters = build()
    with pytest.raises(PermissionError, match="session closed"):
        CircuitRunner(circuit, parameters, OBSERVABLES, Refusing()).run([Request(draw(2))])


def test_nothing_asked_sends_nothing():
    circuit, parameters = build()
    recorder = Recorder()
    runner = CircuitRunner(circuit, parameters, OBSERVABLES, recorder)
    assert runner.run([]) == ([], Cost())
    (measurement,), cost = runner.run([Request(draw(0), (0, 1))])
    assert measurement.values.shape == (0, 2)
    assert cost == Cost()
    assert recorder.calls == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"estimator": StatevectorEstimator}, "estimator must be an object, got the class StatevectorEstimator"),
        ({"estimator": StatevectorSampler()}, "got the sampler"),
        ({"estimator": FakeManilaV2()}, "got the backend 'fake_manila': give it as backend"),
        ({"estimator": StatevectorEstimator(), "pass_manager": "level1"}, "pass_manager must have a method run"),
        (
            {"estimator": StatevectorEstimator(), "pass_manager": generate_preset_pass_manager(1, FakeManilaV2())},
            "cannot be transpiled",
        ),
    ],
)
def test_what_is_no_estimator_or_pass_manager_is_refused_before_anything_runs(options, message):
    x = Parameter("x")
    circuit = QuantumCircuit(6)
    circuit.ry(x, 0)
    with pytest.raises(InputError, match=message):
        CircuitRunner(circuit, [x], [SparsePauliOp("IIIIIZ")], **options)
