"""Formulas fitted to what was measured, and what they say beyond it; their values are never mixed with measured ones.

    time of a step    t(n) = t0 + a n² 2^n          n² = gates × columns, both in proportion to n at fixed depth and D = 4 n
    peak memory       m(n) = m0 + b 16 c(n) 2^n     c(n): columns that the package says it holds (`model.exact_gigabytes`)
    gradient          Var(n) = v b^-n

The first two by least squares of relative deviations with coefficients >= 0, the last of ln Var, weighted by its error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.optimize import nnls

from qiskit_qdeq.model import exact_gigabytes

Array = np.ndarray[Any, np.dtype[Any]]

#: Beyond the machine.
BEYOND = (20, 30, 50, 100)


@dataclass(frozen=True)
class Growth:
    """y(n) = constant + factor · g(n).

    Attributes:
        constant, factor: coefficients.
        error: root mean square of (fit - measured) / measured.
        points: how many were fitted.
    """

    constant: float
    factor: float
    error: float
    points: int

    def __call__(self, n: float, basis: Callable[[float], float]) -> float:
        """y(n)."""
        return self.constant + self.factor * basis(n)

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def fit_growth(n: Sequence[float], y: Sequence[float], basis: Callable[[float], float]) -> Growth | None:
    """The coefficients of at least two points; None for fewer.

    >>> fit_growth([4, 6, 8], [1 + 2 * 2**4, 1 + 2 * 2**6, 1 + 2 * 2**8], lambda n: 2**n).factor.__round__(9)
    2.0
    """
    if len(n) < 2:
        return None
    values = np.asarray(y, dtype=float)
    growth = np.array([basis(entry) for entry in n])
    # columns of one size, without which nnls stops early
    scale = growth.max()
    design = np.stack([np.ones_like(values), growth / scale], axis=1) / values[:, None]
    found, _ = nnls(design, np.ones_like(values))
    error = float(np.sqrt(np.mean((design @ found - 1) ** 2)))
    return Growth(float(found[0]), float(found[1] / scale), error, len(values))


def work(n: float) -> float:
    """n² 2^n."""
    return float(n**2 * 2.0**n)


def mebibytes(encoding: str) -> Callable[[float], float]:
    """What `exact_gigabytes` says at D = 4 n, K = n, in MiB."""
    return lambda n: 2**10 * exact_gigabytes(n, 4 * n, n, amplitude=encoding == "amplitude")


@dataclass(frozen=True)
class Decay:
    """Var(n) = prefactor · base^-n.

    Attributes:
        base: b; 1 is no decay, 2 a halving with every qubit.
        error: its standard error, from those of the variances or from the scatter around the fit, whichever is larger.
        prefactor: v.
        chi: χ² per degree of freedom.
        chi_power: that of a power law v n^-p instead.
        points: how many were fitted.
    """

    base: float
    error: float
    prefactor: float
    chi: float
    chi_power: float
    points: int

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def fit_decay(n: Sequence[float], variance: Sequence[float], error: Sequence[float]) -> Decay | None:
    """b and v of at least three variances > 0; None for fewer."""
    kept = [entry for entry in zip(n, variance, error, strict=True) if entry[1] > 0 and entry[2] > 0]
    if len(kept) < 3:
        return None
    x, v, e = (np.array(column, dtype=float) for column in zip(*kept, strict=True))
    (intercept, slope), slope_error, chi = _line(x, np.log(v), e / v)
    base = math.exp(-slope)
    base_error = base * slope_error * math.sqrt(max(1.0, chi))
    return Decay(base, base_error, math.exp(intercept), chi, _line(np.log(x), np.log(v), e / v)[2], len(x))


def _line(x: Array, y: Array, error: Array) -> tuple[Array, float, float]:
    """Intercept and slope of y(x), the slope's error, and χ² per degree of freedom."""
    design = np.stack([np.ones_like(x), x], axis=1)
    weights = error**-2.0
    covariance = np.linalg.inv(design.T @ (weights[:, None] * design))
    found = covariance @ (design.T @ (weights * y))
    chi = float(weights @ (y - design @ found) ** 2) / (len(x) - 2)
    return found, math.sqrt(covariance[1, 1]), chi
