"""A small training at the loopback service, what became of it, and waiting made short: for tests and benchmarks."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import tenacity.nap
from qiskit_ibm_runtime.api.session import PostForcelistRetry

from qiskit_qdeq import model_config
from qiskit_qdeq.execution import journal as journal_module
from qiskit_qdeq.execution.description import Execution
from qiskit_qdeq.execution.journal import Journal
from qiskit_qdeq.execution.patience import Persistence
from qiskit_qdeq.execution.running import executed
from qiskit_qdeq.training.checkpoint import Checkpoint, load_checkpoint
from qiskit_qdeq.training.config import TrainingConfig
from qiskit_qdeq.training.trainer import Trainer

RUN = "0123456789abcdef"
_RNG = np.random.default_rng(7)
INPUTS, LABELS = _RNG.normal(size=(16, 4)), np.arange(16) % 2
#: Two steps of one job and a validation of one, twice; 936 circuits.
CONFIG = TrainingConfig(epochs=2, batch_size=8, mode="direct")
JOBS = 6


@dataclass
class Outcome:
    """What became of a run at the service.

    Attributes:
        error: that ended it, None if it ended by itself.
        seconds: it took.
        submitted, executed: jobs, at the service.
        twice: requests executed more than once.
        requests: of all kinds.
        checkpoint: what the run left.
    """

    error: BaseException | None
    seconds: float
    submitted: int
    executed: int
    twice: int
    requests: Counter[str]
    checkpoint: Checkpoint | None
    result: Any = field(default=None, repr=False)

    def equals(self, other: Outcome) -> bool:
        """Whether both left the same parameters, moments and history; clocks apart."""
        if self.checkpoint is None or other.checkpoint is None:
            return False
        mine, others = self.checkpoint.arrays, other.checkpoint.arrays
        names = set(mine) - {"history/seconds"}
        return (
            names == set(others) - {"history/seconds"}
            and all(np.array_equal(mine[name], others[name]) for name in names)
            and self.checkpoint.document["progress"] == other.checkpoint.document["progress"]
        )


@contextlib.contextmanager
def short_waiting(factor: float = 0.01):
    """Pauses are `factor` of their length, and the client's between its own attempts none; all else is as it is."""
    sleep = Persistence.sleep
    with (
        mock.patch.object(Persistence, "sleep", lambda self, seconds: sleep(self, factor * seconds)),
        mock.patch.object(tenacity.nap, "time", SimpleNamespace(sleep=lambda seconds: None)),
        mock.patch.object(PostForcelistRetry, "sleep", return_value=None),
    ):
        yield


@contextlib.contextmanager
def environment(loopback):
    """Of a process whose account is at the loopback service; it does not look through its stack for every request."""
    with mock.patch.dict("os.environ", {**loopback.environment, "USAGE_DATA_OPT_OUT": "True"}):
        yield


def train(
    loopback,
    folder: Path,
    *,
    resume: bool = False,
    config: TrainingConfig = CONFIG,
    execution: Execution | None = None,
    samples: int = 16,
    callbacks=(),
    **options: Any,
) -> Outcome:
    """One process of a run whose files are in `folder`; `options` are those of `executed`.

    Its name is always the same, so that the service repeats the noise of its jobs.
    """
    before, counts, started = len(loopback.jobs), Counter(loopback.counts), time.perf_counter()
    error: BaseException | None = None
    result = None
    with environment(loopback):
        try:
            result = _trained(loopback, folder, resume, config, execution, samples, callbacks, options)
        except BaseException as caught:
            error = caught
    jobs = loopback.jobs[before:]
    executions: Counter[str] = Counter()
    for job in loopback.jobs:
        executions[max(job.tags, key=len, default=job.id)] += job.executed
    file = folder / "checkpoint.safetensors"
    return Outcome(
        error,
        time.perf_counter() - started,
        len(jobs),
        sum(job.executed for job in jobs),
        sum(count > 1 for count in executions.values()),
        Counter(loopback.counts) - counts,
        load_checkpoint(file) if file.exists() else None,
        result,
    )


def _trained(loopback, folder, resume, config, execution, samples, callbacks, options):
    file = folder / "checkpoint.safetensors"
    with mock.patch.object(journal_module.secrets, "token_hex", return_value=RUN):
        journal = Journal(folder / "jobs.jsonl", run=RUN if resume else None)
    with executed(
        model_config("default", 4, 2, 2).build(), execution or execution_of(), journal=journal, **options
    ) as model:
        trainer = Trainer(
            model,
            config,
            INPUTS[:samples],
            LABELS[:samples],
            INPUTS[:4],
            LABELS[:4],
            callbacks=callbacks,
            checkpoint=file,
            checkpoint_every=1,
        )
        if resume and file.exists():
            trainer.resume()
        return trainer.run()


def execution_of(mode: str = "session", **options: Any) -> Execution:
    """Where the run measures."""
    return Execution(
        "ibm:ibm_loopback",
        shots=20,
        mode=mode,
        resilience_level=0,
        optimization_level=1,
        **{"patience": 5.0, **options},
    )


def texts_of(error: BaseException | None) -> list[str]:
    """Of an exception and of all that are chained to it, whether they would be shown or not."""
    found: list[str] = []
    while error is not None:
        found += [repr(error), str(error), *getattr(error, "__notes__", ())]
        if error.__cause__ is not None:
            found += texts_of(error.__cause__)
        error = error.__context__
    return found


def files_of(folder: Path) -> dict[str, bytes]:
    """Contents of all files of a run."""
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
