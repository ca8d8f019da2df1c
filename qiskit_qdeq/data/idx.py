"""Reader of idx files, plain or gzip, the format in which MNIST and Fashion-MNIST are published.

Layout: two zero bytes, a type code, the number of dimensions d, d big-endian 32-bit sizes, then the values.
"""

from __future__ import annotations

import gzip
import io
import math
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qiskit_qdeq.exceptions import DataFileError

MAX_BYTES = 2**31
_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_CHUNK = 2**20


def read_idx(path: str | os.PathLike[str]) -> NDArray[Any]:
    """Read one idx file; gzip is recognized by content, not by name.

    No more memory is used than the file really fills: the declared size of a plain file is compared with its
    length beforehand, and a gzip stream is decompressed piece by piece, up to one byte past the declared
    size. Arrays above 2 GiB are refused.

    Args:
        path: the file.

    Returns:
        The array, in native byte order.

    Raises:
        DataFileError: if the file cannot be read or is malformed; the message names the file and the byte (of
            the decompressed content, for gzip) at which it went wrong.
    """
    file = Path(path)
    try:
        with file.open("rb") as raw:
            compressed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            if not compressed:
                return _read_array(raw, os.fstat(raw.fileno()).st_size, file)
            with gzip.GzipFile(fileobj=raw, mode="rb") as content:
                return _read_array(content, None, file)
    except OSError as error:
        raise DataFileError(f"{file}: cannot be read: {error.strerror or error}") from error


def _read_array(stream: io.BufferedIOBase, length: int | None, file: Path) -> NDArray[Any]:
    dtype, shape = _read_header(stream, file)
    offset = 4 + 4 * len(shape)
    declared = math.prod(shape) * dtype.itemsize
    promise = f"shape {shape} of {dtype.name} takes {declared} bytes from byte {offset} on"
    if declared > MAX_BYTES:
        raise DataFileError(f"{file}: bad dimensions at byte 4: {promise}, more than the {MAX_BYTES} accepted")
    if length is not None and length < offset + declared:
        raise DataFileError(f"{file}: truncated at byte {length}: {promise}")
    payload = _take(stream, declared, file, offset)
    if len(payload) < declared:
        raise DataFileError(f"{file}: truncated at byte {offset + len(payload)}: {promise}")
    if _take(stream, 1, file, offset + declared):
        raise DataFileError(f"{file}: trailing bytes from byte {offset + declared} on: {promise}")
    return np.frombuffer(payload, dtype=dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=False)


def _read_header(stream: io.BufferedIOBase, file: Path) -> tuple[np.dtype[Any], tuple[int, ...]]:
    magic = _take(stream, 4, file, 0)
    if len(magic) < 4:
        raise DataFileError(f"{file}: truncated at byte {len(magic)}: an idx file starts with 4 bytes of magic number")
    if magic[:2] != b"\0\0":
        raise DataFileError(f"{file}: bad magic number at byte 0: {magic[:2].hex(' ')}, an idx file starts with 00 00")
    if magic[2] not in _TYPES:
        raise DataFileError(f"{file}: unknown type code 0x{magic[2]:02x} at byte 2")
    if not 1 <= magic[3] <= 8:
        raise DataFileError(f"{file}: bad number of dimensions at byte 3: {magic[3]}, expected 1 to 8")
    sizes = _take(stream, 4 * magic[3], file, 4)
    if len(sizes) < 4 * magic[3]:
        raise DataFileError(
            f"{file}: truncated at byte {4 + len(sizes)}: {magic[3]} dimensions take {4 * magic[3]} bytes"
        )
    return np.dtype(_TYPES[magic[2]]), struct.unpack(f">{magic[3]}I", sizes)


def _take(stream: io.BufferedIOBase, size: int, file: Path, offset: int) -> bytearray:
    """Up to ``size`` bytes, fewer only where the stream ends; ``offset`` is where they start."""
    taken = bytearray()
    try:
        # read1 hands over what was decompressed before an error, so that the offset in the message is right.
        while len(taken) < size and (chunk := stream.read1(min(size - len(taken), _CHUNK))):
            taken += chunk
    except EOFError:
        raise DataFileError(f"{file}: gzip stream cut short at byte {offset + len(taken)} of its content") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataFileError(
            f"{file}: gzip stream damaged after byte {offset + len(taken)} of its content: {error}"
        ) from error
    return taken
