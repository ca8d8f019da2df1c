"""Arguments of the programs: one frozen dataclass per program, made from a command line or from a plain mapping."""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import numpy as np

from qiskit_qdeq.circuits.observables import READOUTS
from qiskit_qdeq.data.images import NORMALIZATIONS
from qiskit_qdeq.data.sources import NUM_LABELS
from qiskit_qdeq.evaluation.sampling import GRADIENT_METHODS
from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.readout import ACTIVATIONS
from qiskit_qdeq.training.config import STARTS

T = TypeVar("T")
#: What compiled code can count.
_LARGEST_INTEGER = 2**31 - 1


def option(default: Any, text: str, **details: Any) -> Any:
    """A dataclass field that is also a command-line option."""
    return field(default=default, metadata={"help": text, **details})


def parser(kind: type[Any], name: str, description: str) -> argparse.ArgumentParser:
    """The command line of a dataclass of options: field `learning_rate` is `--learning-rate`.

    Args:
        kind: the dataclass.
        name: module and command, such as "qiskit_qdeq train".
        description: shown below the usage.
    """
    result = argparse.ArgumentParser(prog=f"python -m {name}", description=description, formatter_class=_Help)
    for item in dataclasses.fields(kind):
        details = dict(item.metadata)
        text = details.pop("help").replace("%", "%%")
        details["choices"] = details.pop("accepts", details.get("choices"))
        if details.pop("positional", False):
            result.add_argument(item.name, help=text, **details)
        elif item.default is False:
            result.add_argument(f"--{item.name.replace('_', '-')}", action="store_true", help=text)
        else:
            result.add_argument(f"--{item.name.replace('_', '-')}", default=item.default, help=text, **details)
    return result


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults as one would type them; where there is none, the preset or the data set decides."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False or action.default == ():
            return action.help
        if isinstance(action.default, tuple):
            return f"{action.help} (default: {','.join(map(str, action.default))})"
        return super()._get_help_string(action)


def given(options: argparse.ArgumentParser, kind: type[Any], words: Sequence[str] | None) -> dict[str, Any]:
    """The options a command line gives, without defaults: what was typed can so be told from what was not."""
    absent = object()
    # argparse fills in only what the namespace lacks
    found = options.parse_args(words, argparse.Namespace(**{item.name: absent for item in dataclasses.fields(kind)}))
    return {name: value for name, value in vars(found).items() if value is not absent}


def from_mapping(kind: type[T], values: Mapping[str, Any]) -> T:
    """The dataclass from a mapping of its fields; fields left out have their defaults.

    Raises:
        InputError: for a key that is no field, or a value of another type or not among the field's choices.
    """
    if not isinstance(values, Mapping):
        raise InputError(f"arguments must be a mapping from names to values, got {values!r}")
    fields = {item.name: item for item in dataclasses.fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(map(str, set(values) - set(fields)))
    if unknown:
        raise InputError(f"unknown arguments {unknown}; there are {sorted(fields)}")
    hints = get_type_hints(kind)
    converted = {name: _typed(name, value, hints[name]) for name, value in values.items()}
    for name, value in converted.items():
        choices = fields[name].metadata.get("choices")
        if choices and value is not None and value not in choices:
            raise InputError(f"{name} must be one of {list(choices)}, got {value!r}")
    return kind(**converted)


def _typed(name: str, value: Any, hint: Any) -> Any:
    """The value as its field's type, where nothing is lost by that."""
    kinds = get_args(hint) if get_origin(hint) is UnionType else (hint,)
    if value is None and NoneType in kinds:
        return None
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    boolean = isinstance(value, bool | np.bool_)
    if bool in kinds and boolean:
        return bool(value)
    if int in kinds and isinstance(value, Integral) and not boolean:
        if abs(int(value)) > _LARGEST_INTEGER:
            raise InputError(f"{name} must be an integer of at most {_LARGEST_INTEGER}, got {value!r}")
        return int(value)
    if float in kinds and isinstance(value, Real) and not boolean:
        return float(value)
    if str in kinds and isinstance(value, str):
        if not value or "\0" in value:
            raise InputError(f"{name} must be a text without null characters and not empty, got {value!r}")
        return value
    if tuple[int, ...] in kinds and isinstance(value, Sequence | np.ndarray) and not isinstance(value, str | bytes):
        return tuple(_typed(f"{name}[{index}]", item, int) for index, item in enumerate(value))
    if tuple[str, ...] in kinds and isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return tuple(_typed(f"{name}[{index}]", item, str) for index, item in enumerate(value))
    wanted = {
        bool: "True or False",
        int: "an integer",
        float: "a number",
        str: "a str",
        NoneType: "None",
        tuple[int, ...]: "a list of integers",
        tuple[str, ...]: 'a list of texts, such as ["one", "two"]',
    }
    raise InputError(f"{name} must be {' or '.join(wanted[k] for k in kinds)}, got {value!r}")


def with_execution_mode(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """The same with `mode` job, batch or session as `execution_mode`, as the command line takes it.

    Raises:
        InputError: if both are given and differ.
    """
    mode = values.get("mode") if isinstance(values, Mapping) else None
    if not isinstance(mode, str) or mode not in EXECUTION_MODES:
        return values
    if values.get("execution_mode") not in (None, mode):
        raise InputError(f"mode {mode!r} and execution_mode {values['execution_mode']!r} differ: give one of them")
    return {**{name: value for name, value in values.items() if name != "mode"}, "execution_mode": mode}


def class_list(text: str) -> tuple[int, ...]:
    """ "0,3,6-9" -> (0, 3, 6, 7, 8, 9), "all" -> (0, ..., 9)."""
    if text == "all":
        return tuple(range(NUM_LABELS))
    result: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"\s*(\d{1,9})\s*(?:-\s*(\d{1,9})\s*)?", part, re.ASCII)
        if not found:
            raise argparse.ArgumentTypeError(f"classes must be like 0,3,6,9 or 0-9 or all, got {text!r}")
        first, last = int(found[1]), int(found[2] or found[1])
        if found[2] and not first <= last < NUM_LABELS:
            raise argparse.ArgumentTypeError(f"classes {part!r} must rise, within 0-{NUM_LABELS - 1}")
        result.extend(range(first, last + 1))
    return tuple(result)


def comma_separated(text: str) -> tuple[str, ...]:
    """ "wang,pca" -> ("wang", "pca")."""
    return tuple(text.split(","))


def whole_path(path: str | None) -> str | None:
    """A path that another working folder, such as a worker's, understands too."""
    return None if path is None else os.path.abspath(os.path.expanduser(path))


def copy_count(text: str) -> int | str:
    """ "auto" -> "auto", "8" -> 8."""
    if text == "auto":
        return text
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"copies must be a number or auto, got {text!r}") from None


