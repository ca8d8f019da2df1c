"""What is predicted for a whole run, or an evaluation, is what executing it costs."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qiskit_qdeq import Execution, Sampling, Trainer, TrainingConfig, estimate_cost, executed, model_config, solver
from qiskit_qdeq.evaluation.protocol import Cost
from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.execution.devices import fake_backend, sub_device
from qiskit_qdeq.execution.runner import CircuitRunner
from qiskit_qdeq.gradient.regularization import Regularization
from qiskit_qdeq.inference import evaluate, predict
from qiskit_qdeq.training.cost import predicted_evaluation, predicted_step
from qiskit_qdeq.training.cost_estimate import OPEN_PLAN_SECONDS, CostEstimate

pytestmark = pytest.mark.filterwarnings("ignore::qiskit_qdeq.exceptions.ConvergenceWarning")

TRAIN, VALID, TEST = 5, 2, 3
#: Cut out once: looking for the best qubits takes longer than a small run.
TORINO = sub_device(fake_backend("torino"), 2)
PROBE = TrainingConfig(solver=solver("probe"), epochs=2, batch_size=3)
ZNE = {"resilience": {"zne_mitigation": True, "zne": {"noise_factors": [1, 3], "extrapolator": "linear"}}}
EXECUTIONS = {
    "aer": Execution("aer", shots=64, seed=0),
    "fake": Execution("fake:torino", shots=64, seed=0),
    "resilience 0": Execution("fake:torino", shots=100, seed=0, resilience_level=0),
    "TREX": Execution("fake:torino", shots=100, seed=0, resilience_level=1),
    "ZNE": Execution("fake:torino", shots=100, seed=0, resilience_level=0, options=ZNE),
}


@contextlib.contextmanager
def counting():
    """Adds up what all runners execute while it is open."""
    spent, run = [Cost()], CircuitRunner.run

    def counted(self, requests):
        found, cost = run(self, requests)
        spent[0] += cost
        return found, cost

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CircuitRunner, "run", counted)
        yield spent


def model():
    return model_config("default", 4, 2, 2).build()


def data(seed, count):
    rng = np.random.default_rng(seed)
    return rng.uniform(0.2, 1, (count, 4)), np.arange(count) % 2


def train_and_test(measured, config, sizes=(TRAIN, VALID, TEST)):
    train, valid, test = (data(seed, count) for seed, count in enumerate(sizes))
    trainer = Trainer(measured, config, *train, *valid)
    result = trainer.run()
    used = None if config.mode == "direct" else config.solver
    evaluate(measured, result.parameters, measured.prepare(test[0]), test[1], used, layers=config.layers)


def assert_same(predicted, spent):
    counts = [dataclasses.replace(cost, qpu_seconds=0.0) for cost in (predicted, spent)]
    assert counts[0] == counts[1]
    assert predicted.qpu_seconds == pytest.approx(spent.qpu_seconds, abs=1e-9)


@pytest.mark.parametrize("name", EXECUTIONS)
@pytest.mark.parametrize("mode", ["implicit", "direct"])
def test_a_whole_run_costs_what_was_predicted(name, mode):
    mitigated = EXECUTIONS[name].resilience_level is not None  # 50 times slower
    layers, epochs, sizes = (1, 1, (3, 1, 1)) if mitigated else (2, 2, (TRAIN, VALID, TEST))
    config = TrainingConfig(mode, layers, solver=solver("probe"), epochs=epochs, batch_size=2)
    with executed(model(), EXECUTIONS[name]) as measured:
        predicted = estimate_cost(measured, config, *sizes)
        with counting() as spent:
            train_and_test(measured, config, sizes)
    assert predicted.exact
    assert_same(predicted.total, spent[0])
    assert (predicted.total.qpu_seconds > 0) == (name != "aer")


@settings(deadline=None, derandomize=True, max_examples=14)
@given(
    sizes=st.tuples(st.integers(1, 5), st.integers(1, 2), st.integers(1, 2)),
    batch_size=st.integers(1, 4),
    epochs=st.integers(1, 2),
    warmup=st.integers(0, 5),
    start=st.sampled_from(["zeros", "warm", "direct"]),
    corrections=st.integers(0, 2),
    ahead=st.booleans(),
    growth=st.sampled_from([1.0, 3.7, 0.5]),
    method=st.sampled_from([{}, {"gradient_method": "spsa", "gradient_circuits": 2}]),
)
def test_any_probing_run_costs_what_was_predicted(
    sizes, batch_size, epochs, warmup, start, corrections, ahead, growth, method
):
    config = TrainingConfig(
        solver=solver("probe", corrections=corrections, ahead=ahead and corrections > 0),
        epochs=epochs,
        batch_size=batch_size,
        warmup_steps=warmup,
        start=start,
        layers=2,
    )
    sampling = Sampling(forward=50, gradient=0.1, growth=growth, **method)
    with executed(model(), Execution("given", seed=0), backend=TORINO, sampling=sampling) as measured:
        predicted = estimate_cost(measured, config, *sizes)
        with counting() as spent:
            train_and_test(measured, config, sizes)
    assert_same(predicted.total, spent[0])


@pytest.mark.parametrize("shots", [64, None], ids=["shots", "exact values"])
@pytest.mark.parametrize("name", ["broyden", "newton", "anderson"])
def test_a_run_with_an_iterating_solver_costs_no_more_than_predicted(name, shots):
    config = dataclasses.replace(PROBE, solver=solver(name, max_steps=4, tol=1e-3), start="direct")
    with executed(model(), Execution("aer", shots=shots, seed=0)) as measured:
        predicted = estimate_cost(measured, config, TRAIN, VALID, TEST)
        with counting() as spent:
            train_and_test(measured, config)
    assert not predicted.exact
    for field in dataclasses.fields(Cost):
        assert 0 <= getattr(spent[0], field.name) <= getattr(predicted.total, field.name)
    assert spent[0].circuits > 0


def test_what_is_left_of_a_resumed_run_is_predicted(tmp_path):
    config = dataclasses.replace(PROBE, warmup_steps=1)
    sampling, first = Sampling(forward=50, growth=3.0), 3
    execution = Execution("fake:torino", seed=0)

    class StopThere:
        def on_step(self, trainer, result):
            if trainer.state.step == first:
                trainer.stop()

        def on_epoch(self, trainer, record): ...

    with executed(model(), execution, sampling=sampling) as measured:
        parts = (*data(0, TRAIN), *data(1, VALID))
        Trainer(measured, config, *parts, callbacks=[StopThere()], checkpoint=tmp_path / "run.safetensors").run()
        whole = estimate_cost(measured, config, TRAIN, VALID)
        predicted = estimate_cost(measured, config, TRAIN, VALID, first_step=first)
        with counting() as spent:
            Trainer(measured, config, *parts).resume(tmp_path / "run.safetensors").run()
    assert predicted.steps == 1
    assert_same(predicted.total, spent[0])
    assert 0 < predicted.total.shots < whole.total.shots


def test_nothing_is_left_of_a_finished_run_but_its_evaluation():
    with executed(model(), EXECUTIONS["fake"]) as measured:
        done = estimate_cost(measured, PROBE, TRAIN, VALID, TEST, first_step=100)
        assert done.total == done.test == predicted_evaluation(measured, TEST, PROBE.solver)
        assert done.steps == len(done.epochs) == len(done.validations) == 0
        assert "whole run" not in str(done)


@settings(deadline=None, derandomize=True, max_examples=30)
@given(
    samples=st.integers(1, 40),
    batch_size=st.integers(1, 12),
    epochs=st.integers(1, 4),
    warmup=st.integers(0, 20),
    growth=st.sampled_from([1.0, 2.5]),
    first=st.integers(0, 30),
)
def test_steps_that_ask_for_the_same_add_up_as_if_predicted_one_by_one(
    samples, batch_size, epochs, warmup, growth, first
):
    config = TrainingConfig(solver=solver("probe"), epochs=epochs, batch_size=batch_size, warmup_steps=warmup)
    with executed(model(), Execution("aer"), sampling=Sampling(forward=16, growth=growth)) as measured:
        found = estimate_cost(measured, config, samples, first_step=first)
        per_epoch = math.ceil(samples / batch_size)
        total = per_epoch * epochs
        one_by_one = Cost()
        for step in range(first, total):
            position = step % per_epoch
            size = min(batch_size, samples - position * batch_size)
            progress = step / (total - 1) if total > 1 else 0.0
            one_by_one += predicted_step(measured, config, size, direct=step < warmup, progress=progress)
    assert found.total == one_by_one
    assert found.steps == max(0, total - first)


def test_equal_steps_are_predicted_once(monkeypatch):
    calls, plan = [], CircuitRunner.predict
    monkeypatch.setattr(CircuitRunner, "predict", lambda self, requests: calls.append(1) or plan(self, requests))
    with executed(model(), Execution("aer", shots=10)) as measured:
        found = estimate_cost(measured, dataclasses.replace(PROBE, epochs=1000), 100, 10, 10)
    assert found.steps == 34_000
    assert len(calls) <= 12


@pytest.mark.parametrize("used", [None, solver("probe"), solver("picard", max_steps=2, tol=0.0, confidence=1e-9)])
def test_an_evaluation_costs_what_was_predicted_block_by_block(monkeypatch, used):
    monkeypatch.setattr("qiskit_qdeq.inference.BATCH", 4)
    with executed(model(), EXECUTIONS["fake"]) as measured:
        inputs = measured.prepare(data(0, 9)[0])
        predicted = predicted_evaluation(measured, 9, used, layers=2)
        found = predict(measured, measured.initial_parameters(0), inputs, used, layers=2, on_failure="accept")
    if used is None or used.name == "probe":
        assert_same(predicted, found.cost)
    assert found.cost.jobs <= predicted.jobs
    assert found.cost.circuits <= predicted.circuits
    assert found.cost.jobs >= 3


def test_what_the_run_would_refuse_is_refused():
    angles = model_config("default", 2, 2, 2, encoding="angle").build()
    cases = [
        (angles, PROBE, "needs amplitude encoding"),
        (model(), dataclasses.replace(PROBE, solver=solver("scipy:hybr")), "cannot be predicted"),
        (model(), dataclasses.replace(PROBE, regularization=Regularization("state", 0.1)), "not measured"),
    ]
    for made, config, message in cases:
        with executed(made, EXECUTIONS["aer"]) as measured, pytest.raises(InputError, match=message):
            estimate_cost(measured, config, TRAIN)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"train_samples": 0}, "train_samples must be"),
        ({"train_samples": 4, "valid_samples": -1}, "valid_samples must be"),
        ({"train_samples": 4, "test_samples": [3, -1]}, "test_samples must be"),
        ({"train_samples": 4, "first_step": -1}, "first_step must be"),
    ],
)
def test_impossible_numbers_are_refused_by_name(arguments, message):
    with pytest.raises(InputError, match=message):
        estimate_cost(model(), PROBE, **arguments)


def test_an_exact_model_costs_nothing_and_the_table_says_so():
    found = estimate_cost(model(), PROBE, TRAIN, VALID, TEST)
    assert found.total == Cost()
    assert "Nothing is executed" in str(found)


def estimate(seconds=0.0, exact=True, **changes):
    step = Cost(1000, 20_000, 2, 4, seconds)
    return dataclasses.replace(CostEstimate(1, 16, step, step, (step,), (), Cost(), exact), **changes)


def test_the_table_shows_each_kind_of_step_once_and_time_as_a_clock():
    table = str(estimate(3725.2))
    assert [line.split()[0] for line in table.splitlines()] == ["jobs", "each", "each", "whole", "Exactly", "IBM's"]
    assert table.count("1,000") == 3
    assert "1:02:06" in table
    assert f"{3725.2 / OPEN_PLAN_SECONDS:.1f} times as much" in table
    growing = str(estimate(3.0, last_step=Cost(1000, 40_000, 2, 4, 6.0)))
    assert "first step (16 samples)" in growing
    assert "last step (16 samples)" in growing


def test_the_remarks_say_what_kind_of_figure_it_is():
    assert "0.5% of that" in str(estimate(3.0))
    assert "At most this" in str(estimate(3.0, exact=False))
    assert "for 7 solver steps" in str(estimate(3.0, exact=False, solver_steps=7))
    assert "QPU time is known for" in str(estimate())


def test_plain_values_survive_json_and_the_notebook_table_is_html():
    found = estimate(3.0)
    values = json.loads(json.dumps(found.as_dict()))
    assert values["total"] == dataclasses.asdict(found.total)
    assert values["first_step"]["shots"] == 20_000
    page = found._repr_html_()
    assert page.count("<tr>") == 4
    assert "IBM&#x27;s Open Plan" in page
