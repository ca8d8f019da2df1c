"""MNIST, Fashion-MNIST and CIFAR-10 with the preprocessing and split of the paper (arXiv:2410.23940).

pixels/255 → gray → bilinear 28 × 28 → (v - 0.1307)/0.3081, or the set's own mean and deviation → average pooling →
row-major features.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qiskit_qdeq.data.preprocessing import MEAN, STD, average_pool, normalize, resize_bilinear, to_grayscale
from qiskit_qdeq.data.sources import (
    IMAGE_SETS,
    NUM_LABELS,
    RawImages,
    check_pixels,
    fetch_images,
    read_image_files,
)
from qiskit_qdeq.data.split import (
    DataSplit,
    FloatArray,
    IntArray,
    Seed,
    check_classes,
    check_fraction,
    check_limit,
    make_generator,
    stratified_subset,
)
from qiskit_qdeq.exceptions import InputError

_SIDE = 28
_BLOCK = 1024
#: Mean and standard deviation of each set's training pixels (gray, 0 to 1); the paper takes MNIST's for every set.
PIXEL_STATISTICS = {"mnist": (MEAN, STD), "fashion_mnist": (0.286, 0.353), "cifar10": (0.4808, 0.2392)}
NORMALIZATIONS = ("mnist", "own")
# num_qubits: kernel, stride, padding of the pooling and side of the pooled image.
_POOLING = {4: (6, 6, 0, 4), 10: (5, 3, 2, 10)}


def load_image_split(
    name: str,
    data_dir: str | os.PathLike[str] | None = None,
    *,
    num_qubits: int = 4,
    classes: Sequence[int] | None = None,
    valid_fraction: float = 0.2,
    seed: Seed = 1,
    limit: int | None = None,
    limit_train: int | None = None,
    normalization: str = "mnist",
    pooled: bool = True,
) -> DataSplit:
    """Load MNIST, Fashion-MNIST or CIFAR-10 as the paper does: n² pooled pixels for n = 4 or 10 qubits.

    The official test set stays whole. Of the N official training images of the chosen classes, a random
    int((1 - valid_fraction)·N) train and the rest validate. The authors draw these with PyTorch's generator;
    the NumPy permutation used here gives parts of the same sizes but not of the same images.

    Files are looked for in ``data_dir/name``, then in ``data_dir``: for MNIST and Fashion-MNIST the four
    idx files under their original names (``train-images-idx3-ubyte``, ``t10k-labels-idx1-ubyte``, ...; ``.``
    for the ``-`` before ``idx`` and ``.gz`` are fine), then ``name.npz`` or a single ``name*.npz`` with the
    arrays x_train, y_train, x_test, y_test. Both sets share the idx names: nothing can tell one from the
    other. Pixels are integers in 0..255 or floats in [0, 1], 28 × 28, for CIFAR-10 also 32 × 32 or
    32 × 32 × 3 (RGB).

    Args:
        name: ``"mnist"``, ``"fashion_mnist"`` or ``"cifar10"``.
        data_dir: folder, or .npz file; None downloads from OpenML through scikit-learn and caches there.
        num_qubits: 4 (16 features) or 10 (100 features).
        classes: original labels to keep; a label's position becomes the class index. None: digits 0, 3, 6, 9
            for MNIST at 4 qubits, else all ten.
        valid_fraction: share of the official training set that validates.
        seed: of the split and the limits.
        limit: keep at most this many images in each part, drawn at random with each class keeping its share.
        limit_train: the same for the training part alone, where it takes the place of ``limit``.
        normalization: ``"mnist"`` is the paper's for every set, MNIST's pixel mean and deviation, with padding of mid-gray;
            ``"own"`` takes the set's own, with padding of black.
        pooled: False keeps the 28 × 28 pixels before pooling, of the same images in the same order.

    Returns:
        The split; the paper's counts (train/valid/test) are 19,136/4,785/3,957 for MNIST with 4 classes,
        48,000/12,000/10,000 for MNIST and Fashion-MNIST with ten and 40,000/10,000/10,000 for CIFAR-10.

    Raises:
        InputError: if an argument is not usable, a class has no images or the download fails.
        DataFileError: if files are missing, damaged or not of this data set.
    """
    if name not in IMAGE_SETS:
        raise InputError(f"name={name!r} is not one of {', '.join(map(repr, IMAGE_SETS))}")
    pooling = _check_pooling(num_qubits if pooled else None)
    if classes is None:
        classes = (0, 3, 6, 9) if name == "mnist" and num_qubits == 4 else range(NUM_LABELS)
    chosen = check_classes(classes, range(NUM_LABELS))
    check_fraction(valid_fraction, "valid_fraction")
    if normalization not in NORMALIZATIONS:
        raise InputError(f"normalization={normalization!r} must be one of {list(NORMALIZATIONS)}")
    statistics = PIXEL_STATISTICS[name] if normalization == "own" else None
    limit = check_limit(limit, "limit", len(chosen))
    limit_train = check_limit(limit_train, "limit_train", len(chosen)) or limit
    rng = make_generator(seed)

    raw = fetch_images(name) if data_dir is None else read_image_files(name, data_dir)
    pool, pool_labels = _select(raw, "train", chosen)
    test, test_labels = _select(raw, "test", chosen)
    order = rng.permutation(len(pool))
    num_train = int((1.0 - valid_fraction) * len(pool))
    train, valid = order[:num_train], order[num_train:]
    # The training part is drawn last: its limit changes neither of the other two.
    kept = stratified_subset(test_labels, limit, rng)
    test, test_labels = test[kept], test_labels[kept]
    valid = valid[stratified_subset(pool_labels[valid], limit, rng)]
    train = train[stratified_subset(pool_labels[train], limit_train, rng)]
    side = _side(pooling)
    return DataSplit(
        x_train=image_features(raw.x_train[pool[train]], pooling, statistics),
        y_train=pool_labels[train],
        x_valid=image_features(raw.x_train[pool[valid]], pooling, statistics),
        y_valid=pool_labels[valid],
        x_test=image_features(raw.x_test[test], pooling, statistics),
        y_test=test_labels,
        classes=chosen,
        name=name,
        image_shape=(side, side),
    )


def image_features(
    pixels: ArrayLike, num_qubits: int | None = 4, statistics: tuple[float, float] | None = None
) -> FloatArray:
    """Turn images into the n² features of the paper, or into all their 784 normalized pixels.

    n = 4: means of 6 × 6 windows at stride 6, which cover the top-left 24 × 24 pixels. n = 10: means of 5 × 5
    windows at stride 3 with 2 pixels of padding, whose zeros count (0 is mid-gray here, not background).

    Args:
        pixels: (N, H, W) or (N, H, W, 3), integers in 0..255 or floats in [0, 1]; sides other than 28 are
            resized (`resize_bilinear`).
        num_qubits: n, 4 or 10; None does not pool.
        statistics: mean and standard deviation of the pixels of this data set, by which features are normalized after
            pooling, so that padding is black; None is the paper's way.

    Returns:
        Features, (N, n²) or (N, 784), row by row.

    Raises:
        InputError: if ``pixels`` has another shape or range, or ``num_qubits`` is neither 4 nor 10 nor None.
    """
    _check_pooling(num_qubits)
    images = np.asarray(pixels)
    if images.ndim not in (3, 4) or images.shape[3:] not in ((), (3,)) or 0 in images.shape[1:]:
        raise InputError(f"pixels must have shape (N, H, W) or (N, H, W, 3); got {images.shape}")
    check_pixels(images, "pixels")
    side = _side(num_qubits)
    features = np.empty((len(images), side * side))
    for start in range(0, len(images), _BLOCK):
        features[start : start + _BLOCK] = _block_features(images[start : start + _BLOCK], num_qubits, statistics)
    return features


def _block_features(images: NDArray[Any], num_qubits: int | None, statistics: tuple[float, float] | None) -> FloatArray:
    values = images / 255.0 if images.dtype.kind in "iu" else images.astype(np.float64)
    if values.ndim == 4:
        values = to_grayscale(values)
    if values.shape[1:] != (_SIDE, _SIDE):
        values = resize_bilinear(values, (_SIDE, _SIDE))
    if statistics is None:
        values = normalize(values)
    if num_qubits is not None:
        kernel, stride, padding, _ = _POOLING[num_qubits]
        values = average_pool(values, kernel, stride, padding)
    if statistics is not None:
        # after pooling, whose padding then is black
        values = normalize(values, *statistics)
    return values.reshape(len(images), -1)


def _side(num_qubits: int | None) -> int:
    return _SIDE if num_qubits is None else _POOLING[num_qubits][-1]


def _check_pooling(num_qubits: int | None) -> int | None:
    if num_qubits is not None and num_qubits not in _POOLING:
        raise InputError(f"num_qubits={num_qubits!r}: the paper's pooling exists for 4 and 10 qubits only")
    return num_qubits


def _select(raw: RawImages, side: str, classes: tuple[int, ...]) -> tuple[NDArray[np.intp], IntArray]:
    """Positions of the images of ``classes`` and their class indices."""
    class_of_label = np.full(NUM_LABELS, -1)
    class_of_label[list(classes)] = np.arange(len(classes))
    labels = class_of_label[raw.y_train if side == "train" else raw.y_test]
    absent = np.setdiff1d(np.arange(len(classes)), labels)
    if absent.size:
        raise InputError(f"classes={classes}: the {side} set has no image of class {classes[absent[0]]}")
    kept = np.flatnonzero(labels >= 0)
    return kept, labels[kept]
