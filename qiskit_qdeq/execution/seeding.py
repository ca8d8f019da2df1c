"""Reproducible shot noise that is fresh in every call.

An integer seed makes every known primitive repeat the same noise in each call, some of them even in each PUB of a call. A
solver then sees a deterministic map and converges to a wrong precision; shifted circuits of a gradient cancel their noise.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from qiskit.primitives import PrimitiveJob, PrimitiveResult, PubResult

from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.execution.primitives import Kind, innermost, kind_of


class SeededEstimator:
    """An estimator whose k-th PUB since `restart` takes its noise from (seed, position, k).

    PUBs are run one by one in the calling thread, each with a seed of its own: that is for simulators, hardware has no
    seed. Each call still looks like one job. The seed set on the estimator itself is back in place after the call.

    Args:
        estimator: StatevectorEstimator, BackendEstimatorV2, Aer's EstimatorV2, one of IBM's on a local simulator, or any
            with a method ``reseed(seed)``.
        seed: integer of at least 0.

    Raises:
        InputError: if the seed is none, or the estimator is not one whose seed is known.
    """

    def __init__(self, estimator: Any, seed: int) -> None:
        if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
            raise InputError(f"seed must be an integer of at least 0, got {seed!r}")
        if kind_of(estimator) is Kind.OTHER and not _reseeds(estimator):
            raise InputError(
                f"estimator must be one whose seed can be set, got {type(estimator).__name__}; give it a method reseed(seed)"
            )
        service = getattr(innermost(estimator), "_service", None)
        if service is not None and not getattr(service, "is_local", False):
            raise InputError("estimator runs on a device, whose noise has no seed; use it without SeededEstimator")
        self.wrapped = estimator
        self._seed = int(seed)
        self.restart(0)

    def restart(self, position: int) -> None:
        """Begin the noise stream of `position`, such as a training step; the same position gives the same noise again."""
        if isinstance(position, bool) or not isinstance(position, int | np.integer) or position < 0:
            raise InputError(f"position must be an integer of at least 0, got {position!r}")
        self._position, self._drawn = int(position), 0

    def run(self, pubs: Iterable[Any], *, precision: float | None = None) -> PrimitiveJob[PrimitiveResult[PubResult]]:
        """Run `pubs` like the estimator does; the job is done when this returns."""
        chosen = {} if precision is None else {"precision": precision}
        results = []
        for pub in pubs:
            sequence = np.random.SeedSequence(self._seed, spawn_key=(self._position, self._drawn))
            self._drawn += 1
            with _seeded(self.wrapped, sequence):
                results.append(self.wrapped.run([pub], **chosen).result())
        metadata = results[0].metadata if results else {}
        job = PrimitiveJob(_give, PrimitiveResult([pub for result in results for pub in result], metadata=metadata))
        job._submit()
        return job


def has_frozen_noise(estimator: Any) -> bool:
    """Whether an integer seed makes `estimator` repeat the same noise in every call."""
    if isinstance(estimator, SeededEstimator) or _reseeds(estimator):
        return False
    primitive = innermost(estimator)
    place = _find_seed(primitive)
    if place is not None and isinstance(_get(*place), int | np.integer):
        return True
    if kind_of(primitive) not in (Kind.BACKEND, Kind.LEGACY):
        return False  # the others do not take over the seed of their backend
    backend = getattr(primitive, "_backend", None)
    return getattr(getattr(backend, "options", None), "seed_simulator", None) is not None


def _give(result: Any) -> Any:
    return result


def _reseeds(estimator: Any) -> bool:
    return callable(getattr(innermost(estimator), "reseed", None))


@contextmanager
def _seeded(estimator: Any, sequence: np.random.SeedSequence) -> Iterator[None]:
    primitive = innermost(estimator)
    # Aer wants 31 bits; IBM's legacy estimator takes 0 for no seed.
    seed = int(1 + sequence.generate_state(1)[0] % (2**31 - 2))
    if _reseeds(primitive):
        primitive.reseed(seed)
        yield
        return
    place = _find_seed(primitive)
    assert place is not None
    before = _get(*place)
    _set(*place, np.random.default_rng(sequence) if kind_of(primitive) is Kind.STATEVECTOR else seed)
    try:
        yield
    finally:
        _set(*place, before)


def _find_seed(primitive: Any) -> tuple[Any, str] | None:
    """The object that holds the seed and its attribute or key there."""
    kind = kind_of(primitive)
    if kind is Kind.STATEVECTOR:
        return primitive, "_seed"  # read anew in every run; the public property has no setter
    if kind is Kind.AER:
        return primitive.options.run_options, "seed_simulator"
    if kind is Kind.BACKEND:
        return primitive.options, "seed_simulator"
    if kind in (Kind.LEGACY, Kind.CLIENT):
        return primitive.options.simulator, "seed_simulator"
    return None


def _get(holder: Any, name: str) -> Any:
    return holder.get(name) if isinstance(holder, dict) else getattr(holder, name)


def _set(holder: Any, name: str, value: Any) -> None:
    if not isinstance(holder, dict):
        setattr(holder, name, value)
    elif value is None:
        holder.pop(name, None)
    else:
        holder[name] = value
