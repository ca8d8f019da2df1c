"""Everything a run needs to go on as if it had never stopped, and its way into and out of a checkpoint.

Random numbers are drawn from generators keyed on (seed, purpose, counter), so the step counter *is* the random state and
the position of the sampler: a resumed run repeats nothing and skips nothing.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import qiskit_qdeq
from qiskit_qdeq.evaluation.protocol import Cost
from qiskit_qdeq.exceptions import CheckpointError, InputError
from qiskit_qdeq.training.checkpoint import Checkpoint
from qiskit_qdeq.training.optimizers import Optimizer, OptimizerState
from qiskit_qdeq.training.step import StepResult
from qiskit_qdeq.training.stopwatch import Stopwatch

Array = np.ndarray[Any, np.dtype[Any]]

#: Purposes of random streams; part of the key, so that no two streams coincide.
ORDER, NOISE, INITIAL, START = 0, 1, 2, 3
#: Costs that sums and history keep.
SPENT = ("circuits", "shots", "jobs", "qpu_seconds")
_HISTORY = "history/"
#: Before the names of arrays that belong to the evaluator.
MEASURED = "measured/"


def stream(seed: int, purpose: int, counter: int = 0) -> np.random.Generator:
    """The generator of one purpose at one epoch or step."""
    return np.random.default_rng([seed, purpose, counter])


@dataclass
class EpochSums:
    """Running sums over the steps of the current epoch."""

    samples: int = 0
    loss: float = 0.0
    penalty: float = 0.0
    correct: int = 0
    residual: float = 0.0
    max_residual: float = 0.0
    solver_steps: int = 0
    unconverged: int = 0
    gradient_norm: float = 0.0
    steps: int = 0
    circuits: int = 0
    shots: int = 0
    jobs: int = 0
    qpu_seconds: float = 0.0

    @property
    def cost(self) -> Cost:
        """What its steps have cost."""
        return Cost(**{name: getattr(self, name) for name in SPENT})

    def add(self, result: StepResult, samples: int, norm: float) -> None:
        """Book a step of `samples` samples with gradient norm `norm`."""
        self.samples += samples
        self.steps += 1
        self.loss += result.loss * samples
        self.penalty += result.penalty * samples
        self.correct += result.correct or 0
        self.gradient_norm += norm
        for name in SPENT:
            setattr(self, name, getattr(self, name) + getattr(result.cost, name))
        if result.solution is not None:
            finite = result.solution.residual[np.isfinite(result.solution.residual)]
            self.residual += float(finite.sum())
            self.max_residual = max(self.max_residual, float(finite.max(initial=0.0)))
            self.solver_steps += int(result.solution.steps.sum())
            self.unconverged += int(np.count_nonzero(~result.solution.converged))


@dataclass
class TrainingState:
    """The mutable state of a run.

    Attributes:
        parameters: θ, W, b, flat.
        optimizer: moments and step count.
        step: steps taken.
        sums: of the current epoch.
        best_parameters: parameters of the best validation loss so far.
        best_loss: that loss.
        best_epoch: its epoch.
        stale_epochs: epochs since.
        equilibria: last equilibrium of every training sample (N, K) for warm starts, else empty.
        history: one record per finished epoch.
        stopped: why the run ended before its last epoch, or "".
        clock: how long all of that has taken, validation included, whichever processes did it.
    """

    parameters: Array
    optimizer: OptimizerState
    best_parameters: Array
    equilibria: Array
    step: int = 0
    sums: EpochSums = field(default_factory=EpochSums)
    best_loss: float = float("inf")
    best_epoch: int = -1
    stale_epochs: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    stopped: str = ""
    clock: Stopwatch = field(default_factory=Stopwatch)

    def arrays(self) -> dict[str, Array]:
        """Arrays for a checkpoint."""
        moments = {f"optimizer/{name}": array for name, array in self.optimizer.arrays().items()}
        return {
            "parameters": self.parameters,
            "best_parameters": self.best_parameters,
            "equilibria": self.equilibria,
            **moments,
            **history_arrays(self.history),
        }

    @property
    def spent(self) -> Cost:
        """What all steps and finished epochs have cost, as far as the history tells."""
        records = [*self.history, vars(self.sums)]
        amounts = {name: sum(record.get(name, 0) for record in records) for name in SPENT}
        return Cost(**{name: amount if name == "qpu_seconds" else int(amount) for name, amount in amounts.items()})

    def document(self) -> dict[str, Any]:
        """Counters for a checkpoint."""
        return {
            "step": self.step,
            "sums": dict(vars(self.sums)),
            "best_loss": self.best_loss,
            "best_epoch": self.best_epoch,
            "stale_epochs": self.stale_epochs,
            "stopped": self.stopped,
        }


def restore(checkpoint: Checkpoint, optimizer: Optimizer, like: TrainingState) -> TrainingState:
    """The state in a checkpoint, which must have the shapes of a fresh state.

    Raises:
        CheckpointError: if something is missing or of another shape.
    """
    arrays, progress = checkpoint.arrays, checkpoint.document.get("progress")
    if not isinstance(progress, dict):
        raise CheckpointError(f"Checkpoint '{checkpoint.path}' holds no training progress to continue from")
    for name in ("parameters", "best_parameters", "equilibria"):
        want = getattr(like, name)
        if name not in arrays or arrays[name].shape != want.shape or arrays[name].dtype != want.dtype:
            raise CheckpointError(
                f"Checkpoint '{checkpoint.path}': array {name!r} must be {want.dtype} of shape {want.shape}"
            )
    try:
        moments = {
            name.removeprefix("optimizer/"): array for name, array in arrays.items() if name.startswith("optimizer/")
        }
        return TrainingState(
            arrays["parameters"],
            optimizer.from_arrays(moments),
            arrays["best_parameters"],
            arrays["equilibria"],
            **{**progress, "sums": EpochSums(**progress["sums"])},
            history=history_from(arrays),
            clock=Stopwatch(checkpoint.document.get("seconds", 0.0)),
        )
    except (ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"Checkpoint '{checkpoint.path}' is incomplete: {error}") from error


def measured_ahead(checkpoint: Checkpoint) -> dict[str, Array]:
    """The arrays of a checkpoint that belong to the evaluator."""
    arrays = checkpoint.arrays
    return {name.removeprefix(MEASURED): arrays[name] for name in arrays if name.startswith(MEASURED)}


def history_arrays(history: Sequence[Mapping[str, float]]) -> dict[str, Array]:
    """One array (epochs,) per figure of the history, named ``history/<figure>``.

    >>> history_from(history_arrays([{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25}]))
    [{'epoch': 1, 'loss': 0.5}, {'epoch': 2, 'loss': 0.25}]
    """
    names = history[0] if history else ()
    return {
        f"{_HISTORY}{name}": np.array([record[name] for record in history], np.int64 if name == "epoch" else np.float64)
        for name in names
    }


def history_from(arrays: Mapping[str, Array]) -> list[dict[str, float]]:
    """The history whose ``history_arrays`` are among these.

    Raises:
        InputError: if they are no columns of one table.
    """
    columns = {name.removeprefix(_HISTORY): array for name, array in arrays.items() if name.startswith(_HISTORY)}
    if any(column.ndim != 1 for column in columns.values()) or len({len(column) for column in columns.values()}) > 1:
        raise InputError(f"arrays {sorted(columns)} of the history differ in length")
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    return [dict(zip(columns, row, strict=True)) for row in rows]


def versions() -> dict[str, str]:
    """Versions that numbers may depend on."""
    import numba
    import qiskit
    import scipy

    return {
        "qiskit_qdeq": qiskit_qdeq.__version__,
        "python": platform.python_version(),
        "qiskit": qiskit.__version__,
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "numba": numba.__version__,
    }
