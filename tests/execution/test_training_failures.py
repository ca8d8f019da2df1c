"""Whatever fails at the service while a model is trained there: the run ends with the same result, or says what to do."""

from __future__ import annotations

import logging
import threading

import numpy as np
import pytest
from loopback import API_KEY, LoopbackService
from service_runs import (
    CONFIG,
    JOBS,
    environment,
    execution_of,
    files_of,
    short_waiting,
    texts_of,
    train,
)

import qiskit_qdeq.execution.ibm_client as ibm_client
from qiskit_qdeq.equilibrium.solvers import Newton, solver
from qiskit_qdeq.exceptions import BudgetError, ServiceError
from qiskit_qdeq.execution.description import Execution
from qiskit_qdeq.programs.train import main
from qiskit_qdeq.training.config import TrainingConfig

STARTING = ("token", "search", "catalog", "backends", "configuration", "properties")
RUNNING = ("usage", "open_session", "backend_status", "submit", "job", "results", "metrics", "close_session")
UNCLEAR = ("drop_after", "cut", "torn", "garbage", "duplicate", "stall_after")
#: Kinds of failing requests with their options; each is met at every operation.
REQUESTS = [
    ("drop_before", {}),
    ("drop_after", {}),
    ("status", {"status": 429, "code": 1202}),
    ("status", {"status": 500}),
    ("status", {"status": 503}),
    ("status_after", {"status": 504}),
    ("torn", {}),
    ("garbage", {}),
    ("cut", {}),
    ("stall", {"seconds": 0.05}),
    ("stall_after", {"seconds": 0.05}),
]
ENDINGS = [
    ("job_failed", {"code": 1500}),
    ("job_failed", {"code": None}),
    ("job_failed", {"code": 9999, "message": "something new"}),
    ("job_cancelled", {}),
    ("expire_queued", {}),
    ("expire_session", {}),
]
RESULTS = ["wrong_shape", "wrong_size", "inconsistent", "nan", "other_job"]


def some(values, always):
    """All values, those that are not in `always` as slow ones."""
    parts = [value if isinstance(value, tuple) else (value,) for value in values]
    slow = [() if value in always else (pytest.mark.slow,) for value in values]
    return [pytest.param(*part, marks=marks) for part, marks in zip(parts, slow, strict=True)]


def service(**settings):
    return LoopbackService(engine="random", qubits=(0, 1, 2), **settings)


@pytest.fixture(autouse=True)
def waiting_is_short():
    with short_waiting():
        yield


@pytest.fixture
def loopback():
    with service() as running:
        yield running


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    with service() as running:
        outcome = train(running, tmp_path_factory.mktemp("undisturbed"))
        assert outcome.error is None
        assert (outcome.submitted, outcome.executed, outcome.twice) == (JOBS, JOBS, 0)
        assert not running.open_sessions
    return outcome


@pytest.fixture
def nothing_leaks(loopback, tmp_path, caplog):
    """Neither the key nor the token is in a file, a log record, an exception or one chained to it."""
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, logger="qiskit_qdeq")
    errors = []
    yield errors
    records = caplog.get_records("call")
    assert any(record.name.startswith("qiskit_qdeq") for record in records)
    assert [name for name, content in files_of(tmp_path).items() if loopback.saw_token(content)] == []
    assert not any(loopback.saw_token(text) for error in errors for text in texts_of(error))
    assert [record for record in records if loopback.saw_token(f"{record.getMessage()} {record.args}")] == []


def check_nothing_is_left_open(loopback):
    """What has no id here cannot be closed; it has no jobs, costs nothing, and the service closes it as unused."""
    assert not any(session.jobs for session in loopback.open_sessions)
    loopback.skip(1801)
    assert not loopback.open_sessions


def check_survives(loopback, folder, undisturbed, fault, twice=0, **options):
    outcome = train(loopback, folder, **options)
    assert loopback.fired(fault) >= 1
    assert outcome.error is None
    assert outcome.equals(undisturbed)
    assert outcome.twice == twice
    return outcome


CASES = [(kind, options, operation) for kind, options in REQUESTS for operation in (*STARTING, *RUNNING)]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "options", "operation"), CASES)
def test_a_request_that_fails_changes_nothing(loopback, tmp_path, undisturbed, nothing_leaks, kind, options, operation):
    skip = 1 if operation in ("submit", "job", "results", "metrics", "usage", "backend_status") else 0
    fault = loopback.fail(kind, operation, skip=skip, **options)
    check_survives(loopback, tmp_path, undisturbed, fault)
    if (kind, operation) in [(unclear, "open_session") for unclear in UNCLEAR]:
        check_nothing_is_left_open(loopback)
    assert not loopback.open_sessions


