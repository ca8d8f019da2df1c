"""One entry to every data set by name, as the command line uses it."""

from __future__ import annotations

import os
from collections.abc import Sequence

from qiskit_qdeq.data.digits import load_digits_split
from qiskit_qdeq.data.images import load_image_split
from qiskit_qdeq.data.sources import IMAGE_SETS
from qiskit_qdeq.data.split import DataSplit, Seed
from qiskit_qdeq.exceptions import InputError


def load_split(
    name: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    classes: Sequence[int] | None = None,
    num_qubits: int = 4,
    seed: Seed | None = None,
    limit: int | None = None,
    limit_train: int | None = None,
    normalization: str = "mnist",
    pooled: bool = True,
) -> DataSplit:
    """Load a data set by name with the features that fit ``num_qubits``.

    Args:
        name: ``"digits"`` (`load_digits_split`) or ``"mnist"``, ``"fashion_mnist"``, ``"cifar10"``
            (`load_image_split`).
        data_dir: folder or .npz file of the images; None downloads them. Not for digits.
        classes: original labels to keep, in the order of their class index. None: 0, 3, 6, 9 for digits and
            mnist at 4 qubits, else all ten.
        num_qubits: digits: 4 (4 × 4 features), or 6 and more (8 × 8); the others: 4 (4 × 4) or 10 (10 × 10).
        seed: of the split; None is the loader's default (0 for digits, 1 for the others), not a random one.
        limit: keep at most this many images in each part.
        limit_train: the same for the training part alone, where it takes the place of ``limit``.
        normalization: of image pixels: ``"mnist"``, the paper's for every set, or the set's ``"own"``. Not for digits.
        pooled: False keeps every pixel (28 × 28, digits 8 × 8) of the same images in the same order; ``num_qubits`` then
            decides the classes only.

    Returns:
        The split.

    Raises:
        InputError: if an argument is not usable.
        DataFileError: if files are missing, damaged or not of this data set.

    >>> load_split("digits", num_qubits=6, limit_train=200)
    DataSplit(digits, 8x8 features, classes 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 200 train, 270 valid, 449 test)
    """
    if name in IMAGE_SETS:
        return load_image_split(
            name,
            data_dir,
            num_qubits=num_qubits,
            classes=classes,
            seed=1 if seed is None else seed,
            limit=limit,
            limit_train=limit_train,
            normalization=normalization,
            pooled=pooled,
        )
    if name != "digits":
        raise InputError(f"name={name!r} is not one of 'digits', {', '.join(map(repr, IMAGE_SETS))}")
    if normalization != "mnist":
        raise InputError(f"normalization={normalization!r} is for images: digits have one normalization only")
    if data_dir is not None:
        raise InputError(f"data_dir={str(data_dir)!r}: digits come with scikit-learn and are not read from files")
    if not isinstance(num_qubits, int) or num_qubits < 4 or num_qubits == 5:
        raise InputError(
            f"num_qubits={num_qubits!r} must be 4 (16 features), or 6 or more (64 features) for digits; "
            "for other circuits call load_digits_split with the size you need"
        )
    if classes is None:
        classes = (0, 3, 6, 9) if num_qubits == 4 else range(10)
    return load_digits_split(
        classes,
        size=4 if num_qubits == 4 and pooled else 8,
        seed=0 if seed is None else seed,
        limit=limit,
        limit_train=limit_train,
    )
