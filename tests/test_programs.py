"""`python -m qiskit_qdeq`: what it promises to write, how it stops and goes on, and how it says no."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import qiskit_qdeq
from qiskit_qdeq.__main__ import main
from qiskit_qdeq.equilibrium.scipy_root import METHODS
from qiskit_qdeq.exceptions import CheckpointError, InputError
from qiskit_qdeq.programs import evaluate, train
from qiskit_qdeq.programs.folder import new_run
from qiskit_qdeq.training.checkpoint import load_checkpoint
from qiskit_qdeq.training.saving import CheckpointFile
from qiskit_qdeq.training.trainer import Trainer

ROOT = Path(qiskit_qdeq.__file__).parent.parent
CHECKPOINT = "checkpoint.safetensors"
TINY = ["--epochs", "2", "--limit", "60", "--no-plots", "--quiet"]
SMALL = {"epochs": 2, "limit": 40, "no_plots": True, "quiet": True, "state_scale": 0.2, "tol": 1e-9, "max_steps": 200}
DIRECT = {**{name: SMALL[name] for name in ("epochs", "limit", "no_plots", "quiet", "state_scale")}, "mode": "direct"}
TIMING = {"train_seconds", "ms_per_step", "arguments"}


def metrics_of(folder):
    return json.loads((folder / "metrics.json").read_text("utf-8"))


def without_timing(metrics):
    return {name: value for name, value in metrics.items() if name not in TIMING}


def start(*words, cwd):
    """The program as its own process."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "agg"}
    return subprocess.Popen(
        [sys.executable, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env=environment,
    )


def finish(process, timeout=150):
    out, err = process.communicate(timeout=timeout)
    return process.returncode, out, err


@pytest.fixture(autouse=True)
def _working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a finished tiny run; read only."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    assert main(["train", *TINY, "--output", str(folder)]) == 0
    return folder


@pytest.fixture
def run(finished, tmp_path):
    """A copy of that folder, to be damaged."""
    return Path(shutil.copytree(finished, tmp_path / "copy"))


class TestMetrics:
    def test_every_promised_field_is_there_and_finite(self, finished):
        metrics = metrics_of(finished)
        for name in ("test_accuracy", "test_loss", "test_residual", "ms_per_step", "valid_accuracy", "train_accuracy"):
            assert math.isfinite(metrics[name])
        assert 0 <= metrics["test_accuracy"] <= 1
        assert metrics["num_weights"] == 39
        assert metrics["depth"] == 48
        assert metrics["two_qubit_gates"] == 28
        assert metrics["circuits"] == metrics["shots"] == 0
        assert metrics["epochs"] == 2
        assert metrics["steps"] == 2
        assert metrics["test_samples"] == 60
        assert metrics["configuration"]["epochs"] == 2
        assert metrics["configuration"]["solver"]["name"] == "newton"
        assert metrics["arguments"]["limit"] == 60
        assert metrics["seeds"]["training"] == 0
        assert metrics["versions"]["qiskit_qdeq"] == qiskit_qdeq.__version__

    def test_evaluate_reproduces_the_test_figures_exactly(self, finished, capsys):
        assert main(["evaluate", str(finished), "--json", "again.json"]) == 0
        again, metrics = json.loads(Path("again.json").read_text("utf-8")), metrics_of(finished)
        for name in ("accuracy", "loss", "residual"):
            assert again[name] == metrics[f"test_{name}"]
        assert f"{metrics['test_accuracy']:.2%}" in capsys.readouterr().out

    def test_evaluate_reproduces_the_validation_figures_and_takes_a_file(self, finished):
        again = evaluate.main(None, {"directory": str(finished / CHECKPOINT), "split": "valid", "quiet": True})
        assert again["accuracy"] == metrics_of(finished)["valid_accuracy"]

    def test_evaluate_with_another_solver_finds_the_same_equilibria(self, finished):
        again = evaluate.main(None, {"directory": str(finished), "solver": "scipy:hybr", "tol": 1e-10, "quiet": True})
        assert again["loss"] == pytest.approx(metrics_of(finished)["test_loss"], abs=1e-6)
        assert again["residual"] <= 1e-10

    def test_evaluation_leaves_the_run_as_it_is(self, run):
        before = {path.name: path.read_bytes() for path in run.iterdir()}
        assert main(["evaluate", str(run), "--quiet"]) == 0
        assert {path.name: path.read_bytes() for path in run.iterdir()} == before

    def test_same_seed_same_metrics_and_another_seed_others(self, finished, tmp_path):
        for seed in ("0", "1"):
            assert main(["train", *TINY, "--seed", seed, "--output", str(tmp_path / seed)]) == 0
        first, second = (without_timing(metrics_of(tmp_path / seed)) for seed in ("0", "1"))
        assert first == without_timing(metrics_of(finished))
        assert first["test_loss"] != second["test_loss"]

    def test_summary_names_accuracy_and_folder(self, tmp_path):
        lines = []
        words = {"epochs": 1, "limit": 60, "no_plots": True, "output": str(tmp_path / "new")}
        metrics = train.main(None, words, publish=lines.append)
        assert f"{metrics['test_accuracy']:.2%}" in lines[0]
        assert str(tmp_path / "new") in lines[-1]

    def test_runs_without_output_get_folders_of_their_own(self, tmp_path):
        for _ in range(2):
            assert main(["train", *TINY]) == 0
        assert len(list((tmp_path / "qdeq-runs").glob("*/metrics.json"))) == 2


class TestResume:
    @pytest.mark.parametrize("every", [0, 3])
    def test_interrupted_and_resumed_equals_uninterrupted(self, tmp_path, monkeypatch, capsys, every):
        words = ["train", "--epochs", "4", "--limit", "60", "--batch-size", "16", "--dropout", "0.1", "--start", "warm"]
        words += ["--no-plots", "--quiet", "--checkpoint-every", str(every)]
        assert main([*words, "--output", "whole"]) == 0
        save, count = Trainer.save, [0]

        def save_and_stop(trainer):
            save(trainer)
            count[0] += 1
            if count[0] == 2:
                raise KeyboardInterrupt

        due = CheckpointFile.is_due
        monkeypatch.setattr(Trainer, "save", save_and_stop)
        monkeypatch.setattr(
            CheckpointFile, "is_due", lambda file, state, epoch_ends: epoch_ends or due(file, state, epoch_ends)
        )
        assert main([*words, "--output", "halves"]) == 130
        assert "--resume" in capsys.readouterr().err
        assert not (tmp_path / "halves" / "metrics.json").exists()
        before = load_checkpoint(tmp_path / "halves" / CHECKPOINT).document["seconds"]
        monkeypatch.undo()
        monkeypatch.chdir(tmp_path)
        assert main([*words, "--output", "halves", "--resume"]) == 0
        assert without_timing(metrics_of(Path("halves"))) == without_timing(metrics_of(Path("whole")))
        assert metrics_of(Path("halves"))["train_seconds"] > before > 0

    def test_resuming_a_finished_run_changes_no_figure(self, run):
        before = without_timing(metrics_of(run))
        assert main(["train", *TINY, "--output", str(run), "--resume"]) == 0
        assert without_timing(metrics_of(run)) == before

    def test_another_configuration_is_refused_with_every_difference_and_the_file_untouched(self, run, capsys):
        before = (run / CHECKPOINT).read_bytes()
        words = [
            "train",
            *TINY,
            "--epochs",
            "7",
            "--solver",
            "broyden",
            "--seed",
            "3",
            "--output",
            str(run),
            "--resume",
        ]
        assert main(words) == 1
        message = capsys.readouterr().err
        assert "training.epochs: stored 2, wanted 7" in message
        assert "training.solver.name: stored 'newton', wanted 'broyden'" in message
        assert "training.seed: stored 0, wanted 3" in message
        assert (run / CHECKPOINT).read_bytes() == before

    def test_other_data_are_refused(self, run, capsys):
        assert main(["train", *TINY, "--limit", "40", "--output", str(run), "--resume"]) == 1
        assert "data.samples: stored 60, wanted 40" in capsys.readouterr().err

    @pytest.mark.parametrize("words", [["--resume"], ["--resume", "--output", "nothing"]])
    def test_nothing_to_resume_is_said(self, capsys, words):
        assert main(["train", *TINY, *words]) == 2
        assert "--output" in capsys.readouterr().err
        assert not Path("nothing").exists()


class TestOutput:
    def test_earlier_run_is_not_touched_unless_asked(self, run, capsys):
        before = {path.name: path.read_bytes() for path in run.iterdir()}
        assert main(["train", *TINY, "--output", str(run)]) == 2
        message = capsys.readouterr().err
        assert "--resume" in message
        assert "--overwrite" in message
        assert {path.name: path.read_bytes() for path in run.iterdir()} == before

    def test_overwrite_replaces_the_run(self, run):
        assert main(["train", *TINY, "--seed", "5", "--output", str(run), "--overwrite"]) == 0
        assert metrics_of(run)["seed"] == 5
        assert (
            evaluate.main(None, {"directory": str(run), "quiet": True})["accuracy"] == metrics_of(run)["test_accuracy"]
        )

    @pytest.mark.parametrize("target", ["file", "file/sub", "/proc/qdeq/run"])
    def test_folder_that_cannot_be_made_is_named(self, tmp_path, capsys, target):
        (tmp_path / "file").write_text("mine", "utf-8")
        assert main(["train", *TINY, "--output", target]) == 2
        assert target in capsys.readouterr().err
        assert (tmp_path / "file").read_text("utf-8") == "mine"

    def test_foreign_file_of_a_name_we_use_is_kept(self, tmp_path, capsys):
        (tmp_path / "notes").mkdir()
        (tmp_path / "notes" / "checkpoint.json").write_text("my notes", "utf-8")
        assert main(["train", *TINY, "--output", "notes"]) == 1
        assert "checkpoint.json" in capsys.readouterr().err
        assert (tmp_path / "notes" / "checkpoint.json").read_text("utf-8") == "my notes"

    def test_output_may_be_a_path(self, tmp_path):
        train.main(None, {"epochs": 1, "limit": 40, "no_plots": True, "quiet": True, "output": tmp_path / "new"})
        assert metrics_of(tmp_path / "new")["epochs"] == 1

    def test_two_runs_at_once_without_output_do_not_share_a_folder(self):
        options = train.from_mapping(train.TrainArguments, {})
        with new_run(options) as first, new_run(options) as second:
            assert first != second


def damaged(original, kind):
    flipped = bytearray(original)
    flipped[-9] ^= 1
    return {
        "half": original[: len(original) // 2],
        "empty": b"",
        "flipped": bytes(flipped),
        "other": b"\x80\x04." * 99,
    }[kind]


class TestDamage:
    @pytest.mark.parametrize("kind", ["half", "empty", "flipped", "other"])
    def test_damaged_checkpoint_is_refused_by_both_programs_and_kept(self, run, capsys, kind):
        path = run / CHECKPOINT
        path.write_bytes(damaged(path.read_bytes(), kind))
        path.with_name(f"{CHECKPOINT}.previous").unlink()
        before = path.read_bytes()
        for words in (["evaluate", str(run)], ["train", *TINY, "--output", str(run), "--resume"]):
            assert main(words) == 1
            message = capsys.readouterr().err
            assert message.startswith("error: ")
            assert str(path) in message
        assert path.read_bytes() == before

    def test_previous_generation_can_be_evaluated(self, run):
        (run / CHECKPOINT).unlink()
        found = evaluate.main(None, {"directory": str(run / f"{CHECKPOINT}.previous"), "quiet": True})
        assert found["samples"] == 60

    @pytest.mark.parametrize("name", ["nothing", "."])
    def test_no_checkpoint_is_said(self, capsys, name):
        assert main(["evaluate", name]) == 1
        assert "there is no such file" in capsys.readouterr().err


MISTAKES = [
    (["--classes", "zero"], "classes"),
    (["--classes", "3"], "fewer than two classes"),
    (["--classes", "3,3"], "twice"),
    (["--classes", "0,12"], "class 12"),
    (["--data", "mnist", "--data-dir", "missing"], "missing"),
    (["--data", "digits", "--data-dir", "x"], "digits"),
    (["--data", "letters"], "letters"),
    (["--limit", "0"], "limit=0"),
    (["--limit", "many"], "many"),
    (["--num-qubits", "3"], "num_qubits=3"),
    (["--epochs", "0"], "epochs"),
    (["--batch-size", "-1"], "batch_size"),
    (["--learning-rate", "nan"], "learning_rate"),
    (["--learning-rate", "0"], "learning_rate"),
    (["--dropout", "1"], "dropout"),
    (["--patience", "-1"], "patience"),
    (["--seed", "-1"], "seed"),
    (["--state-scale", "inf"], "state_scale"),
    (["--tol", "-1"], "tol"),
    (["--max-steps", "0"], "max_steps"),
    (["--solver", "secant"], "secant"),
    (["--solver", "scipy:brentq"], "brentq"),
    (["--backward", "autograd"], "autograd"),
    (["--backward", "shine"], "broyden"),
    (["--start", "ones"], "ones"),
    (["--mode", "explicit"], "explicit"),
    (["--encoding", "basis"], "basis"),
    (["--ansatz", "ring"], "ring"),
    (["--readout", "zzzzz"], "zzzzz"),
    (["--preset", "authors"], "authors"),
    (["--regularization-strength", "-1", "--regularization", "state"], "strength"),
    (["--learning-speed", "1"], "--learning-speed"),
    (["--classes", "0-12"], "0-12"),
    (["--classes", "9-0"], "9-0"),
    (["--classes", "0-"], "0-"),
    (["--classes", ""], "classes"),
    (["--layers", "3"], "--layers 3 has no effect"),
    (["--mode", "direct", "--solver", "newton"], "--solver has no effect"),
    (["--mode", "direct", "--backward", "jfb"], "--backward has no effect"),
    (["--mode", "direct", "--start", "warm"], "--start has no effect"),
    (["--mode", "direct", "--tol", "1e-3"], "--tol has no effect"),
    (["--mode", "direct", "--max-steps", "3"], "--max-steps has no effect"),
    (["--mode", "direct", "--warmup", "3"], "--warmup has no effect"),
    (["--mode", "direct", "--regularization", "state"], "--regularization has no effect"),
    (["--mode", "direct", "--regularization-strength", "1"], "--regularization-strength has no effect"),
    (["--resume", "--overwrite"], "give one of them"),
    (["--checkpoint-every", "-1"], "checkpoint_every"),
    (["--data-dir", "", "--data", "mnist"], "data_dir"),
    (["--max-steps", "9" * 30], "max_steps"),
    (["--output", ""], "output"),
    (["superfluous"], "superfluous"),
]


class TestMistakes:
    @pytest.mark.parametrize(("words", "named"), MISTAKES, ids=[" ".join(words) for words, _ in MISTAKES])
    def test_bad_option_ends_with_code_two_names_it_and_writes_nothing(self, tmp_path, capsys, words, named):
        assert main(["train", *TINY, "--output", "new", *words]) == 2
        message = capsys.readouterr().err
        assert named in message
        assert "Traceback" not in message
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize(
        ("words", "named"),
        [
            (["--split", "all"], "all"),
            (["--solver", "secant"], "secant"),
            (["--tol", "nan"], "tol"),
            (["--limit", "1"], "limit=1"),
            (["--data", "mnist", "--data-dir", "missing"], "missing"),
        ],
    )
    def test_bad_option_of_evaluate_ends_with_code_two_and_names_it(self, finished, capsys, words, named):
        assert main(["evaluate", str(finished), *words]) == 2
        assert named in capsys.readouterr().err

    def test_solver_for_a_direct_run_is_refused_when_evaluating(self, tmp_path, capsys):
        assert main(["train", *TINY, "--mode", "direct", "--output", "direct"]) == 0
        assert main(["evaluate", "direct", "--solver", "newton"]) == 2
        assert "--mode direct" in capsys.readouterr().err

    @pytest.mark.parametrize("words", [[], ["tune"], ["--epochs"]])
    def test_unknown_command_prints_the_usage_and_code_two(self, capsys, words):
        assert main(words) == 2
        assert "usage:" in capsys.readouterr().err

    @pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["evaluate", "-h"], ["--version"]])
    def test_help_and_version_are_no_mistakes(self, capsys, words):
        assert main(words) == 0
        assert capsys.readouterr().out

    @pytest.mark.parametrize("name", ["train", "evaluate", "sweep", "reproduce", "noise"])
    def test_help_shows_what_one_can_type(self, capsys, name):
        assert main([name, "--help"]) == 0
        text = " ".join(capsys.readouterr().out.split())
        assert text.startswith(f"usage: python -m qiskit_qdeq {name} [-h]")
        assert not re.search(r"default:\s*(\(|False|None|\))", text)
        assert "(default: amplitude,angle)" in text or name != "reproduce"

    @pytest.mark.parametrize("values", [{"epoch": 3}, {"preset": "x"}, {"epochs": "3"}, {"classes": "0,1"}])
    def test_python_callers_get_an_input_error(self, values):
        with pytest.raises(InputError, match=next(iter(values))):
            train.main(None, {**values, "output": "new"})

    def test_python_callers_of_evaluate_get_a_checkpoint_error(self):
        with pytest.raises(CheckpointError, match="nothing"):
            evaluate.main(None, {"directory": "nothing"})

    @pytest.mark.parametrize(
        ("error", "code"),
        [
            (CheckpointError("it broke"), 1),
            (OSError("it broke"), 1),
            (MemoryError("it broke"), 1),
            (InputError("it broke"), 2),
        ],
        ids=["checkpoint", "system", "memory", "input"],
    )
    def test_failure_is_one_line_and_a_code(self, monkeypatch, capsys, error, code):
        def fail(words):
            raise error

        monkeypatch.setattr(train, "command", fail)
        assert main(["train"]) == code
        assert capsys.readouterr().err == "error: it broke\n"


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """Metrics of newton with the exact gradient, per encoding."""
    return {
        encoding: train.main(None, {**SMALL, "encoding": encoding, "output": str(tmp_path_factory.mktemp(encoding))})
        for encoding in ("amplitude", "angle")
    }