@pytest.mark.parametrize(
    ("kind", "options", "operation"),
    [
        ("drop_before", {}, "search"),
        ("garbage", {}, "configuration"),
        ("torn", {}, "properties"),
        ("garbage", {}, "usage"),
        ("torn", {}, "open_session"),
        ("status", {"status": 429, "code": 1202}, "submit"),
        ("status", {"status": 400, "code": 3458}, "submit"),
        ("drop_after", {}, "submit"),
        ("garbage", {}, "submit"),
        ("torn", {}, "job"),
        ("garbage", {}, "results"),
        ("status", {"status": 401, "code": 1200}, "close_session"),
        ("drop_before", {}, "close_session"),
    ],
)
def test_requests_that_fail_change_nothing(loopback, tmp_path, undisturbed, nothing_leaks, kind, options, operation):
    fault = loopback.fail(kind, operation, skip=int(operation in ("submit", "job", "results")), **options)
    check_survives(loopback, tmp_path, undisturbed, fault)
    check_nothing_is_left_open(loopback)


@pytest.mark.parametrize(("kind", "options"), some(ENDINGS, [ENDINGS[0], ENDINGS[4], ENDINGS[5]]))
def test_a_job_that_fails_is_submitted_again(loopback, tmp_path, undisturbed, nothing_leaks, kind, options):
    fault = loopback.fail(kind, skip=2, **options)
    check_survives(loopback, tmp_path, undisturbed, fault)
    assert not loopback.open_sessions


@pytest.mark.parametrize("kind", some(RESULTS, ["wrong_shape", "inconsistent"]))
def test_a_damaged_result_is_read_again(loopback, tmp_path, undisturbed, kind):
    fault = loopback.fail(kind, skip=1)
    outcome = check_survives(loopback, tmp_path, undisturbed, fault)
    assert outcome.submitted == JOBS


@pytest.mark.parametrize("kind", some(RESULTS, ["other_job"]))
def test_only_a_result_that_is_bad_for_good_is_executed_again(loopback, tmp_path, undisturbed, kind):
    fault = loopback.fail(kind, skip=1, sticky=True)
    outcome = check_survives(loopback, tmp_path, undisturbed, fault, twice=1)
    assert outcome.submitted == JOBS + 1


@pytest.mark.parametrize("operation", ["job", "results", "metrics"])
def test_a_job_that_the_service_lost_is_executed_again(loopback, tmp_path, undisturbed, operation):
    # one lost after its result was read is not needed any more
    fault = loopback.fail("delete_job", operation, skip=1)
    outcome = check_survives(loopback, tmp_path, undisturbed, fault)
    assert outcome.requests["submit"] == JOBS + (operation != "metrics")


def test_a_duplicate_that_the_service_makes_is_used_once(loopback, tmp_path, undisturbed):
    # nobody but the service knows of the second one: it answered once
    fault = loopback.fail("duplicate", "submit", skip=1)
    check_survives(loopback, tmp_path, undisturbed, fault, twice=1)


def test_a_duplicate_that_is_still_queued_is_cancelled(tmp_path, undisturbed):
    with service(queue_seconds=0.2) as loopback:
        fault = loopback.fail("duplicate", "submit", skip=1)
        loopback.fail("drop_after", "submit", skip=1)
        check_survives(loopback, tmp_path, undisturbed, fault)
        assert sorted(job.status for job in loopback.jobs) == ["Cancelled", *["Completed"] * JOBS]


@pytest.mark.parametrize(
    "operation",
    some(["job", "results", "usage", "open_session", "close_session"], ["job"]),
)
def test_a_service_that_never_answers_is_asked_again(loopback, tmp_path, undisturbed, monkeypatch, operation):
    # for submissions the client has a limit of its own, 15 minutes
    monkeypatch.setattr(ibm_client, "_READ_TIMEOUT", 0.5)
    fault = loopback.fail("stall_after", operation, seconds=3600)
    check_survives(loopback, tmp_path, undisturbed, fault)
    check_nothing_is_left_open(loopback)


