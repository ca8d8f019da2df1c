"""What a point costs on a device: gates of the transpiled circuit, circuits, shots and QPU seconds, without running any.

No state vector is made, so that these figures exist for as many qubits as the device has. With W shifted circuits for the
weight gradient and E for the encoder's angles of one sample, which shift rules and the circuit fix, a step of B samples runs

    direct         B (1 + W)
    probe          B (K + 1) + K (K + 1) / 2    to know the map    +  B (1 + W)        at the equilibrium
    T Broyden      B (T + 1)                    to solve, at most  +  B (1 + E + W)    at the equilibrium

circuits; W = 2 n (2 L + 1) for L hardware-efficient layers, E = 2 D for angles.
A prediction runs 1, K + 2 or at most T + 2 circuits a sample; for `probe` each block of samples shares K (K + 1) / 2 more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from qiskit_qdeq.evaluation.sampling import Sampling
from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.execution.devices import fake_backend, ibm_backend
from qiskit_qdeq.execution.limits import Limits
from qiskit_qdeq.model import QDEQModel
from qiskit_qdeq.studies.scaling.points import SOLVER_STEPS, Point, point_of
from qiskit_qdeq.training.cost import predicted_step
from qiskit_qdeq.training.cost_estimate import estimate_cost

#: Of the formulas' tables: shots per circuit, training samples of an epoch.
SHOTS = 1024
EPOCH = 1024
#: Those of IBM's client-side Estimator.
_LIMITS = Limits(4096, 10_000_000)


def device_task(arguments: Mapping[str, Any], *, device: Any = None) -> dict[str, Any]:
    """Gates and cost of a point.

    Args:
        arguments: `point`, fields of `Point`, and `backend`, "fake:NAME" or "ibm:NAME", or its name if `device` is given.
        device: a backend object.

    Returns:
        `refused`: None, or why there are no figures; `num_weights`, `num_parameters`; `depth` and `two_qubit_gates` as
        designed; `isa_depth` and `isa_two_qubit_gates` on the device; `step` and `epoch` (1,024 samples): circuits, shots,
        jobs, QPU seconds; `prediction`: circuits a sample.
    """
    point = point_of(arguments["point"])
    try:
        return {"refused": None, **_figures(point, device or named_device(str(arguments["backend"])))}
    except InputError as error:
        return {"refused": str(error)}


def named_device(name: str) -> Any:
    """The backend of "fake:NAME" or "ibm:NAME".

    Raises:
        InputError: for another text, or a device that there is not.
    """
    kind, _, rest = name.partition(":")
    if kind not in ("fake", "ibm") or not rest:
        raise InputError(f"backend must be 'fake:NAME' or 'ibm:NAME', such as 'fake:torino', got {name!r}")
    return fake_backend(rest) if kind == "fake" else ibm_backend(rest)


def _figures(point: Point, device: Any) -> dict[str, Any]:
    model = describe(point, device)
    evaluator: Any = model.evaluator
    template, runner = model.template, evaluator.runner
    config = point.config(measured=True)
    step = predicted_step(model, config, point.batch)
    epoch = estimate_cost(model, replace(config, epochs=1), EPOCH).total
    isa = runner.circuit
    return {
        "num_weights": model.num_weights,
        "num_parameters": model.num_parameters,
        "depth": template.depth,
        "two_qubit_gates": template.two_qubit_gates,
        "isa_depth": isa.depth(),
        "isa_two_qubit_gates": isa.num_nonlocal_gates(),
        "repetition_us": None if runner.timing is None else 1e6 * runner.timing.repetition_seconds,
        "step": asdict(step),
        "epoch": asdict(epoch),
        "prediction": prediction_circuits(point)[0],
        "exact": point.mode == "direct" or point.encoding == "amplitude",
    }


def describe(point: Point, device: Any) -> QDEQModel:
    """The point's circuit transpiled for a device, at optimization level 3, as a run on it does.

    Raises:
        InputError: if the circuit does not exist or does not fit on the device.
    """
    return point.build().measured(
        _NotRun(), sampling=Sampling(forward=SHOTS), backend=device, optimization_level=3, limits=_LIMITS
    )


class _NotRun:
    """Stands where an estimator is: it is asked how many shots it takes, never to take them."""

    def run(self, pubs: Any, *, precision: float | None = None) -> Any:
        raise NotImplementedError("the scaling study runs no circuits")


def step_circuits(point: Point) -> int:
    """Circuits of a training step, by the formula.

    Raises:
        InputError: for another ansatz than the hardware-efficient one, whose gates the formula counts.

    >>> step_circuits(Point.of("amplitude", "equilibrium", 4, batch=32))
    1994
    """
    if point.ansatz != "hardware_efficient":
        raise InputError(f"the formula is for ansatz 'hardware_efficient', got {point.ansatz!r}")
    weights = 2 * point.num_qubits * (2 * point.layers + 1)
    found = point.batch * (1 + weights)
    if point.mode == "direct":
        return found
    if point.encoding == "amplitude":
        return found + point.batch * (point.num_states + 1) + prediction_circuits(point)[1]
    return found + point.batch * (SOLVER_STEPS + 1 + 2 * point.num_features)


def prediction_circuits(point: Point) -> tuple[int, int]:
    """Circuits of predicting one sample, and those that a block of samples shares, by the formula."""
    if point.mode == "direct":
        return 1, 0
    if point.encoding == "amplitude":
        return point.num_states + 2, point.num_states * (point.num_states + 1) // 2
    return SOLVER_STEPS + 2, 0
