"""The warning of a run that ends with samples whose equilibrium was not found, and what to try."""

from __future__ import annotations

from qiskit_qdeq.exceptions import ConvergenceWarning, warn_user
from qiskit_qdeq.model import QDEQModel
from qiskit_qdeq.training.config import TrainingConfig

#: Share of samples above which a run warns.
_TOLERATED = 0.01


def warn_of_unsolved(model: QDEQModel, config: TrainingConfig, share: float) -> None:
    """Warn if the share of unsolved samples in an epoch is worth it.

    Warns:
        ConvergenceWarning: if it is more than 1 %.
    """
    if share <= _TOLERATED:
        return
    remedy = "" if config.solver.name == "newton" else "solver 'newton', "
    last = " or Jacobian regularization"
    if not model.evaluator.is_exact:
        remedy, last = "more shots, ", ""
    warn_user(
        f"{share:.1%} of the samples of the last epoch had no equilibrium to the tolerance of solver "
        f"{config.solver.name!r}: try {remedy}more max_steps, a larger tol, a smaller state_scale "
        f"(now {model.state_scale:g}){last}",
        ConvergenceWarning,
    )
