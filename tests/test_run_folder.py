"""The folder of a run: one writer, nothing old beside the new, nothing lost by signals or by what befalls the disk."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import qiskit_qdeq
from qiskit_qdeq.__main__ import main
from qiskit_qdeq.exceptions import CheckpointError, CheckpointWarning, InputError
from qiskit_qdeq.programs import arguments, evaluate, folder, train
from qiskit_qdeq.training.checkpoint import load_checkpoint, save_checkpoint
from qiskit_qdeq.training.trainer import Trainer

ROOT = Path(qiskit_qdeq.__file__).parent.parent
CHECKPOINT = folder.CHECKPOINT
TINY = ["--limit", "60", "--no-plots", "--quiet"]
TWO = [*TINY, "--epochs", "2", "--schedule", "constant"]
TIMING = {"train_seconds", "ms_per_step", "arguments"}


@pytest.fixture(autouse=True)
def _working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a finished run with its figures; read only."""
    path = tmp_path_factory.mktemp("finished") / "run"
    assert main(["train", "--output", str(path), *[word for word in TWO if word != "--no-plots"]]) == 0
    return path


@pytest.fixture
def run(finished, tmp_path):
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture
def start():
    """The program as its own process, ended with the test."""
    processes = []

    def begin(*words, **options):
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "agg"}
        process = subprocess.Popen(
            [sys.executable, "-m", "qiskit_qdeq", *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            **options,
        )
        processes.append(process)
        return process

    yield begin
    for process in processes:
        process.kill()
        process.communicate()


def wait_for(path):
    deadline = time.monotonic() + 120
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def metrics_of(path):
    return json.loads((path / "metrics.json").read_text("utf-8"))


def figures_of(metrics):
    return {name: value for name, value in metrics.items() if name not in TIMING}


class TestSignals:
    @pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
    def test_a_stopped_run_says_how_to_go_on_and_goes_on_from_its_last_step(self, start, number, code):
        process = start("train", *TINY, "--epochs", "100000", "--schedule", "constant", "--output", "my run")
        wait_for(Path("my run") / CHECKPOINT)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
        assert process.returncode == code
        assert err.splitlines()[-1].endswith("--resume --output 'my run'")
        assert "Traceback" not in err
        stopped = load_checkpoint(Path("my run") / CHECKPOINT).document["progress"]["step"]
        assert stopped >= 1
        left = {path.name for path in Path("my run").iterdir()}
        assert left <= {"checkpoint.json", CHECKPOINT, f"{CHECKPOINT}.previous"}

    def test_a_run_stopped_before_its_first_step_leaves_nothing(self, monkeypatch, capsys):
        def stop_at_once(trainer):
            raise KeyboardInterrupt

        monkeypatch.setattr(Trainer, "run", stop_at_once)
        assert main(["train", *TINY, "--output", "new"]) == 130
        assert "nothing is kept" in capsys.readouterr().err
        assert not Path("new").exists()

    def test_the_second_signal_stops_at_once(self, monkeypatch, capfd):
        def hang(trainer):
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)
            raise AssertionError("still running")

        monkeypatch.setattr(Trainer, "run", hang)
        before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
        assert main(["train", *TINY, "--output", "new"]) == 130
        assert "once more to stop at once" in capfd.readouterr().err
        assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


