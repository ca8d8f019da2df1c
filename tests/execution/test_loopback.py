"""The real client runs against the loopback service, whose results, records and time are right."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from loopback import API_KEY, LoopbackService, loopback_process
from loopback.devices import load_device
from loopback.execution import sample_samplex
from loopback.simulation import outcome_probabilities, sample_bits
from loopback_jobs import ROWS, client_side, exact_values, legacy, pub_for
from qiskit_aer import AerSimulator
from qiskit_ibm_runtime import Batch, Session
from qiskit_ibm_runtime.exceptions import (
    IBMInputValueError,
    IBMRuntimeError,
    RuntimeInvalidStateError,
    RuntimeJobFailureError,
    RuntimeJobNotFound,
    RuntimeJobTimeoutError,
)
from qiskit_ibm_runtime.executor_estimator.prepare import prepare
from qiskit_ibm_runtime.fake_provider.executor.broadcast_sample import broadcast_sample
from qiskit_ibm_runtime.options_models import EstimatorOptions

MODES = {"job": lambda backend: backend, "batch": Batch, "session": Session}


@pytest.fixture(autouse=True)
def fast_client(monkeypatch):
    monkeypatch.setenv("USAGE_DATA_OPT_OUT", "True")


@pytest.fixture
def loopback():
    with LoopbackService() as service:
        yield service


@pytest.mark.parametrize("estimator", [client_side, legacy])
@pytest.mark.parametrize("mode", MODES)
def test_both_estimators_give_the_exact_values_of_a_perfect_device_in_every_mode(estimator, mode):
    with LoopbackService(engine="ideal") as loopback:
        backend = loopback.backend()
        opened = MODES[mode](backend)
        result = estimator(opened, "t", shots=4096).run([pub_for(backend.target)]).result()[0].data
        if mode != "job":
            opened.close()
        np.testing.assert_allclose(result.evs, exact_values(), atol=5 / 64)
        (job,) = loopback.jobs
        assert (job.status, job.executed, job.circuits, job.tags, job.fetched) == ("Completed", 1, 6, ["t"], 1)
        assert [s.mode for s in loopback.sessions] == (
            [] if mode == "job" else [{"session": "dedicated"}.get(mode, mode)]
        )
        assert not loopback.open_sessions


@pytest.mark.parametrize("noisy", [False, True])
def test_simulation_agrees_with_aer(noisy):
    device = load_device()
    noise = device.noise if noisy else None
    isa = pub_for(device.target)[0].copy()
    isa.measure_all()
    parts = list(outcome_probabilities(isa, ROWS, noise))
    assert sorted(clbit for clbits, _ in parts for clbit in clbits) == list(range(5))
    simulator = AerSimulator(noise_model=device.noise_model if noisy else None, method="density_matrix")
    for row, values in enumerate(ROWS):
        bare = isa.remove_final_measurements(inplace=False).assign_parameters(values)
        bare.save_probabilities(range(5))
        expected = simulator.run(bare, shots=1).result().data(0)["probabilities"].reshape((2,) * 5)
        for qubit in range(5) if noisy else ():
            axis, confusion = 4 - qubit, device.noise_model._local_readout_errors[(qubit,)].probabilities
            expected = np.moveaxis(np.tensordot(confusion.T, expected, axes=(1, axis)), 0, axis)
        for clbits, probabilities in parts:
            others = tuple(4 - qubit for qubit in range(5) if qubit not in clbits)
            marginal = expected.sum(axis=others).reshape(-1)
            np.testing.assert_allclose(probabilities[row], marginal, atol=1e-7)


def test_drawn_bits_follow_their_probabilities():
    device = load_device()
    isa = pub_for(device.target)[0].copy()
    isa.measure_all()
    bits = sample_bits(isa, ROWS, 20000, np.random.default_rng(1), device.noise)
    for clbits, probabilities in outcome_probabilities(isa, ROWS, device.noise):
        outcomes = sum(bits[:, :, clbit].astype(int) << place for place, clbit in enumerate(clbits))
        frequencies = np.array([np.bincount(row, minlength=probabilities.shape[1]) for row in outcomes]) / 20000
        np.testing.assert_allclose(frequencies, probabilities, atol=5 * 0.5 / 20000**0.5)


@pytest.mark.parametrize("level", [0, 1])
def test_randomizations_are_those_of_the_client_s_own_sampling(level):
    options = EstimatorOptions(default_shots=128, resilience_level=level)
    for item in prepare([pub_for(load_device().target)], options)[0].items:
        own = sample_samplex(item, item.shape, np.random.default_rng(3))
        theirs = broadcast_sample(item.samplex, item.samplex_arguments, item.shape, np.random.default_rng(3))
        assert own.keys() == theirs.keys()
        assert all(np.array_equal(own[name], theirs[name]) for name in own)


@pytest.mark.parametrize("level", [0, 1])
def test_the_same_tag_gives_the_same_bits_wherever_and_whenever(loopback, level):
    def values(mode, *tags):
        return client_side(mode, *tags, level=level).run([pub_for(mode.target)]).result()[0].data.evs

    backend = loopback.backend()
    first = values(backend, "a", "b")
    loopback.skip(86400)
    with Session(backend=backend) as session:
        job = client_side(session, "b", "a", level=level).run([pub_for(backend.target)])
        np.testing.assert_array_equal(job.result()[0].data.evs, first)
    assert not np.array_equal(values(backend, "c"), first)
    with LoopbackService() as other, LoopbackService(seed=1) as reseeded:
        np.testing.assert_array_equal(values(other.backend(), "a", "b"), first)
        assert not np.array_equal(values(reseeded.backend(), "a", "b"), first)


@pytest.mark.parametrize("estimator", [client_side, legacy])
def test_without_tags_the_content_decides_about_the_noise(loopback, estimator):
    backend = loopback.backend()
    pubs = [pub_for(backend.target), pub_for(backend.target), pub_for(backend.target, ROWS + 1e-3)]
    first, second, third = [estimator(backend).run([pub]).result()[0].data.evs for pub in pubs]
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, third)
    digests = [job.digest for job in loopback.jobs]
    assert digests[0] == digests[1] != digests[2]


def test_the_part_of_the_tags_that_decides_about_the_noise_can_be_chosen(loopback):
    backend = loopback.backend()

    def values(*tags):
        return client_side(backend, *tags).run([pub_for(backend.target)]).result()[0].data.evs

    loopback.configure(noise_pattern="[^:]+$")
    np.testing.assert_array_equal(values("run1:key"), values("run2:key"))
    assert not np.array_equal(values("run1:key"), values("run1:yek"))
    loopback.configure(noise_pattern=None)
    np.testing.assert_array_equal(values("one"), values("two"))
    assert len({job.digest for job in loopback.jobs}) == 1


def test_noise_changes_the_values_and_trex_repairs_some_of_it(loopback):
    backend = loopback.backend()
    errors = [
        np.abs(
            client_side(backend, level=level, shots=16384).run([pub_for(backend.target)]).result()[0].data.evs
            - exact_values()
        )
        for level in (0, 1)
    ]
    assert errors[0].mean() > errors[1].mean() > 0


def test_all_qubits_of_a_large_device_are_served():
    with LoopbackService("FakeTorino", None, engine="ideal") as loopback:
        backend = loopback.backend()
        assert backend.num_qubits == 133
        result = client_side(backend, level=1, shots=4096).run([pub_for(backend.target)]).result()
        np.testing.assert_allclose(result[0].data.evs, exact_values(), atol=5 / 64)


def test_a_client_of_another_process_connects_by_its_environment_alone():
    program = (
        "from qiskit_ibm_runtime import QiskitRuntimeService, Session\n"
        "service = QiskitRuntimeService()\n"
        "Session(service.backend('ibm_loopback'), max_time=77)\n"
        "import os; os._exit(9)"
    )
    with loopback_process("queue_seconds=0.25", "open_plan=false", "--seed", "3") as loopback:
        environment = {**os.environ, **loopback.environment}
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 9, done.stderr
        (session,) = loopback.open_sessions  # the orphan of the killed client
        assert (session.mode, session.max_ttl) == ("dedicated", 77)
        assert loopback.configure()["queue_seconds"] == 0.25
        assert loopback.saw_token(f"..{API_KEY}..")
        assert not loopback.saw_token(done.stdout + done.stderr)
        with pytest.raises(ValueError, match="there is no fault 'x'"):
            loopback.fail("x")
    with LoopbackService(seed=3) as here, loopback_process("--seed", "3") as there:
        pair = [
            client_side(s.backend(), "k").run([pub_for(s.backend().target)]).result()[0].data.evs for s in (here, there)
        ]
        np.testing.assert_array_equal(*pair)


def test_queued_jobs_show_their_place_run_in_turn_and_can_be_cancelled(loopback):
    loopback.configure(queue_seconds=100, run_seconds=50, foreign_jobs=4)
    backend = loopback.backend()
    jobs = [client_side(backend, f"n{i}").run([pub_for(backend.target)]) for i in range(3)]
    assert [job.status() for job in jobs] == ["QUEUED"] * 3
    assert [job.metrics()["position_in_queue"] for job in jobs] == [5, 6, 7]
    assert backend.status().pending_jobs == 7
    loopback.configure(queue_shown=False)
    assert "position_in_queue" not in jobs[0].metrics()
    with pytest.raises(RuntimeJobTimeoutError):
        jobs[0].result(timeout=0.01, poll_interval=0.1)
    loopback.skip(101)
    assert [job.status() for job in jobs] == ["RUNNING", "QUEUED", "QUEUED"]
    jobs[2].cancel()
    with pytest.raises(RuntimeInvalidStateError):
        jobs[2].cancel()
    loopback.skip(100)
    assert [job.status() for job in jobs] == ["DONE", "DONE", "CANCELLED"]
    assert [job.executed for job in loopback.jobs] == [1, 1, 0]
    started = [job.started for job in loopback.jobs[:2]]
    assert started[1] - started[0] == pytest.approx(50)


def test_billing_follows_ibm_s_formula_and_uses_up_the_instance(loopback):
    loopback.configure(usage_limit_seconds=600, usage_consumed_seconds=100)
    service = loopback.service()
    backend = service.backend("ibm_loopback")
    jobs = [client_side(backend, level=level).run([pub_for(backend.target)]) for level in (0, 1)]
    seconds = [job.metrics()["usage"]["quantum_seconds"] for job in jobs]
    for record, billed in zip(loopback.jobs, seconds, strict=True):
        assert record.executions == record.circuits * record.shots
        duration = (billed - 2) / record.executions - 250e-6
        assert 0.5e-6 < duration < 10e-6  # a few gates and a readout
    assert jobs[0].usage() == seconds[0]
    usage = service.usage()
    assert usage["usage_consumed_seconds"] == pytest.approx(100 + sum(seconds))
    assert usage["usage_remaining_seconds"] == pytest.approx(500 - sum(seconds))
    loopback.configure(usage_limit_seconds=50)
    with pytest.warns(UserWarning, match="met its usage limit"):
        stuck = client_side(backend).run([pub_for(backend.target)])
    assert stuck.status() == "QUEUED"
    loopback.configure(usage_limit_seconds=None)
    assert stuck.status() == "DONE"


def test_sessions_end_by_time_and_their_queued_jobs_fail(loopback):
    backend = loopback.backend()
    pub = pub_for(backend.target)
    session = Session(backend=backend, max_time=300)
    unused = Batch(backend=backend)
    assert (session.status(), session.details()["max_time"]) == ("Pending", 300)
    client_side(session).run([pub]).result()
    assert session.status() == "In progress, accepting new jobs"
    loopback.skip(61)
    assert session.details()["state"] == "inactive"
    loopback.configure(queue_seconds=10000)
    late = client_side(session).run([pub])
    loopback.skip(300)
    assert session.status() == "Closed"
    with pytest.raises(RuntimeJobFailureError, match="Session has been closed"):
        late.result()
    with pytest.raises(IBMRuntimeError, match=r'400 .*"code":1217'):
        client_side(session).run([pub])
    assert unused.status() == "Pending"
    loopback.skip(1800)
    assert unused.status() == "Closed"
    assert [s.closed_by for s in loopback.sessions] == ["limit", "limit"]


def test_close_lets_queued_jobs_run_and_cancel_does_not(loopback):
    backend = loopback.backend()
    loopback.configure(queue_seconds=10)
    pub = pub_for(backend.target)
    closed, cancelled = Batch(backend=backend), Batch(backend=backend)
    jobs = [client_side(batch).run([pub]) for batch in (closed, cancelled)]
    closed.close()
    cancelled.cancel()
    assert [s.state for s in loopback.sessions] == ["open", "closed"]
    with pytest.raises(IBMRuntimeError, match="The session is closed"):
        client_side(closed).run([pub])
    loopback.skip(11)
    assert [job.status() for job in jobs] == ["DONE", "CANCELLED"]
    assert [s.state for s in loopback.sessions] == ["closed", "closed"]


def test_jobs_are_found_by_id_and_by_tag_from_a_new_connection(loopback):
    backend = loopback.backend()
    with Session(backend=backend) as session:
        result = client_side(session, "run", "key").run([pub_for(backend.target)]).result()
    client_side(backend, "run").run([pub_for(backend.target)])
    service = loopback.service()
    (found,) = service.jobs(job_tags=["run", "key"])
    assert len(service.jobs(job_tags=["run"])) == 2
    assert [job.job_id() for job in service.jobs(session_id=session.session_id)] == [found.job_id()]
    np.testing.assert_array_equal(service.job(found.job_id()).result()[0].data.evs, result[0].data.evs)
    assert found.update_tags(["other"]) == ["other"]
    assert service.jobs(job_tags=["key"]) == []
    assert Session.from_id(session.session_id, service).status() == "Closed"
    for _ in range(21):
        client_side(backend, "many").run([pub_for(backend.target, ROWS[:1])])
    assert len(service.jobs(limit=None, job_tags=["many"])) == 21
    service.delete_job(found.job_id())
    with pytest.raises(RuntimeJobNotFound):
        service.job(found.job_id())
    with pytest.raises(IBMInputValueError, match="Session not found"):
        Session.from_id("nothing", service)
    with pytest.raises(IBMInputValueError, match="execution mode batch instead of dedicated"):
        Session.from_id(Batch(backend=backend).session_id, service)


def test_only_what_is_needed_of_many_jobs_is_kept():
    with LoopbackService(engine="random") as loopback:
        backend = loopback.backend()
        pub = pub_for(backend.target, ROWS[:2])
        estimator = client_side(backend)
        for _ in range(25):
            estimator.run([pub])
        store = loopback._service.store
        assert not store.waiting
        assert max(map(len, store._results.values())) < 3000
        assert sum(job.executed for job in loopback.jobs) == 25
