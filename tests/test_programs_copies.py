"""The programs with several copies of the circuit in one execution."""

from __future__ import annotations

import json

import pytest

from qiskit_qdeq.__main__ import main
from qiskit_qdeq.exceptions import CheckpointError, InputError
from qiskit_qdeq.programs import evaluate, train

pytestmark = pytest.mark.filterwarnings("ignore:.*more shots")
TINY = {"epochs": 1, "limit": 8, "batch_size": 4, "no_plots": True, "quiet": True, "backend": "aer", "shots": 200}


def exit_code(words):
    try:
        return main(words)
    except SystemExit as end:  # of argparse
        return end.code


def test_a_run_with_copies_counts_executions_of_all_of_them_and_resumes_as_itself(tmp_path):
    single = train.main(None, {**TINY, "output": tmp_path / "single"})
    folder = tmp_path / "run"
    metrics = train.main(None, {**TINY, "copies": 4, "output": folder})
    assert metrics["jobs"] == single["jobs"]
    assert single["circuits"] / 4 <= metrics["circuits"] < single["circuits"] / 4 + metrics["jobs"]
    assert metrics["shots"] == 200 * metrics["circuits"]
    stored = json.loads((folder / "metrics.json").read_text("utf-8"))
    assert stored["execution"]["copies"] == stored["arguments"]["copies"] == 4
    with pytest.raises(CheckpointError, match="copies: stored 4, wanted 2"):
        train.main(None, {**TINY, "copies": 2, "output": folder, "resume": True})
    again = train.main(None, {"output": folder, "resume": True, "quiet": True, "no_plots": True})
    assert again["circuits"] == metrics["circuits"]
    found = evaluate.main(
        None,
        {"directory": folder, "backend": "fake:guadalupe", "copies": "auto", "shots": 100, "limit": 4, "quiet": True},
    )
    assert 0 < found["circuits"] < 4 * 5 + 10 + 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--backend", "aer", "--copies", "many"], "number or auto, got 'many'"),
        (["--backend", "aer", "--copies", "auto"], "room for any number"),
        (["--copies", "2"], "--copies cannot have an effect with --backend exact"),
        (["--backend", "aer", "--copies", "0"], "copies must be an integer of at least 1"),
    ],
)
def test_copies_that_make_no_sense_are_refused_in_one_line(words, message, capsys):
    assert exit_code(["train", *words]) == 2
    assert message in capsys.readouterr().err


def test_python_callers_get_an_input_error():
    with pytest.raises(InputError, match="copies must be"):
        train.main(None, {**TINY, "copies": 1.5})
