"""Rows measured on several copies at once: the same values as one by one, at a fraction of the executions."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from known_estimators import aer, client, exact_values, simulator
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.primitives import BackendEstimatorV2, StatevectorEstimator
from qiskit.quantum_info import SparsePauliOp
from qiskit_aer import AerSimulator
from qiskit_ibm_runtime.fake_provider import FakeGuadalupeV2

from qiskit_qdeq import Execution, TrainingConfig, choose_copies, executed, model_config, solver
from qiskit_qdeq.evaluation.gate_angles import GateTemplate
from qiskit_qdeq.evaluation.protocol import Cost
from qiskit_qdeq.exceptions import BudgetError, InputError
from qiskit_qdeq.execution.account import Account, Budget
from qiskit_qdeq.execution.devices import sub_device
from qiskit_qdeq.execution.limits import Limits
from qiskit_qdeq.execution.noise import noise_from_backend
from qiskit_qdeq.execution.noisy_estimator import DensityMatrixEstimator
from qiskit_qdeq.execution.plan import count_bases
from qiskit_qdeq.execution.product_estimator import ProductEstimator
from qiskit_qdeq.execution.runner import CircuitRunner, Request
from qiskit_qdeq.execution.seeding import SeededEstimator
from qiskit_qdeq.execution.tiling import TiledRunner
from qiskit_qdeq.training.cost import predicted_step
from qiskit_qdeq.training.step import training_step

OBSERVABLES = [SparsePauliOp("IZ"), SparsePauliOp(["ZZ", "XI"], [0.5, -1.0]), SparsePauliOp("IZ"), SparsePauliOp("YX")]
DIAGONAL = [SparsePauliOp("IZ"), SparsePauliOp("ZZ"), SparsePauliOp("ZI")]


def build():
    """A circuit of two qubits; parameters in an order that is not the circuit's."""
    circuit, a, b = QuantumCircuit(2), ParameterVector("a", 2), ParameterVector("b", 2)
    circuit.ry(b[1], 0)
    circuit.rx(a[0], 1)
    circuit.crz(a[1] * 2, 0, 1)
    circuit.ry(b[0] + 0.1, 1)
    return circuit, (b[0], a[0], b[1], a[1])


def draw(rows, seed=0):
    return np.random.default_rng(seed).uniform(-3, 3, (rows, 4))


@pytest.fixture(scope="module")
def guadalupe():
    return FakeGuadalupeV2()


