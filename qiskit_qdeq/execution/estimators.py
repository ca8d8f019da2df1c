"""From a description of how circuits are to be executed to an open estimator: simulators, fake and IBM devices."""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import TracebackType
from typing import Any

import numpy as np
from qiskit.primitives import BackendEstimatorV2, BaseEstimatorV2, StatevectorEstimator
from qiskit.providers import BackendV2
from qiskit.transpiler import PassManager, generate_preset_pass_manager

from qiskit_qdeq.circuits._checks import check_count
from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.execution.devices import SubDevice, fake_backend, ibm_backend, sub_device
from qiskit_qdeq.execution.modes import check_mode, open_mode
from qiskit_qdeq.execution.noise import noise_from_backend, parse_noise, perfect_simulator
from qiskit_qdeq.execution.noisy_estimator import DensityMatrixEstimator

_FORMS = "'statevector', 'aer', 'fake:<name>', 'ibm:<name>' or 'given'"
_NAMED = ("fake", "ibm")
_PLAIN = ("statevector", "aer", "given")
# options of the Runtime estimator that only a device can obey
_IGNORED_LOCALLY = ("environment", "execution", "experimental", "max_execution_time")


@dataclass(frozen=True)
class Execution:
    """How circuits are executed, in plain values that a command line or a checkpoint can hold.

    Attributes:
        backend: "statevector" (Qiskit's reference simulation), "aer" (fast simulation, with `noise` or without),
            "fake:<name>" (the best qubits of a fake device, with its noise), "ibm:<name>" (the device, with the saved account
            or that of the environment), or "given" (a backend or estimator object passed to `build_estimator`).
        shots: executions per circuit and measurement basis; None with `precision` None: exact on simulators, the service's
            default (4096) where a Runtime estimator runs.
        precision: standard error wanted instead, shots = ⌈1/precision²⌉.
        noise: of "aer": rates such as "0.001,0.01,0.02" or a device such as "fake:torino", see `parse_noise`.
        mode: "job", "batch" or "session" of a Runtime estimator.
        resilience_level: 0, 1 or 2 of a Runtime estimator; on a fake device it is what turns one on, which then mitigates
            the simulated noise as it would on hardware. None: 1 on an IBM device.
        options: passed untouched to the Runtime estimator, such as {"resilience": {"zne_mitigation": True}}.
        optimization_level: of the transpiler, 0 to 3; None: 3 for devices, 1 for simulators.
        seed: of simulated shots and of the transpiler.
        max_time: seconds after which the service closes the batch or session.

    Raises:
        InputError: for a value that is not possible, or that has no effect together with the others.
    """

    backend: str = "statevector"
    shots: int | None = None
    precision: float | None = None
    noise: str = ""
    mode: str = "job"
    resilience_level: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    optimization_level: int | None = None
    seed: int | None = None
    max_time: int | None = None

    def __post_init__(self) -> None:
        if not (isinstance(self.backend, str) and (self.kind in _PLAIN if not self.name else self.kind in _NAMED)):
            raise InputError(f"backend must be {_FORMS}, got {self.backend!r}")
        _check_sampling(self)
        check_mode(self.mode, self.max_time)
        if self.resilience_level not in (None, 0, 1, 2) or isinstance(self.resilience_level, bool):
            raise InputError(f"resilience_level must be 0, 1 or 2, got {self.resilience_level!r}")
        if self.optimization_level is not None and self.optimization_level not in range(4):
            raise InputError(f"optimization_level must be 0, 1, 2 or 3, got {self.optimization_level!r}")
        _check_options(self.options)
        self._check_effect()

    @property
    def kind(self) -> str:
        """What stands before the colon of `backend`."""
        return self.backend.partition(":")[0]

    @property
    def name(self) -> str:
        """What stands after the colon of `backend`: a device's name, or nothing."""
        return self.backend.partition(":")[2]

    @property
    def target_precision(self) -> float | None:
        """`precision`, or what `shots` amounts to."""
        return self.shots**-0.5 if self.shots else self.precision

    def _check_effect(self) -> None:
        if self.noise and self.kind != "aer":
            raise InputError(f"noise has no effect with backend={self.backend!r}; use backend='aer'")
        if self.optimization_level is not None and self.kind == "statevector":
            raise InputError("optimization_level has no effect with backend='statevector', which is not transpiled for")
        runtime = {
            "resilience_level": self.resilience_level is not None,
            "options": bool(self.options),
            "mode": self.mode != "job",
        }
        changed = [name for name, is_set in runtime.items() if is_set]
        if changed and self.kind in ("statevector", "aer"):
            raise InputError(
                f"{', '.join(changed)} have no effect with backend={self.backend!r}; use 'fake:<name>' or 'ibm:<name>'"
            )
        if changed and self.kind == "fake" and self.resilience_level is None:
            raise InputError(
                f"{', '.join(changed)} have no effect with backend={self.backend!r} unless resilience_level (0, 1 or 2) "
                "turns the Runtime estimator on"
            )
        if self.max_time is not None and self.kind == "fake":
            raise InputError(f"max_time has no effect with backend={self.backend!r}; leave it out")


