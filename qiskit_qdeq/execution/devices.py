"""Finds devices by name and cuts small ones out of large ones, so that noisy simulation fits in memory.

A Runtime estimator in local mode simulates and measures every qubit of its backend; of a 133-qubit fake backend only a
`sub_device` of as many qubits as the circuit has can be simulated.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

from qiskit.providers import BackendV2, Options
from qiskit.transpiler import InstructionProperties, Target
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential

from qiskit_qdeq.circuits._checks import check_count
from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.execution.events import Announcer, noted
from qiskit_qdeq.execution.failures import failure_of
from qiskit_qdeq.execution.redaction import redact
from qiskit_qdeq.execution.timing import default_rep_delay

_Neighbours = dict[int, dict[int, float]]


class SubDevice(BackendV2):  # type: ignore[misc]
    """Some qubits of a device with their gates and calibration: something to transpile for and to take noise from.

    Attributes:
        device_qubits: qubit i of this backend is qubit `device_qubits[i]` of the device.
        default_rep_delay: seconds between repetitions on the device; None if it does not tell.
    """

    def __init__(
        self, target: Target, name: str, device_qubits: tuple[int, ...], default_rep_delay: float | None = None
    ) -> None:
        super().__init__(name=name, description=f"qubits {list(device_qubits)} of {name}")
        self._target = target
        self.device_qubits = device_qubits
        self.default_rep_delay = default_rep_delay

    @property
    def target(self) -> Target:
        """The gates of these qubits."""
        return self._target

    @property
    def max_circuits(self) -> None:
        """No limit."""
        return None

    @classmethod
    def _default_options(cls) -> Options:
        return Options()

    def run(self, run_input: Any, **options: Any) -> Any:
        """Not available: a sub-device describes, it does not execute."""
        raise NotImplementedError("a sub-device cannot run circuits; simulate it with noise_from_backend(sub_device)")


def at_service(backend: BackendV2) -> bool:
    """Whether circuits on this backend run at IBM's service, where they cost money and outlive this process."""
    from qiskit_ibm_runtime import IBMBackend

    return isinstance(backend, IBMBackend)


def sub_device(backend: BackendV2, qubits: int | Sequence[int]) -> SubDevice:
    """Cut a connected part out of a device.

    Given a number, the best calibrated connected qubits are taken: from every qubit a tree is grown that adds the cheapest
    neighbour each time, the cost being its readout error plus the error of the two-qubit gate that connects it; the tree of
    least total cost wins, ties going to the lower qubit numbers.

    Args:
        backend: a device whose target has calibrated gates, such as a fake backend.
        qubits: how many qubits, or which, in the order they are to have.

    Returns:
        A backend with `target` and `device_qubits`; it is for transpiling and for noise models, and runs nothing.

    Raises:
        InputError: if the device has no couplings, too few qubits, or the qubits named are not connected.
    """
    target = backend.target
    neighbours, readout = neighbours_of(target), readout_errors(target)
    if isinstance(qubits, Sequence):
        chosen = tuple(qubits)
        _check_qubits(chosen, target, backend.name)
    else:
        count = check_count("qubits", qubits)
        if count > (target.num_qubits or 0):
            raise InputError(
                f"qubits is {count}, but {backend.name} has only {target.num_qubits}; take a larger device"
            )
        chosen = _best_qubits(count, readout, neighbours, backend.name)
    inside = {
        qubit: {other: neighbours[qubit][other] for other in chosen if other in neighbours[qubit]} for qubit in chosen
    }
    if len(_grow(chosen[0], len(chosen), readout, inside)[1]) < len(chosen):
        raise InputError(
            f"qubits {list(chosen)} of {backend.name} are not connected by two-qubit gates; name neighbours"
        )
    return SubDevice(cut_target(target, chosen), backend.name, chosen, default_rep_delay(backend))


