"""One file with the arrays and the JSON document of a training run, which notices every kind of damage.

The file is in safetensors format (no pickle, no code). Its metadata hold four strings: ``format``,
``version``, ``document`` (JSON) and ``sha256``, the digest over format, version, document and every array's
name, dtype, shape and bytes, because safetensors itself has no checksum. The digest finds damage; it is no
signature: it does not say who wrote the file.

How NaN and infinities are written in the document: as the strings ``"float:nan"``, ``"float:inf"``,
``"float:-inf"``; a str that itself starts with ``float:`` or ``str:`` gets ``str:`` in front.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save as serialize

from ..exceptions import CheckpointError, CheckpointWarning, InputError
from ._atomic import temporary_pattern, write_together
from ._document import decode_document, differences, encode_document, parse_json, type_name

Array: TypeAlias = np.ndarray[Any, Any]

FORMAT: Final = "qiskit-qdeq checkpoint"
VERSION: Final = 1

_INTEGERS: Final = {f"{kind.upper()}{8 * size}": f"<{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)}
_DTYPES: Final = {
    name: np.dtype(code) for name, code in {"BOOL": "?", "F16": "<f2", "F32": "<f4", "F64": "<f8", **_INTEGERS}.items()
}
_ARRAY_NAME: Final = re.compile(r"[A-Za-z0-9_./-]+")
# Parsed JSON takes many times the room of its text, so a hostile header must be stopped well below memory.
_MAX_HEADER_BYTES: Final = 16 * 2**20


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a checkpoint file holds.

    Attributes:
        arrays: the arrays by name, writable, in native byte order.
        document: the JSON document (configuration, counters, history, versions).
        path: the file it was read from; None if it was made by hand.
    """

    arrays: dict[str, Array]
    document: dict[str, Any]
    path: Path | None = None


def save_checkpoint(
    path: str | os.PathLike[str],
    arrays: Mapping[str, Array],
    document: Mapping[str, Any],
    *,
    keep_previous: bool = True,
) -> None:
    """Write arrays and document into one file, so that at every moment a complete checkpoint is on disk.

    Everything is first written to temporary files in the same folder and forced to the disk; only then are
    they renamed to their places, the checkpoint last. Three files result: ``path`` itself;
    ``<path>.previous``, the checkpoint that was at ``path`` before, if that one was undamaged; and
    ``<stem>.json``, a copy of the document for people, which is never read back. A process killed while it
    saves may leave hidden ``.<name>.*.tmp`` files behind, which can be deleted.

    Args:
        path: the file to write; its name ends in ``.safetensors`` and its folder exists.
        arrays: arrays by name; names of letters, digits and ``_ . / -``; bool, integers or floats of at
            most 64 bits.
        document: None, bool, int, float (NaN and infinities too), str, list, and dict with str keys.
        keep_previous: whether to keep one earlier generation as ``<path>.previous``.

    Raises:
        InputError: if a name, an array or a value of the document cannot be stored; the message names it.
        CheckpointError: if writing fails (full disk, read-only folder): the file at ``path`` is then
            untouched; or if ``<stem>.json`` exists and is something else.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_checkpoint(f"{folder}/run.safetensors", {"weights": np.zeros(3)}, {"step": 7})
        ...     load_checkpoint(f"{folder}/run.safetensors").document
        {'step': 7}
    """
    path = _as_path(path)
    if path.suffix != ".safetensors":
        raise InputError(f"path must end in '.safetensors', got '{path}'; '.json' is the readable copy.")
    text = encode_document(document)
    files = {
        path.with_suffix(".json"): _readable_copy(text),
        path: _pack(_little_endian(arrays), text),
    }
    _refuse_foreign_file(path.with_suffix(".json"))
    if keep_previous and (current := _undamaged_bytes(path)) is not None:
        files = {_previous(path): current, **files}
    write_together(path, files)


def load_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint and check all of it; nothing in the file is executed or followed as a path.

    The file may come from anybody: the sizes it claims are compared with its true size before anything is
    allocated.

    Args:
        path: a file written by ``save_checkpoint``, or its ``.previous`` generation.

    Returns:
        The arrays and the document, bit for bit as they were saved.

    Raises:
        CheckpointError: if the file is absent, no checkpoint, of a newer version, or damaged in any byte;
            the message says which file, why, and whether the previous generation is there to continue from.
    """
    path = _as_path(path)
    try:
        arrays, document = _unpack(_read(path))
    except _Damage as damage:
        previous = _previous(path)
        hint = f" The generation before it is there: load '{previous}'." if os.path.isfile(previous) else ""
        raise CheckpointError(f"Checkpoint '{path}' cannot be used: {damage}.{hint}") from damage
    return Checkpoint(arrays, document, path)


def load_latest(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint, or with a warning the generation before it where the file is damaged or gone.

    Raises:
        CheckpointError: if neither can be used, or the file is whole and of a newer version.
    """
    path = _as_path(path)
    try:
        return load_checkpoint(path)
    except CheckpointError as error:
        if isinstance(error.__cause__, _OtherVersion):
            raise
        try:
            earlier = load_checkpoint(_previous(path))
        except CheckpointError:
            raise error from None
        warnings.warn(
            f"Checkpoint '{path}' cannot be used: {error.__cause__}. '{earlier.path}', the one saved before it, takes "
            "its place: only what was done between the two is lost.",
            CheckpointWarning,
            stacklevel=2,
        )
        return earlier