def test_what_the_client_warns_of_is_logged_and_stops_nothing(loopback, tmp_path, undisturbed, caplog):
    loopback.configure(status_message="internal")
    threading.Timer(0.5, lambda: loopback.configure(status_message="active")).start()
    outcome = train(loopback, tmp_path)
    assert outcome.error is None
    assert outcome.equals(undisturbed)
    assert "currently has a status of internal" in caplog.text


HOPELESS = {
    "token": ("status", "submit", {"status": 401, "code": 1200, "skip": 2, "times": None}, "check the account's token"),
    "token-waiting": ("status", "job", {"status": 401, "code": 1200, "skip": 2, "times": None}, "account's token"),
    "token-usage": ("status", "usage", {"status": 401, "code": 1200, "times": None}, "check the account's token"),
    "echo": ("status", "submit", {"status": 403, "code": 1200, "message": API_KEY, "skip": 1}, r"\*\*\*; check the"),
    "not-isa": ("status", "submit", {"status": 400, "code": 3211, "skip": 3}, "transpile it for the device"),
    "job-not-isa": ("job_failed", "", {"code": 3211, "skip": 3}, "transpile it for the device"),
    "quota": ("status", "submit", {"status": 400, "code": 4317, "skip": 3}, "go on when there is time again"),
    "job-quota": ("job_failed", "", {"code": 4317, "skip": 3}, "go on when there is time again"),
}


@pytest.mark.parametrize("name", some(HOPELESS, ["token", "echo", "job-not-isa", "quota"]))
def test_what_cannot_succeed_stops_at_once_and_can_be_resumed(loopback, tmp_path, undisturbed, nothing_leaks, name):
    kind, operation, options, match = HOPELESS[name]
    fault = loopback.fail(kind, operation, **options)
    outcome = train(loopback, tmp_path)
    nothing_leaks.append(outcome.error)
    assert isinstance(outcome.error, ServiceError)
    with pytest.raises(ServiceError, match=match):
        raise outcome.error
    assert loopback.fired(fault) == 1
    assert not loopback.open_sessions
    assert outcome.checkpoint is not None
    loopback.clear_faults()
    resumed = train(loopback, tmp_path, resume=True)
    assert resumed.error is None
    assert resumed.equals(undisturbed)
    assert resumed.twice == 0


@pytest.mark.parametrize(
    ("settings", "cure", "mode", "match"),
    [
        ({"open_plan": True}, {}, "batch", "mode='batch' or 'job'"),
        (
            {"usage_limit_seconds": 7},
            {"usage_limit_seconds": None},
            "session",
            r"usage limit \(8\.\d+ of 7 s are used\)",
        ),
        ({"usage_limit_seconds": 7}, {"usage_limit_seconds": None}, "job", r"usage limit \(8\.\d+ of 7 s are used\)"),
    ],
)
def test_an_account_that_may_not_stops_at_once(tmp_path, undisturbed, settings, cure, mode, match, monkeypatch):
    # in job mode nobody closes anything: what tells of the limit is the question before each job
    monkeypatch.setattr("qiskit_qdeq.execution.durable._REFUSAL_AGE", 0.0)
    with service(**settings) as loopback:
        outcome = train(loopback, tmp_path, execution=execution_of("session" if mode == "batch" else mode))
        with pytest.raises(ServiceError, match=match):
            raise outcome.error
        assert outcome.requests["submit"] <= 4
        assert outcome.requests["open_session"] <= 1
        loopback.configure(**cure)
        resumed = train(loopback, tmp_path, resume=True, execution=execution_of(mode))
        assert resumed.equals(undisturbed)
        assert resumed.twice == 0
        assert not loopback.open_sessions


def test_a_service_that_stays_away_is_given_up_in_time_and_the_run_resumes(loopback, tmp_path, undisturbed):
    loopback.fail("drop_before", "submit", skip=2, times=None)
    outcome = train(loopback, tmp_path, execution=execution_of(patience=0.5))
    with pytest.raises(ServiceError, match=r"the service did not take a job: .*Connection aborted"):
        raise outcome.error
    assert outcome.seconds < 20
    loopback.clear_faults()
    resumed = train(loopback, tmp_path, resume=True)
    assert resumed.equals(undisturbed)
    assert resumed.twice == 0


def test_jobs_that_always_fail_are_given_up_after_a_few(loopback, tmp_path, undisturbed):
    loopback.fail("job_failed", skip=2, times=None)
    outcome = train(loopback, tmp_path)
    with pytest.raises(ServiceError, match=r"5 jobs for the same request had no usable result; .*Error code 1500"):
        raise outcome.error
    assert outcome.submitted == 2 + 5
    loopback.clear_faults()
    assert train(loopback, tmp_path, resume=True).equals(undisturbed)


