"""Each fault of the loopback service reaches the real client as the exception that IBM's service would cause."""

from __future__ import annotations

import logging
import time

import numpy as np
import pytest
from loopback import API_KEY, INSTANCE, JOB_KINDS, REQUEST_KINDS, RESULT_KINDS, LoopbackService
from loopback_jobs import ROWS, client_side, legacy, pub_for
from qiskit_ibm_runtime import Batch, QiskitRuntimeService, Session
from qiskit_ibm_runtime.accounts.exceptions import InvalidAccountError
from qiskit_ibm_runtime.api.exceptions import RequestsApiError
from qiskit_ibm_runtime.api.session import PostForcelistRetry
from qiskit_ibm_runtime.exceptions import (
    IBMNotAuthorizedError,
    IBMRuntimeError,
    RuntimeInvalidStateError,
    RuntimeJobFailureError,
    RuntimeJobMaxTimeoutError,
)
from requests.exceptions import JSONDecodeError


@pytest.fixture
def loopback(monkeypatch):
    monkeypatch.setenv("USAGE_DATA_OPT_OUT", "True")
    # the client's retries, without the 15 seconds between them
    monkeypatch.setattr(PostForcelistRetry, "sleep", lambda self, response=None: None)
    with LoopbackService() as service:
        yield service


@pytest.fixture
def backend(loopback):
    return loopback.backend()


def run(backend, *tags, estimator=client_side, **options):
    return estimator(backend, *tags, **options).run([pub_for(backend.target)]).result()


def check_fails(expected, match, backend, **options):
    with pytest.raises(expected, match=match) as caught:
        run(backend, "t", **options)
    assert type(caught.value) is expected


@pytest.mark.parametrize("estimator", [client_side, legacy])
@pytest.mark.parametrize(
    ("kind", "options", "expected", "match"),
    [
        ("job_failed", {"code": 1500}, RuntimeJobFailureError, "Error code 1500; An internal error"),
        ("job_failed", {"code": 3211, "message": "not ISA"}, RuntimeJobFailureError, "Error code 3211; not ISA"),
        ("job_cancelled", {}, RuntimeInvalidStateError, "Job was cancelled"),
        ("ran_too_long", {"executions": 1000}, RuntimeJobMaxTimeoutError, "Error code 1305; Ran too long"),
        ("expire_queued", {}, RuntimeJobFailureError, "Error code 1217; Session has been closed"),
    ],
)
def test_jobs_end_badly(loopback, backend, estimator, kind, options, expected, match):
    fault = loopback.fail(kind, **options)
    check_fails(expected, match, backend, estimator=estimator)
    run(backend, "t", estimator=estimator)
    assert loopback.fired(fault) == 1
    assert [(job.executed, job.quantum_seconds > 0) for job in loopback.jobs] == [(0, False), (1, True)]


def test_a_job_that_ran_too_long_passes_once_it_is_split(loopback, backend):
    loopback.fail("ran_too_long", executions=3 * 256, times=None)
    check_fails(RuntimeJobMaxTimeoutError, "1305", backend)
    for part in (ROWS[:3], ROWS[3:]):
        client_side(backend).run([pub_for(backend.target, part)]).result()
    assert [job.executed for job in loopback.jobs] == [0, 1, 1]


def test_a_lost_connection_at_submission_tells_nothing_about_the_job(loopback, backend):
    for kind, jobs in (("drop_before", 0), ("drop_after", 1)):
        loopback.fail(kind, "submit")
        check_fails(IBMRuntimeError, "Failed to run program: .*Connection aborted", backend)
        assert len(loopback.jobs_tagged("t")) == jobs
    (found,) = backend.service.jobs(job_tags=["t"])
    assert np.isfinite(found.result()[0].data.evs).all()
    assert loopback.counts["submit"] == 2


@pytest.mark.parametrize("operation", ["job", "results", "backend_status", "usage"])
@pytest.mark.parametrize("kind", ["drop_before", "drop_after"])
def test_a_lost_connection_elsewhere_is_made_good_by_the_client(loopback, backend, operation, kind):
    fault = loopback.fail(kind, operation)
    run(backend, "t")
    assert loopback.fired(fault) == 1
    assert [job.executed for job in loopback.jobs] == [1]


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (401, 1200, IBMNotAuthorizedError),
        (403, 1200, IBMRuntimeError),
        (429, 1202, IBMRuntimeError),
        (400, 3458, IBMRuntimeError),
        (400, 4317, IBMRuntimeError),
    ],
)
def test_refused_submissions_fail_at_once(loopback, backend, status, code, expected):
    loopback.fail("status", status=status, code=code)
    check_fails(expected, f'{status} Client Error.*"code":{code}', backend)
    assert loopback.counts["submit"] == 1
    assert not loopback.jobs


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_server_errors_are_tried_six_times(loopback, backend, status):
    fault = loopback.fail("status", status=status, times=2)
    run(backend, "t")
    assert loopback.fired(fault) == 2
    loopback.fail("status", status=status, times=None)
    check_fails(IBMRuntimeError, f"Max retries exceeded .*too many {status} error responses", backend)
    assert loopback.counts["submit"] == 3 + 6
    assert len(loopback.jobs) == 1


