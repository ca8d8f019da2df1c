"""The models that are compared: one shallow circuit used in three ways, as deep as their names say.

    implicit          q* = m(x + P q*; θ): one circuit, K of them a sample on a device
    direct-L          q_l = m(x + P q_{l-1}; θ): the same circuit, measured L times one after the other
    stacked-L         <0| S(x)† (V(θ)†)^L M V(θ)^L S(x) |0>: L layers on the device, measured once, weights shared
    stacked-L-free    the same with weights θ_1, ..., θ_L of their own

The first three have the same parameters; all have the same encoder, observables and linear readout.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from qiskit import QuantumCircuit
from qiskit.circuit import Parameter, ParameterVector

from qiskit_qdeq.circuits import CircuitTemplate
from qiskit_qdeq.data import DataSplit
from qiskit_qdeq.equilibrium.solvers import Solver
from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.model import QDEQModel
from qiskit_qdeq.programs.arguments import TrainArguments, from_mapping
from qiskit_qdeq.programs.recipes import model_of, training_of
from qiskit_qdeq.training.config import TrainingConfig

MODELS = ("implicit", "direct-1", "direct-2", "direct-5", "stacked-2", "stacked-5", "stacked-2-free", "stacked-5-free")
_NAME = re.compile(r"implicit|(?:direct|stacked)-(?!0)\d{1,3}|stacked-(?!0)\d{1,3}-free")


@dataclass(frozen=True)
class StudyModel:
    """A model, how it is trained, and how it is asked.

    Attributes:
        model: without noise; `model.noisy(...)` has it.
        config: the training run.
        layers: applications of the map, one for a stacked circuit.
    """

    model: QDEQModel
    config: TrainingConfig
    layers: int

    @property
    def solver(self) -> Solver | None:
        """Of the equilibrium; None where there is none to solve for."""
        return None if self.config.mode == "direct" else self.config.solver


def check_model(name: str) -> None:
    """Refuse what is no model's name.

    Raises:
        InputError: with the names there are.
    """
    if not (isinstance(name, str) and _NAME.fullmatch(name)):
        raise InputError(
            f"models must be implicit, direct-L, stacked-L or stacked-L-free with a number L of layers, such as "
            f"{', '.join(MODELS[3:6])}; got {name!r}"
        )


def build(name: str, arguments: Mapping[str, Any], split: DataSplit) -> StudyModel:
    """The model called `name` for these data.

    Args:
        name: see `MODELS`; any number of layers.
        arguments: fields of `TrainArguments` that all models share: preset, encoding, epochs, seed ...
        split: the data.

    Raises:
        InputError: for another name, or arguments that cannot be used.
    """
    check_model(name)
    kind, _, rest = name.partition("-")
    count = int(rest.partition("-")[0] or 1)
    layers = count if kind == "direct" else 1
    mode = "implicit" if kind == "implicit" else "direct"
    options = from_mapping(TrainArguments, {**_effective(arguments, mode), "mode": mode, "layers": layers})
    config = model_of(options, split)
    model = config.build()
    if kind == "stacked":
        circuit, weights = stacked(model.template.ansatz, model.template.weights, count, tied=rest == str(count))
        template = CircuitTemplate(
            model.template.encoder, circuit, weights=weights, readout=model.template.readout_observables
        )
        shared = ("num_classes", "state_scale", "bias", "activation", "repeat", "head", "dtype")
        model = QDEQModel(template, **{field: getattr(config, field) for field in shared})
    return StudyModel(model, training_of(options, split), layers)


def stacked(
    ansatz: QuantumCircuit, weights: tuple[Parameter, ...], layers: int, *, tied: bool
) -> tuple[QuantumCircuit, tuple[Parameter, ...]]:
    """V(θ)^L as one circuit, or V(θ_L) ... V(θ_1), with its weights in their order.

    Args:
        ansatz: V.
        weights: θ (p,).
        layers: L.
        tied: whether all layers share θ; else there are L p weights, those of the first layer first.

    Raises:
        InputError: for fewer than one layer.
    """
    if layers < 1:
        raise InputError(f"layers must be >= 1, got {layers}")
    circuit = QuantumCircuit(ansatz.num_qubits, name=f"{ansatz.name}_{layers}")
    own = weights if tied else tuple(ParameterVector("weights", layers * len(weights)))
    for layer in range(layers):
        part = own if tied else own[layer * len(weights) : (layer + 1) * len(weights)]
        circuit.compose(ansatz.assign_parameters(dict(zip(weights, part, strict=True))), inplace=True)
    return circuit, own


def _effective(arguments: Mapping[str, Any], mode: str) -> dict[str, Any]:
    """The paper's preset penalizes the Jacobian of its equilibrium; explicit layers have none."""
    return dict(arguments) if mode == "implicit" else {**arguments, "regularization": "none"}
