"""Largest deviations from independent oracles: Qiskit's Statevector, finite differences, and the solvers among themselves.

python benchmarks/agreement.py [--cases 20] [--json FILE]
"""

from __future__ import annotations

import numpy as np
from common import command_line, publish
from qiskit.circuit.library import zz_feature_map
from qiskit.quantum_info import SparsePauliOp, Statevector, random_pauli

from qiskit_qdeq import QDEQModel, TrainingConfig, solve, solver
from qiskit_qdeq.circuits import (
    AmplitudeEncoder,
    AngleEncoder,
    CircuitEncoder,
    CircuitTemplate,
    paper_ansatz,
    random_ansatz,
)
from qiskit_qdeq.equilibrium.scipy_root import METHODS
from qiskit_qdeq.gradient import Backward
from qiskit_qdeq.training.step import training_step

STEP = 1e-5


def templates(rng: np.random.Generator) -> dict[str, CircuitTemplate]:
    paulis = [
        SparsePauliOp([random_pauli(4, seed=int(rng.integers(2**31))) for _ in range(3)], rng.normal(size=3))
        for _ in range(4)
    ]
    flat = [SparsePauliOp(op.paulis, op.coeffs / np.abs(op.coeffs).sum()) for op in paulis]
    real = [
        SparsePauliOp.from_list(
            [(p.to_label().lstrip("-i"), c.real) for p, c in zip(op.paulis, op.coeffs, strict=True)]
        )
        for op in flat
    ]
    seed = int(rng.integers(2**31))
    return {
        "amplitude": CircuitTemplate(AmplitudeEncoder(16), paper_ansatz(4), readout="zzz"),
        "amplitude, 11 of 16": CircuitTemplate(AmplitudeEncoder(11, 4), random_ansatz(4, seed=seed)),
        "angle": CircuitTemplate(AngleEncoder.paper(4), paper_ansatz(4), readout="zzz"),
        "angle, general": CircuitTemplate(AngleEncoder.layered(7, 4), random_ansatz(4, seed=seed)),
        # its angles are products of inputs: injected states must be small for a contraction, see `_scale`
        "zz feature map": CircuitTemplate(zz_feature_map(4), random_ansatz(4, seed=seed)),
        "general Paulis": CircuitTemplate(
            AmplitudeEncoder(16), random_ansatz(4, seed=seed), state_observables=real, readout=real
        ),
    }


def values_gap(template: CircuitTemplate, rng: np.random.Generator) -> tuple[float, float]:
    """Values and Jacobian of one random case against Statevector and central differences."""
    model = QDEQModel(template, 2, state_scale=0.7)
    weights = rng.uniform(-np.pi, np.pi, model.num_weights)
    inputs = rng.normal(size=(2, template.num_features))
    state = rng.uniform(-1, 1, (2, model.num_states))
    problem = model.evaluator.bind(weights).map(inputs)
    point = problem.at(state)
    moved = inputs + state @ model.injection.T
    found, truth = np.hstack([point.values, point.features]), []
    for sample in moved:
        psi = Statevector(template.bind(sample, weights))
        operators = (*template.state_observables, *template.readout_observables)
        truth.append([psi.expectation_value(op).real for op in operators])
    rows = np.arange(2)
    differences = np.stack(
        [
            (problem.values(state + STEP * e, rows).values - problem.values(state - STEP * e, rows).values) / (2 * STEP)
            for e in np.eye(model.num_states)
        ],
        axis=-1,
    )
    scale = max(1e-3, np.abs(differences).max())
    return float(np.abs(found - truth).max()), float(np.abs(point.jacobian - differences).max() / scale)


def gradient_gap(template: CircuitTemplate, config: TrainingConfig, direct: bool) -> float:
    """Gradient of the loss against central differences of re-solved equilibria, relative to the largest entry."""
    rng = np.random.default_rng(0)
    model = QDEQModel(template, 3, state_scale=_scale(template))
    parameters = model.initial_parameters(1)
    inputs, labels = rng.normal(size=(8, template.num_features)), rng.integers(0, 3, 8)

    def result(at: np.ndarray):
        return training_step(model, at, inputs, labels, config, direct=direct, initial=None, rng=np.random.default_rng)

    chosen = rng.choice(len(parameters), 12, replace=False)
    differences = np.array(
        [
            (result(parameters + STEP * e).loss - result(parameters - STEP * e).loss) / (2 * STEP)
            for e in np.eye(len(parameters))[chosen]
        ]
    )
    gap = np.abs(result(parameters).gradient[chosen] - differences).max()
    return float(gap / np.abs(differences).max())


def _scale(template: CircuitTemplate) -> float:
    """A state scale at which the map is a contraction on these data, so that there is one equilibrium to agree on."""
    return 0.02 if isinstance(template.encoder, CircuitEncoder) else 0.15


def main() -> None:
    parser = command_line(__doc__ or "")
    parser.add_argument("--cases", type=int, default=10, help="random cases per circuit")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    figures: dict[str, dict[str, float]] = {"values": {}, "jacobian": {}, "gradient": {}, "solvers": {}}
    for _ in range(options.cases):
        for name, template in templates(rng).items():
            values, jacobian = values_gap(template, rng)
            figures["values"][name] = max(values, figures["values"].get(name, 0))
            figures["jacobian"][name] = max(jacobian, figures["jacobian"].get(name, 0))
    tight = {"tol": 1e-13, "max_steps": 300}
    for name, template in templates(rng).items():
        for forward in ("newton", "broyden", "anderson", "picard"):
            for backward in ("exact", "neumann", "broyden", "anderson", "gmres"):
                config = TrainingConfig(
                    solver=solver(forward, **tight), backward=Backward(backward, terms=80, tol=1e-12)
                )
                key = f"{name}: {forward}, {backward}"
                figures["gradient"][key] = gradient_gap(template, config, direct=False)
        for layers in (1, 2, 5):
            key = f"{name}: direct {layers}"
            figures["gradient"][key] = gradient_gap(template, TrainingConfig(layers=layers), direct=True)
        model = QDEQModel(template, 2, state_scale=_scale(template))
        weights = rng.uniform(-np.pi, np.pi, model.num_weights)
        problem = model.evaluator.bind(weights).map(rng.normal(size=(16, template.num_features)))
        truth = solve(problem, solver("newton", tol=1e-13)).state
        for method in ("broyden", "anderson", "picard", *(f"scipy:{m}" for m in METHODS)):
            found = solve(problem, solver(method, tol=1e-10, max_steps=2000), on_failure="accept")
            gap = float(np.abs(found.state - truth)[found.converged].max(initial=0))
            figures["solvers"][f"{name}: {method} ({found.converged.mean():.0%} converged)"] = gap
    for table, rows in figures.items():
        worst = max(rows, key=rows.__getitem__)
        print(f"{table:9s} largest deviation {rows[worst]:.1e} ({worst}), of {len(rows)} rows")
    publish(figures, options.json)


if __name__ == "__main__":
    main()
