from __future__ import annotations

import numpy as np
import pytest

from qiskit_qdeq import model_config

STEP = 1e-5


@pytest.mark.parametrize(("encoding", "backend"), [("amplitude", "fake:torino"), ("angle", "fake:manila")])
def test_slopes_of_every_output_agree_with_finite_differences(encoding, backend):
    model = model_config("default", 16, 4, 4, encoding=encoding).build().noisy(backend)
    rng = np.random.default_rng(0)
    weights = rng.uniform(-3, 3, model.num_weights)
    inputs = model.prepare(rng.normal(size=(2, 16)))
    state = rng.uniform(-0.3, 0.3, (2, 4))

    def outputs(weights, inputs, state):
        point = model.map(weights, inputs).at(state)
        return np.concatenate([point.values, point.features], axis=1)

    def difference(function, size):
        return np.stack([(function(STEP * d) - function(-STEP * d)) / (2 * STEP) for d in np.eye(size)], axis=2)

    point = model.map(weights, inputs).at(state)
    for found, function, size in (
        (point.weight_slopes, lambda d: outputs(weights + d, inputs, state), len(weights)),
        (point.state_slopes, lambda d: outputs(weights, inputs, state + d), 4),
        (point.input_slopes, lambda d: outputs(weights, inputs + d, state), 16),
    ):
        np.testing.assert_allclose(found, difference(function, size), atol=1e-8)
    np.testing.assert_allclose(point.jacobian, point.state_slopes[:, :4], atol=1e-14)
    np.testing.assert_allclose(point.input_jacobian, point.input_slopes[:, :4], atol=1e-14)
    weights_of = rng.normal(size=(2, 4))
    pulled = np.einsum("bj,bjd->bd", weights_of, point.input_jacobian)
    np.testing.assert_allclose(point.pull_inputs(weights_of), pulled, atol=1e-14)