@dataclass(frozen=True)
class OpenEstimator:
    """An estimator ready to run, and what goes with it; use it in a `with` statement, or call `close`.

    Attributes:
        estimator: what runs the circuits.
        backend: what to transpile for; None: circuits run as they are.
        pass_manager: transpiles for `backend`, reproducibly; None if there is no backend.
        precision: to be sent with every request; None: the estimator's own default already is the one wanted.
    """

    estimator: BaseEstimatorV2
    backend: BackendV2 | None
    pass_manager: PassManager | None
    precision: float | None = None
    _resources: contextlib.ExitStack = field(default_factory=contextlib.ExitStack, repr=False)

    def close(self) -> None:
        """Close the session or batch, if there is one; a second call does nothing."""
        self._resources.close()

    def __enter__(self) -> OpenEstimator:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return self._resources.__exit__(kind, error, trace)


def build_estimator(
    execution: Execution,
    num_qubits: int,
    *,
    backend: BackendV2 | None = None,
    estimator: BaseEstimatorV2 | None = None,
) -> OpenEstimator:
    """Open what `execution` describes.

    Args:
        execution: the description.
        num_qubits: of the circuits to come; a fake device is cut down to as many.
        backend: a device object, with ``Execution(backend="given")``: an IBM device, a fake one, or any other, on which
            Qiskit's BackendEstimatorV2 then runs.
        estimator: an estimator object, with ``Execution(backend="given")``; `backend` is then what to transpile for.

    Raises:
        InputError: if names are unknown, options are refused, or the device is too small; the message never holds a token.
    """
    count = check_count("num_qubits", num_qubits)
    given = backend is not None or estimator is not None
    if given != (execution.kind == "given"):
        raise InputError(
            f"backend={execution.backend!r} of the Execution and a backend or estimator object exclude each other; "
            "objects go with Execution(backend='given', ...), and only with it"
        )
    if estimator is not None:
        return _given_estimator(execution, backend, estimator, count)
    if execution.kind == "statevector":
        return _statevector(execution)
    if execution.kind == "aer":
        return _aer(execution, count)
    if execution.kind == "fake":
        return _fake(execution, sub_device(fake_backend(execution.name), count))
    if execution.kind == "ibm":
        return _ibm(execution, ibm_backend(execution.name), count)
    assert backend is not None
    return _given_backend(execution, backend, count)


def _statevector(execution: Execution) -> OpenEstimator:
    if execution.target_precision is None:
        return OpenEstimator(StatevectorEstimator(), None, None)
    return OpenEstimator(_sampling(execution, None), None, None)


def _aer(execution: Execution, num_qubits: int) -> OpenEstimator:
    simulator = parse_noise(execution.noise, num_qubits) if execution.noise else perfect_simulator(num_qubits)
    return OpenEstimator(_sampling(execution, simulator), simulator, _transpiler(execution, simulator))