def fake_backend(name: str) -> BackendV2:
    """Return the fake backend called `name`: "torino", "fake_torino" and "FakeTorino" are the same.

    Raises:
        InputError: if there is none; the message lists the nearest names.
    """
    from qiskit_ibm_runtime import fake_provider
    from qiskit_ibm_runtime.fake_provider.fake_backend import FakeBackendV2

    classes = {
        _plain(attribute): value
        for attribute, value in vars(fake_provider).items()
        if isinstance(value, type) and issubclass(value, FakeBackendV2)
    }
    if (wanted := _plain(name)) in classes:
        return classes[wanted]()
    near = difflib.get_close_matches(wanted, classes, n=5, cutoff=0.5) or sorted(classes)
    raise InputError(f"there is no fake backend {name!r}; the nearest names are {', '.join(near)}")


def ibm_backend(name: str) -> BackendV2:
    """Return the IBM device called `name`, with the saved account or that of the environment.

    Raises:
        InputError: if there is no account, the service refuses it, or it has no such device.
    """
    from qiskit_ibm_runtime import QiskitRuntimeService

    attempts = Retrying(
        stop=stop_after_attempt(3),
        wait=wait_exponential(multiplier=0.5, max=4),
        retry=retry_if_exception(_may_pass),
        reraise=True,
    )
    service = None
    try:
        with noted(Announcer()):
            service = attempts(QiskitRuntimeService)
            return attempts(lambda: _device(service, name))
    except InputError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {redact(error)}"
    # raised here and not above: the original exception, its text and the frames of the client can hold the token
    if service is None:
        raise InputError(
            f"backend 'ibm:{name}' needs an IBM Quantum account, and none could be used ({reason}); save one with "
            "QiskitRuntimeService.save_account(...) or set QISKIT_IBM_TOKEN and QISKIT_IBM_INSTANCE"
        )
    raise InputError(
        f"backend 'ibm:{name}' could not be reached ({reason}); check the account's access to it and try again"
    )


def device_identity(backend: BackendV2) -> str:
    """Name of a device; of a simulator a digest of its gates and noise, too, as simulators of any noise have one name.

    A device at a service is its name: its calibration changes every day.

    >>> from qiskit_qdeq.execution.noise import simple_noise
    >>> one, other = (device_identity(simple_noise(1, one_qubit=rate)) for rate in (0.1, 0.2))
    >>> one.split()[0] == other.split()[0], one == other
    (True, False)
    """
    if at_service(backend):
        return str(backend.name)
    noise = getattr(backend.options, "noise_model", None)
    gates = [
        [gate, sorted([list(qubits or ()), *_errors(entry)] for qubits, entry in (backend.target[gate] or {}).items())]
        for gate in sorted(backend.target.operation_names)
    ]
    text = json.dumps([gates, None if noise is None else noise.to_dict(serializable=True)], sort_keys=True)
    return f"{backend.name} {hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _errors(properties: InstructionProperties | None) -> list[float]:
    found = (getattr(properties, "error", None), getattr(properties, "duration", None))
    return [-1.0 if value is None else float(value) for value in found]


def _device(service: Any, name: str) -> BackendV2:
    """The device, with everything that transpiling for it needs."""
    from qiskit.providers.exceptions import QiskitBackendNotFoundError

    try:
        backend: BackendV2 = service.backend(name)
        assert backend.target is not None
        return backend
    except QiskitBackendNotFoundError:
        # the client says the same where what the service answered about the device could not be read
        if name in (names := sorted(entry.name for entry in service.backends())):
            raise
    raise InputError(f"your account has no device {name!r}; it has {', '.join(names) or 'none'}")


def _may_pass(error: BaseException) -> bool:
    """Whether connecting again may help: what the client says of an account hides why it could not be used."""
    names = {base.__name__ for base in type(error).__mro__}
    if names & {"InvalidAccountError", "QiskitBackendNotFoundError"}:
        return True
    return isinstance(error, Exception) and failure_of(error).can_repeat


