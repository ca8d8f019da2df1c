"""Learned features against NumPy's singular vectors, and what must not depend on what."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest

from qiskit_qdeq.data import average_pool, load_image_split, load_split, pca_features, vae_features
from qiskit_qdeq.exceptions import ConvergenceError, InputError, MissingExtraError

PARTS = ("train", "valid", "test")


@pytest.fixture
def pixels():
    return load_split("digits", pooled=False, limit=100)


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="needs PyTorch: the extra `torch`")


def test_unpooled_images_are_the_same_ones_in_the_same_order(idx_folder):
    pooled, whole = (load_image_split("mnist", idx_folder, limit=12, pooled=pooled) for pooled in (True, False))
    assert whole.image_shape == (28, 28)
    for part in PARTS:
        images = getattr(whole, f"x_{part}").reshape(-1, 28, 28)
        np.testing.assert_allclose(average_pool(images, 6).reshape(-1, 16), getattr(pooled, f"x_{part}"), atol=1e-13)
        np.testing.assert_array_equal(getattr(whole, f"y_{part}"), getattr(pooled, f"y_{part}"))


def test_unpooled_pixels_are_bytes_shifted_and_scaled(idx_folder, arrays):
    whole = load_image_split("mnist", idx_folder, num_qubits=10, pooled=False)
    expected = (arrays["x_test"].reshape(30, 784) / 255 - 0.1307) / 0.3081
    np.testing.assert_allclose(whole.x_test, expected, atol=1e-13)


def test_unpooled_digits_keep_the_classes_and_samples_of_their_qubits():
    pooled, whole = load_split("digits"), load_split("digits", pooled=False)
    assert (whole.image_shape, whole.classes) == ((8, 8), (0, 3, 6, 9))
    np.testing.assert_array_equal(whole.y_test, pooled.y_test)
    np.testing.assert_allclose(
        average_pool(whole.x_test.reshape(-1, 8, 8), 2).reshape(-1, 16), pooled.x_test, atol=1e-13
    )


def test_components_are_the_singular_vectors_of_the_training_part(pixels):
    found = pca_features(pixels, 9)
    center = pixels.x_train.mean(axis=0)
    directions = np.linalg.svd(pixels.x_train - center, full_matrices=False)[2][:9]
    scale = ((pixels.x_train - center) @ directions.T).std(axis=0)
    for part in PARTS:
        expected = (getattr(pixels, f"x_{part}") - center) @ directions.T / scale
        features = getattr(found, f"x_{part}")
        signs = np.sign(np.sum(expected * features, axis=0))
        np.testing.assert_allclose(features * signs, expected, atol=1e-9)
        np.testing.assert_array_equal(getattr(found, f"y_{part}"), getattr(pixels, f"y_{part}"))
    assert (found.image_shape, found.classes, found.num_features) == ((3, 3), pixels.classes, 9)


def test_constant_pixels_become_constant_features_not_amplified_rounding():
    # corners of the digits are white in every image
    split = load_split("digits", num_qubits=6, limit=100)
    assert (split.x_train.std(axis=0) < 1e-12).any()
    found = pca_features(split, 64)
    assert np.abs(found.x_train[:, -1]).max() < 1e-6
    assert found.x_train[:, 0].std() == pytest.approx(1)


def test_the_range_of_the_training_part_runs_from_zero_to_one(pixels):
    found, standard = pca_features(pixels, 9, scaling="range"), pca_features(pixels, 9)
    np.testing.assert_allclose(found.x_train.min(axis=0), 0, atol=1e-13)
    np.testing.assert_allclose(found.x_train.max(axis=0), 1, atol=1e-13)
    # the same features in other units
    moved = (standard.x_test - standard.x_train.min(axis=0)) / np.ptp(standard.x_train, axis=0)
    np.testing.assert_allclose(found.x_test, moved, atol=1e-12)


def check_fitted_on_the_training_part_alone(compress, pixels):
    other = replace(pixels, x_valid=pixels.x_valid + 1, x_test=3 * pixels.x_test)
    np.testing.assert_array_equal(compress(pixels).x_train, compress(other).x_train)
    assert not np.array_equal(compress(pixels).x_test, compress(other).x_test)


def test_components_are_fitted_on_the_training_part_alone(pixels):
    check_fitted_on_the_training_part_alone(lambda split: pca_features(split, 4), pixels)


def test_the_latent_code_is_fitted_on_the_training_part_alone(torch, pixels):
    check_fitted_on_the_training_part_alone(lambda split: vae_features(split, 4, epochs=1), pixels)


def test_the_latent_code_is_standardized_and_tells_classes_apart(torch, pixels):
    found = vae_features(pixels, 16, epochs=60)
    np.testing.assert_allclose(found.x_train.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(found.x_train.std(axis=0), 1, atol=1e-12)
    assert found.image_shape == (4, 4)
    # nearest class mean, a classifier without anything to tune
    means = np.array([found.x_train[found.y_train == label].mean(axis=0) for label in range(4)])
    distances = np.linalg.norm(found.x_test[:, None] - means, axis=2)
    assert np.mean(distances.argmin(axis=1) == found.y_test) > 0.8


def test_the_latent_code_repeats_with_its_seed_and_leaves_the_random_state_alone(torch, pixels):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, again, other = (vae_features(pixels, 4, seed=seed, epochs=1).x_test for seed in (1, 1, 2))
    np.testing.assert_array_equal(torch.rand(3).numpy(), expected.numpy())
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_diverged_autoencoder_is_an_error(torch, pixels):
    with pytest.raises(ConvergenceError, match="scale the features"):
        vae_features(replace(pixels, x_train=1e30 * pixels.x_train), 4, epochs=1)


def test_without_pytorch_the_extra_is_named(pixels, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r"qiskit-qdeq\[torch\]"):
        vae_features(pixels, 4)


@pytest.mark.parametrize("compress", [pca_features, vae_features])
def test_unknown_scalings_are_refused(pixels, compress):
    with pytest.raises(InputError, match="scaling='minmax'"):
        compress(pixels, 4, scaling="minmax")


@pytest.mark.parametrize("compress", [pca_features, vae_features])
@pytest.mark.parametrize("count", [0, 65, 2.0, True])
def test_impossible_numbers_of_features_are_refused(pixels, compress, count):
    with pytest.raises(InputError, match="num_features="):
        compress(pixels, count)


def test_more_components_than_training_samples_are_refused():
    with pytest.raises(InputError, match=r"num_features=50 .* 40 training samples"):
        pca_features(load_split("digits", pooled=False, limit_train=40), 50)


@pytest.mark.parametrize("options", [{"epochs": 0}, {"epochs": 1.5}, {"seed": -1}, {"seed": None}])
def test_impossible_options_of_the_autoencoder_are_refused(pixels, options):
    with pytest.raises(InputError, match=f"{next(iter(options))}="):
        vae_features(pixels, 4, **options)
