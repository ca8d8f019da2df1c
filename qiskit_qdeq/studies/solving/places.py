"""Where solvers are compared: a model, its data, and its weights before, during and after an exact training."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from qiskit_qdeq.data import DataSplit
from qiskit_qdeq.equilibrium.solution import Solution
from qiskit_qdeq.equilibrium.solvers import Newton
from qiskit_qdeq.evaluation.protocol import EquilibriumMap
from qiskit_qdeq.exceptions import ConvergenceWarning
from qiskit_qdeq.gradient.implicit import Backward, implicit_term
from qiskit_qdeq.inference import evaluate
from qiskit_qdeq.losses import loss_and_slope
from qiskit_qdeq.model import QDEQModel
from qiskit_qdeq.programs.recipes import model_of
from qiskit_qdeq.studies.theory.contraction import Snapshots
from qiskit_qdeq.studies.training_tasks import described
from qiskit_qdeq.training.config import TrainingConfig
from qiskit_qdeq.training.trainer import Trainer

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Place:
    """A model with data and the package's own recipe for it."""

    model: QDEQModel
    split: DataSplit
    recipe: TrainingConfig

    @classmethod
    def of(cls, train: Mapping[str, Any], data_dir: str | None) -> Place:
        """From fields of `TrainArguments`."""
        options, split, recipe = described(train, data_dir)
        return cls(model_of(options, split).build(), split, recipe)

    def snapshots(self, epochs: tuple[int, ...]) -> dict[int, Array]:
        """Parameters after these epochs of the recipe, solved by Newton; 0 is the random start."""
        kept = Snapshots(epochs)
        config = dataclasses.replace(self.recipe, solver=Newton(), epochs=max(*epochs, 1))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            Trainer(self.model, config, self.split.x_train, self.split.y_train, callbacks=[kept]).run()
        return kept.parameters

    def accuracy(self, parameters: Array) -> float:
        """Of the test samples at tight equilibria, whatever was trained with."""
        inputs = self.model.prepare(self.split.x_test)
        accuracy = evaluate(self.model, parameters, inputs, self.split.y_test, Newton(tol=1e-9)).accuracy
        assert accuracy is not None
        return accuracy


def weight_gradient(
    model: QDEQModel,
    parameters: Array,
    problem: EquilibriumMap,
    labels: Array,
    found: Solution,
    backward: Backward,
    point: Any = None,
) -> Array:
    """dL/dθ (p,) of the mean cross-entropy at given solutions: the second half of a training step.

    Args:
        point: the map at the solutions, where modes are to share what was measured there.
    """
    point = problem.at(found.state) if point is None else point
    _, matrix, bias = model.split(parameters)
    activated = model.readout.activate(point.features)
    _, slope, _ = loss_and_slope("cross_entropy", activated @ matrix.T + bias, labels)
    cotangent = model.readout.pull_back(slope @ matrix, activated)
    return problem.pull_back([implicit_term(point, cotangent, backward, found)])


def compared(gradient: Array, exact: Array) -> tuple[float, float]:
    """Cosine with the exact gradient, and relative error ‖g - g*‖ / ‖g*‖."""
    length = float(np.linalg.norm(exact))
    product = float(np.linalg.norm(gradient)) * length
    cosine = float(gradient @ exact) / product if product else 0.0
    return cosine, float(np.linalg.norm(gradient - exact)) / length
