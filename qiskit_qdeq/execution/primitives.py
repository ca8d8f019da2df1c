"""What the known estimator primitives do differently behind their common contract ``run(pubs, *, precision=None)``.

A precision ε stands for ⌈1/ε²⌉ shots per parameter row and measurement basis.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from qiskit_qdeq.execution.limits import Limits

#: What IBM's primitives and Qiskit's BackendEstimatorV2 take where nobody says otherwise: 4096 shots.
_USUAL_PRECISION = 1 / 64
#: Of zero-noise extrapolation by IBM's client-side Estimator.
_DEFAULT_NOISE_FACTORS = (1.0, 3.0, 5.0)


class Kind(Enum):
    """The implementations of the estimator contract whose behaviour differs; the value is the class that marks one."""

    STATEVECTOR = "qiskit.primitives.statevector_estimator.StatevectorEstimator"
    AER = "qiskit_aer.primitives.estimator_v2.EstimatorV2"
    BACKEND = "qiskit.primitives.backend_estimator_v2.BackendEstimatorV2"
    LEGACY = "qiskit_ibm_runtime.estimator.EstimatorV2"
    CLIENT = "qiskit_ibm_runtime.executor_estimator.estimator.Estimator"
    OTHER = ""


@dataclass(frozen=True)
class Sampling:
    """How often an estimator runs a circuit.

    Attributes:
        shots: per parameter row and measurement basis; 0 where values are exact.
        calibration_shots: of the readout calibration circuit that goes with every job; 0: there is none.
        noise_factors: how much longer each circuit per row and basis gets by folding its two-qubit gates, one for each noise
            factor of zero-noise extrapolation.
    """

    shots: int
    calibration_shots: int = 0
    noise_factors: tuple[float, ...] = (1.0,)

    @property
    def repetitions(self) -> int:
        """Circuits per row and basis."""
        return len(self.noise_factors)


def innermost(estimator: Any) -> Any:
    """The primitive itself, for an estimator that wraps another one as its attribute ``wrapped``."""
    while (inner := getattr(estimator, "wrapped", None)) is not None:
        estimator = inner
    return estimator


def kind_of(estimator: Any) -> Kind:
    """Recognize an estimator by the names of its classes, so that no package is imported to ask."""
    names = {f"{base.__module__}.{base.__qualname__}" for base in type(innermost(estimator)).__mro__}
    return next((kind for kind in Kind if kind.value in names), Kind.OTHER)


def backend_of(estimator: Any) -> Any | None:
    """The backend an estimator runs on, or None if it has none or does not tell."""
    primitive = innermost(estimator)
    backend = getattr(primitive, "backend", None)
    if callable(backend):  # IBM's primitives have a method, Qiskit's a property
        backend = backend()
    if backend is None and kind_of(primitive) is Kind.AER:
        # Aer keeps it private. It matters: noise sits on the gates of the device that was simulated, no others.
        backend = getattr(primitive, "_backend", None)
    return backend if getattr(backend, "target", None) is not None else None


def mixes_precisions(estimator: Any) -> bool:
    """Whether the PUBs of one job may ask for different precisions; IBM's primitives refuse or deprecate it."""
    return kind_of(estimator) not in (Kind.LEGACY, Kind.CLIENT)


def limits_of(estimator: Any, limits: Limits) -> Limits:
    """`limits` with what they leave open filled in for `estimator`."""
    rows, executions = limits.max_rows_per_pub, limits.max_executions_per_job
    kind = kind_of(estimator)
    if kind is Kind.CLIENT:
        rows = rows or 4096  # it copies the values of all rows once per row
        executions = executions or 10_000_000
    elif kind is Kind.AER:
        backend = getattr(innermost(estimator), "_backend", None)
        if not getattr(getattr(backend, "options", None), "runtime_parameter_bind_enable", False):
            rows = rows or 512
    return replace(limits, max_rows_per_pub=rows, max_executions_per_job=executions)


