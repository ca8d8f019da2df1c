"""From a description of how circuits are to be executed to an open estimator: simulators, fake and IBM devices."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any

from qiskit.circuit import ControlledGate
from qiskit.primitives import BackendEstimatorV2, BaseEstimatorV2, StatevectorEstimator
from qiskit.providers import BackendV2
from qiskit.transpiler import PassManager, generate_preset_pass_manager

from qiskit_qdeq.circuits._checks import check_count
from qiskit_qdeq.exceptions import InputError, warn_user
from qiskit_qdeq.execution.account import Account, Budget
from qiskit_qdeq.execution.description import Execution, ineffective
from qiskit_qdeq.execution.devices import SubDevice, fake_backend, ibm_backend, sub_device
from qiskit_qdeq.execution.durable import DurableEstimator
from qiskit_qdeq.execution.events import Announcer
from qiskit_qdeq.execution.ibm_client import IBMClient
from qiskit_qdeq.execution.journal import Journal
from qiskit_qdeq.execution.lifetime import Given, Lifetime
from qiskit_qdeq.execution.modes import open_mode
from qiskit_qdeq.execution.noise import noise_from_backend, parse_noise, perfect_simulator
from qiskit_qdeq.execution.noisy_estimator import DensityMatrixEstimator
from qiskit_qdeq.execution.patience import Patience
from qiskit_qdeq.execution.primitives import Kind, kind_of
from qiskit_qdeq.execution.product_estimator import ProductEstimator
from qiskit_qdeq.execution.seeding import SeededEstimator

__all__ = ["Execution", "OpenEstimator", "build_estimator"]

# options of the Runtime estimator that only a device can obey
_IGNORED_LOCALLY = ("environment", "execution", "experimental", "max_execution_time")


@dataclass(frozen=True)
class OpenEstimator:
    """An estimator ready to run, and what goes with it; use it in a `with` statement, or call `close`.

    Attributes:
        estimator: what runs the circuits.
        backend: what to transpile for; None: circuits run as they are.
        pass_manager: transpiles for `backend`, reproducibly; None if there is no backend.
        precision: to be sent with every request; None: the estimator's own default already is the one wanted.
        account: what may be spent and has been.
    """

    estimator: BaseEstimatorV2
    backend: BackendV2 | None
    pass_manager: PassManager | None
    precision: float | None = None
    account: Account = field(default_factory=Account)
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
    session: Any = None,
    journal: Journal | None = None,
    budget: Budget | None = None,
    announce: Announcer | None = None,
) -> OpenEstimator:
    """Open what `execution` describes.

    What runs at IBM's service is a `DurableEstimator`: its jobs survive failures, and this process where there is a journal.

    Args:
        execution: the description.
        num_qubits: of the circuits to come; a fake device is cut down to as many, unless there are copies.
        backend: a device object, with ``Execution(backend="given")``: an IBM device, a fake one, or any other, on which
            Qiskit's BackendEstimatorV2 then runs.
        estimator: an estimator object, with ``Execution(backend="given")``; `backend` is then what to transpile for.
        session: an open `Session` or `Batch` on `backend`, in which all jobs run and which its owner closes; a simulated
            device has none, so that there it changes nothing.
        journal: of the jobs at a service; None keeps it in memory. It is closed with the estimator.
        budget: the most that may be spent.
        announce: is told what happens to jobs at a service.

    Raises:
        InputError: if names are unknown, options are refused, or the device is too small; the message never holds a token.
        JournalError: if the journal is of a run on another device.
    """
    keeping = _Keeping(journal or Journal(), Account(budget), announce or Announcer())
    if session is not None:
        _check_session(session, execution, backend, estimator)
    opened = _opened(execution, num_qubits, backend, estimator, session, keeping)
    return replace(opened, account=keeping.account)


@dataclass(frozen=True)
class _Keeping:
    """What is kept about jobs at a service."""

    journal: Journal
    account: Account
    announce: Announcer


def _opened(
    execution: Execution,
    num_qubits: int,
    backend: BackendV2 | None,
    estimator: BaseEstimatorV2 | None,
    session: Any,
    keeping: _Keeping,
) -> OpenEstimator:
    count = check_count("num_qubits", num_qubits)
    given = backend is not None or estimator is not None
    if given != (execution.kind == "given"):
        raise InputError(
            f"backend={execution.backend!r} of the Execution and a backend or estimator object exclude each other; "
            "objects go with Execution(backend='given', ...), and only with it"
        )
    if execution.kind == "exact":
        raise InputError("backend 'exact' runs no circuits, so it has no estimator; use executed(model, execution)")
    if estimator is not None:
        return _given_estimator(execution, backend, estimator, count, keeping)
    if execution.kind == "statevector":
        return _statevector(execution)
    if execution.kind == "aer":
        return _aer(execution, count)
    if execution.kind == "fake":
        device = fake_backend(execution.name)
        return _fake(execution, sub_device(device, count)) if execution.copies == 1 else _product(execution, device)
    if execution.kind == "ibm":
        return _ibm(execution, ibm_backend(execution.name), count, keeping)
    assert backend is not None
    return _given_backend(execution, backend, count, keeping, session)


def _check_session(
    session: Any, execution: Execution, backend: BackendV2 | None, estimator: BaseEstimatorV2 | None
) -> None:
    from qiskit_ibm_runtime import Batch, Session

    if not isinstance(session, Session | Batch):
        raise InputError(f"session must be an open Session or Batch of qiskit_ibm_runtime, got {session!r}")
    if backend is None or estimator is not None:
        raise InputError("a session goes with the backend object that it was opened on, and with nothing else")
    if execution.mode != "job" or execution.max_time is not None:
        raise InputError("mode and max_time cannot be given beside an open session, which has its own: leave them out")
    if session.backend() != backend.name:
        raise InputError(f"the session was opened on {session.backend()}, but the backend is {backend.name}: give one")


def _statevector(execution: Execution) -> OpenEstimator:
    if execution.copies != 1:
        return _product(execution, None)
    if execution.target_precision is None:
        return OpenEstimator(StatevectorEstimator(), None, None)
    return OpenEstimator(_sampling(execution, None), None, None)


def _aer(execution: Execution, num_qubits: int) -> OpenEstimator:
    if isinstance(execution.copies, int):
        num_qubits *= execution.copies
    simulator = parse_noise(execution.noise, num_qubits) if execution.noise else perfect_simulator(num_qubits)
    if execution.copies != 1:
        return _product(execution, simulator)
    return OpenEstimator(_sampling(execution, simulator), simulator, _transpiler(execution, simulator))


def _fake(execution: Execution, device: SubDevice) -> OpenEstimator:
    simulator = noise_from_backend(device)
    if execution.resilience_level is None:
        return OpenEstimator(_sampling(execution, simulator), simulator, _transpiler(execution, simulator))
    return _runtime_locally(execution, simulator)


def _product(execution: Execution, backend: BackendV2 | None) -> OpenEstimator:
    """Simulates copies one by one, as no simulator holds the qubits of all of them."""
    if execution.resilience_level is not None:
        raise InputError(
            "resilience_level cannot be combined with copies on a simulated device: the Runtime estimator would simulate "
            "the qubits of all copies as one state; leave one of them out"
        )
    shots, precision = execution.shots, execution.precision or 0.0
    estimator = ProductEstimator(backend, default_precision=precision, default_shots=shots, seed=execution.seed)
    return OpenEstimator(estimator, backend, None)


def _ibm(
    execution: Execution, backend: BackendV2, num_qubits: int, keeping: _Keeping, session: Any = None
) -> OpenEstimator:
    _check_size(backend, num_qubits)
    pass_manager = _transpiler(execution, backend)
    primitive = _client_side(backend if session is None else session, _runtime_options(execution))
    lifetime = (
        Lifetime(backend, execution.mode, execution.max_time, keeping.journal, keeping.announce)
        if session is None
        else Given(session)
    )
    return _durable(execution, primitive, lifetime, backend, pass_manager, keeping)


def _check_size(backend: BackendV2, num_qubits: int) -> None:
    if backend.num_qubits is not None and backend.num_qubits < num_qubits:
        raise InputError(
            f"{backend.name} has {backend.num_qubits} qubits, the circuit {num_qubits}; take a larger device"
        )


def _given_backend(
    execution: Execution, backend: BackendV2, num_qubits: int, keeping: _Keeping, session: Any
) -> OpenEstimator:
    from qiskit_aer import AerSimulator
    from qiskit_ibm_runtime import IBMBackend
    from qiskit_ibm_runtime.fake_provider.fake_backend import FakeBackendV2

    if not isinstance(backend, BackendV2):
        raise InputError(f"backend must be a BackendV2, got {backend!r}")
    _check_size(backend, num_qubits)
    if isinstance(backend, IBMBackend):
        return _ibm(execution, backend, num_qubits, keeping, session)
    if isinstance(backend, FakeBackendV2 | SubDevice):
        _refuse_runtime_fields(execution, f"{backend.name}, unless resilience_level turns the Runtime estimator on")
        if execution.copies != 1:
            return _product(execution, backend)
        device = backend if isinstance(backend, SubDevice) else sub_device(backend, num_qubits)
        return _fake(execution, device)
    if isinstance(backend, AerSimulator) and execution.resilience_level is not None:
        _refuse_unbindable(backend)
        return _runtime_locally(execution, backend)
    _refuse_runtime_fields(execution, backend.name)
    options = {} if execution.target_precision is None else {"default_precision": execution.target_precision}
    estimator = BackendEstimatorV2(backend=backend, options=options)
    return OpenEstimator(estimator, backend, _transpiler(execution, backend))


def _given_estimator(
    execution: Execution,
    backend: BackendV2 | None,
    estimator: BaseEstimatorV2,
    num_qubits: int,
    keeping: _Keeping,
) -> OpenEstimator:
    if isinstance(estimator, type):
        raise InputError(f"estimator must be an object, got the class {estimator.__name__}: call it")
    if not callable(getattr(estimator, "run", None)):
        raise InputError(f"estimator must have the run method of BaseEstimatorV2, got {estimator!r}")
    _refuse_runtime_fields(execution, "an estimator object, which has its own")
    if execution.resilience_level is not None:
        raise InputError("resilience_level has no effect with an estimator object; set it in the estimator's options")
    if backend is None and type(estimator).__module__.startswith("qiskit_aer."):
        # it silently misreads the parameters of controlled gates, so they must be transpiled away
        backend = perfect_simulator(num_qubits)
    if backend is None and execution.optimization_level is not None:
        raise InputError("optimization_level has no effect without a backend to transpile for; give backend= too")
    pass_manager = None if backend is None else _transpiler(execution, backend)
    service = getattr(estimator, "_service", None)
    if kind_of(estimator) in (Kind.LEGACY, Kind.CLIENT) and not getattr(service, "is_local", True):
        opened = _durable(execution, estimator, Given(estimator.mode), backend, pass_manager, keeping)
        return replace(opened, precision=execution.target_precision)
    return OpenEstimator(estimator, backend, pass_manager, execution.target_precision)


def _refuse_runtime_fields(execution: Execution, what: str) -> None:
    if execution.resilience_level is not None:
        return
    fresh = Execution(backend="given")
    names = [name for name in ("mode", "options", "max_time") if getattr(execution, name) != getattr(fresh, name)]
    if names:
        raise InputError(f"{ineffective(names)} with {what}; leave {'it' if len(names) == 1 else 'them'} out")


def _refuse_unbindable(simulator: Any) -> None:
    operations = [simulator.target.operation_from_name(name) for name in simulator.target.operation_names]
    if names := sorted(op.name for op in operations if isinstance(op, ControlledGate) and op.params):
        raise InputError(
            f"the simulator accepts {', '.join(names)}, whose parameters the local Runtime estimator misreads; restrict its "
            "basis_gates to plain rotations, or take it from noise_from_backend, simple_noise or perfect_simulator"
        )


def _sampling(execution: Execution, noise: Any) -> DensityMatrixEstimator:
    if execution.shots is not None:
        return DensityMatrixEstimator(noise, default_shots=execution.shots, seed=execution.seed)
    return DensityMatrixEstimator(noise, default_precision=execution.precision or 0.0, seed=execution.seed)


def _runtime_locally(execution: Execution, backend: BackendV2) -> OpenEstimator:
    """IBM's own estimator, its mitigation included, on a simulator."""
    options = _runtime_options(execution)
    _warn_ignored(execution.options)
    pass_manager = _transpiler(execution, backend)
    with contextlib.ExitStack() as stack:
        mode = stack.enter_context(open_mode(backend, execution.mode, execution.max_time))
        estimator = _client_side(mode, options)
        # a seed of its own would repeat the same noise in every call
        seeded = estimator if execution.seed is None else SeededEstimator(estimator, execution.seed)
        return OpenEstimator(seeded, backend, pass_manager, _resources=stack.pop_all())


