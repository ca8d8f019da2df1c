from __future__ import annotations

from dataclasses import FrozenInstanceError, fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from qiskit_qdeq.data import DataSplit, load_digits_split, load_split
from qiskit_qdeq.data.split import stratified_subset
from qiskit_qdeq.exceptions import InputError

PARTS = ("train", "valid", "test")


@pytest.fixture
def split():
    x, y = np.arange(24.0).reshape(4, 6), np.array([0, 1, 0, 1])
    return DataSplit(x, y, x, y, x, y, classes=(3, 8), name="toy", image_shape=(2, 3))


def test_a_split_knows_its_sizes_and_cannot_be_changed(split):
    assert (split.num_features, split.num_classes) == (6, 2)
    assert repr(split) == "DataSplit(toy, 2x3 features, classes 3, 8, 4 train, 4 valid, 4 test)"
    with pytest.raises(FrozenInstanceError):
        split.name = "other"
    assert all(getattr(split, field.name) is not None for field in fields(split))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x_train": np.ones((4, 5))}, r"x_train must be a float64 array of shape \(N, 6\)"),
        (
            {"x_test": np.ones((4, 6), dtype=np.float32)},
            "x_test must be a float64 array .* got float32 array",
        ),
        ({"x_test": [[1.0] * 6] * 4}, "x_test must be a float64 array .* got list"),
        ({"image_shape": (2, 2)}, r"x_train must be a float64 array of shape \(N, 4\)"),
        ({"x_valid": np.ones((0, 6)), "y_valid": np.ones(0, dtype=int)}, "x_valid is empty"),
        (
            {"x_valid": np.diag([1.0, 1, np.nan, 1])[:, [0, 1, 2, 3, 0, 0]]},
            r"x_valid\[2\] has a feature that is NaN",
        ),
        ({"x_valid": np.full((4, 6), np.inf)}, r"x_valid\[0\] has a feature that is NaN or infinite"),
        ({"y_test": np.array([0, 1, 0])}, "y_test has 3 labels for 4 samples"),
        ({"y_test": np.array([0.0, 1, 0, 1])}, "y_test must be an integer array .* got float64"),
        ({"y_test": [0, 1, 0, 1]}, "y_test must be an integer array .* got list"),
        ({"y_test": np.array([0, 1, 0, 2])}, "y_test contains label 2; labels run from 0 to 1"),
        ({"y_test": np.array([0, 1, 0, -1])}, "y_test contains label -1"),
        ({"y_train": np.array([0, 0, 0, 0])}, "y_train has no sample of class 8"),
        ({"classes": (3,)}, "fewer than two classes"),
        ({"classes": (3, 3)}, "names a class twice"),
    ],
)
def test_parts_that_do_not_fit_together_are_refused(split, change, message):
    with pytest.raises(InputError, match=message):
        replace(split, **change)


@settings(deadline=None, derandomize=True, max_examples=100)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(0, 60), st.integers(0, 9))
def test_a_stratified_subset_has_the_size_asked_and_the_shares_of_the_whole(labels, size, seed):
    labels = np.array(labels)
    picked = stratified_subset(labels, size, np.random.default_rng(seed))
    assert len(picked) == min(size, len(labels))
    assert (np.diff(picked) > 0).all()
    share = np.bincount(labels) * len(picked) / len(labels)
    assert (np.abs(np.bincount(labels[picked], minlength=len(share)) - share) < 1).all()


def test_a_stratified_subset_is_drawn_at_random():
    labels = np.repeat([0, 1], 50)
    draws = {tuple(stratified_subset(labels, 10, np.random.default_rng(seed))) for seed in range(20)}
    assert len(draws) == 20
    assert len(set().union(*draws)) > 80


def test_digits_are_parted_60_15_25_with_equal_shares_of_every_class():
    split = load_digits_split(classes=range(10), size=8)
    counts = [np.bincount(getattr(split, f"y_{part}")) for part in PARTS]
    total = np.bincount(load_digits().target)
    assert [int(count.sum()) for count in counts] == [1078, 270, 449]
    for count, share in zip(counts, (0.6, 0.15, 0.25), strict=True):
        assert np.abs(count - share * total).max() < 2
    np.testing.assert_array_equal(sum(counts), total)


