"""Image data sets cut down to the few features a small circuit encodes, split into train, valid and test."""

from __future__ import annotations

from qiskit_qdeq.data.compression import pca_features, vae_features
from qiskit_qdeq.data.digits import load_digits_split
from qiskit_qdeq.data.idx import read_idx
from qiskit_qdeq.data.images import image_features, load_image_split
from qiskit_qdeq.data.loading import load_split
from qiskit_qdeq.data.preprocessing import average_pool, normalize, resize_bilinear, to_grayscale
from qiskit_qdeq.data.split import DataSplit

__all__ = [
    "DataSplit",
    "average_pool",
    "image_features",
    "load_digits_split",
    "load_image_split",
    "load_split",
    "normalize",
    "pca_features",
    "read_idx",
    "resize_bilinear",
    "to_grayscale",
    "vae_features",
]
