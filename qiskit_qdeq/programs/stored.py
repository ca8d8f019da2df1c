"""The model in a training run's checkpoint."""

from __future__ import annotations

from typing import Any

import numpy as np

from qiskit_qdeq.exceptions import CheckpointError
from qiskit_qdeq.model import QDEQModel
from qiskit_qdeq.presets import ModelConfig
from qiskit_qdeq.training.checkpoint import Checkpoint


def load_model(checkpoint: Checkpoint) -> tuple[QDEQModel, np.ndarray[Any, np.dtype[Any]]]:
    """The model a training run's checkpoint describes, and its best parameters.

    Raises:
        CheckpointError: if the checkpoint is not of a run of `train`.
    """
    try:
        config = ModelConfig(**checkpoint.document["notes"]["model"])
        parameters = checkpoint.arrays["best_parameters"]
        model = config.build()
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"Checkpoint '{checkpoint.path}' does not describe a model: {error}") from error
    if parameters.shape != (model.num_parameters,):
        raise CheckpointError(
            f"Checkpoint '{checkpoint.path}': {parameters.shape} parameters, its model has {model.num_parameters}"
        )
    return model, parameters
