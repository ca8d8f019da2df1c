"""The noise floor: when a measured residual cannot be told from zero.

A residual g = m̂(q) - q of K values with standard errors σ is pure noise if  Σ_j (g_j / σ_j)² ≤ χ²_K(confidence)
(DESIGN section 6): iterating on would only spend shots.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from scipy.stats import chi2

Array = np.ndarray[Any, np.dtype[Any]]


def within_noise(residuals: Array, std_errors: Array | None, confidence: float) -> Array:
    """Which residuals (b, K) are indistinguishable from zero at standard errors (b, K), (b,); none if exact (None).

    An infinite standard error says nothing about its residual, so such a sample never is.
    """
    result: Array = noise_distance(residuals, std_errors) <= _quantile(residuals.shape[1], confidence)
    return result


def noise_distance(residuals: Array, std_errors: Array | None) -> Array:
    """Σ_j (g_j / σ_j)² (b,), which is K on average for mere noise; infinite if exact or where an error is not known."""
    if std_errors is None:
        return np.full(len(residuals), np.inf)
    distance = np.sum((residuals / std_errors) ** 2, axis=1)
    result: Array = np.where(np.isfinite(std_errors).all(axis=1), distance, np.inf)
    return result


@lru_cache(maxsize=64)
def _quantile(size: int, confidence: float) -> float:
    return float(chi2.ppf(confidence, size))