EXECUTION_MODES = ("job", "batch", "session")


@dataclass(frozen=True)
class DataArguments:
    """Which samples."""

    data: str = option("digits", "data set", choices=("digits", "mnist", "fashion_mnist", "cifar10"))
    data_dir: str | None = option(None, "folder with the data set's files; without it images are downloaded")
    classes: tuple[int, ...] | None = option(
        None,
        "labels to keep, e.g. 0,3,6,9, 0-9 or all; default: those four at 4 qubits for digits and mnist, else all",
        type=class_list,
    )
    limit: int | None = option(None, "keep at most this many samples in each part", type=int)


class _Mode(argparse.Action):
    """`--mode` says two things: how the model computes, and how jobs reach a device."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        name = "execution_mode" if values in EXECUTION_MODES or option_string == "--execution-mode" else "mode"
        earlier = getattr(namespace, name, None)
        if name == "execution_mode" and earlier in EXECUTION_MODES and earlier != values:
            parser.error(f"--mode and --execution-mode name {earlier} and {values}: give one of them")
        setattr(namespace, name, values)


@dataclass(frozen=True)
class ExecutionArguments:
    """Where circuits run and how often; all but `backend` mean something only where circuits run at all."""

    backend: str = option(
        "exact",
        "exact (linear algebra), aer, statevector (Qiskit's reference, without --shots 100 times slower), fake:NAME or "
        "ibm:NAME (account saved or in the environment)",
    )
    shots: int | None = option(None, "executions per circuit; default: exact on simulators, 4096 on devices", type=int)
    precision: float | None = option(None, "standard error instead of --shots", type=float)
    noise: str | None = option(None, "of backends exact and aer: rates ONE_QUBIT,TWO_QUBIT,READOUT or fake:NAME")
    execution_mode: str | None = option(None, "jobs to a device: default job", choices=EXECUTION_MODES, action=_Mode)
    resilience_level: int | None = option(
        None, "error mitigation by the Runtime estimator; turns it on for fake:NAME; default for ibm:NAME: 1", type=int
    )
    runtime_options: str | None = option(None, "more options of the Runtime estimator, as JSON")
    optimization_level: int | None = option(None, "of the transpiler, 0 to 3", type=int)
    max_time: int | None = option(None, "seconds after which a batch or session ends", type=int)
    patience_seconds: float | None = option(
        None, "how long a service may be out of reach before the run stops, default 600", type=float
    )
    budget: str | None = option(
        None, "the most that may be spent, e.g. 600s (of QPU time, or min, h), '1e6 shots' or '20000 circuits'"
    )
    copies: int | str | None = option(
        None, "of the circuit, executed together on disjoint qubits: a number or auto; default 1", type=copy_count
    )


@dataclass(frozen=True)
class LogArguments:
    """What is said while the program runs, and where."""

    quiet: bool = option(False, "print nothing but errors")
    log_file: str | None = option(None, "append to this file what happens, with times; tokens never get into it")
    verbose: bool = option(False, "the same on standard error, with details; in the log file too")


#: Options that say nothing about a run itself.
ABOUT_WORDS = tuple(item.name for item in dataclasses.fields(LogArguments))


@dataclass(frozen=True)
class TrainArguments(LogArguments, DataArguments, ExecutionArguments):
    """Options of `train`; None is the preset's own value."""

    preset: str = option("default", "model and training recipe", choices=("default", "paper"))
    mode: str = option(
        "implicit",
        "implicit or direct: equilibrium or explicit layers; job, batch or session are taken as --execution-mode",
        choices=("implicit", "direct"),
        accepts=("implicit", "direct", *EXECUTION_MODES),
        action=_Mode,
    )
    layers: int = option(1, "layers of direct mode, of warm-up and of start 'direct'", type=int)
    warmup: int = option(0, "steps trained in direct mode first", type=int)
    solver: str | None = option(
        None,
        "newton, broyden, anderson, picard, probe (measures the whole map) or scipy:<method of scipy.optimize.root>",
    )
    tol: float | None = option(None, "residual at which a sample has converged", type=float)
    max_steps: int | None = option(None, "solver steps after which a sample is given up", type=int)
    backward: str | None = option(None, "exact, neumann, jfb, shine, broyden, anderson or gmres")
    start: str = option("zeros", "first iterate", choices=STARTS)
    encoding: str = option("amplitude", "encoder", choices=("amplitude", "angle"))
    num_qubits: int = option(4, "qubits", type=int)
    ansatz: str | None = option(None, "ansatz circuit", choices=("paper", "random", "hardware_efficient"))
    readout: str | None = option(None, "readout observables", choices=READOUTS)
    activation: str | None = option(None, "of the readout features before the linear layer", choices=ACTIVATIONS)
    normalization: str | None = option(
        None, "of image pixels: with the mean and deviation of mnist or of the data set's own", choices=NORMALIZATIONS
    )
    head: str = option(
        "linear",
        "between readout and softmax; none: the readout's values are the logits, one per class",
        choices=("linear", "none"),
    )
    state_scale: float | None = option(None, "factor of the state fed back", type=float)
    regularization: str | None = option(None, "Jacobian penalty", choices=("none", "state", "input", "hutchinson"))
    regularization_strength: float | None = option(None, "its strength", type=float)
    jacobian_shots: int | None = option(None, "for shifted encoder angles, default: --shots", type=int)
    gradient_shots: int | None = option(None, "for shifted weights, default: --shots", type=int)
    shots_growth: float | None = option(None, "shots of the last step over shots of the first, default 1", type=float)
    gradient_method: str | None = option(None, "weight gradient from shots", choices=GRADIENT_METHODS)
    gradient_circuits: int | None = option(None, "circuits per sample of random and spsa", type=int)
    probe_ahead: bool = option(
        False, "solver probe: measure the next minibatch's map with this one's gradient, one job a step"
    )
    economy: bool = option(False, "plan shots, copies and steps so that the seconds of --budget are spent well")
    limit_train: int | None = option(None, "keep at most this many training samples, instead of --limit", type=int)
    init_from: str | None = option(None, "start from the parameters of this run's folder or checkpoint file")
    epochs: int | None = option(
        None,
        "passes over the samples; --resume takes more at schedule constant",
        type=int,
    )
    batch_size: int | None = option(None, "samples per step", type=int)
    optimizer: str | None = option(None, "optimizer", choices=("adam", "sgd"))
    learning_rate: float | None = option(None, "base learning rate", type=float)
    schedule: str | None = option(None, "its course", choices=("constant", "cosine", "step", "exponential"))
    weight_decay: float | None = option(None, "decoupled decay of the readout matrix", type=float)
    clip_norm: float | None = option(None, "largest gradient norm, 0 for no clipping", type=float)
    dropout: float | None = option(None, "dropout rate on readout features", type=float)
    patience: int | None = option(None, "epochs without progress after which training stops, 0: never", type=int)
    dtype: str = option("float64", "precision of the exact evaluator", choices=("float64", "float32"))
    seed: int = option(0, "seed of parameters, sample order and dropout", type=int)
    output: str | None = option(None, "folder for results; default: a new one below qdeq-runs/")
    resume: bool = option(False, "continue the run in --output")
    overwrite: bool = option(False, "delete an earlier run in --output first")
    checkpoint_every: int = option(0, "steps between checkpoints, 0: at ends of epochs, one per second", type=int)
    no_plots: bool = option(False, "draw no figures")
    dry_run: bool = option(
        False, "say what the run, or what is left of it, would cost, and end: nothing is executed or written"
    )


@dataclass(frozen=True)
class EvaluateArguments(LogArguments, ExecutionArguments):
    """Options of `evaluate`; None is what the run was trained with."""

    mode: str | None = option(None, "the same as --execution-mode", choices=EXECUTION_MODES)
    seed: int = option(0, "of simulated shots", type=int)

    directory: str = option("", "folder of a run, or its checkpoint file", positional=True, metavar="DIR")
    data: str | None = option(None, "data set", choices=("digits", "mnist", "fashion_mnist", "cifar10"))
    data_dir: str | None = option(None, "folder with the data set's files; default: that of the run")
    split: str = option("test", "part of the data set", choices=("train", "valid", "test"))
    limit: int | None = option(None, "keep at most this many samples", type=int)
    solver: str | None = option(None, "another forward solver than in training")
    tol: float | None = option(None, "another tolerance", type=float)
    json: str | None = option(None, "write the metrics to this file")
    dry_run: bool = option(False, "say what it would cost, and end: nothing is executed or written")
