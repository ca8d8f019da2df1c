"""The model: a circuit template closed onto itself by an injection, and a linear readout of its equilibrium.

    q* = m(x + P q*; θ),    h = m_readout(x + P q*; θ),    logits = W a(h) + b.

A `QDEQModel` holds structure only. Its parameters (θ, W, b) are one flat vector, so that an optimizer, a gradient or a
checkpoint is one array.
"""

from __future__ import annotations

import copy
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from qiskit_qdeq._html import facts
from qiskit_qdeq.circuits import AmplitudeEncoder, AngleEncoder, CircuitTemplate
from qiskit_qdeq.circuits._checks import check_reals
from qiskit_qdeq.equilibrium.contraction import amplitude_lipschitz, rotation_lipschitz
from qiskit_qdeq.evaluation.exact import exact_evaluator
from qiskit_qdeq.evaluation.expressions import AngleMap
from qiskit_qdeq.evaluation.program import primitive_gates
from qiskit_qdeq.evaluation.protocol import EquilibriumMap, Evaluator
from qiskit_qdeq.evaluation.sampling import Sampling
from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.readout import Readout

if TYPE_CHECKING:
    from qiskit.providers import BackendV2

Array = np.ndarray[Any, np.dtype[Any]]

_LARGEST_GIGABYTES = 8
#: Samples whose columns are held together when the memory of a training step is estimated.
_TRAINED = 64


