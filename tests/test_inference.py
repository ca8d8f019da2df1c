"""Prediction and evaluation against Statevector and SciPy, in batches and alone."""

from __future__ import annotations

import numpy as np
import pytest
from oracles import build_model, draw_problem, statevector_values
from scipy.special import log_softmax

from qiskit_qdeq import inference
from qiskit_qdeq.equilibrium import Newton, Picard
from qiskit_qdeq.exceptions import ConvergenceError, ConvergenceWarning, InputError
from qiskit_qdeq.inference import evaluate, predict

TIGHT = Newton(tol=1e-12)


def circuit_logits(model, parameters, inputs, states):
    weights, matrix, bias = model.split(parameters)
    moved = inputs + states @ model.injection.T
    features = statevector_values(model.template, moved, weights, model.template.readout_observables)
    return features @ matrix.T + bias


def test_logits_are_the_readout_of_the_circuit_at_a_fixed_point_of_the_circuit(contraction_model):
    model = contraction_model
    _, inputs, parameters = draw_problem(model, 3)
    found = predict(model, parameters, inputs, TIGHT)
    weights = model.split(parameters)[0]
    moved = inputs + found.state @ model.injection.T
    applied = statevector_values(model.template, moved, weights, model.template.state_observables)
    np.testing.assert_allclose(applied, found.state, atol=1e-11)
    np.testing.assert_allclose(found.logits, circuit_logits(model, parameters, inputs, found.state), atol=1e-11)
    assert found.converged.all()


@pytest.mark.parametrize("layers", [1, 3])
def test_direct_mode_reads_the_last_of_its_layers(contraction_model, layers):
    model = contraction_model
    _, inputs, parameters = draw_problem(model, 3)
    weights = model.split(parameters)[0]
    states = np.zeros((3, 3))
    for _ in range(layers - 1):
        moved = inputs + states @ model.injection.T
        states = statevector_values(model.template, moved, weights, model.template.state_observables)
    found = predict(model, parameters, inputs, None, layers=layers)
    np.testing.assert_allclose(found.logits, circuit_logits(model, parameters, inputs, states), atol=1e-12)
    np.testing.assert_allclose(found.state, states, atol=1e-12)
    np.testing.assert_array_equal(found.steps, layers)


@pytest.mark.parametrize("layers", [None, 2])
def test_predictions_do_not_depend_on_the_batches_they_are_cut_into(contraction_model, layers, monkeypatch):
    model = contraction_model
    _, inputs, parameters = draw_problem(model, 11)
    options = {"solver": TIGHT} if layers is None else {"solver": None, "layers": layers}
    whole = predict(model, parameters, inputs, **options)
    monkeypatch.setattr(inference, "BATCH", 4)
    cut = predict(model, parameters, inputs, **options)
    for name in ("logits", "state", "residual", "converged", "steps"):
        np.testing.assert_allclose(getattr(cut, name), getattr(whole, name), atol=1e-12)


def test_metrics_are_means_over_the_predictions(contraction_model):
    model = contraction_model
    _, inputs, parameters = draw_problem(model, 7)
    labels = np.array([0, 1, 2, 0, 1, 2, 0])
    found = predict(model, parameters, inputs, Newton())
    metrics = evaluate(model, parameters, inputs, labels, Newton())
    assert metrics.loss == pytest.approx(-log_softmax(found.logits, axis=1)[np.arange(7), labels].mean(), abs=1e-12)
    assert metrics.accuracy == np.mean(np.argmax(found.logits, axis=1) == labels)
    assert metrics.max_residual == found.residual.max()
    assert metrics.residual == np.median(found.residual)
    assert metrics.mean_steps == found.steps.mean()
    assert metrics.unconverged == 0


def test_samples_without_equilibrium_are_warned_of_raised_or_accepted(contraction_model):
    model = contraction_model
    _, inputs, parameters = draw_problem(model, 3)
    short = Picard(tol=1e-13, max_steps=1)
    with pytest.warns(ConvergenceWarning, match="3 of 3"):
        predict(model, parameters, inputs, short)
    with pytest.raises(ConvergenceError, match="3 of 3"):
        predict(model, parameters, inputs, short, on_failure="raise")
    found = predict(model, parameters, inputs, short, on_failure="accept")
    assert not found.converged.any()
    assert np.isfinite(found.logits).all()
    assert evaluate(model, parameters, inputs, np.zeros(3, int), short).unconverged == 1


@pytest.mark.parametrize("solver", [TIGHT, None])
def test_no_samples_have_no_predictions(contraction_model, solver):
    model = contraction_model
    _, inputs, parameters = draw_problem(model, 1)
    found = predict(model, parameters, inputs[:0], solver)
    assert found.logits.shape == (0, 3)
    assert found.state.shape == (0, 3)
    assert found.converged.shape == found.residual.shape == (0,)


def test_metrics_of_no_samples_are_an_error_that_says_so(contraction_model):
    _, inputs, parameters = draw_problem(contraction_model, 1)
    with pytest.raises(InputError, match="sample"):
        evaluate(contraction_model, parameters, inputs[:0], np.zeros(0, int), TIGHT)


def test_parameters_of_another_length_are_an_error():
    model = build_model("angle")
    _, inputs, parameters = draw_problem(model, 1)
    with pytest.raises(InputError, match=r"\(30,\), got \(29,\)"):
        predict(model, parameters[:-1], inputs, TIGHT)


def test_large_circuits_are_evaluated_in_smaller_batches(contraction_model, monkeypatch):
    model = contraction_model
    _, inputs, parameters = draw_problem(model, 5)
    whole = predict(model, parameters, inputs, TIGHT).logits
    monkeypatch.setattr(inference, "_COLUMN_BYTES", 1)
    np.testing.assert_allclose(predict(model, parameters, inputs, TIGHT).logits, whole, atol=1e-12)
