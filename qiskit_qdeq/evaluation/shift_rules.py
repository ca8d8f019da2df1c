"""Parameter-shift rules: the exact derivative of an expectation value by a gate's angle, from shifted angles.

A gate exp(-i a H) makes an expectation value f(a) a trigonometric polynomial whose frequencies are the gaps between
eigenvalues of H, and df/da = Σ_r c_r f(a + s_r). One gap, 1 (Mitarai et al., arXiv:1803.00745, Schuld et al.,
arXiv:1811.11184):

    df/da = [f(a + π/2) - f(a - π/2)] / 2.

Gaps 1/2 and 1, which controlled rotations have (Anselmetti et al., arXiv:2104.05695), c± = (√2 ± 1) / (4 √2):

    df/da = c₊ [f(a + π/2) - f(a - π/2)] - c₋ [f(a + 3π/2) - f(a - 3π/2)].
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qiskit_qdeq.exceptions import InputError

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class ShiftRule:
    """df/da = Σ_r coefficients[r] f(a + shifts[r])."""

    shifts: tuple[float, ...]
    coefficients: tuple[float, ...]


_HALF_PI = math.pi / 2
_PLUS, _MINUS = ((math.sqrt(2) + sign) / (4 * math.sqrt(2)) for sign in (1, -1))

TWO_TERM = ShiftRule((_HALF_PI, -_HALF_PI), (0.5, -0.5))
FOUR_TERM = ShiftRule((_HALF_PI, -_HALF_PI, 3 * _HALF_PI, -3 * _HALF_PI), (_PLUS, -_PLUS, -_MINUS, _MINUS))

_BY_GAPS = {(1.0,): TWO_TERM, (0.5, 1.0): FOUR_TERM}


def shift_rule(generator: Array) -> ShiftRule:
    """The rule of a gate exp(-i a H) by the eigenvalue gaps of its generator H.

    Raises:
        InputError: if the gaps are neither 1 alone nor 1/2 and 1.

    >>> shift_rule(np.diag([0.5, -0.5])).coefficients
    (0.5, -0.5)
    """
    eigenvalues = np.linalg.eigvalsh(generator)
    gaps = np.unique(np.abs(eigenvalues[:, None] - eigenvalues).round(9))
    key = tuple(float(gap) for gap in gaps if gap)
    if key not in _BY_GAPS:
        raise InputError(f"no shift rule is known for a gate whose generator has the eigenvalue gaps {key}")
    return _BY_GAPS[key]


def shift_rows(
    rows: Array, rules: Sequence[ShiftRule], which: Sequence[int] | Array | None = None
) -> tuple[Array, Array, Array]:
    """The angles at which f must be known for its derivatives: df/dα_a = Σ_{r: index_r = a} coefficient_r f(row_r).

    Args:
        rows: (S, A) angles.
        rules: one per angle.
        which: angles, numbered 0 .. A-1, whose derivative is wanted; default: all.

    Returns:
        Shifted rows (S, R, A), index of the shifted angle (R,), coefficient (R,); R is the number of terms of the rules
        wanted, in the order of `which`.

    Raises:
        InputError: if `rows` has no column per rule, or `which` holds what is no angle.

    >>> shifted, index, coefficients = shift_rows(np.zeros((1, 3)), [TWO_TERM] * 3, [2])
    >>> shifted.round(2).tolist(), index.tolist(), coefficients.tolist()
    ([[[0.0, 0.0, 1.57], [0.0, 0.0, -1.57]]], [2, 2], [0.5, -0.5])
    """
    rows = np.asarray(rows, dtype=float)
    if rows.ndim != 2 or rows.shape[1] != len(rules):
        raise InputError(f"rows must have shape (samples, {len(rules)}), got {rows.shape}")
    wanted = np.arange(len(rules)) if which is None else np.asarray(which)
    if wanted.size and (wanted.ndim != 1 or wanted.dtype.kind not in "iu"):
        raise InputError(f"which must be a list of integers, got {which!r}")
    if wanted.size and not (wanted.min() >= 0 and wanted.max() < len(rules)):
        raise InputError(f"which must hold angles 0 .. {len(rules) - 1}, got {wanted.min()} .. {wanted.max()}")
    chosen = [rules[a] for a in wanted.tolist()]
    index = np.array([a for a, rule in zip(wanted.tolist(), chosen, strict=True) for _ in rule.shifts], dtype=np.intp)
    shifts = np.array([shift for rule in chosen for shift in rule.shifts])
    coefficients = np.array([coefficient for rule in chosen for coefficient in rule.coefficients])
    shifted = np.repeat(rows[:, None, :], len(index), axis=1)
    shifted[:, np.arange(len(index)), index] += shifts
    return shifted, index, coefficients
