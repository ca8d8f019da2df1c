"""Reader of numeric arrays from an .npz archive: no pickle, and sizes are checked before memory is taken."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from qiskit_qdeq.data.idx import MAX_BYTES
from qiskit_qdeq.exceptions import DataFileError

# RuntimeError stands for encryption and compression methods that zipfile cannot undo.
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError)


def read_npz(path: Path, keys: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Read the arrays ``keys`` of an .npz archive.

    Args:
        path: the archive.
        keys: names of the arrays; others are ignored.

    Returns:
        The arrays by key.

    Raises:
        DataFileError: if the archive is damaged, a key is missing, or an array is not of numbers, above 2 GiB
            or of another length than its header declares; the message names file and key.
    """
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise DataFileError(f"{path}: not an .npz archive: {error}") from error
    except OSError as error:
        raise DataFileError(f"{path}: cannot be read: {error.strerror or error}") from error
    with archive:
        return {key: _read_member(archive, path, key) for key in keys}


def _read_member(archive: zipfile.ZipFile, path: Path, key: str) -> NDArray[Any]:
    where = f"{path}, key {key!r}"
    try:
        member = archive.getinfo(f"{key}.npy")
    except KeyError:
        present = ", ".join(name.removesuffix(".npy") for name in archive.namelist()) or "nothing"
        raise DataFileError(f"{where}: missing; the archive holds {present}") from None
    if member.file_size > MAX_BYTES:
        raise DataFileError(f"{where}: {member.file_size} bytes, more than the {MAX_BYTES} accepted")
    try:
        with archive.open(member) as stream:
            return _read_array(stream, member.file_size, where)
    except _DAMAGE as error:
        raise DataFileError(f"{where}: damaged or unreadable: {error or type(error).__name__}") from error


def _read_array(stream: IO[bytes], length: int, where: str) -> NDArray[Any]:
    try:
        version = npy.read_magic(stream)
        read_header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[version]
        shape, fortran_order, dtype = read_header(stream)
    except _DAMAGE:
        raise
    # NumPy parses the header as Python literals; on damage TokenError, SyntaxError and others come through.
    except Exception as error:
        raise DataFileError(f"{where}: bad .npy header at byte 0: {type(error).__name__}: {error}") from error
    if dtype.kind not in "iuf":
        raise DataFileError(f"{where}: type {dtype} is not allowed; save integer or floating-point numbers")
    offset = stream.tell()
    declared = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or declared != length - offset:
        raise DataFileError(
            f"{where}: header declares shape {shape} of {dtype}, {declared} bytes from byte {offset} on, "
            f"but {length - offset} follow"
        )
    # One byte more than declared reaches the end of the member, where its checksum is compared.
    payload = stream.read(declared + 1)
    if len(payload) != declared:
        raise DataFileError(
            f"{where}: truncated at byte {offset + len(payload)}, {declared} bytes expected from {offset} on"
        )
    return np.frombuffer(payload, dtype=dtype).reshape(shape, order="F" if fortran_order else "C")
