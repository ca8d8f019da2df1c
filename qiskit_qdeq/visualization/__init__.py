"""Pictures of training, solvers, contraction, classification and circuits, as matplotlib Figures."""

from __future__ import annotations

from qiskit_qdeq.visualization.basins import plot_basins
from qiskit_qdeq.visualization.circuit import plot_circuit
from qiskit_qdeq.visualization.confusion import plot_confusion
from qiskit_qdeq.visualization.contraction import plot_contraction, plot_spectrum
from qiskit_qdeq.visualization.copies import plot_copies
from qiskit_qdeq.visualization.cost import plot_cost
from qiskit_qdeq.visualization.files import save_figures
from qiskit_qdeq.visualization.history import plot_history
from qiskit_qdeq.visualization.iterates import plot_iterates
from qiskit_qdeq.visualization.noise import plot_noise
from qiskit_qdeq.visualization.traces import plot_residual_traces

__all__ = [
    "plot_basins",
    "plot_circuit",
    "plot_confusion",
    "plot_contraction",
    "plot_copies",
    "plot_cost",
    "plot_history",
    "plot_iterates",
    "plot_noise",
    "plot_residual_traces",
    "plot_spectrum",
    "save_figures",
]
