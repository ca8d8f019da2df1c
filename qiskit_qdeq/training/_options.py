"""Strict choice of a configuration by name, and checks of its numbers: nothing misspelt passes silently."""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Mapping
from typing import Any, TypeVar

from ..exceptions import InputError

T = TypeVar("T")


def choose(kind: str, choices: Mapping[str, type[T]], name: str, options: Mapping[str, Any]) -> T:
    """Return ``choices[name](**options)``; unknown names and options are errors that list the valid ones.

    Args:
        kind: what is chosen, for messages, e.g. ``"optimizer"``.
        choices: frozen dataclasses by name, all of whose fields have defaults.
        name: the one to make.
        options: values of its fields.

    Raises:
        InputError: if the name or an option is unknown.
    """
    if not isinstance(name, str) or name not in choices:
        raise InputError(f"{kind} {name!r} is unknown; choose one of {', '.join(map(repr, choices))}.")
    fields = dataclasses.fields(choices[name])  # type: ignore[arg-type]
    valid = ", ".join(field.name for field in fields) or "none"
    for option in options:
        if option not in {field.name for field in fields}:
            raise InputError(f"{kind} {name!r} has no option {option!r}; its options: {valid}.")
    return choices[name](**options)


def real(
    owner: str,
    name: str,
    value: object,
    lower: float,
    upper: float,
    *,
    open_lower: bool = False,
    open_upper: bool = False,
) -> float:
    """Return ``value`` as a float after checking that it is a finite real number within an interval."""
    closed_above = not open_upper and upper < math.inf
    interval = f"{'(' if open_lower else '['}{lower:g}, {upper:g}{']' if closed_above else ')'}"
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise InputError(f"{owner}: {name} must be a number in {interval}, got {value!r}.")
    try:
        result = float(value)
    except OverflowError:
        result = math.inf
    above = result > lower if open_lower else result >= lower
    below = result <= upper if closed_above else result < upper
    if not (above and below):
        raise InputError(f"{owner}: {name} must be in {interval}, got {value!r}.")
    return result


def integer(owner: str, name: str, value: object, lower: int) -> int:
    """Return ``value`` as an int after checking that it is an integer of at least ``lower``."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < lower:
        raise InputError(f"{owner}: {name} must be an integer of at least {lower}, got {value!r}.")
    return int(value)
