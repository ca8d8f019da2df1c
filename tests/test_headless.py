"""Models without a head: the readout's expectation values are the logits, nothing but circuit weights is trained."""

from __future__ import annotations

import numpy as np
import pytest
from oracles import build_model, central_difference, draw_problem, relative_error, statevector_values
from qiskit.primitives import StatevectorEstimator
from scipy.special import log_softmax

from qiskit_qdeq import Trainer, TrainingConfig, model_config
from qiskit_qdeq.data import load_split
from qiskit_qdeq.equilibrium import Newton
from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.inference import predict
from qiskit_qdeq.presets import ModelConfig
from qiskit_qdeq.programs.evaluate import main as evaluate
from qiskit_qdeq.programs.train import main as train
from qiskit_qdeq.training.identity import circuit_digest
from qiskit_qdeq.training.step import training_step

LABELS = np.array([0, 2, 1])


def headless(kind="amplitude", **options):
    return build_model(kind, readout="z", head="none", **options)


def loss_of(model, weights, inputs, labels, layers):
    """DIRECT-L from Statevector: mean -log softmax over <Z> itself."""
    states = np.zeros((len(inputs), model.num_states))
    for _ in range(layers):
        values = statevector_values(
            model.template, inputs + states @ model.injection.T, weights, model.template.state_observables
        )
        states = values
    return -log_softmax(values, axis=1)[np.arange(len(labels)), labels].mean()


def step_of(model, parameters, inputs, **options):
    config = TrainingConfig(**options)
    direct = config.mode == "direct"
    return training_step(
        model, parameters, inputs, LABELS, config, direct=direct, initial=None, rng=lambda: np.random.default_rng(0)
    )


def test_its_parameters_are_the_circuit_weights_alone():
    model = headless()
    assert model.num_parameters == model.num_weights == 9
    drawn = model.initial_parameters(0)
    assert drawn.shape == (9,)
    assert np.abs(drawn).max() > 1  # angles in ±π, not readout entries in ±1/√3
    weights, matrix, bias = model.split(drawn)
    np.testing.assert_array_equal(weights, drawn)
    np.testing.assert_array_equal(matrix, np.eye(3))
    np.testing.assert_array_equal(bias, np.zeros(3))


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("kind", ["amplitude", "angle"])
def test_loss_and_gradient_are_those_of_log_softmax_over_expectation_values(kind, layers):
    model = headless(kind)
    _, inputs, parameters = draw_problem(model, 3)
    found = step_of(model, parameters, inputs, mode="direct", layers=layers)
    assert found.loss == pytest.approx(loss_of(model, parameters, inputs, LABELS, layers), abs=1e-12)
    expected = central_difference(lambda w: loss_of(model, w, inputs, LABELS, layers), parameters, 1e-5)
    assert relative_error(found.gradient, expected) < 1e-7


def test_the_implicit_gradient_is_the_derivative_of_the_loss_at_the_equilibrium():
    model = headless(state_scale=0.5)
    _, inputs, parameters = draw_problem(model, 3)
    found = step_of(model, parameters, inputs, solver=Newton(tol=1e-12))

    def loss(weights):
        logits = predict(model, weights, inputs, Newton(tol=1e-12)).logits
        return -log_softmax(logits, axis=1)[np.arange(3), LABELS].mean()

    assert relative_error(found.gradient, central_difference(loss, parameters, 1e-5)) < 1e-6


def test_predictions_are_the_expectation_values_measured_or_computed():
    model = headless()
    _, inputs, parameters = draw_problem(model, 3)
    expected = statevector_values(model.template, inputs, parameters, model.template.state_observables)
    measured = model.measured(StatevectorEstimator())
    for found in (predict(each, parameters, inputs, None).logits for each in (model, measured)):
        np.testing.assert_allclose(found, expected, atol=1e-12)
    steps = [step_of(each, parameters, inputs, mode="direct") for each in (model, measured)]
    np.testing.assert_allclose(steps[1].gradient, steps[0].gradient, atol=1e-12)


def test_it_trains_and_resumes_bit_for_bit(tmp_path):
    split = load_split("digits", limit=40)
    model = ModelConfig(16, 4, 4, readout="z", head="none").build()

    def trainer(epochs, **options):
        config = TrainingConfig(mode="direct", schedule="constant", epochs=epochs, batch_size=10)
        return Trainer(model, config, split.x_train, split.y_train, split.x_valid, split.y_valid, **options)

    whole = trainer(6).run()
    assert whole.history[-1]["loss"] < whole.history[0]["loss"]
    trainer(3, checkpoint=tmp_path / "run.safetensors").run()
    rest = trainer(6, checkpoint=tmp_path / "run.safetensors").resume().run()
    np.testing.assert_array_equal(rest.last_parameters, whole.last_parameters)


def test_decay_of_a_readout_matrix_it_does_not_have_is_refused():
    split = load_split("digits", limit=40)
    model = ModelConfig(16, 4, 4, readout="z", head="none").build()
    with pytest.raises(InputError, match=r"weight_decay 0\.1 .*head 'none'"):
        Trainer(model, TrainingConfig(weight_decay=0.1), split.x_train, split.y_train)


def test_models_with_and_without_a_head_are_told_apart():
    with_head, without = (ModelConfig(16, 4, 4, readout="z", head=head).build() for head in ("linear", "none"))
    assert circuit_digest(with_head) != circuit_digest(without)


def test_the_paper_preset_without_head_has_neither_its_relu_nor_its_copies():
    model = model_config("paper", 16, 4, 4, head="none").build()
    assert (model.readout.activation, model.readout.repeat, model.num_parameters) == ("identity", 1, 39)


def test_a_readout_with_another_number_of_observables_than_classes_is_refused():
    with pytest.raises(InputError, match=r"14 readout observables .* for 4 classes"):
        model_config("default", 16, 4, 4, head="none").build()


def test_the_programs_train_and_evaluate_it(tmp_path):
    options = {"preset": "paper", "mode": "direct", "head": "none", "epochs": 2, "limit": 40, "no_plots": True}
    metrics = train(None, {**options, "output": tmp_path / "run", "quiet": True})
    assert metrics["num_parameters"] == metrics["num_weights"] == 39
    assert metrics["configuration"]["dropout"] == 0
    again = evaluate(None, {"directory": str(tmp_path / "run"), "quiet": True})
    assert again["accuracy"] == metrics["test_accuracy"]
