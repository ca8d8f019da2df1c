"""Whether the budget still has room for a whole training step, so that none is begun that cannot be ended."""

from __future__ import annotations

from typing import Any

from qiskit_qdeq.equilibrium.probe import Probe
from qiskit_qdeq.model import QDEQModel
from qiskit_qdeq.training.config import TrainingConfig


def require_affordable(model: QDEQModel, config: TrainingConfig, samples: int, *, direct: bool) -> None:
    """Compare the cost of the next step with the budget, where it is known beforehand.

    Every job is compared on its own, too; only then may a step be left half done, its jobs kept for the resumed run.

    Raises:
        BudgetError: if it would exceed the budget.
    """
    reserve = getattr(model.evaluator, "reserve", None)
    if reserve is None or not (direct or isinstance(config.solver, Probe)):
        return
    # imported here: exact training does not load the primitives
    from qiskit_qdeq.training.cost import predicted_step

    evaluator: Any = model.evaluator
    upcoming = 0 if evaluator.upcoming is None else len(evaluator.upcoming)
    probed = evaluator.ahead is not None and getattr(config.solver, "ahead", False)
    reserve(lambda: predicted_step(model, config, samples, direct=direct, probed=probed, upcoming=upcoming))
