from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from qiskit.quantum_info import Statevector

from qiskit_qdeq.circuits import AmplitudeEncoder
from qiskit_qdeq.exceptions import InputError

ENTRIES = st.one_of(st.floats(-10, 10, allow_subnormal=False), st.sampled_from([0.0, -0.0, 1.0, -1.0, 1e-9]))
VECTORS = st.integers(1, 20).flatmap(lambda size: arrays(np.float64, size, elements=ENTRIES))


def encoded_state(encoder: AmplitudeEncoder, inputs: np.ndarray) -> np.ndarray:
    angles = encoder.angles(inputs[None])[0]
    return Statevector(encoder.circuit.assign_parameters(dict(zip(encoder.parameters, angles, strict=True)))).data


@settings(deadline=None, derandomize=True, max_examples=150)
@given(VECTORS.filter(lambda u: np.abs(u).max() > 1e-12))
def test_amplitudes_are_the_normalized_inputs_with_their_signs(inputs):
    encoder = AmplitudeEncoder(len(inputs))
    expected = np.zeros(2**encoder.num_qubits)
    expected[: len(inputs)] = inputs / np.linalg.norm(inputs)
    np.testing.assert_allclose(encoded_state(encoder, inputs), expected, atol=1e-13)


@pytest.mark.parametrize("num_features", [16, 37, 100, 128])
def test_a_large_circuit_prepares_the_inputs(num_features):
    inputs = np.random.default_rng(num_features).normal(size=num_features)
    state = encoded_state(AmplitudeEncoder(num_features), inputs)[:num_features]
    np.testing.assert_allclose(state, inputs / np.linalg.norm(inputs), atol=1e-13)


@pytest.mark.parametrize("index", range(8))
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_every_signed_basis_state_is_prepared(index, sign):
    expected = sign * np.eye(8)[index]
    np.testing.assert_allclose(encoded_state(AmplitudeEncoder(8), 3 * expected), expected, atol=1e-15)


@pytest.mark.parametrize("value", [2.0, -2.0])
def test_a_single_feature_becomes_the_sign_of_the_ground_state(value):
    np.testing.assert_allclose(encoded_state(AmplitudeEncoder(1), np.array([value])), [np.sign(value), 0], atol=1e-15)


def test_qubits_beyond_the_amplitudes_stay_in_zero():
    inputs = np.array([1.0, -2.0, 3.0])
    expected = np.zeros(16)
    expected[:3] = inputs / np.linalg.norm(inputs)
    np.testing.assert_allclose(encoded_state(AmplitudeEncoder(3, num_qubits=4), inputs), expected, atol=1e-15)


@pytest.mark.parametrize("scale", [1e-290, 1e-160, 1e160, 1e300])
def test_angles_do_not_depend_on_the_length_even_at_the_ends_of_the_number_range(scale):
    inputs = np.random.default_rng(0).normal(size=(3, 7))
    encoder = AmplitudeEncoder(7)
    np.testing.assert_allclose(encoder.angles(inputs * scale), encoder.angles(inputs), rtol=1e-12, atol=1e-14)
    if scale > 1:
        jacobian = encoder.angles_jacobian(inputs * scale) * scale
        np.testing.assert_allclose(jacobian, encoder.angles_jacobian(inputs), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("num_features", "num_qubits"), [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3), (16, 4), (100, 7)])
def test_the_circuit_has_one_ry_per_angle_and_the_fewest_cz(num_features, num_qubits):
    encoder = AmplitudeEncoder(num_features)
    assert encoder.num_qubits == num_qubits
    gates = dict(encoder.circuit.count_ops())
    assert gates.pop("ry") == encoder.num_angles == 2**num_qubits - 1
    assert gates.pop("cz", 0) == 2**num_qubits - num_qubits - 1
    assert not gates
    used = [item.operation.params[0] for item in encoder.circuit.data if item.operation.name == "ry"]
    assert used == list(encoder.parameters)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.integers(1, 17), st.integers(0, 10**6))
def test_the_angles_jacobian_is_the_derivative_of_the_angles(num_features, seed):
    inputs = np.random.default_rng(seed).normal(size=(2, num_features))
    inputs += 0.1 * np.sign(inputs)
    encoder = AmplitudeEncoder(num_features)
    jacobian = encoder.angles_jacobian(inputs)
    assert jacobian.shape == (2, encoder.num_angles, num_features)
    step = 1e-6
    for i in range(num_features):
        shift = step * np.eye(num_features)[i]
        difference = (encoder.angles(inputs + shift) - encoder.angles(inputs - shift)) / (2 * step)
        np.testing.assert_allclose(jacobian[:, :, i], difference, atol=2e-8)


