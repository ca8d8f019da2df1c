"""From the arguments of a `Learner` to model, training configuration and execution, with what can be wrong in them."""

from __future__ import annotations

import contextlib
import inspect
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from qiskit_qdeq.circuits import AmplitudeEncoder, CircuitTemplate
from qiskit_qdeq.equilibrium.solvers import Solver, solver
from qiskit_qdeq.evaluation.sampling import Sampling
from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.gradient.implicit import Backward
from qiskit_qdeq.gradient.regularization import Regularization
from qiskit_qdeq.model import QDEQModel
from qiskit_qdeq.presets import fitting_size, model_config, template_bias
from qiskit_qdeq.training.config import TrainingConfig

#: Arguments that say which circuit to build.
OF_TEMPLATE = ("preset", "num_qubits", "encoding", "ansatz", "readout")
#: Arguments that a fitted model and its optimizer are built from, and that another epoch cannot change.
OF_MODEL = (*OF_TEMPLATE, "template", "state_scale", "bias", "dtype", "optimizer")


def check_arguments(options: Any) -> None:
    """What no other part of the package checks under their names."""
    if options.template is not None and not isinstance(options.template, CircuitTemplate):
        raise InputError(f"template must be a CircuitTemplate, got {options.template!r}")
    if options.template is not None:
        _check_beside_template(options)
    if options.num_qubits is not None and (
        not isinstance(options.num_qubits, int | np.integer)
        or isinstance(options.num_qubits, bool)
        or options.num_qubits < 1
    ):
        raise InputError(f"num_qubits must be an integer >= 1 or None, got {options.num_qubits!r}")
    if options.bias != "auto" and not _is_number(options.bias):
        raise InputError(f"bias must be a number or 'auto', got {options.bias!r}")
    if not _is_number(options.validation_fraction) or not 0 <= options.validation_fraction < 1:
        raise InputError(f"validation_fraction must be in [0, 1), got {options.validation_fraction!r}")
    if options.on_failure not in ("raise", "warn", "accept"):
        raise InputError(f"on_failure must be 'raise', 'warn' or 'accept', got {options.on_failure!r}")
    if isinstance(options.random_state, int | np.integer) and options.random_state < 0:
        raise InputError(f"random_state must be >= 0, got {options.random_state!r}")
    if options.patience and not options.validation_fraction:
        raise InputError(
            f"patience {options.patience!r} needs samples to judge by: set validation_fraction, for example to 0.1"
        )


def _check_beside_template(options: Any) -> None:
    defaults = {name: parameter.default for name, parameter in inspect.signature(type(options)).parameters.items()}
    idle = [name for name in OF_TEMPLATE if getattr(options, name) != defaults[name]]
    if idle:
        raise InputError(
            f"template decides the circuit, so {_shown(options, idle)} would have no effect: leave out either"
        )


def _shown(options: Any, names: list[str]) -> str:
    return ", ".join(f"{name}={getattr(options, name)!r}" for name in names)


def check_unchanged(options: Any) -> None:
    """Refuse to continue with arguments that the fitted model was not built from."""
    changed = [name for name in OF_MODEL if getattr(options, name) != options._built_with[name]]
    if changed:
        raise InputError(
            f"{_shown(options, changed)} changed since this {options.kind} was fitted, and "
            "partial_fit continues with the model it has: call fit to train a new one"
        )


def training_config(options: Any, epochs: int, schedule: str, seed: int) -> TrainingConfig:
    """How it is trained."""
    backward = options.backward if isinstance(options.backward, Backward) else Backward(options.backward)
    return TrainingConfig(
        mode=options.mode,
        layers=options.layers,
        warmup_steps=options.warmup_steps,
        solver=chosen_solver(options),
        backward=backward,
        start=options.start,
        regularization=Regularization(options.regularization, options.regularization_strength),
        epochs=epochs,
        batch_size=options.batch_size,
        optimizer=options.optimizer,
        learning_rate=options.learning_rate,
        schedule=schedule,
        weight_decay=options.weight_decay,
        clip_norm=options.clip_norm,
        dropout=options.dropout,
        patience=options.patience,
        seed=seed,
        loss=options.loss,
    )


def build_model(options: Any, num_features: int, num_outputs: int) -> QDEQModel:
    """The model its arguments describe, evaluated exactly."""
    if options.template is not None:
        bias = template_bias(options.template, num_features, options.bias)
        return QDEQModel(
            options.template,
            num_outputs,
            state_scale=0.5 if options.state_scale is None else options.state_scale,
            bias=bias,
            dtype=options.dtype,
        )
    paper = "paper" in (options.preset, options.ansatz)
    num_qubits, bias = fitting_size(num_features, options.encoding, options.num_qubits, options.bias, paper=paper)
    overrides = {"ansatz": options.ansatz, "readout": options.readout, "state_scale": options.state_scale}
    return model_config(
        options.preset,
        num_features,
        num_outputs,
        int(num_qubits),
        encoding=options.encoding,
        bias=bias,
        dtype=options.dtype,
        **{name: value for name, value in overrides.items() if value is not None},
    ).build()


