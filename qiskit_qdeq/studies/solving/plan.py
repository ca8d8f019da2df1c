"""The tasks of the solver study: which cells are computed where, in pieces of some seconds, and what is left out and why."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from qiskit_qdeq.gradient.implicit import BACKWARD_MODES
from qiskit_qdeq.presets import ENCODINGS
from qiskit_qdeq.studies.solving.cells import SOLVERS, TOLERANCES, Cell
from qiskit_qdeq.studies.solving.equilibria import maps_task
from qiskit_qdeq.studies.solving.exact_tasks import solve_task, train_task
from qiskit_qdeq.studies.solving.shot_tasks import ShotPlace, gradients_task, shot_train_task, shots_task
from qiskit_qdeq.studies.tasks import Task
from qiskit_qdeq.training.config import STARTS

#: The default preset feeds half of the state back, the paper's all of it.
SCALES = (0.5, 1.0)
WEIGHTS = ("trained", "random")
#: The package's default where circuits are measured and no closed form is known.
REFERENCE = "broyden"
#: Solvers trained from shots with the default start and backward mode.
_SHOT_TRAINED = ("newton", "anderson", "picard", "probe", "scipy:hybr")
_PIECE = 4

LEFT_OUT = (
    (
        "exact solves and trainings with `probe`",
        "where values are computed the package solves `probe` by Newton: states, steps and accuracies are Newton's, the "
        "circuits those that `probe` would take on a device",
    ),
    (
        "exact trainings with `scipy:*`, all but start zeros, tolerance 1e-6, backward `exact`",
        "SciPy solves one sample after the other, at 50 to 300 times the time of a step; all its solves and gradients at "
        "fixed weights are there",
    ),
    (
        "exact trainings with backward `gmres`, all but start zeros, tolerance 1e-6",
        "it is solved one sample after the other; all its gradients at fixed weights are there",
    ),
    (
        "shots: starts other than zeros with tolerances other than 1e-6, with solvers other than `broyden` and `probe`",
        "tolerances below the noise floor do not matter, which these two show",
    ),
    ("shots, `scipy:krylov`: all but start zeros, tolerance 1e-6", "it takes some hundred circuits a sample"),
    (
        "trainings from shots: state_scale 1, solvers `scipy:krylov` and `scipy:df-sane`, tolerances, and with solvers "
        "other than `broyden` starts and backward modes other than the default",
        "a training from shots takes a hundred times as long as an exact one",
    ),
)


@dataclass(frozen=True)
class Sizes:
    """How much is computed.

    Args:
        seeds: 0, 1, ...
        epochs: of exact trainings, and to the fixed trained weights.
        samples: training samples of the solves at fixed weights.
        random_starts: per sample, in the search for equilibria.
        tols: tolerances.
        shots: numbers of shots.
        shot_samples: test samples solved from shots.
        gradient_samples, repeats: of gradients from shots.
        shot_epochs, shot_train_samples: of trainings from shots.
        trained_shots: shots of these.
    """

    seeds: int = 3
    epochs: int = 8
    samples: int = 64
    random_starts: int = 100
    tols: tuple[float, ...] = TOLERANCES
    shots: tuple[int, ...] = (256, 1024, 4096)
    shot_samples: int = 40
    gradient_samples: int = 16
    repeats: int = 4
    shot_epochs: int = 3
    shot_train_samples: int = 160
    trained_shots: int = 1024


QUICK = Sizes(
    seeds=2,
    epochs=2,
    samples=16,
    random_starts=10,
    tols=(1e-2, 1e-6),
    shots=(256, 1024),
    shot_samples=12,
    gradient_samples=8,
    repeats=1,
    shot_epochs=1,
    shot_train_samples=32,
)


def perform(arguments: Mapping[str, Any], *, data_dir: str | None, device: ShotPlace) -> dict[str, Any]:
    """Do a task of any part."""
    part = arguments["part"]
    exact = {"maps": maps_task, "solves": solve_task, "trainings": train_task}
    if part in exact:
        return exact[part](arguments, data_dir)
    measured = {"shots": shots_task, "shot gradients": gradients_task, "shot trainings": shot_train_task}
    return measured[part](arguments, data_dir, device)


def exact_tasks(data: Mapping[str, Any], sizes: Sizes) -> list[Task]:
    """What needs no circuits. `data`: fields of `TrainArguments` that say which samples and how many qubits."""
    tasks = []
    for train in _models(data, sizes):
        common: dict[str, Any] = {"train": train, "epochs": sizes.epochs}
        tasks.append(_task({"part": "maps", **common, "starts": sizes.random_starts}))
        for weights, name in itertools.product(WEIGHTS, SOLVERS):
            cells = {"weights": weights, "solver": name, "samples": sizes.samples, "tols": list(sizes.tols)}
            tasks.append(_task({"part": "solves", **common, **cells}))
        for name, start in itertools.product(SOLVERS, STARTS):
            scipy, first = Cell(name).is_scipy, start == STARTS[0]
            modes = [mode for mode in BACKWARD_MODES if mode != "gmres"]
            if scipy and not first:
                continue
            choice = {"tols": list(sizes.tols), "modes": modes}
            if scipy:
                choice = {"tols": [Cell(name).tol], "modes": ["exact"]}
            tasks.append(_task({"part": "trainings", "train": train, "solver": name, "start": start, **choice}))
            if first and not scipy:
                choice = {"tols": [Cell(name).tol], "modes": ["gmres"]}
                tasks.append(_task({"part": "trainings", "train": train, "solver": name, "start": start, **choice}))
    return tasks


def shot_tasks(data: Mapping[str, Any], sizes: Sizes, device: ShotPlace) -> list[Task]:
    """What measures circuits; `device` is part of what the results depend on."""
    where = device.description
    tasks = []
    for train in _models(data, sizes):
        common: dict[str, Any] = {"train": train, "epochs": sizes.epochs, "device": where}
        for shots in sizes.shots:
            cells = {"samples": sizes.shot_samples, "shots": shots, "tols": list(sizes.tols)}
            tasks.append(_task({"part": "shots", **common, **cells}))
            for weights in WEIGHTS:
                few = {"samples": sizes.gradient_samples, "shots": shots, "repeats": sizes.repeats}
                tasks.append(_task({"part": "shot gradients", **common, "weights": weights, **few}))
        if train["state_scale"] != SCALES[0]:
            continue
        # the recipe of measured circuits: its batch size, its solver
        measured = {**train, "epochs": sizes.shot_epochs, "backend": "aer"}
        for name, choices in _shot_choices():
            chosen = {
                "solver": name,
                "choices": choices,
                "shots": sizes.trained_shots,
                "samples": sizes.shot_train_samples,
            }
            tasks.append(_task({"part": "shot trainings", "train": measured, "device": where, **chosen}))
    return tasks


def _models(data: Mapping[str, Any], sizes: Sizes) -> Iterator[dict[str, Any]]:
    for seed, encoding, scale in itertools.product(range(sizes.seeds), ENCODINGS, SCALES):
        yield {**data, "encoding": encoding, "state_scale": scale, "epochs": sizes.epochs, "seed": seed}


def _shot_choices() -> Iterator[tuple[str, list[list[str]]]]:
    """Solver, and start and backward mode of its trainings from shots, a few trainings at a time."""
    for name in _SHOT_TRAINED:
        yield name, [[STARTS[0], "exact"]]
    choices = [[STARTS[0], mode] for mode in BACKWARD_MODES] + [[start, "exact"] for start in STARTS[1:]]
    for first in range(0, len(choices), _PIECE):
        yield REFERENCE, choices[first : first + _PIECE]


def _task(arguments: dict[str, Any]) -> Task:
    train = arguments["train"]
    words = [arguments["part"], train["encoding"], f"{train['state_scale']:g}", f"seed {train['seed']}"]
    words += [str(arguments[name]) for name in ("weights", "solver", "start", "shots") if name in arguments]
    if arguments["part"] == "trainings" and arguments["modes"] == ["gmres"]:
        words.append("gmres")
    if "choices" in arguments:
        words.append("-".join(arguments["choices"][0]))
    return Task("/".join(words), arguments)
