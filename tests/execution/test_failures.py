"""Each way in which the service or its client says that something failed is recognized for what can be done about it."""

from __future__ import annotations

import pytest
from loopback import API_KEY, LoopbackService
from loopback_jobs import client_side, pub_for
from qiskit_ibm_runtime import Session
from qiskit_ibm_runtime.api.exceptions import RequestsApiError
from qiskit_ibm_runtime.exceptions import (
    IBMInputValueError,
    IBMNotAuthorizedError,
    IBMRuntimeError,
    RuntimeJobFailureError,
    RuntimeJobNotFound,
    RuntimeProgramNotFound,
)
from requests.exceptions import ConnectionError as RequestsConnectionError
from requests.exceptions import JSONDecodeError, ReadTimeout
from service_runs import short_waiting

from qiskit_qdeq.exceptions import BudgetError
from qiskit_qdeq.execution.failures import Kind, failure_of, failure_of_job


@pytest.fixture(scope="module")
def loopback():
    with short_waiting(), LoopbackService(engine="random") as running:
        yield running


@pytest.fixture(scope="module")
def backend(loopback):
    return loopback.backend()


@pytest.mark.parametrize(
    ("fault", "expected", "said"),
    [
        (("drop_before", "submit", {}), Kind.UNCERTAIN, "Connection aborted"),
        (("drop_after", "submit", {}), Kind.UNCERTAIN, "Connection aborted"),
        (("garbage", "submit", {}), Kind.UNCERTAIN, "cannot be read"),
        (("torn", "usage", {}), Kind.UNCERTAIN, "cannot be read"),
        (("torn", "backend_status", {}), Kind.UNCERTAIN, "cannot be read"),
        (("status", "submit", {"status": 500, "times": 6}), Kind.UNCERTAIN, "too many 500"),
        (("status", "submit", {"status": 503, "times": 6}), Kind.UNCERTAIN, "too many 503"),
        (("status", "submit", {"status": 408}), Kind.UNCERTAIN, "HTTP 408"),
        (("status", "submit", {"status": 429, "code": 1202}), Kind.BUSY, "Too many requests"),
        (("status", "usage", {"status": 429, "code": 1202}), Kind.BUSY, "Too many requests"),
        (("status", "submit", {"status": 400, "code": 3458}), Kind.BUSY, "maximum number of concurrent jobs"),
        (("status", "submit", {"status": 400, "code": 1217}), Kind.SESSION, "Session has been closed"),
        (("status", "submit", {"status": 404, "code": 1216, "message": "Session not found."}), Kind.SESSION, "1216"),
        (("status", "submit", {"status": 401, "code": 1200}), Kind.HOPELESS, "check the account's token"),
        (("status", "submit", {"status": 401, "code": 1201}), Kind.HOPELESS, "check the account's token"),
        (("status", "submit", {"status": 403, "code": 1200}), Kind.HOPELESS, "check the account's token"),
        (("status", "submit", {"status": 400, "code": 3211}), Kind.HOPELESS, "transpile it for the device"),
        (("status", "submit", {"status": 400, "code": 4317}), Kind.HOPELESS, "when there is time again"),
        (("status", "submit", {"status": 400, "code": 1352}), Kind.HOPELESS, "mode='batch' or 'job'"),
        (("status", "submit", {"status": 413, "code": 1000, "message": "too large"}), Kind.HOPELESS, "too large"),
        (
            ("status", "submit", {"status": 403, "code": 1200, "message": f"key {API_KEY}"}),
            Kind.HOPELESS,
            r"key \*\*\*",
        ),
    ],
)
def test_what_a_submission_raises(loopback, backend, fault, expected, said):
    kind, operation, options = fault
    loopback.clear_faults()
    loopback.fail(kind, operation, **options)
    with pytest.raises(Exception) as caught:
        client_side(backend, "t").run([pub_for(backend.target)])
    loopback.clear_faults()
    failure = failure_of(caught.value)
    assert failure.kind is expected
    with pytest.raises(AssertionError, match=said):
        raise AssertionError(failure.message)
    assert API_KEY not in failure.message
    assert len(failure.message) < 400


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (("job_failed", {"code": 1500}), Kind.TRANSIENT),
        (("job_failed", {"code": None}), Kind.TRANSIENT),
        (("job_cancelled", {}), Kind.TRANSIENT),
        (("expire_queued", {}), Kind.SESSION),
        (("ran_too_long", {}), Kind.TOO_LONG),
        (("job_failed", {"code": 3211}), Kind.HOPELESS),
        (("job_failed", {"code": 4317}), Kind.HOPELESS),
        (("job_cancelled", {"code": 4317}), Kind.HOPELESS),
    ],
)
def test_how_a_job_ended(loopback, backend, fault, expected):
    loopback.clear_faults()
    kind, options = fault
    loopback.fail(kind, **options)
    with Session(backend=backend) as session:
        job = client_side(session, "t").run([pub_for(backend.target)])
        status = job.status()
        assert status in ("ERROR", "CANCELLED")
        assert failure_of_job(job._reason or "", cancelled=status == "CANCELLED").kind is expected


