"""How far does it scale? Time, memory, circuits and gradients against qubits, depth, batch and features.

Measured here, one configuration at a time in a process of its own; computed for a device, on which nothing is executed;
extrapolated by fitted formulas, in tables of their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.execution.devices import device_identity
from qiskit_qdeq.programs.arguments import from_mapping, given, option, parser
from qiskit_qdeq.programs.study import StudyArguments, check_at_least, refuse_backend, studying
from qiskit_qdeq.studies.scaling import rows
from qiskit_qdeq.studies.scaling.circuits import device_task, named_device
from qiskit_qdeq.studies.scaling.figures import all_figures
from qiskit_qdeq.studies.scaling.report import markdown
from qiskit_qdeq.studies.scaling.timing import timing_task
from qiskit_qdeq.studies.scaling.variance import variance_task
from qiskit_qdeq.studies.tasks import Mapper

_DRAWS = 200
_QUICK_DRAWS = 50


@dataclass(frozen=True)
class ScalingArguments(StudyArguments):
    """Options of `scaling`."""

    backend: str = option("fake:torino", "device whose gates and QPU time are computed: fake:NAME or ibm:NAME")
    draws: int | None = option(None, f"random weights per circuit, default {_DRAWS}", type=int)
    seed: int = option(0, "of weights, samples and random circuits", type=int)
    memory: float = option(6.0, "GiB that one configuration may take", type=float)
    quick: bool = option(False, f"to 10 qubits, three axes, {_QUICK_DRAWS} draws: two minutes")
    output: str = option("scaling-study", "folder of the study; the same folder again goes on where it stopped")


def main(
    backend: Any = None,
    arguments: Mapping[str, Any] | None = None,
    mode: Any = None,
    mapper: Mapper = map,
    publish: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Measure, compute and extrapolate, write tables and figures, and return what results.json holds.

    Args:
        backend: device whose gates and QPU time are computed, "fake:NAME", "ibm:NAME" or an object; None: the argument
            `backend`. Nothing is executed on it.
        arguments: fields of `ScalingArguments`.
        mode: None.
        mapper: spreads the tasks, called like `map`; `map` itself: what the arguments `mapper` and `workers` say. Times are
            measured here, one after the other.
        publish: is given the tables.

    Raises:
        InputError: for arguments that cannot be used.
        StudyError: if tasks failed; the others are kept.
    """
    refuse_backend("scaling", None, mode)
    options = from_mapping(ScalingArguments, {} if arguments is None else arguments)
    check_at_least(options, 2, "draws")
    check_at_least(options, 0, "seed")
    if not 0 < options.memory < math.inf:
        raise InputError(f"memory must be > 0 GiB and finite, got {options.memory}")
    device, name = _device(backend, options.backend, given_too=backend is not None and "backend" in (arguments or {}))
    quick = options.quick
    with studying("scaling", options, mapper, publish) as study:
        timing = rows.timing_tasks(quick, options.memory)
        timed = rows.point_rows(timing, study.run(timing, timing_task, "time and memory", mapper=map), quick)
        compiling = rows.first_use_tasks(quick, options.memory)
        first = study.run(compiling, timing_task, "first use", mapper=map)
        devices = rows.device_tasks(quick, name if device is None else device_identity(device))
        # an object may not be one that other processes understand
        own = {} if device is None else {"mapper": map}
        on_device = study.run(devices, partial(device_task, device=device), "circuits", **own)
        variances = rows.variance_tasks(quick, options.draws or (_QUICK_DRAWS if quick else _DRAWS), options.seed)
        varied = rows.variance_rows(variances, study.run(variances, variance_task, "gradients"))
        growth = rows.growth_rows(timed)
        computed = rows.point_rows(devices, on_device, quick)
        results = {
            "quick": quick,
            "backend": name,
            "seed": options.seed,
            "timing": timed,
            "first_use": [{**task.arguments["point"], **found} for task, found in zip(compiling, first, strict=True)],
            "device": computed,
            "formula": rows.formula_rows(computed),
            "growth": growth,
            "extrapolated": rows.extrapolated_rows(growth),
            "variance": varied,
            "decay": rows.decay_rows(varied),
        }
        return study.write(results, markdown(results), lambda: all_figures(results))


def command(words: Sequence[str] | None = None) -> int:
    """`python -m qiskit_qdeq scaling`: the exit code."""
    options = parser(ScalingArguments, "qiskit_qdeq scaling", "Time, memory, circuits and gradients against size.")
    main(arguments=given(options, ScalingArguments, words))
    return 0


def _device(backend: Any, chosen: str, *, given_too: bool) -> tuple[Any, str]:
    """The device as an object, where one was given, and its name."""
    if given_too:
        raise InputError("backend is given twice, itself and among the arguments: leave one out")
    if backend is None or isinstance(backend, str):
        name = chosen if backend is None else backend
        device = named_device(name)
        # a service is asked once
        return None if name.startswith("fake:") else device, name
    if getattr(backend, "target", None) is None:
        raise InputError(
            f"backend must be a text such as 'fake:torino' or have a target to transpile for, got {backend!r}"
        )
    return backend, str(getattr(backend, "name", type(backend).__name__))
