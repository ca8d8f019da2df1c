"""The mapper of a study on a Ray cluster (extra `ray`): one machine's processors, or many machines'."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from qiskit_qdeq._numbers import keep_integer
from qiskit_qdeq.exceptions import InputError, MissingExtraError

T = TypeVar("T")
R = TypeVar("R")

#: How often Ray gives a task out again whose worker or node has died.
RETRIES = 3


@dataclass(frozen=True)
class RayCluster:
    """Calls a function on a Ray cluster, one processor each; gives results as they come.

    The cluster is the one this process is connected to, else the one at `address` or `$RAY_ADDRESS`, else one on this
    machine, which ends with the study. The package must be installed on every node.

    Args:
        workers: tasks at a time; 0 is one per processor of the cluster.
        address: of a running cluster, such as "ray://head:10001" or "auto".

    Raises:
        InputError: if `workers` is no integer >= 0, or no cluster answers at the address.
        MissingExtraError: if Ray is not installed.
    """

    workers: int = 0
    address: str | None = None

    def __post_init__(self) -> None:
        keep_integer(self, "workers", 0)
        _ray()

    def __call__(self, function: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
        """`map(function, items)`, in the order in which results come; tasks whose worker died are done again."""
        ray = _ray()
        with self._connected(ray):
            # Ray names a function of its own, but no partial
            @ray.remote(num_cpus=1, max_retries=RETRIES)  # type: ignore[untyped-decorator]
            def call(item: T) -> R:
                return function(item)

            waiting = list(reversed(items))
            at_most = self.workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
            running: list[Any] = []
            try:
                while waiting or running:
                    while waiting and len(running) < at_most:
                        running.append(call.remote(waiting.pop()))
                    done, running = ray.wait(running, num_returns=1)
                    yield ray.get(done[0])
            finally:
                for reference in running:
                    ray.cancel(reference, force=True)

    @contextlib.contextmanager
    def _connected(self, ray: Any) -> Iterator[None]:
        if ray.is_initialized():
            yield
            return
        address = self.address or os.environ.get("RAY_ADDRESS")
        started: dict[str, Any] = {"num_cpus": self.workers or None, "include_dashboard": False}
        try:
            ray.init(address, log_to_driver=False, logging_level="ERROR", **(started if address is None else {}))
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise InputError(f"no Ray cluster answers at {address or 'this machine'}: {error}") from error
        try:
            yield
        finally:
            ray.shutdown()


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError("a Ray cluster needs the extra ray: pip install 'qiskit-qdeq[ray]'") from error
    return ray
