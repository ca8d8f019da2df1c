from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qiskit_ibm_runtime.fake_provider import FakeTorino

from qiskit_qdeq.equilibrium import solve
from qiskit_qdeq.equilibrium.solvers import Newton
from qiskit_qdeq.exceptions import ExecutionError, InputError
from qiskit_qdeq.execution.description import Execution
from qiskit_qdeq.execution.running import executed
from qiskit_qdeq.inference import predict
from qiskit_qdeq.programs import scaling_study
from qiskit_qdeq.studies.fresh import in_fresh_process
from qiskit_qdeq.studies.scaling import rows
from qiskit_qdeq.studies.scaling.circuits import describe, device_task, prediction_circuits, step_circuits
from qiskit_qdeq.studies.scaling.figures import draw_scaling
from qiskit_qdeq.studies.scaling.fits import fit_decay, fit_growth, mebibytes, work
from qiskit_qdeq.studies.scaling.points import Axis, Point, inputs
from qiskit_qdeq.studies.scaling.report import markdown
from qiskit_qdeq.studies.scaling.timing import timing_task
from qiskit_qdeq.studies.scaling.variance import _Draw, _model, spread_of, variance_task
from qiskit_qdeq.training.cost import predicted_step
from qiskit_qdeq.training.step import training_step

ARGUMENTS = {
    "encoding": "amplitude",
    "ansatz": "hardware_efficient",
    "num_qubits": 1,
    "layers": 1,
    "state_scale": 0.0,
    "draws": 1500,
    "seed": 0,
}


def test_variance_of_a_single_qubit_circuit_is_that_worked_by_hand():
    # RY(2a + t0) RZ(t1) RY(t2): <Z> = cos(2a + t0) cos t2 - sin(2a + t0) cos t1 sin t2, all angles uniform
    found = variance_task(ARGUMENTS)["gradients"]["direct-1"]["local"]
    assert abs(found["weight"] - 3 / 8) < 4 * found["weight_error"] < 0.1
    assert abs(found["mean"] - (3 / 8 + 1 / 8 + 3 / 8) / 3) < 4 * found["mean_error"] < 0.1


def test_without_feedback_the_equilibrium_is_the_plain_circuit():
    found = variance_task({**ARGUMENTS, "num_qubits": 2, "draws": 5})
    assert found["gain"] == pytest.approx(1)
    for quantity, figures in found["gradients"]["equilibrium"].items():
        assert figures["weight"] == pytest.approx(found["gradients"]["direct-1"][quantity]["weight"])
        assert figures["mean_ratio"] == pytest.approx(1)
        assert figures["mean_ratio_error"] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("encoding", ["amplitude", "angle"])
@pytest.mark.parametrize(("quantity", "feature"), [("local", 0), ("global", 3)])
def test_gradients_at_the_equilibrium_are_finite_differences_of_the_expectation_value(encoding, quantity, feature):
    model = _model({**ARGUMENTS, "num_qubits": 3, "encoding": encoding, "state_scale": 0.7})
    x = model.prepare(np.random.default_rng(5).normal(size=(2, 6)))
    found = dict(_Draw(model, x, np.random.default_rng(1)).gradients())
    weights = np.random.default_rng(1).uniform(-np.pi, np.pi, model.num_weights)

    def expectation(values):
        problem = model.map(values, x)
        return problem.at(solve(problem, Newton(tol=1e-12)).state).features[0, feature]

    for index in (0, 4):
        step = np.zeros(model.num_weights)
        step[index] = 1e-5
        difference = (expectation(weights + step) - expectation(weights - step)) / 2e-5
        assert found["equilibrium", quantity][index] == pytest.approx(difference, abs=1e-7)
    assert not np.allclose(found["equilibrium", quantity], found["direct-1", quantity], rtol=1e-3)


def test_error_of_a_ratio_knows_that_both_come_from_the_same_draws():
    plain = np.random.default_rng(0).normal(size=(400, 3))
    found = spread_of(2 * plain, plain)
    assert found["weight"] == pytest.approx(np.var(2 * plain[:, 0], ddof=1))
    assert found["weight_ratio"] == pytest.approx(4)
    assert found["weight_ratio_error"] == pytest.approx(0, abs=1e-12)
    # of a normal variable the error of the variance is √(2 / N) of it
    assert found["weight_error"] / found["weight"] == pytest.approx(math.sqrt(2 / 400), rel=0.2)


