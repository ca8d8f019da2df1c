"""Bias and variance of every implicit-gradient estimator against shots, and the error of z*; truth is exact computation.

python benchmarks/gradient_estimators.py [--shots 128 512 2048 8192] [--repeats 40] [--json FILE]

A minibatch of digits at 4 qubits, default preset, weights after a short exact training and random ones, ideal circuits with
finite shots ("aer"). Of R gradients G_i of the circuit parameters and the exact gradient g:

    bias² = ‖mean G - g‖² - tr(cov G)/R      the noise of the mean taken out; z is this in standard errors under no bias
    sd    = √tr(cov G)                       rms(N) = √(bias² + sd² · shots of a step / N), at N shots whatever they buy

all relative to ‖g‖. Estimators of one row of the forward solve share its measurements.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

from dataclasses import dataclass
from typing import Any

import numpy as np
from common import command_line, publish
from minibatch import Array, Minibatch, digits_minibatch, distance

from qiskit_qdeq import Execution, QDEQModel, Sampling, executed, solve, solver
from qiskit_qdeq.equilibrium.solvers import Solver
from qiskit_qdeq.evaluation.probe import ProbedMap, Probes, probes
from qiskit_qdeq.evaluation.protocol import Cost, EquilibriumMap
from qiskit_qdeq.gradient.implicit import Backward, implicit_term
from qiskit_qdeq.readout import cross_entropy

#: Shots at which estimators of unequal circuits are compared.
_BUDGET = 10**6


@dataclass(frozen=True)
class Variant:
    """A forward solve, the backward modes taken at it, and the weight gradient's estimator."""

    solver: Solver
    modes: tuple[str, ...]
    sampling: dict[str, Any]


