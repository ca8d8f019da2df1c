"""A model whose circuits are executed as described: the one argument between exact simulation and a device."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

from qiskit.primitives import BaseEstimatorV2
from qiskit.providers import BackendV2

from qiskit_qdeq.evaluation.sampling import Sampling
from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.execution.account import Budget
from qiskit_qdeq.execution.description import Execution
from qiskit_qdeq.execution.devices import device_identity
from qiskit_qdeq.execution.estimators import build_estimator
from qiskit_qdeq.execution.events import Announcer, Listener
from qiskit_qdeq.execution.journal import Journal
from qiskit_qdeq.model import QDEQModel

#: Fields that may differ between a run and its continuation.
_RESUMABLE = ("mode", "max_time", "patience")


@contextlib.contextmanager
def executed(
    model: QDEQModel,
    execution: Execution,
    *,
    sampling: Sampling | None = None,
    backend: BackendV2 | None = None,
    estimator: BaseEstimatorV2 | None = None,
    session: Any = None,
    journal: str | os.PathLike[str] | Journal | None = None,
    budget: Budget | str | None = None,
    listeners: Sequence[Listener] = (),
) -> Iterator[QDEQModel]:
    """`model` with its circuits run as `execution` says; sessions and batches are closed at the end, whatever happens.

    With `Execution("exact")` no circuits run; with its `noise` the model is computed under it, see `QDEQModel.noisy`.

    Args:
        model: any model; its parameters serve the result and back.
        execution: backend, shots, noise, mode and mitigation.
        sampling: shots or precision per purpose where they differ, and the weight gradient's estimator.
        backend: a backend object, with `Execution("given")`.
        estimator: an estimator object, with `Execution("given")`.
        session: an open `Session` or `Batch` on that backend object, closed by its owner; None: what `execution.mode` says.
        journal: file in which the jobs at a service are kept, so that none is submitted twice when the same work is begun
            again; simulators need none.
        budget: the most that may be spent, such as "600s, 20000 circuits", see `Budget.parse`.
        listeners: told what happens to jobs at a service.

    Raises:
        InputError: if the description cannot be followed; see `build_estimator` and `QDEQModel.measured`.
        JournalError: if the journal is damaged or of another device.

    >>> from qiskit_qdeq import model_config
    >>> model = model_config("default", 4, 2, 2).build()
    >>> with executed(model, Execution("aer", shots=100, seed=0)) as measured:
    ...     measured.evaluator.is_exact
    False
    """
    if execution.kind == "exact":
        objects = {
            "sampling": sampling,
            "backend": backend,
            "estimator": estimator,
            "session": session,
            "journal": journal,
            "budget": budget,
        }
        if names := [name for name, value in objects.items() if value is not None]:
            raise InputError(f"{', '.join(names)} cannot have an effect with backend='exact', which runs no circuits")
        yield computed(model, execution)
        return
    amount = execution.shots if execution.shots is not None else execution.precision
    chosen = sampling or Sampling()
    if chosen.forward is not None and amount is not None and chosen.forward != amount:
        raise InputError(
            f"sampling says forward={chosen.forward!r} and the execution {amount!r}: give one of them, or the same"
        )
    if chosen.forward is None and amount is not None:
        chosen = replace(chosen, forward=amount)
    if isinstance(budget, str):
        budget = Budget.parse(budget)
    if not (budget is None or isinstance(budget, Budget)):
        raise InputError(f"budget must be a Budget or a text such as '600s', got {budget!r}")
    announce = Announcer()
    announce.listeners.extend(listeners)
    if not (journal is None or isinstance(journal, Journal)):
        journal = Journal(journal)
    with build_estimator(
        execution,
        model.template.num_qubits,
        backend=backend,
        estimator=estimator,
        session=session,
        journal=journal,
        budget=budget,
        announce=announce,
    ) as opened:
        transpiled: dict[str, Any] = {"pass_manager": opened.pass_manager}
        if execution.copies != 1:
            transpiled = {"copies": execution.copies, "optimization_level": execution.optimization_level}
        measured = model.measured(
            opened.estimator,
            sampling=chosen,
            seed=execution.seed or 0,
            backend=opened.backend,
            account=opened.account,
            notes={"execution": _identity(execution), **_device_of(execution, opened.backend or estimator)},
            **transpiled,
        )
        evaluator: Any = measured.evaluator
        if opened.account.budget.qpu_seconds is not None and evaluator.runner.timing is None:
            raise InputError(
                f"a budget of QPU seconds has no meaning on {execution.backend!r}, whose durations are unknown: give shots "
                "or circuits, or take fake:NAME or ibm:NAME"
            )
        yield measured


def computed(model: QDEQModel, execution: Execution) -> QDEQModel:
    """`model` evaluated without circuits, as `Execution("exact", ...)` says."""
    if not execution.noise:
        return model
    return model.noisy(execution.noise, optimization_level=execution.optimization_level)


def _device_of(execution: Execution, given: Any) -> dict[str, str]:
    """What a backend object is, or that of a `BackendEstimatorV2`: simulators of any noise have one name."""
    backend = getattr(given, "backend", given)
    if execution.kind != "given" or not isinstance(backend, BackendV2):
        return {}
    return {"device": device_identity(backend)}


def _identity(execution: Execution) -> dict[str, Any]:
    """What a run and its continuation have in common; runs from before there were copies have one."""
    left_out = _RESUMABLE if execution.copies != 1 else (*_RESUMABLE, "copies")
    return {name: value for name, value in asdict(execution).items() if name not in left_out}
