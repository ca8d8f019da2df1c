"""What the benchmarks share: a training step to time, interleaved timing, and the --json option."""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

SETTINGS = {
    "amplitude-4": ("amplitude", 4),
    "angle-4": ("angle", 4),
    "amplitude-10": ("amplitude", 10),
    "angle-10": ("angle", 10),
}


def command_line(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", metavar="FILE", help="write the figures to this file")
    return parser


def publish(figures: Mapping[str, Any], file: str | None) -> None:
    """Write the figures, with the machine they were taken on."""
    if file:
        document = {
            "figures": figures,
            "machine": {
                "processor": platform.processor() or platform.machine(),
                "cpus": os.cpu_count(),
                "python": platform.python_version(),
                "numpy": np.__version__,
                "load_average": os.getloadavg() if hasattr(os, "getloadavg") else None,
            },
        }
        Path(file).write_text(json.dumps(document, indent=2) + "\n")


def interleaved(functions: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, dict[str, float]]:
    """Milliseconds per call, the functions called in turn so that a drifting machine is fair to all of them."""
    from qiskit_qdeq.evaluation.threads import compute_context

    # what the trainer does for a whole run
    with compute_context():
        return _interleaved(functions, rounds)


def _interleaved(functions: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, dict[str, float]]:
    times: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():
        function()
        function()
    for _ in range(rounds):
        for name, function in functions.items():
            started = time.perf_counter()
            function()
            times[name].append(1e3 * (time.perf_counter() - started))
    return {
        name: {"median": float(np.median(values)), "min": min(values), "max": max(values)}
        for name, values in times.items()
    }


class Step:
    """A whole training step on random data: gradient, clipping, Adam; the parameters move."""

    def __init__(
        self, setting: str, *, preset: str = "paper", layers: int = 0, dtype: str = "float64", **options: Any
    ) -> None:
        from qiskit_qdeq import TrainingConfig, model_config
        from qiskit_qdeq.training.optimizers import Adam

        encoding, qubits = SETTINGS[setting]
        classes = 4 if qubits == 4 else 10
        self.model = model_config(preset, qubits**2, classes, qubits, encoding=encoding, dtype=dtype).build()
        rng = np.random.default_rng(0)
        batch = options.pop("batch", 256)
        self.inputs = self.model.prepare(rng.standard_normal((batch, qubits**2)))
        self.labels = rng.integers(0, classes, batch)
        self.parameters = self.model.initial_parameters(1).astype(dtype)
        self.direct = layers > 0
        self.config = TrainingConfig(mode="direct" if layers else "implicit", layers=max(1, layers), **options)
        self.adam = Adam()
        self.state = self.adam.init(len(self.parameters), dtype)
        self.result: Any = None

    def __call__(self) -> None:
        from qiskit_qdeq.training.optimizers import clip_by_global_norm
        from qiskit_qdeq.training.step import training_step

        self.result = training_step(
            self.model,
            self.parameters,
            self.inputs,
            self.labels,
            self.config,
            direct=self.direct,
            initial=None,
            rng=np.random.default_rng,
        )
        gradient = self.result.gradient.astype(self.parameters.dtype, copy=False)
        clip_by_global_norm(gradient, 0.25)
        self.adam.step(self.state, self.parameters, gradient, 0.005)
