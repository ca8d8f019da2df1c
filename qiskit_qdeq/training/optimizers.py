"""Optimizers over one flat vector of parameters, which they update in place.

Adam (Kingma & Ba, ICLR 2015, Algorithm 1) and gradient descent with momentum, both with decoupled weight
decay (Loshchilov & Hutter, ICLR 2019). An optimizer is an immutable set of hyper-parameters; what changes
from step to step is an ``OptimizerState``, whose arrays go into a checkpoint and come back.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .._numbers import integer, keep_real, real
from ..exceptions import InputError
from ._options import choose

Vector: TypeAlias = NDArray[np.floating[Any]]
Mask: TypeAlias = NDArray[np.bool_]

# Above this the square of an entry may overflow, and Adam's second moment would stay infinite for ever.
_LARGEST: Final = {np.dtype(np.float32): 1e18, np.dtype(np.float64): 1e150}


def optimizer(name: str, **options: Any) -> Optimizer:
    """Make an optimizer from its name and options.

    Args:
        name: ``"adam"`` or ``"sgd"``.
        **options: fields of ``Adam`` or ``SGD``.

    Raises:
        InputError: if the name or an option is unknown (the message lists the valid ones) or out of range.

    Example:
        >>> adam = optimizer("adam", beta1=0.8)
        >>> state, weights = adam.init(2), np.zeros(2)
        >>> adam.step(state, weights, np.array([1.0, -3.0]), learning_rate=0.1)
        >>> weights.round(6).tolist()
        [-0.1, 0.1]
    """
    return choose("optimizer", _OPTIMIZERS, name, options)


def clip_by_global_norm(grad: Vector, max_norm: float) -> float:
    """Scale ``grad`` in place to at most ``max_norm`` in Euclidean norm: g ← g min(1, max_norm / ‖g‖).

    Args:
        grad: gradient, any shape; changed in place.
        max_norm: largest norm allowed, above 0.

    Returns:
        The norm before clipping. If it is not finite, ``grad`` is left as it was: the caller decides whether
        to skip the step or to stop.

    Raises:
        InputError: if ``grad`` is no writable array of floats or ``max_norm`` is not above 0.
    """
    limit = real("clip_by_global_norm", "max_norm", max_norm, 0, math.inf, open_lower=True)
    if type(grad) is not np.ndarray or grad.dtype.kind != "f" or not grad.flags.writeable:
        raise InputError("grad must be a writable numpy.ndarray of floats: it is scaled in place.")
    largest = float(np.max(np.abs(grad), initial=0.0))
    if largest == 0.0 or not math.isfinite(largest):
        return largest
    # Divided by its largest entry, no gradient over- or underflows when squared.
    norm = largest * float(np.linalg.norm(np.divide(grad, largest, dtype=np.float64)))
    if limit < norm < math.inf:
        grad *= limit / norm
    return norm


@dataclass(eq=False)
class OptimizerState:
    """What an optimizer remembers between steps; changed in place by ``step``.

    Attributes:
        steps: how many steps have been taken.
        moments: running averages by name, each (size,).
        decay_mask: which entries decay, (size,); None if all.
    """

    steps: int
    moments: dict[str, Vector]
    decay_mask: Mask | None
    scratch: Vector = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.scratch = np.empty_like(next(iter(self.moments.values())))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return copies of what is to be saved: ``steps`` (0-d int64), the moments, and the mask if any."""
        mask = {} if self.decay_mask is None else {"decay_mask": self.decay_mask.copy()}
        moments = {name: moment.copy() for name, moment in self.moments.items()}
        return {"steps": np.array(self.steps, dtype=np.int64), **moments, **mask}