def _plain(name: str) -> str:
    """ "FakeManilaV2", "fake_manila" and "manila" -> "manila"."""
    return name.lower().replace("_", "").replace("-", "").removeprefix("fake").removesuffix("v2")


def _check_qubits(qubits: tuple[int, ...], target: Target, name: str) -> None:
    if not qubits or len(set(qubits)) < len(qubits):
        raise InputError(f"qubits must name at least one qubit and none twice, got {list(qubits)}")
    for qubit in qubits:
        if check_count("a qubit of qubits", qubit, 0) >= (target.num_qubits or 0):
            raise InputError(f"qubits names {qubit}, but {name} has only qubits 0 to {(target.num_qubits or 0) - 1}")


def gate_error(properties: InstructionProperties | None) -> float:
    """A gate without calibration counts as perfect: then all are, and the qubit numbers decide."""
    error = None if properties is None else properties.error
    return 0.0 if error is None or math.isnan(error) else float(error)


def calibrated(target: Target) -> Iterator[tuple[str, dict[tuple[int, ...], InstructionProperties | None]]]:
    """The operations of `target` that are defined qubit by qubit: no control flow, nothing global."""
    for name in target.operation_names:
        properties = target[name]
        if not isinstance(target.operation_from_name(name), type) and properties and None not in properties:
            yield name, properties


def neighbours_of(target: Target) -> _Neighbours:
    """Qubit -> its neighbours and the error of the best gate between the two."""
    neighbours: _Neighbours = {qubit: {} for qubit in range(target.num_qubits or 0)}
    for _, properties in calibrated(target):
        for pair, calibration in properties.items():
            if len(pair) == 2:
                for first, second in (pair, pair[::-1]):
                    known = neighbours[first].get(second, math.inf)
                    neighbours[first][second] = min(known, gate_error(calibration))
    return neighbours


def readout_errors(target: Target) -> list[float]:
    """Probability of each qubit to be misread."""
    properties = target["measure"] if "measure" in target.operation_names else {}
    return [gate_error((properties or {}).get((qubit,))) for qubit in range(target.num_qubits or 0)]


def _best_qubits(count: int, readout: list[float], neighbours: _Neighbours, name: str) -> tuple[int, ...]:
    trees = [_grow(start, count, readout, neighbours) for start in neighbours]
    grown = [tree for tree in trees if len(tree[1]) == count]
    if not grown:
        raise InputError(f"{name} has no {count} qubits connected by two-qubit gates; ask for fewer or another device")
    return min(grown)[1]


def _grow(start: int, count: int, readout: list[float], neighbours: _Neighbours) -> tuple[float, tuple[int, ...]]:
    """The greedy tree from `start`: its cost and its qubits in ascending order."""
    tree, cost = {start}, readout[start]
    while len(tree) < count:
        open_edges = (
            (error + readout[new], new) for old in tree for new, error in neighbours[old].items() if new not in tree
        )
        step = min(open_edges, default=None)
        if step is None:
            break
        cost += step[0]
        tree.add(step[1])
    return cost, tuple(sorted(tree))


def cut_target(target: Target, qubits: tuple[int, ...]) -> Target:
    """The gates of some qubits, connected or not; qubit i is `qubits[i]` of `target`."""
    position = {qubit: index for index, qubit in enumerate(qubits)}
    cut = Target(
        num_qubits=len(qubits),
        dt=target.dt,
        granularity=target.granularity,
        min_length=target.min_length,
        pulse_alignment=target.pulse_alignment,
        acquire_alignment=target.acquire_alignment,
        qubit_properties=[target.qubit_properties[q] for q in qubits] if target.qubit_properties else None,
    )
    for name, properties in calibrated(target):
        kept = {
            tuple(position[q] for q in key): value
            for key, value in properties.items()
            if all(q in position for q in key)
        }
        if kept:
            cut.add_instruction(target.operation_from_name(name), kept, name=name)
    return cut
