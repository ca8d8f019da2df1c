"""Checks of the numbers in a configuration: what is kept is a Python number, whatever kind of real scalar was given."""

from __future__ import annotations

import math
import numbers

from qiskit_qdeq.exceptions import InputError


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
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        interval = _interval(lower, upper, open_lower, closed_above)
        raise InputError(f"{owner}: {name} must be a number in {interval}, got {value!r}.")
    try:
        result = float(value)
    except OverflowError:
        result = math.inf
    above = result > lower if open_lower else result >= lower
    below = result <= upper if closed_above else result < upper
    if not (above and below):
        interval = _interval(lower, upper, open_lower, closed_above)
        raise InputError(f"{owner}: {name} must be in {interval}, got {value!r}.")
    return result


def integer(owner: str, name: str, value: object, lower: int) -> int:
    """Return ``value`` as an int after checking that it is an integer of at least ``lower``."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < lower:
        raise InputError(f"{owner}: {name} must be an integer of at least {lower}, got {value!r}.")
    return int(value)


def keep_real(
    config: object, name: str, lower: float, upper: float, *, open_lower: bool = False, open_upper: bool = False
) -> None:
    """Check a field of a frozen dataclass with ``real`` and keep the float."""
    value = real(
        type(config).__name__,
        name,
        getattr(config, name),
        lower,
        upper,
        open_lower=open_lower,
        open_upper=open_upper,
    )
    object.__setattr__(config, name, value)


def keep_integer(config: object, name: str, lower: int) -> None:
    """Check a field of a frozen dataclass with ``integer`` and keep the int."""
    object.__setattr__(config, name, integer(type(config).__name__, name, getattr(config, name), lower))


def _interval(lower: float, upper: float, open_lower: bool, closed_above: bool) -> str:
    return f"{'(' if open_lower else '['}{lower:g}, {upper:g}{']' if closed_above else ')'}"
