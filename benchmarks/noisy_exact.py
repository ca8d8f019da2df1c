"""Expectation values of a minibatch under noise: this package's exact noisy evaluator against Aer's EstimatorV2.

python benchmarks/noisy_exact.py --json noisy.json

The same transpiled circuits, noise models, weights and inputs; all observables of the default preset; no shots, no readout
error, which Aer's EstimatorV2 leaves out. A minibatch is evaluated from its weights and inputs on, nothing kept from before;
Aer gets one broadcast PUB and binds parameters at run time, its faster way. One thread each.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from common import command_line, interleaved, publish
from qiskit.primitives.containers.observables_array import ObservablesArray
from qiskit_aer.primitives import EstimatorV2

from qiskit_qdeq import QDEQModel, TrainingConfig, model_config
from qiskit_qdeq.execution.isa import to_isa
from qiskit_qdeq.execution.noise import parse_noise
from qiskit_qdeq.training.step import training_step


def main() -> None:
    parser = command_line(__doc__ or "")
    parser.add_argument(
        "--noise", nargs="+", default=["fake:torino", "fake:manila", "fake:sherbrooke", "0.001,0.01,0.02"]
    )
    parser.add_argument("--encodings", nargs="+", default=["amplitude", "angle"], choices=("amplitude", "angle"))
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    figures = {}
    for encoding in options.encodings:
        for noise in options.noise:
            row = figures[f"{encoding} {noise}"] = compare(encoding, noise, options.batch, options.rounds)
            print(
                f"{encoding:9s} {noise:16s} batch {options.batch}: {row['here_ms']:.2f} ms, Aer {row['aer_ms']:.0f} ms, "
                f"ratio {row['ratio']:.0f}; largest difference {row['difference']:.1e}; values and Jacobian "
                f"{row['linearize_ms']:.1f} ms, training step {row['step_ms']:.0f} ms",
                flush=True,
            )
    publish(figures, options.json)


def compare(encoding: str, noise: str, batch: int, rounds: int) -> dict[str, float]:
    """Minimal times of interleaved repeats."""
    simulator = parse_noise(noise, 4)
    model = model_config("default", 16, 4, 4, encoding=encoding).build().noisy(simulator, readout=False)
    rng = np.random.default_rng(0)
    parameters = model.initial_parameters(0)
    weights, inputs = model.split(parameters)[0], model.prepare(rng.standard_normal((batch, 16)))
    state, labels = rng.uniform(-1, 1, (batch, 4)), rng.integers(0, 4, batch)
    aer = by_aer(model, simulator, inputs + state @ model.injection.T, weights)

    def here() -> np.ndarray:
        point = model.map(weights, inputs).at(state)
        return np.concatenate([point.values, point.features], axis=1)

    def linearize() -> None:
        model.map(weights, inputs).linearize(state, np.arange(batch))

    def step() -> None:
        training_step(
            model, parameters, inputs, labels, TrainingConfig(), direct=False, initial=None, rng=np.random.default_rng
        )

    difference = float(np.abs(here() - aer()).max())
    slow = interleaved({"aer": aer, "here": here}, rounds)
    fast = interleaved({"here": here, "linearize": linearize, "step": step}, rounds)
    here_ms, aer_ms = min(slow["here"]["min"], fast["here"]["min"]), slow["aer"]["min"]
    return {
        "here_ms": here_ms,
        "aer_ms": aer_ms,
        "ratio": aer_ms / here_ms,
        "difference": difference,
        "linearize_ms": fast["linearize"]["min"],
        "step_ms": fast["step"]["min"],
    }


def by_aer(model: QDEQModel, simulator: object, inputs: np.ndarray, weights: np.ndarray):  # type: ignore[no-untyped-def]
    """A function that evaluates the minibatch through Aer's EstimatorV2 on the circuit that the model has."""
    gates, template = model.evaluator.gates, model.template  # type: ignore[attr-defined]
    observables = (*template.state_observables, *template.readout_observables)
    circuit, moved = to_isa(gates.circuit, observables, backend=simulator)
    estimator = EstimatorV2.from_backend(simulator)
    estimator._backend.set_options(runtime_parameter_bind_enable=True, max_parallel_threads=1)
    array = ObservablesArray(moved).reshape(len(moved), 1)
    rows = gates.rows(inputs, weights)[:, [gates.parameters.index(parameter) for parameter in circuit.parameters]]
    return lambda: estimator.run([(circuit, array, rows)]).result()[0].data.evs.T


if __name__ == "__main__":
    main()
