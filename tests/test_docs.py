"""The programs in docs/*.md run as they stand; those of a missing library skip.

On the pages of PAGES all blocks together are one program, on the others each is one.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import pkgutil
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest

import qiskit_qdeq
from qiskit_qdeq.exceptions import MissingExtraError

ROOT = Path(qiskit_qdeq.__file__).parent.parent


def blocks(name):
    page = ROOT / "docs" / name
    return re.findall(
        r"^```python\n(.*?)^```", page.read_text("utf-8") if page.exists() else "", re.MULTILINE | re.DOTALL
    )


BLOCKS, NOISE, CONNECTORS = blocks("callbacks.md"), blocks("noise.md"), blocks("connectors.md")
#: What tells the programs of connectors.md apart, and what they may need, with the extra that brings it.
WORDS = ("NeuralNetworkClassifier", "TorchConnector", "EstimatorQNN(", "QDEQRegressor")
EXTRAS = {"qiskit_machine_learning": "ml", "torch": "torch"}
#: Pages read from top to bottom, and something their program prints.
PAGES = {
    "index.md": "% of the training samples",
    "quickstart.md": "R² = 0.9",
    "solvers.md": "newton     Solution(",
    "gradients.md": "gmres    cosine 1.0000",
    "backends.md": "Cost(",
    "mathematics.md": "",
    "distribution.md": "332833500\n",
}
NEEDED = {"tensorboardX": ("tensorboardX",), "mlflow": ("mlflow", "sqlalchemy")}

pytestmark = pytest.mark.skipif(not BLOCKS, reason="an installed package has no documentation beside it")


def run_block(part, folder, blocks=BLOCKS):
    [block] = [block for block in blocks if part in block]
    for name in NEEDED.get(part, ()):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed")
    return run_program(block, folder)


def run_program(block, folder):
    (folder / "recipe.py").write_text(block, "utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "recipe.py"], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done


def test_every_recipe_is_among_those_tested():
    assert len(BLOCKS) == 4
    for part in ("JSONLines", "tensorboardX", "mlflow", "logging.basicConfig"):
        assert sum(part in block for block in BLOCKS) == 1


def test_json_lines_hold_every_step_and_epoch(tmp_path):
    run_block("JSONLines", tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "run.jsonl").read_text("utf-8").splitlines()]
    assert [line["what"] for line in lines] == ["step", "step", "epoch"] * 2
    assert [line["step"] for line in lines if line["what"] == "step"] == [1, 2, 3, 4]
    assert sum(line["shots"] for line in lines if line["what"] == "epoch") == sum(
        line["shots"] for line in lines if line["what"] == "step"
    )


def test_the_log_is_set_up_without_a_word(tmp_path):
    done = run_block("logging.basicConfig", tmp_path)
    assert (done.stdout, done.stderr) == ("", "")


def test_tensorboard_has_all_figures_of_all_epochs(tmp_path):
    run_block("tensorboardX", tmp_path)
    from tensorboardX.proto.event_pb2 import Event

    [path] = (tmp_path / "runs" / "digits").iterdir()
    data, scalars = path.read_bytes(), {}
    while data:
        # length, its checksum, event, its checksum
        size = struct.unpack("<Q", data[:8])[0]
        event = Event.FromString(data[12 : 12 + size])
        for value in event.summary.value:
            scalars.setdefault(value.tag, []).append(event.step)
        data = data[16 + size :]
    assert scalars["step/loss"] == list(range(1, 16))
    assert scalars["epoch/valid_accuracy"] == [1, 2, 3, 4, 5]


def test_mlflow_has_the_configuration_and_all_figures_of_all_epochs(tmp_path):
    run_block("mlflow", tmp_path)
    code = (
        "import json, mlflow; mlflow.set_tracking_uri('sqlite:///mlflow.db'); client = mlflow.MlflowClient();"
        "[run] = client.search_runs(['0']); metrics = client.get_metric_history(run.info.run_id, 'valid_accuracy');"
        "print(json.dumps([run.info.status, run.data.params['epochs'], [metric.step for metric in metrics]]))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == ["FINISHED", "5", [1, 2, 3, 4, 5]]


def test_noise_moves_the_equilibrium_of_every_model_shown(tmp_path):
    moves = [float(line) for line in run_block("simple_noise", tmp_path, NOISE).stdout.split()]
    assert len(moves) == 3
    assert all(0.001 < move < 0.5 for move in moves)


def test_a_classifier_learns_under_noise_as_shown(tmp_path):
    assert float(run_block("QDEQClassifier", tmp_path, NOISE).stdout) > 0.5
    assert len(NOISE) == 2


def test_every_page_with_programs_is_among_those_tested():
    # tiling.md shows a device of 133 qubits: tests/execution/test_copies.py has small ones
    tested = {*PAGES, "callbacks.md", "noise.md", "connectors.md", "tiling.md"}
    assert {page.name for page in (ROOT / "docs").glob("*.md") if blocks(page.name)} == tested


@pytest.mark.parametrize("page", PAGES)
def test_the_program_of_a_page_runs_without_a_warning(page, tmp_path):
    done = run_program("\n".join(blocks(page)), tmp_path)
    assert PAGES[page] in done.stdout
    assert "Warning" not in done.stderr


REFERENCE = sorted(
    name
    for page in (ROOT / "docs" / "api").glob("*.md")
    for name in re.findall(r"^::: (\S+)$", page.read_text("utf-8"), re.MULTILINE)
)


@pytest.mark.parametrize("name", REFERENCE)
def test_what_the_reference_names_exists_and_is_documented(name):
    try:
        # resolve_name takes a module that needs an extra for one that is not there
        importlib.import_module(name)
    except MissingExtraError as error:
        pytest.skip(str(error))
    except ModuleNotFoundError:
        pass
    assert pkgutil.resolve_name(name).__doc__


def test_the_reference_has_every_public_name_of_the_package():
    for name, home in qiskit_qdeq._HOMES.items():
        assert {f"qiskit_qdeq.{name}", f"qiskit_qdeq.{home}"} & set(REFERENCE), name


def test_connectors_have_a_program_each():
    assert [next(word for word in WORDS if word in block) for block in CONNECTORS] == list(WORDS)


@pytest.mark.parametrize("block", CONNECTORS, ids=WORDS[: len(CONNECTORS)])
def test_a_connector_s_program_runs_without_a_warning(block, tmp_path):
    for name, extra in EXTRAS.items():
        if re.search(rf"^(from|import) {name}\b", block, re.MULTILINE) and importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed: pip install 'qiskit-qdeq[{extra}]'")
    done = run_program(block, tmp_path)
    assert done.stdout
    assert "Warning" not in done.stderr