points = st.builds(
    lambda encoding, mode, size, share, states, layers, batch: Point(
        encoding, mode, size, max(1, share * 2**size // 8), min(states, size), layers, batch
    ),
    *(st.sampled_from(values) for values in (("amplitude", "angle"), ("equilibrium", "direct"))),
    *(st.integers(*limits) for limits in ((2, 5), (1, 8), (1, 5), (1, 4), (1, 9))),
)


@settings(max_examples=25)
@given(points)
def test_formula_counts_the_circuits_of_the_plan_that_runs_them(point):
    described = describe(point, None)
    cost = predicted_step(described, point.config(measured=True), point.batch)
    assert step_circuits(point) == cost.circuits


@pytest.mark.parametrize("mode", ["equilibrium", "direct"])
def test_formula_counts_the_circuits_that_are_run(mode):
    point = Point("amplitude", mode, 2, 4, 2, layers=1, batch=3)
    model, config = point.build(), point.config(measured=True)
    x, y = inputs(point, point.batch)
    parameters = model.initial_parameters(0)
    with executed(model, Execution("aer", shots=20, seed=0)) as measured:
        step = training_step(
            measured, parameters, x, y, config, direct=mode == "direct", initial=None, rng=np.random.default_rng
        )
        counts = [
            predict(measured, parameters, x[:size], None if mode == "direct" else config.solver).cost for size in (1, 3)
        ]
    assert step.cost.circuits == step_circuits(point)
    each, shared = prediction_circuits(point)
    assert [cost.circuits for cost in counts] == [each + shared, 3 * each + shared]


def test_a_device_is_asked_for_more_qubits_than_can_be_simulated():
    point = Point.of("angle", "direct", 40, batch=2)
    with pytest.raises(InputError, match="more than the 8 GB"):
        point.build().evaluator  # noqa: B018
    found = device_task({"point": point.as_dict(), "backend": "fake:torino"})
    assert found["refused"] is None
    assert found["two_qubit_gates"] == 3 * 39
    assert found["step"]["circuits"] == 2 * (1 + 2 * 40 * 7)
    # IBM's formula: 2 s per job, 1,024 executions a circuit
    assert found["step"]["qpu_seconds"] == pytest.approx(2 + 1122 * 1024 * 1e-6 * found["repetition_us"])
    assert found["epoch"]["circuits"] == 512 * found["step"]["circuits"]


@pytest.mark.parametrize(
    ("point", "reason"),
    [
        (Point.of("angle", "direct", 6), "6 qubits, but the backend has 5"),
        (Point.of("amplitude", "direct", 4, num_features=17), "holds at most 16 amplitudes"),
        (Point.of("angle", "direct", 6, ansatz="paper"), "exists for num_qubits 4 and 10"),
    ],
)
def test_what_a_device_cannot_take_is_a_row_that_says_why(point, reason):
    assert reason in device_task({"point": point.as_dict(), "backend": "fake:manila"})["refused"]


def timing(point):
    return {"point": point.as_dict(), "seconds": 0.1, "memory_gib": 6.0, "first_use": False}


def test_timings_with_other_limits_are_other_tasks():
    kinds = [(True, 6.0), (False, 6.0), (False, 0.25)]
    keys = [{task.key for task in rows.timing_tasks(*kind)} for kind in kinds]
    assert keys[0].isdisjoint(keys[1])
    assert keys[1].isdisjoint(keys[2])


def test_a_process_that_crashes_is_not_said_to_lack_memory(tmp_path):
    (tmp_path / "crash.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n", "utf-8")
    with pytest.raises(ExecutionError, match="exit code -11"):
        in_fresh_process("crash", {}, environment={"PYTHONPATH": str(tmp_path)})


@pytest.mark.parametrize(
    ("point", "options", "reason"),
    [
        (Point.of("angle", "direct", 18), {}, "num_qubits 18 with 72 features needs about 19 GB"),
        (Point.of("amplitude", "direct", 16), {"memory_gib": 0.4}, "needs more than 0.4 GiB"),
        (Point.of("amplitude", "direct", 4), {"timeout": 0.1}, "not done after 0.1 s"),
    ],
)
def test_what_cannot_be_measured_is_a_row_that_says_why(point, options, reason):
    timeout = options.pop("timeout", 300)
    assert reason in timing_task({**timing(point), **options}, timeout=timeout)["refused"]


def test_a_point_is_measured_in_a_process_of_its_own():
    found = timing_task(timing(Point.of("amplitude", "equilibrium", 4, batch=8)))
    assert found["refused"] is None
    assert 0 < found["ms_per_prediction"] < found["ms_per_step"]
    assert found["steps"] >= 2
    assert found["unconverged"] == 0 < found["solver_steps"]
    assert 0 < found["base_mib"] <= found["peak_mib"]


def test_a_process_that_fails_says_what_it_said():
    with pytest.raises(ExecutionError, match="missing 2 required"):
        in_fresh_process("qiskit_qdeq.studies.scaling.timing", {"point": 1})


@given(st.floats(0, 10), st.floats(1e-6, 1))
def test_growth_is_found_again(constant, factor):
    sizes = [4, 6, 8, 10, 12]
    fit = fit_growth(sizes, [constant + factor * work(n) for n in sizes], work)
    assert fit(20, work) == pytest.approx(constant + factor * work(20), rel=1e-6)
    assert fit.error < 1e-6


def test_memory_of_the_fit_is_what_the_model_is_checked_for():
    for encoding, size in (("amplitude", 20), ("angle", 18)):
        with pytest.raises(InputError) as error:
            Point.of(encoding, "direct", size).build().evaluator  # noqa: B018
        assert f"about {mebibytes(encoding)(size) / 2**10:.3g} GB" in str(error.value)


def test_decay_is_found_again_and_its_error_covers_the_truth():
    rng, sizes = np.random.default_rng(0), np.array([4, 6, 8, 10, 12])
    truth = 0.3 * 1.7**-sizes
    pulls = []
    for _ in range(200):
        fit = fit_decay(sizes, truth * np.exp(0.1 * rng.normal(size=5)), 0.1 * truth)
        pulls.append((fit.base - 1.7) / fit.error)
    assert abs(np.mean(pulls)) < 0.3
    assert 0.6 < np.std(pulls) < 1.2
    exact = fit_decay(sizes, truth, 0.1 * truth)
    assert (exact.base, exact.prefactor) == (pytest.approx(1.7), pytest.approx(0.3))
    assert exact.chi < 1e-9 < exact.chi_power
    assert fit_decay(sizes[:2], truth[:2], truth[:2]) is None


def test_the_report_counts_decays_that_feedback_changes():
    shared = {"encoding": "angle", "ansatz": "hardware_efficient", "state_scale": 0.5, "quantity": "local"}
    # 1 to rounding, 2.1 errors and 3 % away, 1.9 errors and 4 % away, 3 errors and 0.3 % away, three points too few to fit
    bases = [(1 - 2e-16, 5e-17), (1.031, 0.031 / 2.1), (0.96, 0.04 / 1.9), (0.997, 0.001), None]
    decays = []
    for layers, found in enumerate(bases, 1):
        fit = None if found is None else dict(zip(("base", "error"), found, strict=True), chi=1.0, chi_power=1.0)
        row = {**shared, "layers": layers, "decay": {"base": 1.5, "error": 0.1, "chi": 1.0, "chi_power": 2.0}}
        decays += [{**row, "method": method, "relative": fit} for method in ("equilibrium", "direct-1", "direct-4")]
    empty = {"timing": [], "first_use": [], "device": [], "backend": "fake", "growth": [], "extrapolated": []}
    text = markdown({**empty, "variance": [], "decay": decays})
    assert "Of the 4 fits in the last column 2 are within 3 % of 1, 1 of these equal to 1 up to rounding" in text
    # 4.55 % of the three others
    assert "Further from 1 than two standard errors: 2 (0.1 expected by chance), 1 of these by less than 1 %:" in text
    listed = [line for line in text.splitlines() if line.startswith("- ")]
    assert listed == [
        "- angle, 2 layers, scale 0.5, local: 1.0310 ± 0.0148",
        "- angle, 4 layers, scale 0.5, local: 0.9970 ± 0.0010",
    ]


def invented(arguments):
    """Time and memory that follow the formulas."""
    point = Point(**arguments["point"])
    if point.num_qubits == 6:
        return {"refused": "too much"}
    figures = {"ms_per_step": 1 + 1e-3 * work(point.num_qubits), "ms_per_prediction": 0.1, "setup_seconds": 1.0}
    peak = 200 + 2 * mebibytes(point.encoding)(point.num_qubits)
    return {"refused": None, **figures, "peak_mib": peak, "threads": 1, "solver_steps": 2.0, "unconverged": 0.0}


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(
        rows, "axes", lambda quick: (Axis("num_qubits", "qubits", (4, 5, 6)), Axis("batch", "batch", (2,)))
    )
    monkeypatch.setattr(rows, "more_qubits", lambda quick: (7,))
    monkeypatch.setattr(rows, "_depths", lambda quick: (1,))
    monkeypatch.setattr(scaling_study, "timing_task", invented)


def test_measured_and_extrapolated_figures_are_kept_apart(tmp_path, small):
    shown = []
    arguments = {"quick": True, "draws": 3, "output": str(tmp_path)}
    results = scaling_study.main(None, arguments, None, lambda function, items: map(function, items), shown.append)
    measured = [row["value"] for row in results["timing"] if row["axis"] == "num_qubits"]
    assert measured == [4, 5, 6] * 4
    assert {row["refused"] for row in results["timing"]} == {None, "too much"}
    assert "| 6 | amplitude | direct | no: too much |" in shown[0]
    for row in results["growth"]:
        assert row["measured_to"] == 5
        assert row["ms_per_step"]["factor"] == pytest.approx(1e-3)
        assert row["peak_mib"]["factor"] == pytest.approx(2)
    assert all(row["extrapolated"] for row in results["extrapolated"])
    row = next(row for row in results["extrapolated"] if row["num_qubits"] == 30)
    assert row["ms_per_step"] == pytest.approx(1 + 1e-3 * 900 * 2**30)
    assert [entry["counted"] for entry in results["formula"]] == [entry["formula"] for entry in results["formula"]]
    assert len(results["formula"]) == len([row for row in results["device"] if not row["refused"]])
    assert {row["value"] for row in results["device"] if row["axis"] == "num_qubits"} == {4, 5, 6, 7}
    assert {path.name for path in tmp_path.iterdir()} >= {"results.json", "results.md", "scaling.png", "variance.png"}
    assert json.loads((tmp_path / "results.json").read_text()) == json.loads(json.dumps(results))


def test_the_legend_of_the_picture_has_every_kind_of_point_and_line_in_it():
    pairs = [(encoding, mode) for encoding in ("amplitude", "angle") for mode in ("equilibrium", "direct")]
    timing, device, growth = [], [], []
    fit = {"constant": 1.0, "factor": 1e-3, "error": 0.0, "points": 2}
    for encoding, mode in pairs:
        for n in (4, 5):
            row = {"axis": "num_qubits", "encoding": encoding, "mode": mode, "num_qubits": n, "refused": None}
            timing.append({**row, "ms_per_step": float(n), "peak_mib": 200.0})
            device.append({**row, "step": {"circuits": n, "qpu_seconds": 2.0 * n}})
        growth.append({"encoding": encoding, "mode": mode, "ms_per_step": fit, "peak_mib": fit})
    figure = draw_scaling({"timing": timing, "device": device, "growth": growth, "backend": "fake:torino"})
    [legend] = figure.legends
    entries = dict(zip((text.get_text() for text in legend.get_texts()), legend.get_lines(), strict=True))
    assert set(entries) == {", ".join(pair) for pair in pairs} | {"dashed: extrapolated by the fit"}
    known = {(line.get_color(), line.get_marker()) for line in entries.values()}
    styles = {line.get_linestyle() for line in entries.values()}
    drawn = [line for axes in figure.axes for line in axes.lines if len(line.get_xdata())]
    # curves that coincide differ in their points
    assert len({marker for _, marker in known}) == 5
    assert {(line.get_color(), line.get_marker()) for line in drawn if line.get_marker() != "None"} <= known
    assert {line.get_linestyle() for line in drawn} <= styles | {"None"}


def test_a_device_object_is_computed_for(tmp_path, small, monkeypatch):
    monkeypatch.setattr(rows, "variance_tasks", lambda *options: [])
    monkeypatch.setattr(scaling_study, "all_figures", lambda results: {})
    results = scaling_study.main(FakeTorino(), {"quick": True, "quiet": True, "output": str(tmp_path)})
    assert results["backend"] == "fake_torino"


@pytest.mark.parametrize(
    ("backend", "arguments", "mode", "reason"),
    [
        (None, {}, "session", "mode has no effect"),
        ("fake:torino", {"backend": "fake:torino"}, None, "given twice"),
        ("aer", {}, None, "backend must be 'fake:NAME' or 'ibm:NAME'"),
        (None, {"backend": "fake:nowhere"}, None, "no fake backend"),
        (3, {}, None, "have a target"),
        (None, {"draws": 1}, None, "draws must be >= 2"),
        (None, {"memory": 0.0}, None, "memory must be > 0 GiB and finite, got 0.0"),
        (None, {"memory": math.inf}, None, "memory must be > 0 GiB and finite, got inf"),
        (None, {"seed": -1}, None, "seed must be >= 0, got -1"),
    ],
)
def test_arguments_without_meaning_are_refused(tmp_path, backend, arguments, mode, reason):
    with pytest.raises(InputError, match=reason):
        scaling_study.main(backend, {**arguments, "output": str(tmp_path / "study")}, mode)
    assert not (tmp_path / "study").exists()
