"""Handwritten digits bundled with scikit-learn: a data set that needs no download.

(v/16 - 0.1307)/0.3081 on 8 × 8 pixels, or on their 2 × 2 averages.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qiskit_qdeq.data.preprocessing import average_pool, normalize
from qiskit_qdeq.data.split import (
    DataSplit,
    Seed,
    check_classes,
    check_fraction,
    check_limit,
    make_generator,
    stratified_subset,
)
from qiskit_qdeq.exceptions import InputError


def load_digits_split(
    classes: Sequence[int] = (0, 3, 6, 9),
    size: int = 4,
    valid_fraction: float = 0.15,
    test_fraction: float = 0.25,
    seed: Seed = 0,
    *,
    limit: int | None = None,
    limit_train: int | None = None,
) -> DataSplit:
    """Load scikit-learn's digits (1,797 images, 8 × 8, values 0..16), every class split in equal proportions.

    Of the N images of the chosen classes, round(test_fraction·N) test, round(valid_fraction·N) validate and
    the rest train: by default 60 % train, 15 % validate, 25 % test.

    Args:
        classes: digits to keep; a digit's position in the list becomes its class index.
        size: 4 for 4 × 4 averages (16 features) or 8 for every pixel (64 features).
        valid_fraction: share of the images that validates.
        test_fraction: share of the images that tests.
        seed: of the split.
        limit: keep at most this many images in each part, drawn at random with each class keeping its share.
        limit_train: the same for the training part alone, where it takes the place of ``limit``.

    Returns:
        The split.

    Raises:
        InputError: if an argument is not usable.

    >>> split = load_digits_split()
    >>> split
    DataSplit(digits, 4x4 features, classes 0, 3, 6, 9, 434 train, 108 valid, 180 test)
    >>> split.x_train.shape, split.num_classes
    ((434, 16), 4)
    """
    chosen = check_classes(classes, range(10))
    if size not in (4, 8):
        raise InputError(f"size={size!r} must be 4 (2 × 2 averages) or 8 (every pixel)")
    check_fraction(valid_fraction, "valid_fraction")
    check_fraction(test_fraction, "test_fraction")
    check_fraction(valid_fraction + test_fraction, "valid_fraction + test_fraction")
    limit = check_limit(limit, "limit", len(chosen))
    limit_train = check_limit(limit_train, "limit_train", len(chosen)) or limit
    rng = make_generator(seed)

    from sklearn.datasets import load_digits

    digits = load_digits()
    order = rng.permutation(np.flatnonzero(np.isin(digits.target, chosen)))
    images = digits.images[order] / 16.0
    features = normalize(average_pool(images, 2) if size == 4 else images).reshape(len(order), -1)
    labels = np.argmax(digits.target[order, None] == np.array(chosen), axis=1)
    everything = np.arange(len(order))
    test = stratified_subset(labels, round(test_fraction * len(order)), rng)
    rest = np.setdiff1d(everything, test)
    valid = rest[stratified_subset(labels[rest], round(valid_fraction * len(order)), rng)]
    train = np.setdiff1d(rest, valid)
    # The training part is drawn last: its limit changes neither of the other two.
    test = test[stratified_subset(labels[test], limit, rng)]
    valid = valid[stratified_subset(labels[valid], limit, rng)]
    train = train[stratified_subset(labels[train], limit_train, rng)]
    return DataSplit(
        x_train=features[train],
        y_train=labels[train],
        x_valid=features[valid],
        y_valid=labels[valid],
        x_test=features[test],
        y_test=labels[test],
        classes=chosen,
        name="digits",
        image_shape=(size, size),
    )
