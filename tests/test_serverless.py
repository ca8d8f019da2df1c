"""The programs as jobs of Qiskit Serverless, and called with backend objects and sessions."""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from loopback import LoopbackService
from qiskit.primitives import StatevectorEstimator
from qiskit_ibm_runtime import Batch, Session
from qiskit_ibm_runtime.fake_provider import FakeManilaV2, FakeTorino

from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.execution.devices import ibm_backend
from qiskit_qdeq.execution.noise import simple_noise
from qiskit_qdeq.programs import evaluate, train

SCRIPTS = Path(__file__).parent.parent / "runtime_programs"
SHORT = {"epochs": 1, "limit": 12, "limit_train": 8, "batch_size": 8, "quiet": True, "no_plots": True}

pytestmark = pytest.mark.skipif(not SCRIPTS.exists(), reason="an installed package has no programs beside it")


def loaded(path):
    spec = importlib.util.spec_from_file_location(f"job_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def job(name, folder, arguments, **environment):
    """Run a script as the platform does."""
    if isinstance(arguments, dict):
        arguments = json.dumps(arguments)
    (folder / "arguments.json").write_text(arguments, "utf-8")
    paths = {"ARGUMENTS_PATH": str(folder / "arguments.json"), "RESULTS_PATH": str(folder / "results.json")}
    given = {name: value for name, value in {**os.environ, **paths, **environment}.items() if value is not None}
    return subprocess.run(
        [sys.executable, SCRIPTS / f"{name}.py"], capture_output=True, text=True, cwd=folder, env=given, timeout=300
    )


@pytest.mark.parametrize("path", sorted(SCRIPTS.glob("*.py")), ids=lambda path: path.stem)
def test_every_program_has_one_signature(path):
    parameters = inspect.signature(loaded(path).main).parameters
    assert list(parameters) == ["backend", "arguments", "mode", "mapper", "publish"]
    assert (parameters["mode"].default, parameters["mapper"].default, parameters["publish"].default) == (
        None,
        map,
        print,
    )


def test_a_job_reads_arguments_and_writes_its_result(tmp_path):
    arguments = {**SHORT, "backend": "aer", "shots": 50, "output": "run"}
    done = job("train", tmp_path, arguments)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "results.json").read_text("utf-8"))
    assert result == json.loads((tmp_path / "run" / "metrics.json").read_text("utf-8"))
    assert result["shots"] > 0
    assert (
        result["test_accuracy"] == train.main(None, {**arguments, "output": str(tmp_path / "again")})["test_accuracy"]
    )


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        ('{"epochs": 0}', {}, "epochs must be"),
        ("[1]", {}, "must hold a JSON object of arguments, got list"),
        ("{", {}, "cannot be read as JSON"),
        ("[" * 100_000, {}, "cannot be read as JSON"),
        ("{}", {"RESULTS_PATH": None}, r"\$RESULTS_PATH must name the file"),
        ("{}", {"ARGUMENTS_PATH": "nowhere.json"}, "nowhere.json cannot be read"),
    ],
    ids=["value", "list", "syntax", "deep", "no-result", "no-file"],
)
def test_a_job_that_cannot_run_ends_with_one_line_and_no_result(arguments, environment, message, tmp_path):
    done = job("train", tmp_path, arguments, **environment)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert re.search(message, done.stderr)
    assert not (tmp_path / "results.json").exists()