class TestLock:
    def test_a_folder_that_a_run_writes_is_refused_to_others_by_name_and_process(self, start, capsys):
        process = start("train", *TINY, "--epochs", "100000", "--output", "run")
        wait_for(Path("run") / CHECKPOINT)
        for words in (["--overwrite"], ["--resume"], []):
            assert main(["train", *TINY, "--output", "run", *words]) == 2
            message = capsys.readouterr().err
            assert "--output run is being written" in message
            assert f"process {process.pid} on" in message
        assert main(["evaluate", "run", "--quiet"]) == 0
        process.kill()
        process.communicate()
        assert main(["train", *TINY, "--epochs", "1", "--output", "run", "--overwrite"]) == 0

    def test_two_processes_started_together_on_one_folder_do_not_both_train(self, start):
        words = ["train", *TINY, "--epochs", "100", "--output", "run"]
        both = [start(*words), start(*words)]
        errors = [process.communicate(timeout=120)[1] for process in both]
        assert sorted(process.returncode for process in both) == [0, 2], errors
        assert "--output run" in max(errors)

    def test_nothing_of_the_lock_is_left(self, finished):
        assert not [path for path in finished.iterdir() if path.name.startswith(".")]

    def test_a_lock_file_left_by_a_dead_process_does_not_block(self, run):
        (run / ".qdeq-run.lock").write_text("process 1 on here\n")
        assert main(["train", *TWO, "--output", str(run), "--resume"]) == 0

    def test_a_file_system_without_locks_is_accepted(self, monkeypatch):
        import fcntl

        def no_locks(descriptor, operation):
            raise OSError(37, "No locks available")

        monkeypatch.setattr(fcntl, "flock", no_locks)
        assert main(["train", *TWO, "--output", "new"]) == 0


class TestOverwrite:
    def test_results_of_the_old_run_are_gone_before_the_new_one_begins(self, run, monkeypatch):
        (run / "mine.txt").write_text("mine")
        assert (run / "history.png").exists()
        seen = []

        def look(trainer):
            seen.extend(path.name for path in run.iterdir() if not path.name.startswith("."))
            raise KeyboardInterrupt

        monkeypatch.setattr(Trainer, "run", look)
        assert main(["train", *TWO, "--output", str(run), "--overwrite"]) == 130
        assert seen == ["mine.txt"]

    def test_figures_drawn_are_those_that_are_removed(self, finished):
        drawn = {path.stem for path in finished.glob("*.png")}
        assert {"history", "confusion", "residual_traces", "spectrum"} <= drawn <= set(folder.FIGURES)

    def test_a_mistake_in_the_options_leaves_the_old_run_alone(self, run):
        before = {path.name: path.read_bytes() for path in run.iterdir()}
        assert main(["train", *TWO, "--output", str(run), "--overwrite", "--epochs", "0"]) == 2
        assert main(["train", *TWO, "--output", str(run), "--overwrite", "--resume"]) == 2
        assert {path.name: path.read_bytes() for path in run.iterdir()} == before

    @pytest.mark.parametrize("name", ["metrics.json", "history.png"])
    @pytest.mark.parametrize("words", [[], ["--overwrite"]])
    def test_files_of_our_names_without_a_run_are_not_replaced(self, capsys, name, words):
        Path("notes").mkdir()
        (Path("notes") / name).write_text("mine")
        assert main(["train", *TWO, "--output", "notes", *words]) == 2
        assert name in capsys.readouterr().err
        assert [path.read_text() for path in Path("notes").iterdir()] == ["mine"]


