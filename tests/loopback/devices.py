"""The device behind the service: a fake backend's raw configuration and calibration, whole or cut to a few qubits."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

from qiskit.transpiler import Target

from qiskit_qdeq.execution.devices import SubDevice

from .simulation import Noise

#: Five well calibrated qubits of the fake Torino in a row (1-0-2-4-3); basis cz, id, rz, sx, x.
QUBITS = (80, 81, 92, 98, 99)


@dataclass(frozen=True)
class Device:
    """What the service serves as a backend.

    Attributes:
        name: under which clients find it.
        configuration: JSON of GET /backends/NAME/configuration, complex numbers undecoded.
        properties: JSON of GET /backends/NAME/properties.
    """

    name: str
    configuration: dict[str, Any]
    properties: dict[str, Any]

    @property
    def num_qubits(self) -> int:
        return int(self.configuration["n_qubits"])

    @property
    def rep_delay(self) -> float:
        """Seconds between two executions."""
        return float(self.configuration.get("default_rep_delay") or 250.0) * 1e-6

    @cached_property
    def target(self) -> Target:
        from qiskit_ibm_runtime.utils.backend_converter import convert_to_target
        from qiskit_ibm_runtime.utils.backend_decoder import configuration_from_server_data, properties_from_server_data

        configuration = configuration_from_server_data(copy.deepcopy(self.configuration))
        return convert_to_target(configuration, properties_from_server_data(copy.deepcopy(self.properties)))

    @cached_property
    def noise_model(self) -> Any:
        """Aer's, made from the calibration."""
        from qiskit_aer.noise import NoiseModel

        return NoiseModel.from_backend(SubDevice(self.target, self.name, tuple(range(self.target.num_qubits))))

    @cached_property
    def noise(self) -> Noise:
        return Noise.from_aer(self.noise_model)


@cache
def load_device(
    fake: str = "FakeTorino", qubits: tuple[int, ...] | None = QUBITS, name: str = "ibm_loopback"
) -> Device:
    """Read the files of a fake backend class of qiskit-ibm-runtime; `qubits` (None: all) become 0, 1, 2, ..."""
    from qiskit_ibm_runtime import fake_provider

    backend = getattr(fake_provider, fake)()
    configuration = backend._load_json(backend.conf_filename)
    properties = backend._load_json(backend.props_filename)
    if qubits is not None:
        position = {qubit: index for index, qubit in enumerate(qubits)}
        configuration = _cut_configuration(configuration, position)
        properties = _cut_properties(properties, position)
    configuration["backend_name"] = properties["backend_name"] = name
    return Device(name, configuration, properties)


def _cut_configuration(full: dict[str, Any], position: dict[int, int]) -> dict[str, Any]:
    def edges(pairs: list[list[int]]) -> list[list[int]]:
        return [[position[q] for q in pair] for pair in pairs if all(q in position for q in pair)]

    # of the fields about pulses, only what the client insists on remains
    per_qubit = ("channels", "qubit_channel_mapping", "qubit_lo_range", "meas_lo_range", "coords", "u_channel_lo")
    cut = {key: value for key, value in full.items() if key not in per_qubit}
    cut["n_qubits"] = len(position)
    cut["coupling_map"] = edges(full["coupling_map"])
    cut["gates"] = [{**gate, "coupling_map": edges(gate.get("coupling_map", []))} for gate in full["gates"]]
    cut["meas_map"] = [list(range(len(position)))]
    cut["n_uchannels"], cut["hamiltonian"] = 0, {"h_latex": ""}
    return {**cut, "qubit_lo_range": [], "meas_lo_range": [], "u_channel_lo": []}


def _cut_properties(full: dict[str, Any], position: dict[int, int]) -> dict[str, Any]:
    gates = [
        {**gate, "qubits": [position[q] for q in gate["qubits"]]}
        for gate in full["gates"]
        if all(q in position for q in gate["qubits"])
    ]
    for gate in gates:
        gate["name"] = gate["gate"] + "_".join(map(str, gate["qubits"]))
    return {
        **full,
        "qubits": [full["qubits"][q] for q in position],
        "gates": gates,
        "general": [],
        "general_qlists": [],
    }
