"""How the learning rate changes over a training run: η_t = η · factor(t, T) at step t = 0, 1, ... of T."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final, Protocol

from .._numbers import integer, keep_integer, keep_real
from ..exceptions import InputError
from ._options import choose


def schedule(name: str, **options: Any) -> Schedule:
    """Make a schedule from its name and options.

    Args:
        name: ``"constant"``, ``"cosine"``, ``"step"`` or ``"exponential"``.
        **options: fields of ``Constant``, ``Cosine``, ``StepDecay`` or ``Exponential``.

    Raises:
        InputError: if the name or an option is unknown (the message lists the valid ones) or out of range.

    Example:
        >>> half_way = schedule("cosine", final=0.1)(step=50, total_steps=100)
        >>> round(half_way, 12)
        0.55
    """
    return choose("schedule", _SCHEDULES, name, options)


class Schedule(Protocol):
    """Anything that maps a step and the number of steps to the factor that multiplies the base rate."""

    def __call__(self, step: int, total_steps: int) -> float:
        """Return the factor at ``step``, 0 ≤ step ≤ total_steps."""
        ...


@dataclass(frozen=True)
class Constant:
    """The base rate throughout: factor = 1."""

    def __call__(self, step: int, total_steps: int) -> float:
        """Return 1; raises InputError unless 0 ≤ step ≤ total_steps."""
        _check(step, total_steps)
        return 1.0


@dataclass(frozen=True)
class Cosine:
    """Half a cosine from 1 to ``final``, after a linear rise over ``warmup`` steps.

    With w = ``warmup`` and f = ``final``::

        factor = (t + 1) / (w + 1)                                  t < w
        factor = f + (1 - f) (1 + cos(π (t - w) / (T - w))) / 2     t ≥ w

    The rise starts above 0, so that no step is spent at rate 0, and meets the cosine's 1 at t = w; ``final``
    is reached at t = T, one step after the last (Loshchilov & Hutter, ICLR 2017, eq. 5, without restarts).

    Args:
        final: factor at the end, in [0, 1].
        warmup: steps of the rise; less than the number of steps.
    """

    final: float = 0.0
    warmup: int = 0

    def __post_init__(self) -> None:
        keep_real(self, "final", 0, 1)
        keep_integer(self, "warmup", 0)

    def __call__(self, step: int, total_steps: int) -> float:
        """Return the factor; raises InputError unless 0 ≤ step ≤ total_steps and warmup < total_steps."""
        _check(step, total_steps)
        if self.warmup >= total_steps:
            raise InputError(
                f"Cosine: warmup must be less than total_steps, got {self.warmup} and {total_steps}: "
                "the base rate would never be reached."
            )
        if step < self.warmup:
            return (step + 1) / (self.warmup + 1)
        progress = (step - self.warmup) / (total_steps - self.warmup)
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * progress)) / 2


@dataclass(frozen=True)
class StepDecay:
    """A fixed reduction between stages of equal length: factor = g^⌊s t / T⌋, s = ``stages``, g = ``factor``.

    Args:
        stages: how many stages the run is divided into, at least 1.
        factor: what each new stage multiplies the rate by, in (0, 1].
    """

    stages: int = 3
    factor: float = 0.1

    def __post_init__(self) -> None:
        keep_real(self, "factor", 0, 1, open_lower=True)
        keep_integer(self, "stages", 1)

    def __call__(self, step: int, total_steps: int) -> float:
        """Return the factor; raises InputError unless 0 ≤ step ≤ total_steps."""
        _check(step, total_steps)
        # t = T, one step after the last, still belongs to the last stage.
        return float(self.factor ** min(self.stages * step // total_steps, self.stages - 1))


@dataclass(frozen=True)
class Exponential:
    """A fixed ratio from step to step, ``final`` at the end: factor = final^(t / T).

    Args:
        final: factor at t = T, in (0, 1].
    """

    final: float = 0.01

    def __post_init__(self) -> None:
        keep_real(self, "final", 0, 1, open_lower=True)

    def __call__(self, step: int, total_steps: int) -> float:
        """Return the factor; raises InputError unless 0 ≤ step ≤ total_steps."""
        _check(step, total_steps)
        return float(self.final ** (step / total_steps))


_SCHEDULES: Final[dict[str, type[Schedule]]] = {
    "constant": Constant,
    "cosine": Cosine,
    "step": StepDecay,
    "exponential": Exponential,
}


def _check(step: int, total_steps: int) -> None:
    integer("schedule", "total_steps", total_steps, 1)
    if integer("schedule", "step", step, 0) > total_steps:
        raise InputError(f"schedule: step must not exceed total_steps, got {step} of {total_steps}.")
