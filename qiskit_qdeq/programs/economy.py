"""`train --economy`: the options that spend a budget of QPU seconds well, printed before anything is spent."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from qiskit_qdeq.data import DataSplit
from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.execution.account import Budget
from qiskit_qdeq.model import QDEQModel
from qiskit_qdeq.programs.arguments import TrainArguments
from qiskit_qdeq.programs.recipes import training_of
from qiskit_qdeq.programs.running import Device, described
from qiskit_qdeq.training.economy import plan_economy

#: What the plan decides.
_PLANNED = ("epochs", "shots", "precision", "jacobian_shots", "gradient_shots", "shots_growth", "gradient_method")


def economical(
    options: TrainArguments, split: DataSplit, model: QDEQModel, publish: Callable[[str], None], device: Device
) -> TrainArguments:
    """The options with all that the budget decides.

    Raises:
        InputError: without a budget of seconds, with an option that the plan decides, or where a plan is not possible.
    """
    seconds = Budget.parse(options.budget).qpu_seconds if options.budget else None
    if seconds is None:
        raise InputError("--economy spends a budget of QPU time: add one, such as --budget 600s")
    if given := [name for name in _PLANNED if getattr(options, name) is not None]:
        shown = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise InputError(f"{shown} cannot be given with --economy, which plans shots and steps: leave out either")
    if options.backend.partition(":")[0] not in ("fake", "ibm", "given"):
        raise InputError(
            f"--economy needs --backend fake:NAME or ibm:NAME, whose QPU time is known, got {options.backend}"
        )
    if options.solver not in (None, "probe"):
        raise InputError(
            f"--economy measures the whole map with solver probe, got --solver {options.solver}: leave out either"
        )
    copies = "auto" if options.copies is None else options.copies
    options = dataclasses.replace(options, copies=copies, probe_ahead=True)
    config = training_of(options, split)
    with described(model, dataclasses.replace(options, shots=100), options.seed, device) as measured:
        plan = plan_economy(measured, config, seconds, len(split.x_train), len(split.x_test))
    if not options.quiet:
        # a dry run goes on with the table
        publish(plan.headline if options.dry_run else str(plan))
    sampling = plan.sampling
    return dataclasses.replace(
        options,
        epochs=plan.epochs,
        limit_train=options.limit_train if plan.samples == len(split.x_train) else plan.samples,
        shots=int(sampling.forward or 0),
        gradient_shots=int(sampling.gradient or 0),
        shots_growth=sampling.growth,
    )
