"""Error mitigation lowers errors, offline: measured on the noise of a fake device, against exact values.

python benchmarks/mitigation.py [--device torino] [--physical-qubits 0 1 2 3] [--levels 0 1 2] [--json FILE]

Every level goes through the client-side Runtime estimator as on hardware: 0 nothing, 1 readout mitigation (TREX), 2 gate
twirling and zero-noise extrapolation as well. `exact` is level 0 without shot noise: what no number of shots can remove.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from common import command_line, publish
from qiskit.primitives.containers.observables_array import ObservablesArray

from qiskit_qdeq.circuits import AngleEncoder, CircuitTemplate, paper_ansatz
from qiskit_qdeq.execution.devices import SubDevice, fake_backend, sub_device
from qiskit_qdeq.execution.estimators import Execution, OpenEstimator, build_estimator

Problem = dict[str, Any]


def problem(num_qubits: int, samples: int, seed: int) -> Problem:
    """The paper's circuit at random inputs and weights."""
    template = CircuitTemplate(AngleEncoder.paper(num_qubits), paper_ansatz(num_qubits))
    rng = np.random.default_rng(seed)
    values = rng.uniform(-np.pi, np.pi, (samples, template.circuit.num_parameters))
    return {"template": template, "values": values}


def expectation_values(opened: OpenEstimator, case: Problem) -> np.ndarray:
    """<Z_j> (K, samples), in one PUB."""
    circuit, observables = case["template"].circuit, case["template"].state_observables
    if opened.pass_manager is not None:
        circuit = opened.pass_manager.run(circuit)
        observables = [observable.apply_layout(circuit.layout) for observable in observables]
    columns = [list(case["template"].circuit.parameters).index(parameter) for parameter in circuit.parameters]
    pub = (circuit, ObservablesArray(list(observables)).reshape(-1, 1), case["values"][:, columns])
    return opened.estimator.run([pub]).result()[0].data.evs


# what is compared: a quantity is an array computed from an open estimator
QUANTITIES: dict[str, Callable[[OpenEstimator, Problem], np.ndarray]] = {"<Z>": expectation_values}


def row(name: str, execution: Execution, device: SubDevice | None, case: Problem, truth: dict[str, np.ndarray]) -> Any:
    objects = {} if device is None else {"backend": device}
    figures = {}
    for quantity, compute in QUANTITIES.items():
        started = time.perf_counter()
        with build_estimator(execution, case["template"].num_qubits, **objects) as opened:
            values = compute(opened, case)
        seconds = time.perf_counter() - started
        if quantity not in truth:
            truth[quantity] = values
        error = values - truth[quantity]
        figures[quantity] = {
            "rms_error": float(np.sqrt(np.mean(error**2))),
            "largest_error": float(np.abs(error).max()),
            "slope": float(np.sum(values * truth[quantity]) / np.sum(truth[quantity] ** 2)),
            "seconds": seconds,
        }
        print(
            f"{name:8s} {quantity:10s}" + "".join(f"  {key} {value:8.4f}" for key, value in figures[quantity].items())
        )
    return figures


def main() -> None:
    parser = command_line(__doc__ or "")
    parser.add_argument("--device", default="torino", help="a fake device of qiskit-ibm-runtime")
    parser.add_argument("--physical-qubits", type=int, nargs="+", default=None, help="default: the 4 best calibrated")
    parser.add_argument("--levels", type=int, nargs="+", default=[0, 1, 2], choices=(0, 1, 2))
    parser.add_argument("--samples", type=int, default=6)
    parser.add_argument("--shots", type=int, default=16384)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    device = sub_device(fake_backend(options.device), options.physical_qubits or 4)
    case = problem(device.num_qubits, options.samples, options.seed)
    print(f"qubits {device.device_qubits} of {device.name}, {options.samples} samples, {options.shots} shots")
    truth: dict[str, np.ndarray] = {}
    row("truth", Execution(), None, case, truth)
    figures = {"exact": row("exact", Execution("given", seed=options.seed), device, case, truth)}
    for level in options.levels:
        execution = Execution("given", shots=options.shots, resilience_level=level, seed=options.seed)
        figures[f"level {level}"] = row(f"level {level}", execution, device, case, truth)
    publish({"qubits": device.device_qubits, **figures}, options.json)


if __name__ == "__main__":
    main()
