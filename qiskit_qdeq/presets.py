"""Models by name: `ModelConfig` says in plain values what a model is, so that a checkpoint can rebuild it.

`"paper"` is the authors' model (readout z, relu, every feature n times); `"default"` is the package's own on the same
circuit and qubits: all products of up to three Z (four from ten qubits on), identity activation, and half the state fed
back, which makes the map a contraction for nearly every sample.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from qiskit import QuantumCircuit

from qiskit_qdeq.circuits import (
    AmplitudeEncoder,
    AngleEncoder,
    CircuitTemplate,
    Encoder,
    hardware_efficient_ansatz,
    paper_ansatz,
    random_ansatz,
)
from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.model import QDEQModel

ENCODINGS = ("amplitude", "angle")
ANSATZES = ("paper", "random", "hardware_efficient")
PRESETS = ("default", "paper")
#: From here on products of four Z are worth their shots: docs/paper.md, docs/readouts.md.
_MANY_QUBITS = 10
#: More than any device has; circuits of that size take seconds to write down.
_LARGEST_DEVICE = 1_000
#: Options that shape one ansatz only.
_OF_ANSATZ = {"ansatz_gates": "random", "ansatz_seed": "random", "ansatz_layers": "hardware_efficient"}


@dataclass(frozen=True)
class ModelConfig:
    """A model in plain values.

    Args:
        num_features: data features, without the bias.
        num_classes: C.
        num_qubits: n.
        encoding: "amplitude" or "angle".
        ansatz: "paper" (4 and 10 qubits), "random" or "hardware_efficient".
        ansatz_gates: gates of the random ansatz.
        ansatz_layers: layers of the hardware-efficient one.
        ansatz_seed: of the random ansatz.
        readout: "z", "zz", "zzz" or "zzzz".
        activation: "identity" or "relu".
        repeat: copies of each readout feature in the linear layer.
        head: "linear", or "none": the activated readout features are the logits.
        state_scale: factor of the injected state.
        bias: constant input; 0 for none.
        dtype: "float64" or "float32".
    """

    num_features: int
    num_classes: int
    num_qubits: int
    encoding: str = "amplitude"
    ansatz: str = "paper"
    ansatz_gates: int = 50
    ansatz_layers: int = 3
    ansatz_seed: int = 0
    readout: str = "zzz"
    activation: str = "identity"
    repeat: int = 1
    state_scale: float = 0.5
    bias: float = 0.0
    dtype: str = "float64"
    head: str = "linear"

    def build(self) -> QDEQModel:
        """The model.

        Raises:
            InputError: naming the field that cannot be used.
        """
        if not isinstance(self.num_qubits, int) or not 1 <= self.num_qubits <= _LARGEST_DEVICE:
            raise InputError(f"num_qubits must be an integer from 1 to {_LARGEST_DEVICE}, got {self.num_qubits!r}")
        template = CircuitTemplate(self._encoder(), self._ansatz(), readout=self.readout)
        return QDEQModel(
            template,
            self.num_classes,
            state_scale=self.state_scale,
            bias=self.bias,
            activation=self.activation,
            repeat=self.repeat,
            head=self.head,
            dtype=self.dtype,
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return dataclasses.asdict(self)

    def _encoder(self) -> Encoder:
        inputs = self.num_features + (1 if self.bias else 0)
        if self.encoding == "amplitude":
            if inputs > 2**self.num_qubits:
                raise InputError(
                    f"{inputs} inputs do not fit into the {2**self.num_qubits} amplitudes of {self.num_qubits} qubits: "
                    f"use num_qubits >= {(inputs - 1).bit_length()} or fewer features"
                )
            return AmplitudeEncoder(inputs, self.num_qubits)
        if self.encoding == "angle":
            if self.ansatz == "paper" and inputs == self.num_qubits**2:
                return AngleEncoder.paper(self.num_qubits)
            return AngleEncoder.layered(inputs, self.num_qubits)
        raise InputError(f"encoding must be one of {list(ENCODINGS)}, got {self.encoding!r}")

    def _ansatz(self) -> QuantumCircuit:
        if self.ansatz == "paper":
            return paper_ansatz(self.num_qubits)
        if self.ansatz == "random":
            return random_ansatz(self.num_qubits, self.ansatz_gates, seed=self.ansatz_seed)
        if self.ansatz == "hardware_efficient":
            return hardware_efficient_ansatz(self.num_qubits, self.ansatz_layers)
        raise InputError(f"ansatz must be one of {list(ANSATZES)}, got {self.ansatz!r}")


def model_config(preset: str, num_features: int, num_classes: int, num_qubits: int, **overrides: Any) -> ModelConfig:
    """The configuration of a preset, with single fields replaced.

    Args:
        preset: "default" or "paper".
        num_features: data features.
        num_classes: C.
        num_qubits: n. The paper's ansatz exists for 4 and 10; the default preset takes a hardware-efficient one otherwise.
        overrides: fields of `ModelConfig`.

    Raises:
        InputError: for an unknown preset or field, or one without effect.

    >>> model_config("paper", 16, 4, 4).build().num_parameters
    107
    """
    if preset not in PRESETS:
        raise InputError(f"preset must be one of {list(PRESETS)}, got {preset!r}")
    known = [field.name for field in dataclasses.fields(ModelConfig)]
    unknown = sorted(set(overrides) - set(known))
    if unknown:
        raise InputError(f"unknown model options {unknown}; there are {known}")
    values: dict[str, Any]
    if preset == "paper":
        values = {
            "readout": "z",
            "activation": "relu",
            "repeat": max(1, num_features // num_qubits),
            "state_scale": 1.0,
        }
        if overrides.get("head") == "none":
            # relu and the copies are part of the authors' head
            values |= {"activation": "identity", "repeat": 1}
    else:
        values = {
            "ansatz": "paper" if num_qubits in (4, 10) else "hardware_efficient",
            "readout": "zzz" if num_qubits < _MANY_QUBITS else "zzzz",
        }
    config = ModelConfig(num_features, num_classes, num_qubits, **{**values, **overrides})
    for name, ansatz in _OF_ANSATZ.items():
        if name in overrides and config.ansatz != ansatz:
            raise InputError(f"{name} is for ansatz {ansatz!r} and has no effect with {config.ansatz!r}: leave it out")
    return config


def fitting_size(
    num_features: int, encoding: str, num_qubits: int | None, bias: float | str, *, paper: bool
) -> tuple[int, float]:
    """Qubits and bias for this many features, where `num_qubits` is None or `bias` is "auto"."""
    wanted = 1.0 if isinstance(bias, str) else float(bias)
    if paper and bias == "auto":
        # the authors' model has n² inputs and no bias
        return num_qubits or max(2, math.isqrt(num_features - 1) + 1), 0.0
    if encoding != "amplitude":
        return num_qubits or max(2, min(num_features, 8)), 0.0 if bias == "auto" else wanted
    if num_qubits is None:
        return max(2, (num_features + bool(wanted) - 1).bit_length()), wanted
    if bias == "auto" and num_features + 1 > 2**num_qubits:
        wanted = 0.0
    return num_qubits, wanted


def template_bias(template: CircuitTemplate, num_features: int, bias: float | str) -> float:
    """The constant for the spare input of a user's template; 0 where it has none.

    Raises:
        InputError: if the template does not fit the features, or the bias does not fit the template.
    """
    inputs = template.num_features
    if inputs not in (num_features, num_features + 1):
        raise InputError(
            f"template encodes {inputs} features, X has {num_features} (a template may have one input more, for the bias)"
        )
    if inputs > num_features:
        if bias == 0:
            raise InputError(
                f"bias is 0, but the template has {inputs} inputs for {num_features} features, and the spare one takes the "
                f"bias: set another bias ('auto' is 1.0), or build the template with {num_features} inputs"
            )
        return 1.0 if isinstance(bias, str) else float(bias)
    if bias not in ("auto", 0):
        raise InputError(
            f"bias {bias!r} has no effect: the features of X take all {inputs} inputs of the template; leave bias at "
            "'auto', or build the template with one input more"
        )
    return 0.0
