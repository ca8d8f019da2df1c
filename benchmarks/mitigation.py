"""Error mitigation lowers errors of values, of z* and of the gradient, offline: on the noise of a fake device.

python benchmarks/mitigation.py [--device torino] [--physical-qubits 0 1 2 3] [--levels 0 1 2] [--json FILE]

Every level goes through the client-side Runtime estimator as on hardware: 0 nothing, 1 readout mitigation (TREX), 2 gate
twirling and zero-noise extrapolation as well. `exact` is level 0 without shot noise: what no number of shots can remove.
<Z> is of the paper's circuit with angle encoding; z* and the gradient dL/dθ at it are of a model with amplitude encoding and
a one-layer ansatz, found with solver `probe`. Errors are against exact computation without noise.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from common import command_line, publish
from qiskit.primitives.containers.observables_array import ObservablesArray

from qiskit_qdeq import TrainingConfig, model_config, solver
from qiskit_qdeq.circuits import AngleEncoder, CircuitTemplate, paper_ansatz
from qiskit_qdeq.execution.devices import SubDevice, fake_backend, sub_device
from qiskit_qdeq.execution.estimators import Execution, OpenEstimator, build_estimator
from qiskit_qdeq.training.step import training_step

Problem = dict[str, Any]


def problem(num_qubits: int, samples: int, equilibria: int, seed: int) -> Problem:
    """The paper's circuit at random inputs and weights, and a model with `equilibria` random samples and labels."""
    template = CircuitTemplate(AngleEncoder.paper(num_qubits), paper_ansatz(num_qubits))
    rng = np.random.default_rng(seed)
    values = rng.uniform(-np.pi, np.pi, (samples, template.circuit.num_parameters))
    config = model_config("default", 2**num_qubits, 4, num_qubits, ansatz="hardware_efficient", ansatz_layers=1)
    model = config.build()
    return {
        "template": template,
        "values": values,
        "model": model,
        "parameters": model.initial_parameters(rng),
        "inputs": model.prepare(rng.standard_normal((equilibria, 2**num_qubits))),
        "labels": rng.integers(0, 4, equilibria),
    }


def expectation_values(opened: OpenEstimator, case: Problem) -> dict[str, np.ndarray]:
    """<Z_j> (K, samples), in one PUB."""
    circuit, observables = case["template"].circuit, case["template"].state_observables
    if opened.pass_manager is not None:
        circuit = opened.pass_manager.run(circuit)
        observables = [observable.apply_layout(circuit.layout) for observable in observables]
    columns = [list(case["template"].circuit.parameters).index(parameter) for parameter in circuit.parameters]
    pub = (circuit, ObservablesArray(list(observables)).reshape(-1, 1), case["values"][:, columns])
    return {"<Z>": opened.estimator.run([pub]).result()[0].data.evs}


def equilibria(opened: OpenEstimator, case: Problem) -> dict[str, np.ndarray]:
    """z* (B, K) and the gradient of the loss there with respect to the circuit parameters (p,)."""
    model = case["model"].measured(opened.estimator, backend=opened.backend, pass_manager=opened.pass_manager)
    result = training_step(
        model,
        case["parameters"],
        case["inputs"],
        case["labels"],
        TrainingConfig(solver=solver("probe")),
        direct=False,
        initial=None,
        rng=np.random.default_rng,
    )
    return {"z*": result.solution.state, "gradient": result.gradient[: model.num_weights]}


#: What is compared: functions that compute named arrays from an open estimator.
QUANTITIES: tuple[Callable[[OpenEstimator, Problem], dict[str, np.ndarray]], ...] = (expectation_values, equilibria)


def row(name: str, execution: Execution, device: SubDevice | None, case: Problem, truth: dict[str, np.ndarray]) -> Any:
    objects = {} if device is None else {"backend": device}
    figures = {}
    for compute in QUANTITIES:
        started = time.perf_counter()
        with build_estimator(execution, case["template"].num_qubits, **objects) as opened:
            found = compute(opened, case)
        seconds = time.perf_counter() - started
        for quantity, values in found.items():
            expected = truth.setdefault(quantity, values)
            error = values - expected
            figures[quantity] = {
                "rms_error": float(np.sqrt(np.mean(error**2))),
                "largest_error": float(np.abs(error).max()),
                "relative_error": float(np.linalg.norm(error) / np.linalg.norm(expected)),
                "slope": float(np.sum(values * expected) / np.sum(expected**2)),
                "seconds": seconds,
            }
            text = "".join(f"  {key} {value:8.4f}" for key, value in figures[quantity].items())
            print(f"{name:8s} {quantity:10s}{text}", flush=True)
    return figures


def study(device: SubDevice, options: Any) -> dict[str, Any]:
    """All levels on the noise of one part of a device."""
    case = problem(device.num_qubits, options.samples, options.equilibria, options.seed)
    print(
        f"qubits {device.device_qubits} of {device.name}, {options.samples} samples for <Z>, {options.equilibria} "
        f"equilibria, {options.shots} shots, seed {options.seed}"
    )
    truth: dict[str, np.ndarray] = {}
    row("truth", Execution(), None, case, truth)
    figures = {"exact": row("exact", Execution("given", seed=options.seed), device, case, truth)}
    for level in options.levels:
        execution = Execution("given", shots=options.shots, resilience_level=level, seed=options.seed)
        figures[f"level {level}"] = row(f"level {level}", execution, device, case, truth)
    return figures


def main() -> None:
    parser = command_line(__doc__ or "")
    parser.add_argument("--device", default="torino", help="a fake device of qiskit-ibm-runtime")
    parser.add_argument(
        "--physical-qubits", type=int, nargs="+", default=None, help="default: the 4 best calibrated, and then 0 to 3"
    )
    parser.add_argument("--levels", type=int, nargs="+", default=[0, 1, 2], choices=(0, 1, 2))
    parser.add_argument("--samples", type=int, default=6)
    parser.add_argument("--equilibria", type=int, default=2, help="samples whose z* and gradient are measured")
    parser.add_argument("--shots", type=int, default=16384)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    figures: dict[str, Any] = {"options": vars(options)}
    for qubits in [options.physical_qubits] if options.physical_qubits else [4, [0, 1, 2, 3]]:
        device = sub_device(fake_backend(options.device), qubits)
        figures[f"qubits {list(device.device_qubits)}"] = study(device, options)
    publish(figures, options.json)


if __name__ == "__main__":
    main()
