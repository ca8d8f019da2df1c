"""Which part of the work goes to which thread, so that a result never depends on how many threads there are.

Large loops and products are cut into parts by their size alone and run on one pool. BLAS is kept to one thread meanwhile
(`compute_context`): its own threads spin for a while after each product and would fight the pool for the processors.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController

from qiskit_qdeq.evaluation.vectors import LANES

Array = np.ndarray[Any, np.dtype[Any]]

#: Amplitudes below which starting a thread costs more than it saves.
_SMALL = 1 << 14
# glibc's malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
#: Multiplications of a product below which the same holds.
_SMALL_PRODUCT = 1 << 22
#: Parts are cut by size alone, never by the number of threads: partial sums are then added in one fixed order.
_PARTS = 4


def num_threads() -> int:
    """Threads for the compiled sweeps: `OMP_NUM_THREADS` if set, else the processors this process may use."""
    limit = os.environ.get("OMP_NUM_THREADS", "")
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(available, int(limit))) if limit.isdigit() and int(limit) > 0 else available


def split_columns(dim: int, columns: int) -> list[tuple[int, int]]:
    """Ranges of columns that make independent pieces of work, of whole vectors of columns but for the last."""
    if dim * columns < _SMALL or columns < _PARTS * LANES:
        return [(0, columns)]
    edges = [LANES * round(part * columns / (_PARTS * LANES)) for part in range(_PARTS)]
    return list(pairwise([*edges, columns]))


def run_parts(function: Callable[..., Any], calls: Iterable[tuple[Any, ...]]) -> None:
    """Call a function that releases the GIL once per tuple of arguments, in parallel where that pays."""
    work = list(calls)
    threads = num_threads() if len(work) > 1 else 1
    waiting = iter(work)

    def drain() -> None:
        for arguments in waiting:
            function(*arguments)

    helpers = [_pool(os.getpid(), threads).submit(drain) for _ in range(min(threads, len(work)) - 1)]
    drain()
    for helper in helpers:
        # one that has not begun by now has nothing left to do
        if not helper.cancel():
            helper.result()


def matmul(left: Array, right: Array) -> Array:
    """left @ right, (m, k) and (k, n), rows of `left` in parts where the product is large."""
    rows, inner = left.shape
    if rows * inner * right.shape[1] < _SMALL_PRODUCT or rows < 2 * _PARTS:
        return left @ right
    out = np.empty((rows, right.shape[1]), dtype=np.result_type(left, right))
    edges = [round(part * rows / _PARTS) for part in range(_PARTS + 1)]
    run_parts(lambda a, b: np.matmul(left[a:b], right, out=out[a:b]), pairwise(edges))
    return out


def compute_context() -> AbstractContextManager[Any]:
    """The context that training and prediction run in: one BLAS thread, and freed memory kept for the next step.

    For entry points, since entering takes some microseconds.
    """
    _keep_freed_memory()
    context: AbstractContextManager[Any] = _controller().limit(limits=1, user_api="blas")
    return context


@lru_cache(maxsize=1)
def _keep_freed_memory() -> None:
    """Ask glibc not to give up to 256 MB of freed memory back to the system, where there is a glibc.

    A ten-qubit step allocates and frees the same 60 MB each time; mapping them anew took a third of its time.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, 32 * 2**20)
        mallopt(_M_TRIM_THRESHOLD, 256 * 2**20)


@lru_cache(maxsize=1)
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


@lru_cache(maxsize=1)
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """One pool per process: keyed on the process id so that a forked child makes its own."""
    return ThreadPoolExecutor(threads, thread_name_prefix=f"qdeq-{process}")
