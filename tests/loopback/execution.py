"""Decodes what the client posts as a job with the client's own schemas, executes it, and encodes the result the same way.

The noise of a job comes from its tags, or from its content, so a request gives the same bits whenever and in whichever job
it runs.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from qiskit import QuantumCircuit

from .devices import Device
from .simulation import sample_bits

#: "noisy": with the device's noise; "ideal": perfect gates; "random": coin flips, through the same schemas.
ENGINES = ("noisy", "ideal", "random")


@dataclass(frozen=True)
class Outcome:
    """What running a job gave.

    Attributes:
        body: of GET /jobs/ID/results.
        circuits: bound circuits executed.
        executions: shots of all circuits together.
        seconds: of pure execution, (rep delay + circuit duration) × executions.
    """

    body: str
    circuits: int
    executions: int
    seconds: float


def digest(program: str, params: dict[str, Any]) -> str:
    """SHA-256 of what a job asks for: equal for equal requests, although the client names its parameters anew each time."""
    try:
        content = _content_of_program(params) if program == "executor" else _content_of_pubs(params)
    except Exception:  # a job that cannot be read will fail when it runs
        content = params
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _content_of_program(params: dict[str, Any]) -> list[Any]:
    from ibm_quantum_schemas.executor.version_2_0 import ParamsModel
    from qiskit_ibm_runtime.quantum_program.converters.converters_2_0 import quantum_program_from_2_0

    program, _ = quantum_program_from_2_0(ParamsModel.model_validate(params))
    described = copy.deepcopy(params["quantum_program"].get("passthrough_data")) or {}
    described.get("post_processor", {}).get("options", {}).pop("environment", None)  # it names the tags
    content: list[Any] = [program.shots, params["options"], described]
    for item in program.items:
        arguments: list[Any] = []
        if hasattr(item, "samplex"):
            bound = item.samplex_arguments
            arguments = [_plain(bound[spec.name]) for spec in bound.specs if spec.name in bound]
            arguments.append([str(expression) for expression in item.samplex._param_table._expressions])
        else:
            arguments.append(_plain(item.circuit_arguments))
        content.append([_plain(item.circuit), list(item.shape), arguments])
    return content


def _content_of_pubs(params: dict[str, Any]) -> list[Any]:
    from qiskit_ibm_runtime.json import RuntimeDecoder

    pubs = json.loads(json.dumps(params["pubs"]), cls=RuntimeDecoder)
    return [params.get("options"), [[_plain(part) for part in pub] for pub in pubs]]


def _plain(value: Any) -> Any:
    if isinstance(value, QuantumCircuit):
        return [
            [item.name, [value.find_bit(bit).index for bit in item.qubits], [str(param) for param in item.params]]
            for item in value.data
        ]
    if isinstance(value, np.ndarray):
        return [list(value.shape), hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()]
    return value if isinstance(value, int | float | list | dict | None) else str(value)


def seed_of(tags: Sequence[str], content: str, pattern: str | None) -> int:
    """Of a job's noise: from what `pattern` finds in its tags, or from its content if that is nothing or `pattern` None."""
    found = [] if pattern is None else [part for tag in sorted(tags) for part in re.findall(pattern, tag)]
    text = "\n".join(found) if found else content
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") & 0x7FFFFFFF


def execute(program: str, params: dict[str, Any], device: Device, engine: str, seed: int) -> Outcome:
    """Run one job; raises ValueError or KeyError with what is wrong with it."""
    if program == "executor":
        return _execute_quantum_program(params, device, engine, np.random.default_rng(seed))
    if program == "estimator":
        return _execute_legacy_estimator(params, device, engine, seed)
    raise ValueError(f"program {program!r} is not known here")


