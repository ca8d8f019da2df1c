from __future__ import annotations

import json

import numpy as np
import pytest
from qiskit.quantum_info import Operator, Statevector
from qiskit_ibm_runtime.fake_provider import FakeManilaV2

from qiskit_qdeq.data import load_split
from qiskit_qdeq.equilibrium.driver import solve
from qiskit_qdeq.equilibrium.solvers import Newton
from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.execution.noise import simple_noise
from qiskit_qdeq.programs import noise_study
from qiskit_qdeq.studies.noise.figures import draw_curves, draw_devices, draw_trained
from qiskit_qdeq.studies.noise.models import build, stacked
from qiskit_qdeq.studies.noise.noises import Noise, NoisyModels
from qiskit_qdeq.studies.noise.response import cosine, gradient, residual, respond
from qiskit_qdeq.studies.noise.tables import exact_rows, standing_rows, strength_at

SHARED = {"data": "digits", "num_qubits": 4, "encoding": "amplitude", "epochs": 1, "seed": 0}
TINY = {
    "models": ("implicit", "stacked-2"),
    "trained_in": ("damping:0.01",),
    "devices": ("manila",),
    "epochs": 1,
    "limit": 20,
    "quick": True,
    "no_measured": True,
    "quiet": True,
}
STRENGTHS = {"depolarizing": (0.01, 0.05), "damping": (0.01, 0.05), "readout": (0.02, 0.1)}


def here(function, tasks):
    """A mapper that stays in this process, where a test can see it."""
    return map(function, tasks)


@pytest.fixture(scope="module", autouse=True)
def few_strengths():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(noise_study, "_QUICK_STRENGTHS", STRENGTHS)
        yield


@pytest.fixture(scope="module")
def split():
    return load_split("digits", num_qubits=4, limit=12)


@pytest.fixture(scope="module")
def implicit(split):
    return build("implicit", SHARED, split)


def weights_of(study, seed=0):
    return np.random.default_rng(seed).uniform(-np.pi, np.pi, study.model.num_weights)


class TestModels:
    def test_a_tied_stack_is_a_power_of_its_layer(self, split, implicit):
        study, layer = build("stacked-3", SHARED, split), implicit.model.template
        weights = weights_of(study)
        assert study.model.num_weights == implicit.model.num_weights
        once = Operator(layer.ansatz.assign_parameters(dict(zip(layer.weights, weights, strict=True)))).data
        template = study.model.template
        all_layers = template.ansatz.assign_parameters(dict(zip(template.weights, weights, strict=True)))
        np.testing.assert_allclose(Operator(all_layers).data, np.linalg.matrix_power(once, 3), atol=1e-12)

    def test_a_free_stack_applies_its_first_weights_first(self, split, implicit):
        study, layer = build("stacked-2-free", SHARED, split), implicit.model.template
        weights = weights_of(study)
        first, second = (
            Operator(layer.ansatz.assign_parameters(dict(zip(layer.weights, part, strict=True)))).data
            for part in np.split(weights, 2)
        )
        template = study.model.template
        both = template.ansatz.assign_parameters(dict(zip(template.weights, weights, strict=True)))
        np.testing.assert_allclose(Operator(both).data, second @ first, atol=1e-12)

    def test_a_stack_is_measured_once_on_the_data_themselves(self, split):
        study = build("stacked-2", SHARED, split)
        model, weights = study.model, weights_of(study)
        parameters = np.concatenate([weights, np.zeros(model.num_parameters - model.num_weights)])
        inputs = model.prepare(split.x_test[:3])
        answer = respond(model, parameters, inputs, split.y_test[:3], study.solver, study.layers)
        for sample, values in zip(inputs, answer.values, strict=True):
            final = Statevector(model.template.bind(sample, weights))
            expected = [final.expectation_value(m).real for m in model.template.state_observables]
            np.testing.assert_allclose(values, expected, atol=1e-12)
        assert not answer.state.any()

    def test_weights_that_repeat_make_both_stacks_equal(self, split):
        tied, free = build("stacked-2", SHARED, split), build("stacked-2-free", SHARED, split)
        weights, x = weights_of(tied), tied.model.prepare(split.x_test[:4])
        state = np.zeros((4, 4))
        np.testing.assert_allclose(
            free.model.map(np.tile(weights, 2), x).at(state).features,
            tied.model.map(weights, x).at(state).features,
            atol=1e-12,
        )

    def test_one_layer_on_the_device_is_one_explicit_layer(self, split):
        parameters = build("direct-1", SHARED, split).model.initial_parameters(0)
        x = build("direct-1", SHARED, split).model.prepare(split.x_test)
        pair = [
            respond(study.model, parameters, x, split.y_test, study.solver, study.layers)
            for study in (build("direct-1", SHARED, split), build("stacked-1", SHARED, split))
        ]
        np.testing.assert_allclose(pair[0].values, pair[1].values, atol=1e-12)
        assert pair[0].loss == pytest.approx(pair[1].loss)

    @pytest.mark.parametrize(
        "name", ["implicit-2", "direct", "direct-0", "stacked-2-tied", "direct-2-free", "", "deep"]
    )
    def test_other_names_are_refused(self, split, name):
        with pytest.raises(InputError, match="models must be"):
            build(name, SHARED, split)

    def test_a_stack_of_nothing_is_refused(self, implicit):
        with pytest.raises(InputError, match="layers must be >= 1"):
            stacked(implicit.model.template.ansatz, implicit.model.template.weights, 0, tied=True)


