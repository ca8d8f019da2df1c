from __future__ import annotations

from types import SimpleNamespace
from urllib.error import URLError

import numpy as np
import pytest
import sklearn.datasets

from qiskit_qdeq.data import image_features, load_image_split, load_split
from qiskit_qdeq.exceptions import InputError


def rows(features):
    """The samples as a set; random images never coincide."""
    return {sample.tobytes() for sample in features}


def test_training_images_are_split_four_to_one_and_none_is_lost(idx_folder, arrays):
    split = load_image_split("mnist", idx_folder, classes=range(10))
    assert (len(split.x_train), len(split.x_valid), len(split.x_test)) == (48, 12, 30)
    train, valid = rows(split.x_train), rows(split.x_valid)
    assert not train & valid
    assert train | valid == rows(image_features(arrays["x_train"]))


def test_every_feature_row_keeps_its_label(idx_folder, arrays):
    split = load_image_split("mnist", idx_folder, classes=(7, 2, 5))
    label_of = {
        sample.tobytes(): label
        for side in ("train", "test")
        for sample, label in zip(image_features(arrays[f"x_{side}"]), arrays[f"y_{side}"], strict=True)
    }
    for x, y in (
        (split.x_train, split.y_train),
        (split.x_valid, split.y_valid),
        (split.x_test, split.y_test),
    ):
        assert [split.classes[label] for label in y] == [label_of[sample.tobytes()] for sample in x]
    assert split.classes == (7, 2, 5)
    assert split.y_train.dtype == np.int64


def test_the_official_test_set_stays_whole_and_in_order(idx_folder, arrays):
    split = load_image_split("mnist", idx_folder, num_qubits=10, classes=range(10))
    np.testing.assert_array_equal(split.x_test, image_features(arrays["x_test"], 10))
    np.testing.assert_array_equal(split.y_test, arrays["y_test"])
    assert (split.num_features, split.image_shape, split.num_classes) == (100, (10, 10), 10)


def test_training_count_is_four_fifths_rounded_down(idx_folder):
    # 3 of 10 classes: 18 training images, int(0.8 · 18) = 14.
    split = load_image_split("mnist", idx_folder, classes=(0, 1, 2))
    assert (len(split.x_train), len(split.x_valid)) == (14, 4)
    assert len(load_image_split("mnist", idx_folder, classes=(0, 1, 2), valid_fraction=0.5).x_valid) == 9


def test_the_seed_decides_the_split(idx_folder):
    one, again, other = (load_image_split("fashion_mnist", idx_folder, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.x_train, again.x_train)
    assert rows(one.x_train) != rows(other.x_train)
    from_generator = load_image_split("fashion_mnist", idx_folder, seed=np.random.default_rng(1))
    np.testing.assert_array_equal(one.x_train, from_generator.x_train)
    np.testing.assert_array_equal(one.x_train, load_image_split("fashion_mnist", idx_folder).x_train)


def test_limits_keep_a_balanced_part_of_the_full_split(idx_folder):
    full = load_image_split("mnist", idx_folder, classes=(1, 2))
    few = load_image_split("mnist", idx_folder, classes=(1, 2), limit=2, limit_train=4)
    assert (len(few.x_train), len(few.x_valid), len(few.x_test)) == (4, 2, 2)
    assert np.bincount(few.y_test).tolist() == [1, 1]
    for part in ("x_train", "x_valid", "x_test"):
        assert rows(getattr(few, part)) < rows(getattr(full, part))
    wide = load_image_split("mnist", idx_folder, classes=(1, 2), limit=2, limit_train=6)
    np.testing.assert_array_equal(wide.x_test, few.x_test)
    np.testing.assert_array_equal(wide.x_valid, few.x_valid)
    assert len(load_image_split("mnist", idx_folder, classes=(1, 2), limit=4).x_train) == 4
    train_only = load_image_split("mnist", idx_folder, classes=(1, 2), limit_train=4)
    assert (len(train_only.x_train), len(train_only.x_test)) == (4, len(full.x_test))
    generous = load_image_split("mnist", idx_folder, classes=(1, 2), limit=1000)
    np.testing.assert_array_equal(generous.x_train, full.x_train)


def test_default_classes_depend_on_data_set_and_qubits(idx_folder):
    assert load_image_split("mnist", idx_folder).classes == (0, 3, 6, 9)
    assert load_image_split("mnist", idx_folder, num_qubits=10).classes == tuple(range(10))
    assert load_image_split("fashion_mnist", idx_folder).classes == tuple(range(10))


def test_cifar_takes_gray_colour_and_resized_images(tmp_path, arrays):
    rng = np.random.default_rng(0)
    for shape in ((32, 32), (32, 32, 3), (28, 28)):
        images = {f"x_{side}": rng.integers(0, 256, (count, *shape)) for side, count in (("train", 60), ("test", 30))}
        np.savez(tmp_path / "cifar10.npz", **(arrays | images))
        split = load_image_split("cifar10", tmp_path, num_qubits=10)
        np.testing.assert_array_equal(split.x_test, image_features(images["x_test"], 10))
    np.savez(tmp_path / "mnist.npz", **(arrays | {"x_test": np.zeros((30, 32, 32), np.uint8)}))
    with pytest.raises(InputError, match="but mnist takes"):
        load_image_split("mnist", tmp_path)


def test_load_split_hands_every_argument_to_the_loader(idx_folder):
    ours = load_split("mnist", data_dir=idx_folder, classes=(4, 1), num_qubits=10, seed=3, limit=4, limit_train=6)
    direct = load_image_split("mnist", idx_folder, classes=(4, 1), num_qubits=10, seed=3, limit=4, limit_train=6)
    for part in ("x_train", "y_train", "x_valid", "x_test"):
        np.testing.assert_array_equal(getattr(ours, part), getattr(direct, part))
    default = load_split("mnist", data_dir=idx_folder)
    np.testing.assert_array_equal(default.x_train, load_image_split("mnist", idx_folder, seed=1).x_train)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_qubits": 8}, "num_qubits=8"),
        ({"classes": (3,)}, "fewer than two classes"),
        ({"classes": ()}, "fewer than two classes"),
        ({"classes": (3, 3)}, "names a class twice"),
        ({"classes": (3, 10)}, "class 10 is not in the data set"),
        ({"classes": (3, -1)}, "class -1 is not in the data set"),
        ({"classes": "03"}, "sequence of integer labels"),
        ({"classes": 3}, "sequence of integer labels"),
        ({"classes": (0.0, 1.0)}, "sequence of integer labels"),
        ({"valid_fraction": 0.0}, "valid_fraction=0.0 must lie strictly between 0 and 1"),
        ({"valid_fraction": 1.0}, "valid_fraction=1.0"),
        ({"valid_fraction": float("nan")}, "valid_fraction=nan"),
        ({"valid_fraction": "0.2"}, "valid_fraction='0.2'"),
        ({"valid_fraction": 0.999}, "x_train is empty"),
        ({"limit": 3}, "limit=3 is too small: give at least 4"),
        ({"limit_train": 0}, "limit_train=0 is too small"),
        ({"limit": 2.5}, "limit=2.5 must be a whole number"),
        ({"seed": -1}, "seed=-1 must be a non-negative integer"),
        ({"seed": None}, "seed=None must be"),
    ],
)
def test_unusable_arguments_are_named(idx_folder, options, message):
    with pytest.raises(InputError, match=message):
        load_image_split("mnist", idx_folder, **options)