def variants(circuits: int) -> list[Variant]:
    """All that are compared; random and spsa take as many circuits a sample as there are shifts, and a quarter."""
    probe, broyden = solver("probe"), solver("broyden")
    result = [
        Variant(probe, ("exact", "neumann", "jfb"), {}),
        Variant(broyden, ("exact", "neumann", "jfb", "shine"), {}),
    ]
    for count, steps in ((circuits, (0.1, 0.15, 0.2, 0.4)), (2 * (circuits // 8), (0.15,))):
        result.append(Variant(probe, ("exact",), {"gradient_method": "random", "gradient_circuits": count}))
        for step in steps:
            options = {"gradient_method": "spsa", "gradient_circuits": count, "spsa_step": step}
            result.append(Variant(probe, ("exact",), options))
    return result


def gradients(case: Minibatch, measured: QDEQModel, variant: Variant) -> tuple[Array, Array]:
    """One draw of dL/dθ by every backward mode of a variant (modes, p), and the circuits and shots of its step."""
    _, matrix, bias = case.model.split(case.parameters)
    problem: EquilibriumMap = measured.evaluator.bind(case.weights).map(case.inputs, ("jacobian", "gradient"))
    found = solve(problem, variant.solver, on_failure="accept", keep_inverse="shine" in variant.modes)
    point = problem.at(found.state)
    slope = cross_entropy(point.features @ matrix.T + bias, case.labels)[1] @ matrix
    result, cost = [], Cost()
    for mode in variant.modes:
        before = problem.cost
        result.append(problem.pull_back([implicit_term(point, slope, Backward(mode=mode), found)]))
        # what the other modes had measured already counts for this one too, but not what they would not need
        cost = problem.cost if mode == variant.modes[0] else cost + (problem.cost - before)
    return np.array(result), np.array([cost.circuits, cost.shots])


def statistics(draws: Array, truth: Array, shots: float) -> dict[str, float]:
    """Bias and spread of draws (R, p) about the truth (p,), relative to its length."""
    count, size = len(draws), float(np.linalg.norm(truth))
    centre = draws.mean(axis=0)
    spread = draws - centre
    variance = float(np.sum(spread**2) / (count - 1))
    square = float(np.sum((centre - truth) ** 2)) - variance / count
    # under no bias: var(bias²) = 2 tr(Σ²) / (R (R - 1)), tr(Σ²) from products of different draws
    products = spread @ spread.T
    off = products[~np.eye(count, dtype=bool)]
    error = float(np.sqrt(2 * np.mean(off**2) / (count * (count - 1))))
    cosine = draws @ truth / np.linalg.norm(draws, axis=1) / size
    return {
        "bias": float(np.sign(square) * np.sqrt(abs(square))) / size,
        "bias_z": square / error,
        "sd": float(np.sqrt(variance)) / size,
        "cosine": float(cosine.mean()),
        "rms_at_budget": float(np.sqrt(max(square, 0) + variance * shots / _BUDGET)) / size,
    }


def gradient_rows(case: Minibatch, shots: int, repeats: int, seed: int) -> list[dict[str, Any]]:
    """A row of figures per estimator."""
    rows = []
    for index, variant in enumerate(variants(_shift_circuits(case.model))):
        chosen = Sampling(forward=shots, **variant.sampling)
        with executed(case.model, Execution("aer", shots=shots, seed=seed + index), sampling=chosen) as measured:
            draws, costs = zip(*(gradients(case, measured, variant) for _ in range(repeats)), strict=True)
        circuits, taken = np.mean(costs, axis=0)
        for place, mode in enumerate(variant.modes):
            row = {
                "jacobian": "probe" if variant.solver.name == "probe" else "shift",
                "backward": mode,
                "weights": _weights_name(chosen),
                "circuits": float(circuits),
                "shots": float(taken),
                **statistics(np.array(draws)[:, place], case.gradient, float(taken)),
            }
            rows.append(row)
            print(
                f"  {shots:5d} {row['jacobian']:6s} {mode:8s} {row['weights']:14s} {circuits:6.0f} circuits  "
                f"bias {row['bias']:+.3f} (z {row['bias_z']:+6.1f})  sd {row['sd']:.3f}  cos {row['cosine']:.3f}  "
                f"rms at 1e6 shots {row['rms_at_budget']:.3f}",
                flush=True,
            )
    return rows


def _shift_circuits(model: QDEQModel) -> int:
    """Shifted circuits of all weights, per sample."""
    from qiskit_qdeq.evaluation.gate_angles import GateTemplate

    gates = GateTemplate(model.template)
    return sum(len(rule.shifts) for rule in gates.rules[gates.num_encoder_angles :])


def _weights_name(sampling: Sampling) -> str:
    if sampling.gradient_method == "shift":
        return "shift"
    step = f" {sampling.spsa_step}" if sampling.gradient_method == "spsa" else ""
    return f"{sampling.gradient_method} {sampling.gradient_circuits}{step}"


# each solver as a name and a function from a measured map to q (B, K)
def state_solvers() -> dict[str, Any]:
    chosen: dict[str, Any] = {
        f"probe, {count} corrections": solver("probe", corrections=count) for count in (0, 1, 2)
    } | {f"broyden, averaging {count}": solver("broyden", averaging=count) for count in (1, 2, 4)}
    result: dict[str, Any] = {
        name: lambda problem, one=one: solve(problem, one, on_failure="accept").state for name, one in chosen.items()
    }
    for factor in (0.5, 2.0, 4.0):
        result[f"probe, 0 corrections, s x {factor:g}"] = lambda problem, factor=factor: (
            solve(stretched(problem, factor), "newton", on_failure="accept").state
        )
    return result


def stretched(problem: Any, factor: float) -> ProbedMap:
    """The probed map from steps s longer by a factor."""
    inputs, injection = problem.inputs, problem.evaluator.injection
    usual = probes(inputs, injection)
    steps = factor * usual.steps
    moved = inputs[:, None] + steps[:, :, None] * injection.T
    found = Probes(np.concatenate([inputs[:, None], moved], axis=1), steps, usual.shared)
    rows = [problem.base_rows(points.reshape(-1, len(injection))) for points in (found.samples, found.shared)]
    (samples, shared), _ = problem.run([problem.request(row, "forward") for row in rows])
    values = samples.values.reshape(*found.samples.shape[:2], -1)
    return ProbedMap(inputs, injection, found, values, shared.values, problem.evaluator.states)


def state_rows(case: Minibatch, shots: int, repeats: int, seed: int) -> list[dict[str, Any]]:
    """The error of z* per solver."""
    rows = []
    for index, (name, find) in enumerate(state_solvers().items()):
        errors, circuits = [], []
        with executed(case.model, Execution("aer", shots=shots, seed=seed + index)) as measured:
            for _ in range(repeats):
                problem = measured.evaluator.bind(case.weights).map(case.inputs)
                errors.append(distance(np.clip(find(problem), -1, 1), case.state) ** 2)
                circuits.append(problem.cost.circuits / len(case.inputs))
        error, count = float(np.sqrt(np.mean(errors))), float(np.mean(circuits))
        rows.append({"solver": name, "error": error, "circuits_per_sample": count})
        print(f"  {shots:5d} {name:30s} ‖q - q*‖ rms {error:.4f}  {count:5.2f} circuits a sample", flush=True)
    return rows


def main() -> None:
    parser = command_line(__doc__ or "")
    parser.add_argument("--shots", type=int, nargs="+", default=[128, 512, 2048, 8192])
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=5, help="of the exact training that gives the weights")
    parser.add_argument("--weights", nargs="+", default=["trained", "random"], choices=("trained", "random"))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    figures: dict[str, Any] = {"options": vars(options)}
    for name in options.weights:
        case = digits_minibatch(options.samples, epochs=options.epochs if name == "trained" else 0, seed=options.seed)
        figures[name] = {"gradient_norm": float(np.linalg.norm(case.gradient)), "gradient": {}, "state": {}}
        print(f"{name} weights: {options.samples} digits, {options.repeats} repetitions, seed {options.seed}")
        for shots in options.shots:
            figures[name]["state"][shots] = state_rows(case, shots, options.repeats, options.seed)
        for shots in options.shots:
            figures[name]["gradient"][shots] = gradient_rows(case, shots, options.repeats, options.seed)
    publish(figures, options.json)


if __name__ == "__main__":
    main()