class TestNoises:
    @pytest.mark.parametrize(
        ("word", "backend"),
        [
            ("depolarizing:0.02", simple_noise(4, one_qubit=0.002, two_qubit=0.02)),
            ("damping:0.01", simple_noise(4, amplitude_damping=0.01)),
            ("readout:0.1", simple_noise(4, readout=0.1)),
            ("fake:manila", "fake:manila"),
        ],
    )
    def test_values_are_those_of_a_noisy_model(self, split, implicit, word, backend):
        model, weights = implicit.model, weights_of(implicit)
        models, noise = NoisyModels(model), Noise.parse(word)
        x, state = model.prepare(split.x_test), np.full((len(split.x_test), 4), 0.3)
        for mitigation, readout in (("", True), ("readout", False)):
            if mitigation in ("", *noise.mitigations):
                found = models.under(noise, mitigation).map(weights, x).at(state).features
                expected = (
                    model.noisy(backend, readout=readout, optimization_level=3).map(weights, x).at(state).features
                )
                np.testing.assert_allclose(found, expected, atol=1e-9)

    def test_perfect_readout_mitigation_leaves_no_readout_error(self, implicit):
        assert NoisyModels(implicit.model).under(Noise.parse("readout:0.3"), "readout") is implicit.model

    @pytest.mark.parametrize(
        "word", ["depolarizing", "depolarizing:", "damping:0", "readout:2", "fake:", "heat:0.1", "", 3]
    )
    def test_other_words_are_refused(self, word):
        with pytest.raises(InputError, match="noise must be"):
            Noise.parse(word)

    def test_a_mitigation_that_a_noise_does_not_have_is_refused(self, implicit):
        with pytest.raises(InputError, match="mitigation of damping noise"):
            NoisyModels(implicit.model).under(Noise.parse("damping:0.01"), "readout")

    def test_extrapolation_removes_noise_to_second_order(self, split, implicit):
        model, weights = implicit.model, weights_of(implicit)
        x, state = model.prepare(split.x_test), np.zeros((len(split.x_test), 4))
        clean = model.map(weights, x).at(state).features
        errors = []
        for strength in (0.001, 0.002):
            noisy = NoisyModels(model).under(Noise.parse(f"damping:{strength}"), "zne")
            errors.append(np.abs(noisy.map(weights, x).at(state).features - clean).max())
        # the third power of the strength is left
        assert errors[1] / errors[0] == pytest.approx(8, rel=0.2)

    def test_gradient_of_the_extrapolated_equilibrium_is_the_one_of_finite_differences(self, split, implicit):
        noisy = NoisyModels(implicit.model).under(Noise.parse("depolarizing:0.02"), "zne")
        parameters = implicit.model.initial_parameters(3)
        x, y = implicit.model.prepare(split.x_test[:4]), split.y_test[:4]
        found = gradient(noisy, implicit, parameters, x, y)

        def loss(moved):
            return respond(noisy, moved, x, y, Newton(tol=1e-12), 1).loss

        for place in (0, 17, 38, 60):
            step = 1e-5 * np.eye(len(parameters))[place]
            difference = (loss(parameters + step) - loss(parameters - step)) / 2e-5
            assert found[place] == pytest.approx(difference, abs=1e-7)