def has_checkpoint(path: str | os.PathLike[str]) -> bool:
    """Whether there is a checkpoint at ``path``, or at least its previous generation."""
    path = _as_path(path)
    return path.exists() or _previous(path).exists()


def remove_checkpoint(path: str | os.PathLike[str]) -> None:
    """Delete a checkpoint, its previous generation, its readable copy and what killed saves left; itself last.

    Raises:
        CheckpointError: if a file cannot be deleted, or ``<stem>.json`` is something else.
    """
    path = _as_path(path)
    copy = path.with_suffix(".json")
    _refuse_foreign_file(copy)
    files = [copy, _previous(path), path]
    try:
        for file in files:
            for unfinished in path.parent.glob(temporary_pattern(file)):
                unfinished.unlink(missing_ok=True)
            file.unlink(missing_ok=True)
    except OSError as error:
        raise CheckpointError(f"'{error.filename}' cannot be deleted ({error.strerror or error}).") from error


def require(checkpoint: Checkpoint, wanted: Mapping[str, Any]) -> None:
    """Make sure that the checkpoint's document says what is wanted, or list every difference.

    Top-level keys of the document that ``wanted`` does not name (counters, history) are not compared. Below
    the top level dicts must agree exactly: a key on one side only is a difference. Numbers compare by
    value, NaN equals NaN, and a bool never equals a number.

    Args:
        checkpoint: what ``load_checkpoint`` returned.
        wanted: top-level keys and their wanted values, e.g. ``{"configuration": {...}}``.

    Raises:
        InputError: if ``wanted`` holds a value that no document can hold.
        CheckpointError: if anything differs; one line per key with both values.
    """
    encode_document(wanted, "wanted")
    stored = {key: value for key, value in checkpoint.document.items() if key in wanted}
    lines = list(differences(stored, dict(wanted)))
    if lines:
        where = "The checkpoint" if checkpoint.path is None else f"Checkpoint '{checkpoint.path}'"
        raise CheckpointError("\n  ".join([f"{where} does not fit what is wanted:", *lines]))


class _Damage(Exception):
    """Why bytes are not a checkpoint; ``load_checkpoint`` adds the file's name."""


class _OtherVersion(_Damage):
    """The bytes may well be a checkpoint, but of a version that this package does not read."""


def _as_path(path: str | os.PathLike[str]) -> Path:
    try:
        result = Path(path)
    except TypeError:
        raise InputError(f"path must be a str or a path, got {type_name(path)}.") from None
    if "\0" in str(result):
        raise InputError(f"path must not contain a null character, got {str(result)!r}.")
    return result


def _previous(path: Path) -> Path:
    return path.with_name(path.name + ".previous")


