"""A plane through state space, spanned by two entries of q: checked, laid out as a grid, and labelled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from qiskit_qdeq.circuits._checks import check_count
from qiskit_qdeq.exceptions import InputError

Array = np.ndarray[Any, np.dtype[Any]]

#: Grid points evaluated together.
BATCH = 1024


def check_states(states: Any, num_states: int) -> tuple[int, int]:
    """The two different states that span the plane, of the K there are."""
    if num_states < 2:
        raise InputError(f"the model has {num_states} state; a plane needs at least two")
    if isinstance(states, str) or not isinstance(states, Sequence) or len(states) != 2:
        raise InputError(f"states must be two indices of states, got {states!r}")
    first, second = (check_count("states", state, minimum=0) for state in states)
    if first == second or max(first, second) >= num_states:
        raise InputError(f"states must be two different indices in 0..{num_states - 1}, got {states!r}")
    return first, second


def plane_grid(through: Array, states: tuple[int, int], x: Array, y: Array) -> Array:
    """States (len(y) · len(x), K): all pairs of `x` and `y`, x fastest, with the other entries of `through` (K,)."""
    grid = np.broadcast_to(through, (len(x) * len(y), len(through))).copy()
    grid[:, states[0]], grid[:, states[1]] = (part.ravel() for part in np.meshgrid(x, y))
    return grid


def axis_names(states: tuple[int, int]) -> list[str]:
    """Labels of both axes."""
    return [f"state {index}, q$_{{{index}}}$" for index in states]
