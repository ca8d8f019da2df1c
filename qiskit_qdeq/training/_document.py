"""JSON documents that come back exactly as they were, NaN included, and the differences between two.

JSON has no NaN and no infinity: they are written as the strings ``"float:nan"``, ``"float:inf"`` and
``"float:-inf"``, and a str that itself starts with ``float:`` or ``str:`` gets ``str:`` in front. Finite
floats are JSON numbers with Python's ``repr``, which is exact.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any, Final

from ..exceptions import InputError

_NON_FINITE: Final = {"float:nan": math.nan, "float:inf": math.inf, "float:-inf": -math.inf}
_MAX_DEPTH: Final = 64
# Python refuses to print integers above a limit that may be set to 640 digits; a PCG64 state has 128 bits.
_MAX_INT_BITS: Final = 2048
_ABSENT: Final = object()


def encode_document(document: Mapping[str, Any], argument: str = "document") -> str:
    """Return the document as JSON of ASCII characters.

    Args:
        document: None, bool, int, float, str, list, and dict with str keys, to any depth up to 64.
        argument: what the caller calls it, for messages.

    Raises:
        InputError: if a value is of another type, subclasses included: they would not come back as such.
    """
    if not isinstance(document, Mapping):
        raise InputError(f"{argument} must be a mapping with str keys, got {type_name(document)}.")
    return json.dumps(_encode(dict(document), argument, 0), allow_nan=False)


def decode_document(text: str) -> dict[str, Any]:
    """Undo ``encode_document``; raises ValueError with the reason for any text it could not have written."""
    document = _decode(parse_json(text), 0)
    if not isinstance(document, dict):
        raise ValueError("it is not a JSON object")
    return document


def parse_json(text: str) -> Any:
    """Parse JSON, refusing what Python's parser lets through: NaN, overflowing numbers, keys given twice.

    Raises ValueError, for nesting deeper than Python's own limit too.
    """
    try:
        return json.loads(text, parse_float=_finite, parse_constant=_finite, object_pairs_hook=_unique)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def differences(stored: Any, wanted: Any, where: str = "") -> Iterator[str]:
    """Yield one line per key whose values differ, dicts and lists of equal length taken apart.

    Numbers compare by value, NaN equals NaN, and a bool never equals a number.
    """
    if isinstance(stored, dict) and isinstance(wanted, dict):
        for key in [*wanted, *(key for key in stored if key not in wanted)]:
            inner = f"{where}.{key}" if where else key
            yield from differences(stored.get(key, _ABSENT), wanted.get(key, _ABSENT), inner)
    elif isinstance(stored, list) and isinstance(wanted, list) and len(stored) == len(wanted):
        for index, (left, right) in enumerate(zip(stored, wanted, strict=True)):
            yield from differences(left, right, f"{where}[{index}]")
    elif not _same(stored, wanted):
        yield f"{where}: stored {_shown(stored)}, wanted {_shown(wanted)}"


def type_name(value: object) -> str:
    """Return the type's name as a user would write it."""
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"


def _encode(value: Any, where: str, depth: int) -> Any:
    if depth > _MAX_DEPTH:
        raise InputError(f"{where[:80]}... is nested more than {_MAX_DEPTH} levels deep; flatten it.")
    kind = type(value)
    if kind is dict:
        for key in value:
            if type(key) is not str:
                raise InputError(f"{where} has the key {key!r} of type {type_name(key)}; keys must be str.")
        return {key: _encode(item, f"{where}.{key}", depth + 1) for key, item in value.items()}
    if kind is list:
        return [_encode(item, f"{where}[{index}]", depth + 1) for index, item in enumerate(value)]
    if kind is str:
        return f"str:{value}" if value.startswith(("float:", "str:")) else value
    if kind is float:
        return value if math.isfinite(value) else f"float:{value!r}"
    if kind is int and value.bit_length() > _MAX_INT_BITS:
        raise InputError(f"{where} is an integer of {value.bit_length()} bits; at most {_MAX_INT_BITS} fit.")
    if value is None or kind in (int, bool):
        return value
    raise InputError(
        f"{where} is of type {type_name(value)}; only None, bool, int, float, str, list and dict can be "
        "stored. Convert it (NumPy scalars with .item(), tuples with list()), or store it as an array."
    )


def _decode(value: Any, depth: int) -> Any:
    if depth > _MAX_DEPTH:
        raise ValueError(f"it is nested more than {_MAX_DEPTH} levels deep")
    if isinstance(value, dict):
        return {key: _decode(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list):
        return [_decode(item, depth + 1) for item in value]
    if isinstance(value, str) and value.startswith("str:"):
        return value[len("str:") :]
    if isinstance(value, str) and value.startswith("float:"):
        if value not in _NON_FINITE:
            raise ValueError(f"it holds the unknown float {value[:40]!r}")
        return _NON_FINITE[value]
    return value


def _finite(token: str) -> float:
    value = float(token)
    if not math.isfinite(value):
        raise ValueError(f"it holds the number {token[:40]}")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("it gives a key twice")
    return result


def _same(stored: Any, wanted: Any) -> bool:
    if isinstance(stored, bool) != isinstance(wanted, bool):
        return False
    if isinstance(stored, float) and isinstance(wanted, float) and math.isnan(stored) and math.isnan(wanted):
        return True
    return bool(stored == wanted)


def _shown(value: Any) -> str:
    text = "nothing" if value is _ABSENT else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