def _execute_quantum_program(params: dict[str, Any], device: Device, engine: str, rng: np.random.Generator) -> Outcome:
    from ibm_quantum_schemas.common import CompressedTensorModel
    from ibm_quantum_schemas.executor.version_2_0 import (
        ChunkPart,
        ChunkSpan,
        ItemMetadataModel,
        MetadataModel,
        ParamsModel,
        QuantumProgramResultItemModel,
        QuantumProgramResultModel,
    )
    from qiskit_ibm_runtime.quantum_program.converters.converters_2_0 import quantum_program_from_2_0

    model = ParamsModel.model_validate(params)
    program, options = quantum_program_from_2_0(model)
    started = datetime.now(UTC)
    circuits = executions = 0
    seconds, items, parts = 0.0, [], []
    for index, item in enumerate(program.items):
        check_isa(item.circuit, device)
        data = _run_item(item, program.shots, device, engine, rng)
        items.append(
            QuantumProgramResultItemModel(
                results={name: CompressedTensorModel.from_numpy(array) for name, array in data.items()},
                metadata=ItemMetadataModel(),
            )
        )
        rows = item.size()
        parts.append(ChunkPart(idx_item=index, size=rows, permutation=[], element_range=(0, rows, 1)))
        circuits += rows
        executions += rows * program.shots
        delay = options.execution.rep_delay
        seconds += (device.rep_delay if delay is None else delay) * rows * program.shots
        seconds += circuit_seconds(item.circuit, device) * rows * program.shots
    result = QuantumProgramResultModel(
        data=items,
        metadata=MetadataModel(chunk_timing=[ChunkSpan(start=started, stop=datetime.now(UTC), parts=parts)]),
        passthrough_data=model.quantum_program.passthrough_data,
        semantic_role=model.quantum_program.semantic_role,
    )
    return Outcome(result.model_dump_json(), circuits, executions, seconds)


def _run_item(
    item: Any, shots: int, device: Device, engine: str, rng: np.random.Generator
) -> dict[str, np.ndarray[Any, Any]]:
    circuit, shape = item.circuit, tuple(item.shape)
    if engine == "random":
        data = _empty_outputs(item, shape)
        data.pop("parameter_values", None)
        rows = math.prod(shape)
        bits = rng.random((rows, shots, circuit.num_clbits)) < 0.5
    else:
        data = sample_samplex(item, shape, rng)
        values = data.pop("parameter_values").reshape(math.prod(shape), -1)
        bits = sample_bits(circuit, values, shots, rng, device.noise if engine == "noisy" else None)
    for register in circuit.cregs:
        places = [circuit.find_bit(bit).index for bit in register]
        data[register.name] = bits[..., places].reshape(*shape, shots, len(places))
    return data


def sample_samplex(item: Any, shape: tuple[int, ...], rng: np.random.Generator) -> dict[str, np.ndarray[Any, Any]]:
    """The samplex' outputs over `shape`: qiskit_ibm_runtime's `broadcast_sample` with the calls made one after the other.

    `Samplex.sample` opens a pool of threads in each call, which takes three times as long as the work.
    """
    if not hasattr(item, "samplex"):
        return {"parameter_values": np.asarray(item.circuit_arguments)}
    samplex, arguments = item.samplex.finalize(), item.samplex_arguments
    padded = (1,) * (len(shape) - arguments.ndim) + arguments.shape
    swept = tuple(size for size in padded if size > 1)
    repeated = tuple(size for size, other in zip(shape, padded, strict=True) if other <= 1)
    output = _empty_outputs(item, shape)
    for index in np.ndindex(swept):
        values = iter(index)
        inner = tuple(next(values) if size > 1 else 0 for size in arguments.shape)
        sampled = _sample_once(samplex, arguments[inner], math.prod(repeated), rng)
        values = iter(index)
        place = tuple(next(values) if size > 1 else slice(None) for size in padded)
        for name, array in output.items():
            array[place] = sampled[name].reshape(*repeated, *sampled[name].shape[1:])
    return output


def _empty_outputs(item: Any, shape: tuple[int, ...]) -> dict[str, np.ndarray[Any, Any]]:
    from samplomatic.tensor_interface import TensorSpecification

    if not hasattr(item, "samplex"):
        return {}
    specifications = [s for s in item.samplex.outputs().specs if isinstance(s, TensorSpecification)]
    return {s.name: np.zeros((*shape, *s.shape[1:]), dtype=s.dtype) for s in specifications}


def _sample_once(samplex: Any, arguments: Any, count: int, rng: np.random.Generator) -> Any:
    from samplomatic.tensor_interface import TensorSpecification

    outputs = samplex.outputs()
    for spec in outputs.specs:
        if isinstance(spec, TensorSpecification):
            sizes = tuple(count if size == "num_randomizations" else size for size in spec.shape)
            outputs[spec.name] = np.zeros(sizes, dtype=spec.dtype)
    evaluated = samplex._param_table.evaluate(arguments.get("parameter_values", []))
    if samplex._passthrough_params:
        outputs["parameter_values"][:, samplex._passthrough_params[0]] = evaluated[samplex._passthrough_params[1]]
    registers: dict[Any, Any] = {}
    nodes = samplex._sampling_nodes
    for child, node in zip(rng.spawn(len(nodes)), nodes, strict=True):
        node.sample(registers, child, arguments, count)
    for stream in samplex._evaluation_streams:
        for node in stream:
            node.evaluate(registers, evaluated[node.parameter_idxs])
    nodes = samplex._collection_nodes
    for child, node in zip(rng.spawn(len(nodes)), nodes, strict=True):
        node.collect(registers, outputs, child)
    return outputs


