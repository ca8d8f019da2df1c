"""From pixels to circuit inputs: gray, bilinear resize, normalization and average pooling of image batches.

Resizing and pooling are separable linear maps, image ↦ R · image · Cᵀ with fixed R (rows) and C (columns), so
each is two matrix products; they run over blocks of images, never over a float copy of the whole batch.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qiskit_qdeq.data.split import FloatArray
from qiskit_qdeq.exceptions import InputError

MEAN = 0.1307
STD = 0.3081
_GRAY = np.array([0.2989, 0.587, 0.114])
_BLOCK = 1024


def to_grayscale(images: ArrayLike) -> FloatArray:
    """Luminance 0.2989 R + 0.587 G + 0.114 B of colour images.

    Args:
        images: (..., 3), red, green, blue last.

    Returns:
        Gray values in the units of ``images``, (...).

    Raises:
        InputError: if the last axis is not 3 long or a value is not finite.

    >>> to_grayscale([[100, 10, 0]])
    array([35.76])
    """
    values = _numeric(images)
    if values.ndim < 1 or values.shape[-1] != 3:
        raise InputError(f"images must end in an axis of 3 colours (R, G, B); got shape {values.shape}")
    return _finite(np.asarray(values @ _GRAY))


def normalize(images: ArrayLike, mean: float = MEAN, std: float = STD) -> FloatArray:
    """Shift and scale pixel values in [0, 1]: (v - mean) / std.

    The defaults are mean and standard deviation of MNIST; the paper uses them for every data set.

    Args:
        images: floating-point pixels, any shape. Integers are refused: 0..255 would pass unnoticed.
        mean: value mapped to 0.
        std: positive scale.

    Returns:
        Normalized values, same shape.

    Raises:
        InputError: if ``images`` is not floating point or not finite, or ``std`` is not positive.
    """
    values = _numeric(images)
    if values.dtype.kind != "f":
        raise InputError(f"images of type {values.dtype} must be floats in [0, 1]: divide 8-bit pixels by 255 first")
    if not (np.isfinite(mean) and np.isfinite(std) and std > 0):
        raise InputError(f"mean={mean} must be finite and std={std} finite and positive")
    result = np.subtract(values, mean, dtype=np.float64)
    result /= std
    return _finite(result)


def resize_bilinear(images: ArrayLike, shape: tuple[int, int]) -> FloatArray:
    """Resize images by plain bilinear interpolation, pixel centres aligned, without antialiasing.

    Output pixel i reads position max((i + ½)·(old/new) - ½, 0) between its two neighbours: ``interpolate`` of
    PyTorch with ``mode="bilinear", align_corners=False``. Libraries that antialias shrink more smoothly.

    Args:
        images: (..., H, W).
        shape: new (H, W).

    Returns:
        Resized images, (..., *shape).

    Raises:
        InputError: if ``images`` has fewer than two axes or a value that is not finite, or ``shape`` is not
            positive.

    >>> resize_bilinear([[0.0, 2.0, 8.0, 0.0]], (1, 2))
    array([[1., 4.]])
    """
    values = _image_batch(images)
    rows, columns = (_whole(size, "shape", 1) for size in shape)
    return _apply_separable(
        values, _bilinear_weights(values.shape[-2], rows), _bilinear_weights(values.shape[-1], columns)
    )


def average_pool(images: ArrayLike, kernel: int, stride: int | None = None, padding: int = 0) -> FloatArray:
    """Mean over kernel × kernel windows, padding zeros counted in the mean.

    Windows start at i·stride - padding, i = 0..⌊(H + 2·padding - kernel)/stride⌋; rows and columns that no
    whole window reaches are dropped: PyTorch's ``avg_pool2d`` with its default ``count_include_pad=True``.

    Args:
        images: (..., H, W).
        kernel: window side in pixels.
        stride: step between windows in pixels; ``kernel`` if None.
        padding: zeros on every side, at most half the kernel.

    Returns:
        Means, (..., H', W'), H' = ⌊(H + 2·padding - kernel)/stride⌋ + 1.

    Raises:
        InputError: if ``images`` has fewer than two axes or a value is not finite, or a window does not fit.

    >>> average_pool([[1.0, 3.0, 5.0, 7.0], [1.0, 3.0, 5.0, 7.0]], 2)
    array([[2., 6.]])
    """
    values = _image_batch(images)
    kernel = _whole(kernel, "kernel", 1)
    stride = kernel if stride is None else _whole(stride, "stride", 1)
    padding = _whole(padding, "padding", 0)
    if padding > kernel // 2:
        raise InputError(f"padding={padding} must be at most half of kernel={kernel}")
    if min(values.shape[-2:]) + 2 * padding < kernel:
        raise InputError(f"kernel={kernel} does not fit images of shape {values.shape[-2:]} padded by {padding}")
    rows, columns = (_pooling_weights(size, kernel, stride, padding) for size in values.shape[-2:])
    return _apply_separable(values, rows, columns)


def _pooling_weights(size: int, kernel: int, stride: int, padding: int) -> FloatArray:
    starts = np.arange((size + 2 * padding - kernel) // stride + 1)[:, None] * stride - padding
    pixels = np.arange(size)
    return np.where((pixels >= starts) & (pixels < starts + kernel), 1.0 / kernel, 0.0)


def _bilinear_weights(size: int, new_size: int) -> FloatArray:
    position = np.maximum((np.arange(new_size) + 0.5) * (size / new_size) - 0.5, 0.0)
    low = np.minimum(position.astype(np.intp), size - 1)
    high = np.minimum(low + 1, size - 1)
    weights = np.zeros((new_size, size))
    rows = np.arange(new_size)
    np.add.at(weights, (rows, low), 1.0 - (position - low))
    np.add.at(weights, (rows, high), position - low)
    return weights


def _apply_separable(images: NDArray[Any], rows: FloatArray, columns: FloatArray) -> FloatArray:
    """``rows @ image @ columns.T`` for every image of (..., H, W), in blocks that fit the cache."""
    height, width = images.shape[-2:]
    batch = images.reshape(-1, height, width)
    result = np.empty((len(batch), len(rows), len(columns)))
    for start in range(0, len(batch), _BLOCK):
        block = _finite(np.asarray(batch[start : start + _BLOCK], dtype=np.float64))
        narrow = block.reshape(-1, width) @ columns.T
        result[start : start + _BLOCK] = rows @ narrow.reshape(len(block), height, len(columns))
    return result.reshape(*images.shape[:-2], len(rows), len(columns))


def _numeric(images: ArrayLike) -> NDArray[Any]:
    values = np.asarray(images)
    if values.dtype.kind not in "biuf":
        raise InputError(f"images must be real numbers; got an array of type {values.dtype}")
    return values


def _image_batch(images: ArrayLike) -> NDArray[Any]:
    values = _numeric(images)
    if values.ndim < 2 or 0 in values.shape[-2:]:
        raise InputError(f"images must have shape (..., H, W) with H, W > 0; got {values.shape}")
    return values


def _finite(values: FloatArray) -> FloatArray:
    if not np.isfinite(values).all():
        raise InputError("images contain NaN or infinite values: remove or repair them first")
    return values


def _whole(value: int, argument: str, least: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise InputError(f"{argument}={value!r} must be a whole number of pixels") from None
    if number < least:
        raise InputError(f"{argument}={number} must be at least {least}")
    return number
