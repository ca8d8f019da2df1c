"""From the programs' arguments to a model whose circuits run where they say."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from qiskit.providers import BackendV2

from qiskit_qdeq.evaluation.sampling import Sampling
from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.execution.description import Execution
from qiskit_qdeq.execution.devices import at_service, fake_backend, ibm_backend, sub_device
from qiskit_qdeq.execution.journal import Journal
from qiskit_qdeq.execution.running import executed
from qiskit_qdeq.model import QDEQModel
from qiskit_qdeq.programs.arguments import ExecutionArguments, TrainArguments, with_execution_mode

_OF_EXECUTION = (
    "shots",
    "precision",
    "noise",
    "execution_mode",
    "resilience_level",
    "runtime_options",
    "optimization_level",
    "max_time",
    "patience_seconds",
    "budget",
    "copies",
)
_OF_SAMPLING = ("jacobian_shots", "gradient_shots", "shots_growth", "gradient_method", "gradient_circuits")


@dataclass(frozen=True)
class Device:
    """What a Python caller passes beside plain arguments: a backend object, and perhaps a session that is open on it."""

    backend: BackendV2 | None = None
    session: Any = None


NO_OBJECTS = Device()


def addressed(backend: Any, arguments: Mapping[str, Any] | None, mode: Any) -> tuple[dict[str, Any], Device]:
    """A program's arguments with its `backend` and `mode` among them, as far as they are plain.

    Args:
        backend: None, a text such as "fake:torino", or a BackendV2.
        arguments: fields of the program's dataclass; None: none.
        mode: None, "job", "batch" or "session", or an open `Session` or `Batch` on the backend object.

    Raises:
        InputError: for anything else, or what contradicts the arguments.
    """
    if not isinstance(arguments, Mapping | None):
        raise InputError(f"arguments must be a mapping from names to values, got {arguments!r}")
    values = dict(with_execution_mode(arguments or {}))
    given: dict[str, Any] = {}
    if backend is not None:
        if not isinstance(backend, str | BackendV2):
            raise InputError(
                f"backend must be None, a text such as 'fake:torino' or a BackendV2, got {backend!r}; arguments come "
                "second: main(backend, arguments)"
            )
        given["backend"] = backend if isinstance(backend, str) else "given"
    if isinstance(mode, str):
        given["execution_mode"] = mode
    for name, value in given.items():
        if values.get(name) not in (None, value):
            raise InputError(
                f"{name} is {value!r} beside the arguments and {values[name]!r} among them: give one of them"
            )
    device = Device(None if isinstance(backend, str) else backend, None if isinstance(mode, str) else mode)
    if device.session is not None and device.backend is None:
        raise InputError(f"an open session goes with the backend object that it was opened on, got backend={backend!r}")
    return {**values, **given}, device


def running(
    model: QDEQModel,
    options: ExecutionArguments,
    seed: int,
    journal: Journal | None = None,
    device: Device = NO_OBJECTS,
) -> AbstractContextManager[QDEQModel]:
    """`model` with its circuits run as the options say, until the context ends.

    Raises:
        InputError: for options that contradict each other, have no effect, or that the backend refuses.
        JournalError: if the journal is of another device.
    """
    if options.backend == "exact":
        refuse_without_circuits(options)
        if options.noise is None:
            return contextlib.nullcontext(model)
        return contextlib.nullcontext(model.noisy(options.noise, optimization_level=options.optimization_level))
    if options.backend == "given" and device.backend is None:
        raise InputError(
            "the circuits of this run were executed on a backend object: pass it again, main(backend, arguments), or name a "
            "backend, such as --backend aer"
        )
    return executed(
        model,
        execution_of(options, seed),
        sampling=_sampling_of(options),
        backend=device.backend,
        session=device.session,
        journal=journal,
        budget=options.budget,
    )


def check_device(backend: str, num_qubits: int) -> None:
    """Look for a device before hours are spent on what comes before it.

    Args:
        backend: such as "fake:torino" or "ibm:NAME"; others are no devices.
        num_qubits: of the circuits.

    Raises:
        InputError: if there is none of this name or it is too small, or the account cannot be used.
    """
    kind, _, name = backend.partition(":")
    if kind == "fake":
        sub_device(fake_backend(name), num_qubits)
    elif kind == "ibm" and (found := ibm_backend(name)).num_qubits < num_qubits:
        raise InputError(f"num_qubits is {num_qubits}, but {name} has only {found.num_qubits}; take a larger device")


def is_service(backend: str, device: Device) -> bool:
    """Whether circuits run at a service, where they cost money and outlive this process."""
    return backend.startswith("ibm:") or (device.backend is not None and at_service(device.backend))


def described(
    model: QDEQModel,
    options: ExecutionArguments,
    seed: int,
    device: Device = NO_OBJECTS,
) -> AbstractContextManager[QDEQModel]:
    """`running` for a dry run: the backend is asked what it is, and no batch or session is opened.

    Raises:
        InputError: see `running`.
    """
    if options.backend != "exact":
        execution_of(options, seed)  # refuses what does not go together before it is taken apart
        options = dataclasses.replace(options, execution_mode=None, max_time=None)
    return running(model, options, seed, None, dataclasses.replace(device, session=None))


def refuse_without_circuits(options: ExecutionArguments) -> None:
    """Refuse options about circuits where none run; noise can be computed, and depends on how circuits are transpiled.

    Raises:
        InputError: naming them.
    """
    computed = () if options.noise is None else ("noise", "optimization_level")
    names = [name for name in (*_OF_EXECUTION, *_OF_SAMPLING) if getattr(options, name, None) is not None]
    names = [name for name in names if name not in computed]
    names += ["dry_run"] if getattr(options, "dry_run", False) else []
    if names:
        shown = ", ".join(f"--{name.replace('_', '-')}" for name in names)
        raise InputError(
            f"{shown} cannot have an effect with --backend exact, which runs no circuits: add --backend aer, fake:NAME, "
            "ibm:NAME or statevector"
        )


def execution_of(options: ExecutionArguments, seed: int) -> Execution:
    """Where circuits run.

    Raises:
        InputError: see `Execution`.
    """
    return Execution(
        options.backend,
        shots=options.shots,
        precision=options.precision,
        noise=options.noise or "",
        mode=options.execution_mode or "job",
        resilience_level=options.resilience_level,
        options=_parsed(options.runtime_options),
        optimization_level=options.optimization_level,
        seed=seed,
        max_time=options.max_time,
        **({} if options.patience_seconds is None else {"patience": options.patience_seconds}),
        copies=1 if options.copies is None else options.copies,
    )


def _sampling_of(options: ExecutionArguments) -> Sampling | None:
    if not isinstance(options, TrainArguments):
        return None
    amount = options.shots if options.shots is not None else options.precision
    given: dict[str, Any] = {
        "forward": amount,
        "jacobian": options.jacobian_shots,
        "gradient": options.gradient_shots,
        "growth": options.shots_growth,
        "gradient_method": options.gradient_method,
        "gradient_circuits": options.gradient_circuits,
    }
    return Sampling(**{name: value for name, value in given.items() if value is not None})


def _parsed(text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"runtime_options must be JSON, got {text!r}: {error}") from None
    if not isinstance(values, dict):
        raise InputError(f'runtime_options must be a JSON object such as {{"twirling": {{...}}}}, got {text!r}')
    return values