class TestResponse:
    def test_an_equilibrium_answers_with_its_state(self, split, implicit):
        model, parameters = implicit.model, implicit.model.initial_parameters(1)
        x = model.prepare(split.x_test)
        answer = respond(model, parameters, x, split.y_test, implicit.solver, 1)
        expected = solve(model.map(model.split(parameters)[0], x), Newton()).state
        np.testing.assert_allclose(answer.values, expected, atol=1e-6)

    def test_the_residual_is_that_of_the_noiseless_equilibrium_under_the_noisy_map(self, split, implicit):
        model, parameters = implicit.model, implicit.model.initial_parameters(1)
        x, weights = model.prepare(split.x_test), implicit.model.split(parameters)[0]
        noisy = model.noisy("fake:manila")
        state = solve(model.map(weights, x), Newton(tol=1e-12)).state
        gap = noisy.map(weights, x).at(state).values - state
        found = residual(noisy, model, parameters, x, state)
        assert found == pytest.approx(np.mean(np.linalg.norm(gap, axis=1)), abs=1e-9)
        assert found > 0.01

    def test_cosines(self):
        assert cosine(np.array([3.0, 4.0]), np.array([4.0, 3.0])) == pytest.approx(0.96)
        assert cosine(np.zeros(2), np.ones(2)) is None


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        (0.95, 0.01),  # halfway to the first strength
        (0.80, 0.04 * 2**-0.5),  # halfway between 0.02 and 0.04 in log s
        (0.65, None),  # never below
        (1.01, 0.0),  # never reached
        (0.90, 0.02),
    ],
)
def test_strength_that_a_model_stands(level, expected):
    assert strength_at([(0.02, 0.9), (0.04, 0.7)], 1.0, level) == (
        None if expected is None else pytest.approx(expected)
    )


def test_a_model_that_recovers_stands_the_greater_strength():
    assert strength_at([(0.01, 0.7), (0.1, 0.9), (1.0, 0.1)], 0.6, 0.5) == pytest.approx(10**-0.5)


def test_rows_are_means_over_seeds():
    def result(accuracy, cosine):
        columns = dict.fromkeys(("accuracy", "loss", "bias", "residual", "cosine_start", "unconverged"), accuracy)
        noises = {"damping:0.1": {"gates": {"two_qubit_gates": 7, "depth": 9}, "": {**columns, "cosine": cosine}}}
        clean = {"accuracy": 0.9, "loss": 0.1, "unconverged": 0.0}
        return {"clean": clean, "noises": noises, "circuits": 6}

    arguments = {"model": "implicit", "trained_in": "none", "train": {"encoding": "angle"}}
    clean, noisy = exact_rows([(arguments, result(0.5, 0.1)), (arguments, result(0.7, None))])
    assert (clean["noise"], clean["accuracy"]) == ("none", {"mean": 0.9, "std": 0.0})
    assert noisy["accuracy"] == {"mean": 0.6, "std": pytest.approx(0.02**0.5, abs=1e-6)}
    assert noisy["cosine"] == {"mean": None, "std": None}
    assert (noisy["encoding"], noisy["seeds"], noisy["gates_a_prediction"]) == ("angle", 2, 42)
    [standing] = standing_rows([clean, noisy])
    # 5 of the 30 points lost at 0.1, from no noise on
    assert standing["points"] == {"1": pytest.approx(0.1 / 30), "5": pytest.approx(0.5 / 30)}


class TestFigures:
    @staticmethod
    def rows(models, noises, trained_in=("none",)):
        """Of a study with these models and noises."""
        accuracy = {"mean": 0.8, "std": 0.1}
        same = {"encoding": "angle", "mitigation": "", "accuracy": accuracy}
        return [
            {**same, "model": model, "trained_in": word, "noise": noise}
            for model in models
            for word in trained_in
            for noise in noises
        ]

    def test_no_two_curves_look_alike(self):
        models = ["implicit", *(f"{name}-{layers}" for name in ("direct", "stacked") for layers in range(1, 8))]
        models += [f"stacked-{layers}-free" for layers in range(1, 8)]
        rows = self.rows(models, ("damping:0.01", "damping:0.1"))
        [axes] = draw_curves(rows, (("accuracy", "", "accuracy", 100),)).axes
        looks = {line.get_label(): (line.get_color(), line.get_marker()) for line in axes.lines}
        assert set(looks) == set(models)
        assert len(set(looks.values())) == len(models)

    def test_those_trained_in_noise_are_the_shallowest_explicit_and_the_deepest_stacked(self):
        models = ("direct-5", "direct-1", "stacked-10", "stacked-2", "implicit", "stacked-3-free", "stacked-2-free")
        noises = ("none", "damping:0.01", "damping:0.1")
        [axes] = draw_trained(self.rows(models, noises, ("none", "damping:0.01"))).axes
        named = {line.get_label() for line in axes.lines if not line.get_label().startswith("_")}
        assert named == {"direct-1", "stacked-10", "implicit", "stacked-3-free"}

    def test_all_noises_trained_in_have_bars_that_differ(self):
        trained_in = [f"fake:{name}" for name in ("manila", "torino", "quito", "lima", "belem", "yorktown")]
        figure = draw_devices(self.rows(("implicit",), ("none", "fake:manila"), ("none", *trained_in)))
        bars = {bar.get_label(): (bar.get_facecolor(), bar.get_hatch()) for bar in figure.axes[0].patches}
        assert set(bars) == {"noisy", *(f"trained in {word}" for word in trained_in)}
        assert len(set(bars.values())) == len(bars)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    return folder, noise_study.main(None, {**TINY, "output": str(folder)}, mapper=here)


