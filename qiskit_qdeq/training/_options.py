"""Strict choice of a configuration by name: nothing misspelt passes silently."""

from __future__ import annotations

import dataclasses
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
