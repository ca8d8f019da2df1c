"""The log of the programs: what is in it, what never is, and that nobody hears of it who did not ask."""

from __future__ import annotations

import errno
import logging
import subprocess
import sys

import pytest

import qiskit_qdeq
from qiskit_qdeq.__main__ import main
from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.programs import evaluate, train
from qiskit_qdeq.programs.arguments import TrainArguments
from qiskit_qdeq.programs.logs import RedactingFormatter, logged

few_shots = pytest.mark.filterwarnings("ignore:.*more shots")
TOKEN = "fake" + "0123456789abcdefABCDEF-_" * 2
SHORT_TOKEN = "short-secret"
TINY = {"epochs": 2, "limit": 12, "batch_size": 6, "no_plots": True}
PACKAGE = logging.getLogger("qiskit_qdeq")


@pytest.fixture(autouse=True)
def _logging_stays_as_it_was():
    before = PACKAGE.level, list(PACKAGE.handlers), logging.getLogger().handlers[:]
    yield
    assert (PACKAGE.level, PACKAGE.handlers, logging.getLogger().handlers[:]) == before


def test_importing_the_package_installs_nothing_but_a_null_handler():
    code = (
        "import logging, qiskit_qdeq; print(logging.getLogger().handlers, logging.getLogger('qiskit_qdeq').handlers,"
        " logging.getLogger('qiskit_qdeq').level); logging.getLogger('qiskit_qdeq.execution').warning('unheard')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] [<NullHandler (NOTSET)>] 0"
    assert done.stderr == ""
    assert qiskit_qdeq.__version__


@few_shots
def test_a_quiet_program_prints_nothing_and_logs_all_the_same(tmp_path, capfd):
    log = tmp_path / "run.log"
    options = {**TINY, "backend": "aer", "shots": 64, "quiet": True, "log_file": str(log)}
    train.main(None, {**options, "output": tmp_path / "run"})
    evaluate.main(
        None, {"directory": tmp_path / "run", "backend": "aer", "shots": 64, "quiet": True, "log_file": str(log)}
    )
    assert capfd.readouterr() == ("", "")
    text = log.read_text("utf-8")
    assert "INFO qiskit_qdeq.training: training on" in text
    assert "epoch 2, loss " in text
    assert "training ended after step 4" in text
    assert "DEBUG" not in text


def test_a_program_shows_measured_evaluations(tmp_path, capfd):
    train.main(None, {**TINY, "quiet": True, "output": tmp_path / "run"})
    evaluate.main(None, {"directory": tmp_path / "run", "backend": "aer", "shots": 64, "limit": 12})
    shown = capfd.readouterr()
    assert "test 0/12" in shown.err
    assert "test 12/12" in shown.err
    assert "test accuracy" in shown.out


def test_verbose_adds_the_details_on_standard_error_and_in_the_file(tmp_path, capfd):
    log = tmp_path / "run.log"
    words = ["train", "--epochs", "1", "--limit", "12", "--no-plots", "--verbose", "--log-file", str(log)]
    assert main([*words, "--output", str(tmp_path / "run")]) == 0
    for text in (capfd.readouterr().err, log.read_text("utf-8")):
        assert "DEBUG qiskit_qdeq.training: step 1: loss" in text


@pytest.mark.parametrize("token", [TOKEN, SHORT_TOKEN])
def test_no_token_reaches_the_log_in_messages_arguments_or_exceptions(tmp_path, monkeypatch, capfd, token):
    monkeypatch.setenv("QISKIT_IBM_TOKEN", token)
    log = tmp_path / "run.log"

    def program():
        with logged(TrainArguments(log_file=str(log), verbose=True)):
            logging.getLogger("qiskit_qdeq.execution").warning("Bearer %s was refused", token)
            raise RuntimeError(f"401 for {token}")

    with pytest.raises(RuntimeError):
        program()
    texts = log.read_text("utf-8"), capfd.readouterr().err
    for text in texts:
        assert "Bearer *** was refused" in text
        assert "RuntimeError: 401 for ***" in text
        assert "Traceback" in text
        assert token not in text


def test_a_stack_in_a_record_is_redacted_too():
    record = logging.LogRecord("qiskit_qdeq", logging.INFO, "", 0, "message", None, None, sinfo=f"Stack: key={TOKEN}")
    assert TOKEN not in RedactingFormatter().format(record)


def test_the_error_that_ends_a_program_is_its_last_entry(tmp_path, capfd):
    log = tmp_path / "run.log"
    with pytest.raises(InputError):
        train.main(None, {**TINY, "learning_rate": -1.0, "output": tmp_path / "run", "log_file": str(log)})
    assert (
        "ERROR qiskit_qdeq.programs: ended by InputError: TrainingConfig: learning_rate"
        in log.read_text("utf-8").splitlines()[-1]
    )


@pytest.mark.filterwarnings("always:.*more shots")
def test_warnings_of_a_program_are_printed_once_and_logged(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr("qiskit_qdeq.training.unsolved._TOLERATED", -1.0)
    log = tmp_path / "run.log"
    words = ["train", "--backend", "aer", "--shots", "10", "--epochs", "1", "--limit", "12", "--no-plots", "--verbose"]
    assert main([*words, "--output", str(tmp_path / "run"), "--log-file", str(log)]) == 0
    error = capfd.readouterr().err
    assert error.count("more shots") == 1
    assert "WARNING qiskit_qdeq.warnings:" in log.read_text("utf-8")


@pytest.mark.parametrize("path", ["missing/run.log", ".", "nul\0l"])
def test_a_log_that_cannot_be_written_is_refused_before_anything_is_made(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"log.file"):
        train.main(None, {**TINY, "output": "run", "log_file": path})
    assert not list(tmp_path.iterdir())


def test_a_full_disk_costs_the_log_and_not_the_run(tmp_path, monkeypatch, capfd):
    def full(handler, record):
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError:
            handler.handleError(record)

    monkeypatch.setattr("qiskit_qdeq.programs.logs._LogFile.emit", full)
    metrics = train.main(
        None, {**TINY, "quiet": True, "output": tmp_path / "run", "log_file": str(tmp_path / "run.log")}
    )
    assert metrics["steps"] == 4
    assert capfd.readouterr().err.count("No space left on device") == 1


def test_quiet_and_verbose_exclude_each_other():
    with pytest.raises(InputError, match="give one of them"):
        train.main(None, {**TINY, "quiet": True, "verbose": True})
