from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates

from qiskit_qdeq.data import average_pool, image_features, normalize, resize_bilinear, to_grayscale
from qiskit_qdeq.exceptions import InputError


def pool_by_loop(image, kernel, stride, padding):
    padded = np.zeros((image.shape[0] + 2 * padding, image.shape[1] + 2 * padding))
    padded[padding : padding + image.shape[0], padding : padding + image.shape[1]] = image
    rows = []
    for top in range(0, padded.shape[0] - kernel + 1, stride):
        row = []
        for left in range(0, padded.shape[1] - kernel + 1, stride):
            total = 0.0
            for r in range(kernel):
                for c in range(kernel):
                    total += padded[top + r, left + c]
            row.append(total / kernel**2)
        rows.append(row)
    return np.array(rows)


def features_by_loop(image, num_qubits):
    normalized = np.empty((28, 28))
    for r in range(28):
        for c in range(28):
            normalized[r, c] = (image[r, c] / 255 - 0.1307) / 0.3081
    return pool_by_loop(normalized, *((6, 6, 0) if num_qubits == 4 else (5, 3, 2))).reshape(-1)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(1, 5),
    st.integers(1, 4),
    st.integers(0, 2),
    st.integers(0, 99),
)
def test_average_pool_is_the_mean_of_every_window(height, width, kernel, stride, padding, seed):
    padding = min(padding, kernel // 2)
    if min(height, width) + 2 * padding < kernel:
        return
    images = np.random.default_rng(seed).normal(size=(3, height, width))
    expected = [pool_by_loop(image, kernel, stride, padding) for image in images]
    np.testing.assert_allclose(average_pool(images, kernel, stride, padding), expected, atol=1e-13)


def test_average_pool_steps_by_the_kernel_unless_told_otherwise():
    image = np.arange(36.0).reshape(6, 6)
    np.testing.assert_allclose(average_pool(image, 3), pool_by_loop(image, 3, 3, 0))


def test_padding_zeros_count_in_the_mean():
    pooled = average_pool(np.ones((28, 28)), 5, 3, 2)
    assert pooled.shape == (10, 10)
    # At a corner 3 × 3 of the 25 pixels are inside the image, at an edge 3 × 5; the last window starts at 25.
    np.testing.assert_allclose(pooled[0, [0, 1, 8, 9]], [9 / 25, 15 / 25, 15 / 25, 9 / 25])
    np.testing.assert_allclose(pooled[1:9, 1:9], 1.0)


def test_leading_axes_are_kept():
    images = np.random.default_rng(0).normal(size=(2, 3, 8, 6))
    pooled = average_pool(images, 2)
    assert pooled.shape == (2, 3, 4, 3)
    np.testing.assert_allclose(pooled[1, 2], pool_by_loop(images[1, 2], 2, 2, 0))


def test_bilinear_resize_matches_values_worked_by_hand():
    # 4 -> 2: positions 0.5 and 2.5; an antialiased resize would also see the 8 from the first output pixel.
    np.testing.assert_allclose(resize_bilinear([[0, 0, 8, 0]], (1, 2)), [[0, 4]])
    # 2 -> 4: positions -0.25 (held at 0), 0.25, 0.75 and 1.25 (held at 1).
    np.testing.assert_allclose(resize_bilinear([[0], [4]], (4, 1)), [[0], [1], [3], [4]])
    # 3 -> 2 in both directions: positions 0.25 and 1.75.
    np.testing.assert_allclose(resize_bilinear([[0, 4, 8], [16, 20, 24], [32, 36, 40]], (2, 2)), [[5, 11], [29, 35]])


@settings(deadline=None, derandomize=True, max_examples=30)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 12), st.integers(1, 12), st.integers(0, 99))
def test_bilinear_resize_reads_the_neighbours_of_each_pixel_centre(height, width, new_height, new_width, seed):
    image = np.random.default_rng(seed).normal(size=(height, width))
    rows = (np.arange(new_height) + 0.5) * height / new_height - 0.5
    columns = (np.arange(new_width) + 0.5) * width / new_width - 0.5
    grid = np.meshgrid(np.clip(rows, 0, height - 1), np.clip(columns, 0, width - 1), indexing="ij")
    expected = map_coordinates(image, grid, order=1, mode="nearest")
    np.testing.assert_allclose(resize_bilinear(image, (new_height, new_width)), expected, atol=1e-12)


def test_grayscale_weights_red_green_blue():
    colours = np.array([[[1.0, 0, 0], [0, 1.0, 0]], [[0, 0, 1.0], [1.0, 1.0, 1.0]]])
    np.testing.assert_allclose(to_grayscale(colours), [[0.2989, 0.587], [0.114, 0.9999]])


def test_normalize_shifts_and_scales():
    np.testing.assert_allclose(normalize([[0.1307, 0.1307 + 0.3081]]), [[0, 1]], atol=1e-15)
    np.testing.assert_allclose(normalize(np.float32([2.0]), mean=1.0, std=0.5), [2.0])


def test_pooling_many_images_needs_little_more_memory_than_its_result():
    images = np.random.default_rng(2).normal(size=(10_000, 28, 28))
    tracemalloc.start()
    try:
        pooled = average_pool(images, 5, 3, 2)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak - pooled.nbytes < 15e6  # one pass over all images at once would take 22 MB
    for position in (0, 1023, 1024, 9999):
        np.testing.assert_allclose(pooled[position], pool_by_loop(images[position], 5, 3, 2), atol=1e-13)


