"""The points of the scaling study: one default model, and axes along which a single number of it changes.

4 features per qubit (D = 4 n), K = n fed back, three hardware-efficient layers, batch 64, readout zz, state_scale 1/2
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from qiskit import QuantumCircuit

from qiskit_qdeq.circuits import (
    AmplitudeEncoder,
    AngleEncoder,
    CircuitTemplate,
    hardware_efficient_ansatz,
    paper_ansatz,
    random_ansatz,
)
from qiskit_qdeq.circuits.observables import correlators
from qiskit_qdeq.equilibrium.solvers import Solver, solver
from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.model import QDEQModel
from qiskit_qdeq.training.config import TrainingConfig

Array = np.ndarray[Any, np.dtype[Any]]

ENCODINGS = ("amplitude", "angle")
MODES = ("equilibrium", "direct")
#: Where the axes cross.
DEFAULT_QUBITS = 10
CLASSES = 4
STATE_SCALE = 0.5
#: The most that a solver other than `probe` iterates where circuits are counted: an upper bound, as the paper's ten.
SOLVER_STEPS = 10


@dataclass(frozen=True)
class Point:
    """One configuration.

    Args:
        encoding: "amplitude" or "angle".
        mode: "equilibrium", or "direct" for the circuit applied once.
        num_qubits: n.
        num_features: D.
        num_states: K observables fed back: all Z, then products of two.
        layers: of the hardware-efficient ansatz.
        batch: samples of a step.
        readout: "z", "zz", "zzz" or "zzzz".
        ansatz: "hardware_efficient", "paper" or "random" (50 gates).
    """

    encoding: str
    mode: str
    num_qubits: int
    num_features: int
    num_states: int
    layers: int = 3
    batch: int = 64
    readout: str = "zz"
    ansatz: str = "hardware_efficient"

    @classmethod
    def of(cls, encoding: str, mode: str, num_qubits: int = DEFAULT_QUBITS, **changes: Any) -> Point:
        """The default at n qubits, D = 4 n and K = n, with single fields changed."""
        values = {"num_features": 4 * num_qubits, "num_states": num_qubits, **changes}
        return cls(encoding, mode, num_qubits, **values)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as tasks take them."""
        return dataclasses.asdict(self)

    def template(self) -> CircuitTemplate:
        """Encoder, ansatz and observables; no state vector is made.

        Raises:
            InputError: if the features do not fit, or the ansatz does not exist for this many qubits.
        """
        size, features = self.num_qubits, self.num_features
        if self.encoding == "amplitude":
            encoder: AmplitudeEncoder | AngleEncoder = AmplitudeEncoder(features, size)
        else:
            encoder = AngleEncoder.layered(features, size)
        states = correlators(size, 1 if self.num_states <= size else 2)[: self.num_states]
        return CircuitTemplate(encoder, self._ansatz(), state_observables=states, readout=self.readout)

    def build(self) -> QDEQModel:
        """The model.

        Raises:
            InputError: see `template`.
        """
        return QDEQModel(self.template(), CLASSES, state_scale=STATE_SCALE)

    def config(self, *, measured: bool = False) -> TrainingConfig:
        """A training run: Newton where it is computed; `probe`, or Broyden's method for angles, where it is measured."""
        mode = "direct" if self.mode == "direct" else "implicit"
        return TrainingConfig(mode=mode, solver=self.solver(measured), batch_size=self.batch)

    def solver(self, measured: bool) -> Solver:
        """See `config`."""
        if not measured:
            return solver("newton")
        return solver("probe") if self.encoding == "amplitude" else solver("broyden", max_steps=SOLVER_STEPS)

    def _ansatz(self) -> QuantumCircuit:
        if self.ansatz == "paper":
            return paper_ansatz(self.num_qubits)
        if self.ansatz == "random":
            return random_ansatz(self.num_qubits, seed=0)
        return hardware_efficient_ansatz(self.num_qubits, self.layers)


@dataclass(frozen=True)
class Axis:
    """What changes from point to point, and its name in tables."""

    name: str
    title: str
    values: tuple[Any, ...]

    def points(self, encodings: Sequence[str] = ENCODINGS, modes: Sequence[str] = MODES) -> Iterator[Point]:
        """All points of the axis."""
        for encoding in encodings:
            for mode in modes:
                for value in self.values:
                    yield Point.of(encoding, mode, **{self.name: value})


def axes(quick: bool) -> tuple[Axis, ...]:
    """The axes of the study; beyond the last values that work there is one that does not, so that the limit is shown."""
    if quick:
        return (
            Axis("num_qubits", "qubits", (4, 6, 8, 10)),
            Axis("layers", "ansatz layers", (1, 8)),
            Axis("batch", "batch", (8, 256)),
        )
    return (
        Axis("num_qubits", "qubits", (4, 6, 8, 10, 12, 14, 16, 18, 20)),
        Axis("layers", "ansatz layers", (1, 2, 8, 32)),
        Axis("batch", "batch", (1, 16, 256, 1024)),
        Axis("num_features", "features", (10, 20, 80, 160, 320, 1025)),
        Axis("num_states", "states fed back", (1, 5, 20, 40)),
        Axis("readout", "readout", ("z", "zzz", "zzzz")),
        Axis("ansatz", "ansatz", ("paper", "random")),
    )


def inputs(point: Point, count: int, seed: int = 0) -> tuple[Array, Array]:
    """Synthetic samples, standard normal, and labels: time and memory do not depend on what is learned."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, point.num_features)), rng.integers(CLASSES, size=count)


def point_of(arguments: Mapping[str, Any]) -> Point:
    """The point of a task's arguments.

    Raises:
        InputError: for an encoding or mode that there is not.
    """
    point = Point(**arguments)
    for name, allowed in (("encoding", ENCODINGS), ("mode", MODES)):
        if getattr(point, name) not in allowed:
            raise InputError(f"{name} must be one of {list(allowed)}, got {getattr(point, name)!r}")
    return point