def _execute_legacy_estimator(params: dict[str, Any], device: Device, engine: str, seed: int) -> Outcome:
    from qiskit.primitives import BackendEstimatorV2, StatevectorEstimator
    from qiskit_ibm_runtime.json import RuntimeDecoder, RuntimeEncoder

    decoded = json.loads(json.dumps(params), cls=RuntimeDecoder)
    options = decoded.get("options", {})
    precision = options.get("default_precision") or 1 / 64
    if options.get("default_shots"):
        precision = options["default_shots"] ** -0.5
    pubs = [
        (*pub[:3], pub[3] or precision) for pub in (tuple(pub) + (None,) * (4 - len(pub)) for pub in decoded["pubs"])
    ]
    for pub in pubs:
        check_isa(pub[0], device)
    simulator = _simulator(device, engine == "noisy")
    options = {"seed_simulator": seed or 1}
    if engine == "random":
        result = StatevectorEstimator(seed=seed).run([pub[:3] for pub in pubs], precision=precision).result()
        simulator.circuits, simulator.executions = len(pubs), math.ceil(precision**-2) * len(pubs)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the simulator; they are no business of the client
            result = BackendEstimatorV2(backend=simulator, options=options).run(pubs).result()
    duration = max((circuit_seconds(pub[0], device, measure=True) for pub in pubs), default=0.0)
    seconds = (device.rep_delay + duration) * simulator.executions
    return Outcome(json.dumps(result, cls=RuntimeEncoder), simulator.circuits, simulator.executions, seconds)


def _simulator(device: Device, noisy: bool) -> Any:
    from qiskit_aer import AerSimulator

    class Counting(AerSimulator):  # type: ignore[misc]
        """Counts what it runs."""

        circuits = 0
        executions = 0

        def run(self, circuits: Any, *arguments: Any, **options: Any) -> Any:
            type(self).circuits += len(circuits)
            type(self).executions += len(circuits) * options["shots"]
            return super().run(circuits, *arguments, **options)

    noise = device.noise_model if noisy else None
    method = "density_matrix" if noisy else "statevector"
    simulator = Counting(noise_model=noise, method=method, max_parallel_threads=1)
    simulator.set_max_qubits(max(device.num_qubits, 32))
    return simulator


def check_isa(circuit: Any, device: Device) -> None:
    """Raise ValueError unless the device has every gate of `circuit` where it stands."""
    if circuit.num_qubits > device.num_qubits:
        raise ValueError(f"the circuit has {circuit.num_qubits} qubits, {device.name} {device.num_qubits}")
    for instruction in circuit.data:
        qubits = tuple(circuit.find_bit(qubit).index for qubit in instruction.qubits)
        if instruction.name != "barrier" and not device.target.instruction_supported(instruction.name, qubits):
            raise ValueError(f"the instruction {instruction.name} on qubits {qubits} is not supported by the target")


def circuit_seconds(circuit: Any, device: Device, *, measure: bool = False) -> float:
    """Duration of the longest chain of gates, measurements included, by the target's gate times."""
    free = [0.0] * circuit.num_qubits
    used = set()
    for instruction in circuit.data:
        qubits = [circuit.find_bit(qubit).index for qubit in instruction.qubits]
        length = 0.0
        if instruction.name != "barrier":
            used.update(qubits)
            length = _length(device, instruction.name, tuple(qubits), instruction.operation)
        end = max(free[qubit] for qubit in qubits) + length
        for qubit in qubits:
            free[qubit] = end
    readout = [_length(device, "measure", (qubit,), None) for qubit in used] if measure else []
    return max(free, default=0.0) + max(readout, default=0.0)


def _length(device: Device, name: str, qubits: tuple[int, ...], operation: Any) -> float:
    if name == "delay":
        scale = {"dt": device.target.dt, "ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0}[operation.unit]
        return float(operation.duration) * float(scale)
    properties = device.target[name].get(qubits)
    return float(getattr(properties, "duration", None) or 0.0)


def count_executions(program: str, params: dict[str, Any]) -> int:
    """Shots of all circuits of a job, without running it; of a legacy job, of one basis per row."""
    if program == "executor":
        content = params["quantum_program"]
        rows = [math.prod(item["shape"]) for item in content["items"]]
        return int(content["shots"]) * sum(rows)
    precision = params.get("options", {}).get("default_precision") or 1 / 64
    return sum(math.ceil((pub[3] if len(pub) > 3 and pub[3] else precision) ** -2) for pub in params["pubs"])
