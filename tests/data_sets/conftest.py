"""A small image data set, as arrays and as a folder of idx files."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest


def encode_idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 0x08, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    """60 + 30 random 28 × 28 images with all ten labels equally often."""
    rng = np.random.default_rng(5)
    sets = {}
    for side, count in (("train", 60), ("test", 30)):
        sets[f"x_{side}"] = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        sets[f"y_{side}"] = rng.permutation(np.arange(count) % 10).astype(np.uint8)
    return sets


@pytest.fixture
def idx_folder(tmp_path: Path, arrays: dict[str, np.ndarray]) -> Path:
    names = {"x_train": "train-images-idx3-ubyte", "y_train": "train-labels-idx1-ubyte.gz"}
    names |= {"x_test": "t10k-images.idx3-ubyte.gz", "y_test": "t10k-labels.idx1-ubyte"}
    for key, name in names.items():
        content = encode_idx(arrays[key])
        (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return tmp_path