@pytest.mark.parametrize(("safe", "jobs"), [(True, 1), (False, 2)])
def test_the_client_repeats_a_submission_that_went_through_before_a_server_error(loopback, backend, safe, jobs):
    loopback.configure(repeats_are_safe=safe)
    loopback.fail("status_after", status=504)
    run(backend, "t")
    assert [job.executed for job in loopback.jobs_tagged("t")] == [1] * jobs


def test_errors_while_waiting_are_not_wrapped_by_the_client(loopback, backend):
    for kind, options, expected, match in (
        ("status", {"operation": "job", "status": 429}, RequestsApiError, "429"),
        ("delete_job", {}, RequestsApiError, "404"),
        ("garbage", {"operation": "job"}, JSONDecodeError, "Expecting value"),
        ("cut", {"operation": "results"}, RequestsApiError, "IncompleteRead"),
        ("garbage", {"operation": "submit"}, JSONDecodeError, "Expecting value"),
    ):
        loopback.fail(kind, **options)
        check_fails(expected, match, backend)


def test_duplicates_are_two_jobs_of_one_tag_and_a_list_may_name_a_job_twice(loopback, backend):
    loopback.fail("duplicate")
    run(backend, "t")
    assert [job.executed for job in loopback.jobs_tagged("t")] == [1, 1]
    loopback.fail("listed_twice")
    assert len(backend.service.jobs(job_tags=["t"])) == 4
    assert len(backend.service.jobs(job_tags=["t"])) == 2


@pytest.mark.parametrize("estimator", [client_side, legacy])
def test_spoilt_results_decode_to_what_a_caller_must_refuse(loopback, backend, estimator):
    good = run(backend, "t", estimator=estimator)
    loopback.fail("wrong_shape")
    assert run(backend, "t", estimator=estimator)[0].data.evs.shape == (3, 5)
    loopback.fail("nan")
    assert np.isnan(run(backend, "t", estimator=estimator)[0].data.evs).all()
    loopback.fail("wrong_size")
    job = estimator(backend, "t").run([pub_for(backend.target)] * 2)
    assert len(job.result()) == 1
    assert len(job.result()) == 2  # the fault struck the delivery
    run(backend, "other", estimator=estimator)
    loopback.fail("other_job")
    assert not np.array_equal(run(backend, "t", estimator=estimator)[0].data.evs, good[0].data.evs)
    loopback.fail("inconsistent", sticky=True)
    job = estimator(backend, "t").run([pub_for(backend.target)])
    for _ in range(2):  # sticky: the result itself is bad
        with pytest.raises((IndexError, AttributeError)):
            job.result()[0].data.evs  # noqa: B018
    np.testing.assert_array_equal(run(backend, "t", estimator=estimator)[0].data.evs, good[0].data.evs)


@pytest.mark.parametrize("kind", ["torn", "garbage"])
def test_results_that_are_no_json_fail_in_the_client(loopback, backend, kind):
    loopback.fail(kind, "results")
    job = client_side(backend).run([pub_for(backend.target)])
    with pytest.raises(TypeError, match="string indices"):
        job.result()
    assert np.isfinite(job.result()[0].data.evs).all()


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning", "ignore:Mean of empty slice:RuntimeWarning")
def test_not_a_number_reaches_mitigated_values_too(loopback, backend):
    loopback.fail("nan")
    assert np.isnan(run(backend, "t", level=1)[0].data.evs).all()


@pytest.mark.parametrize("mode", [Session, Batch])
def test_a_session_closed_by_the_service_refuses_jobs_and_a_new_one_takes_them(loopback, backend, mode):
    pub = pub_for(backend.target)
    first = mode(backend=backend)
    client_side(first).run([pub]).result()
    loopback.fail("expire_session")
    with pytest.raises(
        IBMRuntimeError, match=r'Failed to run program: .*400 .*"code":1217,"message":"Session has been closed'
    ):
        client_side(first).run([pub])
    loopback.configure(queue_seconds=60)
    second = mode(backend=backend)
    job = client_side(second).run([pub])
    loopback.expire_session(second.session_id)
    with pytest.raises(RuntimeJobFailureError, match="Error code 1217; Session has been closed"):
        job.result()
    assert first.status() == second.status() == "Closed"
    assert [job.executed for job in loopback.jobs] == [1, 0]


