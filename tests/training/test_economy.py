"""Plans for a budget of QPU seconds: within it, close to it, and what they are carried out with."""

from __future__ import annotations

import json

import pytest
from oracles import build_model

from qiskit_qdeq import Execution, TrainingConfig, executed, model_config, solver
from qiskit_qdeq.exceptions import BudgetError, InputError
from qiskit_qdeq.programs import train
from qiskit_qdeq.training.economy import plan_economy

CONFIG = TrainingConfig(solver=solver("probe", ahead=True), batch_size=16)


@pytest.fixture(scope="module")
def torino():
    model = model_config("default", 16, 4, 4).build()
    with executed(model, Execution("fake:torino", shots=100, copies="auto", seed=0)) as measured:
        yield measured


@pytest.mark.parametrize("seconds", [40, 200, 600, 5000])
def test_a_plan_spends_its_budget_and_no_more(torino, seconds):
    plan = plan_economy(torino, CONFIG, seconds, 434, 180)
    assert 0.85 * seconds < plan.estimate.total.qpu_seconds <= seconds
    assert plan.estimate.exact
    assert plan.copies >= 15
    assert plan.estimate.total.jobs == plan.steps + 3
    assert plan.samples == min(434, plan.steps * 16)
    assert f"{plan.steps:,} steps" in str(plan)
    json.dumps(plan.as_dict())


def test_a_step_of_the_plan_takes_about_twice_its_overhead(torino):
    plan = plan_economy(torino, CONFIG, 600, 434, 180)
    assert 3 < (plan.estimate.total.qpu_seconds - plan.estimate.test.qpu_seconds) / plan.steps < 5


def test_what_cannot_be_planned_is_refused(torino):
    with pytest.raises(InputError, match="not enough"):
        plan_economy(torino, CONFIG, 6, 434, 180)
    with pytest.raises(InputError, match="ahead=True"):
        plan_economy(torino, TrainingConfig(solver=solver("probe")), 600, 434)
    with pytest.raises(InputError, match="positive"):
        plan_economy(torino, CONFIG, float("nan"), 434)
    with (
        executed(build_model("amplitude"), Execution("aer", shots=10)) as simulated,
        pytest.raises(InputError, match="durations"),
    ):
        plan_economy(simulated, CONFIG, 600, 434)


ECONOMY = {"backend": "fake:manila", "economy": True, "quiet": True, "no_plots": True, "limit": 10, "batch_size": 5}


def test_the_program_carries_out_its_plan(tmp_path):
    lines = []
    arguments = {**ECONOMY, "budget": "60s", "output": tmp_path / "run", "quiet": False}
    metrics = train.main(None, arguments, publish=lines.append)
    assert lines[0].startswith("plan for 60 s of QPU time")
    assert metrics["charged_qpu_seconds"] == pytest.approx(metrics["qpu_seconds"])
    assert metrics["qpu_seconds"] <= 60
    parts = metrics["spent"]
    assert parts["training"]["qpu_seconds"] + parts["evaluation"]["qpu_seconds"] == pytest.approx(
        metrics["qpu_seconds"]
    )
    assert metrics["steps"] == parts["training"]["jobs"] - 1
    assert "valid_accuracy" not in metrics
    assert any("for the evaluation" in line for line in lines)
    again = train.main(None, {"output": tmp_path / "run", "resume": True, "quiet": True, "no_plots": True})
    assert again["test_accuracy"] == metrics["test_accuracy"]


def test_a_budget_cut_after_planning_stops_the_run_and_a_larger_one_goes_on(tmp_path):
    folder = tmp_path / "run"
    whole = train.main(None, {**ECONOMY, "budget": "60s", "output": tmp_path / "whole"})
    planned = {
        name: whole["arguments"][name] for name in ("shots", "gradient_shots", "shots_growth", "epochs", "copies")
    }
    arguments = {**ECONOMY, **planned, "economy": False, "probe_ahead": True, "output": folder}
    with pytest.raises(BudgetError, match="budget of 20 QPU seconds"):
        train.main(None, {**arguments, "budget": "20s"})
    ended = train.main(None, {"output": folder, "resume": True, "budget": "1h", "quiet": True, "no_plots": True})
    assert ended["steps"] == whole["steps"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"budget": None}, "--budget 600s"),
        ({"budget": "100 shots"}, "--budget 600s"),
        ({"budget": "60s", "shots": 10}, "--shots cannot be given"),
        ({"budget": "60s", "epochs": 2}, "--epochs cannot be given"),
        ({"budget": "60s", "backend": "aer"}, "fake:NAME or ibm:NAME"),
        ({"budget": "60s", "backend": "exact"}, "--backend"),
        ({"budget": "60s", "solver": "broyden"}, "--economy .* got --solver broyden"),
    ],
)
def test_options_that_a_plan_decides_or_cannot_use_are_refused(tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        train.main(None, {**ECONOMY, "output": tmp_path / "run", **change})


@pytest.mark.filterwarnings("ignore::qiskit_qdeq.exceptions.ConvergenceWarning")
def test_a_budget_of_less_than_an_epoch_leaves_the_test_samples_alone(tmp_path):
    lines = []
    arguments = {**ECONOMY, "limit": 20, "budget": "20s", "output": tmp_path / "run", "quiet": False}
    metrics = train.main(None, arguments, publish=lines.append)
    assert metrics["arguments"]["limit_train"] == 5 * metrics["steps"] < 20
    assert metrics["test_samples"] == 20
    planned = next(line for line in lines[0].splitlines() if line.startswith("whole run"))
    assert f"{metrics['circuits']:,}" in planned
    assert f"{metrics['shots']:,}" in planned


def test_seconds_of_an_ideal_simulator_are_no_budget(tmp_path):
    with pytest.raises(InputError, match="durations are unknown"):
        train.main(None, {"backend": "aer", "shots": 10, "budget": "60s", "output": tmp_path / "run", "quiet": True})