def _little_endian(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Check names and arrays and return contiguous little-endian ones, the byte order of the file."""
    if not isinstance(arrays, Mapping):
        raise InputError(f"arrays must be a mapping from names to arrays, got {type_name(arrays)}.")
    result = {}
    for name, array in arrays.items():
        # A plain alphabet needs no escapes in the header, so no two spellings of one name exist.
        if not isinstance(name, str) or not _ARRAY_NAME.fullmatch(name) or name == "__metadata__":
            raise InputError(f"arrays has the name {name!r}; use letters, digits, '_', '.', '/' and '-'.")
        if type(array) is not np.ndarray:
            raise InputError(f"arrays[{name!r}] must be a numpy.ndarray, got {type_name(array)}: np.asarray.")
        dtype = array.dtype.newbyteorder("<")
        if dtype not in _DTYPES.values():
            raise InputError(
                f"arrays[{name!r}] has dtype {array.dtype}; use bool, integers or floats of at most 64 bits "
                "(of a complex array store .real and .imag)."
            )
        result[name] = np.asarray(array, dtype=dtype, order="C")
    return result


def _pack(arrays: dict[str, Array], text: str) -> bytes:
    metadata = {"format": FORMAT, "version": str(VERSION), "document": text, "sha256": _digest(arrays, text)}
    blob = bytes(serialize(arrays, metadata=metadata))
    if (length := int.from_bytes(blob[:8], "little")) > _MAX_HEADER_BYTES:
        raise InputError(
            f"document and array names take {length} bytes; at most {_MAX_HEADER_BYTES} fit. "
            "Store a long history as arrays."
        )
    return blob


def _digest(arrays: Mapping[str, Array], text: str) -> str:
    outline = json.dumps([[name, array.dtype.str, array.shape] for name, array in sorted(arrays.items())])
    sha = hashlib.sha256()
    # Lengths in front keep the parts apart: no two different checkpoints feed the digest the same bytes.
    for part in (FORMAT, str(VERSION), text, outline):
        sha.update(len(part).to_bytes(8, "little") + part.encode("ascii"))
    for name in sorted(arrays):
        sha.update(arrays[name].tobytes())
    return sha.hexdigest()


def _unpack(blob: bytes) -> tuple[dict[str, Array], dict[str, Any]]:
    metadata = _metadata(blob)
    text = metadata["document"]
    if not isinstance(text, str) or not text.isascii():
        raise _Damage("its document is not a string of ASCII characters")
    try:
        tensors = deserialize(blob)  # type: ignore[no-untyped-call]
    except SafetensorError as error:
        raise _Damage(f"its arrays are damaged ({str(error)[:200]})") from error
    arrays = {name: _array(name, tensor) for name, tensor in tensors}
    if _digest(arrays, text) != metadata["sha256"]:
        raise _Damage("its contents do not have the SHA-256 digest that it was saved with")
    try:
        document = decode_document(text)
    except ValueError as error:
        raise _Damage(f"its document is damaged: {error}") from error
    return {name: array.astype(array.dtype.newbyteorder("=")) for name, array in arrays.items()}, document


def _metadata(blob: bytes) -> dict[str, Any]:
    """Read the metadata, which safetensors' reader of bytes leaves out: 8 bytes length, JSON header."""
    length = int.from_bytes(blob[:8], "little")
    if len(blob) < 8 or length > len(blob) - 8:
        raise _Damage(f"it ends within its header, after {len(blob)} bytes")
    if length > _MAX_HEADER_BYTES:
        raise _Damage(f"its header claims {length} bytes, more than the {_MAX_HEADER_BYTES} allowed")
    try:
        header = parse_json(blob[8 : 8 + length].decode("utf-8"))
    except ValueError as error:
        raise _Damage(f"its header is damaged: {error}") from error
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
        raise _Damage(f"it is not in the format '{FORMAT}'")
    version = metadata.get("version")
    if not (isinstance(version, str) and version.isdecimal()):
        raise _Damage("it does not say which version of the format it has")
    if version != str(VERSION):
        raise _OtherVersion(
            f"it has version {str(version)[:20]!r} of the format, and this qiskit-qdeq reads version "
            f"{VERSION}: upgrade if the file is newer"
        )
    if metadata.keys() != {"format", "version", "document", "sha256"}:
        raise _Damage("its metadata do not have the keys format, version, document and sha256")
    return metadata


def _array(name: str, tensor: Mapping[str, Any]) -> Array:
    """Make an array of one tensor, whose length against dtype and shape safetensors has checked."""
    if not _ARRAY_NAME.fullmatch(name):
        raise _Damage(f"it holds an array of the name {name[:40]!r}")
    dtype = _DTYPES.get(tensor["dtype"])
    if dtype is None:
        raise _Damage(f"its array {name[:40]!r} has the dtype {tensor['dtype']}")
    flat = np.frombuffer(tensor["data"], dtype=dtype)
    # NumPy takes any byte for a bool, and such a value can be true and unequal to True at once.
    if dtype.kind == "b" and np.any(flat.view(np.uint8) > 1):
        raise _Damage(f"its array {name[:40]!r} holds bytes that are no booleans")
    try:
        return flat.reshape(tensor["shape"])
    except (ValueError, OverflowError) as error:
        raise _Damage(f"its array {name[:40]!r} has an impossible shape ({error})") from error


def _read(path: Path) -> bytes:
    try:
        if not path.exists():
            raise _Damage("there is no such file")
        if not path.is_file():
            raise _Damage("it is not a file")
        return path.read_bytes()
    except OSError as error:
        raise _Damage(f"it cannot be read ({error.strerror or error})") from error


def _undamaged_bytes(path: Path) -> bytes | None:
    """Return the bytes at ``path`` if they are a good checkpoint: no damaged one may push out a good one."""
    with contextlib.suppress(_Damage):
        blob = _read(path)
        _unpack(blob)
        return blob
    return None


def _readable_copy(text: str) -> bytes:
    content = {"format": FORMAT, "version": VERSION, "document": json.loads(text)}
    return (json.dumps(content, indent=2) + "\n").encode("ascii")


def _refuse_foreign_file(path: Path) -> None:
    """Refuse to overwrite a file that is no readable copy: its name was derived, the user did not type it."""
    start = _readable_copy("{}").split(b",")[0]
    try:
        with path.open("rb") as file:
            found = file.read(len(start))
    except FileNotFoundError:
        return
    except OSError as error:
        raise CheckpointError(f"'{path}' cannot be read ({error.strerror or error}).") from error
    if found != start:
        raise CheckpointError(
            f"'{path}' would be overwritten by the readable copy of the checkpoint, but it is something "
            "else: move it or give the checkpoint another name."
        )