class TestResume:
    def test_at_a_constant_rate_more_epochs_give_the_uninterrupted_longer_run(self, run):
        assert main(["train", "--resume", "--output", str(run), "--epochs", "5", "--quiet"]) == 0
        assert main(["train", *TWO, "--output", "whole", "--epochs", "5"]) == 0
        assert figures_of(metrics_of(run)) == figures_of(metrics_of(Path("whole")))
        assert metrics_of(run)["epochs"] == 5
        assert metrics_of(run)["arguments"]["epochs"] == 5

    def test_a_run_that_goes_on_has_no_metrics_of_its_shorter_self(self, run, monkeypatch):
        def stop_at_once(trainer):
            raise KeyboardInterrupt

        monkeypatch.setattr(Trainer, "run", stop_at_once)
        assert main(["train", "--resume", "--output", str(run), "--epochs", "5", "--quiet"]) == 130
        assert not (run / "metrics.json").exists()
        assert not list(run.glob("*.png"))

    def test_a_schedule_over_all_epochs_cannot_be_extended(self, capsys):
        assert main(["train", *TINY, "--epochs", "1", "--output", "cosine"]) == 0
        assert main(["train", "--resume", "--output", "cosine", "--epochs", "2"]) == 1
        assert "'cosine' is stretched over all epochs" in capsys.readouterr().err

    def test_a_damaged_checkpoint_is_replaced_by_the_one_before_it_with_one_line(self, run, capsys):
        before = figures_of(metrics_of(run))
        (run / CHECKPOINT).write_bytes(b"damaged")
        with pytest.warns(CheckpointWarning, match="previous"):
            train.main(None, {"output": str(run), "resume": True, "quiet": True, "no_plots": True})
        assert figures_of(metrics_of(run)) == before
        assert main(["evaluate", str(run), "--quiet"]) == 0

    @pytest.mark.filterwarnings("default")
    def test_the_command_line_shows_that_warning_as_one_line(self, run, capsys):
        (run / CHECKPOINT).write_bytes(b"damaged")
        assert main(["train", "--resume", "--output", str(run), "--quiet", "--no-plots"]) == 0
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        assert err.startswith(f"warning: Checkpoint '{run / CHECKPOINT}' cannot be used")

    def test_an_option_typed_as_its_default_is_not_taken_for_absent(self, capsys):
        assert main(["train", *TWO, "--seed", "3", "--output", "run"]) == 0
        assert main(["train", "--resume", "--output", "run", "--seed", "0"]) == 1
        assert "training.seed: stored 3, wanted 0" in capsys.readouterr().err

    def test_a_checkpoint_of_a_trainer_of_ones_own_is_refused_clearly(self, run, capsys):
        loaded = load_checkpoint(run / CHECKPOINT)
        save_checkpoint(run / CHECKPOINT, loaded.arrays, {**loaded.document, "notes": {}}, keep_previous=False)
        assert main(["train", "--resume", "--output", str(run)]) == 1
        assert "not of a run of this program" in capsys.readouterr().err
        assert main(["evaluate", str(run)]) == 1
        assert "does not describe" in capsys.readouterr().err


class TestDisk:
    def test_a_folder_deleted_during_the_run_is_made_again(self, finished, monkeypatch):
        real = Trainer.save

        def save(trainer):
            shutil.rmtree("run")
            real(trainer)

        monkeypatch.setattr(Trainer, "save", save)
        assert main(["train", *TWO, "--output", "run"]) == 0
        assert figures_of(metrics_of(Path("run"))) == figures_of(metrics_of(finished))
        assert main(["evaluate", "run", "--quiet"]) == 0

    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
    @pytest.mark.parametrize("target", ["/dev/full/x.json", "missing/x.json", "."])
    def test_a_json_file_that_cannot_be_written_is_named(self, run, capsys, target):
        (Path.cwd() / "missing").write_text("a file")
        assert main(["evaluate", str(run), "--quiet", "--json", target]) == 1
        assert target.split("/")[0] in capsys.readouterr().err

    def test_a_folder_replaced_by_a_file_is_a_clear_error(self, monkeypatch, capsys):
        real = Trainer.save

        def save(trainer):
            shutil.rmtree("run")
            Path("run").write_text("a file")
            real(trainer)

        monkeypatch.setattr(Trainer, "save", save)
        assert main(["train", *TWO, "--output", "run"]) == 1
        assert "'run/checkpoint.safetensors' could not be written" in capsys.readouterr().err


class TestEvaluate:
    def test_the_run_s_data_folder_is_used_again_from_any_working_folder(self, tmp_path, monkeypatch):
        rng = np.random.default_rng(0)
        parts = {
            f"{kind}_{side}": values
            for side, count in (("train", 400), ("test", 200))
            for kind, values in (
                ("x", rng.integers(1, 256, (count, 28, 28)).astype(np.uint8)),
                ("y", np.arange(count, dtype=np.int64) % 10),
            )
        }
        Path("files").mkdir()
        np.savez("files/mnist.npz", **parts)
        words = ["train", *TINY, "--epochs", "1", "--data", "mnist", "--data-dir", "files", "--output", "run"]
        assert main(words) == 0
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        again = evaluate.main(None, {"directory": tmp_path / "run", "quiet": True})
        assert again["accuracy"] == metrics_of(tmp_path / "run")["test_accuracy"]
        assert main(["train", "--resume", "--quiet", "--no-plots", "--output", str(tmp_path / "run")]) == 0