def sampling(estimator: Any, precision: float | None) -> Sampling:
    """What `estimator` takes for one row and one basis at `precision` (None: at its own default).

    Probabilistic error cancellation multiplies the shots by a factor known only to the primitive; it is left out. So is
    all mitigation inside IBM's legacy, server-side primitive.
    """
    primitive, kind = innermost(estimator), kind_of(estimator)
    if kind is Kind.CLIENT:
        return _client_sampling(primitive, precision)
    # Others count on an inverse root of a whole number to mean that number; the known ones round its last digit up.
    slack = 1e-12 if kind is Kind.OTHER else 0.0
    if precision is not None:
        return Sampling(shots_for(precision, slack))
    options = getattr(primitive, "options", None)
    default_shots = getattr(options, "default_shots", None)
    if kind is Kind.LEGACY and isinstance(default_shots, int) and default_shots:
        # Local testing mode turns shots into a precision and back, which can add one.
        local = bool(getattr(getattr(primitive, "_service", None), "is_local", False))
        return Sampling(shots_for(1 / math.sqrt(default_shots)) if local else default_shots)
    for holder in (primitive, options):
        default = getattr(holder, "default_precision", None)
        if isinstance(default, float | int):
            return Sampling(shots_for(default, slack))
    return Sampling(shots_for(_USUAL_PRECISION))


def repetition_options(estimator: Any) -> dict[str, Any]:
    """What the user of one of IBM's primitives asks of every repetition: `rep_delay` in seconds and `init_qubits`."""
    asked = getattr(getattr(innermost(estimator), "options", None), "execution", None)
    found: dict[str, Any] = {}
    # IBM's legacy options have a type of their own for what is not set
    if isinstance(delay := getattr(asked, "rep_delay", None), int | float):
        found["rep_delay"] = float(delay)
    if isinstance(init := getattr(asked, "init_qubits", None), bool):
        found["init_qubits"] = init
    return found


def shots_for(precision: float, slack: float = 0.0) -> int:
    """⌈(1 - slack)/ε²⌉, and 0 for ε = 0, which is how simulators spell exact."""
    return math.ceil((1.0 - slack) / precision**2) if precision > 0 else 0


def _client_sampling(primitive: Any, precision: float | None) -> Sampling:
    with warnings.catch_warnings():  # run() itself gives them
        warnings.simplefilter("ignore")
        options = primitive.finalize_options()
    if precision is None and options.default_shots is not None:
        shots = options.default_shots
    else:
        shots = shots_for(options.default_precision if precision is None else precision)
    twirling, resilience = options.twirling, options.resilience
    randomizations, each = 1, shots
    if twirling.enable_gates or twirling.enable_measure:
        spread = 64 if resilience.pec_mitigation else max(64, math.ceil(shots / 32))
        randomizations, each = _split_shots(
            shots, twirling.num_randomizations, twirling.shots_per_randomization, spread
        )
    calibration, factors = 0, Sampling.noise_factors
    if resilience.zne_mitigation:
        asked = resilience.zne.noise_factors
        factors = _DEFAULT_NOISE_FACTORS if asked == "auto" else tuple(map(float, asked))
        if resilience.zne.amplifier == "pea":  # adds noise by gates that are there anyway
            factors = (1.0,) * len(factors)
    if resilience.measure_mitigation:
        learning = resilience.measure_noise_learning.num_randomizations
        calibration = (randomizations if learning == "auto" else learning) * each
    return Sampling(randomizations * each, calibration, factors)


def _split_shots(shots: int, number: int | str, size: int | str, spread: int) -> tuple[int, int]:
    """Randomizations and shots of each, as IBM documents its twirling options; never fewer than `shots` unless asked."""
    if isinstance(number, int):
        return number, size if isinstance(size, int) else math.ceil(shots / number)
    each = size if isinstance(size, int) else spread
    return math.ceil(shots / each), each