def _fake(execution: Execution, device: SubDevice) -> OpenEstimator:
    simulator = noise_from_backend(device)
    if execution.resilience_level is None:
        return OpenEstimator(_sampling(execution, simulator), simulator, _transpiler(execution, simulator))
    return _runtime(execution, simulator, local=True)


def _ibm(execution: Execution, backend: BackendV2, num_qubits: int) -> OpenEstimator:
    if backend.num_qubits < num_qubits:
        raise InputError(
            f"{backend.name} has {backend.num_qubits} qubits, the circuit {num_qubits}; take a larger device"
        )
    return _runtime(execution, backend, local=False)


def _given_backend(execution: Execution, backend: BackendV2, num_qubits: int) -> OpenEstimator:
    from qiskit_aer import AerSimulator
    from qiskit_ibm_runtime import IBMBackend
    from qiskit_ibm_runtime.fake_provider.fake_backend import FakeBackendV2

    if not isinstance(backend, BackendV2):
        raise InputError(f"backend must be a BackendV2, got {type(backend).__name__}")
    if isinstance(backend, IBMBackend):
        return _ibm(execution, backend, num_qubits)
    if isinstance(backend, FakeBackendV2 | SubDevice):
        device = backend if isinstance(backend, SubDevice) else sub_device(backend, num_qubits)
        _refuse_runtime_fields(execution, f"{backend.name}, unless resilience_level turns the Runtime estimator on")
        return _fake(execution, device)
    if isinstance(backend, AerSimulator) and execution.resilience_level is not None:
        return _runtime(execution, backend, local=True)
    _refuse_runtime_fields(execution, backend.name)
    options = {} if execution.target_precision is None else {"default_precision": execution.target_precision}
    estimator = BackendEstimatorV2(backend=backend, options=options)
    return OpenEstimator(estimator, backend, _transpiler(execution, backend))


def _given_estimator(
    execution: Execution, backend: BackendV2 | None, estimator: BaseEstimatorV2, num_qubits: int
) -> OpenEstimator:
    if not callable(getattr(estimator, "run", None)):
        raise InputError(f"estimator must have the run method of BaseEstimatorV2, got {type(estimator).__name__}")
    _refuse_runtime_fields(execution, "an estimator object, which has its own")
    if execution.resilience_level is not None:
        raise InputError("resilience_level has no effect with an estimator object; set it in the estimator's options")
    if backend is None and type(estimator).__module__.startswith("qiskit_aer."):
        # it silently misreads the parameters of controlled gates, so they must be transpiled away
        backend = perfect_simulator(num_qubits)
    if backend is None and execution.optimization_level is not None:
        raise InputError("optimization_level has no effect without a backend to transpile for; give backend= too")
    pass_manager = None if backend is None else _transpiler(execution, backend)
    return OpenEstimator(estimator, backend, pass_manager, execution.target_precision)


def _refuse_runtime_fields(execution: Execution, what: str) -> None:
    if execution.resilience_level is not None:
        return
    fresh = Execution(backend="given")
    names = [name for name in ("mode", "options", "max_time") if getattr(execution, name) != getattr(fresh, name)]
    if names:
        raise InputError(f"{', '.join(names)} have no effect with {what}; leave them out")


def _sampling(execution: Execution, noise: Any) -> DensityMatrixEstimator:
    if execution.shots is not None:
        return DensityMatrixEstimator(noise, default_shots=execution.shots, seed=execution.seed)
    return DensityMatrixEstimator(noise, default_precision=execution.precision or 0.0, seed=execution.seed)


def _runtime(execution: Execution, backend: BackendV2, *, local: bool) -> OpenEstimator:
    options = _runtime_options(execution)
    if local:
        _warn_ignored(execution.options)
    pass_manager = _transpiler(execution, backend)
    with contextlib.ExitStack() as stack:
        mode = stack.enter_context(open_mode(backend, execution.mode, execution.max_time))
        estimator = _client_side(mode, options, execution.seed if local else None)
        return OpenEstimator(estimator, backend, pass_manager, _resources=stack.pop_all())


