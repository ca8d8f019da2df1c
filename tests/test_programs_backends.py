"""The programs where circuits run: simulators, fake backends, modes, fine-tuning, and what they refuse."""

from __future__ import annotations

import json

import numpy as np
import pytest

from qiskit_qdeq.__main__ import main
from qiskit_qdeq.exceptions import CheckpointError, InputError
from qiskit_qdeq.programs import evaluate, train

# few shots leave a sample or two unsolved, which a run says at its end
pytestmark = pytest.mark.filterwarnings("ignore:.*more shots")
TINY = {"epochs": 1, "limit": 12, "batch_size": 6, "no_plots": True, "quiet": True}
MEASURED = {**TINY, "backend": "aer", "shots": 200}


@pytest.fixture(scope="module")
def exact_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exact") / "run"
    train.main(None, {**TINY, "epochs": 30, "limit": 60, "output": folder})
    return folder


def test_training_from_shots_counts_what_it_spends(tmp_path):
    metrics = train.main(None, {**MEASURED, "output": tmp_path / "run"})
    stored = json.loads((tmp_path / "run" / "metrics.json").read_text("utf-8"))
    history = metrics["jobs"]
    # two steps of two jobs, and two jobs for each of validation and test: the epoch's validation is not measured again
    assert history == 2 * 2 + 2 * 2
    assert metrics["circuits"] * 200 == metrics["shots"] == stored["shots"]
    assert stored["execution"]["execution"]["backend"] == "aer"
    assert stored["configuration"]["solver"]["name"] == "probe"
    assert not np.isnan(stored["test_loss"])


def test_the_seed_decides_the_shots(tmp_path):
    runs = [
        train.main(None, {**MEASURED, "output": tmp_path / name, "seed": seed})
        for name, seed in zip("abc", (0, 0, 1), strict=True)
    ]
    assert runs[0]["test_loss"] == runs[1]["test_loss"] != runs[2]["test_loss"]


def test_a_measured_run_resumes_only_on_its_own_backend(tmp_path):
    folder = tmp_path / "run"
    train.main(None, {**MEASURED, "output": folder})
    for other in ({"shots": 300}, {"noise": "0.001,0.01,0.02"}, {"backend": "statevector"}):
        with pytest.raises(CheckpointError, match="execution"):
            train.main(None, {**MEASURED, "output": folder, "resume": True, **other})
    again = train.main(None, {"output": folder, "resume": True, "quiet": True, "no_plots": True})
    assert again["shots"] == json.loads((folder / "metrics.json").read_text("utf-8"))["shots"]


@pytest.mark.parametrize(
    "options",
    [
        {"backend": "aer", "shots": 500},
        {"backend": "aer", "noise": "0.001,0.01,0.02", "shots": 500},
        {"backend": "fake:manila", "shots": 500},
        {"backend": "fake:manila", "shots": 200, "resilience_level": 0, "mode": "session", "limit": 4},
    ],
)
def test_an_exact_run_is_evaluated_on_other_backends(exact_run, options):
    metrics = evaluate.main(None, {"directory": exact_run, "limit": 12, "quiet": True, **options})
    assert metrics["circuits"] > 0
    assert metrics["jobs"] == 2
    assert 0 < metrics["residual"] < 0.5


def test_training_in_computed_noise_is_a_run_of_its_own(exact_run, tmp_path):
    noisy = {**TINY, "noise": "0.002,0.02,0.03", "output": tmp_path / "run"}
    metrics = train.main(None, noisy)
    assert metrics["circuits"] == 0
    assert metrics["test_residual"] < 1e-4
    with pytest.raises(CheckpointError, match="execution"):
        train.main(None, {**noisy, "resume": True, "noise": "0.002,0.02,0.04"})
    computed, measured = (
        evaluate.main(None, {"directory": exact_run, "limit": 12, "quiet": True, "noise": "0.002,0.02,0.03", **options})
        for options in ({}, {"backend": "aer", "solver": "newton"})
    )
    assert computed["loss"] == pytest.approx(measured["loss"], rel=1e-6)
    assert computed["loss"] != pytest.approx(
        evaluate.main(None, {"directory": exact_run, "limit": 12, "quiet": True})["loss"]
    )


