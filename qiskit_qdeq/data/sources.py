"""Where MNIST, Fashion-MNIST and CIFAR-10 come from: the user's own files, or OpenML through scikit-learn."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qiskit_qdeq.data.idx import read_idx
from qiskit_qdeq.data.npz import read_npz
from qiskit_qdeq.data.split import IntArray
from qiskit_qdeq.exceptions import DataFileError, InputError

IMAGE_SETS = ("mnist", "fashion_mnist", "cifar10")
NUM_LABELS = 10
_PARTS = ("x_train", "y_train", "x_test", "y_test")


@dataclass(frozen=True, eq=False)
class RawImages:
    """Pixels as stored, (N, H, W) or (N, H, W, 3), and labels 0..9, (N,), of the train and test sets."""

    x_train: NDArray[Any]
    y_train: IntArray
    x_test: NDArray[Any]
    y_test: IntArray


def read_image_files(name: str, data_dir: str | os.PathLike[str]) -> RawImages:
    """Read a data set from idx or npz files; see `load_image_split` for the places and names tried.

    Raises:
        DataFileError: if files are missing, damaged or not of this data set.
    """
    path = Path(data_dir).expanduser()
    if path.is_file():
        return _checked(name, read_npz(path, _PARTS), str(path))
    if not path.is_dir():
        raise DataFileError(f"data_dir={str(path)!r} does not exist: give the folder or .npz file that holds {name}")
    for folder in (path / name, path):
        if (arrays := _read_idx_folder(name, folder)) is not None:
            return _checked(name, arrays, str(folder))
        if (archive := _find_npz(name, folder)) is not None:
            return _checked(name, read_npz(archive, _PARTS), str(archive))
    wanted = f"{name}.npz (keys {', '.join(_PARTS)})"
    if name != "cifar10":
        wanted += f" or {', '.join(_idx_names(part)[0] for part in _PARTS)}, with or without .gz"
    raise DataFileError(f"data_dir={str(path)!r} holds no {name}: looked there and in its folder {name!r} for {wanted}")


def _idx_names(part: str) -> list[str]:
    side = "train" if part.endswith("train") else "t10k"
    kind, dims = ("images", "idx3") if part.startswith("x") else ("labels", "idx1")
    return [f"{side}-{kind}{dot}{dims}-ubyte{end}" for end in ("", ".gz") for dot in ("-", ".")]


def _read_idx_folder(name: str, folder: Path) -> dict[str, NDArray[Any]] | None:
    """The four idx arrays, None if there is not one of the files; CIFAR-10 was never published as idx."""
    if name == "cifar10":
        return None
    candidates = {part: [folder / file for file in _idx_names(part)] for part in _PARTS}
    found = {part: file for part in _PARTS for file in candidates[part] if file.is_file()}
    if not found:
        return None
    if missing := [part for part in _PARTS if part not in found]:
        raise DataFileError(f"{folder}: {missing[0]} is missing; looked for {', '.join(_idx_names(missing[0]))}")
    return {part: read_idx(found[part]) for part in _PARTS}


def _find_npz(name: str, folder: Path) -> Path | None:
    if (exact := folder / f"{name}.npz").is_file():
        return exact
    archives = sorted(folder.glob(f"{name}*.npz"))
    if len(archives) > 1:
        raise DataFileError(
            f"{folder}: several archives could be {name}: {', '.join(file.name for file in archives)}; "
            "give the one you mean as data_dir"
        )
    return archives[0] if archives else None


def _checked(name: str, arrays: dict[str, NDArray[Any]], where: str) -> RawImages:
    labels = {}
    for side in ("train", "test"):
        _check_images(name, arrays[f"x_{side}"], f"{where}, x_{side}")
        labels[side] = _check_labels(arrays[f"y_{side}"], len(arrays[f"x_{side}"]), f"{where}, y_{side}")
    return RawImages(arrays["x_train"], labels["train"], arrays["x_test"], labels["test"])


def _check_images(name: str, images: NDArray[Any], where: str) -> None:
    shapes = [(28, 28), (32, 32), (32, 32, 3)] if name == "cifar10" else [(28, 28)]
    if images.shape[1:] not in shapes or not len(images):
        raise DataFileError(
            f"{where}: shape {images.shape}, but {name} takes " + " or ".join(f"(N, {str(s)[1:]}" for s in shapes)
        )
    check_pixels(images, where)


def check_pixels(pixels: NDArray[Any], where: str) -> None:
    """Integers must lie in 0..255, floats in [0, 1], NaN in neither.

    Raises:
        DataFileError: otherwise, starting with ``where``.
    """
    if pixels.dtype == np.uint8 or not pixels.size:
        return
    if pixels.dtype.kind not in "iuf":
        raise DataFileError(f"{where}: pixels of type {pixels.dtype}; give integers in 0..255 or floats in [0, 1]")
    top = 1 if pixels.dtype.kind == "f" else 255
    low, high = pixels.min(), pixels.max()
    if not (low >= 0 and high <= top):
        raise DataFileError(f"{where}: {pixels.dtype} pixels run from {low} to {high}, expected 0 to {top}")


def _check_labels(labels: NDArray[Any], count: int, where: str) -> IntArray:
    if labels.dtype.kind not in "iu" or labels.ndim not in (1, 2) or labels.shape[1:] not in ((), (1,)):
        raise DataFileError(f"{where}: {labels.dtype} labels of shape {labels.shape}; give integers of shape (N,)")
    if len(labels) != count:
        raise DataFileError(f"{where}: {len(labels)} labels for {count} images")
    flat = labels.reshape(-1)
    wrong = np.flatnonzero((flat < 0) | (flat >= NUM_LABELS))
    if wrong.size:
        raise DataFileError(f"{where}: label {flat[wrong[0]]} of image {wrong[0]} is not in 0..{NUM_LABELS - 1}")
    return flat.astype(np.int64)


# Official number of test images per class, by which a table in another order than train, test is found out.
_TEST_COUNTS = {
    "mnist": (980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009),
    "fashion_mnist": (1000,) * NUM_LABELS,
    "cifar10": (1000,) * NUM_LABELS,
}
_OPENML = {
    "mnist": ("mnist_784", 70_000),
    "fashion_mnist": ("Fashion-MNIST", 70_000),
    "cifar10": ("CIFAR_10", 60_000),
}


def fetch_images(name: str) -> RawImages:
    """Download a data set from OpenML, or take it from scikit-learn's cache of an earlier download.

    CIFAR-10 needs about 2 GB of memory meanwhile. pandas, if it is installed, makes the first read faster.

    Raises:
        InputError: if it cannot be downloaded, or is not the table this package knows.
    """
    from http.client import HTTPException

    from sklearn.datasets import fetch_openml

    table, rows = _OPENML[name]
    parser = "liac-arff" if importlib.util.find_spec("pandas") is None else "pandas"
    try:
        bunch = fetch_openml(table, version=1, as_frame=False, parser=parser)
    except (OSError, ValueError, HTTPException) as error:
        raise InputError(
            f"{name} could not be downloaded from OpenML ({type(error).__name__}: {error}). Without network, "
            "get its files elsewhere and give their folder as data_dir (--data-dir on the command line)"
        ) from error
    pixels, labels = np.asarray(bunch.data), np.asarray(bunch.target).astype(np.int64)
    side, colours = (32, 3) if name == "cifar10" else (28, 1)
    if pixels.shape != (rows, side * side * colours) or not (pixels.min() >= 0 and pixels.max() <= 255):
        raise InputError(f"OpenML's {table} is not the table expected: shape {pixels.shape}; use data_dir")
    pixels = pixels.astype(np.uint8, copy=False)
    images = (
        pixels.reshape(rows, 3, side, side).transpose(0, 2, 3, 1) if colours == 3 else pixels.reshape(rows, side, side)
    )
    test = rows - 10_000
    if tuple(np.bincount(labels[test:], minlength=NUM_LABELS)) != _TEST_COUNTS[name]:
        raise InputError(f"OpenML's {table} is not in the official order of train and test images; use data_dir")
    return RawImages(images[:test], labels[:test], images[test:], labels[test:])