@pytest.fixture
def no_figures(monkeypatch):
    """Pictures are looked at once."""
    monkeypatch.setattr(noise_study, "figures", lambda results: {})


class TestProgram:
    def test_a_row_for_every_model_noise_and_mitigation(self, study):
        folder, results = study
        rows = results["exact"]
        keys = {(row["model"], row["trained_in"], row["noise"], row["mitigation"]) for row in rows}
        # 2 + 2 strengths with extrapolation, 2 readout errors and a device with mitigation, none
        assert len(keys) == len(rows) == 2 * 2 * (2 * (2 + 2 + 2 + 1) + 1)
        noisy = [row for row in rows if row["noise"] != "none"]
        assert all(row["gates_a_prediction"] == row["circuits"] * row["two_qubit_gates"] for row in noisy)
        assert {row["circuits"] for row in rows if row["model"] == "stacked-2"} == {1}
        assert {path.name for path in folder.iterdir()} >= {
            *("results.json", "results.md", "accuracy.png", "bias.png", "gradient.png", "trained.png", "devices.png")
        }
        assert json.loads((folder / "results.json").read_text("utf-8"))["exact"] == rows

    def test_readout_that_is_mitigated_perfectly_gives_the_noiseless_figures(self, study):
        for row in study[1]["exact"]:
            if row["noise"].startswith("readout:") and row["mitigation"] == "readout":
                assert row["bias"]["mean"] == row["residual"]["mean"] == 0
                assert row["cosine"]["mean"] == row["cosine_start"]["mean"] == pytest.approx(1)

    def test_more_noise_moves_values_further(self, study):
        for kind in ("depolarizing", "damping", "readout"):
            rows = [row for row in study[1]["exact"] if row["noise"].startswith(kind) and not row["mitigation"]]
            for model in TINY["models"]:
                moved = [r["bias"]["mean"] for r in rows if r["model"] == model and r["trained_in"] == "none"]
                assert 0 < moved[0] < moved[1]

    def test_the_same_folder_goes_on_where_it_stopped(self, study, monkeypatch, no_figures):
        folder, results = study
        lost = sorted((folder / "tasks").glob("*stacked-2_none_seed-0*"))
        assert len(lost) == 1
        lost[0].unlink()
        done = []
        work = noise_study.exact_task

        def counted(arguments, **places):
            done.append(arguments["model"])
            return work(arguments, **places)

        monkeypatch.setattr(noise_study, "exact_task", counted)
        again = noise_study.main(None, {**TINY, "output": str(folder)}, mapper=here)
        assert done == ["stacked-2"]
        assert again["exact"] == results["exact"]

    def test_shots_agree_with_exact_values(self, study, monkeypatch, no_figures):
        folder, results = study
        monkeypatch.setattr(noise_study, "_LEVELS", (0,))
        asked = {"no_measured": False, "measured_models": ("stacked-2",), "shots": 20_000, "samples": 20}
        found = noise_study.main(None, {**TINY, **asked, "output": str(folder)}, mapper=here)
        assert found["exact"] == results["exact"]
        [measured] = found["measured"]
        [exact] = [
            row
            for row in results["exact"]
            if (row["model"], row["noise"], row["mitigation"], row["trained_in"])
            == ("stacked-2", "fake:manila", "", "none")
        ]
        # all 20 test samples; one standard error of a value is at most 0.007
        assert measured["bias"]["mean"] == pytest.approx(exact["bias"]["mean"], abs=0.01)
        assert measured["two_qubit_gates"] == exact["two_qubit_gates"]
        assert (measured["circuits"], measured["samples"]) == (20, 20)

    def test_a_backend_object_and_its_name_are_asked_the_same(self, study, no_figures):
        folder, _ = study
        options = {**TINY, "output": str(folder), "resilience_level": 0, "samples": 2, "shots": 512}
        text, given = (
            noise_study.main(backend, options, "session", here)["backend"]
            for backend in ("fake:manila", FakeManilaV2())
        )
        assert [row["backend"] for row in (*text, *given)] == ["manila"] * 2 + ["fake_manila"] * 2
        # an equilibrium takes 4 + 1 probes and a correction for each of 2 samples, and 10 for all
        assert [row["circuits"] for row in text] == [2 * 6 + 10, 2]
        assert [{**row, "backend": ""} for row in text] == [{**row, "backend": ""} for row in given]

    def test_none_is_no_training_in_noise_and_figures_of_before_are_gone(self, tmp_path):
        options = {**TINY, "devices": ("manila",), "output": str(tmp_path / "study")}
        noise_study.main(None, options, mapper=here)
        drawn = {path.name for path in (tmp_path / "study").glob("*.png")}
        (tmp_path / "study" / "own.png").touch()
        found = noise_study.main(None, {**options, "trained_in": ("none",)}, mapper=here)
        assert {row["trained_in"] for row in found["exact"]} == {"none"}
        assert {path.name for path in (tmp_path / "study").glob("*.png")} == drawn - {"trained.png"} | {"own.png"}

    def test_two_noises_of_one_name_are_asked_both(self, study, no_figures):
        folder, _ = study
        options = {**TINY, "output": str(folder), "resilience_level": 0, "samples": 2, "shots": 512}
        weak, strong = (
            noise_study.main(simple_noise(4, two_qubit=rate), options, None, here)["backend"] for rate in (1e-3, 0.5)
        )
        assert weak[0]["backend"] == strong[0]["backend"]
        assert weak[0]["bias"]["mean"] < strong[0]["bias"]["mean"]

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"models": ("implicit", "deep")}, "models must be"),
            ({"models": ("implicit", "implicit")}, "must differ"),
            ({"trained_in": ("heat:0.1",)}, "noise must be"),
            ({"trained_in": ("none", "damping:0.1")}, "without noise anyway"),
            ({"devices": ("atlantis",)}, "no fake backend"),
            ({"no_measured": False, "measured_devices": ("atlantis",)}, "no fake backend"),
            ({"encodings": ("phase",)}, "encoding"),
            ({"num_qubits": 9}, "num_qubits must be at most 8"),
            ({"seeds": 0}, "seeds must be >= 1"),
            ({"data_dir": "nowhere"}, "--data-dir has no effect on digits"),
            ({"shots": 0}, "shots must be >= 1"),
            ({"backend": "aer"}, "backend must be fake:NAME"),
            ({"backend": "given"}, "backend object"),
            ({"backend": "fake:atlantis"}, "no fake backend"),
            ({"backend": "fake:manila", "resilience_level": 3}, "resilience_level must be"),
            ({"execution_mode": "batch"}, "no effect without a backend"),
            ({"classes": (0, 77)}, "classes|labels"),
            ({"colour": "red"}, "unknown arguments"),
            ({"encodings": ()}, "encodings must name at least one"),
            ({"models": ()}, "models must name at least one"),
            ({"trained_in": ("damping:0.3", "damping:0.3")}, "trained_in must differ"),
            ({"trained_in": ("damping:0.3", "damping:0.30")}, "trained_in must differ"),
            ({"trained_in": ("fake:fake_manila",)}, "fake:manila and fake:fake_manila are the same noise"),
            ({"devices": ("manila", "manila")}, "devices must differ"),
            ({"no_measured": False, "measured_models": ("implicit", "implicit")}, "measured_models must differ"),
            ({"no_measured": False, "measured_devices": ("manila", "Manila")}, "measured_devices must differ"),
            ({"measured_models": ("implicit",)}, "measured_models has no effect with no_measured"),
            ({"shots": 100}, "shots has no effect with no_measured and without a backend"),
            ({"resilience_level": 2}, "resilience_level has no effect without a backend"),
            ({"backend": "fake:yorktown", "num_qubits": 6, "devices": ("torino",)}, "yorktown has only 5"),
        ],
    )
    def test_mistakes_are_named_before_anything_runs(self, tmp_path, options, message):
        folder = tmp_path / "study"
        with pytest.raises(InputError, match=message):
            noise_study.main(None, {**TINY, **options, "output": str(folder)})
        assert not folder.exists()
