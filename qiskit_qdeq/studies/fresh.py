"""Time and memory of training, measured in a process of its own: what others left in memory or in caches does not count."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from qiskit_qdeq.exceptions import ExecutionError
from qiskit_qdeq.training.step import StepResult
from qiskit_qdeq.training.trainer import Trainer


def in_fresh_process(
    module: str,
    question: Mapping[str, Any],
    *,
    timeout: float | None = None,
    environment: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """What `python -m module` prints as its last line, JSON, when it is given `question` as JSON.

    Args:
        module: a program that reads standard input.
        question: plain values.
        timeout: seconds after which the process is ended.
        environment: variables that it has beside those of this process.

    Raises:
        ExecutionError: if the process fails, with what it said.
        TimeoutError: if it does not end in time.
        MemoryError: if the system ended it, or it ended because memory was short.
    """
    words = [sys.executable, "-m", module]
    try:
        done = subprocess.run(
            words,
            input=json.dumps(question),
            capture_output=True,
            text=True,
            timeout=timeout,
            env={**os.environ, **(environment or {})},
        )
    except subprocess.TimeoutExpired:
        raise TimeoutError(f"not done after {timeout:g} s") from None
    if done.returncode in (-9, -6):  # SIGKILL and SIGABRT: what a system does that is short of memory, and C++
        raise MemoryError(f"the system ended the process (signal {-done.returncode})")
    # OpenBLAS ends the process that runs out of memory
    if done.returncode and "emory allocation" in done.stderr:
        raise MemoryError(done.stderr.strip().splitlines()[-1])
    if done.returncode:
        raise ExecutionError(
            f"the process that measures time and memory failed (exit code {done.returncode}): "
            f"{done.stderr.strip()[-500:]}"
        )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@dataclass
class StepTimer:
    """A callback that ends a training run some seconds after its first step, but not before some steps.

    Attributes:
        seconds, least: when.
        solver_steps: of every step taken, its mean over samples; 0 in direct mode.
        unconverged: of every step taken, the share of samples without an equilibrium.
    """

    seconds: float = math.inf
    least: int = 3
    solver_steps: list[float] = field(default_factory=list)
    unconverged: list[float] = field(default_factory=list)
    _started: float = math.inf

    def on_step(self, trainer: Trainer, result: StepResult) -> None:
        """Count the step."""
        now = time.perf_counter()
        self._started = min(self._started, now)
        solution = result.solution
        self.solver_steps.append(0.0 if solution is None else float(np.mean(solution.steps)))
        self.unconverged.append(0.0 if solution is None else float(np.mean(~solution.converged)))
        if len(self.unconverged) >= self.least and now - self._started > self.seconds:
            trainer.stop()

    def on_epoch(self, trainer: Trainer, record: dict[str, float]) -> None:
        """Nothing to do."""


def peak_mib() -> float | None:
    """Largest resident memory of this process; None where the system does not tell."""
    try:
        # not getrusage: on Linux a process inherits its parent's peak there
        found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
        return int(found[1]) / 2**10 if found else None
    except OSError:
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    # bytes on macOS
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