@pytest.mark.parametrize("size", [4, 8])
def test_digit_features_are_the_normalized_pixels_with_their_labels(size):
    split = load_digits_split(classes=(9, 1, 4), size=size)
    digits = load_digits()
    expected = []
    for image, target in zip(digits.images, digits.target, strict=True):
        if target in (9, 1, 4):
            step = 8 // size
            pixels = [image[r : r + step, c : c + step].mean() for r in range(0, 8, step) for c in range(0, 8, step)]
            expected.append(((*np.round((np.array(pixels) / 16 - 0.1307) / 0.3081, 9),), (9, 1, 4).index(target)))
    found = [
        ((*np.round(x, 9),), int(y))
        for part in PARTS
        for x, y in zip(getattr(split, f"x_{part}"), getattr(split, f"y_{part}"), strict=True)
    ]
    assert sorted(found) == sorted(expected)
    assert (split.image_shape, split.num_features) == ((size, size), size * size)


def test_digits_come_shuffled_and_the_seed_decides():
    one, again, other = (load_digits_split(seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.x_train, again.x_train)
    assert not np.array_equal(one.x_train, other.x_train)
    position = {image.tobytes(): i for i, image in enumerate(load_digits().data)}
    pixels = np.round((load_digits_split(size=8).x_train * 0.3081 + 0.1307) * 16)
    order = np.array([position[image.tobytes()] for image in pixels])
    assert 0.4 < (np.diff(order) > 0).mean() < 0.6


def test_digit_limits_thin_the_full_split():
    full, few = load_digits_split(), load_digits_split(limit=20, limit_train=60)
    assert [len(getattr(few, f"x_{part}")) for part in PARTS] == [60, 20, 20]
    assert np.bincount(few.y_train).tolist() == [15, 15, 15, 15]
    for part in PARTS:
        kept = {sample.tobytes() for sample in getattr(few, f"x_{part}")}
        assert kept < {sample.tobytes() for sample in getattr(full, f"x_{part}")}


def test_load_split_chooses_digit_size_and_classes_by_qubits():
    four = load_split("digits")
    np.testing.assert_array_equal(four.x_train, load_digits_split().x_train)
    assert (four.classes, four.num_features) == ((0, 3, 6, 9), 16)
    for num_qubits in (6, 10):
        wide = load_split("digits", num_qubits=num_qubits, limit=40)
        assert (wide.classes, wide.num_features) == (tuple(range(10)), 64)
    chosen = load_split("digits", num_qubits=6, classes=(2, 1), seed=5)
    np.testing.assert_array_equal(chosen.x_test, load_digits_split((2, 1), size=8, seed=5).x_test)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: load_digits_split(size=5), "size=5 must be 4"),
        (lambda: load_digits_split(classes=(0, 12)), "class 12 is not in the data set"),
        (
            lambda: load_digits_split(valid_fraction=0.5, test_fraction=0.5),
            r"valid_fraction \+ test_fraction=1.0",
        ),
        (lambda: load_digits_split(test_fraction=-0.1), "test_fraction=-0.1"),
        (lambda: load_digits_split(valid_fraction=1e-6), "x_valid is empty"),
        (lambda: load_digits_split(seed="0"), "seed='0' must be a non-negative integer"),
        (lambda: load_digits_split(limit=3), "limit=3 is too small"),
        (lambda: load_split("digits", num_qubits=5), "num_qubits=5 must be 4"),
        (lambda: load_split("digits", num_qubits=2), "num_qubits=2 must be 4"),
        (lambda: load_split("digits", num_qubits="4"), "num_qubits='4' must be 4"),
        (lambda: load_split("digits", data_dir="somewhere"), "digits come with scikit-learn"),
    ],
)
def test_unusable_arguments_are_named(call, message):
    with pytest.raises(InputError, match=message):
        call()
