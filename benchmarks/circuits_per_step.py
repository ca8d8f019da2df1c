"""Circuits, PUBs and jobs of a training step, counted: solver `probe` against `broyden` of 10 steps with shifted Jacobian.

python benchmarks/circuits_per_step.py [--qubits 4 10] [--shots 1024] [--json FILE]

Random data and parameters, default preset, batch 32, equal shots per circuit, ideal circuits ("aer"). `backward` is what the
Jacobian at q* adds; the error is that of z* against the exact equilibrium. Broyden counts twice: as it runs here, where
samples stop at the noise floor (`broyden`), and for all its 10 steps (`broyden, no stop`), as without noise-aware stopping;
so does `probe`, with one measured correction and with two.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import time
from dataclasses import asdict
from typing import Any

import numpy as np
from common import command_line, publish
from minibatch import Minibatch, distance, random_minibatch

from qiskit_qdeq import Execution, TrainingConfig, executed, solve, solver
from qiskit_qdeq.evaluation.protocol import Cost
from qiskit_qdeq.gradient.implicit import Backward, implicit_term
from qiskit_qdeq.training.step import training_step

SOLVERS = {
    "probe": solver("probe"),
    "probe, 2 corrections": solver("probe", corrections=2),
    "broyden": solver("broyden", max_steps=10),
    # a residual is below this share of the χ² distribution next to never
    "broyden, no stop": solver("broyden", max_steps=10, confidence=1e-12),
}


def solves(case: Minibatch, name: str, shots: int, seed: int) -> dict[str, Any]:
    """Forward and backward solve, with what each has cost."""
    started = time.perf_counter()
    with executed(case.model, Execution("aer", shots=shots, seed=seed)) as measured:
        problem = measured.evaluator.bind(case.weights).map(case.inputs)
        found = solve(problem, SOLVERS[name], on_failure="accept")
        forward = problem.cost
        cotangent = np.ones((len(case.inputs), case.model.template.num_readouts))
        implicit_term(problem.at(found.state), cotangent, Backward(), found)
    errors = np.linalg.norm(found.state - case.state, axis=1)
    return {
        "forward": asdict(forward),
        "backward": asdict(problem.cost - forward),
        "both": asdict(problem.cost),
        "error_rms": distance(found.state, case.state),
        "error_median": float(np.median(errors)),
        "steps": float(np.mean(found.steps)),
        "seconds": time.perf_counter() - started,
    }


def whole_step(case: Minibatch, name: str, shots: int, seed: int) -> Cost:
    """What a training step costs, with the shifts of all weights, which go out together with what they do not depend on."""
    with executed(case.model, Execution("aer", shots=shots, seed=seed)) as measured:
        return training_step(
            measured,
            case.parameters,
            case.inputs,
            case.labels,
            TrainingConfig(solver=SOLVERS[name]),
            direct=False,
            initial=None,
            rng=np.random.default_rng,
        ).cost


def main() -> None:
    parser = command_line(__doc__ or "")
    parser.add_argument("--qubits", type=int, nargs="+", default=[4, 10], choices=(4, 10))
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--shots", type=int, default=1024)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--skip-step", action="store_true", help="count forward and backward solve only")
    options = parser.parse_args()
    figures: dict[str, Any] = {"options": vars(options)}
    for qubits in options.qubits:
        case = random_minibatch(qubits, options.batch, options.seed)
        rows: dict[str, Any] = {}
        print(f"{qubits} qubits, batch {options.batch}, {options.shots} shots, seed {options.seed}")
        for name in SOLVERS:
            rows[name] = solves(case, name, options.shots, options.seed)
            row, both = rows[name], rows[name]["both"]
            row["ratio"] = both["circuits"] / rows["probe"]["both"]["circuits"]
            print(
                f"  {name:20s} forward {row['forward']['circuits']:4d} + backward {row['backward']['circuits']:4d} circuits"
                f" = {row['ratio']:5.2f} x probe, {both['pubs']:2d} PUBs, {both['jobs']:2d} jobs; ‖q - q*‖ rms "
                f"{row['error_rms']:.4f} median {row['error_median']:.4f}; {row['seconds']:.0f} s",
                flush=True,
            )
        for name in () if options.skip_step else ("probe", "broyden"):
            rows[name]["step"] = asdict(whole_step(case, name, options.shots, options.seed))
            text = ", ".join(f"{value} {key}" for key, value in rows[name]["step"].items())
            print(f"  whole training step with {name}: {text}", flush=True)
        figures[f"{qubits} qubits"] = rows
    publish(figures, options.json)


if __name__ == "__main__":
    main()
