"""The circuits the paper compares with (arXiv:2410.23940): one layer, no equilibrium, other inputs or no head.

wang   logits = <Z_w>, the paper's circuit on the paper's pooled pixels, nothing classical trained: Wang et al. 2022
pca    logits = W relu(<Z>) + b on principal components of all pixels in place of pooled ones
vae    the same on the latent mean of a variational autoencoder (extra `torch`)
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from qiskit_qdeq.data import DataSplit, load_split, pca_features, vae_features
from qiskit_qdeq.data.compression import SCALINGS
from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.inference import evaluate
from qiskit_qdeq.model import QDEQModel
from qiskit_qdeq.programs.arguments import TrainArguments, from_mapping
from qiskit_qdeq.programs.recipes import model_of, training_of
from qiskit_qdeq.training.trainer import Trainer

BASELINES = ("wang", "pca", "vae")


@dataclass(frozen=True)
class BaselineArguments:
    """A baseline, its data and its training, in plain values; None is the value of the paper's recipe."""

    name: str = field(default="wang", metadata={"choices": BASELINES})
    data: str = "digits"
    data_dir: str | None = None
    num_qubits: int = 4
    classes: tuple[int, ...] | None = None
    encoding: str = field(default="amplitude", metadata={"choices": ("amplitude", "angle")})
    seed: int = 0
    epochs: int | None = None
    limit: int | None = None
    learning_rate: float | None = None
    scaling: str | None = field(default=None, metadata={"choices": SCALINGS})

    def __post_init__(self) -> None:
        if self.scaling is not None and self.name == "wang":
            raise InputError(
                f"scaling {self.scaling!r} is for what 'pca' and 'vae' learn, 'wang' has pooled pixels: leave it out"
            )


def run_baseline(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """One baseline as a task for any process: plain values in, plain values out.

    The recipe is the paper preset's: Adam at 0.005, batch 256, gradient norm clipped at 0.25, 100 epochs, parameters of the
    best validation loss; dropout 0.05 on the head's inputs where there is a head.

    Args:
        arguments: fields of `BaselineArguments`: name ("wang", "pca", "vae"), data, data_dir, num_qubits, classes (see
            `load_split`), encoding, seed (of parameters, sample order, dropout and autoencoder), epochs, limit (samples kept
            at most in each part), learning_rate, scaling (of what "pca" and "vae" learned: "standard", the default, or
            "range", see `pca_features`).

    Returns:
        test_accuracy, valid_accuracy, train_accuracy, train_seconds (of the circuit, features apart), num_parameters
        (trained with the circuit, features apart), num_weights (of these in the circuit), depth, two_qubit_gates.

    Raises:
        InputError: for arguments or data that cannot be used; "wang" needs as many classes as qubits.
        MissingExtraError: for "vae" without PyTorch.
    """
    options = from_mapping(BaselineArguments, arguments)
    recipe, split = _recipe(options), baseline_split(options)
    model = model_of(recipe, split).build()
    trainer = Trainer(model, training_of(recipe, split), split.x_train, split.y_train, split.x_valid, split.y_valid)
    started = time.perf_counter()
    result = trainer.run()
    seconds = time.perf_counter() - started
    return {
        **{f"{part}_accuracy": _accuracy(model, result.parameters, split, part) for part in ("test", "valid", "train")},
        "train_seconds": seconds,
        "num_parameters": model.num_parameters,
        "num_weights": model.num_weights,
        "depth": model.template.depth,
        "two_qubit_gates": model.template.two_qubit_gates,
    }


def baseline_split(options: BaselineArguments) -> DataSplit:
    """The n² features a baseline's circuit encodes: pooled pixels, or what was learned from all of them."""
    split = load_split(
        options.data,
        data_dir=options.data_dir,
        num_qubits=options.num_qubits,
        classes=options.classes,
        limit=options.limit,
        pooled=options.name == "wang",
    )
    scaling = options.scaling or "standard"
    if options.name == "pca":
        return pca_features(split, options.num_qubits**2, scaling=scaling)
    if options.name == "vae":
        return vae_features(split, options.num_qubits**2, seed=options.seed, scaling=scaling)
    return split


def _recipe(options: BaselineArguments) -> TrainArguments:
    return TrainArguments(
        preset="paper",
        mode="direct",
        regularization="none",
        head="none" if options.name == "wang" else "linear",
        data=options.data,
        encoding=options.encoding,
        num_qubits=options.num_qubits,
        seed=options.seed,
        epochs=options.epochs,
        learning_rate=options.learning_rate,
    )


def _accuracy(model: QDEQModel, parameters: Any, split: DataSplit, part: str) -> float:
    inputs = model.prepare(getattr(split, f"x_{part}"))
    accuracy = evaluate(model, parameters, inputs, getattr(split, f"y_{part}"), None).accuracy
    assert accuracy is not None
    return accuracy
