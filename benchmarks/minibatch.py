"""What the benchmarks of measured models share: a minibatch at fixed parameters, its exact equilibrium and gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from qiskit_qdeq import QDEQModel, Trainer, TrainingConfig, model_config, solve
from qiskit_qdeq.data.digits import load_digits_split
from qiskit_qdeq.equilibrium.solvers import Newton
from qiskit_qdeq.training.step import training_step

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Minibatch:
    """A model with parameters and prepared samples, and what exact computation says of them.

    Attributes:
        state: q* (B, K).
        gradient: dL/dθ (p,), of the circuit parameters alone.
    """

    model: QDEQModel
    parameters: Array
    inputs: Array
    labels: Array
    state: Array
    gradient: Array

    @property
    def weights(self) -> Array:
        return self.model.split(self.parameters)[0]


def minibatch(model: QDEQModel, parameters: Array, x: Array, labels: Array) -> Minibatch:
    inputs = model.prepare(x)
    newton = Newton(tol=1e-12)
    exact = training_step(
        model,
        parameters,
        inputs,
        labels,
        TrainingConfig(solver=newton),
        direct=False,
        initial=None,
        rng=np.random.default_rng,
    )
    state = solve(model.map(model.split(parameters)[0], inputs), newton, on_failure="accept").state
    return Minibatch(model, parameters, inputs, labels, state, exact.gradient[: model.num_weights])


def digits_minibatch(samples: int, *, epochs: int, seed: int) -> Minibatch:
    """Digits 0, 3, 6, 9 at 4 qubits, default preset, after `epochs` of exact training; 0: random parameters."""
    data = load_digits_split(classes=(0, 3, 6, 9), seed=seed)
    model = model_config("default", 16, 4, 4).build()
    if epochs:
        config = TrainingConfig(epochs=epochs, seed=seed, schedule="constant")
        trainer = Trainer(model, config, data.x_train, data.y_train)
        parameters = trainer.run().last_parameters
    else:
        parameters = model.initial_parameters(seed)
    return minibatch(model, parameters, data.x_train[:samples], data.y_train[:samples])


def random_minibatch(num_qubits: int, samples: int, seed: int) -> Minibatch:
    """n² normal features a sample, one class a qubit, random parameters, default preset."""
    rng = np.random.default_rng(seed)
    model = model_config("default", num_qubits**2, num_qubits, num_qubits).build()
    x = rng.standard_normal((samples, num_qubits**2))
    return minibatch(model, model.initial_parameters(seed), x, rng.integers(0, num_qubits, samples))


def distance(state: Array, truth: Array) -> float:
    """Root mean square over samples of ‖q - q*‖₂."""
    return float(np.sqrt(np.mean(np.sum((state - truth) ** 2, axis=-1))))