def _durable(
    execution: Execution,
    primitive: Any,
    lifetime: Lifetime,
    backend: BackendV2 | None,
    pass_manager: PassManager | None,
    keeping: _Keeping,
) -> OpenEstimator:
    """IBM's own estimator at the service."""
    keeping.journal.belongs_to(str(primitive.backend().name))
    with contextlib.ExitStack() as stack:
        stack.callback(keeping.journal.close)
        stack.callback(lifetime.close)
        client = IBMClient(primitive, lifetime, keeping.announce)
        patience = Patience(execution.patience)
        estimator = DurableEstimator(primitive, client, keeping.journal, keeping.account, patience, keeping.announce)
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


def _client_side(mode: Any, options: Any) -> Any:
    from qiskit_ibm_runtime.executor_estimator import Estimator

    return Estimator(mode=mode, options=options)


def _warn_ignored(options: Mapping[str, Any]) -> None:
    for name in _IGNORED_LOCALLY:
        if name in options:
            warn_user(f"option {name!r} has no effect on a simulator; only devices obey it")
    if (options.get("dynamical_decoupling") or {}).get("enable"):
        warn_user(
            "option 'dynamical_decoupling' inserts its pulses on a simulator too, but simulated idle noise has no memory "
            "that they could undo: expect no gain"
        )


def _transpiler(execution: Execution, backend: BackendV2) -> PassManager:
    level = execution.optimization_level
    if level is None:
        level = 1 if execution.kind == "aer" else 3
    # without a seed of the user a fixed one: the layout is part of the experiment and must survive a restart
    return generate_preset_pass_manager(level, backend=backend, seed_transpiler=execution.seed or 0)
