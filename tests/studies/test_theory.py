"""The checks of the paper's theory: their figures against closed forms and Qiskit, their program, its files and errors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from qiskit.quantum_info import Statevector

import qiskit_qdeq
from qiskit_qdeq import AmplitudeEncoder, AngleEncoder, CircuitTemplate, QDEQModel, Trainer, TrainingConfig, solve
from qiskit_qdeq.data import DataSplit
from qiskit_qdeq.equilibrium.solvers import Broyden, Newton
from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.programs.paper_theory import CHECKS, main
from qiskit_qdeq.studies.theory import existence, synthetic
from qiskit_qdeq.studies.theory.contraction import Snapshots
from qiskit_qdeq.studies.theory.existence import conditions
from qiskit_qdeq.studies.theory.finding import Finding, Setting, number, paper_model
from qiskit_qdeq.studies.theory.gradients import MODES, problem_of, relative_error
from qiskit_qdeq.studies.theory.overlap import claimed, overlaps
from qiskit_qdeq.studies.theory.solvers import circuits_per_jacobian, orders
from qiskit_qdeq.studies.theory.synthetic import rates
from qiskit_qdeq.visualization._figure import new_figure

PROGRAM = Path(qiskit_qdeq.__file__).parent.parent / "runtime_programs" / "paper_theory.py"
ENCODERS = {
    "one RY": AngleEncoder("y", [0], 1),
    "n = 4": AngleEncoder("yzxy", [0] * 4, 1),
    "ten RX": AngleEncoder("x" * 10, [0] * 10, 1),
    "amplitude": AmplitudeEncoder(2),
}


@pytest.mark.parametrize("name", ENCODERS)
def test_overlaps_are_those_of_qiskit_statevectors(name):
    encoder = ENCODERS[name]
    first, second = np.random.default_rng(0).normal(size=(2, 5, encoder.num_features))

    def states(inputs):
        values = encoder.angles(inputs)
        return [
            Statevector(encoder.circuit.assign_parameters(dict(zip(encoder.parameters, row, strict=True))))
            for row in values
        ]

    expected = [a.inner(b) for a, b in zip(states(first), states(second), strict=True)]
    assert np.allclose(overlaps(encoder, first, second), expected, atol=1e-13)


@settings(deadline=None, derandomize=True)
@given(st.lists(st.sampled_from("xyz"), min_size=1, max_size=6), st.integers(0, 2**32))
def test_rotations_turn_a_state_by_at_most_half_the_sum_of_their_angles(axes, seed):
    rng = np.random.default_rng(seed)
    encoder = AngleEncoder(axes, [0] * len(axes), 1)
    first = rng.uniform(-np.pi, np.pi, (20, len(axes)))
    change = rng.uniform(-1, 1, first.shape) * 2 * np.pi / len(axes)
    bound = np.cos(np.abs(change).sum(axis=1) / 2)
    assert (overlaps(encoder, first, first + change).real >= bound - 1e-12).all()


@settings(deadline=None, derandomize=True)
@given(st.integers(0, 2**32))
def test_amplitude_overlap_obeys_the_bound_of_the_documentation(seed):
    first, second = np.random.default_rng(seed).normal(size=(2, 20, 2))
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    gap = 1 - overlaps(AmplitudeEncoder(2), first, second).real
    assert (gap <= np.linalg.norm(first - second, axis=1) ** 2 / (2 * lengths) + 1e-12).all()


def test_claim_fails_for_ten_equal_rotations_at_every_distance_it_is_about():
    distance = np.linspace(0.05, 1.0, 20)
    step = distance[:, None] * np.ones(10) / np.sqrt(10)
    overlap = overlaps(AngleEncoder("y" * 10, [0] * 10, 1), np.zeros((20, 10)), step)
    assert np.allclose(overlap, np.cos(np.sqrt(10) * distance / 2))
    assert (np.abs(overlap) < claimed(distance)).all()


@pytest.mark.parametrize("encoding", ["amplitude", "angle"])
def test_slopes_by_finite_differences_never_exceed_the_bound(encoding):
    model = paper_model(encoding)
    rng = np.random.default_rng(1)
    inputs = model.prepare(rng.normal(size=(30, 16)))
    problem = model.map(rng.uniform(-np.pi, np.pi, model.num_weights), inputs)
    state, rows, step = rng.uniform(-1, 1, (30, 4)), np.arange(30), 1e-6
    columns = [
        (problem.values(state + step * unit, rows).values - problem.values(state - step * unit, rows).values)
        / (2 * step)
        for unit in np.eye(4)
    ]
    slopes = np.linalg.norm(np.stack(columns, axis=2), ord=2, axis=(1, 2))
    length = np.linalg.norm(inputs + state @ model.injection.T, axis=1)
    bound = 2 * 4 / length if encoding == "amplitude" else 16
    assert (slopes <= bound).all()
    assert (slopes <= model.lipschitz_bound(inputs)).all()


def test_amplitude_bound_is_attained():
    # CX and H make every Z_j act as Z_0 on this input, so that all rows of J add up
    ansatz = QuantumCircuit(4)
    unused = Parameter("w")
    ansatz.rz(unused, 3)
    for wire in (2, 3):
        ansatz.h(3 - wire)
        ansatz.cx(3, 3 - wire)
    model = QDEQModel(CircuitTemplate(AmplitudeEncoder(16), ansatz), 2)
    inputs = np.repeat([[1.0, 0, 0, 1]], 4, axis=1)
    jacobian = model.map([0.0], inputs).at(np.zeros((1, 4))).jacobian[0]
    assert np.isclose(np.linalg.norm(jacobian, 2), 2 * 4 / np.linalg.norm(inputs))


def test_conditions_count_samples_by_hand():
    # lengths 16, 4 sqrt(2) and 2; the last is P c itself, at which nothing is left
    x = np.stack([np.full(16, 4.0), np.array([4.0, -4.0] + [0.0] * 14), np.full(16, 0.5)])
    labels = np.arange(3)
    split = DataSplit(x, labels, x[:1], labels[:1], x[1:2], labels[1:2], (0, 1, 2), "three", (4, 4))
    found = conditions(split, 4)
    assert found["samples"] == 5
    assert found["longer than n %"] == 80
    assert found["longer than 3n %"] == found["contraction proven %"] == 40
    assert np.isclose([found["shortest length"], found["shortest x + P q"]], [2, 0], atol=1e-6).all()


def test_orders_of_known_sequences():
    steps = np.arange(8)
    golden = (1 + np.sqrt(5)) / 2
    found = orders(np.array([0.09 * 0.3**steps, 0.5 ** (4 * golden**steps), 0.3 ** (2.0**steps)]))
    assert np.allclose(found, [1, golden, 2])
    assert np.isnan(orders(np.array([[0.5, 0.4, np.nan]]))).all()


def test_rates_of_known_decays_and_none_where_nothing_decays():
    steps = np.arange(61)[:, None]
    found = rates(np.hstack([0.3 * 0.5**steps, 0.1 * 0.9**steps, np.full((61, 1), 0.5)]))
    assert np.allclose(found[:2], [0.5, 0.9])
    assert np.isnan(found[2])


@pytest.mark.parametrize(("encoding", "angles"), [("amplitude", 15), ("angle", 16)])
def test_jacobian_by_shifts_takes_two_circuits_per_encoder_angle(encoding, angles):
    model = paper_model(encoding)
    inputs = model.prepare(np.random.default_rng(0).normal(size=(3, 16)))
    assert circuits_per_jacobian(model, np.zeros(model.num_weights), inputs) == 1 + 2 * angles


@pytest.mark.parametrize("encoding", ["amplitude", "angle"])
def test_gradients_of_exact_modes_are_differences_of_a_loss_computed_here(encoding):
    problem = problem_of(Setting(quick=True, seed=3), encoding)
    model, size = problem.model, problem.model.num_weights
    step, index = 1e-5, 7

    def loss(shift):
        parameters = problem.parameters.copy()
        parameters[index] += shift
        weights, matrix, bias = model.split(parameters)
        circuit_map = model.map(weights, problem.inputs)
        state = solve(circuit_map, Newton(tol=1e-13), problem.state).state
        logits = circuit_map.at(state).features.repeat(4, axis=1) @ matrix.T + bias
        chosen = logits[np.arange(len(logits)), problem.labels]
        return np.mean(np.log(np.exp(logits).sum(axis=1)) - chosen)

    expected = (loss(step) - loss(-step)) / (2 * step)
    tight = Broyden(tol=1e-12, max_steps=200)
    reference = problem.reference()
    assert reference.shape == (size,)
    assert np.isclose(reference[index], expected, atol=1e-9)
    for name in ("exact", "broyden", "anderson", "gmres"):
        assert relative_error(problem.gradient(tight, MODES[name]), reference) < 1e-7
    assert relative_error(problem.gradient(tight, MODES["jfb"]), reference) > 1e-3


def test_snapshots_hold_the_parameters_before_and_after_training():
    model = paper_model("amplitude")
    x = np.random.default_rng(0).normal(size=(8, 16))
    snapshots = Snapshots((0, 2, 3))
    trainer = Trainer(model, TrainingConfig(epochs=3, batch_size=4), x, np.arange(8) % 4, callbacks=[snapshots])
    start = trainer.state.parameters.copy()
    result = trainer.run()
    assert sorted(snapshots.parameters) == [0, 2, 3]
    assert np.array_equal(snapshots.parameters[0], start)
    assert np.array_equal(snapshots.parameters[3], result.last_parameters)
    assert not np.array_equal(snapshots.parameters[2], result.last_parameters)


@pytest.mark.parametrize("name", CHECKS)
def test_every_check_prints_its_table_and_writes_its_three_files(name, tmp_path):
    lines = []
    found = main(None, {"check": name, "quick": True, "output": tmp_path}, publish=lines.append)
    assert list(found) == [name]
    files = sorted(path.name for path in tmp_path.iterdir() if path.is_file())
    assert files == sorted([*(f"{name}.{end}" for end in ("json", "md", "png")), "study.json"])
    stored = json.loads((tmp_path / f"{name}.json").read_text("utf-8"))
    assert stored == json.loads(json.dumps(found[name]))
    assert stored["quick"] is True
    assert all(row.keys() == stored["rows"][0].keys() for row in stored["rows"])
    assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    table = (tmp_path / f"{name}.md").read_text("utf-8")
    assert sum(line.startswith("| ") for line in table.splitlines()) == 1 + len(stored["rows"])
    assert lines[0] == stored["title"]
    assert len(lines) >= 2 + len(stored["rows"])


def test_existence_finds_what_brouwer_guarantees(tmp_path):
    found = main(None, {"check": "existence", "quick": True, "quiet": True, "output": tmp_path})
    for row in found["existence"]["rows"]:
        assert row["continuous %"] < 100 or row["found %"] == 100
        assert row["largest ‖J‖/bound"] <= 1


def test_same_seed_same_table_and_another_seed_another(tmp_path):
    tables = [
        main(None, {"check": "overlap", "quick": True, "quiet": True, "seed": seed, "output": tmp_path / folder})
        for seed, folder in ((1, "a"), (1, "b"), (2, "a"), (1, "a"))
    ]
    rows = [table["overlap"]["rows"] for table in tables]
    assert rows[0] == rows[1] == rows[3] != rows[2]
    assert json.loads((tmp_path / "a" / "overlap.json").read_text("utf-8"))["seed"] == 1


def test_every_random_number_of_the_synthetic_data_is_of_the_seed(monkeypatch):
    seeds = []

    def spied(*arguments, **options):
        seeds.append(options.get("seed"))
        return measured(*arguments, **options)

    measured = synthetic.contraction
    monkeypatch.setattr(synthetic, "contraction", spied)
    starts = []
    for seed in (5, 6):
        panel = synthetic.check(Setting(quick=True, seed=seed)).figure.axes[0]
        starts.append([line.get_xydata()[0] for line in panel.lines[:6]])
    assert seeds == [5] * 4 + [6] * 4
    # those of the paths that are drawn
    assert np.abs(np.subtract(*starts)).min() > 0


@pytest.mark.parametrize("source", ["normal", "x = P c"])
def test_weights_and_inputs_of_random_maps_are_of_streams_of_their_own(source, monkeypatch):
    streams, setting, model = [], Setting(quick=True, seed=4), paper_model("amplitude")
    generator = np.random.default_rng

    def spied(seed):
        streams.append(generator(seed).bytes(16))
        return generator(seed)

    monkeypatch.setattr(existence.np.random, "default_rng", spied)
    inputs = existence._inputs(setting, model, 4, source, 2)
    assert len(streams) == 1
    existence._search(setting, model, "amplitude", source, inputs, 1, 0)
    assert len(streams) >= 2
    assert streams[0] not in streams[1:]


@given(st.integers(2, 10**6), st.integers(1, 5))
def test_a_share_of_some_is_printed_neither_as_all_nor_as_none(total, few):
    few = min(few, total - 1)
    for some in (few, total - few):
        text = number(100 * some / total)
        assert text not in ("0", "100")
        assert float(text) == pytest.approx(100 * some / total, rel=0.006)
    assert (number(100.0), number(0.0)) == ("100", "0")


def test_tables_escape_bars_and_json_has_null_for_what_is_not_finite():
    finding = Finding(
        "title", ("|a|", "b"), [(1.0, None), (np.inf, np.int64(3))], (), new_figure(1, 1), {"c": np.array([np.nan])}
    )
    assert finding.markdown()[0] == "| \\|a\\| | b |"
    assert finding.as_dict()["rows"] == [{"|a|": 1.0, "b": None}, {"|a|": None, "b": 3}]
    assert finding.as_dict()["values"] == {"c": [None]}
    assert finding.text()[2:] == ["1    -", "inf  3"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"check": "overlaps"}, "check must be one of .*'overlap'.*got 'overlaps'"),
        ({"check": "overlap", "data": "mnist"}, "--data has no effect on overlap"),
        ({"check": "synthetic", "data_dir": "x"}, "--data-dir has no effect on synthetic"),
        ({"check": "solvers", "data_dir": "x"}, "--data-dir has no effect on digits"),
        ({"check": "solvers", "data": "svhn"}, "data must be one of"),
        ({"check": "overlap", "seed": -1}, "seed must be >= 0, got -1"),
        ({"check": "overlap", "samples": 3}, "unknown arguments .'samples'."),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(arguments, message, tmp_path):
    with pytest.raises(InputError, match=message):
        main(None, {"output": tmp_path / "new", **arguments})
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("check", ["existence", "all"])
def test_data_that_cannot_be_read_are_refused_before_anything_is_written(check, tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        main(None, {"check": check, "data": "mnist", "data_dir": tmp_path / "nowhere", "output": tmp_path / "new"})
    assert not (tmp_path / "new").exists()


def test_output_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine", "utf-8")
    with pytest.raises(InputError, match=r"--output .*file cannot be created"):
        main(None, {"check": "overlap", "quick": True, "output": tmp_path / "file"})
    assert (tmp_path / "file").read_text("utf-8") == "mine"


@pytest.mark.skipif(not PROGRAM.exists(), reason="an installed package has no programs beside it")
def test_program_file_runs_and_ends_bad_usage_with_one_line_and_code_2(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(PROGRAM.parent.parent)}

    def run(*words):
        return subprocess.run(
            [sys.executable, PROGRAM, *words],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )

    good, bad = run("overlap", "--quick", "--output", "out"), run("overlap", "--data", "mnist")
    assert good.returncode == 0, good.stderr
    assert good.stdout.startswith("overlap of single-qubit encodings")
    assert (tmp_path / "out" / "overlap.png").exists()
    assert (bad.returncode, bad.stdout) == (2, "")
    assert bad.stderr.startswith("error: --data has no effect on overlap")
    assert bad.stderr.count("\n") == 1
