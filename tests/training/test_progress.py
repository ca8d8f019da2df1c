"""What a person sees of a run: words made from events, bars in a terminal, lines in a file, nothing when quiet."""

from __future__ import annotations

import dataclasses
import io
import re
import subprocess
import sys
import time

import numpy as np
import pytest
from loopback import LoopbackService
from numba.core.event import trigger_event

from qiskit_qdeq import Execution, QDEQClassifier, Trainer, TrainingConfig, executed, model_config, solver
from qiskit_qdeq.evaluation.protocol import Cost
from qiskit_qdeq.execution.account import Account, Budget
from qiskit_qdeq.execution.events import Announcer, JobEvent
from qiskit_qdeq.execution.patience import Patience, Persistence
from qiskit_qdeq.execution.waiting import JobStatus
from qiskit_qdeq.training import progress
from qiskit_qdeq.training.display import BarDisplay, LineDisplay, display
from qiskit_qdeq.training.progress import ProgressBar

RNG = np.random.default_rng(0)
X = RNG.uniform(0.1, 1, (12, 4))
Y = (X[:, 0] > X[:, 1]).astype(int)
CONFIG = TrainingConfig(solver=solver("probe"), epochs=2, batch_size=6, seed=1)


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    def isatty(self):
        return True


def status_after(*events):
    clock = Clock()
    status = JobStatus(clock)
    for seconds, event in events:
        clock.now = seconds
        status.on_job(event)
    return status, clock


class TestStatus:
    def test_a_queued_job_has_its_place_its_time_and_its_session(self):
        status, clock = status_after(
            (0, JobEvent("opened", "s1", detail="session")),
            (1, JobEvent("submitted", "j1")),
            (1, JobEvent("submitted", "j2")),
            (2, JobEvent("waiting", "j1", status="QUEUED", position=3)),
        )
        clock.now = 3700.0
        assert str(status) == "queued, position 3, for 1:01:39; 1 more submitted; session open; job j1"
        assert status.state == "queued, position 3; 1 more submitted; session open; job j1"

    def test_running_counts_from_its_own_beginning_and_the_end_leaves_the_next_job(self):
        status, clock = status_after(
            (0, JobEvent("submitted", "j1")),
            (0, JobEvent("submitted", "j2")),
            (5, JobEvent("waiting", "j1", status="QUEUED")),
            (60, JobEvent("waiting", "j1", status="RUNNING")),
        )
        clock.now = 64.0
        assert str(status) == "running, for 0:00:04; 1 more submitted; job j1"
        status.on_job(JobEvent("finished", "j1", cost=Cost()))
        assert str(status) == "submitted, for 0:01:04; job j2"

    @pytest.mark.parametrize("name", ["j1", ""])
    def test_a_job_that_failed_is_not_waited_for(self, name):
        status, _ = status_after(
            (0, JobEvent("submitted", "j1")),
            (0, JobEvent("waiting", "j1", status="QUEUED")),
            (1, JobEvent("failed", name, detail="broken")),
            (2, JobEvent("submitted", "j2")),
        )
        assert str(status) == "submitted, for 0:00:00; job j2"

    def test_a_request_tried_again_counts_down_and_is_forgotten_when_the_service_answers(self):
        status, clock = status_after((10, JobEvent("retrying", detail="submitting a job: HTTP 503", pause=4.0)))
        clock.now = 11.0
        assert str(status) == "trying again in 3 s: submitting a job: HTTP 503"
        clock.now = 16.0
        assert str(status) == ""
        status.on_job(JobEvent("retrying", detail="submitting a job: HTTP 503", pause=4.0))
        status.on_job(JobEvent("submitted", "j1"))
        assert str(status) == "submitted, for 0:00:00; job j1"

    def test_calling_again_after_a_while_is_announced_with_the_pause(self):
        announce, answers, status = Announcer(), [ConnectionError("no route"), "found"], JobStatus()
        announce.listeners.append(status.on_job)

        def call():
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

        seen = []
        announce.listeners.append(lambda event: seen.append((event.kind, event.pause is not None, str(status))))
        assert Persistence(Patience(20), announce).call(call, "asking") == "found"
        [(kind, has_pause, text)] = seen
        assert (kind, has_pause) == ("retrying", True)
        assert re.fullmatch(r"trying again in \d+ s: asking: .*no route.*", text)

    def test_a_closed_session_is_said_and_one_of_an_earlier_process_is_not(self):
        status, _ = status_after(
            (0, JobEvent("closed", "old", detail="left open by an earlier process")),
            (0, JobEvent("opened", "s1", detail="batch")),
            (1, JobEvent("closed", "s1", detail="batch")),
        )
        assert str(status) == "batch closed"

    def test_the_log_has_pause_and_cost_in_words(self):
        retry = JobEvent("retrying", detail="submitting a job: HTTP 503", pause=4.2)
        assert str(retry) == "retrying in 4 s: submitting a job: HTTP 503"
        sent = JobEvent("submitted", "j1", cost=Cost(12, 1200, qpu_seconds=2.5))
        assert str(sent) == "submitted j1 (12 circuits, 1,200 shots, 2.5 s of QPU time)"


