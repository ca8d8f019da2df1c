"""Circuits, PUBs and jobs of a training step, counted: solver `probe` against `broyden` of 10 steps with shifted Jacobian.

python benchmarks/circuits_per_step.py [--qubits 4 10] [--shots 1024] [--json FILE]

Random data and parameters, default preset, batch 32, equal shots per circuit, ideal circuits ("aer"). `backward` is what the
Jacobian at q* adds, `gradient` the shifts of all weights; the error is that of z* against the exact equilibrium. `ratio` is
circuits of forward and backward solve over those of `probe`. Broyden counts twice: as it runs here, where samples stop at
the noise floor (`broyden`), and for all its 10 steps (`broyden, no stop`), as without noise-aware stopping; so does `probe`,
with one measured correction and with two.
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

from qiskit_qdeq import Execution, executed, solve, solver
from qiskit_qdeq.evaluation.protocol import Cost
from qiskit_qdeq.gradient.implicit import Backward, implicit_term

SOLVERS = {
    "probe": solver("probe"),
    "probe, 2 corrections": solver("probe", corrections=2),
    "broyden": solver("broyden", max_steps=10),
    # a residual is below this share of the χ² distribution next to never
    "broyden, no stop": solver("broyden", max_steps=10, confidence=1e-12),
}


def step(case: Minibatch, name: str, shots: int, seed: int, weights: bool) -> dict[str, Any]:
    """Forward solve, backward solve and, if asked for, the weight gradient, with what each has cost."""
    costs = {}
    started = time.perf_counter()
    with executed(case.model, Execution("aer", shots=shots, seed=seed)) as measured:
        problem = measured.evaluator.bind(case.weights).map(case.inputs)
        found = solve(problem, SOLVERS[name], on_failure="accept")
        costs["forward"] = problem.cost
        point = problem.at(found.state)
        cotangent = np.ones((len(case.inputs), case.model.template.num_readouts))
        term = implicit_term(point, cotangent, Backward(), found)
        costs["backward"] = problem.cost - costs["forward"]
        if weights:
            before = problem.cost
            problem.pull_back([term])
            costs["gradient"] = problem.cost - before
        costs["step"] = problem.cost
    solves: Cost = costs["forward"] + costs["backward"]
    errors = np.linalg.norm(found.state - case.state, axis=1)
    return {
        "costs": {part: asdict(cost) for part, cost in costs.items()},
        "solve_circuits": solves.circuits,
        "error_rms": distance(found.state, case.state),
        "error_median": float(np.median(errors)),
        "steps": float(np.mean(found.steps)),
        "seconds": time.perf_counter() - started,
    }


def main() -> None:
    parser = command_line(__doc__ or "")
    parser.add_argument("--qubits", type=int, nargs="+", default=[4, 10], choices=(4, 10))
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--shots", type=int, default=1024)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--skip-gradient", action="store_true", help="count forward and backward solve only")
    options = parser.parse_args()
    figures: dict[str, Any] = {"options": vars(options)}
    for qubits in options.qubits:
        case = random_minibatch(qubits, options.batch, options.seed)
        rows: dict[str, Any] = {}
        print(f"{qubits} qubits, batch {options.batch}, {options.shots} shots, seed {options.seed}")
        for name in SOLVERS:
            # the shifts of the weights are the same circuits whatever solver came before
            rows[name] = step(case, name, options.shots, options.seed, name == "probe" and not options.skip_gradient)
            row = rows[name]
            row["ratio"] = row["solve_circuits"] / rows["probe"]["solve_circuits"]
            parts = "  ".join(f"{part} {cost['circuits']}" for part, cost in row["costs"].items() if part != "step")
            jobs = {key: sum(row["costs"][part][key] for part in ("forward", "backward")) for key in ("pubs", "jobs")}
            print(
                f"  {name:20s} circuits: {parts}; solves {row['solve_circuits']:6d} = {row['ratio']:5.2f} x probe in "
                f"{jobs['pubs']} PUBs, {jobs['jobs']} jobs; ‖q - q*‖ rms {row['error_rms']:.4f} median "
                f"{row['error_median']:.4f}; {row['seconds']:.0f} s",
                flush=True,
            )
        figures[f"{qubits} qubits"] = rows
    publish(figures, options.json)


if __name__ == "__main__":
    main()
