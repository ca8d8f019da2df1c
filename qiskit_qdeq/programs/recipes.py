"""From arguments to model and training configuration: the recipes behind `--preset`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from qiskit_qdeq.circuits import AmplitudeEncoder
from qiskit_qdeq.data import DataSplit, load_split
from qiskit_qdeq.equilibrium.probe import Probe
from qiskit_qdeq.equilibrium.solvers import Solver, solver
from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.gradient.implicit import Backward
from qiskit_qdeq.gradient.regularization import Regularization
from qiskit_qdeq.model import QDEQModel
from qiskit_qdeq.presets import ModelConfig, model_config
from qiskit_qdeq.programs.arguments import TrainArguments
from qiskit_qdeq.training.config import TrainingConfig

# The authors' README and code: PAPER.md lists where each value comes from.
_PAPER: dict[str, Any] = {
    "solver": "broyden",
    "rtol": 1e-3,
    "tol": 0.0,
    "max_steps": 10,
    "backward": "broyden",
    "backward_tol": 1e-3,
    "regularization": "hutchinson",
    "regularization_strength": 0.8,
    "epochs": 100,
    "batch_size": 256,
    "optimizer": "adam",
    "learning_rate": 0.005,
    "schedule": "constant",
    "weight_decay": 0.0,
    "clip_norm": 0.25,
    "dropout": 0.05,
    "patience": 0,
}
_DEFAULT: dict[str, Any] = {
    "solver": "newton",
    "rtol": 0.0,
    "tol": 1e-6,
    "max_steps": 50,
    "backward": "exact",
    "backward_tol": 1e-8,
    "regularization": "none",
    "regularization_strength": 0.0,
    "epochs": 100,
    "batch_size": 64,
    "optimizer": "adam",
    "learning_rate": 0.1,
    "schedule": "cosine",
    "weight_decay": 0.0,
    "clip_norm": 1.0,
    "dropout": 0.0,
    "patience": 0,
}
# Without a closed form a Jacobian costs K sweeps of the batch, which is what makes Newton slow at many qubits.
_NEWTON_QUBITS = 6
# What shots allow: no tolerance below their noise, no second derivatives, and epochs that cost circuits.
_MEASURED: dict[str, Any] = {
    "rtol": 0.0,
    "backward": "exact",
    "backward_tol": 1e-8,
    "regularization": "none",
    "regularization_strength": 0.0,
    "epochs": 5,
    "batch_size": 16,
}
# The image sets have 50 to 100 times the samples of the digits.
_DEFAULT_IMAGES: dict[str, Any] = {**_DEFAULT, "batch_size": 256}
# Where a step takes milliseconds: 30 epochs of the image sets are about a minute.
_LARGE_QUBITS, _LARGE_EPOCHS = 7, 30


def model_of(arguments: TrainArguments, split: DataSplit) -> ModelConfig:
    """The model a run trains."""
    overrides = {
        "encoding": arguments.encoding,
        "ansatz": arguments.ansatz,
        "readout": arguments.readout,
        "activation": arguments.activation,
        "state_scale": arguments.state_scale,
        "head": arguments.head,
        "dtype": arguments.dtype,
    }
    given = {name: value for name, value in overrides.items() if value is not None}
    return model_config(arguments.preset, split.num_features, split.num_classes, arguments.num_qubits, **given)


def split_of(options: TrainArguments) -> DataSplit:
    """The samples a run is about."""
    return load_split(
        options.data,
        data_dir=options.data_dir,
        classes=options.classes,
        num_qubits=options.num_qubits,
        limit=options.limit,
        limit_train=options.limit_train,
        normalization=normalization_of(options),
    )


def normalization_of(arguments: TrainArguments) -> str:
    """How image pixels are normalized: as MNIST's, or in the default preset with the data set's own mean."""
    if arguments.normalization is not None:
        return arguments.normalization
    return "own" if arguments.preset == "default" and arguments.data not in ("digits", "mnist") else "mnist"


def training_of(arguments: TrainArguments, split: DataSplit) -> TrainingConfig:
    """How a run trains: the preset's recipe with what the arguments replace."""
    default = _DEFAULT if arguments.data == "digits" else _DEFAULT_IMAGES
    recipe = dict(_PAPER if arguments.preset == "paper" else default)
    if arguments.preset == "default" and arguments.num_qubits >= _LARGE_QUBITS:
        recipe["epochs"] = _LARGE_EPOCHS
    if arguments.encoding == "angle" and arguments.num_qubits > _NEWTON_QUBITS and arguments.preset == "default":
        recipe["solver"] = "broyden"
    if arguments.backend != "exact":
        recipe |= _MEASURED
        recipe["solver"] = measured_solver(arguments.encoding, arguments.state_scale)
    if arguments.head == "none":
        # dropout is part of the head
        recipe["dropout"] = 0.0
    for name in recipe:
        if getattr(arguments, name, None) is not None:
            recipe[name] = getattr(arguments, name)
    if arguments.tol is not None:
        # a tolerance asked for counts, not the preset's looser relative one beside it
        recipe["rtol"] = 0.0
    if recipe["regularization"] == "none" and arguments.regularization_strength is None:
        recipe["regularization_strength"] = 0.0
    if recipe["regularization"] != "none" and arguments.backend != "exact":
        raise InputError(
            f"regularization {recipe['regularization']!r} needs second derivatives, which are not measured: leave it out, "
            "or take backend 'exact'"
        )
    return TrainingConfig(
        mode=arguments.mode,
        layers=arguments.layers,
        warmup_steps=arguments.warmup,
        solver=_ahead(solver_of(recipe)) if arguments.probe_ahead else solver_of(recipe),
        backward=_backward_of(recipe),
        start=arguments.start,
        regularization=Regularization(recipe["regularization"], recipe["regularization_strength"]),
        seed=arguments.seed,
        **{
            name: recipe[name]
            for name in (
                "epochs",
                "batch_size",
                "optimizer",
                "learning_rate",
                "schedule",
                "weight_decay",
                "clip_norm",
                "dropout",
                "patience",
            )
        },
    )


