"""Variance of gradients over random weights: does the equilibrium's implicit factor change how fast they vanish?

    direct-L     E = <M> after L applications of the circuit, dE/dθ through all of them (L = 1: a plain circuit)
    equilibrium  E = <M> at q*,   dE/dθ = ∂<M>/∂θ + ∂<M>/∂q (1 - J)⁻¹ ∂m/∂θ

for M local (Z of wire 0) and global (Z on all wires), as McClean et al. 2018 (arXiv:1803.11173) and Cerezo et al. 2021
(arXiv:2001.00550) look at it, and for the loss: cross-entropy of a random linear head on all Z. θ uniform in [-π, π].
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from qiskit import QuantumCircuit
from qiskit.quantum_info import SparsePauliOp

from qiskit_qdeq.circuits import (
    AmplitudeEncoder,
    AngleEncoder,
    CircuitTemplate,
    hardware_efficient_ansatz,
    paper_ansatz,
    random_ansatz,
)
from qiskit_qdeq.circuits.observables import z_observables
from qiskit_qdeq.equilibrium import solve
from qiskit_qdeq.equilibrium.solution import Solution
from qiskit_qdeq.equilibrium.solvers import Newton
from qiskit_qdeq.evaluation.protocol import Cotangent, EquilibriumMap, EvaluationPoint
from qiskit_qdeq.evaluation.threads import compute_context
from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.gradient.direct import direct_pass
from qiskit_qdeq.gradient.implicit import Backward, implicit_term
from qiskit_qdeq.model import QDEQModel
from qiskit_qdeq.readout import cross_entropy

Array = np.ndarray[Any, np.dtype[Any]]

#: Explicit applications that the equilibrium is compared with.
APPLICATIONS = (1, 4)
METHODS = ("equilibrium", *(f"direct-{layers}" for layers in APPLICATIONS))
QUANTITIES = ("local", "global", "loss")
_CLASSES = 2
_SAMPLES = 2
#: Gates of the random ansatz per qubit: 50 at four, as in the paper.
_DENSITY = 12.5


def variance_task(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Variances of gradients of one circuit.

    Args:
        arguments: `encoding`; `ansatz` "hardware_efficient", "random" or "paper"; `num_qubits`; `layers` of the first;
            `state_scale`; `draws` of weights; `seed` of weights, of the two samples (standard normal, 2 n features) and of
            the random ansatz.

    Returns:
        `gradients`: method -> quantity -> `weight`: variance of the partial derivative by weight 0 (RY on wire 0 in the
        first layer of the hardware-efficient ansatz), `mean`: variance averaged over all weights, `weight_ratio`,
        `mean_ratio`: to that of direct-1 from the same draws, and the standard error of each as `..._error`. `radius`: mean
        spectral radius of J; `gain`: mean of ‖(1 - J)⁻¹‖₂; `unconverged`: share of samples without an equilibrium, which
        take the gradient of one more application as training does; `num_weights`.
    """
    model = _model(arguments)
    rng = np.random.default_rng([int(arguments["seed"]), 1])
    inputs = model.prepare(rng.normal(size=(_SAMPLES, model.num_features)))
    found: dict[tuple[str, str], list[Array]] = {(m, q): [] for m in METHODS for q in QUANTITIES}
    radius, gain, unconverged = [], [], []
    with compute_context():
        for _ in range(int(arguments["draws"])):
            draw = _Draw(model, inputs, rng)
            for key, gradient in draw.gradients():
                found[key].append(gradient)
            radius.append(draw.radius)
            gain.append(draw.gain)
            unconverged.append(draw.unconverged)
    gradients: dict[str, dict[str, Any]] = {method: {} for method in METHODS}
    for (method, quantity), values in found.items():
        plain = np.array(found["direct-1", quantity])
        gradients[method][quantity] = spread_of(np.array(values), plain)
    return {
        "gradients": gradients,
        "num_weights": model.num_weights,
        "radius": float(np.mean(radius)),
        "gain": float(np.mean(gain)),
        "unconverged": float(np.mean(unconverged)),
    }


