"""The result of every loader: features and labels of the train, valid and test part, checked once."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qiskit_qdeq.exceptions import InputError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Seed = int | np.random.Generator


@dataclass(frozen=True, eq=False, repr=False)
class DataSplit:
    """A classification data set in three parts, ready for training.

    Attributes:
        x_train: features, (N_train, D), float64; ``x_valid`` and ``x_test`` likewise.
        y_train: labels 0..C-1, (N_train,), integer; ``y_valid`` and ``y_test`` likewise.
        classes: the data set's own label of each class; its position is the label used here.
        name: name of the data set.
        image_shape: (rows, columns) of the image whose row-major pixels are the D features.

    Raises:
        InputError: if shapes, lengths, types or labels do not fit together, a feature is not finite, a part
            is empty or a class has no training sample.
    """

    x_train: FloatArray
    y_train: IntArray
    x_valid: FloatArray
    y_valid: IntArray
    x_test: FloatArray
    y_test: IntArray
    classes: tuple[int, ...]
    name: str
    image_shape: tuple[int, int]

    def __post_init__(self) -> None:
        check_classes(self.classes)
        for part in ("train", "valid", "test"):
            x, y = getattr(self, f"x_{part}"), getattr(self, f"y_{part}")
            _check_features(x, f"x_{part}", self.image_shape)
            _check_labels(y, f"y_{part}", len(x), self.num_classes)
        missing = np.setdiff1d(np.arange(self.num_classes), self.y_train)
        if missing.size:
            raise InputError(
                f"y_train has no sample of class {self.classes[missing[0]]}: keep more training samples or "
                "leave the class out of `classes`"
            )

    @property
    def num_features(self) -> int:
        """Features per sample, D."""
        return int(self.x_train.shape[1])

    @property
    def num_classes(self) -> int:
        """Number of classes, C."""
        return len(self.classes)

    def __repr__(self) -> str:
        rows, columns = self.image_shape
        return (
            f"DataSplit({self.name}, {rows}x{columns} features, classes {', '.join(map(str, self.classes))}, "
            f"{len(self.x_train)} train, {len(self.x_valid)} valid, {len(self.x_test)} test)"
        )


def _check_features(x: FloatArray, argument: str, image_shape: tuple[int, int]) -> None:
    width = math.prod(image_shape)
    if not isinstance(x, np.ndarray) or x.dtype != np.float64 or x.ndim != 2 or x.shape[1] != width:
        found = f"{x.dtype} array of shape {x.shape}" if isinstance(x, np.ndarray) else type(x).__name__
        raise InputError(
            f"{argument} must be a float64 array of shape (N, {width}) for image_shape={image_shape}; got {found}"
        )
    if not len(x):
        raise InputError(f"{argument} is empty: every part needs at least one sample")
    if not np.isfinite(x).all():
        sample = int(np.flatnonzero(~np.isfinite(x).all(axis=1))[0])
        raise InputError(f"{argument}[{sample}] has a feature that is NaN or infinite: remove or repair the sample")


def _check_labels(y: IntArray, argument: str, count: int, num_classes: int) -> None:
    if not isinstance(y, np.ndarray) or y.dtype.kind not in "iu" or y.ndim != 1:
        found = f"{y.dtype} array of shape {y.shape}" if isinstance(y, np.ndarray) else type(y).__name__
        raise InputError(f"{argument} must be an integer array of shape (N,); got {found}")
    if len(y) != count:
        raise InputError(f"{argument} has {len(y)} labels for {count} samples: both must have the same length")
    if y.min() < 0 or y.max() >= num_classes:
        wrong = int(y[(y < 0) | (y >= num_classes)][0])
        raise InputError(f"{argument} contains label {wrong}; labels run from 0 to {num_classes - 1}")


def check_classes(classes: Sequence[int], available: Sequence[int] | None = None) -> tuple[int, ...]:
    """The chosen original labels as a tuple: at least two, all different, all ``available`` if that is given.

    Raises:
        InputError: otherwise.
    """
    try:
        chosen = tuple(operator.index(label) for label in classes)
    except TypeError:
        raise InputError(f"classes={classes!r} must be a sequence of integer labels such as (0, 3, 6, 9)") from None
    if len(chosen) < 2:
        raise InputError(f"classes={chosen} names fewer than two classes; a classifier needs at least two")
    if len(set(chosen)) < len(chosen):
        raise InputError(f"classes={chosen} names a class twice; list every class once")
    unknown = sorted(set(chosen) - set(chosen if available is None else available))
    if unknown:
        raise InputError(
            f"classes={chosen}: class {unknown[0]} is not in the data set, which has {list(available or ())}"
        )
    return chosen


def check_fraction(fraction: float, argument: str) -> float:
    """``fraction`` if it lies strictly between 0 and 1.

    Raises:
        InputError: otherwise.
    """
    if not isinstance(fraction, int | float) or not 0.0 < fraction < 1.0:
        raise InputError(f"{argument}={fraction!r} must lie strictly between 0 and 1")
    return float(fraction)


def check_limit(limit: int | None, argument: str, num_classes: int) -> int | None:
    """``limit`` if it is None or large enough for one sample of every class.

    Raises:
        InputError: otherwise.
    """
    if limit is None:
        return None
    try:
        count = operator.index(limit)
    except TypeError:
        raise InputError(f"{argument}={limit!r} must be a whole number of samples or None") from None
    if count < num_classes:
        raise InputError(f"{argument}={count} is too small: give at least {num_classes}, one sample per class")
    return count


def make_generator(seed: Seed) -> np.random.Generator:
    """The random generator of ``seed``, a generator passing through.

    Raises:
        InputError: if ``seed`` is neither a non-negative integer nor a generator.
    """
    if isinstance(seed, np.random.Generator):
        return seed
    if not isinstance(seed, int | np.integer) or seed < 0:
        raise InputError(f"seed={seed!r} must be a non-negative integer or a numpy.random.Generator")
    return np.random.default_rng(seed)


def stratified_subset(labels: IntArray, size: int | None, rng: np.random.Generator) -> NDArray[np.intp]:
    """Sorted positions of a random subset of ``size`` samples in which each class keeps its share.

    A class of n_c among N samples gets floor or ceiling of size·n_c/N (largest remainders first). ``None`` or
    a size not below N keeps everything and draws nothing from ``rng``.

    Args:
        labels: class of every sample, (N,).
        size: number of samples wanted.
        rng: random generator.

    Returns:
        Positions, (min(size, N),), ascending.
    """
    if size is None or size >= len(labels):
        return np.arange(len(labels))
    classes, counts = np.unique(labels, return_counts=True)
    share = size * counts / len(labels)
    taken = np.floor(share).astype(np.intp)
    taken[np.argsort(taken - share, kind="stable")[: size - taken.sum()]] += 1
    picked = [rng.permutation(np.flatnonzero(labels == label))[:k] for label, k in zip(classes, taken, strict=True)]
    return np.sort(np.concatenate(picked))
