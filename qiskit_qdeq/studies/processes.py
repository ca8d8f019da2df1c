"""The mapper of a study on one machine: joblib's worker processes, each with its share of the processors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from joblib import Parallel, cpu_count, delayed, parallel_config

from qiskit_qdeq._numbers import keep_integer

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class LocalProcesses:
    """Calls a function in worker processes; gives results as they come.

    Args:
        workers: processes; 0 is one per processor. The processors are divided among them.

    Raises:
        InputError: if `workers` is no integer >= 0.
    """

    workers: int = 0

    def __post_init__(self) -> None:
        keep_integer(self, "workers", 0)

    def __call__(self, function: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
        """`map(function, items)`, in the order in which results come."""
        processors = cpu_count()
        workers = min(self.workers or processors, len(items))
        if workers <= 1:
            yield from map(function, items)
            return
        with parallel_config("loky", inner_max_num_threads=max(1, processors // workers)):
            found = Parallel(workers, return_as="generator_unordered", pre_dispatch=workers, batch_size=1)
            yield from found(delayed(function)(item) for item in items)