def measured_solver(encoding: str, state_scale: float | None) -> str:
    """The solver that takes the fewest circuits."""
    return "probe" if encoding == "amplitude" and state_scale != 0 else "broyden"


def measured_solver_of(model: QDEQModel) -> str:
    """The same of a model."""
    return measured_solver(
        "amplitude" if isinstance(model.template.encoder, AmplitudeEncoder) else "other", model.state_scale
    )


def capped_solver_of(model: QDEQModel, max_steps: int) -> Solver:
    """That solver; where it iterates, with at most so many steps."""
    name = measured_solver_of(model)
    found: Solver = solver(name, **({} if name == "probe" else {"max_steps": max_steps}))
    return found


def _ahead(found: Solver) -> Solver:
    if not isinstance(found, Probe):
        raise InputError(
            f"--probe-ahead has no effect with solver {found.name!r}: add --solver probe and a backend that measures"
        )
    return replace(found, ahead=True)


def _backward_of(recipe: dict[str, Any]) -> Backward:
    # the authors take what ten steps give
    limits = {"max_steps": recipe["max_steps"], "on_failure": "accept"} if recipe["rtol"] else {}
    return Backward(recipe["backward"], tol=recipe["backward_tol"], **limits)


def refuse_ineffective(arguments: TrainArguments) -> None:
    """Refuse options that change nothing in the mode asked for.

    Raises:
        InputError: naming the option and what it needs.
    """
    if arguments.mode == "direct":
        names = ["solver", "tol", "max_steps", "backward", "regularization_strength"]
        given = [name for name in names if getattr(arguments, name) is not None]
        given += ["regularization"] if arguments.regularization not in (None, "none") else []
        given += ["start"] if arguments.start != "zeros" else []
        given += ["warmup"] if arguments.warmup else []
        if given:
            option = f"--{given[0].replace('_', '-')}"
            raise InputError(f"{option} has no effect with --mode direct, which solves no equilibrium: leave one out")
    elif arguments.layers != 1 and not arguments.warmup and arguments.start != "direct":
        raise InputError(
            f"--layers {arguments.layers} has no effect on the equilibrium: add --mode direct, --warmup or --start direct"
        )


def solver_of(recipe: dict[str, Any]) -> Solver:
    """The forward solver a recipe names."""
    found: Solver = solver(recipe["solver"], tol=recipe["tol"], rtol=recipe["rtol"], max_steps=recipe["max_steps"])
    return found
