"""Jobs survive at a service of one page: each promise of `DurableEstimator` on its own, without network or circuits."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest
from service_runs import short_waiting

from qiskit_qdeq.evaluation.protocol import Cost
from qiskit_qdeq.exceptions import BudgetError, ExecutionError, JobTooLongError, ServiceError, StoppedError
from qiskit_qdeq.execution.account import Account, Budget
from qiskit_qdeq.execution.durable import DurableEstimator
from qiskit_qdeq.execution.events import Announcer
from qiskit_qdeq.execution.ibm_client import JobState
from qiskit_qdeq.execution.jobs import JobSpec, check_label
from qiskit_qdeq.execution.journal import Journal
from qiskit_qdeq.execution.patience import Patience

SECONDS = 2.5


class IBMError(Exception):
    """What connections fail with, by its name."""


class JSONDecodeError(ValueError):
    """What an unreadable answer fails with, by its name."""


LOST = IBMError("Failed to run program: Connection aborted")
CLOSED = IBMError(
    '400 Client Error: Bad Request for url: https://x/jobs. {"errors":[{"code":1217,"message":"closed"}]}'
)
GONE = IBMError('404 Client Error: Not Found for url: https://x/jobs/j0. {"errors":[{"code":3250,"message":"gone"}]}')


@dataclass
class Service:
    """Remembers jobs; `trouble` holds what the next calls of an operation raise, or do before they raise."""

    jobs: dict = field(default_factory=dict)
    trouble: dict = field(default_factory=dict)
    ends: dict = field(default_factory=dict)
    results: dict = field(default_factory=dict)
    calls: list = field(default_factory=list)
    cancelled: list = field(default_factory=list)
    charge: float | None = SECONDS
    limit: str = ""
    renewable: bool = True
    renewed: int = 0

    def meets(self, operation):
        self.calls.append(operation)
        waiting = self.trouble.get(operation, [])
        return waiting.pop(0) if waiting else None


class FakeClient:
    """`Client` of a `Service`, one per process."""

    def __init__(self, service):
        self.service = service
        self.lifetime = SimpleNamespace(renewable=service.renewable, advice="", renew=self._renew)
        self.kept = set()

    def _renew(self, reason):
        self.service.renewed += 1

    def _ask(self, operation):
        if (error := self.service.meets(operation)) is not None:
            raise error

    def submit(self, pubs, tags, precision=None):
        error = self.service.meets("submit")
        if error is not None and not getattr(error, "arrives", False):
            raise error
        name = f"j{len(self.service.jobs)}"
        label = pubs[0][0].metadata["qdeq"] if pubs else ""
        self.service.jobs[name] = (tuple(tags), label)
        self.kept.add(name)
        if error is not None:
            raise error
        return name

    def find(self, tag):
        self._ask("find")
        return [name for name, (tags, _) in self.service.jobs.items() if tag in tags]

    def state(self, job):
        self._ask("state")
        self.kept.add(job)
        ends = self.service.ends.get(job) or self.service.ends.get("next", [])
        return ends.pop(0) if ends else JobState("DONE")

    def position(self, job):
        return 3

    def result(self, job):
        self._ask("result")
        self.kept.add(job)
        spoilt = self.service.results.get(job, [])
        return spoilt.pop(0) if spoilt else result_of(self.service.jobs[job][1])

    def forget(self, job):
        self.kept.discard(job)

    def cancel(self, job):
        self.service.cancelled.append(job)

    def charged(self, job):
        self.kept.add(job)
        return self.service.charge

    def refusal(self):
        self._ask("usage")
        return self.service.limit

    def close_left_open(self, mode, kind):
        self.service.calls.append(f"close {mode}")
        return True


def result_of(label, value=0.5):
    metadata = {"circuit_metadata": {"qdeq": label}}
    return [SimpleNamespace(data=SimpleNamespace(evs=np.array([value])), metadata=metadata)]


class Circuit:
    """As much of a circuit as is looked at."""

    def __init__(self, metadata=None):
        self.metadata = metadata

    def copy(self):
        return Circuit(self.metadata)


def spec(content="a", shots=100):
    def check(results):
        if len(results) != 1 or not np.isfinite(results[0].data.evs).all():
            raise ExecutionError("returned what is no result")

    return JobSpec(((Circuit(), "Z", None),), content, Cost(10, shots, 1, 1, 3.0), check)


@pytest.fixture(autouse=True)
def waiting_is_short():
    with short_waiting(0.001):
        yield


@pytest.fixture
def service():
    return Service()


def process(service, path=None, *, budget=None, run=None, listeners=(), **patience):
    """A durable estimator of a process of its own."""
    announce = Announcer()
    announce.listeners.extend(listeners)
    return DurableEstimator(
        SimpleNamespace(options="options"),
        FakeClient(service),
        Journal(path, run=run, backend="device"),
        Account(budget),
        Patience(**{"seconds": 2.0, **patience}),
        announce,
    )


def measured(job):
    return float(job.result()[0].data.evs[0])


def keys(estimator):
    return list(estimator.journal.entries)


def test_keys_depend_on_question_number_position_options_and_device_alone(service, tmp_path):
    def key(content="a", position=0, number=0, options="options", backend="device"):
        estimator = process(Service())
        estimator.wrapped.options = options
        estimator.journal.backend = backend
        estimator.restart(position)
        for _ in range(number):
            estimator.submit_job(spec("before"))
        return estimator.submit_job(spec(content)).key

    variants = [{}, {"content": "b"}, {"position": 1}, {"number": 1}, {"options": "x"}, {"backend": "y"}]
    found = [key(**variant) for variant in variants]
    assert found == [key(**variant) for variant in variants]
    assert len(set(found)) == len(variants)


def test_a_job_carries_the_tags_of_run_and_request_and_is_let_go_when_read(service):
    estimator = process(service)
    job = estimator.submit_job(spec())
    ((tags, label),) = service.jobs.values()
    assert tags == (f"qdeq:{estimator.journal.run}", f"qdeq:{estimator.journal.run}:{job.key}")
    assert label == job.key
    assert measured(job) == 0.5
    assert estimator.client.kept == set()
    assert service.calls == ["usage", "submit", "state", "result"]


def test_a_repeated_process_reads_what_is_finished_and_submits_nothing(service, tmp_path):
    first = process(service, tmp_path / "j")
    wanted = [measured(first.submit_job(spec(content))) for content in "abc"]
    first.journal.close()
    again = process(service, tmp_path / "j", run=first.journal.run)
    assert [measured(again.submit_job(spec(content))) for content in "abc"] == wanted
    assert len(service.jobs) == 3
    assert again.account.spent == first.account.spent == Cost(30, 300, 3, 3, 3 * SECONDS)
    assert again.client.kept == set()


def test_a_job_submitted_but_not_yet_waited_for_is_fetched_by_its_id(service, tmp_path):
    first = process(service, tmp_path / "j")
    first.submit_job(spec())
    first.journal.close()
    again = process(service, tmp_path / "j", run=first.journal.run)
    assert measured(again.submit_job(spec())) == 0.5
    assert service.calls.count("submit") == 1
    assert "find" not in service.calls


def test_a_job_of_which_the_journal_knows_nothing_is_found_by_its_tag(service, tmp_path):
    first = process(service)
    first.submit_job(spec())
    again = process(service, tmp_path / "new", run=first.journal.run)
    assert measured(again.submit_job(spec())) == 0.5
    assert len(service.jobs) == 1
    # the rest of a position is searched for, and the next one until nothing of it was there
    again.submit_job(spec("b"))
    again.restart(1)
    again.submit_job(spec("c"))
    assert service.calls.count("find") == 3
    again.restart(2)
    again.submit_job(spec("d"))
    assert service.calls.count("find") == 3


@pytest.mark.parametrize("arrives", [True, False])
def test_a_submission_without_answer_is_looked_up_before_it_is_repeated(service, arrives):
    error = IBMError("Connection aborted")
    error.arrives = arrives
    service.trouble["submit"] = [error]
    estimator = process(service)
    assert measured(estimator.submit_job(spec())) == 0.5
    assert len(service.jobs) == 1
    assert [call for call in service.calls if call in ("submit", "find")] == [
        "submit",
        "find",
        *["submit"] * (not arrives),
    ]


def test_duplicates_are_cancelled(service):
    for _ in range(2):
        error = JSONDecodeError("no JSON")
        error.arrives = True
        service.trouble.setdefault("submit", []).append(error)
    service.trouble["find"] = [LOST]
    estimator = process(service)
    job = estimator.submit_job(spec())
    service.jobs["late"] = service.jobs["j0"]
    assert job.job_id() == "j0"
    again = process(service, run=estimator.journal.run)
    assert measured(again.submit_job(spec())) == 0.5
    assert service.cancelled == ["late"]


def test_a_closed_session_is_renewed_a_few_times(service):
    service.trouble["submit"] = [CLOSED] * 2
    estimator = process(service, attempts=2)
    assert measured(estimator.submit_job(spec())) == 0.5
    assert service.renewed == 2
    service.trouble["submit"] = [CLOSED] * 10
    with pytest.raises(ServiceError, match="1217"):
        estimator.submit_job(spec("b"))
    assert service.renewed == 4
    assert service.calls.count("submit") == 3 + 3


def test_a_session_that_closed_because_the_account_is_empty_is_not_renewed_again(service):
    service.trouble["submit"] = [CLOSED] * 10
    estimator = process(service)
    estimator._refusal_asked = float("inf")
    service.limit = "the account is empty"
    with pytest.raises(ServiceError, match="the account is empty; the run can be resumed then"):
        estimator.submit_job(spec())
    assert service.calls.count("submit") == 1


def test_a_session_of_somebody_else_is_not_renewed():
    service = Service(renewable=False, trouble={"submit": [CLOSED]})
    with pytest.raises(ServiceError, match="1217"):
        process(service).submit_job(spec())
    assert service.renewed == 0
    estimator = process(service)
    service.ends["next"] = [JobState("ERROR", "Error code 1217; Session has been closed.")]
    with pytest.raises(ServiceError, match="1217"):
        estimator.submit_job(spec()).result()


def test_failing_jobs_are_repeated_a_bounded_number_of_times(service):
    service.ends["next"] = [JobState("ERROR", "Error code 1500; oops"), JobState("CANCELLED")]
    estimator = process(service, attempts=3)
    assert measured(estimator.submit_job(spec())) == 0.5
    assert len(service.jobs) == 3
    service.ends["next"] = [JobState("ERROR", "Error code 1500; oops")] * 9
    with pytest.raises(ServiceError, match=r"^3 jobs for the same request had no usable result; the last one: .*1500"):
        estimator.submit_job(spec("b")).result()
    assert len(service.jobs) == 6
    # the charge of the failed ones counts, their circuits do not
    assert estimator.account.spent == Cost(10, 100, 1, 1, 6 * SECONDS)


@pytest.mark.parametrize("code", [3211, 4317])
def test_hopeless_failures_stop_at_once(service, code):
    service.ends["next"] = [JobState("ERROR", f"Error code {code}; no")]
    with pytest.raises(ServiceError, match=f"job j0: it failed: Error code {code}"):
        process(service).submit_job(spec()).result()
    service.trouble["submit"] = [
        IBMError(f'400 Client Error: Bad Request for url: x. {{"errors":[{{"code":{code}}}]}}')
    ]
    with pytest.raises(ServiceError, match=str(code)) as caught:
        process(service).submit_job(spec())
    assert caught.value.__context__ is None
    assert service.calls.count("submit") == 2


@pytest.mark.parametrize("operation", ["submit", "state", "result", "usage"])
def test_what_stays_away_is_given_up_after_the_patience(service, operation):
    service.trouble[operation] = [LOST] * 100_000
    estimator = process(service, seconds=0.05)
    with pytest.raises(ServiceError, match="Connection aborted") as caught:
        estimator.submit_job(spec()).result()
    assert caught.value.__context__ is None
    assert 2 <= service.calls.count(operation) < 1002
    service.trouble.clear()
    assert measured(estimator.submit_job(spec())) == 0.5


def test_a_damaged_result_is_read_again_and_one_bad_for_good_executed_again(service):
    nan, short = result_of("", np.nan), []
    estimator = process(service)
    first = estimator.submit_job(spec())
    service.results["j0"] = [nan, short]
    assert measured(first) == 0.5
    assert len(service.jobs) == 1
    second = estimator.submit_job(spec("b"))
    service.results["j1"] = [nan, None, nan]
    assert measured(second) == 0.5
    assert len(service.jobs) == 3
    # it was executed and counts
    assert estimator.account.spent == Cost(30, 300, 3, 3, 3 * SECONDS)


def test_the_label_of_another_job_is_refused(service):
    estimator = process(service)
    jobs = [estimator.submit_job(spec(content)) for content in "ab"]
    service.results["j0"] = [result_of(jobs[1].key, 0.9)]
    assert measured(jobs[0]) == 0.5
    with pytest.raises(ExecutionError, match="of another job"):
        check_label(result_of(jobs[1].key), jobs[0].key)


def test_a_job_that_the_service_lost_is_submitted_again(service):
    service.trouble["state"] = [GONE]
    estimator = process(service)
    assert measured(estimator.submit_job(spec())) == 0.5
    assert len(service.jobs) == 2


def test_a_job_too_long_is_split_and_its_size_remembered(service, tmp_path):
    service.ends["j0"] = [JobState("CANCELLED", "Error code 1305; Ran too long")]
    estimator = process(service, tmp_path / "j")
    job = estimator.submit_job(spec(shots=100))
    with pytest.raises(JobTooLongError) as caught:
        job.result()
    assert caught.value.args[1] == job.key
    parts = [estimator.submit_job(spec(f"half {part}", 50), parent=job.key, part=part) for part in (0, 1)]
    assert [measured(part) for part in parts] == [0.5, 0.5]
    assert len({job.key, *(part.key for part in parts)}) == 3
    for shots, submitted in ((100, 0), (99, 1)):
        before = len(service.jobs)
        again = estimator.submit_job(spec(f"large {shots}", shots))
        assert len(service.jobs) - before == submitted
        if not submitted:
            with pytest.raises(JobTooLongError):
                again.result()
    estimator.journal.close()
    resumed = process(service, tmp_path / "j", run=estimator.journal.run)
    before = len(service.jobs)
    with pytest.raises(JobTooLongError):
        resumed.submit_job(spec(shots=100)).result()
    for part in (0, 1):
        assert measured(resumed.submit_job(spec(f"half {part}", 50), parent=job.key, part=part)) == 0.5
    assert len(service.jobs) == before


@pytest.mark.parametrize(
    ("budget", "jobs"),
    [(Budget(circuits=25), 2), (Budget(shots=100), 1), (Budget(qpu_seconds=8.0), 3), (Budget(circuits=0), 0)],
)
def test_a_budget_is_asked_before_every_job(service, tmp_path, budget, jobs):
    estimator = process(service, tmp_path / "j", budget=budget)

    def work(worker):
        worker.restart(0)
        for number in itertools.count():
            worker.submit_job(spec(str(number))).result()

    with pytest.raises(BudgetError, match="is reached"):
        work(estimator)
    assert len(service.jobs) == jobs
    estimator.journal.close()
    with pytest.raises(BudgetError):
        work(process(service, tmp_path / "j", budget=budget, run=estimator.journal.run))
    assert len(service.jobs) == jobs


def test_unsettled_charges_are_those_predicted(service):
    service.charge = None
    estimator = process(service)
    estimator.submit_job(spec()).result()
    assert estimator.account.spent.qpu_seconds == 3.0


def test_what_was_spent_before_the_journal_was_lost_counts_once(service, tmp_path):
    estimator = process(service, tmp_path / "j", run="r")
    estimator.already_spent(Cost(5, 50, 1, 0, 1.0))
    estimator.submit_job(spec()).result()
    estimator.already_spent(Cost(15, 150, 2, 0, 9.0))
    wanted = Cost(15, 150, 2, 1, 1.0 + SECONDS)
    assert estimator.account.spent == wanted
    estimator.journal.close()
    assert process(service, tmp_path / "j", run="r").account.spent == wanted


@pytest.mark.parametrize("moment", ["queued", "retrying", "before"])
def test_interrupting_ends_waiting_and_loses_nothing(service, moment):
    estimator = process(service, seconds=1000.0)
    if moment == "queued":
        service.ends["j0"] = [JobState("QUEUED")] * 1000
    elif moment == "retrying":
        service.trouble["state"] = [LOST] * 1000
    else:
        service.ends["j0"] = [JobState("RUNNING")]
    job = estimator.submit_job(spec())
    if moment == "before":
        estimator.interrupt()
    else:
        estimator.announce.listeners.append(lambda event: estimator.interrupt())
    with pytest.raises(StoppedError, match="fetched when the run is resumed"):
        job.result()
    assert estimator.journal.entries[job.key].state == "submitted"


def test_sessions_that_an_earlier_process_left_open_are_closed(service, tmp_path):
    first = process(service, tmp_path / "j")
    first.journal.opened("session-1", "session")
    first.journal.opened("session-2", "session")
    first.journal.closed("session-1")
    first.journal.close()
    resumed = process(service, tmp_path / "j", run=first.journal.run)
    assert service.calls == ["close session-2"]
    assert not resumed.journal.open_modes


def test_what_happens_is_announced(service):
    seen = []
    service.ends["j0"] = [JobState("QUEUED"), JobState("RUNNING"), JobState("DONE")]
    estimator = process(service, listeners=[seen.append])
    estimator.submit_job(spec()).result()
    words = [str(event).partition(" (")[0] for event in seen]
    assert words == ["submitted j0", "waiting j0 queued", "waiting j0 running", "finished j0"]
    assert "10 circuits, 100 shots" in str(seen[-1])
    assert seen[-1].cost == Cost(10, 100, 1, 1, SECONDS)
