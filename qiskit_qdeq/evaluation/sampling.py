"""How precisely each kind of measurement is made, how that changes over a training run, and how ∂m/∂θ is sampled."""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass

from qiskit_qdeq.exceptions import InputError

GRADIENT_METHODS = ("shift", "fixed", "random", "spsa")
PURPOSES = ("forward", "jacobian", "gradient")


@dataclass(frozen=True)
class Sampling:
    """Shots or precision per purpose, and the estimator of the weight gradient.

    An integer is a number of shots, a float below 1 a precision (the standard error of an expectation value with
    variance one); N shots are a precision of 1/√N.

    Args:
        forward: for values and readout features; None leaves it to the estimator, which may be exact.
        jacobian: for shifted encoder angles; None: as `forward`.
        gradient: for shifted weights; None: as `forward`.
        growth: shots at the last training step over shots at the first, geometric in between.
        gradient_method: "shift" (every shift of every gate, unbiased), "fixed" (the same at D (D + 1) / 2 inputs in the
            place of the samples, for amplitude encoding and larger batches: fewer circuits, more noise), "random" (pairs of
            shifted circuits, drawn with importance weights, unbiased), or "spsa" (all weights shifted at once in random
            directions, biased by O(spsa_step²)). Measured: docs/estimators.md, docs/economy.md.
        gradient_circuits: circuits per sample of "random" and "spsa", an even number.
        spsa_step: shift of every gate angle in "spsa", in radians.

    Raises:
        InputError: naming the field, its value and what is allowed.
    """

    forward: float | None = None
    jacobian: float | None = None
    gradient: float | None = None
    growth: float = 1.0
    gradient_method: str = "shift"
    gradient_circuits: int = 0
    spsa_step: float = 0.15

    def __post_init__(self) -> None:
        for name in PURPOSES:
            _check_amount(name, getattr(self, name))
        if self.gradient_method not in GRADIENT_METHODS:
            raise InputError(f"gradient_method must be one of {list(GRADIENT_METHODS)}, got {self.gradient_method!r}")
        for name in ("growth", "spsa_step"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, numbers.Real) or not 0 < float(value) < math.inf:
                raise InputError(f"{name} must be a finite number > 0, got {value!r}")
        count = self.gradient_circuits
        if isinstance(count, bool) or not isinstance(count, numbers.Integral) or int(count) < 0 or int(count) % 2:
            raise InputError(f"gradient_circuits must be an even integer >= 0, got {count!r}")
        if (count > 0) != self.draws_shifts:
            raise InputError(
                f"gradient_circuits={count} with gradient_method {self.gradient_method!r}: 'random' and 'spsa' need a "
                "positive number of circuits per sample, 'shift' and 'fixed' always run all of them"
            )
        if self.growth != 1 and all(getattr(self, name) is None for name in PURPOSES):
            raise InputError(f"growth={self.growth!r} has no effect without shots or a precision")

    @property
    def draws_shifts(self) -> bool:
        """Whether shifts are drawn, `gradient_circuits` a sample, and not all of them run."""
        return self.gradient_method in ("random", "spsa")

    def precision(self, purpose: str, progress: float = 0.0) -> float | None:
        """The precision asked of the estimator for a purpose at a share `progress` of the run; None: its own default.

        >>> Sampling(forward=100, gradient=0.5).precision("gradient")
        0.5
        """
        amount = getattr(self, purpose)
        if amount is None:
            amount = self.forward
        if amount is None:
            return None
        # a hair above 1/√N, so that ⌈1/precision²⌉, which primitives run, is N and not N + 1
        start = (1 + 1e-9) / math.sqrt(amount) if isinstance(amount, numbers.Integral) else float(amount)
        return start * self.growth ** (-0.5 * progress)


def progress_of(step: int, total: int) -> float:
    """The share of a run of `total` steps at which it takes this one: 0 at the first, 1 at the last."""
    return min(1.0, step / max(1, total - 1))


def _check_amount(name: str, amount: float | None) -> None:
    if amount is None:
        return
    if isinstance(amount, numbers.Integral) and not isinstance(amount, bool):
        if int(amount) < 1:
            raise InputError(f"{name} must be at least 1 shot, got {amount!r}")
        return
    if isinstance(amount, bool) or not isinstance(amount, numbers.Real) or not 0 < float(amount) < 1:
        raise InputError(f"{name} must be an integer number of shots or a precision in (0, 1), got {amount!r}")
