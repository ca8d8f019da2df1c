"""`--dry-run` says what a run would cost, and does nothing else."""

from __future__ import annotations

import json
import os
import signal

import pytest
import qiskit_ibm_runtime

from qiskit_qdeq.__main__ import main
from qiskit_qdeq.exceptions import CheckpointError, InputError
from qiskit_qdeq.execution import estimators
from qiskit_qdeq.execution.devices import fake_backend
from qiskit_qdeq.execution.runner import CircuitRunner
from qiskit_qdeq.programs import evaluate, train
from qiskit_qdeq.training.trainer import Trainer

# few shots leave a sample or two unsolved, which a run says at its end
pytestmark = pytest.mark.filterwarnings("ignore:.*more shots")
SHORT = {"epochs": 2, "limit": 10, "batch_size": 6, "backend": "aer", "shots": 64, "quiet": True, "no_plots": True}


@pytest.fixture
def nothing_runs(monkeypatch, tmp_path):
    """An empty working folder in which executing a circuit or taking a step is an error."""

    def refused(*arguments, **options):
        raise AssertionError("a dry run executed something")

    monkeypatch.setattr(CircuitRunner, "run", refused)
    monkeypatch.setattr(Trainer, "run", refused)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_dry_run_prints_a_table_and_leaves_no_trace(nothing_runs, capsys):
    words = ["--backend", "fake:torino", "--shots", "1024", "--limit", "20", "--epochs", "2", "--dry-run"]
    assert main(["train", *words]) == 0
    printed = capsys.readouterr().out
    assert "QPU time" in printed
    assert "whole run (4 steps)" in printed
    assert "Open Plan" in printed
    assert not list(nothing_runs.iterdir())


def test_a_dry_run_predicts_what_the_run_then_executes(tmp_path):
    predicted = train.main(None, {**SHORT, "dry_run": True, "output": tmp_path / "run"})
    assert not (tmp_path / "run").exists()
    json.dumps(predicted)
    metrics = train.main(None, {**SHORT, "output": tmp_path / "run"})
    for name in ("circuits", "shots", "jobs"):
        assert predicted["total"][name] == metrics[name]
    # and the evaluation of what was trained
    options = {"directory": str(tmp_path / "run"), "backend": "aer", "shots": 32, "quiet": True}
    predicted = evaluate.main(None, {**options, "dry_run": True, "json": str(tmp_path / "never.json")})
    found = evaluate.main(None, options)
    for name in ("circuits", "shots", "jobs"):
        assert predicted["total"][name] == found[name]
    assert not (tmp_path / "never.json").exists()


def test_a_dry_resume_predicts_what_is_left_and_takes_no_lock(tmp_path, monkeypatch):
    folder, whole = tmp_path / "run", train.main(None, {**SHORT, "dry_run": True})
    step = Trainer._step

    def interrupted(self):
        step(self)
        os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train.main(None, {**SHORT, "output": folder})
    before = {path: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr("qiskit_qdeq.programs.folder.locked", None)
    left = train.main(None, {"output": folder, "resume": True, "dry_run": True, "quiet": True})
    assert left["steps"] == whole["steps"] - 1
    assert left["total"]["shots"] == whole["total"]["shots"] - whole["first_step"]["shots"]
    with pytest.raises(CheckpointError, match="execution"):
        train.main(None, {"output": folder, "resume": True, "dry_run": True, "quiet": True, "shots": 99})
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_a_device_is_only_asked_what_it_is(nothing_runs, monkeypatch):
    def refused(*arguments, **options):
        raise AssertionError("a dry run opened a session")

    asked = []
    monkeypatch.setattr(estimators, "ibm_backend", lambda name: asked.append(name) or fake_backend("torino"))
    for name in ("Session", "Batch"):
        monkeypatch.setattr(qiskit_ibm_runtime, name, refused)
    options = {"backend": "ibm:torino", "execution_mode": "session", "max_time": 60, "limit": 8, "quiet": True}
    found = train.main(None, {**options, "dry_run": True})
    assert asked == ["torino"]
    assert found["total"]["qpu_seconds"] > 2 * found["total"]["jobs"]
    assert not list(nothing_runs.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "--dry-run cannot have an effect with --backend exact, which runs no circuits"),
        ({"backend": "fake:torino", "max_time": 60}, "max_time has no effect"),
        ({"backend": "aer", "execution_mode": "batch"}, "mode has no effect"),
        ({"backend": "aer", "solver": "scipy:hybr"}, "cannot be predicted"),
        ({"backend": "aer", "resume": True, "output": "nowhere"}, "no run to resume"),
    ],
)
def test_what_cannot_be_predicted_or_run_is_refused(nothing_runs, options, message):
    with pytest.raises(InputError, match=message):
        train.main(None, {"dry_run": True, "limit": 8, **options})
    assert not list(nothing_runs.iterdir())
