"""The classifier at a service: what a fit has paid for is fetched by the next one, and what it has learned is kept."""

from __future__ import annotations

import os
import signal
import threading
import time

import numpy as np
import pytest
from loopback import LoopbackService
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from qiskit_qdeq import Execution, QDEQClassifier
from qiskit_qdeq.exceptions import BudgetError, InputError, ServiceError
from qiskit_qdeq.execution.account import Budget

pytestmark = pytest.mark.filterwarnings("ignore:.*more shots")
RNG = np.random.default_rng(0)
X = RNG.uniform(0.1, 1, (8, 3))
Y = np.where(X[:, 0] > X[:, 1], "larger", "smaller")
DEVICE = Execution("ibm:ibm_loopback", shots=64, seed=0, patience=1.0, optimization_level=1)
#: One epoch of 4 steps of 2 jobs each.
OPTIONS = {"backend": DEVICE, "epochs": 1, "batch_size": 2, "random_state": 3, "learning_rate": 0.05}


@pytest.fixture
def service(monkeypatch):
    with LoopbackService(engine="random", qubits=(0, 1, 2)) as running:
        for name, value in running.environment.items():
            monkeypatch.setenv(name, value)
        yield running


def of_steps(service, steps):
    """Shots of a run's first steps."""
    return sum(job.executions for job in service.jobs[: 2 * steps])


def test_a_fit_ended_by_its_budget_keeps_its_steps_and_the_next_one_pays_only_for_the_rest(service, tmp_path):
    whole = QDEQClassifier(**OPTIONS).fit(X, Y)
    jobs, shots = len(service.jobs), of_steps(service, 2)
    assert jobs == 8
    part = QDEQClassifier(**OPTIONS, journal=tmp_path / "jobs.jsonl", budget=Budget(shots=shots))
    with pytest.raises(BudgetError, match="budget of") as caught:
        part.fit(X, Y)
    assert caught.value.__notes__ == ["the classifier keeps 2 of 4 steps; fit again to go on with the journal's jobs"]
    assert (len(service.jobs), part.n_iter_, part.history_) == (jobs + 4, 0, [])
    assert set(part.set_params(backend="exact", journal=None, budget=None).predict(X)) <= {"larger", "smaller"}
    part.set_params(backend=DEVICE, journal=tmp_path / "jobs.jsonl", budget="1e9 shots").fit(X, Y)
    assert len(service.jobs) == jobs + 8
    again = clone(part).fit(X, Y)
    assert len(service.jobs) == jobs + 8
    np.testing.assert_array_equal(again.parameters_, part.parameters_)
    assert whole.n_iter_ == part.n_iter_ == 1


def test_predictions_are_measured_anew_and_leave_journal_and_budget_alone(service, tmp_path):
    journal = tmp_path / "jobs.jsonl"
    model = QDEQClassifier(**OPTIONS, journal=str(journal), budget="1e6 shots").fit(X, Y)
    before, jobs = journal.read_bytes(), len(service.jobs)
    model.set_params(budget="1 shots").predict(X)
    model.predict(X)
    assert len(service.jobs) > jobs + 2
    assert journal.read_bytes() == before


def test_a_fit_ended_by_the_service_keeps_its_steps_and_can_be_saved(service, tmp_path):
    service.fail("status", "submit", status=400, code=1234, message="no more", skip=5, times=None)
    model = QDEQClassifier(**OPTIONS)
    with pytest.raises(ServiceError, match="no more") as caught:
        model.fit(X, Y)
    assert "keeps 2 of 4 steps; partial_fit goes on" in caught.value.__notes__[0]
    model.save(tmp_path / "model.safetensors")
    loaded = QDEQClassifier.load(tmp_path / "model.safetensors").set_params(backend="exact")
    assert loaded.n_iter_ == 0
    loaded.partial_fit(X, Y)
    assert loaded.n_iter_ == 1


def test_ctrl_c_keeps_the_steps_taken(service):
    def interrupt_the_third_step():
        while len(service.jobs) < 5:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    service.configure(queue_seconds=0.3)
    model = QDEQClassifier(**{**OPTIONS, "epochs": 100})
    interrupt = threading.Thread(target=interrupt_the_third_step)
    interrupt.start()
    with pytest.raises(KeyboardInterrupt) as caught:
        model.fit(X, Y)
    interrupt.join()
    assert " of 400 steps; partial_fit" in caught.value.__notes__[0]
    assert np.isfinite(model.parameters_).all()
    model.set_params(backend="exact").predict(X)


def test_a_fit_that_fails_before_its_first_step_leaves_nothing_of_an_earlier_one(service):
    model = QDEQClassifier(**{**OPTIONS, "backend": "exact"}).fit(X, Y)
    with pytest.raises(BudgetError):
        model.set_params(backend=DEVICE, budget="10 shots").fit(X, Y)
    with pytest.raises(NotFittedError):
        model.predict(X)


def test_the_budget_holds_for_partial_fit_and_a_journal_is_refused_there(service, tmp_path):
    model = QDEQClassifier(**OPTIONS, budget="10 shots")
    with pytest.raises(BudgetError):
        model.partial_fit(X, Y, classes=["larger", "smaller"])
    with pytest.raises(InputError, match=r"journal='a' is for fit"):
        model.set_params(journal="a").partial_fit(X, Y, classes=["larger", "smaller"])
    assert not service.jobs


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backend": "exact", "journal": "jobs"}, "journal='jobs' has no effect with backend='exact'"),
        ({"backend": "exact", "budget": "600s"}, "budget='600s' has no effect with backend='exact'"),
        ({"backend": "aer", "shots": 64, "journal": "jobs"}, "journal='jobs' has no effect on a simulator"),
        ({"random_state": None, "journal": "jobs"}, "needs an integer random_state, got None"),
        ({"backend": "aer", "shots": 64, "budget": 600}, "budget must be a Budget or a text"),
    ],
)
def test_what_has_no_effect_is_refused_and_writes_nothing(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        QDEQClassifier(**{**OPTIONS, **arguments}).fit(X, Y)
    assert not list(tmp_path.iterdir())


def test_a_file_keeps_the_budget_and_no_journal(tmp_path):
    model = QDEQClassifier(epochs=1, random_state=0).fit(X, Y)
    model.set_params(journal=tmp_path / "jobs.jsonl", budget=Budget(circuits=7)).save(tmp_path / "model.safetensors")
    assert str(tmp_path) not in (tmp_path / "model.json").read_text("utf-8")
    loaded = QDEQClassifier.load(tmp_path / "model.safetensors")
    assert (loaded.journal, loaded.budget) == (None, Budget(circuits=7))