def test_the_open_plan_has_batches_but_no_sessions(loopback):
    loopback.configure(open_plan=True)
    backend = loopback.backend()
    with pytest.raises(RequestsApiError, match='"code":1352,"message":"You are not authorized to run a session when'):
        Session(backend=backend)
    with Batch(backend=backend) as batch:
        run_in = client_side(batch).run([pub_for(backend.target)])
    assert run_in.status() == "DONE"


@pytest.mark.parametrize(("status", "operational"), [("internal", True), ("maintenance", False)])
def test_a_device_that_is_away_keeps_its_jobs_in_the_queue(loopback, backend, status, operational):
    loopback.configure(status_message=status, operational=operational)
    seen = backend.status()
    assert (seen.status_msg, seen.operational) == (status, operational)
    if operational:
        with pytest.warns(UserWarning, match="currently has a status of internal"):
            job = client_side(backend).run([pub_for(backend.target)])
    else:
        job = client_side(backend).run([pub_for(backend.target)])
    assert job.status() == "QUEUED"
    loopback.configure(status_message="active", operational=True)
    assert job.status() == "DONE"


def test_too_many_pending_jobs_and_a_used_up_instance(loopback, backend):
    pub = pub_for(backend.target)
    loopback.configure(max_pending=1, queue_seconds=5)
    with Session(backend=backend) as session:
        waiting = client_side(session).run([pub])
        with pytest.raises(IBMRuntimeError, match='"code":3458,"message":"Reached maximum number of concurrent jobs"'):
            client_side(session).run([pub])
        loopback.configure(usage_limit_seconds=1, usage_consumed_seconds=1)
        assert session.status() == "Closed"
        with pytest.raises(RuntimeInvalidStateError, match="Job was cancelled"):
            waiting.result()


def test_stalls_delay_one_answer(loopback, backend):
    job = client_side(backend).run([pub_for(backend.target)])
    for kind in ("stall", "stall_after"):
        loopback.fail(kind, "results", seconds=0.3)
        start = time.monotonic()
        job.result()
        assert time.monotonic() - start >= 0.3


def test_faults_choose_by_order_tag_and_chance(loopback, backend):
    skipped = loopback.fail("job_failed", skip=1, tag="hit")
    pub = pub_for(backend.target, ROWS[:1])
    tags = ["hit", "miss", "hit", "hit"]
    status = [client_side(backend, tag).run([pub]).status() for tag in tags]
    assert status == ["DONE", "DONE", "ERROR", "DONE"]
    assert loopback.fired(skipped) == 1
    loopback.clear_faults()
    loopback.configure(engine="random")
    patterns = []
    for seed in (0, 0, 1):
        fault = loopback.fail("job_failed", times=None, probability=0.5, seed=seed)
        patterns.append([client_side(backend).run([pub]).status() for _ in range(10)])
        assert loopback.fired(fault) == patterns[-1].count("ERROR")
        loopback.clear_faults()
    assert patterns[0] == patterns[1] != patterns[2]


def test_every_kind_of_fault_is_known_and_strange_ones_are_refused(loopback):
    for kind in (*REQUEST_KINDS, *JOB_KINDS, *RESULT_KINDS):
        loopback.fail(kind)
    for arguments in (("nothing",), ("status", "nowhere")):
        with pytest.raises(ValueError, match="there is no"):
            loopback.fail(*arguments)
    with pytest.raises(ValueError, match="there is no setting colour"):
        loopback.configure(colour="blue")


def test_a_wrong_key_is_refused_and_the_right_one_is_never_repeated(loopback, monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)
    for name, value in loopback.environment.items():
        monkeypatch.setenv(name, value)
    backend = QiskitRuntimeService().backend("ibm_loopback")
    loopback.fail("status", status=400, code=3211)
    with pytest.raises(IBMRuntimeError) as caught:
        run(backend)
    assert loopback.saw_token(API_KEY)
    assert not any(
        loopback.saw_token(text) for text in (str(caught.value), repr(loopback.requests), str(loopback.jobs))
    )
    with pytest.raises(InvalidAccountError, match="Unable to retrieve instances"):
        QiskitRuntimeService(token="wrong", instance=INSTANCE, url=loopback.environment["QISKIT_IBM_URL"])
