"""Modes open in local testing mode, and close on every exit."""

from __future__ import annotations

import warnings

import pytest
import qiskit_ibm_runtime
from qiskit import QuantumCircuit
from qiskit_ibm_runtime import Batch, EstimatorV2, Session
from qiskit_ibm_runtime.exceptions import IBMRuntimeError
from qiskit_ibm_runtime.executor_estimator import Estimator

from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.execution.modes import open_mode
from qiskit_qdeq.execution.noise import perfect_simulator

PUB = (QuantumCircuit(1), "Z")


@pytest.fixture(scope="module")
def backend():
    return perfect_simulator(1)


def run(mode):
    return Estimator(mode=mode, options={"default_shots": 10, "resilience_level": 0}).run([PUB]).result()


def check_closed(mode):
    # the client-side estimator does not ask a local session whether it is open; the older one does
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        estimator = EstimatorV2(mode=mode)
    with pytest.raises(IBMRuntimeError, match="The session is closed"):
        estimator.run([PUB])


def test_job_mode_is_the_backend_itself(backend):
    with open_mode(backend) as mode:
        assert mode is backend
        assert float(run(mode)[0].data.evs) == 1


@pytest.mark.parametrize(("name", "kind"), [("batch", Batch), ("session", Session)])
def test_modes_run_locally_and_are_closed_afterwards(backend, name, kind):
    with open_mode(backend, name, max_time=60) as mode:
        assert type(mode) is kind
        assert float(run(mode)[0].data.evs) == 1
    check_closed(mode)


@pytest.mark.parametrize("name", ["batch", "session"])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_modes_close_when_the_body_fails(backend, name, error):
    with pytest.raises(error, match="midway"), open_mode(backend, name) as mode:
        raise error("midway")
    check_closed(mode)


def test_a_failing_close_does_not_hide_what_went_wrong(backend, monkeypatch):
    def fail(self):
        raise IBMRuntimeError("network")

    monkeypatch.setattr(Session, "close", fail)
    with pytest.raises(RuntimeError, match="midway"), open_mode(backend, "session"):
        raise RuntimeError("midway")
    with pytest.raises(IBMRuntimeError, match="network"), open_mode(backend, "session"):
        pass


def test_refused_session_names_the_modes_that_remain(backend, monkeypatch):
    def refuse(backend, max_time):
        raise IBMRuntimeError("You are not authorized to run a session, key abcdefghijklmnopqrstuvwxyz0123456789")

    monkeypatch.setattr(qiskit_ibm_runtime, "Session", refuse)
    with pytest.raises(InputError, match=r"use mode='batch' or 'job'") as caught, open_mode(backend, "session"):
        pass
    assert "abcdefghijklmnopqrstuvwxyz0123456789" not in str(caught.value)


@pytest.mark.parametrize(
    ("mode", "max_time", "message"),
    [
        ("dedicated", None, "mode must be one of job, batch, session"),
        ("job", 10, "max_time has no effect with mode='job'"),
        ("batch", 0, "max_time must be a whole number"),
        ("session", 1.5, "max_time must be a whole number"),
    ],
)
def test_meaningless_arguments_are_refused(backend, mode, max_time, message):
    with pytest.raises(InputError, match=message), open_mode(backend, mode, max_time):
        pass
