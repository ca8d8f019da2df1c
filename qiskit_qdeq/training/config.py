"""What a training run does, in one frozen object of plain values that a checkpoint can hold and compare."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

from qiskit_qdeq._numbers import keep_integer, keep_real
from qiskit_qdeq.equilibrium.solvers import Newton, Solver
from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.gradient.implicit import Backward
from qiskit_qdeq.gradient.regularization import Regularization
from qiskit_qdeq.losses import LOSSES
from qiskit_qdeq.training.optimizers import optimizer
from qiskit_qdeq.training.schedules import schedule

MODES = ("implicit", "direct")
STARTS = ("zeros", "warm", "random", "direct")


@dataclass(frozen=True)
class TrainingConfig:
    """A training run.

    Args:
        mode: "implicit" solves for the equilibrium, "direct" applies the circuit `layers` times.
        layers: L of direct mode, of warm-up, and of start "direct".
        warmup_steps: first steps trained in direct mode (IMPLICIT with WARM-UP).
        solver: forward solver of implicit mode.
        backward: how the adjoint equation is solved.
        start: first iterate: "zeros" (the paper), "warm" (the sample's last equilibrium), "random" (uniform in [-1, 1],
            another in every epoch), "direct" (`layers` layers).
        regularization: Jacobian penalty at the equilibrium, implicit mode.
        epochs, batch_size: passes over the data, samples per step.
        optimizer: "adam" or "sgd".
        learning_rate: base rate; `schedule` multiplies it.
        schedule: "constant", "cosine", "step" or "exponential".
        weight_decay: decoupled decay of the readout matrix W.
        clip_norm: largest norm of the gradient of all parameters; 0 for no clipping.
        dropout: rate on the readout features.
        patience: epochs without a better validation loss after which training stops; 0 for never.
        seed: of parameters, order of samples and dropout.
        loss: "cross_entropy" of labels, or "squared_error" of one target per output; see `losses`.

    Raises:
        InputError: naming the field, its value and what is allowed.
    """

    mode: str = "implicit"
    layers: int = 1
    warmup_steps: int = 0
    solver: Solver = field(default_factory=Newton)
    backward: Backward = field(default_factory=Backward)
    start: str = "zeros"
    regularization: Regularization = field(default_factory=Regularization)
    epochs: int = 100
    batch_size: int = 64
    optimizer: str = "adam"
    learning_rate: float = 0.1
    schedule: str = "cosine"
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    dropout: float = 0.0
    patience: int = 0
    seed: int = 0
    loss: str = "cross_entropy"

    def __post_init__(self) -> None:
        _among("mode", self.mode, MODES)
        _among("start", self.start, STARTS)
        _among("loss", self.loss, LOSSES)
        for name, least in (
            ("layers", 1),
            ("warmup_steps", 0),
            ("epochs", 1),
            ("batch_size", 1),
            ("patience", 0),
            ("seed", 0),
        ):
            keep_integer(self, name, least)
        keep_real(self, "learning_rate", 0, math.inf, open_lower=True)
        keep_real(self, "weight_decay", 0, math.inf)
        keep_real(self, "clip_norm", 0, math.inf)
        keep_real(self, "dropout", 0, 1, open_upper=True)
        for name, kind in (("solver", Solver), ("backward", Backward), ("regularization", Regularization)):
            if not isinstance(getattr(self, name), kind):
                raise InputError(
                    f"{name} must be a {kind.__name__} object, got {getattr(self, name)!r}; "
                    f"solver(name, ...) makes one from a name"
                )
        if self.backward.mode == "shine" and self.solver.name != "broyden":
            raise InputError(f"backward mode 'shine' reuses the inverse of solver 'broyden', got {self.solver.name!r}")
        optimizer(self.optimizer)
        schedule(self.schedule)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, nested; the solver with its name."""
        values = dataclasses.asdict(self)
        values["solver"] = {"name": self.solver.name, **values["solver"]}
        if self.loss == "cross_entropy":
            # checkpoints from before there was a choice do not name it
            del values["loss"]
        return values


def _among(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise InputError(f"{name} must be one of {list(allowed)}, got {value!r}")