@settings(deadline=None, derandomize=True, max_examples=20)
@given(st.integers(1, 4), st.lists(st.tuples(st.integers(0, 9), st.sampled_from([None, (2, 0), (3,)])), max_size=3))
def test_any_number_of_rows_has_the_values_of_the_statevector(copies, asked):
    circuit, parameters = build()
    runner = TiledRunner(circuit, parameters, OBSERVABLES, ProductEstimator(), copies=copies)
    requests = [Request(draw(rows, seed), which) for seed, (rows, which) in enumerate(asked)]
    measured, cost = runner.run(requests)
    for request, measurement in zip(requests, measured, strict=True):
        chosen = list(range(4)) if request.observables is None else list(request.observables)
        wanted = exact_values(circuit, parameters, OBSERVABLES, request.values).reshape(-1, 4)[:, chosen]
        np.testing.assert_allclose(measurement.values, wanted, rtol=0, atol=1e-10)
        assert measurement.std_errors.shape == wanted.shape
        assert measurement.shots.shape == (len(request.values),)
        assert not measurement.std_errors.any()
    assert cost == runner.predict(requests)
    kinds = {which for rows, which in asked if rows}
    rows = {kind: sum(rows for rows, which in asked if which == kind) for kind in kinds}
    # bases of all observables: Z and ZZ, X (with Z on the other qubit), Y X
    bases = {None: 3, (2, 0): 1, (3,): 1}
    assert cost.circuits == sum(bases[kind] * -(-count // copies) for kind, count in rows.items())


@settings(deadline=None, derandomize=True, max_examples=50)
@given(
    st.lists(st.text("IXYZ", min_size=3, max_size=3).filter(lambda label: set(label) != {"I"}), min_size=1, max_size=7),
    st.permutations(range(9)),
)
def test_copies_need_no_more_bases_than_one(labels, order):
    observables = [SparsePauliOp(label) for label in labels]
    everywhere = [one.apply_layout(list(order[start : start + 3]), 9) for start in (0, 3, 6) for one in observables]
    assert count_bases(everywhere) == count_bases(observables)


@pytest.mark.parametrize("options", [{}, {"resilience_level": 1}, {"resilience_level": 2}])
def test_predicted_shots_are_those_submitted_to_the_device(options):
    from qiskit_ibm_runtime.executor_estimator.prepare import prepare

    recorder, programs = client(**options), []

    class Recording(type(recorder)):
        def run(self, pubs, **arguments):
            programs.append(prepare(pubs, self.options, add_tags=True, backend=simulator())[0])
            raise ConnectionError("not sent")

    recorder.__class__ = Recording
    runner = TiledRunner(*build(), OBSERVABLES, recorder, copies=2)
    requests = [Request(draw(5)), Request(draw(2), (0,))]
    with pytest.raises(ConnectionError, match="not sent"):
        runner.run(requests)
    (program,) = programs
    predicted = runner.predict(requests)
    assert predicted.shots == program.shots * sum(item.size() for item in program.items)
    single = CircuitRunner(*build(), OBSERVABLES, recorder).predict(requests)
    assert predicted.circuits < 0.65 * single.circuits


def test_what_is_executed_is_what_was_predicted(guadalupe):
    """Circuits and shots as the backend counts them, bases of all copies combined."""

    class Counting(AerSimulator):
        def run(self, circuits, **options):
            counted.append((len(circuits), options.get("shots")))
            return super().run(circuits, **options)

    counted = []
    backend = Counting.from_backend(guadalupe)
    backend.set_options(noise_model=None, max_parallel_threads=1)
    circuit, parameters = build()
    runner = TiledRunner(circuit, parameters, OBSERVABLES, BackendEstimatorV2(backend=backend), copies=4)
    requests = [Request(draw(9), precision=0.1)]
    (measurement,), cost = runner.run(requests)
    assert counted == [(cost.circuits, 100)]
    assert cost == runner.predict(requests)
    assert (cost.circuits, cost.shots) == (9, 900)
    assert (measurement.shots == 100).all()
    exact = exact_values(circuit, parameters, OBSERVABLES, draw(9))
    assert (np.abs(measurement.values - exact) < 5 * np.maximum(measurement.std_errors, 0.1)).all()


@pytest.mark.parametrize("make", [client, lambda: aer(default_precision=0.05), lambda: StatevectorEstimator()])
def test_any_estimator_takes_the_tiled_circuit(make):
    circuit, parameters = build()
    estimator = SeededEstimator(make(), 3)
    copies = "auto" if make is client else 2
    runner = TiledRunner(circuit, parameters, DIAGONAL, estimator, copies=copies)
    # five qubits in a row: two copies need four and one between them
    assert len(runner.copies) == 2
    (measurement,), cost = runner.run([Request(draw(5))])
    exact = exact_values(circuit, parameters, DIAGONAL, draw(5))
    assert (np.abs(measurement.values - exact) <= 5 * np.maximum(measurement.std_errors, 0.05)).all()
    assert cost.circuits == 3


def gradient(model, config, features):
    rng = np.random.default_rng(3)
    x, y = rng.uniform(0.2, 1, (3, features)), np.array([0, 2, 1])
    return training_step(
        model,
        model.initial_parameters(1),
        model.prepare(x),
        y,
        config,
        direct=False,
        initial=None,
        rng=np.random.default_rng,
    )


@pytest.mark.parametrize("readout", ["z", "zz", "zzz"])
@pytest.mark.parametrize("encoding", ["amplitude", "angle"])
def test_a_whole_training_step_is_that_of_the_exact_evaluator(encoding, readout, guadalupe):
    features = 8 if encoding == "amplitude" else 9
    model = model_config("default", features, 3, 3, encoding=encoding, readout=readout).build()
    tiled, single = (model.measured(ProductEstimator(), backend=guadalupe, copies=copies) for copies in ("auto", 1))
    count = len(tiled.evaluator.runner.copies)
    assert count >= 2
    # one newton step: values, Jacobians and gradients are needed, and all steps are alike
    config = TrainingConfig(solver=solver("newton", max_steps=1))
    exact, measured, alone = (gradient(one, config, features) for one in (model, tiled, single))
    np.testing.assert_allclose(measured.loss, exact.loss, atol=1e-10)
    np.testing.assert_allclose(measured.gradient, exact.gradient, atol=1e-8)
    np.testing.assert_allclose(measured.gradient, alone.gradient, atol=1e-10)
    assert alone.cost.circuits / count <= measured.cost.circuits < alone.cost.circuits / count + 4


def test_a_large_tiling_agrees_with_matrix_product_states(torino):
    model = model_config("default", 16, 4, 4).build()
    gates = GateTemplate(model.template)
    observables = [*model.template.state_observables, *model.template.readout_observables][:6]
    runner = TiledRunner(gates.circuit, gates.parameters, observables, ProductEstimator(torino), copies=20)
    rows = np.random.default_rng(0).uniform(-3, 3, (20, len(gates.parameters)))
    tiled, vectors = runner.copies.circuit(gates.parameters)
    bound = tiled.assign_parameters(
        {p: v for vector, row in zip(vectors, rows, strict=True) for p, v in zip(vector, row, strict=True)}
    )
    used = sorted(qubit for copy in runner.copies.copies for qubit in copy.qubits)
    for index, observable in enumerate(runner.copies.observables(observables)):
        (term,) = observable.paulis
        bound.save_expectation_value(
            term[used], [bound.qubits[qubit] for qubit in used], label=str(index), pershot=False
        )
    data = AerSimulator(method="matrix_product_state").run(bound, shots=1).result().data()
    together = np.array([data[str(index)] for index in range(120)]).reshape(20, 6)
    alone = exact_values(gates.circuit, gates.parameters, observables, rows)
    np.testing.assert_allclose(together, alone, atol=1e-7)


def test_each_copy_has_the_noise_of_its_own_qubits(torino):
    circuit, parameters = build()
    runner = TiledRunner(circuit, parameters, DIAGONAL, ProductEstimator(torino), copies=3)
    rows = draw(4)
    (measurement,), _ = runner.run([Request(rows)])
    for row, values in enumerate(measurement.values):
        copy = runner.copies.copies[row % 3]
        device = sub_device(torino, copy.qubits)
        observables = [one.apply_layout([copy.qubits.index(q) for q in copy.final], 2) for one in DIAGONAL]
        bindings = {p.name: v for p, v in zip(parameters, rows[row], strict=True)}
        alone = DensityMatrixEstimator(noise_from_backend(device)).run([(copy.circuit, observables, bindings)])
        np.testing.assert_allclose(values, alone.result()[0].data.evs, atol=1e-10)
    exact = exact_values(circuit, parameters, DIAGONAL, rows)
    assert np.abs(measurement.values - exact).max() > 1e-3


def test_rows_do_not_depend_on_what_shares_their_execution(torino):
    circuit, parameters = build()
    runner = TiledRunner(circuit, parameters, DIAGONAL, ProductEstimator(torino), copies=4)
    rows = draw(4)
    alone = runner.run([Request(rows[:1])])[0][0].values
    together = runner.run([Request(rows)])[0][0].values
    np.testing.assert_array_equal(alone[0], together[0])


def test_copies_chosen_before_are_used_and_only_for_their_circuit(torino):
    circuit, _ = build()
    chosen = choose_copies(torino, circuit, copies=2, spare=3)
    again, other = build()  # equal, of other Parameter objects
    runner = TiledRunner(again, other, DIAGONAL, ProductEstimator(torino), copies=chosen)
    assert runner.copies is chosen
    different = again.copy()
    different.x(0)
    with pytest.raises(InputError, match="another circuit"):
        TiledRunner(different, other, DIAGONAL, ProductEstimator(torino), copies=chosen)
    with pytest.raises(InputError, match="another circuit"):
        TiledRunner(QuantumCircuit(2), [], DIAGONAL, ProductEstimator(torino), copies=chosen)


def test_the_digest_of_a_question_stays_when_the_copies_move(torino):
    circuit, parameters = build()
    chosen = [choose_copies(torino, circuit, copies=2, spare=spare) for spare in (1, 9)]
    runners = [TiledRunner(circuit, parameters, DIAGONAL, ProductEstimator(torino), copies=copies) for copies in chosen]
    assert runners[0].circuit != runners[1].circuit
    assert len({runner.digest for runner in runners}) == 1
    assert TiledRunner(circuit, parameters, DIAGONAL, ProductEstimator(), copies=3).digest != runners[0].digest


def test_limits_split_and_budgets_stop_tiled_rows_too():
    circuit, parameters = build()
    limits = Limits(max_executions_per_job=250)
    runner = TiledRunner(
        circuit, parameters, DIAGONAL, ProductEstimator(default_shots=100), copies=2, limits=limits,
        account=Account(Budget(shots=500)),
    )  # fmt: skip
    requests = [Request(draw(7))]
    (measurement,), cost = runner.run(requests)
    assert (cost.jobs, cost.circuits, cost.shots) == (2, 4, 400)
    assert cost == runner.predict(requests)
    np.testing.assert_allclose(measurement.values, exact_values(circuit, parameters, DIAGONAL, draw(7)), atol=0.6)
    with pytest.raises(BudgetError):
        runner.run(requests)


def test_nothing_asked_costs_nothing():
    circuit, parameters = build()
    runner = TiledRunner(circuit, parameters, DIAGONAL, ProductEstimator(), copies=2)
    assert runner.run([]) == ([], Cost())
    (measurement,), cost = runner.run([Request(draw(0), (0, 1))])
    assert measurement.values.shape == (0, 2)
    assert cost.circuits == 0


def test_a_parameter_that_is_gone_from_the_copies_is_not_sent(torino):
    circuit, angles = QuantumCircuit(1), ParameterVector("t", 2)
    circuit.ry(angles[0], 0)
    circuit.rz(angles[1], 0)
    chosen = choose_copies(torino, circuit, copies=2)
    shorter = QuantumCircuit(1)
    shorter.ry(angles[0], 0)
    copies = tuple(dataclasses.replace(copy, circuit=shorter) for copy in chosen.copies)
    chosen = dataclasses.replace(chosen, copies=copies, couplings=())
    rows = np.random.default_rng(0).uniform(-3, 3, (3, 2))
    runner = TiledRunner(circuit, list(angles), [SparsePauliOp("Z")], ProductEstimator(), copies=chosen)
    assert runner.circuit.num_parameters == 2
    (measurement,), _ = runner.run([Request(rows)])
    np.testing.assert_allclose(measurement.values[:, 0], np.cos(rows[:, 0]), atol=1e-12)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Request(np.zeros((2, 3))), r"must have shape \(rows, 4\)"),
        (Request(np.full((2, 4), np.nan)), "finite"),
        (Request(np.zeros((2, 4)), (3,)), r"observables \[3\] do not exist; the runner has 3"),
        (Request(np.zeros((2, 4)), (-1,)), "do not exist"),
        (Request(np.zeros((2, 4)), ()), "at least one"),
        (Request(np.zeros((2, 4)), precision=-1), "precision of request 1"),
    ],
)
def test_requests_that_cannot_be_sent_are_input_errors(request_, message):
    circuit, parameters = build()
    runner = TiledRunner(circuit, parameters, DIAGONAL, ProductEstimator(), copies=2)
    for method in (runner.run, runner.predict):
        with pytest.raises(InputError, match=message):
            method([Request(draw(1)), request_])