class TestEveryChoice:
    """Choices of how to compute the same thing train to the same figures, newton's with the exact gradient."""

    # linear mixing leaves a few training samples just above so tight a tolerance
    @pytest.mark.filterwarnings("ignore::qiskit_qdeq.exceptions.ConvergenceWarning")
    @pytest.mark.parametrize("encoding", ["amplitude", "angle"])
    @pytest.mark.parametrize("solver", ["broyden", "anderson", "picard", *(f"scipy:{name}" for name in METHODS)])
    def test_every_solver(self, reference, encoding, solver):
        found = train.main(None, {**SMALL, "encoding": encoding, "solver": solver, "output": "new"})
        assert found["test_loss"] == pytest.approx(reference[encoding]["test_loss"], abs=1e-6)
        assert found["test_accuracy"] == reference[encoding]["test_accuracy"]
        assert found["test_max_residual"] <= 1e-9
        assert found["test_unconverged"] == 0

    @pytest.mark.parametrize("encoding", ["amplitude", "angle"])
    @pytest.mark.parametrize("backward", ["gmres", "broyden", "anderson", "neumann", "jfb", "shine"])
    def test_every_backward_mode(self, reference, encoding, backward):
        # the last three approximate the gradient: near the exact one where the map is this contractive
        within = 1e-6 if backward in {"gmres", "broyden", "anderson"} else 1e-2
        found = train.main(
            None, {**SMALL, "encoding": encoding, "solver": "broyden", "backward": backward, "output": "new"}
        )
        assert found["test_loss"] == pytest.approx(reference[encoding]["test_loss"], abs=within)

    @pytest.mark.parametrize("encoding", ["amplitude", "angle"])
    @pytest.mark.parametrize("start", ["warm", "direct"])
    @pytest.mark.parametrize("solver", ["newton", "anderson"])
    def test_every_start(self, reference, encoding, start, solver):
        found = train.main(None, {**SMALL, "encoding": encoding, "start": start, "solver": solver, "output": "new"})
        assert found["test_loss"] == pytest.approx(reference[encoding]["test_loss"], abs=1e-6)

    @pytest.mark.parametrize("encoding", ["amplitude", "angle"])
    def test_many_direct_layers_are_the_equilibrium(self, reference, encoding):
        found = train.main(None, {**DIRECT, "encoding": encoding, "layers": 40, "output": "new"})
        assert found["test_loss"] == pytest.approx(reference[encoding]["test_loss"], abs=1e-6)

    @pytest.mark.parametrize(
        "options",
        [
            {},
            DIRECT,
            {**DIRECT, "layers": 3, "encoding": "angle"},
            {"warmup": 1},
            {"preset": "paper"},
            {"ansatz": "random"},
            {"ansatz": "hardware_efficient", "readout": "z"},
            {"regularization": "state", "regularization_strength": 0.1},
            {"regularization": "input", "regularization_strength": 0.1},
            {"regularization": "hutchinson", "regularization_strength": 0.1, "encoding": "angle"},
            {"dtype": "float32", "tol": 1e-5},
            {"optimizer": "sgd", "schedule": "step", "weight_decay": 0.1, "clip_norm": 0.5, "dropout": 0.2},
            {"classes": (3, 1)},
            {"batch_size": 10**6},
            {"patience": 1, "epochs": 30, "learning_rate": 1.0},
        ],
        ids=lambda options: "-".join(map(str, options.values())) or "default",
    )
    def test_every_other_option_trains_and_is_evaluated_alike(self, options):
        values = options if "mode" in options else {**SMALL, **options}
        found = train.main(None, {**values, "output": "new"})
        assert math.isfinite(found["test_loss"])
        assert 1 <= found["epochs"] <= values["epochs"]
        again = evaluate.main(None, {"directory": "new", "quiet": True})
        assert (again["accuracy"], again["loss"]) == (found["test_accuracy"], found["test_loss"])