def fail_at_random(loopback, seed, share):
    kinds = [
        *REQUESTS,
        *((kind, {}) for kind in RESULTS),
        ("job_failed", {}),
        ("job_cancelled", {}),
        ("expire_queued", {}),
    ]
    requests = len(REQUESTS)
    for number, (kind, options) in enumerate(kinds):
        where = "any" if number < requests else ""
        chance = share / requests if number < requests else share
        loopback.fail(kind, where, probability=chance, times=None, seed=100 * seed + number, **options)


def check_random(folder, seed, share, config, samples):
    with service() as loopback:
        plain = train(loopback, folder / "plain", config=config, samples=samples)
    with service() as loopback:
        fail_at_random(loopback, seed, share)
        outcome = train(loopback, folder / "failing", config=config, samples=samples)
        fired = sum(loopback.fired(fault) for fault in range(len(REQUESTS) + len(RESULTS) + 3))
        assert outcome.error is None
        assert outcome.equals(plain)
        assert outcome.twice == 0
        check_nothing_is_left_open(loopback)
    return fired


def test_many_failures_at_random_change_nothing(tmp_path):
    assert check_random(tmp_path, 0, 0.08, CONFIG, 16) > 3


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_one_call_in_a_hundred_fails_in_200_steps(tmp_path, seed):
    config = TrainingConfig(epochs=100, batch_size=2, mode="direct", schedule="constant")
    assert check_random(tmp_path, seed, 0.01, config, 4) > 10


def exact_bits(circuit, values, shots, rng, noise=None):
    """Shots that depend on nothing but a row's own angles."""
    chances = 0.5 + 0.5 * np.cos(
        values @ np.arange(1, values.shape[1] * circuit.num_clbits + 1).reshape(values.shape[1], -1)
    )
    return (np.arange(shots)[:, None] + 0.5) / shots < chances[:, None, :]


def test_split_jobs_give_the_same_as_whole_ones(tmp_path, monkeypatch):
    monkeypatch.setattr("loopback.execution.sample_bits", exact_bits)
    outcomes = []
    for name, limit in (("whole", None), ("split", 1500)):
        with LoopbackService(engine="ideal", qubits=(0, 1, 2)) as loopback:
            if limit:
                loopback.fail("ran_too_long", executions=limit, times=None)
            outcomes.append(train(loopback, tmp_path / name))
            assert outcomes[-1].error is None
            assert all(job.executions <= (limit or 10**9) for job in loopback.jobs if job.executed)
    whole, split = outcomes
    assert split.executed > whole.executed
    assert np.ptp(whole.checkpoint.arrays["history/loss"]) > 0
    for name in ("parameters", "history/loss", "history/valid_loss", "history/circuits", "history/shots"):
        np.testing.assert_array_equal(split.checkpoint.arrays[name], whole.checkpoint.arrays[name])


class Killed(BaseException):
    pass


