"""Simulators: perfect, noisy by a device's calibration, or noisy by a few rates.

Each function returns an `AerSimulator` that carries its noise model and the gates it is defined on: transpile for it, give
it to `DensityMatrixEstimator`, or use it as the backend of any other estimator.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from qiskit.providers import BackendV2

from qiskit_qdeq.circuits._checks import check_count
from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.execution.devices import fake_backend, sub_device
from qiskit_qdeq.execution.timing import default_rep_delay

if TYPE_CHECKING:
    from qiskit_aer import AerSimulator

ONE_QUBIT_GATES = ("sx", "x")
"""Gates that `simple_noise` makes noisy; its third one-qubit gate, rz, costs nothing, as on IBM devices."""
TWO_QUBIT_GATES = ("cz",)
BINDABLE_GATES = frozenset({"p", "r", "rx", "ry", "rz", "rxx", "ryy", "rzz", "rzx", "u", "u1", "u2", "u3"})
"""Gates whose parameters Aer binds at run time. Those of controlled gates (crx, cp ...) it silently gets wrong, in its
EstimatorV2 and SamplerV2 too (qiskit-aer issues 2323, 2391, 2403)."""
PERFECT_GATES = (
    "h",
    "x",
    "y",
    "z",
    "s",
    "sdg",
    "t",
    "tdg",
    "sx",
    "sxdg",
    "rx",
    "ry",
    "rz",
    "p",
    "cx",
    "cz",
    "swap",
    "rzz",
)


def perfect_simulator(num_qubits: int) -> AerSimulator:
    """Return a simulator without noise, of gates whose parameters Aer binds correctly."""
    from qiskit_aer import AerSimulator

    count = check_count("num_qubits", num_qubits)
    return AerSimulator(method="statevector", basis_gates=list(PERFECT_GATES), n_qubits=count)


def noise_from_backend(backend: BackendV2) -> AerSimulator:
    """Return a simulator of `backend` with its gate errors, relaxation and readout errors.

    Args:
        backend: a small device, see `sub_device`: the density matrix of n qubits has 4ⁿ entries.
    """
    from qiskit_aer import AerSimulator

    simulator = AerSimulator.from_backend(backend, method="density_matrix")
    # gate durations come with the target, this does not; it makes a simulated run tell what the device would take
    simulator.default_rep_delay = default_rep_delay(backend)
    return simulator


def simple_noise(
    num_qubits: int,
    *,
    one_qubit: float = 0.0,
    two_qubit: float = 0.0,
    readout: float = 0.0,
    amplitude_damping: float = 0.0,
    phase_damping: float = 0.0,
) -> AerSimulator:
    """Return a simulator whose gates are rz (perfect), sx, x and cz between any two qubits, with noise of given rates.

    A gate on k qubits is followed by ρ -> (1 - p) ρ + p 1/2ᵏ on them, then by damping of each.

    Args:
        num_qubits: size of the simulator.
        one_qubit: p of sx and x.
        two_qubit: p of cz.
        readout: probability that a measured bit is read wrongly.
        amplitude_damping: probability to decay to |0>, per gate and qubit.
        phase_damping: probability to lose the phase, per gate and qubit.

    Raises:
        InputError: if a rate is no probability.
    """
    from qiskit_aer import AerSimulator
    from qiskit_aer.noise import NoiseModel, ReadoutError, depolarizing_error, phase_amplitude_damping_error

    rates = {
        "one_qubit": one_qubit,
        "two_qubit": two_qubit,
        "readout": readout,
        "amplitude_damping": amplitude_damping,
        "phase_damping": phase_damping,
        "amplitude_damping + phase_damping": amplitude_damping + phase_damping,
    }
    for name, rate in rates.items():
        if not 0 <= rate <= 1:
            raise InputError(f"{name} must be a probability between 0 and 1, got {rate!r}")
    damping = phase_amplitude_damping_error(amplitude_damping, phase_damping)
    basis = ["rz", *ONE_QUBIT_GATES, *TWO_QUBIT_GATES]
    model = NoiseModel(basis_gates=basis)
    _add(model, depolarizing_error(one_qubit, 1).compose(damping), ONE_QUBIT_GATES)
    _add(model, depolarizing_error(two_qubit, 2).compose(damping.tensor(damping)), TWO_QUBIT_GATES)
    if readout:
        model.add_all_qubit_readout_error(ReadoutError([[1 - readout, readout], [readout, 1 - readout]]))
    return AerSimulator(
        noise_model=model,
        method="density_matrix",
        basis_gates=basis,
        n_qubits=check_count("num_qubits", num_qubits),
    )


def parse_noise(text: str, num_qubits: int) -> AerSimulator:
    """Return the noisy simulator that a command line describes.

    Args:
        text: "one_qubit,two_qubit,readout", such as "0.001,0.01,0.02", or "fake:<name>", such as "fake:torino", whose best
            calibrated qubits are taken.
        num_qubits: size of the simulator.

    Raises:
        InputError: if `text` is neither.
    """
    if text.startswith("fake:"):
        return noise_from_backend(sub_device(fake_backend(text.removeprefix("fake:")), num_qubits))
    number = r"\s*(\d*\.?\d+(?:[eE][+-]?\d+)?)\s*"
    if not (match := re.fullmatch(",".join([number] * 3), text)):
        raise InputError(
            f"noise must be three rates 'one_qubit,two_qubit,readout' such as '0.001,0.01,0.02', or a device such as "
            f"'fake:torino', got {text!r}"
        )
    one_qubit, two_qubit, readout = map(float, match.groups())
    return simple_noise(num_qubits, one_qubit=one_qubit, two_qubit=two_qubit, readout=readout)


def _add(model: Any, error: Any, gates: tuple[str, ...]) -> None:
    if not error.ideal():
        model.add_all_qubit_quantum_error(error, list(gates))
