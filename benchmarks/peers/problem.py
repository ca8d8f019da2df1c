"""The training step every peer computes, as plain NumPy data, and the worker loop in which a peer is timed.

The step is that of arXiv:2410.23940: q* = m(x + P q*; θ) from zero by good Broyden, one application of m with gradient,
L = CE(W relu(P q*) + b, labels), y = Jᵀ y + dL/dq*, then Adam on (θ, W, b) with the gradient's norm clipped. Whatever is
random comes from one fixed seed, so that all peers start from the same weights and see the same batch.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np

SETTINGS = ("amplitude-4", "angle-4", "amplitude-10", "angle-10")
MAX_STEPS = 10
TOLERANCE = 1e-3
LEARNING_RATE = 0.005
CLIP_NORM = 0.25

Step = Callable[[], tuple[float, float]]
"""One training step; returns the loss and the mean relative residual of the solved batch."""


@dataclass(frozen=True)
class Gate:
    """One gate of the ansatz; ``weight`` is the index of its angle, or None for a fixed gate."""

    name: str
    wires: tuple[int, ...]
    weight: int | None


@dataclass(frozen=True)
class Rotation:
    """One rotation of the angle encoder by the sum of the features in ``features``."""

    name: str
    wire: int
    features: tuple[int, ...]


@dataclass(frozen=True)
class Problem:
    """Circuit, data and initial parameters of one setting.

    ``rotations`` is empty for the amplitude encoder. ``inputs`` is (B, D) float32, ``labels`` (B,), ``weights`` (p,),
    ``head_weight`` (C, D), ``head_bias`` (C,). The forward and the backward solver take at most ``solver_steps`` steps.
    Wire 0 is the most significant bit.
    """

    encoding: str
    num_qubits: int
    gates: tuple[Gate, ...]
    rotations: tuple[Rotation, ...]
    inputs: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    head_weight: np.ndarray
    head_bias: np.ndarray
    solver_steps: int

    @property
    def num_features(self) -> int:
        """Real inputs of the encoder, D = n²."""
        return self.num_qubits**2

    @property
    def live_wires(self) -> tuple[int, ...]:
        """Wires that the encoder can move out of |0>; an RZ there is only a phase."""
        if self.encoding == "angle":
            return tuple(sorted({rotation.wire for rotation in self.rotations if rotation.name != "rz"}))
        used = int(np.ceil(np.log2(self.num_features)))
        return tuple(range(self.num_qubits - used, self.num_qubits))

    def upsampling(self) -> np.ndarray:
        """P, (D, n): every q_j repeated n times."""
        return np.repeat(np.eye(self.num_qubits, dtype=np.float32), self.num_qubits, axis=0)

    @property
    def turned_wires(self) -> tuple[int, ...]:
        """Wires whose only rotation is RX: RX(t)|0> = S† RY(t)|0>, so an S† lets ``encoder_layers`` write it as RY."""
        single = len(self.rotations) == self.num_qubits
        return tuple(rotation.wire for rotation in self.rotations if single and rotation.name == "rx")

    def encoder_layers(self) -> list[tuple[str, np.ndarray]]:
        """The angle encoder on the live wires, one rotation per wire and layer: name and F, (live, D), angles F u."""
        layers = []
        for k in range(0, len(self.rotations), self.num_qubits):
            live = [r for r in self.rotations[k : k + self.num_qubits] if r.wire in self.live_wires]
            angles = np.zeros((len(live), self.num_features), dtype=np.float32)
            for row, rotation in zip(angles, live, strict=True):
                row[list(rotation.features)] = 1
            layers.append(("ry" if self.turned_wires else live[0].name, angles))
        return layers

    def signs(self) -> np.ndarray:
        """Diagonals of Z_0 .. Z_{n-1}, (n, 2^n)."""
        n = self.num_qubits
        bits = np.arange(2**n) >> np.arange(n - 1, -1, -1)[:, None]
        return (1.0 - 2.0 * (bits & 1)).astype(np.float32)


def make_problem(setting: str, batch: int, solver_steps: int = MAX_STEPS, seed: int = 0) -> Problem:
    """Build the problem of one of ``SETTINGS`` with random data x ~ N(0, 1) and angles uniform in [-π, π]."""
    if setting not in SETTINGS:
        raise ValueError(f"setting={setting!r} is unknown; choose one of {', '.join(SETTINGS)}.")
    encoding, size = setting.split("-")
    n = int(size)
    classes = 4 if n == 4 else 10
    gates = read_gates(n)
    rng = np.random.default_rng(seed)
    bound = 1.0 / n
    return Problem(
        encoding=encoding,
        num_qubits=n,
        gates=gates,
        rotations=angle_rotations(n) if encoding == "angle" else (),
        inputs=rng.normal(size=(batch, n * n)).astype(np.float32),
        labels=rng.integers(classes, size=batch),
        weights=rng.uniform(-np.pi, np.pi, sum(g.weight is not None for g in gates)).astype(np.float32),
        head_weight=rng.uniform(-bound, bound, (classes, n * n)).astype(np.float32),
        head_bias=rng.uniform(-bound, bound, classes).astype(np.float32),
        solver_steps=solver_steps,
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


def angle_rotations(num_qubits: int) -> tuple[Rotation, ...]:
    """Lay out the paper's angle encoder, successive rotations of a wire about one axis as one rotation."""
    if num_qubits == 4:
        layers = enumerate(("ry", "rz", "rx", "ry"))
        return tuple(Rotation(name, wire, (4 * k + wire,)) for k, name in layers for wire in range(4))
    axes = ("ry", "rx", "rz")
    return tuple(Rotation(axes[w % 3], w, tuple(range(10 * w, 10 * w + 10))) for w in range(num_qubits))


def serve(make_step: Callable[[Problem, int], Step]) -> None:
    """Be a worker of ``run.py``: take the first step, then time as many steps as each line of standard input asks for.

    Standard output carries one line of JSON per answer: first the initial loss, its residual and the seconds that building
    the step and taking it for the first time took, then lists of milliseconds. Whatever the libraries print goes to
    standard error.
    """
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    parser = argparse.ArgumentParser()
    parser.add_argument("--setting", required=True, choices=SETTINGS)
    parser.add_argument("--batch", required=True, type=int)
    parser.add_argument("--threads", required=True, type=int)
    parser.add_argument("--solver-steps", required=True, type=int)
    options = parser.parse_args()
    problem = make_problem(options.setting, options.batch, options.solver_steps)
    begin = time.perf_counter()
    step = make_step(problem, options.threads)
    loss, residual = step()
    answer(answers, {"loss": loss, "residual": residual, "first_step_s": time.perf_counter() - begin})
    for line in sys.stdin:
        answer(answers, [milliseconds(step) for _ in range(int(line))])


def milliseconds(step: Step) -> float:
    """Time one step."""
    begin = time.perf_counter()
    step()
    return 1e3 * (time.perf_counter() - begin)


def answer(stream: TextIO, value: object) -> None:
    """Write one line of JSON."""
    stream.write(json.dumps(value) + "\n")
    stream.flush()