def chosen_solver(options: Any) -> Solver:
    """The solver, "auto" resolved."""
    if options.solver != "auto":
        found: Solver = solver(options.solver)
        return found
    encoder = options.template.encoder if options.template is not None else None
    amplitude = isinstance(encoder, AmplitudeEncoder) if encoder is not None else options.encoding == "amplitude"
    feedback = options.state_scale is None or options.state_scale != 0
    return automatic_solver(exact=is_exact(options), amplitude=amplitude, feedback=feedback)


def automatic_solver(*, exact: bool, amplitude: bool, feedback: bool) -> Solver:
    """What "auto" is: Newton where values are computed; where they are measured, what needs fewest circuits."""
    if exact:
        return solver("newton")  # type: ignore[no-any-return]
    return solver("probe" if amplitude and feedback else "broyden")  # type: ignore[no-any-return]


def is_exact(options: Any) -> bool:
    """Whether its circuits are computed and not executed."""
    # not an Execution's class: who never measures does not load the primitives
    backend = getattr(options.backend, "backend", options.backend)
    return isinstance(backend, str) and backend == "exact" and options.estimator is None


def opened(
    options: Any, model: QDEQModel, *, journal: Any = None, budget: Any = None
) -> AbstractContextManager[QDEQModel]:
    """`model` with its circuits executed as the arguments say, for as long as the context lasts.

    Args:
        options: the estimator.
        model: its model.
        journal, budget: its own where they are to be used.

    Raises:
        InputError: for arguments that contradict each other or have no effect.
    """
    if options.sampling is not None and not isinstance(options.sampling, Sampling):
        raise InputError(f"sampling must be a Sampling or None, got {options.sampling!r}")
    _check_journal(options, journal)
    if is_exact(options):
        wanted = {"shots": options.shots, "sampling": options.sampling, "journal": journal, "budget": budget}
        given = [name for name, value in wanted.items() if value is not None]
        if given:
            raise InputError(
                f"{_shown(options, given)} has no effect with backend='exact': give a backend such as 'aer' or "
                "'fake:torino', or an estimator"
            )
        if isinstance(options.backend, str):
            return contextlib.nullcontext(model)
        from qiskit_qdeq.execution.running import computed

        return contextlib.nullcontext(computed(model, options.backend))
    # imported here: who never measures does not load the primitives
    from qiskit_qdeq.execution.description import Execution

    backend, estimator = options.backend, options.estimator
    seed = int(options.random_state) if isinstance(options.random_state, int | np.integer) else None
    if isinstance(backend, Execution):
        if options.shots is not None:
            raise InputError("shots is part of the Execution given as backend: set it there")
        return _kept(model, backend, options.sampling, journal, budget, estimator=estimator)
    if isinstance(backend, str) and estimator is None:
        execution = Execution(backend, shots=options.shots, seed=seed)
        return _kept(model, execution, options.sampling, journal, budget)
    execution = Execution("given", shots=options.shots, seed=seed)
    device = None if isinstance(backend, str) else backend
    if device is None and backend != "exact":
        raise InputError(f"backend {backend!r} and an estimator object exclude each other: give one of them")
    return _kept(model, execution, options.sampling, journal, budget, backend=device, estimator=estimator)


def _check_journal(options: Any, journal: Any) -> None:
    if journal is None:
        return
    if not isinstance(journal, str | os.PathLike) or not os.fspath(journal):
        raise InputError(f"journal must name a file, got {journal!r}")
    if not isinstance(options.random_state, int | np.integer):
        raise InputError(
            f"journal={journal!r} needs an integer random_state, got {options.random_state!r}: only a fit that asks for the "
            "same again can fetch what it paid for"
        )


@contextlib.contextmanager
def _kept(
    model: QDEQModel, execution: Any, sampling: Sampling | None, journal: Any, budget: Any, **objects: Any
) -> Iterator[QDEQModel]:
    """`executed`, which takes a journal where there is no use for one."""
    from qiskit_qdeq.execution.durable import DurableEstimator
    from qiskit_qdeq.execution.running import executed

    with executed(model, execution, sampling=sampling, journal=journal, budget=budget, **objects) as measured:
        if journal is not None and not isinstance(getattr(measured.evaluator, "estimator", None), DurableEstimator):
            raise InputError(
                f"journal={journal!r} has no effect on a simulator, whose jobs can be run again: leave it out"
            )
        yield measured


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool) and bool(np.isfinite(value))
