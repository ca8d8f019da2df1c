"""Means over seeds, and differences between rows in units of what seeds alone make."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation (n - 1) over seeds; `std` is None for one seed."""

    mean: float
    std: float | None
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of at least one value."""
        std = float(np.std(values, ddof=1)) if len(values) > 1 else None
        return cls(float(np.mean(values)), std, len(values))

    @property
    def error(self) -> float | None:
        """Standard error of the mean."""
        return None if self.std is None else self.std / math.sqrt(self.count)


def difference(first: Spread, second: Spread) -> tuple[float, float | None]:
    """Difference of the means and its standard error √(s₁²/n₁ + s₂²/n₂) (Welch); None where a spread is not known."""
    if first.error is None or second.error is None:
        return first.mean - second.mean, None
    return first.mean - second.mean, math.hypot(first.error, second.error)