def _runtime_options(execution: Execution) -> Any:
    from pydantic import ValidationError
    from qiskit_ibm_runtime.options_models import EstimatorOptions

    level = 1 if execution.resilience_level is None else execution.resilience_level
    options = {**execution.options, "resilience_level": level}
    if execution.shots is not None:
        options["default_shots"] = execution.shots
    if execution.precision is not None:
        options["default_precision"] = execution.precision
    try:
        return EstimatorOptions(**options)
    except ValidationError as error:
        # only names and reasons: values could be anything
        reasons = [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors(include_input=False)]
        raise InputError(f"options are refused by the Runtime estimator: {'; '.join(reasons)}") from None


def _client_side(mode: Any, options: Any, seed: int | None) -> BaseEstimatorV2:
    from qiskit_ibm_runtime.executor_estimator import Estimator

    if seed is None:
        return Estimator(mode=mode, options=options)

    class FreshNoiseEstimator(Estimator):
        """Takes a new simulator seed for every run: a fixed one would repeat the same noise in every call."""

        def reseed(self, seed: int) -> None:
            self._seeds = np.random.default_rng(seed)

        def run(self, pubs: Any, **arguments: Any) -> Any:
            self.options.simulator.seed_simulator = int(self._seeds.integers(2**31))
            return super().run(pubs, **arguments)

    estimator = FreshNoiseEstimator(mode=mode, options=options)
    estimator.reseed(seed)
    return estimator


def _warn_ignored(options: Mapping[str, Any]) -> None:
    for name in _IGNORED_LOCALLY:
        if name in options:
            warnings.warn(
                f"option {name!r} has no effect on a simulator; only devices obey it", UserWarning, stacklevel=5
            )
    if (options.get("dynamical_decoupling") or {}).get("enable"):
        warnings.warn(
            "option 'dynamical_decoupling' inserts its pulses on a simulator too, but simulated idle noise has no memory "
            "that they could undo: expect no gain",
            UserWarning,
            stacklevel=5,
        )


def _transpiler(execution: Execution, backend: BackendV2) -> PassManager:
    level = execution.optimization_level
    if level is None:
        level = 1 if execution.kind == "aer" else 3
    # without a seed of the user a fixed one: the layout is part of the experiment and must survive a restart
    return generate_preset_pass_manager(level, backend=backend, seed_transpiler=execution.seed or 0)


def _check_sampling(execution: Execution) -> None:
    if execution.shots is not None and execution.precision is not None:
        raise InputError("shots and precision say the same; give one of them")
    if execution.shots is not None:
        check_count("shots", execution.shots)
    if execution.seed is not None:
        check_count("seed", execution.seed, 0)
    precision = execution.precision
    if precision is not None and not (isinstance(precision, int | float) and 0 < precision <= 1):
        raise InputError(
            f"precision must be a number above 0 and at most 1, got {precision!r}; leave it out for exact values"
        )
    if not isinstance(execution.noise, str):
        raise InputError(f"noise must be a text such as '0.001,0.01,0.02' or 'fake:torino', got {execution.noise!r}")


def _check_options(options: Mapping[str, Any]) -> None:
    try:
        json.dumps(dict(options), allow_nan=False)
    except (TypeError, ValueError):
        raise InputError("options must be a mapping of plain values (numbers, texts, lists, mappings)") from None
    own = {item.name for item in fields(Execution)}
    for name, instead in (
        ("default_shots", "shots"),
        ("default_precision", "precision"),
        *((n, n) for n in sorted(own)),
    ):
        if name in options:
            raise InputError(f"options must not contain {name!r}; use the field {instead}")
    if "seed_simulator" in (options.get("simulator") or {}):
        raise InputError("options must not contain simulator.seed_simulator, which repeats the same noise; use seed")
