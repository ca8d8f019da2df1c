"""What a run may spend and has spent: circuits, shots and QPU seconds, compared before every job."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, fields

from qiskit_qdeq.evaluation.protocol import Cost
from qiskit_qdeq.exceptions import BudgetError, InputError

_AMOUNT = re.compile(r"\s*([0-9][0-9_.]*(?:[eE][+]?[0-9]+)?)\s*(circuits?|shots?|s|min|h)\s*")
_SECONDS = {"s": 1, "min": 60, "h": 3600}
_UNITS = {"circuits": "circuits", "shots": "shots", "qpu_seconds": "QPU seconds"}


@dataclass(frozen=True)
class Budget:
    """The most a run may cost, all its processes together; None is no limit.

    Attributes:
        circuits: executed, as `Cost` counts them.
        shots: of all circuits.
        qpu_seconds: those the service has charged, and by IBM's formula those of jobs it has not settled yet.

    >>> Budget.parse("600s, 20000 circuits")
    Budget(circuits=20000, shots=None, qpu_seconds=600.0)
    """

    circuits: int | None = None
    shots: int | None = None
    qpu_seconds: float | None = None

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if value is not None and not (number and 0 <= value < math.inf):
                raise InputError(f"{item.name} of a budget must be a number of at least 0, got {value!r}")

    @classmethod
    def parse(cls, text: str) -> Budget:
        """A budget from amounts with units: s, min or h of QPU time, shots, circuits.

        Raises:
            InputError: for an amount that cannot be read, or a unit given twice.
        """
        found: dict[str, int | float] = {}
        for part in text.split(","):
            match = _AMOUNT.fullmatch(part)
            try:
                amount = float(match[1].replace("_", "")) if match else math.nan
            except ValueError:
                amount = math.nan
            if match is None or not math.isfinite(amount):
                raise InputError(
                    f"budget must be amounts such as '600s', '10min', '1e6 shots' or '20000 circuits', with commas between "
                    f"them, got {text!r}"
                )
            unit = match[2]
            if unit not in _SECONDS and not amount.is_integer():
                raise InputError(f"budget must name whole circuits and shots, got {text!r}")
            name = "qpu_seconds" if unit in _SECONDS else f"{unit.rstrip('s')}s"
            if name in found:
                raise InputError(f"budget names {_UNITS[name]} twice: {text!r}")
            found[name] = amount * _SECONDS[unit] if unit in _SECONDS else int(amount)
        return cls(**found)  # type: ignore[arg-type]

    def __bool__(self) -> bool:
        return any(getattr(self, item.name) is not None for item in fields(self))


class Account:
    """What has been spent of a budget.

    Attributes:
        budget: the limits.
        spent: so far, earlier processes of the same run included.
    """

    def __init__(self, budget: Budget | None = None, spent: Cost | None = None) -> None:
        self.budget, self.spent = budget or Budget(), spent or Cost()

    def check(self, cost: Cost, what: str = "the next job") -> None:
        """Refuse what would exceed the budget.

        Raises:
            BudgetError: naming the limit, what is spent and what is wanted.
        """
        for item in fields(self.budget):
            limit = getattr(self.budget, item.name)
            spent, wanted = getattr(self.spent, item.name), getattr(cost, item.name)
            if limit is not None and spent + wanted > limit * (1 + 1e-12):
                unit = _UNITS[item.name]
                raise BudgetError(
                    f"the budget of {_shown(limit)} {unit} is reached: {_shown(spent)} are spent and {what} takes "
                    f"{_shown(wanted)} more; nothing of it was run"
                )

    def book(self, cost: Cost) -> None:
        """Count something as spent."""
        self.spent += cost

    @property
    def left(self) -> dict[str, int | float]:
        """What remains of every limit that there is."""
        limits = {item.name: getattr(self.budget, item.name) for item in fields(self.budget)}
        return {name: max(0, limit - getattr(self.spent, name)) for name, limit in limits.items() if limit is not None}


def _shown(amount: float) -> str:
    return f"{amount:,.0f}" if float(amount).is_integer() else f"{amount:,.1f}"
