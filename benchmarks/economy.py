"""What one training step costs in QPU seconds, the usual way and the economical one, and how good its gradient is.

python benchmarks/economy.py [--batch 8] [--repeats 24] [--json FILE]

QPU seconds by IBM's formula, 2 s per job + (repetition delay + circuit length) × executions, counted on the submission path
of a fake device (`predicted_step`, which tests hold equal to what is executed). The cosine of the gradient of the circuit
parameters to the exact one is measured on ideal circuits with the same shots, for random weights and after 5 epochs.

    usual     10 steps of Broyden, Jacobian and every weight from shifted circuits, one copy of the circuit
    economy   map probed with the gradient of the step before, so with weights that are one update of size 0.05 older; one
              job; as many copies as the device has room for

`equal shots`: the usual way with as many shots in all as the economical step takes on all copies. Last, the economical
gradient's estimators at equal shots: pairs of shifts drawn by importance, and fixed inputs for a large batch.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

from typing import Any

import numpy as np
from common import command_line, publish
from minibatch import Array, Minibatch, digits_minibatch

from qiskit_qdeq import Execution, QDEQModel, Sampling, TrainingConfig, executed, solver
from qiskit_qdeq.training.cost import predicted_step
from qiskit_qdeq.training.economy import FORWARD_RATIO
from qiskit_qdeq.training.step import training_step

DEVICES = ("sherbrooke", "brisbane", "torino")
#: Of values; a third of them for a shifted circuit.
SHOTS = 420
#: Length of the change of the weights between a probe and its use: a step of the default optimizer.
UPDATE = 0.05
USUAL = TrainingConfig(solver=solver("broyden", max_steps=10))
ECONOMY = TrainingConfig(solver=solver("probe", ahead=True))


def seconds(model: QDEQModel, device: str, shots: int, batch: int, economy: bool) -> tuple[Any, int]:
    """The cost of a step on a fake device, and the copies it runs on."""
    copies = "auto" if economy else 1
    execution = Execution(f"fake:{device}", shots=shots, copies=copies, seed=0)
    sampling = Sampling(forward=shots, gradient=max(1, shots // FORWARD_RATIO)) if economy else Sampling(forward=shots)
    with executed(model, execution, sampling=sampling) as measured:
        if not economy:
            return predicted_step(measured, USUAL, batch), 1
        cost = predicted_step(measured, ECONOMY, batch, probed=True, upcoming=batch)
        return cost, len(measured.evaluator.runner.copies)


def cosines(problem: Minibatch, shots: int, repeats: int, economy: bool, **options: Any) -> tuple[Array, int]:
    """Of the gradients of `repeats` steps, and the shots of one."""
    weights = problem.model.num_weights
    chosen = {"forward": shots, "gradient": max(1, shots // FORWARD_RATIO), **options}
    sampling = Sampling(**chosen) if economy else Sampling(forward=shots)
    found, taken = [], 0
    with executed(problem.model, Execution("aer", shots=shots, seed=1), sampling=sampling) as measured:
        for repeat in range(repeats):
            measured.evaluator.start_step(repeat, repeats)
            if economy:
                _probe_with_older_weights(measured, problem, np.random.default_rng(repeat))
            config = ECONOMY if economy else USUAL
            step = training_step(
                measured,
                problem.parameters,
                problem.inputs,
                problem.labels,
                config,
                direct=False,
                initial=None,
                rng=np.random.default_rng,
            )
            gradient = step.gradient[:weights]
            found.append(gradient @ problem.gradient / np.linalg.norm(gradient) / np.linalg.norm(problem.gradient))
            taken += step.cost.shots
    return np.array(found), taken // repeats


def _probe_with_older_weights(measured: QDEQModel, problem: Minibatch, rng: np.random.Generator) -> None:
    older = problem.weights + UPDATE * rng.choice((-1, 1), len(problem.weights))
    source = measured.evaluator.bind(older).map(problem.inputs)
    requests, read = source.probing(problem.inputs)
    measured.evaluator.ahead = read(source.run(requests)[0])


def main() -> None:
    parser = command_line(__doc__ or "")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=24)
    options = parser.parse_args()
    figures: dict[str, Any] = {"seconds": [], "cosines": []}
    model = digits_minibatch(options.batch, epochs=0, seed=0).model
    print("device      way       copies    shots of values   jobs  executions     QPU seconds")
    for device in DEVICES:
        for label, shots, economy in (("usual", 1024, False), ("economy", SHOTS, True)):
            cost, copies = seconds(model, device, shots, options.batch, economy)
            row = {"device": device, "way": label, "copies": copies, "jobs": cost.jobs, "executions": cost.shots}
            figures["seconds"].append({**row, "qpu_seconds": cost.qpu_seconds})
            print(
                f"{device:11} {label:9} {copies:6} {shots:18} {cost.jobs:6} {cost.shots:11,} {cost.qpu_seconds:15.1f}"
            )
    print("\nweights     way                   shots in all   cosine to the exact gradient")
    for name, epochs in (("random", 0), ("trained", 5)):
        problem = digits_minibatch(options.batch, epochs=epochs, seed=0)
        values, total = cosines(problem, SHOTS, options.repeats, economy=True)
        _tell(figures, name, "economy", total, values)
        values, taken = cosines(problem, 1024, options.repeats, economy=False)
        _tell(figures, name, "usual, 1,024 shots", taken, values)
        values, taken = cosines(problem, round(1024 * total / taken), options.repeats, economy=False)
        _tell(figures, name, "usual, equal shots", taken, values)
    for batch, repeats, variants in (
        (options.batch, options.repeats, ({}, {"gradient_method": "random", "gradient_circuits": 272, "gradient": 35})),
        (256, 6, ({"gradient": 8}, {"gradient_method": "fixed", "gradient": 15})),
    ):
        for name, epochs in (("random", 0), ("trained", 5)):
            problem = digits_minibatch(batch, epochs=epochs, seed=0)
            for variant in variants:
                values, total = cosines(problem, SHOTS, repeats, economy=True, **variant)
                method = variant.get("gradient_method", "shift")
                _tell(figures, name, f"{method}, {batch} samples", total, values)
    publish(figures, options.json)


def _tell(figures: dict[str, Any], weights: str, way: str, shots: int, values: Array) -> None:
    mean, error = float(values.mean()), float(values.std() / np.sqrt(len(values)))
    figures["cosines"].append({"weights": weights, "way": way, "shots": shots, "mean": mean, "error": error})
    print(f"{weights:11} {way:21} {shots:12,}   {mean:.3f} ± {error:.3f}")


if __name__ == "__main__":
    main()