def spread_of(values: Array, plain: Array) -> dict[str, float]:
    """Variances of gradients (draws, weights), and their ratio to those of `plain`; see `variance_task`.

    The error of a variance v is that of the mean of squared deviations; that of the ratio of two means a / b is
    √Var((a_i - r b_i) / b̄) / √draws, which knows that both come from the same weights.
    """
    squares, others = ((a - a.mean(axis=0)) ** 2 * (len(a) / (len(a) - 1)) for a in (values, plain))
    result: dict[str, float] = {}
    for name, own, base in (
        ("weight", squares[:, 0], others[:, 0]),
        ("mean", squares.mean(axis=1), others.mean(axis=1)),
    ):
        variance = float(own.mean())
        result[name] = variance
        result[f"{name}_error"] = float(own.std(ddof=1) / np.sqrt(len(own)))
        reference = float(base.mean())
        ratio = variance / reference if reference else 0.0
        spread = (own - ratio * base).std(ddof=1) / np.sqrt(len(own))
        result[f"{name}_ratio"] = ratio
        result[f"{name}_ratio_error"] = float(spread / reference) if reference else 0.0
    return result


class _Draw:
    """One draw of weights: the gradients of all methods and quantities."""

    def __init__(self, model: QDEQModel, inputs: Array, rng: np.random.Generator) -> None:
        self._size = model.template.num_qubits
        weights = rng.uniform(-np.pi, np.pi, model.num_weights)
        bound = 1 / np.sqrt(self._size)
        self._matrix = rng.uniform(-bound, bound, (_CLASSES, self._size))
        self._bias = rng.uniform(-bound, bound, _CLASSES)
        self._labels = rng.integers(_CLASSES, size=len(inputs))
        self._problem: EquilibriumMap = model.map(weights, inputs)
        self._solution: Solution = solve(self._problem, Newton(), on_failure="accept", keep_trace=False)
        self._point = self._problem.at(self._solution.state)
        jacobian = self._point.jacobian
        self.radius = float(np.abs(np.linalg.eigvals(jacobian)).max(axis=1).mean())
        smallest = np.linalg.svd(np.eye(jacobian.shape[-1]) - jacobian, compute_uv=False)[:, -1]
        self.gain = float((1 / smallest).mean())
        self.unconverged = float(np.mean(~self._solution.converged))

    def gradients(self) -> Iterator[tuple[tuple[str, str], Array]]:
        """(method, quantity) and the gradient (p,)."""
        for quantity in QUANTITIES:
            slope = self._slope(self._point, quantity)
            term = implicit_term(self._point, slope, Backward(), self._solution)
            yield ("equilibrium", quantity), self._problem.pull_back([term])
        for layers in APPLICATIONS:
            applied = direct_pass(self._problem, layers)
            for quantity in QUANTITIES:
                terms: Sequence[Cotangent] = applied.terms(self._slope(applied.last, quantity))
                yield (f"direct-{layers}", quantity), self._problem.pull_back(terms)

    def _slope(self, point: EvaluationPoint, quantity: str) -> Array:
        """∂/∂h (B, n + 1) of the quantity; an observable is that of the first sample."""
        slope = np.zeros((len(self._labels), self._size + 1))
        if quantity == "loss":
            logits = point.features[:, : self._size] @ self._matrix.T + self._bias
            slope[:, : self._size] = cross_entropy(logits, self._labels)[1] @ self._matrix
        else:
            slope[0, 0 if quantity == "local" else self._size] = 1.0
        return slope


def _model(arguments: Mapping[str, Any]) -> QDEQModel:
    size = int(arguments["num_qubits"])
    kinds: dict[str, Any] = {"amplitude": AmplitudeEncoder, "angle": AngleEncoder.layered}
    if arguments["encoding"] not in kinds:
        raise InputError(f"encoding must be one of {list(kinds)}, got {arguments['encoding']!r}")
    encoder = kinds[arguments["encoding"]](2 * size, size)
    readout = [*z_observables(size), SparsePauliOp("Z" * size)]
    template = CircuitTemplate(encoder, _ansatz(arguments, size), readout=readout)
    return QDEQModel(template, _CLASSES, state_scale=float(arguments["state_scale"]))


def _ansatz(arguments: Mapping[str, Any], size: int) -> QuantumCircuit:
    if arguments["ansatz"] == "random":
        return random_ansatz(size, round(_DENSITY * size), seed=int(arguments["seed"]))
    if arguments["ansatz"] == "paper":
        return paper_ansatz(size)
    return hardware_efficient_ansatz(size, int(arguments["layers"]))
