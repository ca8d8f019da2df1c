"""Copies found on large devices, and QPU seconds of one training step with and without them, by IBM's formula.

python benchmarks/tiling.py [--qubits 4] [--batch 8] [--shots 1024] [--figures FOLDER] [--json FILE]

Default preset; solver `probe` with amplitude encoding, 10 steps of `broyden` that begin with a shifted Jacobian with angle
encoding. QPU seconds are 2 s per job + (repetition delay + circuit length) × executions, circuits and shots as the package
counts them before it submits (`predicted_step`); nothing is executed. `ms per row` is what one row of parameter values
costs, its share of the jobs' 2 s apart. Arrows go from one copy to the copies that "auto" finds.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import time
from pathlib import Path
from typing import Any

from common import command_line, publish

from qiskit_qdeq import QDEQModel, TrainingConfig, model_config, solver
from qiskit_qdeq.execution.devices import fake_backend
from qiskit_qdeq.execution.product_estimator import ProductEstimator
from qiskit_qdeq.training.cost import predicted_step

DEVICES = ("sherbrooke", "brisbane", "torino")


def costs(model: QDEQModel, backend: Any, copies: int | str, config: TrainingConfig, batch: int, shots: int) -> Any:
    """A training step on so many copies, and the copies."""
    started = time.perf_counter()
    measured = model.measured(ProductEstimator(backend, default_shots=shots), copies=copies)
    seconds = time.perf_counter() - started
    step, runner = predicted_step(measured, config, batch), measured.evaluator.runner
    found = {
        "seconds_to_choose": seconds,
        "circuits": step.circuits,
        "jobs": step.jobs,
        "qpu_seconds": step.qpu_seconds,
        "execution_us": 1e6 * runner.timing.repetition_seconds,
    }
    return found, getattr(runner, "copies", None)


def main() -> None:
    parser = command_line(__doc__ or "")
    parser.add_argument("--qubits", type=int, default=4)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--shots", type=int, default=1024)
    parser.add_argument("--figures", metavar="FOLDER", help="write a picture of the copies on each device")
    options = parser.parse_args()
    figures: dict[str, Any] = {}
    print(
        "device      encoding   copies  two-qubit error  ratio  errors       circuits      QPU seconds     ms per row"
    )
    for name in DEVICES:
        backend = fake_backend(name)
        for encoding, chosen_solver in (("amplitude", solver("probe")), ("angle", solver("broyden", max_steps=10))):
            model = model_config("default", 16, 4, options.qubits, encoding=encoding).build()
            config = TrainingConfig(solver=chosen_solver)
            one, _ = costs(model, backend, 1, config, options.batch, options.shots)
            many, copies = costs(model, backend, "auto", config, options.batch, options.shots)
            if options.figures:
                Path(options.figures).mkdir(parents=True, exist_ok=True)
                copies.draw(Path(options.figures) / f"copies_{name}_{encoding}.png")
            errors = [copy.errors for copy in copies.copies]
            rows = one["circuits"]
            per_row = [1e3 * (cost["qpu_seconds"] - 2 * cost["jobs"]) / rows for cost in (one, many)]
            low, high = min(copies.two_qubit_errors), max(copies.two_qubit_errors)
            print(
                f"{name:<11s} {encoding:<10s} {len(copies):6d}  {low:6.2%} - {high:.2%}  {copies.error_ratio:6.2f}  "
                f"{min(errors):.2f} - {max(errors):.2f}  {rows:4d} -> {many['circuits']:<3d}  "
                f"{one['qpu_seconds']:6.1f} -> {many['qpu_seconds']:<5.1f} {per_row[0]:4.0f} -> {per_row[1]:.1f}"
            )
            figures[f"{name}, {encoding}"] = {
                "one": one,
                "many": many,
                "copies": len(copies),
                "two_qubit_error": [low, high],
                "error_ratio": copies.error_ratio,
                "errors_per_execution": errors,
            }
    publish(figures, options.json)


if __name__ == "__main__":
    main()