def test_a_deleted_job_is_gone(loopback, backend):
    loopback.clear_faults()
    job = client_side(backend, "t").run([pub_for(backend.target)])
    loopback.delete_job(job.job_id())
    for ask in (job.status, lambda: backend.service.job(job.job_id())):
        with pytest.raises(Exception) as caught:
            ask()
        assert failure_of(caught.value).kind is Kind.GONE


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        # as reported in qiskit-ibm-runtime 476, pytket-qiskit 288, and by the client itself
        (
            RequestsApiError("404 Client Error: Not Found for url: https://x/jobs/c1?exclude_params=true. {}", 404),
            Kind.GONE,
        ),
        (RuntimeJobNotFound("Job not found: c1"), Kind.GONE),
        (
            RuntimeProgramNotFound("Program not found: 404 Client Error: Not Found for url: https://x/jobs"),
            Kind.HOPELESS,
        ),
        (
            IBMRuntimeError(
                "'Failed to run program: \\'400 Client Error: Bad Request for url: https://api.ibm.com/runtime/jobs. "
                '{"errors":[{"message":"Request validation of body failed","code":1208,"more_info":"https://x"}]}\\\'\''
            ),
            Kind.HOPELESS,
        ),
        (IBMRuntimeError("The session is closed."), Kind.SESSION),
        (
            IBMRuntimeError("Failed to run program: 409 Client Error. The batch is no longer accepting jobs"),
            Kind.SESSION,
        ),
        (
            IBMRuntimeError("Failed to get job metadata: Max retries exceeded (Caused by ReadTimeoutError)"),
            Kind.UNCERTAIN,
        ),
        (RequestsConnectionError("Failed to resolve 'quantum.cloud.ibm.com'"), Kind.UNCERTAIN),
        (ReadTimeout("Read timed out. (read timeout=120)"), Kind.UNCERTAIN),
        (JSONDecodeError("Expecting value", "<html>", 0), Kind.UNCERTAIN),
        (ConnectionResetError(104, "Connection reset by peer"), Kind.UNCERTAIN),
        (RequestsApiError("503 Server Error: Service Unavailable for url: https://x", 503), Kind.UNCERTAIN),
        (IBMNotAuthorizedError("Login failed"), Kind.HOPELESS),
        (IBMInputValueError("shots must be positive"), Kind.HOPELESS),
        (KeyError("id"), Kind.HOPELESS),
        (BudgetError("the budget is reached"), Kind.HOPELESS),
    ],
)
def test_exceptions_by_their_kind(error, expected):
    failure = failure_of(error)
    assert failure.kind is expected
    assert failure.can_repeat == (expected in (Kind.TRANSIENT, Kind.UNCERTAIN, Kind.BUSY))


@pytest.mark.parametrize(
    ("reason", "cancelled", "expected"),
    [
        ("Error code 1305; Ran too long", True, Kind.TOO_LONG),
        ("Job ran longer than maximum execution time", False, Kind.TOO_LONG),
        ("Error code 1217; Session has been closed.", False, Kind.SESSION),
        ("Session closed: the maximum time is over", True, Kind.SESSION),
        ("Error code 1500; An internal error occurred.", False, Kind.TRANSIENT),
        ("Error code 9999; An unknown error", False, Kind.TRANSIENT),
        ("", True, Kind.TRANSIENT),
        ("", False, Kind.TRANSIENT),
        ("The instance usage limit has been reached", True, Kind.HOPELESS),
        ("There is currently no more time available for this instance's plan", True, Kind.HOPELESS),
        ("Error code 3211; The instruction cx on qubits (0, 1) is not supported", False, Kind.HOPELESS),
    ],
)
def test_reasons_of_jobs_by_their_kind(reason, cancelled, expected):
    failure = failure_of_job(reason, cancelled=cancelled)
    assert failure.kind is expected
    assert failure.message.startswith("it was cancelled" if cancelled else "it failed")


def test_a_failed_jobs_exception_is_no_connection_problem():
    assert not failure_of(
        RuntimeJobFailureError("Unable to retrieve job result. Error code 3211; not valid")
    ).can_repeat