def test_fine_tuning_starts_from_the_parameters_of_a_run(exact_run, tmp_path):
    barely = {**MEASURED, "learning_rate": 1e-9, "output": tmp_path / "run", "backend": "aer", "shots": None}
    exact = evaluate.main(None, {"directory": exact_run, "limit": 12, "quiet": True})
    tuned = train.main(None, {**barely, "init_from": exact_run})
    assert tuned["test_loss"] == pytest.approx(exact["loss"], abs=1e-5)
    with pytest.raises(InputError, match=r"init-from .* must be the same"):
        train.main(None, {**TINY, "init_from": exact_run, "output": tmp_path / "other", "readout": "z"})


def test_mode_on_the_command_line_means_both(tmp_path, capsys):
    words = [
        "train",
        "--backend",
        "fake:manila",
        "--resilience-level",
        "0",
        "--shots",
        "20",
        "--mode",
        "batch",
        "--mode",
        "direct",
        "--limit",
        "4",
        "--epochs",
        "1",
    ]
    assert main([*words, "--no-plots", "--quiet", "--output", str(tmp_path / "run")]) == 0
    arguments = json.loads((tmp_path / "run" / "metrics.json").read_text("utf-8"))["arguments"]
    assert (arguments["mode"], arguments["execution_mode"]) == ("direct", "batch")
    assert main(["train", "--mode", "sesion"]) == 2
    assert "invalid choice: 'sesion'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shots": 100}, "--shots cannot have an effect with --backend exact"),
        ({"noise": "0.1,0.1,0.1", "gradient_method": "spsa"}, "--gradient-method cannot have an effect"),
        ({"optimization_level": 1}, "--optimization-level cannot have an effect"),
        ({"noise": "loud"}, "noise must be three rates"),
        ({"backend": "ear"}, "backend must be"),
        ({"backend": "aer", "shots": 0}, "shots"),
        ({"backend": "aer", "shots": 10, "precision": 0.1}, "precision"),
        ({"backend": "aer", "resilience_level": 1}, "resilience_level"),
        ({"backend": "fake:manilla"}, "manila"),
        ({"backend": "fake:manila", "resilience_level": 1, "runtime_options": "{"}, "runtime_options must be JSON"),
        ({"backend": "fake:manila", "resilience_level": 1, "runtime_options": "[]"}, "JSON object"),
        ({"backend": "fake:manila", "resilience_level": 1, "runtime_options": '{"twirl": {}}'}, "twirl"),
        ({"backend": "aer", "shots": 10, "regularization": "state", "regularization_strength": 0.1}, "regularization"),
        ({"backend": "aer", "shots": 10, "gradient_method": "spsa"}, "gradient_circuits"),
        ({"backend": "aer", "shots": 10, "solver": "probe", "encoding": "angle"}, "needs amplitude encoding"),
        ({"backend": "aer", "shots": 10, "mode": "batch", "execution_mode": "job"}, "differ"),
    ],
)
def test_options_that_cannot_be_used_are_refused_by_name(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        train.main(None, {**TINY, "output": tmp_path / "run", **options})


@pytest.mark.parametrize(
    "words", [("--mode", "session", "--execution-mode", "batch"), ("--execution-mode", "batch", "--mode", "session")]
)
def test_two_execution_modes_on_the_command_line_are_refused(words, capsys):
    with pytest.raises(SystemExit):
        train.command(words)
    assert "name" in (printed := capsys.readouterr().err)
    assert "give one of them" in printed


def test_resuming_a_finished_run_keeps_the_timings_of_its_training(tmp_path):
    first = train.main(None, {**MEASURED, "output": tmp_path / "run"})
    again = train.main(None, {"output": tmp_path / "run", "resume": True, "quiet": True, "no_plots": True})
    assert again["ms_per_step"] == first["ms_per_step"] > 0
    assert again["train_seconds"] == first["train_seconds"]


def test_what_an_evaluation_cost_is_printed(exact_run, capsys):
    evaluate.main(None, {"directory": exact_run, "limit": 12, "backend": "aer", "shots": 100})
    assert "82 circuits in 2 jobs" in capsys.readouterr().out