class TestLines:
    @pytest.fixture
    def shown(self):
        clock, stream = Clock(), io.StringIO()
        return LineDisplay(stream, clock), clock, stream

    def test_news_come_soon_and_the_same_again_seldom(self, shown):
        lines, clock, stream = shown
        lines.begin("training", 8, 0)
        for second in range(1, 200):
            clock.now = float(second)
            lines.status(f"queued for {second} s", "queued")
        assert stream.getvalue().splitlines() == [
            "[0:00:00] training 0/8",
            "[0:00:10] training 0/8; queued for 10 s",
            "[0:01:10] training 0/8; queued for 70 s",
            "[0:02:10] training 0/8; queued for 130 s",
            "[0:03:10] training 0/8; queued for 190 s",
        ]

    def test_the_last_figures_are_written_and_nothing_twice(self, shown):
        lines, clock, stream = shown
        lines.begin("training", 2, 0)
        for step in (1, 2):
            lines.figures({"loss": f"{1 / step}"})
            lines.advance(step)
        lines.end()
        lines.end()
        clock.now = 1000.0
        lines.status("late", "late")
        assert stream.getvalue().splitlines() == ["[0:00:00] training 0/2", "[0:00:00] training 2/2, loss 0.5"]


def test_bars_in_a_terminal_and_lines_elsewhere():
    assert isinstance(display(Terminal()), BarDisplay)
    assert isinstance(display(io.StringIO()), LineDisplay)


def run(stream, model, config=CONFIG, budget=None, **execution):
    with (
        ProgressBar(stream=stream) as bar,
        executed(model, Execution(**execution), budget=budget, listeners=[bar.on_job]) as measured,
    ):
        Trainer(measured, config, X, Y, X[:5], Y[:5], callbacks=[bar]).run()


@pytest.fixture
def model():
    return model_config("default", 4, 2, 2).build()


@pytest.mark.filterwarnings("ignore:.*more shots")
class TestMeasuredRuns:
    def test_lines_have_steps_figures_and_what_was_spent(self, model, monkeypatch):
        monkeypatch.setattr("qiskit_qdeq.training.display._NEWS", 0.0)
        stream = io.StringIO()
        run(stream, model, budget="1e6 shots", backend="aer", shots=100, seed=0)
        text = stream.getvalue()
        first, *_, last = text.splitlines()
        assert first == "[0:00:00] training 0/4"
        assert re.fullmatch(
            r"\[0:00:\d\d\] training 4/4, epoch 2/2, loss \d\.\d{3}, valid acc \d+\.\d%, residual \de-\d\d", last
        )
        assert "training 3/4, epoch 2/2, loss" in text

    def test_a_terminal_has_a_bar_and_below_it_the_job(self, model, monkeypatch):
        for name, value in (("_RENEWAL", 0.05), ("_PATIENCE", 1e6)):
            monkeypatch.setattr(progress, name, value)
        stream = Terminal()
        with LoopbackService(engine="random", qubits=(0, 1), queue_seconds=1.2, foreign_jobs=2) as service:
            for name, value in service.environment.items():
                monkeypatch.setenv(name, value)
            service.fail("job_failed", times=1)
            config = dataclasses.replace(CONFIG, epochs=1, batch_size=12)
            run(stream, model, config, "6000s", backend="ibm:ibm_loopback", shots=64, mode="session")
        text = stream.getvalue()
        for part in (
            "training 0/1 |",
            "training 1/1 |",
            "epoch=1/1, loss=",
            "queued, for 0:00:01",
            "session open; job d",
            "validation 0/5; ",
            "submitting it again\n",
        ):
            assert part in text
        assert re.search(r"[\d,]+ shots, QPU \d+\.\d s \([\d,.]+ left\)", text)
        # the line below the bar is renewed in place
        assert text.count("\n") < 10 + text.count("\x1b[A")

    @pytest.mark.parametrize("backend", ["exact", "aer"])
    def test_a_classifier_that_is_not_verbose_prints_nothing(self, capfd, backend):
        shots = None if backend == "exact" else 64
        QDEQClassifier(epochs=1, random_state=0, backend=backend, shots=shots).fit(X, Y).predict(X)
        assert capfd.readouterr() == ("", "")

    def test_verbose_predictions_show_samples(self, capfd):
        model = QDEQClassifier(epochs=1, random_state=0).fit(X, Y)
        model.set_params(backend="aer", shots=64, verbose=True).predict(X)
        assert "predicting 12/12" in capfd.readouterr().err


