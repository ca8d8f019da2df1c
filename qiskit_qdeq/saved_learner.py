"""A fitted classifier or regressor in one file: arrays in safetensors, all else as JSON; no pickle, nothing is executed."""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from sklearn.utils.validation import check_is_fitted

from qiskit_qdeq.circuits import CircuitTemplate
from qiskit_qdeq.equilibrium.solvers import Solver, solver
from qiskit_qdeq.evaluation.sampling import Sampling
from qiskit_qdeq.exceptions import CheckpointError, InputError
from qiskit_qdeq.execution.account import Budget
from qiskit_qdeq.execution.description import Execution
from qiskit_qdeq.gradient.implicit import Backward
from qiskit_qdeq.learner_options import OF_MODEL, build_model, check_arguments
from qiskit_qdeq.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from qiskit_qdeq.training.identity import circuit_digest
from qiskit_qdeq.training.optimizers import optimizer
from qiskit_qdeq.training.state import history_arrays, history_from, versions

if TYPE_CHECKING:
    from qiskit_qdeq.learner import Learner

L = TypeVar("L", bound="Learner")
Array = np.ndarray[Any, np.dtype[Any]]


def save_learner(learner: Learner, path: str | os.PathLike[str]) -> None:
    """Write a fitted estimator; see `Learner.save`."""
    check_is_fitted(learner, "parameters_")
    target_arrays, targets = learner._targets_to_file()
    optimizer_arrays = {f"optimizer/{name}": array for name, array in learner._optimizer_state.arrays().items()}
    arrays = {
        "parameters": learner.parameters_,
        **target_arrays,
        **optimizer_arrays,
        **history_arrays(learner.history_),
    }
    names = getattr(learner, "feature_names_in_", None)
    document = {
        "kind": learner.kind,
        "arguments": {name: _plain(name, value) for name, value in learner.get_params(deep=False).items()},
        "circuit": circuit_digest(learner.model_),
        "features": int(learner.n_features_in_),
        "feature_names": None if names is None else [str(name) for name in names],
        **targets,
        "epochs": int(learner.n_iter_),
        "versions": versions(),
    }
    save_checkpoint(path, arrays, document, keep_previous=False)


def load_learner(kind: type[L], path: str | os.PathLike[str], template: CircuitTemplate | None) -> L:
    """Read what `save_learner` wrote; see `Learner.load`."""
    found = load_checkpoint(path)
    stored = found.document.get("kind")
    if stored in ("classifier", "regressor") and stored != kind.kind:
        raise CheckpointError(f"'{path}' holds a {stored}: read it with QDEQ{stored.capitalize()}.load")
    if stored != kind.kind:
        raise CheckpointError(f"'{path}' holds no {kind.kind} (a run's folder is for `python -m qiskit_qdeq evaluate`)")
    try:
        return _restored(kind, found, template)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise CheckpointError(f"'{path}' cannot be made a {kind.kind}: {error}") from error


def _restored(kind: type[L], found: Checkpoint, template: CircuitTemplate | None) -> L:
    arrays, document = found.arrays, found.document
    arguments = {name: _object(name, value) for name, value in document["arguments"].items()}
    if (arguments["template"] is None) != (template is None):
        raise ValueError(
            "it was fitted on a template of its own, which is not stored: give the same one as template"
            if template is None
            else "it was fitted without a template: leave template out"
        )
    result = kind(**{**arguments, "template": template})
    result._targets_from_file(arrays, document)
    result.n_features_in_ = document["features"]
    if type(result.n_features_in_) is not int or result.n_features_in_ < 1:
        raise ValueError(f"{result.n_features_in_!r} features")
    names, epochs = document["feature_names"], document["epochs"]
    if type(epochs) is not int or not (names is None or _are_words(names, result.n_features_in_)):
        raise ValueError(f"epochs {epochs!r}, feature names {names!r}")
    if names is not None:
        result.feature_names_in_ = np.array(names, object)
    check_arguments(result)
    model = build_model(result, result.n_features_in_, result._num_outputs())
    if circuit_digest(model) != document["circuit"]:
        raise ValueError("its circuit is another one than it was fitted with (another template or version)")
    parameters = arrays["parameters"]
    if (
        parameters.shape != (model.num_parameters,)
        or parameters.dtype != model.dtype
        or not np.isfinite(parameters).all()
    ):
        raise ValueError(f"its parameters are no {model.num_parameters} finite numbers of type {model.dtype}")
    moments = {
        name.removeprefix("optimizer/"): array for name, array in arrays.items() if name.startswith("optimizer/")
    }
    state = optimizer(result.optimizer).from_arrays(moments)
    result.model_, result.parameters_, result._optimizer_state = model, parameters, state
    result.history_, result.n_iter_ = history_from(arrays), epochs
    result._built_with = {name: getattr(result, name) for name in OF_MODEL}
    return result


def _are_words(names: Any, count: int) -> bool:
    return isinstance(names, list) and len(names) == count and all(isinstance(name, str) for name in names)


def _plain(name: str, value: Any) -> Any:
    """A constructor argument in plain values; objects as dicts of their fields."""
    if name == "template":
        return None if value is None else "given"
    if name == "journal":
        # a file of this machine, which a file from anybody must not make another machine write
        return None
    if name == "random_state" and not isinstance(value, int | np.integer):
        # a generator's position is no seed to start from again
        return None
    if isinstance(value, Solver):
        options = dataclasses.asdict(value)
        return {"solver": f"scipy:{options.pop('method')}" if value.name == "scipy" else value.name, **options}
    if isinstance(value, Backward | Budget | Execution | Sampling):
        return dataclasses.asdict(value)
    if (name == "estimator" and value is not None) or (name == "backend" and not isinstance(value, str)):
        raise InputError(
            f"{name} is an object of this process, which cannot be stored: call set_params(backend='exact', estimator=None) "
            "before save, and give the object again after load"
        )
    return value.item() if isinstance(value, np.generic) else value


def _object(name: str, value: Any) -> Any:
    if name == "solver" and isinstance(value, dict):
        return solver(value["solver"], **{key: item for key, item in value.items() if key != "solver"})
    if name == "backward" and isinstance(value, dict):
        return Backward(**value)
    if name == "backend" and isinstance(value, dict):
        return Execution(**value)
    if name == "sampling" and isinstance(value, dict):
        return Sampling(**value)
    if name == "budget" and isinstance(value, dict):
        return Budget(**value)
    if name == "journal" and value is not None:
        raise ValueError("it names a journal, which no such file does")
    return value