def test_wrong_parameters_and_observables_are_named_as_the_template_has_them():
    circuit, parameters = build()
    with pytest.raises(InputError, match=r"a\[1\]"):
        TiledRunner(circuit, parameters[:3], DIAGONAL, ProductEstimator(), copies=2)
    with pytest.raises(InputError, match=r"observables\[1\] acts on 3 qubits"):
        TiledRunner(circuit, parameters, [SparsePauliOp("ZZ"), SparsePauliOp("ZZZ")], ProductEstimator(), copies=2)
    with pytest.raises(InputError, match="'auto' needs a device"):
        TiledRunner(circuit, parameters, DIAGONAL, ProductEstimator(), copies="auto")


@pytest.fixture(scope="module")
def model():
    return model_config("default", 16, 4, 4).build()


class TestExecutions:
    """Copies as a field of `Execution`."""

    def test_a_fake_device_runs_all_its_copies_at_the_cost_that_is_predicted(self, model):
        config, batch = TrainingConfig(solver=solver("probe")), 2
        x = np.random.default_rng(0).uniform(0.1, 1, (batch, 16))
        with executed(model, Execution("fake:guadalupe", shots=200, seed=1, copies="auto")) as measured:
            assert len(measured.evaluator.runner.copies) >= 2
            assert measured.evaluator.description["copies"] == "auto"
            found = training_step(
                measured, model.initial_parameters(0), measured.prepare(x), np.array([0, 1]), config,
                direct=False, initial=None, rng=np.random.default_rng,
            )  # fmt: skip
            assert found.cost == predicted_step(measured, config, batch)
            assert np.isfinite(found.gradient).all()

    def test_a_large_device_takes_a_step_in_a_small_part_of_the_executions(self, model):
        config, costs = TrainingConfig(solver=solver("probe")), []
        for copies in ("auto", 1):
            with executed(model, Execution("fake:torino", shots=1024, copies=copies)) as measured:
                costs.append(predicted_step(measured, config, 8))
        assert costs[0].jobs == costs[1].jobs == 2
        assert costs[1].circuits > 15 * costs[0].circuits
        # two seconds of each job remain
        assert costs[1].qpu_seconds - 4 > 15 * (costs[0].qpu_seconds - 4)

    def test_a_device_object_is_used_whole(self, model, guadalupe):
        with executed(model, Execution("given", shots=100, copies=2), backend=guadalupe) as measured:
            assert len(measured.evaluator.runner.copies) == 2
            assert measured.evaluator.runner.circuit.num_qubits == 16
        execution = Execution("given", resilience_level=1, copies=2)
        with (
            pytest.raises(InputError, match="resilience_level cannot be combined"),
            executed(model, execution, backend=guadalupe),
        ):
            pass

    @pytest.mark.parametrize("backend", ["statevector", "aer"])
    def test_simulators_take_a_number(self, model, backend):
        with executed(model, Execution(backend, copies=3)) as measured, executed(model, Execution(backend)) as single:
            inputs = model.prepare(np.random.default_rng(0).uniform(0.1, 1, (4, 16)))
            states = np.zeros((4, model.num_states))
            weights = np.linspace(-1, 1, model.num_weights)
            ours, other = (one.evaluator.bind(weights).map(inputs).at(states).values for one in (measured, single))
            np.testing.assert_allclose(ours, other, atol=1e-10)
            assert measured.evaluator.description["execution"]["copies"] == 3
            # runs of before there were copies continue
            assert "copies" not in single.evaluator.description["execution"]
            assert "copies" not in single.evaluator.description

    def test_noise_given_as_rates_is_that_of_every_copy(self, model):
        inputs = model.prepare(np.random.default_rng(0).uniform(0.1, 1, (3, 16)))
        weights, found = np.linspace(-1, 1, model.num_weights), []
        for copies in (1, 3):
            with executed(model, Execution("aer", noise="0.001,0.01,0.02", copies=copies)) as measured:
                problem = measured.evaluator.bind(weights).map(inputs)
                found.append(problem.at(np.zeros((3, model.num_states))).values)
        np.testing.assert_allclose(found[0], found[1], atol=1e-10)

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"backend": "aer", "copies": 0}, "copies must be an integer"),
            ({"backend": "aer", "copies": 2.0}, "copies must be an integer"),
            ({"backend": "aer", "copies": "all"}, "copies must be an integer"),
            ({"backend": "aer", "copies": "auto"}, "room for any number"),
            ({"backend": "aer", "noise": "fake:torino", "copies": 2}, "use backend='fake:torino'"),
            ({"backend": "fake:manila", "copies": 2}, "do not fit on fake_manila"),
            ({"backend": "fake:torino", "resilience_level": 1, "copies": 2}, "resilience_level cannot be combined"),
        ],
    )
    def test_what_makes_no_sense_is_an_input_error(self, model, fields, message):
        with pytest.raises(InputError, match=message), executed(model, Execution(**fields)):
            pass

    def test_a_pass_manager_and_copies_exclude_each_other(self, model, guadalupe):
        from qiskit.transpiler import PassManager

        with pytest.raises(InputError, match="pass_manager cannot be given with copies"):
            model.measured(ProductEstimator(), backend=guadalupe, copies=2, pass_manager=PassManager())