class Optimizer(ABC):
    """An immutable set of hyper-parameters that makes, restores and advances states."""

    moment_names: ClassVar[tuple[str, ...]]

    @abstractmethod
    def step(self, state: OptimizerState, params: Vector, grad: Vector, learning_rate: float) -> None:
        """Take one step: ``params`` and ``state`` are changed in place, ``grad`` is not.

        Args:
            state: from ``init`` or ``from_arrays`` of the same optimizer.
            params: parameters, (size,).
            grad: gradient of the loss, (size,), finite.
            learning_rate: η ≥ 0 of this step.

        Raises:
            InputError: if an argument does not fit the state or is not finite; nothing is changed then.
        """

    def init(self, size: int, dtype: DTypeLike = np.float64, decay_mask: Mask | None = None) -> OptimizerState:
        """Return the state before the first step: all moments 0.

        Args:
            size: number of parameters.
            dtype: their dtype, float32 or float64.
            decay_mask: which entries weight decay acts on, (size,) of bool; None for all.

        Raises:
            InputError: if an argument is out of range or of the wrong shape or dtype.
        """
        size = integer(type(self).__name__, "size", size, 0)
        if dtype not in tuple(_LARGEST):
            raise InputError(f"dtype must be float32 or float64, got {dtype!r}.")
        if decay_mask is not None:
            _check_array("decay_mask", decay_mask, (size,), np.dtype(np.bool_))
            decay_mask = decay_mask.copy()
        return OptimizerState(0, {name: np.zeros(size, dtype) for name in self.moment_names}, decay_mask)

    def from_arrays(self, arrays: Mapping[str, NDArray[Any]]) -> OptimizerState:
        """Return the state whose ``arrays`` these are, ready to go on.

        Args:
            arrays: ``steps``, this optimizer's moments, and ``decay_mask`` if there was one.

        Raises:
            InputError: if arrays are missing, unknown, of different sizes, or hold what no step produces.
        """
        names = {"steps", *self.moment_names}
        if arrays.keys() - {"decay_mask"} != names:
            raise InputError(
                f"arrays are no state of {type(self).__name__}: that has {', '.join(sorted(names))} "
                f"and perhaps decay_mask, got {', '.join(sorted(arrays)) or 'none'}."
            )
        _check_array("steps", arrays["steps"], (), np.dtype(np.int64))
        first = np.asarray(arrays[self.moment_names[0]])
        state = self.init(first.size, first.dtype, arrays.get("decay_mask"))
        state.steps = integer(type(self).__name__, "steps", int(arrays["steps"]), 0)
        for name, moment in state.moments.items():
            _check_array(name, arrays[name], moment.shape, moment.dtype)
            lowest = 0.0 if name == "second_moment" else -math.inf
            if not np.all(np.isfinite(arrays[name]) & (arrays[name] >= lowest)):
                raise InputError(f"{name} holds NaN, infinity or negative squares, which no step produces.")
            moment[:] = arrays[name]
        return state

    def _check_step(self, state: OptimizerState, params: Vector, grad: Vector, learning_rate: float) -> None:
        """Check everything before anything changes, so that a refused step leaves no trace."""
        scratch = state.scratch
        if tuple(state.moments) != self.moment_names:
            raise InputError(
                f"state has {', '.join(state.moments)}, but {type(self).__name__} needs "
                f"{', '.join(self.moment_names)}: it belongs to another optimizer."
            )
        _check_array("params", params, scratch.shape, scratch.dtype)
        _check_array("grad", grad, scratch.shape, scratch.dtype)
        if not params.flags.writeable:
            raise InputError("params is read-only, but is to be updated in place; pass a copy.")
        if not (isinstance(learning_rate, float | int | np.floating | np.integer) and 0.0 <= learning_rate < math.inf):
            raise InputError(f"learning_rate must be a finite float of at least 0, got {learning_rate!r}.")
        largest = np.maximum.reduce(np.absolute(grad, out=scratch), initial=0.0)
        if not largest <= _LARGEST[scratch.dtype]:
            raise InputError(
                f"grad holds NaN, infinity or a value above {_LARGEST[scratch.dtype]:g}; "
                "skip this step (clip_by_global_norm reports such gradients) or look for the cause."
            )