def test_a_process_that_dies_in_the_middle_of_a_split_executes_nothing_twice(tmp_path):
    with service() as loopback:
        loopback.fail("ran_too_long", executions=1500, times=None)
        plain = train(loopback, tmp_path / "plain")
        history = plain.checkpoint.arrays
        assert sum(job.circuits for job in loopback.jobs) == history["history/circuits"].sum()
        assert sum(job.executions for job in loopback.jobs) == history["history/shots"].sum()
        events = len(loopback.jobs) - 3
    for moment in (events // 2,):
        seen = []

        def die(event, seen=seen, moment=moment):
            seen.extend([event.kind] * (event.kind in ("submitted", "finished", "split")))
            if "split" in seen and len(seen) - seen.index("split") == moment:
                raise Killed

        with service() as loopback:
            loopback.fail("ran_too_long", executions=1500, times=None)
            folder = tmp_path / str(moment)
            assert isinstance(train(loopback, folder, listeners=[die]).error, Killed)
            resumed = train(loopback, folder, resume=True)
            assert resumed.error is None
            assert resumed.equals(plain)
            assert resumed.twice == 0
            assert sum(job.circuits for job in loopback.jobs) == history["history/circuits"].sum()


def spent(loopback):
    return {
        "circuits": sum(job.circuits for job in loopback.jobs),
        "shots": sum(job.executions for job in loopback.jobs),
        "s": loopback.consumed_seconds,
    }


BUDGETS = ["0 circuits", "240 circuits", "465 circuits", "466 circuits", "9 s", "9000 shots", "935 circuits"]


@pytest.mark.parametrize("budget", some(BUDGETS, ["466 circuits", "9 s", "9000 shots"]))
def test_a_budget_is_never_exceeded_and_more_of_it_goes_on(loopback, tmp_path, undisturbed, budget):
    outcome = train(loopback, tmp_path, budget=budget)
    amount, unit = budget.split()
    assert isinstance(outcome.error, BudgetError)
    assert f"the budget of {float(amount):,.0f}" in str(outcome.error)
    assert spent(loopback)[unit] <= float(amount)
    assert not loopback.open_sessions
    before = len(loopback.jobs)
    again = train(loopback, tmp_path, resume=True, budget=budget)
    assert isinstance(again.error, BudgetError)
    assert len(loopback.jobs) == before
    resumed = train(loopback, tmp_path, resume=True, budget="936 circuits")
    assert resumed.error is None
    assert resumed.equals(undisturbed)
    assert resumed.twice == 0


@pytest.mark.filterwarnings("ignore::qiskit_qdeq.exceptions.ConvergenceWarning")  # coin flips
def test_a_resumed_run_begins_no_step_that_the_budget_cannot_end(loopback, tmp_path):
    config = TrainingConfig(solver=solver("probe"), epochs=1, batch_size=8)
    with service() as other:
        whole = train(other, tmp_path / "whole", config=config)
        jobs = [job.circuits for job in other.jobs]
    # enough for the first step of two jobs and for the first job of the second
    for attempt, budget in enumerate([sum(jobs[:3]), sum(jobs[:3]), sum(jobs[:3]) + 1, sum(jobs[:3])]):
        outcome = train(loopback, tmp_path / "part", config=config, resume=attempt > 0, budget=f"{budget} circuits")
        assert isinstance(outcome.error, BudgetError)
        assert "the next step" in str(outcome.error)
        assert len(loopback.jobs) == 2
    resumed = train(loopback, tmp_path / "part", config=config, resume=True, budget="100000 circuits")
    assert resumed.error is None
    assert resumed.equals(whole)
    assert resumed.twice == 0


def test_failures_count_in_the_budget(loopback, tmp_path):
    # a result that is bad for good was executed, a failed job was not
    loopback.fail("nan", sticky=True)
    loopback.fail("job_failed", skip=2)
    outcome = train(loopback, tmp_path, budget="936 circuits")
    assert isinstance(outcome.error, BudgetError)
    assert 700 < spent(loopback)["circuits"] <= 936


@pytest.mark.filterwarnings("ignore::qiskit_qdeq.exceptions.ConvergenceWarning")
def test_a_budget_that_ends_in_the_middle_of_a_step(tmp_path):
    config = TrainingConfig(epochs=1, batch_size=8, solver=Newton(max_steps=3))
    with service() as loopback:
        plain = train(loopback, tmp_path / "plain", config=config)
        jobs = [job.circuits for job in loopback.jobs]
    with service() as loopback:
        assert len(jobs) > 4
        limit = jobs[0] + 1
        outcome = train(loopback, tmp_path / "short", config=config, budget=f"{limit} circuits")
        assert isinstance(outcome.error, BudgetError)
        assert [job.circuits for job in loopback.jobs] == jobs[:1]
        assert outcome.checkpoint.document["progress"]["step"] == 0
        resumed = train(loopback, tmp_path / "short", config=config, resume=True, budget=f"{sum(jobs)} circuits")
        assert resumed.error is None
        assert resumed.equals(plain)
        assert [job.circuits for job in loopback.jobs] == jobs


def test_a_run_whose_journal_is_gone_begins_its_budget_from_the_checkpoint(loopback, tmp_path, undisturbed):
    assert isinstance(train(loopback, tmp_path, budget="500 circuits").error, BudgetError)
    (tmp_path / "jobs.jsonl").unlink()
    again = train(loopback, tmp_path, resume=True, budget="500 circuits")
    assert isinstance(again.error, BudgetError)
    assert "468 are spent" in str(again.error)
    resumed = train(loopback, tmp_path, resume=True, budget="936 circuits")
    assert resumed.equals(undisturbed)
    assert resumed.twice == 0


@pytest.mark.parametrize("backend", some(["aer", "fake:manila"], ["aer"]))
def test_a_budget_on_a_simulator_counts_all_processes_of_a_run(tmp_path, backend):
    def run(folder, **options):
        return main(
            None,
            {
                "backend": backend,
                "shots": 20,
                "limit": 8,
                "batch_size": 4,
                "classes": (0, 1),
                "epochs": 2,
                "mode": "direct",
                "gradient_method": "spsa",
                "gradient_circuits": 2,
                "checkpoint_every": 1,
                "no_plots": True,
                "quiet": True,
                "output": str(tmp_path / folder),
                **options,
            },
        )

    plain = run("plain")
    total = plain["circuits"]
    for name, limit in (("early", total // 2), ("test", total - 1)):
        for resume in (False, True):
            with pytest.raises(BudgetError, match=r"are spent and .*--resume --output .* --budget MORE"):
                run(name, resume=resume, budget=f"{limit} circuits")
        with pytest.raises(BudgetError, match=f"{limit + 0:,} circuits"):
            run(name, resume=True)
        done = run(name, resume=True, budget=f"{total} circuits")
        for figure in ("test_accuracy", "test_loss", "valid_loss", "train_accuracy", "circuits", "shots"):
            assert done[figure] == plain[figure]


def test_the_users_own_estimator_is_durable_and_its_session_stays_the_users(loopback, tmp_path):
    from qiskit_ibm_runtime import Session
    from qiskit_ibm_runtime.executor_estimator import Estimator

    def run(name):
        with environment(loopback):
            backend = loopback.backend()
        with Session(backend=backend) as session:
            estimator = Estimator(mode=session, options={"default_shots": 20, "resilience_level": 0})
            outcome = train(loopback, tmp_path / name, execution=Execution("given"), estimator=estimator)
            assert session.status() != "Closed"
            assert not estimator.options.environment.job_tags
        assert not loopback.open_sessions
        return outcome

    plain = run("plain")
    assert plain.error is None
    loopback.configure(queue_seconds=0.0)
    for job in loopback.jobs:
        loopback.delete_job(job.id)
    loopback.fail("drop_after", "submit", skip=1)
    loopback.fail("job_failed", skip=3)
    loopback.fail("nan", skip=2)
    outcome = run("failing")
    assert outcome.error is None
    assert outcome.equals(plain)
    assert outcome.twice == 0
    loopback.fail("expire_session", skip=2)
    for job in loopback.jobs:
        loopback.delete_job(job.id)
    with environment(loopback):
        backend = loopback.backend()
    session = Session(backend=backend)
    estimator = Estimator(mode=session, options={"default_shots": 20, "resilience_level": 0})
    stopped = train(loopback, tmp_path / "closed", execution=Execution("given"), estimator=estimator)
    with pytest.raises(ServiceError, match="error 1217"):
        raise stopped.error


def test_a_run_of_the_program_says_how_to_go_on(tmp_path, monkeypatch):
    with LoopbackService(engine="random") as loopback:
        check_program(loopback, tmp_path, monkeypatch)


def check_program(loopback, tmp_path, monkeypatch):
    arguments = {
        "backend": "ibm:ibm_loopback",
        "shots": 10,
        "resilience_level": 0,
        "optimization_level": 1,
        "limit": 4,
        "batch_size": 4,
        "classes": (0, 1),
        "epochs": 1,
        "mode": "direct",
        "gradient_method": "spsa",
        "gradient_circuits": 2,
        "no_plots": True,
        "quiet": True,
        "output": str(tmp_path / "run"),
    }
    for name, value in loopback.environment.items():
        monkeypatch.setenv(name, value)
    fault = loopback.fail("status", "submit", status=400, code=4317, skip=1)
    with pytest.raises(
        ServiceError, match=r"error 4317 .*to go on: python -m qiskit_qdeq train --resume --output "
    ) as one:
        main(None, arguments)
    assert loopback.fired(fault) == 1
    assert not any(loopback.saw_token(text) for text in texts_of(one.value))
    metrics = main(None, {"resume": True, "output": arguments["output"], "quiet": True, "no_plots": True})
    assert metrics["circuits"] == sum(job.circuits for job in loopback.jobs)
    assert metrics["shots"] == sum(job.executions for job in loopback.jobs)
    assert metrics["charged_qpu_seconds"] == pytest.approx(loopback.consumed_seconds)
    assert [name for name, content in files_of(tmp_path).items() if loopback.saw_token(content)] == []