def test_single_zeros_keep_the_angles_jacobian_a_derivative_and_the_sample_differentiable():
    inputs = np.array([[0.0, 1.0, -2.0, 0.0, 0.5, 1.5, 0.7, 0.0]])
    encoder = AmplitudeEncoder(8)
    assert encoder.differentiable(inputs).all()
    step = 1e-6
    # Entries 3 and 7 pass the branch cut of atan2: the tree angle jumps by 4 pi, a full turn of RY.
    for i in (0, 1, 2, 4, 5, 6):
        shift = step * np.eye(8)[i]
        difference = (encoder.angles(inputs + shift) - encoder.angles(inputs - shift)) / (2 * step)
        np.testing.assert_allclose(encoder.angles_jacobian(inputs)[:, :, i], difference, atol=1e-8)


def test_the_state_derivative_by_shifted_angles_and_the_chain_rule_is_that_of_the_normalized_vector():
    inputs = np.random.default_rng(5).normal(size=6)
    encoder = AmplitudeEncoder(6)
    angles = encoder.angles(inputs[None])[0]
    columns = []
    for g in range(encoder.num_angles):
        shifted = angles + np.pi * np.eye(len(angles))[g]
        bound = encoder.circuit.assign_parameters(dict(zip(encoder.parameters, shifted, strict=True)))
        columns.append(Statevector(bound).data.real / 2)
    by_chain = np.array(columns).T[:6] @ encoder.angles_jacobian(inputs[None])[0]
    length = np.linalg.norm(inputs)
    direction = inputs / length
    np.testing.assert_allclose(by_chain, (np.eye(6) - np.outer(direction, direction)) / length, atol=1e-13)


def test_a_zero_block_gives_zero_angles_and_derivatives_and_is_reported():
    encoder = AmplitudeEncoder(8)
    inputs = np.array([[1.0, 2.0, 3.0, 4.0, 0.0, 0.0, 0.0, 0.0], np.arange(1.0, 9.0)])
    assert encoder.differentiable(inputs).tolist() == [False, True]
    jacobian = encoder.angles_jacobian(inputs)
    assert np.isfinite(jacobian).all()
    np.testing.assert_array_equal(jacobian[0, :, 4:], 0)
    assert encoder.angles(inputs)[0, 0] == 0


@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_zeros_of_either_sign_give_zero_angles(zero):
    inputs = np.full((1, 8), zero)
    inputs[0, 0] = 2.0
    np.testing.assert_array_equal(AmplitudeEncoder(8).angles(inputs), 0)
    np.testing.assert_array_equal(AmplitudeEncoder(5).angles(inputs[:, :5]), 0)


def test_padding_beyond_the_features_is_not_reported_as_a_zero_block():
    assert AmplitudeEncoder(5).differentiable(np.ones((1, 5))).all()
    assert not AmplitudeEncoder(5).differentiable(np.array([[1.0, 1.0, 1.0, 1.0, 0.0]])).any()


def test_samples_do_not_influence_each_other():
    inputs = np.random.default_rng(1).normal(size=(5, 10))
    encoder = AmplitudeEncoder(10)
    single = np.concatenate([encoder.angles(row[None]) for row in inputs])
    np.testing.assert_allclose(encoder.angles(inputs), single, atol=1e-15)
    single = np.concatenate([encoder.angles_jacobian(row[None]) for row in inputs])
    np.testing.assert_allclose(encoder.angles_jacobian(inputs), single, atol=1e-14)


def test_an_empty_batch_gives_empty_angles():
    encoder = AmplitudeEncoder(5)
    assert encoder.angles(np.zeros((0, 5))).shape == (0, 7)
    assert encoder.angles_jacobian(np.zeros((0, 5))).shape == (0, 7, 5)


@pytest.mark.parametrize("method", ["angles", "angles_jacobian", "validate", "differentiable"])
def test_a_zero_vector_is_an_error_that_names_the_sample(method):
    inputs = np.ones((4, 3))
    inputs[2] = 0
    with pytest.raises(InputError, match="sample 2 are all zero"):
        getattr(AmplitudeEncoder(3), method)(inputs)


def test_a_vector_too_small_to_normalize_counts_as_zero():
    with pytest.raises(InputError, match="sample 0 are all zero"):
        AmplitudeEncoder(2).angles(np.full((1, 2), 1e-310))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((17, 4), "num_qubits=4 holds at most 16 amplitudes"),
        ((0,), "num_features must be an integer of at least 1"),
        ((2.5,), "num_features must be an integer"),
        ((True,), "num_features must be an integer"),
        ((4, 0), "num_qubits must be an integer of at least 1"),
    ],
)
def test_unusable_sizes_are_errors(arguments, message):
    with pytest.raises(InputError, match=message):
        AmplitudeEncoder(*arguments)
