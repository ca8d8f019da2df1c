"""The linear head and the cross-entropy against formulas written out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import central_difference, relative_error
from scipy.special import log_softmax
from scipy.special import softmax as scipy_softmax

from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.readout import Readout, cross_entropy, softmax


@pytest.mark.parametrize("repeat", [1, 3])
@pytest.mark.parametrize("activation", ["identity", "relu"])
@pytest.mark.parametrize("masked", [False, True])
def test_pull_back_is_the_derivative_of_activate(repeat, activation, masked):
    rng = np.random.default_rng(0)
    readout = Readout(4, 2, activation, repeat)
    features, cotangent = rng.normal(size=(5, 4)), rng.normal(size=(5, 4 * repeat))
    mask = rng.integers(0, 2, (5, 4 * repeat)) * 2.0 if masked else None
    expected = central_difference(lambda h: np.sum(cotangent * readout.activate(h, mask)), features, 1e-7)
    kept = cotangent.copy()
    found = readout.pull_back(cotangent, readout.activate(features, mask), mask)
    assert relative_error(found, expected) < 1e-6
    np.testing.assert_array_equal(cotangent, kept)


def test_relu_throws_negative_features_away_and_repeat_places_copies_side_by_side():
    readout = Readout(2, 2, "relu", 2)
    np.testing.assert_array_equal(readout.activate(np.array([[-0.5, 0.25]])), [[0, 0, 0.25, 0.25]])
    assert readout.width == 4
    assert readout.shapes == ((2, 4), (2,))


def test_dropout_keeps_the_mean_and_drops_at_its_rate():
    mask = Readout(50, 2).dropout_mask(2000, 0.3, np.random.default_rng(0), np.float64)
    assert np.mean(mask == 0) == pytest.approx(0.3, abs=0.01)
    assert mask.mean() == pytest.approx(1, abs=0.01)
    assert Readout(50, 2).dropout_mask(2, 0, np.random.default_rng(0), float) is None


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.floats(0.1, 500.0))
def test_cross_entropy_and_softmax_are_those_of_scipy_however_large_the_logits(seed, scale):
    rng = np.random.default_rng(seed)
    logits, labels = scale * rng.normal(size=(6, 4)), rng.integers(0, 4, 6)
    loss, gradient, correct = cross_entropy(logits, labels)
    assert correct == np.count_nonzero(logits.argmax(axis=1) == labels)
    assert loss == pytest.approx(-log_softmax(logits, axis=1)[np.arange(6), labels].mean(), rel=1e-10, abs=1e-12)
    np.testing.assert_allclose(softmax(logits), scipy_softmax(logits, axis=1), atol=1e-13)
    expected = (scipy_softmax(logits, axis=1) - np.eye(4)[labels]) / 6
    np.testing.assert_allclose(gradient, expected, atol=1e-13)


def test_softmax_and_cross_entropy_leave_their_arguments_alone():
    logits = np.array([[1.0, 2.0, 3.0]])
    softmax(logits)
    cross_entropy(logits, np.array([1]))
    np.testing.assert_array_equal(logits, [[1.0, 2.0, 3.0]])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((4, 2, "tanh"), "'tanh'"),
        ((0, 2), "num_features .*0"),
        ((4, 0), "num_classes .*0"),
        ((4, 2, "relu", 0), "repeat .*0"),
        ((4, 4, "identity", 1, "mlp"), "head .*'mlp'"),
        ((4, 2, "identity", 1, "none"), "head 'none' .* 4 readout observables .* make 4 for 2 classes"),
        ((4, 4, "identity", 2, "none"), "make 8 for 4 classes"),
    ],
)
def test_unusable_sizes_and_activations_are_errors(arguments, message):
    with pytest.raises(InputError, match=message):
        Readout(*arguments)
