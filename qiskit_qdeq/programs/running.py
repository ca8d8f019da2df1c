"""From the programs' arguments to a model whose circuits run where they say."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from contextlib import AbstractContextManager
from typing import Any

from qiskit_qdeq.evaluation.sampling import Sampling
from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.execution.description import Execution
from qiskit_qdeq.execution.journal import Journal
from qiskit_qdeq.execution.running import executed
from qiskit_qdeq.model import QDEQModel
from qiskit_qdeq.programs.arguments import ExecutionArguments, TrainArguments

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


def running(
    model: QDEQModel, options: ExecutionArguments, seed: int, journal: Journal | None = None
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
    return executed(
        model, execution_of(options, seed), sampling=_sampling_of(options), journal=journal, budget=options.budget
    )


def is_service(options: ExecutionArguments) -> bool:
    """Whether circuits run at a service, where they cost money and outlive this process."""
    return options.backend.startswith("ibm:")


def described(model: QDEQModel, options: ExecutionArguments, seed: int) -> AbstractContextManager[QDEQModel]:
    """`running` for a dry run: the backend is asked what it is, and no batch or session is opened.

    Raises:
        InputError: see `running`.
    """
    if options.backend != "exact":
        execution_of(options, seed)  # refuses what does not go together before it is taken apart
        options = dataclasses.replace(options, execution_mode=None, max_time=None)
    return running(model, options, seed)


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
