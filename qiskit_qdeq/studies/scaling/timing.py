"""Time and memory of one point, in a process of its own; what is refused there says why."""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numba.core.event
import numpy as np

from qiskit_qdeq.evaluation.threads import num_threads
from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.inference import predict
from qiskit_qdeq.studies.fresh import StepTimer, in_fresh_process, peak_mib
from qiskit_qdeq.studies.scaling.points import inputs, point_of
from qiskit_qdeq.training.trainer import Trainer

#: Training steps at most, after the first, which is part of the set-up.
_STEPS = 20
_LEAST = 2


def timing_task(arguments: Mapping[str, Any], *, timeout: float = 300.0) -> dict[str, Any]:
    """Measure a training step and a prediction of a point.

    A process in which kernels had to be compiled, which happens once per machine, is not what is measured: it is run again.
    With `first_use` that process is what is measured.

    Args:
        arguments: `point`, fields of `Point`; `seconds` of training, and of prediction, that are enough; `memory_gib` that
            the process may take; `first_use`: whether it is to find no compiled kernels.
        timeout: seconds after which the process is ended.

    Returns:
        `refused`: None, or why there are no figures; `ms_per_step` and `ms_per_prediction` (of one sample), medians, with
        `steps` timed; `setup_seconds`: building the model and what the first step takes longer than others;
        `peak_mib` of the process after training; `base_mib` of one that has only imported the package; `solver_steps` and
        `unconverged`: means over steps; `threads`.

    Raises:
        ExecutionError: if the process fails in a way nobody foresees.
    """
    question = dict(arguments)
    first_use = question.pop("first_use")
    point_of(question["point"])
    try:
        with tempfile.TemporaryDirectory() as folder:
            found = _asked(question, timeout, {"NUMBA_CACHE_DIR": folder} if first_use else {})
        if found.pop("compiled", 0) and not first_use:
            found = _asked(question, timeout, {})
    except TimeoutError as error:
        return {"refused": str(error)}
    except MemoryError as error:
        return {"refused": _too_much(question["memory_gib"], error)}
    return {name: value for name, value in found.items() if name != "compiled"}


def _asked(question: Mapping[str, Any], timeout: float, environment: Mapping[str, str]) -> dict[str, Any]:
    module = "qiskit_qdeq.studies.scaling.timing"
    return in_fresh_process(module, question, timeout=timeout, environment=environment)


def measure(point: Mapping[str, Any], seconds: float, memory_gib: float) -> dict[str, Any]:
    """The figures of `timing_task`, in this process; `compiled`: kernels that were compiled meanwhile."""
    warnings.simplefilter("ignore")
    _limit_memory(memory_gib)
    base = peak_mib()
    try:
        with _counting_compilations() as compiled:
            found = _measured(point, seconds)
    except InputError as error:
        return {"refused": str(error)}
    except MemoryError as error:
        return {"refused": _too_much(memory_gib, error)}
    return {"refused": None, **found, "base_mib": base, "compiled": len(compiled)}


def _too_much(memory_gib: float, error: MemoryError) -> str:
    return f"needs more than {memory_gib:g} GiB, the limit of this study ({str(error).rstrip('.') or 'no more memory'})"


def _measured(arguments: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    point = point_of(arguments)
    started = time.perf_counter()
    model, config = point.build(), point.config()
    built = time.perf_counter() - started
    x, y = inputs(point, point.batch)
    timer = StepTimer(seconds, 1 + _LEAST)
    trainer = Trainer(model, replace(config, epochs=1 + _STEPS), x, y, callbacks=[timer])
    parameters = trainer.run().last_parameters
    peak = peak_mib()
    first, *others = trainer.step_seconds
    step = float(np.median(others))
    found = None if config.mode == "direct" else config.solver
    durations = list(_predictions(model, parameters, x, found, config.layers, seconds))
    return {
        "ms_per_step": 1e3 * step,
        "ms_per_prediction": 1e3 * float(np.median(durations)) / point.batch,
        "steps": len(others),
        "setup_seconds": built + max(0.0, first - step),
        "peak_mib": peak,
        "solver_steps": float(np.mean(timer.solver_steps)),
        "unconverged": float(np.mean(timer.unconverged)),
        "threads": num_threads(),
    }


def _predictions(model: Any, parameters: Any, x: Any, found: Any, layers: int, seconds: float) -> Iterator[float]:
    """Durations of predicting all samples; the first, in which buffers are made, is left out where that can be afforded."""
    begun, prepared = time.perf_counter(), model.prepare(x)
    for count in range(1 + _STEPS):
        started = time.perf_counter()
        predict(model, parameters, prepared, found, layers=layers, on_failure="accept")
        now = time.perf_counter()
        if count or now - begun > seconds:
            yield now - started
        if now - begun > seconds:
            return


@contextlib.contextmanager
def _counting_compilations() -> Iterator[list[Any]]:
    """What numba compiles, not what it loads."""
    with numba.core.event.install_recorder("numba:compile") as recorder:
        yield recorder.buffer


def _limit_memory(gib: float) -> None:
    """Make what is too much a MemoryError instead of a machine that stands still; not on Windows."""
    try:
        import resource
    except ImportError:
        return
    resource.setrlimit(resource.RLIMIT_DATA, (int(gib * 2**30),) * 2)


if __name__ == "__main__":
    print(json.dumps(measure(**json.load(sys.stdin))))