class TestArguments:
    def test_a_folder_whose_name_no_terminal_can_show_is_written(self, start):
        process = start(
            "train",
            "--limit",
            "60",
            "--epochs",
            "1",
            "--no-plots",
            "--output",
            b"r\xff".decode("utf-8", "surrogateescape"),
        )
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        assert "udcff" in out

    @pytest.mark.parametrize(
        ("text", "labels"),
        [
            ("all", tuple(range(10))),
            ("0-9", tuple(range(10))),
            ("3,1", (3, 1)),
            ("8-9,0", (8, 9, 0)),
            ("5-5, 7", (5, 7)),
        ],
    )
    def test_classes_are_lists_ranges_or_all(self, text, labels):
        assert arguments.class_list(text) == labels

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("output", 3),
            ("output", b"run"),
            ("output", "a\0b"),
            ("data", ["digits"]),
            ("data_dir", 1.5),
            ("epochs", 2.5),
            ("epochs", True),
            ("learning_rate", "fast"),
            ("learning_rate", 1j),
            ("quiet", "no"),
            ("resume", 1),
            ("classes", 3),
            ("classes", [0, "1"]),
            ("classes", {0, 1}),
            ("seed", None),
            ("seed", 2**31),
            ("max_steps", 10**30),
            ("output", ""),
        ],
    )
    def test_a_value_of_another_type_is_an_input_error_that_names_it(self, name, value):
        with pytest.raises(InputError, match=name):
            train.main(None, {name: value})

    @settings(deadline=None, derandomize=True, max_examples=300)
    @given(
        st.sampled_from([train.TrainArguments, evaluate.EvaluateArguments]),
        st.dictionaries(
            st.sampled_from(sorted(train.TrainArguments.__dataclass_fields__)),
            st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers()) | st.binary(),
        ),
    )
    def test_no_value_ends_in_anything_but_options_or_an_input_error(self, kind, values):
        try:
            found = arguments.from_mapping(kind, values)
        except InputError:
            return
        for name, value in values.items():
            kept = getattr(found, name)
            assert kept == (tuple(value) if isinstance(value, list) else value) or (kept != kept and value != value)

    @pytest.mark.parametrize("values", [{}, {"directory": ""}, {"directory": 3}])
    def test_evaluate_needs_a_directory(self, values):
        with pytest.raises(InputError, match="directory"):
            evaluate.main(None, values)

    @pytest.mark.parametrize("values", [3, [("epochs", 1)], "epochs", {1: 2}])
    def test_what_is_no_mapping_of_names_is_an_input_error(self, values):
        with pytest.raises(InputError, match="arguments"):
            train.main(None, values)

    def test_numpy_numbers_are_numbers(self):
        found = arguments.from_mapping(
            train.TrainArguments, {"epochs": np.int64(3), "learning_rate": np.float32(0.5), "classes": np.array([1, 2])}
        )
        assert (found.epochs, found.learning_rate, found.classes) == (3, 0.5, (1, 2))
        assert type(found.epochs) is int


def test_evaluate_refuses_a_checkpoint_whose_description_is_nonsense(run):
    loaded = load_checkpoint(run / CHECKPOINT)
    notes, training = loaded.document["notes"], loaded.document["training"]
    for document in (
        {"notes": {**notes, "model": {"num_features": "x"}}},
        {"notes": {**notes, "model": {**notes["model"], "num_qubits": [4]}}},
        {"notes": {**notes, "data": {"name": "digits"}}},
        {"notes": {**notes, "data": 3}},
        {"training": {**training, "solver": None}},
        {"training": {}},
    ):
        save_checkpoint(run / CHECKPOINT, loaded.arrays, {**loaded.document, **document}, keep_previous=False)
        with pytest.raises((CheckpointError, InputError)):
            evaluate.main(None, {"directory": str(run)})
