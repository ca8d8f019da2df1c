"""The noises of the study, each in one word that a task can hold, and models under them, exactly.

    depolarizing:p    after every two-qubit gate ρ -> (1 - p) ρ + p 1/4, after every sx and x the same with p / 10
    damping:γ         every qubit of every gate decays to |0> with probability γ (amplitude damping)
    readout:p         every measured bit is read wrongly with probability p
    fake:NAME         the noise model of a fake device on its best qubits, readout errors included
    none

Mitigated exactly: "readout" leaves all readout errors out, as a perfectly known confusion would be inverted; "zne" is
Richardson's extrapolation from noise of 1, 2 and 3 times the strength, m ≈ 3 m_1 - 3 m_2 + m_3.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from qiskit import QuantumCircuit
from qiskit.quantum_info import SparsePauliOp

from qiskit_qdeq.evaluation.gate_angles import GateTemplate
from qiskit_qdeq.evaluation.noisy import NoisyEvaluator
from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.execution.channels import noisy_circuit
from qiskit_qdeq.execution.isa import to_isa
from qiskit_qdeq.execution.noise import parse_noise, simple_noise
from qiskit_qdeq.model import QDEQModel
from qiskit_qdeq.studies.noise.extrapolation import Extrapolated

KINDS = ("depolarizing", "damping", "readout")
NONE = "none"
#: Share of the two-qubit rate that gates on one qubit have, of depolarizing noise.
_ONE_QUBIT = 0.1
_FACTORS, _RICHARDSON = (1, 2, 3), (3.0, -3.0, 1.0)
# as circuits are executed on a device
_LEVEL = 3
_READOUT, _ZNE = "readout", "zne"


@dataclass(frozen=True)
class Noise:
    """One noise.

    Attributes:
        kind: one of `KINDS`, "fake" or "none".
        strength: rate of the first; None of the others.
        device: name of a fake device.
    """

    kind: str
    strength: float | None = None
    device: str | None = None

    @classmethod
    def parse(cls, text: str) -> Noise:
        """From a word such as "damping:0.01", "fake:torino" or "none".

        Raises:
            InputError: for anything else.

        >>> Noise.parse("damping:0.01")
        Noise(kind='damping', strength=0.01, device=None)
        """
        kind, _, rest = text.partition(":") if isinstance(text, str) else (text, "", "")
        if text == NONE:
            return cls(NONE)
        if kind == "fake" and rest:
            return cls("fake", device=rest)
        try:
            strength = float(rest)
        except ValueError:
            strength = -1.0
        if kind not in KINDS or not 0 < strength <= 1:
            raise InputError(
                f"noise must be {', '.join(f'{name}:RATE' for name in KINDS)} with a rate above 0 and at most 1, fake:NAME "
                f"or none, got {text!r}"
            )
        return cls(kind, strength)

    @property
    def mitigations(self) -> tuple[str, ...]:
        """How it can be mitigated exactly."""
        if self.kind in ("fake", "readout"):
            return (_READOUT,)
        # three times the strength must still be a rate
        return (_ZNE,) if self.strength is not None and max(_FACTORS) * self.strength <= 1 else ()

    def backend(self, num_qubits: int, scale: float = 1.0) -> Any:
        """A noisy simulator, `scale` times as noisy where the noise has a strength."""
        if self.device is not None:
            return parse_noise(f"fake:{self.device}", num_qubits)
        strength = scale * (self.strength or 0.0)
        if self.kind == "depolarizing":
            return simple_noise(num_qubits, one_qubit=_ONE_QUBIT * strength, two_qubit=strength)
        if self.kind == "damping":
            return simple_noise(num_qubits, amplitude_damping=strength)
        return simple_noise(num_qubits, readout=strength)


class NoisyModels:
    """One model under many noises, exactly; its circuit is transpiled once for every device.

    Args:
        model: without noise.
    """

    def __init__(self, model: QDEQModel) -> None:
        self._model, self._template = model, GateTemplate(model.template)
        self._transpiled: dict[str | None, tuple[Any, QuantumCircuit, list[SparsePauliOp]]] = {}

    def under(self, noise: Noise, mitigation: str = "") -> QDEQModel:
        """The model under a noise, as `QDEQModel.noisy` makes it; without noise the model itself.

        Args:
            noise: what gates and readout suffer.
            mitigation: "" or one of `noise.mitigations`.

        Raises:
            InputError: if this noise is not mitigated so, or there is no such device.
        """
        if mitigation not in ("", *noise.mitigations):
            raise InputError(f"mitigation of {noise.kind} noise must be '' or one of {list(noise.mitigations)}")
        if noise.kind == NONE or (noise.kind == "readout" and mitigation == _READOUT):
            return self._model
        other = copy.copy(self._model)
        if mitigation == _ZNE:
            other.evaluator = Extrapolated([self._evaluator(noise, factor) for factor in _FACTORS], _RICHARDSON)
        else:
            other.evaluator = self._evaluator(noise, readout=mitigation != _READOUT)
        return other

    def gates(self, noise: Noise) -> dict[str, int]:
        """`two_qubit_gates` and `depth` of the circuit as it is transpiled for the noise."""
        _, circuit, _ = self._circuit(noise)
        return {"two_qubit_gates": int(circuit.num_nonlocal_gates()), "depth": int(circuit.depth())}

    def _evaluator(self, noise: Noise, scale: float = 1.0, readout: bool = True) -> NoisyEvaluator:
        backend, circuit, observables = self._circuit(noise)
        if noise.device is None:
            backend = noise.backend(circuit.num_qubits, scale)
        noisy = noisy_circuit(circuit, observables, backend.options.noise_model, readout=readout)
        return NoisyEvaluator(self._template, self._model.injection, noisy)

    def _circuit(self, noise: Noise) -> tuple[Any, QuantumCircuit, list[SparsePauliOp]]:
        """A noisy simulator, and circuit and observables as transpiled for it, whatever the strength of the noise."""
        if noise.device not in self._transpiled:
            template = self._model.template
            backend = noise.backend(template.num_qubits)
            observables = (*template.state_observables, *template.readout_observables)
            isa = to_isa(self._template.circuit, observables, backend=backend, optimization_level=_LEVEL)
            self._transpiled[noise.device] = (backend, *isa)
        return self._transpiled[noise.device]
