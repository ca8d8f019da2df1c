"""Equilibrium models inside other libraries' training: each connector needs the extra that brings its library.

`EquilibriumQNN` (extra `ml`) is a `NeuralNetwork` of qiskit-machine-learning, and by its `TorchConnector` a torch module.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qiskit_qdeq.connectors.equilibrium_qnn import EquilibriumQNN

__all__ = ["EquilibriumQNN"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # on first use: its base class is of a library that may be missing
    from qiskit_qdeq.connectors.equilibrium_qnn import EquilibriumQNN

    return EquilibriumQNN


def __dir__() -> list[str]:
    return __all__