def test_exact_runs_show_epochs_and_no_shots(model):
    stream = Terminal()
    with ProgressBar(stream=stream) as bar:
        Trainer(model, TrainingConfig(epochs=2, batch_size=6), X, Y, callbacks=[bar]).run()
    assert "4/4" in stream.getvalue()
    assert "epoch=2/2" in stream.getvalue()
    assert "shots" not in stream.getvalue()


def test_compilation_that_takes_long_is_said_and_a_wait_without_any_is_not(monkeypatch):
    monkeypatch.setattr(progress, "_PATIENCE", 0.2)
    compiling, loading = io.StringIO(), io.StringIO()
    with ProgressBar(stream=compiling), trigger_event("numba:compile"):
        time.sleep(0.5)
    with ProgressBar(stream=loading):
        time.sleep(0.5)
    assert compiling.getvalue() == "compiling kernels not used on this machine before (10 to 15 s the first time) ...\n"
    assert loading.getvalue() == ""


def test_a_disabled_bar_prints_nothing(model, capfd):
    with (
        ProgressBar(enabled=False) as bar,
        executed(model, Execution("aer", shots=64, seed=0), listeners=[bar.on_job]) as measured,
    ):
        bar.on_job(JobEvent("failed", "j1", detail="broken"))
        tell = bar.evaluation(measured, "test", 5)
        tell(5)
    assert capfd.readouterr() == ("", "")


def test_the_time_moves_on_while_nothing_happens(monkeypatch, model):
    monkeypatch.setattr(progress, "_RENEWAL", 0.01)
    stream = Terminal()
    with ProgressBar(stream=stream) as bar, executed(model, Execution("aer", shots=64)) as measured:
        bar.evaluation(measured, "test", 5)
        bar.on_job(JobEvent("waiting", "j1", status="QUEUED", position=9))
        time.sleep(1.3)
        bar.on_job(JobEvent("retrying", detail="asking for job j1: gone", pause=2.4))
        time.sleep(1.3)
    assert {"queued, position 9, for 0:00:00", "queued, position 9, for 0:00:01"} <= set(
        re.findall(r"queued, position 9, for [\d:]+", stream.getvalue())
    )
    assert {"trying again in 2 s: asking for job j1: gone", "trying again in 1 s: asking for job j1: gone"} <= set(
        re.findall(r"trying again in \d s: asking for job j1: gone", stream.getvalue())
    )


def test_what_was_spent_and_is_left():
    account = Account(Budget(circuits=100, qpu_seconds=60), Cost(30, 3000, 2, qpu_seconds=12.34))
    assert progress._spent(account) == "30 circuits (70 left), 3,000 shots, QPU 12.3 s (47.7 left)"
    assert progress._spent(Account()) == ""


# what tqdm takes for a notebook, old and new versions of it
IN_A_NOTEBOOK = """
import sys, types
sys.modules["ipywidgets"] = None
sys.modules["ipykernel.zmqshell"] = types.ModuleType("ipykernel.zmqshell")
kernel = types.SimpleNamespace(config={"IPKernelApp": {}})
sys.modules["IPython"] = types.SimpleNamespace(get_ipython=lambda: kernel)
import qiskit_qdeq.training.display
"""


def test_a_notebook_without_ipywidgets_is_not_warned_of_bars_nobody_asked_for():
    done = subprocess.run([sys.executable, "-c", IN_A_NOTEBOOK], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
