"""Chooses as many places as possible, or a given number, that keep their distance from each other, with the fewest errors.

With y_p ∈ {0, 1} for each place p and d the distance in the device's coupling map,

    maximize Σ_p y_p,  then minimize Σ_p errors_p y_p,    Σ_{p touches u or v} y_p ≤ 1 for all qubits with d(u, v) ≤ spare:

an integer linear program, solved by SciPy's HiGHS.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_matrix

Array = np.ndarray[Any, np.dtype[Any]]

#: With more places than `_MANY`, those are packed that are among the best `_PER_QUBIT` of one of their qubits.
_MANY, _PER_QUBIT = 400, 10
#: Nodes of the search, a limit that gives the same result on every machine, unlike one in seconds.
_NODES = 10


def pack(places: Sequence[Sequence[int]], errors: Array, distances: Array, spare: int, count: int | None) -> list[int]:
    """Indices of the chosen places, the one with the fewest errors first.

    Args:
        places: qubits of each place.
        errors: of each place.
        distances: (qubits, qubits), infinite where not connected.
        spare: places are chosen more than this far from each other.
        count: how many; None: as many as possible.

    Returns:
        `count` indices, or the most that were found, if they are fewer.
    """
    if not len(places):
        return []
    if len(places) > _MANY and len(kept := _best_of_each_qubit(places, errors)) < len(places):
        best = pack([places[index] for index in kept], errors[kept], distances, spare, count)
        return [kept[index] for index in best]
    matrix = _conflicts(places, distances, spare)
    chosen = _solve(matrix, errors, count) if count is not None else None
    if chosen is None:
        chosen = _solve(matrix, errors, None)
        if chosen is None:
            chosen = _greedy(matrix, errors)
        chosen = chosen if count is None else chosen[:count]
    return chosen


def _best_of_each_qubit(places: Sequence[Sequence[int]], errors: Array) -> list[int]:
    seen: Counter[int] = Counter()
    kept = []
    for index in np.argsort(errors, kind="stable"):
        if any(seen[qubit] < _PER_QUBIT for qubit in places[index]):
            kept.append(int(index))
            seen.update(places[index])
    return kept


def _conflicts(places: Sequence[Sequence[int]], distances: Array, spare: int) -> Any:
    """A row per pair of qubits that two places must not both touch, a column per place."""
    touches = np.zeros((len(distances), len(places)), dtype=bool)
    for index, place in enumerate(places):
        touches[list(place), index] = True
    used = np.flatnonzero(touches.any(axis=1))
    pairs = [(u, v) for u in used for v in used[used >= u] if distances[u, v] <= spare]
    rows = np.unique(np.array([touches[u] | touches[v] for u, v in pairs]), axis=0)
    return csr_matrix(rows[rows.sum(axis=1) > 1].astype(float).reshape(-1, len(places)))


def _solve(matrix: Any, errors: Array, count: int | None) -> list[int] | None:
    constraints = [LinearConstraint(matrix, ub=1)] if matrix.shape[0] else []
    scale = errors / max(errors.max(initial=0), 1e-12)
    if count is None:
        # all errors together weigh less than half a place
        cost, gap = scale / (2 * max(1, matrix.shape[1])) - 1, 0.02
    else:
        cost, gap = scale, 1e-3
        constraints.append(LinearConstraint(np.ones((1, len(errors))), count, count))
    found = milp(
        cost,
        constraints=constraints,
        integrality=1,
        bounds=Bounds(0, 1),
        options={"node_limit": _NODES, "mip_rel_gap": gap},
    )
    if found.x is None:
        return None
    chosen = np.flatnonzero(found.x > 0.5)
    return [int(index) for index in chosen[np.lexsort((chosen, errors[chosen]))]]


def _greedy(matrix: Any, errors: Array) -> list[int]:
    """Place after place with the fewest errors; only if the search above found nothing at all."""
    dense, chosen = matrix.toarray() > 0, []
    free = np.ones(len(errors), dtype=bool)
    for index in np.argsort(errors, kind="stable"):
        if free[index]:
            chosen.append(int(index))
            free &= ~dense[dense[:, index]].any(axis=0)
    return chosen
