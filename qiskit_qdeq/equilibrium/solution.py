"""What a solver returns: an equilibrium per sample, how good it is, and what it cost."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np

from qiskit_qdeq._html import cost_rows, facts, share, spread
from qiskit_qdeq.evaluation.protocol import Cost
from qiskit_qdeq.exceptions import ConvergenceError, ConvergenceWarning, InputError, warn_user

Array = np.ndarray[Any, np.dtype[Any]]

_SENTENCES = (
    "the residual is below the tolerance",
    "the residual is still above the tolerance after the last allowed step",
    "no shorter step along the Newton direction lowers the residual",
    "the iterate or its residual is not finite",
    "the measured residual cannot be told from shot noise",
    "a measured residual above the noise was taken out by a chord step, whose result was not measured again",
)


class Status(IntEnum):
    """Why a sample's solve ended; `str(status)` is a sentence."""

    CONVERGED = 0
    MAX_STEPS = 1
    STALLED = 2
    NOT_FINITE = 3
    NOISE_FLOOR = 4
    CORRECTED = 5

    def __str__(self) -> str:
        return f"{self.name.lower()}: {_SENTENCES[self.value]}"


@dataclass(frozen=True)
class Solution:
    """Equilibria of a batch of B samples with K states. `state` is read-only: copy it to change it.

    Attributes:
        state: best iterate found, q (B, K).
        residual: ‖m(q) - q‖₂ at `state` (B,).
        status: `Status` values (B,).
        steps: solver steps taken (B,).
        evaluations: evaluations of the map (B,).
        trace: residual after every step (B, S + 1), NaN after a sample stopped; (B, 0) if not kept.
        cost: circuits, shots and jobs of the whole solve.
        inverse: the quasi-Newton estimate of (J - 1)⁻¹ (B, K, K) where the solver keeps one (`shine` uses it).
    """

    state: Array
    residual: Array
    status: Array
    steps: Array
    evaluations: Array
    trace: Array
    cost: Cost = field(default_factory=Cost)
    inverse: Array | None = None

    def __post_init__(self) -> None:
        # evaluators keep what they computed at this very array
        self.state.flags.writeable = False

    @property
    def converged(self) -> Array:
        """Which samples reached the tolerance, or what can be told from shots (B,)."""
        result: Array = (self.status == Status.CONVERGED) | (self.status >= Status.NOISE_FLOOR)
        return result

    def check(self, on_failure: str) -> Solution:
        """Raise, warn about, or accept samples that did not converge; returns itself.

        Raises:
            ConvergenceError: with `on_failure="raise"` if a sample did not converge.
            InputError: for another word than "raise", "warn" or "accept".
        """
        if on_failure not in {"raise", "warn", "accept"}:
            raise InputError(f"on_failure must be 'raise', 'warn' or 'accept', got {on_failure!r}")
        if on_failure == "accept":
            return self
        failed = np.flatnonzero(~self.converged)
        if len(failed):
            worst = failed[np.argmax(np.nan_to_num(self.residual[failed], nan=np.inf))]
            remedy = "more shots" if self.cost.shots else "another solver ('newton', 'broyden')"
            message = (
                f"{len(failed)} of {len(self.status)} samples have no equilibrium to the tolerance, first sample "
                f"{failed[0]}; worst sample {worst}: residual {self.residual[worst]:.3g}, "
                f"{Status(int(self.status[worst]))}. Try {remedy}, more steps, or a smaller state_scale."
            )
            if on_failure == "raise":
                raise ConvergenceError(message)
            warn_user(message, ConvergenceWarning)
        return self

    def __repr__(self) -> str:
        if not len(self.status):
            return "Solution(0 samples)"
        return (
            f"Solution({share(self.converged)} samples converged, residual {spread(self.residual, '.1e')}, "
            f"steps {spread(self.steps, '.0f')})"
        )

    def _repr_html_(self) -> str:
        ends = {int(value): int(np.count_nonzero(self.status == value)) for value in np.unique(self.status)}
        rows: dict[str, object] = {
            "samples converged": share(self.converged),
            "states": self.state.shape[1],
            "residual ‖m(q) - q‖": spread(self.residual, ".1e"),
            "steps": spread(self.steps, ".0f"),
            "evaluations": f"{int(np.sum(self.evaluations)):,}",
            **cost_rows(self.cost),
        }
        return facts("Solution", rows, [f"{count:,} {Status(value)}" for value, count in ends.items()])
