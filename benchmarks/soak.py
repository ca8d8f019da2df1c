"""Thousands of jobs of one training run through the loopback service: memory and open files of the client stay flat.

python benchmarks/soak.py [jobs]
"""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import sys
import tempfile
import time
import tracemalloc
import warnings
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "tests"), str(HERE.parent / "tests" / "execution")]
os.environ.setdefault("OMP_NUM_THREADS", "1")

from loopback import loopback_process
from service_runs import short_waiting, train

from qiskit_qdeq.execution.events import JobEvent
from qiskit_qdeq.training.config import TrainingConfig


class Meter:
    """Measures after every `every` jobs; what is measured is in `rows`."""

    def __init__(self, every: int) -> None:
        self.every, self.jobs, self.started = every, 0, time.perf_counter()
        self.rows: list[tuple[int, float, float, int]] = []

    def __call__(self, event: JobEvent) -> None:
        self.jobs += event.kind == "finished"
        if event.kind == "finished" and self.jobs % self.every == 0:
            gc.collect()
            self.rows.append((self.jobs, resident(), tracemalloc.get_traced_memory()[0] / 2**20, open_files()))
            print("{:6d} jobs  RSS {:7.1f} MiB  traced {:7.2f} MiB  {:3d} open files".format(*self.rows[-1]), end="  ")
            print(f"{time.perf_counter() - self.started:6.0f} s", flush=True)


def resident() -> float:
    """MiB of this process now; its largest so far where the system does not say."""
    status = Path("/proc/self/statm")
    if status.exists():
        return int(status.read_text().split()[1]) * resource.getpagesize() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def open_files() -> int:
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.exists() else 0


def soak(jobs: int, every: int) -> Meter:
    """One run of at least `jobs` jobs."""
    meter = Meter(every)
    # two steps of one job and a validation per epoch
    config = TrainingConfig(epochs=-(-jobs // 3), batch_size=1, mode="direct", schedule="constant")
    with (
        tempfile.TemporaryDirectory() as folder,
        loopback_process("engine=random") as loopback,
        short_waiting(),
        tracing(),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        outcome = train(loopback, Path(folder), config=config, samples=2, listeners=[meter])
        assert outcome.error is None, outcome.error
        journal = (Path(folder) / "jobs.jsonl").stat().st_size
        print(f"{outcome.submitted} jobs, {outcome.twice} twice; {journal // outcome.submitted} bytes of journal a job")
        for statistic in tracemalloc.take_snapshot().statistics("filename")[:5]:
            print("   ", statistic.size // 1024, "KiB", Path(statistic.traceback[0].filename).name)
    return meter


@contextlib.contextmanager
def tracing() -> Iterator[None]:
    """Allocations are traced meanwhile."""
    tracemalloc.start(1)
    try:
        yield
    finally:
        tracemalloc.stop()


if __name__ == "__main__":
    soak(int(sys.argv[1]) if len(sys.argv) > 1 else 2000, 200)