class TestRuntimePrograms:
    @staticmethod
    def load(name):
        spec = importlib.util.spec_from_file_location(f"runtime_{name}", ROOT / "runtime_programs" / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    def test_they_are_importable_mains(self):
        found = self.load("train").main(None, {**SMALL, "output": "new"})
        again = self.load("evaluate").main(None, {"directory": "new", "quiet": True})
        assert again["accuracy"] == found["test_accuracy"]

    def test_they_are_scripts_with_the_same_exit_codes(self, finished, tmp_path):
        scripts = ROOT / "runtime_programs"
        good = start(scripts / "evaluate.py", finished, cwd=tmp_path)
        bad = start(scripts / "train.py", "--epochs", "0", cwd=tmp_path)
        lost = start(scripts / "evaluate.py", "nothing", cwd=tmp_path)
        code, out, _ = finish(good)
        assert code == 0
        assert f"{metrics_of(finished)['test_accuracy']:.2%}" in out
        code, _, err = finish(bad)
        assert (code, err.count("\n")) == (2, 1), err
        code, _, err = finish(lost)
        assert (code, err.count("\n")) == (1, 1)


class TestProcess:
    def test_default_command_trains_evaluates_and_draws_in_two_minutes(self, tmp_path):
        began = time.monotonic()
        code, out, err = finish(start("-m", "qiskit_qdeq", "train", cwd=tmp_path))
        assert code == 0, err
        assert time.monotonic() - began < 120
        (folder,) = (tmp_path / "qdeq-runs").iterdir()
        metrics = metrics_of(folder)
        assert metrics["test_accuracy"] >= 0.93
        assert metrics["test_max_residual"] <= 1e-6
        assert f"test accuracy   {metrics['test_accuracy']:.2%}" in out
        assert "training 700/700, epoch 100/100" in err
        for name in ("history", "confusion", "residual_traces", "spectrum"):
            picture = (folder / f"{name}.png").read_bytes()
            assert picture.startswith(b"\x89PNG")
            assert len(picture) > 5_000

    def test_control_c_keeps_a_checkpoint_to_resume_from(self, tmp_path):
        words = ["-m", "qiskit_qdeq", "train", "--epochs", "100000", "--limit", "60", "--output", "run", "--quiet"]
        process = start(*words, cwd=tmp_path)
        deadline = time.monotonic() + 120
        while not (tmp_path / "run" / CHECKPOINT).exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        code, _, err = finish(process)
        assert code == 130
        assert "--resume" in err
        assert "Traceback" not in err
        assert main(["evaluate", str(tmp_path / "run"), "--quiet"]) == 0

    def test_exit_codes_reach_the_shell(self, tmp_path):
        codes = [
            start("-m", "qiskit_qdeq", *words, cwd=tmp_path)
            for words in (["--version"], ["tune"], ["evaluate", "nothing"])
        ]
        assert [finish(process)[0] for process in codes] == [0, 2, 1]
