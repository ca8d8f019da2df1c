"""The training step every peer has to compute, as plain NumPy data: q* = m(x + P q*), L = CE(W relu(P q*) + b, labels).

The circuits are those of the paper (arXiv:2410.23940); everything random comes from one fixed seed, so that all peers
start from the same weights and see the same batch.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

SETTINGS = ("amplitude-4", "angle-4", "amplitude-10", "angle-10")
MAX_STEPS = 10
TOLERANCE = 1e-3
LEARNING_RATE = 0.005
CLIP_NORM = 0.25


@dataclass(frozen=True)
class Gate:
    """One gate of the ansatz; ``weight`` is the index of its angle, or None for a fixed gate."""

    name: str
    wires: tuple[int, ...]
    weight: int | None


@dataclass(frozen=True)
class Problem:
    """Circuit, data and initial parameters of one setting.

    ``rotations`` lists the angle encoder's gates as (name, wire, features summed into the angle), in order; it is empty for
    the amplitude encoder. ``inputs`` is (B, D) float32, ``labels`` (B,), ``weights`` (p,), ``head_weight`` (C, D) and
    ``head_bias`` (C,). Wire 0 is the most significant bit.
    """

    encoding: str
    num_qubits: int
    gates: tuple[Gate, ...]
    rotations: tuple[tuple[str, int, tuple[int, ...]], ...]
    inputs: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    head_weight: np.ndarray
    head_bias: np.ndarray

    @property
    def num_features(self) -> int:
        """Real inputs of the encoder, D = n²."""
        return self.num_qubits**2

    @property
    def live_wires(self) -> tuple[int, ...]:
        """Wires that the encoder can move out of |0> (RZ on |0> is only a phase)."""
        if self.encoding == "angle":
            moved = {wire for name, wire, _ in self.rotations if name != "rz"}
            return tuple(sorted(moved))
        used = int(np.ceil(np.log2(self.num_features)))
        return tuple(range(self.num_qubits - used, self.num_qubits))

    def upsampling(self) -> np.ndarray:
        """P, (D, n): every q_j repeated n times."""
        return np.repeat(np.eye(self.num_qubits, dtype=np.float32), self.num_qubits, axis=0)


def make_problem(setting: str, batch: int, seed: int = 0) -> Problem:
    """Build the problem of one of ``SETTINGS`` with random data x ~ N(0, 1) and angles uniform in [-π, π]."""
    if setting not in SETTINGS:
        raise ValueError(f"setting={setting!r} is unknown; choose one of {', '.join(SETTINGS)}.")
    encoding, size = setting.split("-")
    n = int(size)
    classes = 4 if n == 4 else 10
    gates = read_gates(n)
    num_weights = sum(gate.weight is not None for gate in gates)
    rng = np.random.default_rng(seed)
    bound = 1.0 / n
    return Problem(
        encoding=encoding,
        num_qubits=n,
        gates=gates,
        rotations=angle_rotations(n) if encoding == "angle" else (),
        inputs=rng.normal(size=(batch, n * n)).astype(np.float32),
        labels=rng.integers(classes, size=batch),
        weights=rng.uniform(-np.pi, np.pi, num_weights).astype(np.float32),
        head_weight=rng.uniform(-bound, bound, (classes, n * n)).astype(np.float32),
        head_bias=rng.uniform(-bound, bound, classes).astype(np.float32),
    )


def read_gates(num_qubits: int) -> tuple[Gate, ...]:
    """Read the paper's ansatz from the gate list that the package ships."""
    path = Path(__file__).resolve().parents[2] / "qiskit_qdeq" / "circuits" / "paper_circuits.json"
    groups = json.loads(path.read_text(encoding="utf-8"))[str(num_qubits)]
    gates: list[Gate] = []
    count = 0
    for name, *wires in groups["random_layer"] + groups["extra_gates"] + groups["closing_gates"]:
        trained = name in ("rx", "ry", "rz", "crx")
        gates.append(Gate(name, tuple(wires), count if trained else None))
        count += trained
    return tuple(gates)


def angle_rotations(num_qubits: int) -> tuple[tuple[str, int, tuple[int, ...]], ...]:
    """Lay out the paper's angle encoder; successive rotations about one axis are written as one."""
    if num_qubits == 4:
        layers = ("ry", "rz", "rx", "ry")
        return tuple((name, wire, (4 * layer + wire,)) for layer, name in enumerate(layers) for wire in range(4))
    axes = ("ry", "rx", "rz")
    return tuple((axes[w % 3], w, tuple(range(10 * w, 10 * w + 10))) for w in range(num_qubits))