def test_words_beside_a_jobs_arguments_are_refused(tmp_path):
    paths = {"ARGUMENTS_PATH": str(tmp_path / "arguments.json"), "RESULTS_PATH": str(tmp_path / "results.json")}
    (tmp_path / "arguments.json").write_text("{}", "utf-8")
    done = subprocess.run(
        [sys.executable, SCRIPTS / "train.py", "--epochs", "3"],
        env={**os.environ, **paths},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert re.search(r"command line has '--epochs 3': .* unset \$ARGUMENTS_PATH", done.stderr)
    assert [path.name for path in tmp_path.iterdir()] == ["arguments.json"]


def test_help_is_given_whatever_the_environment_says(tmp_path):
    done = subprocess.run(
        [sys.executable, SCRIPTS / "train.py", "--help"],
        env={**os.environ, "ARGUMENTS_PATH": "nowhere.json"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0
    assert "--learning-rate" in done.stdout


@pytest.mark.filterwarnings("ignore::qiskit_qdeq.exceptions.ConvergenceWarning")
class TestBackendObjects:
    def test_an_object_gives_what_its_name_gives(self, tmp_path):
        options = {**SHORT, "shots": 50}
        named = train.main("fake:manila", {**options, "output": tmp_path / "named"})
        given = train.main(FakeManilaV2(), {**options, "output": tmp_path / "given"})
        assert given["circuits"] == named["circuits"] > 0
        assert given["test_loss"] == named["test_loss"]
        again = evaluate.main(FakeManilaV2(), {"directory": tmp_path / "given", "shots": 50, "quiet": True})
        assert again["backend"] == "given"
        assert again["circuits"] > 0

    def test_a_run_on_an_object_goes_on_only_with_one(self, tmp_path):
        folder = tmp_path / "run"
        simulator = simple_noise(4, two_qubit=0.01)
        train.main(simulator, {**SHORT, "resilience_level": 0, "shots": 50, "output": folder})
        more = {"output": folder, "resume": True, "quiet": True, "no_plots": True}
        with pytest.raises(InputError, match=r"executed on a backend object: pass it again"):
            train.main(None, more)
        assert train.main(simulator, more)["epochs"] == 1

    @pytest.mark.parametrize("kind", [Session, Batch])
    def test_a_session_that_the_caller_opened_is_used_and_left_open(self, kind, tmp_path):
        device = FakeManilaV2()
        mode = kind(device)
        options = {**SHORT, "limit_train": 4, "batch_size": 4, "limit": 4, "shots": 50, "output": tmp_path / "run"}
        found = train.main(device, options, mode)
        assert found["circuits"] > 0
        with pytest.raises(InputError, match=r"opened on fake_manila, but the backend is fake_torino"):
            train.main(FakeTorino(), {**options, "output": tmp_path / "other"}, mode)
        assert mode._active

    @pytest.mark.parametrize(
        ("backend", "arguments", "mode", "message"),
        [
            ({"epochs": 3}, None, None, r"backend must be None, a text .* arguments come second"),
            (StatevectorEstimator(), {}, None, r"backend must be None, a text"),
            ("fake:manila", {"backend": "aer"}, None, r"backend is 'fake:manila' beside the arguments and 'aer' among"),
            (None, {"execution_mode": "job"}, "batch", r"execution_mode is 'batch' beside the arguments and 'job'"),
            (None, {"backend": "aer"}, "weekly", r"execution_mode must be one of"),
            ("fake:manila", {}, object(), r"an open session goes with the backend object"),
            (FakeManilaV2(), {"shots": 10}, object(), r"session must be an open Session or Batch"),
            (None, {"backend": "given"}, None, r"pass it again, main\(backend, arguments\), or name a backend"),
            (None, [("epochs", 1)], None, r"arguments must be a mapping"),
        ],
        ids=[
            "swapped",
            "estimator",
            "two-backends",
            "two-modes",
            "mode",
            "text-session",
            "no-session",
            "given",
            "pairs",
        ],
    )
    def test_what_contradicts_is_refused(self, backend, arguments, mode, message, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(InputError, match=message):
            train.main(backend, arguments, mode)
        assert list(tmp_path.rglob("*.safetensors")) == []


@pytest.mark.filterwarnings("ignore::qiskit_qdeq.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("kind", [Session, Batch])
def test_at_the_service_all_jobs_run_in_the_callers_session_which_stays_open(kind, tmp_path, monkeypatch):
    with LoopbackService(engine="random") as service:
        for name, value in service.environment.items():
            monkeypatch.setenv(name, value)
        device = ibm_backend("ibm_loopback")
        mode = kind(device)
        options = {**SHORT, "shots": 50, "optimization_level": 1, "output": tmp_path / "run"}
        found = train.main(device, options, mode)
        assert found["jobs"] == len(service.jobs) > 1
        assert {job.session_id for job in service.jobs} == {mode.session_id}
        assert len(service.sessions) == 1
        assert mode._active
        assert (tmp_path / "run" / "jobs.jsonl").exists()
        mode.close()