def nearest_injection(num_features: int, num_states: int, state_scale: float = 1.0) -> Array:
    """P (D, K): nearest-neighbour upsampling, feature i takes state ⌊i K / D⌋, times `state_scale` (DESIGN section 2).

    >>> nearest_injection(4, 2)
    array([[1., 0.],
           [1., 0.],
           [0., 1.],
           [0., 1.]])
    """
    injection = np.zeros((num_features, num_states))
    injection[np.arange(num_features), np.arange(num_features) * num_states // num_features] = state_scale
    return injection


def exact_gigabytes(num_qubits: float, num_features: float, num_states: float, *, amplitude: bool) -> float:
    """Memory that exact evaluation takes, in 2^30 bytes.

    Amplitude encoding holds D columns of U(θ) and K² columns M_j V P_k, other encoders 1 + K columns per sample; factors
    are those of docs/scaling.md, where memory is measured.
    """
    columns = num_states**2 + 2 * (num_features + num_states) if amplitude else 4 * _TRAINED * (1 + num_states)
    return 2.0 ** min(num_qubits, 500) * columns * 16 / 2**30


class QDEQModel:
    """Structure of a Quantum Deep Equilibrium Model.

    Args:
        template: encoder, ansatz, state and readout observables; its D inputs are the data features, plus one constant
            if `bias` is not zero.
        num_classes: C, outputs of the readout.
        state_scale: s, the factor of the injected state; smaller is more contractive, 0 is no feedback at all.
        injection: P (data features, K) instead of nearest-neighbour upsampling; `state_scale` multiplies it.
        bias: constant appended to every sample. It keeps amplitude encoding defined at zero and preserves the norm.
        activation: "identity" or "relu", see `Readout`.
        repeat: how often each readout feature enters the linear layer.
        head: "linear", or "none": the activated readout features are the logits, see `Readout`.
        dtype: "float64" or "float32", of the exact evaluator.

    Raises:
        InputError: if sizes do not fit or a value is out of range. A circuit too large to simulate can be measured; what
            computes it then refuses.
    """

    def __init__(
        self,
        template: CircuitTemplate,
        num_classes: int,
        *,
        state_scale: float = 1.0,
        injection: Array | None = None,
        bias: float = 0.0,
        activation: str = "identity",
        repeat: int = 1,
        head: str = "linear",
        dtype: str = "float64",
    ) -> None:
        for name, value in (("state_scale", state_scale), ("bias", bias)):
            if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not np.isfinite(value):
                raise InputError(f"{name} must be a finite number, got {value!r}")
        if num_classes < 1:
            raise InputError(f"num_classes must be >= 1, got {num_classes}")
        self.template = template
        self.bias = float(bias)
        self.num_features = template.num_features - (1 if bias else 0)
        self.num_states = template.num_states
        self.state_scale = float(state_scale)
        self.readout = Readout(template.num_readouts, num_classes, activation, repeat, head)
        if injection is None:
            if self.num_features < 1:
                raise InputError("the template's encoder has no input left beside the bias")
            injection = nearest_injection(self.num_features, self.num_states)
        injection = np.asarray(injection, dtype=float) * state_scale
        if injection.shape != (self.num_features, self.num_states) or not np.isfinite(injection).all():
            raise InputError(
                f"injection must be a finite array of shape (features, states) = "
                f"{(self.num_features, self.num_states)}, got shape {injection.shape}"
            )
        limit, largest = _largest_entry(dtype), float(np.abs(injection).max(initial=0))
        if largest > limit:
            raise InputError(
                f"state_scale {state_scale!r} makes the largest entry of the injection {largest:.3g}, above {limit:g}, so "
                "that squares overflow; useful values are of the order of 1"
            )
        #: P on the encoder's inputs: a bias is never fed back into.
        self.injection = np.vstack([injection, np.zeros((1, self.num_states))]) if bias else injection
        self.dtype = dtype
        # a circuit that no memory holds can still be measured
        self._evaluator: Evaluator | None = (
            exact_evaluator(template, self.injection, dtype) if self.is_computable else None
        )

    @property
    def evaluator(self) -> Evaluator:
        """What evaluates the map: exact computation, or the estimator of `measured`.

        Raises:
            InputError: if the circuit is too large to be computed, and is not measured.
        """
        if self._evaluator is None:
            raise InputError(
                f"num_qubits {self.template.num_qubits} with {self.template.num_features} features needs about "
                f"{self._gigabytes:.3g} GB for exact evaluation, more than the {_LARGEST_GIGABYTES} GB this package tries: "
                "use fewer qubits, or measure the circuits"
            )
        return self._evaluator

    @evaluator.setter
    def evaluator(self, evaluator: Evaluator) -> None:
        self._evaluator = evaluator

    @property
    def is_computable(self) -> bool:
        """Whether the circuit is small enough to be computed without a device."""
        return self._gigabytes <= _LARGEST_GIGABYTES

    @property
    def _gigabytes(self) -> float:
        template = self.template
        amplitude = isinstance(template.encoder, AmplitudeEncoder)
        return exact_gigabytes(template.num_qubits, template.num_features, template.num_states, amplitude=amplitude)

    def measured(
        self, estimator: Any, *, sampling: Sampling | None = None, seed: int = 0, **runner_options: Any
    ) -> QDEQModel:
        """The same model, evaluated through an estimator primitive instead of exactly.

        Parameters trained on one serve the other.

        Args:
            estimator: any object with the contract of `qiskit.primitives.BaseEstimatorV2`.
            sampling: shots or precision per purpose, and how the weight gradient is estimated.
            seed: of randomly chosen shifts.
            runner_options: `backend` or `pass_manager` to transpile the template for, `limits`, see
                `execution.runner.CircuitRunner`; `notes`, see `EstimatorEvaluator`.

        Raises:
            InputError: if the circuit has gates without a shift rule, or does not fit the backend.

        >>> import numpy as np
        >>> from qiskit.primitives import StatevectorEstimator
        >>> from qiskit_qdeq import model_config
        >>> model = model_config("default", 4, 2, 2).build()
        >>> measured = model.measured(StatevectorEstimator())
        >>> weights, x = np.linspace(0, 1, model.num_weights), model.prepare([[0.3, -0.2, 0.9, 0.1]])
        >>> pair = [m.map(weights, x).at(np.zeros((1, 2))).values for m in (model, measured)]
        >>> bool(np.allclose(*pair))
        True
        """
        # imported here: who never measures does not load the primitives
        from qiskit_qdeq.evaluation.estimator import EstimatorEvaluator

        other = copy.copy(self)
        other.evaluator = EstimatorEvaluator(
            self.template, self.injection, estimator, sampling=sampling, seed=seed, **runner_options
        )
        return other

    def noisy(
        self, noise: str | BackendV2, *, readout: bool = True, optimization_level: int | None = None
    ) -> QDEQModel:
        """The same model under a device's noise, computed exactly: expectation values without shot noise.

        Every gate of the transpiled circuit is followed by its channel, those of the ansatz applied to the observables once
        per weights. Everything that works on the noiseless model works on it, and parameters of one serve the other.

        Args:
            noise: rates "one_qubit,two_qubit,readout" or "fake:<name>", see `execution.noise.parse_noise`; a noisy
                `AerSimulator`, such as `simple_noise` makes; or a device with calibration data, such as a fake backend.
            readout: whether bits are misread, as on a device; without it values are those of Aer's EstimatorV2.
            optimization_level: of the transpiler, 0 to 3; None: 3 for a device object, 1 otherwise.

        Raises:
            InputError: if the noise cannot be used, or the transpiled circuit has more than 8 qubits.

        >>> from qiskit_qdeq import model_config
        >>> model = model_config("default", 4, 2, 2).build()
        >>> noisy = model.noisy("0.001,0.01,0.02")
        >>> weights, x = np.zeros(model.num_weights), model.prepare([[1.0, 0.0, 0.0, 0.1]])
        >>> values = [abs(m.map(weights, x).at(np.zeros((1, 2))).values).max() for m in (model, noisy)]
        >>> bool(values[1] < values[0])
        True
        """
        # imported here: who computes without noise does not load the transpiler
        from qiskit_qdeq.execution.channels import noisy_evaluator

        other = copy.copy(self)
        other.evaluator = noisy_evaluator(
            self.template, self.injection, noise, readout=readout, optimization_level=optimization_level
        )
        return other

    @property
    def num_classes(self) -> int:
        """C."""
        return self.readout.num_classes

    @property
    def num_weights(self) -> int:
        """p, circuit parameters."""
        return self.template.num_weights

    @property
    def num_parameters(self) -> int:
        """Circuit parameters and readout together."""
        return self.num_weights + self.readout.num_parameters

    def split(self, parameters: Array) -> tuple[Array, Array, Array]:
        """θ (p,), W (C, width), b (C,) as views of a flat parameter vector; constants 1 and 0 for W and b without a head."""
        return parameters[: self.num_weights], *self.readout.split(parameters[self.num_weights :])

    def initial_parameters(self, seed: int | np.random.Generator | None = None) -> Array:
        """θ uniform in [-π, π], W and b uniform in ±1/√width: the paper's start."""
        rng = np.random.default_rng(seed)
        bound = 1 / np.sqrt(self.readout.width)
        head = rng.uniform(-bound, bound, self.readout.num_parameters)
        return np.concatenate([rng.uniform(-np.pi, np.pi, self.num_weights), head])

    def prepare(self, x: Any) -> Array:
        """Check samples (B, features) and append the bias: the encoder's x, (B, D), as the model's numbers.

        Raises:
            InputError: for a wrong width, NaN or infinity, or a sample the encoder cannot encode.
        """
        inputs = check_reals("x", x)
        if inputs.ndim != 2 or inputs.shape[1] != self.num_features:
            raise InputError(f"x must have shape (samples, {self.num_features}), got {inputs.shape}")
        if self.bias:
            inputs = np.hstack([inputs, np.full((len(inputs), 1), self.bias)])
        inputs = self.template.encoder.validate(inputs)
        if isinstance(self.template.encoder, AmplitudeEncoder):
            self._check_lengths(inputs)
        if self._gate_angles is not None and (undefined := self._gate_angles.undefined(inputs)):
            sample, angle = undefined
            raise InputError(
                f"sample {sample} of x cannot be encoded: {angle} is not finite. Scale the features into the domain of "
                "the encoder's angles, with room for the state fed back, or use a smaller state_scale"
            )
        return inputs.astype(self.dtype, copy=False)

    def map(self, weights: Any, inputs: Any) -> EquilibriumMap:
        """q -> m(x + P q; θ) for a whole batch: what `solve` and `contraction` take.

        Args:
            weights: θ (p,), the first part of `split(parameters)`.
            inputs: (B, D), what `prepare` returned.

        Raises:
            InputError: for another shape, or values that are not finite.
        """
        weights = check_reals("weights", weights)
        if weights.shape != (self.num_weights,):
            raise InputError(f"weights must have shape ({self.num_weights},), got {weights.shape}")
        if not np.isfinite(weights).all():
            raise InputError(f"weights must be finite, entry {int(np.argmin(np.isfinite(weights)))} is not")
        return self.evaluator.bind(weights).map(self.template.encoder.validate(inputs))

    def _check_lengths(self, inputs: Array) -> None:
        """Refuse samples so long, or so short, that their squares cannot be held."""
        limit = _largest_entry(self.dtype)
        largest = np.abs(inputs).max(axis=1, initial=0)
        bad = np.flatnonzero((largest > limit) | (largest < 1 / limit))
        if len(bad):
            raise InputError(
                f"sample {bad[0]} of x has largest entry {largest[bad[0]]:.3g}, outside [{1 / limit:g}, {limit:g}]: "
                "scale the features"
            )

    def lipschitz_bound(self, inputs: Array) -> Array:
        """A bound on ‖∂m/∂q‖₂ over the state box [-1, 1]^K for prepared samples (B,); infinite where none is known."""
        if isinstance(self.template.encoder, AmplitudeEncoder):
            return amplitude_lipschitz(inputs, self.injection, self._state_norms)
        if isinstance(self.template.encoder, AngleEncoder):
            return rotation_lipschitz(self.injection, self._state_norms, len(inputs))
        return np.full(len(inputs), np.inf)

    @cached_property
    def _gate_angles(self) -> AngleMap | None:
        """The encoder's gate angles as functions of u, where these are not known to be u itself."""
        encoder = self.template.encoder
        if isinstance(encoder, AmplitudeEncoder) or encoder.product_axes is not None:
            return None
        angles = [gate.angle for gate in primitive_gates(encoder.circuit) if gate.angle is not None]
        return AngleMap(angles, encoder.parameters)

    @cached_property
    def _state_norms(self) -> Array:
        # the sum of |coefficients| bounds the operator norm, exactly so for a single Pauli string
        return np.array([np.abs(m.coeffs).sum() for m in self.template.state_observables])

    def __repr__(self) -> str:
        return (
            f"QDEQModel({self.template!r}, num_classes={self.num_classes}, state_scale={self.state_scale:g}, "
            f"num_parameters={self.num_parameters})"
        )

    def _repr_html_(self) -> str:
        readout = self.readout
        head = "the logits themselves" if readout.head == "none" else f"linear, {readout.num_parameters} parameters"
        evaluator = self._evaluator
        how = "computed, under noise" if evaluator is not None and evaluator.description else "computed exactly"
        if evaluator is None:
            how = "too large to be computed: to be measured"
        elif not evaluator.is_exact:
            how = f"measured by {type(getattr(evaluator, 'estimator', evaluator)).__name__}"
        rows = {
            "map": f"q -> m(x + P q; θ), {self.num_states} states, state_scale {self.state_scale:g}",
            "features": f"{self.num_features}{f' and a bias of {self.bias:g}' if self.bias else ''}",
            "encoder": repr(self.template.encoder),
            "circuit": f"{self.template.num_qubits} qubits, depth {self.template.depth}, "
            f"{self.template.two_qubit_gates} two-qubit gates, {self.num_weights} weights",
            "readout": f"{readout.num_features} observables, {readout.activation} activation",
            "head": head,
            "outputs": self.num_classes,
            "parameters": self.num_parameters,
            "evaluation": how,
        }
        return facts("QDEQModel", rows)


def _largest_entry(dtype: str) -> float:
    """Squares of entries of x or P above this leave the floating-point range, or all its digits."""
    return 1e12 if dtype == "float32" else 1e100
