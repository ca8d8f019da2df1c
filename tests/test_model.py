"""The model's structure: injection, flat parameters, sample checks, presets."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from oracles import build_model, statevector_values
from qiskit.primitives import DataBin, StatevectorEstimator
from qiskit.primitives.containers.estimator_pub import EstimatorPub

from qiskit_qdeq.circuits import AmplitudeEncoder, CircuitTemplate, hardware_efficient_ansatz
from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.inference import block_size, predict
from qiskit_qdeq.model import QDEQModel, nearest_injection
from qiskit_qdeq.presets import ModelConfig, model_config


@pytest.mark.parametrize(("features", "states"), [(16, 4), (100, 10), (7, 3), (3, 3), (2, 3), (1, 1)])
def test_nearest_injection_feeds_every_feature_one_state_in_order(features, states):
    injection = nearest_injection(features, states, 0.5)
    assert injection.shape == (features, states)
    np.testing.assert_array_equal((injection != 0).sum(axis=1), 1)
    np.testing.assert_array_equal(injection.max(axis=1), 0.5)
    chosen = injection.argmax(axis=1)
    assert (np.diff(chosen) >= 0).all()
    if features % states == 0:
        np.testing.assert_array_equal(injection, 0.5 * np.kron(np.eye(states), np.ones((features // states, 1))))


def test_split_cuts_the_flat_vector_into_weights_matrix_and_bias_without_copying():
    model = build_model("amplitude")
    parameters = np.arange(model.num_parameters, dtype=float)
    weights, matrix, bias = model.split(parameters)
    assert (weights.shape, matrix.shape, bias.shape) == ((9,), (3, 6), (3,))
    np.testing.assert_array_equal(np.concatenate([weights, matrix.ravel(), bias]), parameters)
    assert all(np.shares_memory(part, parameters) for part in (weights, matrix, bias))


def test_initial_parameters_repeat_with_their_seed_and_stay_in_range():
    model = build_model("angle")
    first = model.initial_parameters(3)
    np.testing.assert_array_equal(first, model.initial_parameters(3))
    assert not np.array_equal(first, model.initial_parameters(4))
    weights, matrix, bias = model.split(first)
    assert np.abs(weights).max() <= np.pi
    assert max(np.abs(matrix).max(), np.abs(bias).max()) <= 1 / np.sqrt(6)


def test_a_bias_is_appended_to_every_sample_and_never_fed_back():
    model = build_model("amplitude", bias=0.5)
    assert model.num_features == 5
    prepared = model.prepare(np.zeros((2, 5)))
    np.testing.assert_array_equal(prepared, [[0, 0, 0, 0, 0, 0.5]] * 2)
    np.testing.assert_array_equal(model.injection[-1], 0)
    assert model.injection.shape == (6, 3)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros(6), r"shape \(samples, 6\), got \(6,\)"),
        (np.zeros((2, 5)), r"shape \(samples, 6\), got \(2, 5\)"),
        (np.array([[1.0] * 6, [np.nan] * 6]), "sample 1"),
        (np.array([[1.0] * 6, [1.0] * 5 + [-np.inf]]), "sample 1.*feature 5"),
        (np.array([[1.0] * 6, [0.0] * 6, [1.0] * 6]), "sample 1 .*zero"),
        ([["a"] * 6], "x"),
        ([[1.0] * 6, [1.0] * 5], "x"),
        (np.ones((2, 6)) * (1 + 1j), "x"),
        (None, "x"),
    ],
)
def test_samples_that_cannot_be_encoded_are_errors_that_name_them(x, message):
    with pytest.raises(InputError, match=message):
        build_model("amplitude").prepare(x)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("size", [1e-290, 1e-200, 1e-150, 1e-40, 1e-20, 1e18, 1e30, 1e160, 1e300])
def test_samples_of_extreme_length_are_encoded_or_refused_but_never_nan(size, dtype):
    """Amplitude encoding only sees the direction: without feedback the length must not matter."""
    model = build_model("amplitude", state_scale=0.0, dtype=dtype)
    direction = np.random.default_rng(0).normal(size=(2, 6))
    weights = np.linspace(-2, 2, 9)
    try:
        inputs = model.prepare(size * direction)
        values = model.evaluator.bind(weights).map(inputs).at(np.zeros((2, 3))).values
    except InputError:
        return
    expected = statevector_values(model.template, direction, weights, model.template.state_observables)
    np.testing.assert_allclose(values, expected, atol=1e-5 if dtype == "float32" else 1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 0}, "num_classes .*0"),
        ({"state_scale": float("nan")}, "state_scale .*nan"),
        ({"state_scale": 1e200}, r"state_scale 1e\+200 .*overflow"),
        ({"state_scale": -1e101}, r"state_scale -1e\+101 .*overflow"),
        ({"state_scale": 1e13, "dtype": "float32"}, r"state_scale .*overflow"),
        ({"bias": float("inf")}, "bias .*inf"),
        ({"dtype": "float16"}, "'float16'"),
        ({"injection": np.zeros((3, 3))}, r"\(6, 3\).*\(3, 3\)"),
        ({"injection": np.full((6, 3), np.nan)}, "injection .*finite"),
        ({"activation": "tanh"}, "'tanh'"),
        ({"repeat": 0}, "repeat .*0"),
    ],
)
def test_a_model_that_cannot_be_built_says_why(options, message):
    with pytest.raises(InputError, match=message):
        build_model("amplitude", **options)


def test_an_encoder_whose_only_input_is_the_bias_is_an_error():
    template = CircuitTemplate(AmplitudeEncoder(1), hardware_efficient_ansatz(1, 1))
    with pytest.raises(InputError, match="no input left beside the bias"):
        QDEQModel(template, 2, bias=1.0)


@pytest.mark.parametrize(
    ("preset", "sizes", "options", "parameters"),
    [
        # arXiv:2410.23940: trained parameters of the authors' models, extra angles included
        ("paper", (16, 4, 4), {}, 107),
        ("paper", (100, 10, 10), {}, 1066),
        ("paper", (16, 4, 4), {"encoding": "angle"}, 107),
        ("default", (16, 4, 4), {}, 39 + 4 * 15),
        ("default", (5, 2, 3), {}, 21 + 2 * 8),
        ("default", (5, 2, 3), {"bias": 1.0, "encoding": "angle"}, 21 + 2 * 8),
        ("default", (6, 3, 5), {"ansatz": "random", "ansatz_seed": 2, "readout": "zz"}, None),
    ],
)
def test_presets_build_models_whose_configuration_rebuilds_them(preset, sizes, options, parameters):
    config = model_config(preset, *sizes, **options)
    model = config.build()
    if parameters is not None:
        assert model.num_parameters == parameters
    again = ModelConfig(**config.as_dict())
    assert again == config
    assert repr(again.build()) == repr(model)
    assert model.prepare(np.ones((2, sizes[0]))).shape == (2, model.template.num_features)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: model_config("best", 4, 2, 2), "'best'"),
        (lambda: model_config("default", 4, 2, 2, colour=1), r"\['colour'\].*'readout'"),
        (lambda: model_config("default", 17, 2, 4).build(), "17 inputs .*16 amplitudes.*num_qubits >= 5"),
        (lambda: model_config("default", 16, 2, 4, bias=1.0).build(), "17 inputs"),
        (lambda: model_config("default", 4, 2, 2, encoding="basis").build(), "'basis'"),
        (lambda: model_config("default", 4, 2, 2, ansatz="deep").build(), "'deep'"),
        (lambda: model_config("default", 4, 2, 2, readout="zzzzz").build(), "'zzzzz'"),
        (lambda: model_config("paper", 8, 2, 3).build(), "num_qubits .*3"),
        (lambda: model_config("default", 4, 2, 2, dtype="float16").build(), "'float16'"),
        (lambda: model_config("default", 4, 2, 0).build(), "num_qubits must be an integer from 1 to 1000, got 0"),
    ],
)
def test_presets_that_cannot_be_built_say_why(call, message):
    with pytest.raises(InputError, match=message):
        call()


@pytest.mark.parametrize(("name", "value"), [("ansatz_gates", 9), ("ansatz_seed", 1), ("ansatz_layers", 2)])
def test_an_option_of_another_ansatz_is_refused(name, value):
    with pytest.raises(InputError, match=f"{name} is for ansatz .* no effect with 'paper'"):
        model_config("default", 16, 2, 4, **{name: value})
    fitting = "hardware_efficient" if name == "ansatz_layers" else "random"
    assert getattr(model_config("default", 16, 2, 4, ansatz=fitting, **{name: value}), name) == value


def test_a_circuit_too_large_to_be_computed_is_refused_there_and_can_be_measured():
    model = QDEQModel(CircuitTemplate(AmplitudeEncoder(4, 22), hardware_efficient_ansatz(22, 1), readout="z"), 2)
    inputs, weights = model.prepare([[1.0, 0.5, 0.2, 0.1]]), np.zeros(model.num_weights)
    assert not model.is_computable
    assert "to be measured" in model._repr_html_()
    for call in (lambda: model.map(weights, inputs), lambda: predict(model, model.initial_parameters(0), inputs, None)):
        with pytest.raises(InputError, match=r"num_qubits 22 with 4 features needs about .* GB.*measure the circuits"):
            call()

    class Ones(StatevectorEstimator):
        """A device on which every expectation value is 1."""

        def run(self, pubs, *, precision=None):
            shapes = [EstimatorPub.coerce(pub).shape for pub in pubs]
            results = [SimpleNamespace(data=DataBin(evs=np.ones(shape)), metadata={}) for shape in shapes]
            return SimpleNamespace(result=lambda: results)

    measured = model.measured(Ones())
    assert np.array_equal(measured.map(weights, inputs).at(np.zeros((1, 22))).values, np.ones((1, 22)))
    assert block_size(measured) == 512


def test_more_products_than_can_be_written_down_are_refused():
    with pytest.raises(InputError, match=r"products of up to 3 of 127 Z are 341,503, more than .* readout='zz'"):
        model_config("default", 16, 2, 127, ansatz="hardware_efficient", readout="zzz").build()
    with pytest.raises(InputError, match="num_qubits must be an integer from 1 to 1000, got 5000"):
        model_config("default", 16, 2, 5000).build()


@pytest.mark.parametrize("kind", ["amplitude", "angle", "circuit"])
def test_the_map_of_a_model_is_that_of_its_circuit(kind):
    model = build_model(kind, state_scale=0.3)
    rng = np.random.default_rng(0)
    inputs, weights = model.prepare(rng.uniform(0.1, 1, (3, 6))), rng.uniform(-1, 1, 9)
    state = rng.uniform(-1, 1, (3, 3))
    expected = statevector_values(
        model.template, inputs + state @ model.injection.T, weights, model.template.state_observables
    )
    np.testing.assert_allclose(model.map(weights, inputs).at(state).values, expected, atol=1e-12)


@pytest.mark.parametrize("kind", ["amplitude", "angle", "circuit"])
@pytest.mark.parametrize(
    ("weights", "inputs", "message"),
    [
        (np.zeros(8), np.ones((2, 6)), r"weights must have shape \(9,\), got \(8,\)"),
        (np.zeros((2, 9)), np.ones((2, 6)), "weights must have shape"),
        (np.r_[np.zeros(8), np.nan], np.ones((2, 6)), "weights must be finite, entry 8"),
        (np.zeros(9) * 1j, np.ones((2, 6)), "weights must be real"),
        (np.zeros(9), np.ones(6), "inputs must have shape"),
        (np.zeros(9), np.ones((2, 5)), "inputs must have shape"),
        (np.zeros(9), [[1.0] * 6, [np.inf] * 6], "inputs of sample 1"),
    ],
)
def test_a_map_of_unusable_weights_or_inputs_is_refused_by_name(kind, weights, inputs, message):
    with pytest.raises(InputError, match=message):
        build_model(kind).map(weights, inputs)