def test_unknown_names_are_refused(idx_folder):
    with pytest.raises(InputError, match="name='kmnist' is not one of 'mnist', 'fashion_mnist', 'cifar10'"):
        load_image_split("kmnist", idx_folder)
    with pytest.raises(InputError, match="name='kmnist' is not one of 'digits', 'mnist'"):
        load_split("kmnist")


def test_a_class_without_images_is_named(tmp_path, arrays):
    arrays["y_test"][arrays["y_test"] == 6] = 5
    np.savez(tmp_path / "mnist.npz", **arrays)
    with pytest.raises(InputError, match="the test set has no image of class 6"):
        load_image_split("mnist", tmp_path)
    assert len(load_image_split("mnist", tmp_path, classes=(5, 0)).x_test) == 9


MNIST_TEST_COUNTS = (980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009)


def openml_table(monkeypatch, pixels, test_counts, train_count):
    """Make fetch_openml return ``pixels`` with labels as it does: strings, training rows first."""
    labels = np.concatenate([np.arange(train_count) % 10, np.repeat(np.arange(10), test_counts)])
    calls = []

    def fetch(name, **options):
        calls.append((name, options))
        return SimpleNamespace(data=pixels, target=labels.astype(str).astype(object))

    monkeypatch.setattr(sklearn.datasets, "fetch_openml", fetch)
    return labels, calls


def test_openml_tables_are_cut_into_the_official_sets(monkeypatch):
    pixels = np.zeros((70_000, 784), dtype=np.uint8)
    pixels[np.arange(70_000), np.arange(70_000) % 24 * 28] = 255
    labels, calls = openml_table(monkeypatch, pixels, MNIST_TEST_COUNTS, 60_000)
    split = load_image_split("mnist")
    assert calls[0][0] == "mnist_784"
    assert calls[0][1]["version"] == 1
    assert len(split.x_test) == 980 + 1010 + 958 + 1009
    assert len(split.x_train) + len(split.x_valid) == 24_000
    np.testing.assert_array_equal(
        split.x_test,
        image_features(pixels.reshape(-1, 28, 28)[60_000:][np.isin(labels[60_000:], (0, 3, 6, 9))]),
    )


def test_openml_cifar_rows_are_three_colour_planes(monkeypatch):
    row = np.concatenate([np.full(1024, value, dtype=np.uint8) for value in (200, 100, 50)])
    openml_table(monkeypatch, np.broadcast_to(row, (60_000, 3072)), (1000,) * 10, 50_000)
    split = load_image_split("cifar10", limit=20)
    gray = (0.2989 * 200 + 0.587 * 100 + 0.114 * 50) / 255
    np.testing.assert_allclose(split.x_test, np.full((20, 16), (gray - 0.1307) / 0.3081))


def test_openml_tables_in_another_order_or_shape_are_refused(monkeypatch):
    pixels = np.broadcast_to(np.zeros(784, dtype=np.uint8), (70_000, 784))
    openml_table(monkeypatch, pixels, (1000,) * 10, 60_000)
    with pytest.raises(InputError, match="mnist_784 is not in the official order"):
        load_image_split("mnist")
    openml_table(monkeypatch, pixels[:, :783], MNIST_TEST_COUNTS, 60_000)
    with pytest.raises(InputError, match=r"mnist_784 is not the table expected: shape \(70000, 783\)"):
        load_image_split("mnist")


@pytest.mark.parametrize("error", [URLError("no route"), ValueError("md5 checksum"), TimeoutError("slow")])
def test_without_a_network_the_error_says_how_to_use_local_files(monkeypatch, error):
    def fetch(name, **options):
        raise error

    monkeypatch.setattr(sklearn.datasets, "fetch_openml", fetch)
    with pytest.raises(InputError, match=r"fashion_mnist could not be downloaded .*--data-dir on the command line"):
        load_image_split("fashion_mnist")
