"""The same backward numbers as qiskit-machine-learning's EstimatorQNN, from fewer PUBs, in one run.

python benchmarks/qnn.py [--samples 16] [--json FILE]                      needs the extra `ml`

∂<Z_j>/∂u (B, K, D) and ∂<Z_j>/∂θ (B, K, p) at 4 qubits, angle encoding and the paper's ansatz, by parameter shifts on both
sides, through the same exact estimator, wrapped so that it counts. EstimatorQNN sends a PUB per sample, observable and
shift.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import time
import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
from common import command_line, publish
from minibatch import Array
from qiskit.primitives import BaseEstimatorV2, PrimitiveJob
from qiskit.primitives.containers.estimator_pub import EstimatorPub

from qiskit_qdeq import QDEQModel, model_config
from qiskit_qdeq.evaluation.protocol import Cotangent
from qiskit_qdeq.exceptions import MissingExtraError
from qiskit_qdeq.execution.noisy_estimator import DensityMatrixEstimator

#: Largest difference that rounding may make.
_TOLERANCE = 1e-8


class CountingEstimator(BaseEstimatorV2):
    """Passes everything on to exact simulation and counts jobs, PUBs and parameter sets."""

    def __init__(self) -> None:
        self._inner = DensityMatrixEstimator()
        self.jobs = self.pubs = self.rows = 0

    def run(self, pubs: Iterable[Any], *, precision: float | None = None) -> PrimitiveJob[Any]:
        checked = [EstimatorPub.coerce(pub, precision) for pub in pubs]
        self.jobs += 1
        self.pubs += len(checked)
        self.rows += sum(pub.parameter_values.size for pub in checked)
        return self._inner.run(checked)


def ours(model: QDEQModel, weights: Array, inputs: Array, estimator: Any) -> tuple[Array, Array]:
    """∂m/∂u (B, K, D) and ∂m/∂θ (B, K, p) from the evaluator, everything in one job."""
    problem = model.measured(estimator).evaluator.bind(weights).map(inputs, ("jacobian", "gradient"))
    batch, size = problem.batch, problem.num_states
    point = problem.at(np.zeros((batch, size)))
    # fetches the shifts it was told to expect as well
    point.features  # noqa: B018
    by_weights = np.zeros((batch, size, len(weights)))
    for sample, observable in np.ndindex(batch, size):
        unit = np.zeros((batch, size))
        unit[sample, observable] = 1
        by_weights[sample, observable] = problem.pull_back([Cotangent(point, values=unit)])
    return point.input_jacobian, by_weights


def theirs(model: QDEQModel, weights: Array, inputs: Array, estimator: Any) -> tuple[Array, Array]:
    """The same from EstimatorQNN with its default, the parameter-shift gradient."""
    try:
        from qiskit_machine_learning.neural_networks import EstimatorQNN
    except ImportError as error:
        raise MissingExtraError(
            "this benchmark compares with qiskit-machine-learning, which is not installed: pip install 'qiskit-qdeq[ml]'"
        ) from error
    template = model.template
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        network = EstimatorQNN(
            circuit=template.circuit,
            estimator=estimator,
            observables=list(template.state_observables),
            input_params=template.encoder.parameters,
            weight_params=template.weights,
            input_gradients=True,
        )
        return network.backward(inputs, weights)


def main() -> None:
    parser = command_line(__doc__ or "")
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    model = model_config("paper", 16, 4, 4, encoding="angle").build()
    weights = model.split(model.initial_parameters(rng))[0]
    inputs = model.prepare(rng.uniform(-np.pi, np.pi, (options.samples, 16)))
    figures: dict[str, Any] = {"options": vars(options)}
    found = {}
    for name, compute in (("qiskit-qdeq", ours), ("EstimatorQNN", theirs)):
        estimator = CountingEstimator()
        started = time.perf_counter()
        found[name] = compute(model, weights, inputs, estimator)
        figures[name] = {
            "jobs": estimator.jobs,
            "pubs": estimator.pubs,
            "parameter_sets": estimator.rows,
            "seconds": time.perf_counter() - started,
        }
        print(f"{name:13s}" + "".join(f"  {key} {value:g}" for key, value in figures[name].items()), flush=True)
    differences = [float(np.abs(a - b).max()) for a, b in zip(found["qiskit-qdeq"], found["EstimatorQNN"], strict=True)]
    figures["largest_difference"] = dict(zip(("inputs", "weights"), differences, strict=True))
    figures["pub_ratio"] = figures["EstimatorQNN"]["pubs"] / figures["qiskit-qdeq"]["pubs"]
    figures["time_ratio"] = figures["EstimatorQNN"]["seconds"] / figures["qiskit-qdeq"]["seconds"]
    print(
        f"{options.samples} samples, seed {options.seed}: largest difference {differences[0]:.1e} (inputs), "
        f"{differences[1]:.1e} (weights); {figures['pub_ratio']:.0f} x fewer PUBs, {figures['time_ratio']:.0f} x faster"
    )
    publish(figures, options.json)
    if not max(differences) < _TOLERANCE:
        raise SystemExit(f"the two disagree by {max(differences):.1e}, more than {_TOLERANCE:g}")


if __name__ == "__main__":
    main()