@pytest.mark.parametrize("num_qubits", [4, 10])
def test_features_are_the_papers_for_every_image_of_a_batch_larger_than_a_block(num_qubits):
    images = np.random.default_rng(3).integers(0, 256, (2100, 28, 28), dtype=np.uint8)
    features = image_features(images, num_qubits)
    for position in (0, 1023, 1024, 2047, 2048, 2099):
        np.testing.assert_allclose(features[position], features_by_loop(images[position], num_qubits), atol=1e-13)


def test_features_at_four_qubits_see_the_top_left_24_pixels_only():
    image = np.zeros((1, 28, 28), dtype=np.uint8)
    marked = image.copy()
    marked[:, 24:, :] = marked[:, :, 24:] = 255
    np.testing.assert_array_equal(image_features(image), image_features(marked))
    marked[0, 23, 23] = 255
    assert np.flatnonzero(image_features(image) != image_features(marked)).tolist() == [15]


def test_colour_images_of_32_pixels_become_gray_and_28_wide_before_pooling():
    image = np.random.default_rng(1).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    gray = 0.2989 * image[..., 0] + 0.587 * image[..., 1] + 0.114 * image[..., 2]
    position = np.clip((np.arange(28) + 0.5) * 32 / 28 - 0.5, 0, 31)
    small = map_coordinates(gray, np.meshgrid(position, position, indexing="ij"), order=1)
    np.testing.assert_allclose(image_features(image[None], 10)[0], features_by_loop(small, 10), atol=1e-12)


def test_float_pixels_in_unit_range_equal_their_8_bit_form():
    image = np.random.default_rng(1).integers(0, 256, (2, 28, 28), dtype=np.uint8)
    np.testing.assert_allclose(image_features(image / 255), image_features(image), atol=1e-14)


def test_features_of_many_images_need_no_float_copy_of_them():
    images = np.zeros((20_000, 28, 28), dtype=np.uint8)
    tracemalloc.start()
    try:
        features = image_features(images, 10)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # The float copy alone would take 125 MB; blocks of 1,024 images take about 20 MB on top of the result.
    assert peak - features.nbytes < 30e6


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: average_pool(np.ones(5), 2), r"images must have shape \(\.\.\., H, W\)"),
        (lambda: average_pool(np.ones((0, 4)), 2), "with H, W > 0"),
        (lambda: average_pool(np.ones((4, 4)), 5), "kernel=5 does not fit"),
        (lambda: average_pool(np.ones((4, 4)), 0), "kernel=0 must be at least 1"),
        (lambda: average_pool(np.ones((4, 4)), 2, 0), "stride=0 must be at least 1"),
        (lambda: average_pool(np.ones((4, 4)), 2, 1, -1), "padding=-1 must be at least 0"),
        (lambda: average_pool(np.ones((4, 4)), 3, 1, 2), "padding=2 must be at most half of kernel=3"),
        (lambda: average_pool(np.ones((4, 4)), 2.5), "kernel=2.5 must be a whole number"),
        (lambda: average_pool([["a", "b"]], 1), "images must be real numbers"),
        (lambda: average_pool(np.ones((4, 4), dtype=complex), 2), "images must be real numbers"),
        (lambda: average_pool([[1.0, np.nan]], 1), "NaN or infinite"),
        (lambda: average_pool(np.pad([[np.inf]], ((0, 6), (0, 6))), 3), "NaN or infinite"),
        (lambda: resize_bilinear(np.ones((4, 4)), (0, 3)), "shape=0 must be at least 1"),
        (lambda: resize_bilinear([[1.0, np.inf]], (1, 1)), "NaN or infinite"),
        (lambda: to_grayscale(np.ones((2, 4))), "axis of 3 colours"),
        (lambda: to_grayscale([[1.0, np.nan, 0.0]]), "NaN or infinite"),
        (lambda: normalize(np.array([255], dtype=np.uint8)), "divide 8-bit pixels by 255"),
        (lambda: normalize([np.nan]), "NaN or infinite"),
        (lambda: normalize([0.5], std=0.0), "std=0.0 finite and positive"),
        (lambda: normalize([0.5], mean=np.nan), "mean=nan must be finite"),
        (lambda: image_features(np.ones((28, 28), dtype=np.uint8)), r"pixels must have shape \(N, H, W\)"),
        (lambda: image_features(np.ones((1, 28, 28, 4), dtype=np.uint8)), r"pixels must have shape"),
        (lambda: image_features(np.full((1, 28, 28), 255.0)), "run from 255.0 to 255.0, expected 0 to 1"),
        (lambda: image_features(np.full((1, 28, 28), 256)), "run from 256 to 256, expected 0 to 255"),
        (lambda: image_features(np.full((1, 28, 28), np.nan)), "run from nan to nan"),
        (lambda: image_features(np.ones((1, 28, 28), dtype=bool)), "pixels of type bool"),
        (lambda: image_features(np.ones((1, 28, 28), dtype=np.uint8), 5), "num_qubits=5"),
    ],
)
def test_unusable_images_and_options_are_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
