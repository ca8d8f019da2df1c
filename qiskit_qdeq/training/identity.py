"""What makes two runs the same: configuration, model and data; a checkpoint continues only its own run."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from qiskit_qdeq.exceptions import CheckpointError
from qiskit_qdeq.model import QDEQModel
from qiskit_qdeq.training.checkpoint import Checkpoint, require
from qiskit_qdeq.training.config import TrainingConfig

Array = np.ndarray[Any, np.dtype[Any]]


def run_identity(
    config: TrainingConfig, model: QDEQModel, train: tuple[Array, Array], valid: tuple[Array, Array] | None
) -> dict[str, Any]:
    """Plain values that differ whenever configuration, model or data do."""
    return {
        "execution": model.evaluator.description,
        "training": config.as_dict(),
        "model": {
            "circuit": circuit_digest(model),
            "description": repr(model),
            "num_parameters": model.num_parameters,
            "activation": model.readout.activation,
            "dtype": model.dtype,
        },
        "data": {
            "samples": len(train[0]),
            "train": data_digest(*train),
            "valid": "" if valid is None else data_digest(*valid),
        },
    }


def require_same_run(checkpoint: Checkpoint, wanted: dict[str, Any]) -> None:
    """Make sure that a checkpoint is of the run of this identity, or of its beginning.

    At a constant rate the first epochs of a longer run are the shorter run, bit for bit: more epochs than stored are
    then accepted.

    Raises:
        CheckpointError: listing every difference.
    """
    training = wanted["training"]
    stored = checkpoint.document.get("training")
    epochs = stored.get("epochs") if isinstance(stored, dict) else None
    more = type(epochs) is int and epochs < training["epochs"]
    if more and training["schedule"] == "constant":
        wanted = {**wanted, "training": {**training, "epochs": epochs}}
    try:
        require(checkpoint, wanted)
    except CheckpointError as error:
        if not more or training["schedule"] == "constant":
            raise
        raise CheckpointError(
            f"{error}\n  (more epochs continue a run with schedule 'constant' only; {training['schedule']!r} is "
            "stretched over all epochs, so that a longer run differs from its first step)"
        ) from None


def circuit_digest(model: QDEQModel) -> str:
    """Digest of everything about a model that is not a parameter: gates, observables, injection, bias."""
    template = model.template
    digest = hashlib.sha256()
    for item in template.circuit.data:
        qubits = [template.circuit.find_bit(q).index for q in item.qubits]
        digest.update(f"{item.operation.name}{qubits}{[str(p) for p in item.operation.params]};".encode())
    for observable in (*template.state_observables, *template.readout_observables):
        digest.update(str(observable.to_list()).encode())
    digest.update(np.ascontiguousarray(model.injection).tobytes())
    digest.update(f"{model.bias!r}{model.readout!r}".encode())
    if model.readout.head != "linear":
        digest.update(model.readout.head.encode())
    return digest.hexdigest()


def data_digest(inputs: Array, targets: Array) -> str:
    """Digest of samples and labels, or targets, in their order."""
    digest = hashlib.sha256(np.ascontiguousarray(inputs).tobytes())
    kind = np.float64 if targets.dtype.kind == "f" else np.int64
    digest.update(np.ascontiguousarray(targets, dtype=kind).tobytes())
    return digest.hexdigest()
