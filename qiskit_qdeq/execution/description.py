"""How circuits are executed, in plain values, and which combinations of them mean something."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from qiskit_qdeq.circuits._checks import check_count
from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.execution.modes import check_mode
from qiskit_qdeq.execution.patience import Patience

_FORMS = "'exact', 'statevector', 'aer', 'fake:<name>', 'ibm:<name>' or 'given'"
_NAMED = ("fake", "ibm")
_PLAIN = ("exact", "statevector", "aer", "given")


@dataclass(frozen=True)
class Execution:
    """How circuits are executed, in plain values that a command line or a checkpoint can hold.

    Attributes:
        backend: "exact" (no circuits: linear algebra, under `noise` too), "statevector" (Qiskit's reference simulation),
            "aer" (fast simulation, with `noise` or without), "fake:<name>" (the best qubits of a fake device, with its
            noise), "ibm:<name>" (the device, with the account saved or in the environment), or "given" (a backend or
            estimator object passed to `build_estimator`).
        shots: executions per circuit and measurement basis; None with `precision` None: exact on simulators, the service's
            default (4096) where a Runtime estimator runs.
        precision: standard error wanted instead, shots = ⌈1/precision²⌉.
        noise: of "exact" and "aer": rates such as "0.001,0.01,0.02" or a device such as "fake:torino", see `parse_noise`.
        mode: "job", "batch" or "session" of a Runtime estimator.
        resilience_level: 0, 1 or 2 of a Runtime estimator; on a fake device it is what turns one on, which then mitigates
            the simulated noise as it would on hardware. None: 1 on an IBM device.
        options: passed untouched to the Runtime estimator, such as {"resilience": {"zne_mitigation": True}}.
        optimization_level: of the transpiler, 0 to 3; None: 3 for devices, 1 for simulators.
        seed: of simulated shots and of the transpiler.
        max_time: seconds after which the service closes the batch or session.
        copies: of the circuit that are executed together on qubits of their own, each for another sample or shift: a number,
            or "auto" for as many well-calibrated ones as the device has room for, see `choose_copies`.
        patience: seconds that an IBM service may be out of reach, or too busy, before the run stops.

    Raises:
        InputError: for a value that is not possible, or that has no effect together with the others.
    """

    backend: str = "statevector"
    shots: int | None = None
    precision: float | None = None
    noise: str = ""
    mode: str = "job"
    resilience_level: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    optimization_level: int | None = None
    seed: int | None = None
    max_time: int | None = None
    patience: float = 600.0
    copies: int | str = 1

    def __post_init__(self) -> None:
        if not (isinstance(self.backend, str) and (self.kind in _PLAIN if not self.name else self.kind in _NAMED)):
            raise InputError(
                f"backend must be {_FORMS}, got {self.backend!r}; a fake device is 'fake:torino', an IBM one 'ibm:NAME'"
            )
        _check_sampling(self)
        check_mode(self.mode, self.max_time)
        if self.resilience_level not in (None, 0, 1, 2) or isinstance(self.resilience_level, bool):
            raise InputError(f"resilience_level must be 0, 1 or 2, got {self.resilience_level!r}")
        if self.optimization_level is not None and self.optimization_level not in range(4):
            raise InputError(f"optimization_level must be 0, 1, 2 or 3, got {self.optimization_level!r}")
        _check_options(self.options)
        Patience(self.patience)  # refuses what is none
        _check_copies(self)
        self._check_effect()

    @property
    def kind(self) -> str:
        """What stands before the colon of `backend`."""
        return self.backend.partition(":")[0]

    @property
    def name(self) -> str:
        """What stands after the colon of `backend`: a device's name, or nothing."""
        return self.backend.partition(":")[2]

    @property
    def target_precision(self) -> float | None:
        """`precision`, or what `shots` amounts to."""
        return self.shots**-0.5 if self.shots else self.precision

    def _check_effect(self) -> None:
        if self.noise and self.kind not in ("exact", "aer"):
            raise InputError(f"noise has no effect with backend={self.backend!r}; use backend='exact' or 'aer'")
        if self.optimization_level is not None and self.kind == "statevector":
            raise InputError("optimization_level has no effect with backend='statevector', which is not transpiled for")
        if self.kind == "exact":
            _check_exact(self)
        runtime = {
            "resilience_level": self.resilience_level is not None,
            "options": bool(self.options),
            "mode": self.mode != "job",
        }
        changed = [name for name, is_set in runtime.items() if is_set]
        if changed and self.kind in ("exact", "statevector", "aer"):
            raise InputError(f"{ineffective(changed)} with backend={self.backend!r}; use 'fake:<name>' or 'ibm:<name>'")
        if changed and self.kind == "fake" and self.resilience_level is None:
            raise InputError(
                f"{ineffective(changed)} with backend={self.backend!r} unless resilience_level (0, 1 or 2) "
                "turns the Runtime estimator on"
            )
        if self.max_time is not None and self.kind == "fake":
            raise InputError(f"max_time has no effect with backend={self.backend!r}; leave it out")


def ineffective(names: Sequence[str]) -> str:
    """The beginning of a refusal.

    >>> ineffective(["mode"]), ineffective(["mode", "options"])
    ('mode has no effect', 'mode, options have no effect')
    """
    return f"{', '.join(names)} {'has' if len(names) == 1 else 'have'} no effect"


def _check_sampling(execution: Execution) -> None:
    if execution.shots is not None and execution.precision is not None:
        raise InputError("shots and precision say the same; give one of them")
    if execution.shots is not None:
        check_count("shots", execution.shots)
    if execution.seed is not None:
        check_count("seed", execution.seed, 0)
    precision = execution.precision
    if precision is not None and not (isinstance(precision, int | float) and 0 < precision <= 1):
        raise InputError(
            f"precision must be a number above 0 and at most 1, got {precision!r}; leave it out for exact values"
        )
    if not isinstance(execution.noise, str):
        raise InputError(f"noise must be a text such as '0.001,0.01,0.02' or 'fake:torino', got {execution.noise!r}")


def _check_exact(execution: Execution) -> None:
    """Where no circuit runs, nothing can be said about how often, in which order and at what cost."""
    given = {
        name: getattr(execution, name) is not None
        for name in ("shots", "precision", "seed", "max_time", "optimization_level")
    }
    given["optimization_level"] &= not execution.noise
    names = [name for name, is_given in {**given, "copies": execution.copies != 1}.items() if is_given]
    if names:
        raise InputError(f"{', '.join(names)} cannot have an effect with backend='exact', which runs no circuits")


def _check_copies(execution: Execution) -> None:
    copies = execution.copies
    if copies != "auto" and (isinstance(copies, bool) or not isinstance(copies, int) or copies < 1):
        raise InputError(f"copies must be an integer of at least 1 or 'auto', got {copies!r}")
    if copies == 1:
        return
    if copies == "auto" and execution.kind in ("statevector", "aer"):
        raise InputError(
            f"copies='auto' has no meaning with backend={execution.backend!r}, which has room for any number; give one, or "
            "use 'fake:<name>' or 'ibm:<name>'"
        )
    if execution.noise.startswith("fake:"):
        raise InputError(
            f"copies cannot be combined with noise={execution.noise!r}; use backend={execution.noise!r} instead"
        )


def _check_options(options: Mapping[str, Any]) -> None:
    try:
        json.dumps(dict(options), allow_nan=False)
    except (TypeError, ValueError):
        raise InputError("options must be a mapping of plain values (numbers, texts, lists, mappings)") from None
    own = {item.name for item in fields(Execution)}
    for name, instead in (
        ("default_shots", "shots"),
        ("default_precision", "precision"),
        *((n, n) for n in sorted(own)),
    ):
        if name in options:
            raise InputError(f"options must not contain {name!r}; use the field {instead}")
    if "seed_simulator" in (options.get("simulator") or {}):
        raise InputError("options must not contain simulator.seed_simulator, which repeats the same noise; use seed")