@dataclass(frozen=True)
class Adam(Optimizer):
    """Adam, with decoupled weight decay (AdamW).

    For gradient g, parameters θ, rate η and step t = 1, 2, ...::

        m ← β₁ m + (1 - β₁) g        v ← β₂ v + (1 - β₂) g²
        θ ← θ - η λ θ - η m / (1 - β₁ᵗ) / (√(v / (1 - β₂ᵗ)) + ε)

    Kingma & Ba, ICLR 2015, Algorithm 1; the decay λ: Loshchilov & Hutter, ICLR 2019, Algorithm 2.

    Args:
        beta1: β₁ in [0, 1).
        beta2: β₂ in [0, 1).
        eps: ε in [1e-30, 1].
        weight_decay: λ ≥ 0, in units of the rate, on the entries of the state's decay mask.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0

    moment_names: ClassVar[tuple[str, ...]] = ("first_moment", "second_moment")

    def __post_init__(self) -> None:
        for name in ("beta1", "beta2"):
            keep_real(self, name, 0, 1, open_upper=True)
        # Smaller values are 0 in float32, and 0 / 0 wherever a gradient is 0.
        keep_real(self, "eps", 1e-30, 1)
        keep_real(self, "weight_decay", 0, math.inf)

    def step(self, state: OptimizerState, params: Vector, grad: Vector, learning_rate: float) -> None:
        """Take one step; see ``Optimizer.step``."""
        self._check_step(state, params, grad, learning_rate)
        mean, square, scratch = state.moments["first_moment"], state.moments["second_moment"], state.scratch
        rate = float(learning_rate)
        _decay(state, params, rate * self.weight_decay)
        state.steps += 1

        np.multiply(grad, 1 - self.beta1, out=scratch)
        np.multiply(mean, self.beta1, out=mean)
        np.add(mean, scratch, out=mean)
        np.multiply(grad, grad, out=scratch)
        np.multiply(scratch, 1 - self.beta2, out=scratch)
        np.multiply(square, self.beta2, out=square)
        np.add(square, scratch, out=square)

        np.sqrt(square, out=scratch)
        np.multiply(scratch, 1 / math.sqrt(1 - self.beta2**state.steps), out=scratch)
        np.add(scratch, self.eps, out=scratch)
        np.divide(mean, scratch, out=scratch)
        np.multiply(scratch, rate / (1 - self.beta1**state.steps), out=scratch)
        np.subtract(params, scratch, out=params)


@dataclass(frozen=True)
class SGD(Optimizer):
    """Gradient descent with momentum and decoupled weight decay.

    For gradient g, parameters θ and rate η::

        v ← μ v + g        d = g + μ v if ``nesterov`` else v
        θ ← θ - η λ θ - η d

    Sutskever et al., ICML 2013, in the form common libraries use; the decay: Loshchilov & Hutter, ICLR 2019,
    Algorithm 1. It does not enter the velocity; without momentum it is the gradient of λ‖θ‖²/2.

    Args:
        momentum: μ in [0, 1).
        nesterov: look one step of the momentum ahead; needs momentum.
        weight_decay: λ ≥ 0, in units of the rate, on the entries of the state's decay mask.
    """

    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0

    moment_names: ClassVar[tuple[str, ...]] = ("velocity",)

    def __post_init__(self) -> None:
        keep_real(self, "momentum", 0, 1, open_upper=True)
        keep_real(self, "weight_decay", 0, math.inf)
        if not isinstance(self.nesterov, bool):
            raise InputError(f"SGD: nesterov must be True or False, got {self.nesterov!r}.")
        if self.nesterov and self.momentum == 0.0:
            raise InputError("SGD: nesterov=True needs momentum > 0, got momentum=0.")

    def step(self, state: OptimizerState, params: Vector, grad: Vector, learning_rate: float) -> None:
        """Take one step; see ``Optimizer.step``."""
        self._check_step(state, params, grad, learning_rate)
        velocity, scratch = state.moments["velocity"], state.scratch
        rate = float(learning_rate)
        _decay(state, params, rate * self.weight_decay)
        state.steps += 1

        np.multiply(velocity, self.momentum, out=velocity)
        np.add(velocity, grad, out=velocity)
        if self.nesterov:
            np.multiply(velocity, self.momentum, out=scratch)
            np.add(scratch, grad, out=scratch)
            np.multiply(scratch, rate, out=scratch)
        else:
            np.multiply(velocity, rate, out=scratch)
        np.subtract(params, scratch, out=params)


_OPTIMIZERS: Final[dict[str, type[Optimizer]]] = {"adam": Adam, "sgd": SGD}


def _decay(state: OptimizerState, params: Vector, fraction: float) -> None:
    """Shrink the parameters of the mask by ``fraction`` of themselves."""
    if fraction == 0.0:
        return
    np.multiply(params, fraction, out=state.scratch)
    if state.decay_mask is not None:
        np.multiply(state.scratch, state.decay_mask, out=state.scratch)
    np.subtract(params, state.scratch, out=params)


def _check_array(name: str, array: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    if type(array) is not np.ndarray or array.shape != shape or array.dtype != dtype:
        found = f"{array.shape} of {array.dtype}" if isinstance(array, np.ndarray) else type(array).__name__
        raise InputError(f"{name} must be a numpy.ndarray of shape {shape} of {dtype}, got {found}.")
