"""Copies of a circuit on the coupling map of a device."""

from __future__ import annotations

from typing import Any

import numpy as np
import rustworkx as rx
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.execution.copies import Copies
from qiskit_qdeq.visualization._figure import CYCLE, SMALL, TITLE, WIDTH, own_or_given

Array = np.ndarray[Any, np.dtype[Any]]

_FREE = "#CCCCCC"
_ITERATIONS = 150


def plot_copies(copies: Copies, axes: Axes | None = None) -> Figure:
    """Draw the qubits of each copy in a colour of its own; qubits and couplings left free are grey.

    The number in a qubit is that of the device. The legend has each copy's two-qubit error and expected errors per
    execution. Positions are found from the coupling map alone: distances on paper approximate those in it.

    Args:
        copies: from `choose_copies`, of a device with couplings.
        axes: to draw into; None: a new figure.

    Raises:
        InputError: if the copies are not on a device with couplings.
    """
    if not isinstance(copies, Copies) or not copies.couplings:
        raise InputError(f"copies must be those that choose_copies found on a device with couplings, got {copies!r}")
    where = _positions(copies.num_qubits, copies.couplings)
    span = np.ptp(where, axis=0)
    figure, axes = own_or_given(axes, WIDTH, WIDTH * max(0.15, span[1] / max(span[0], 1)) + 0.2 * len(copies) / 3 + 0.6)
    # points: what is left of a coupling's length on paper when both circles are drawn
    diameter = min(18.0, 0.75 * 72 * (WIDTH - 0.4) / max(span[0], 2))
    home = {qubit: index for index, copy in enumerate(copies.copies) for qubit in copy.qubits}
    for first, second in copies.couplings:
        inside = first in home and home[first] == home.get(second)
        color = CYCLE[home[first] % len(CYCLE)] if inside else _FREE
        axes.plot(*where[[first, second]].T, color=color, linewidth=2.5 if inside else 1.0, zorder=1)
    free = [qubit for qubit in range(copies.num_qubits) if qubit not in home]
    look = {"s": diameter**2, "linewidths": 1}
    axes.scatter(*where[free].T, color="white", edgecolors=_FREE, zorder=2, **look)
    for index, copy in enumerate(copies.copies):
        name = f"{' '.join(map(str, copy.qubits))}: {copy.two_qubit_error:.2%}, {copy.errors:.2f}"
        axes.scatter(*where[list(copy.qubits)].T, color=CYCLE[index % len(CYCLE)], zorder=3, label=name, **look)
    for qubit, (x, y) in enumerate(where):
        color = "white" if qubit in home else "#777777"
        font = {"fontsize": min(SMALL, 0.45 * diameter), "ha": "center", "va": "center"}
        axes.text(x, y, str(qubit), color=color, zorder=4, **font)
    of = f"{len(copies)} {'copy' if len(copies) == 1 else 'copies'} of {copies.template.num_qubits} qubits"
    axes.set_title(f"{of} on {copies.device or 'the device'}", fontsize=TITLE)
    axes.set_aspect("equal")
    middle = (where.max(axis=0) + where.min(axis=0)) / 2
    axes.set(
        **{f"{name}lim": (m - r / 2 - 0.7, m + r / 2 + 0.7) for name, m, r in zip("xy", middle, span, strict=True)}
    )
    axes.axis("off")
    axes.legend(
        title="qubits: two-qubit error, expected errors per execution",
        loc="upper center",
        bbox_to_anchor=(0.5, 0.0),
        ncols=3,
        fontsize=SMALL,
        title_fontsize=SMALL,
        frameon=False,
        markerscale=min(1.0, 6 / diameter),
    )
    return figure


def _positions(num_qubits: int, couplings: tuple[tuple[int, int], ...]) -> Array:
    """Points (qubits, 2) whose distances approximate those in the coupling map, by majorizing their relative stress.

        Σ_{i<j} d_ij⁻² (|x_i - x_j| - d_ij)²

    Kamada and Kawai's energy; E. Gansner, Y. Koren, S. North, Graph drawing by stress majorization, 2004.
    """
    graph = rx.PyGraph()
    graph.add_nodes_from(range(num_qubits))
    graph.add_edges_from_no_data(list(couplings))
    distances = np.asarray(rx.distance_matrix(graph, null_value=np.inf))
    reached = distances[np.isfinite(distances)].max(initial=1)
    distances = np.where(np.isfinite(distances), distances, reached + 1)
    weights = 1 / (distances + np.eye(num_qubits)) ** 2 - np.eye(num_qubits)
    solve = np.linalg.pinv(_laplacian(weights))
    points = _classical(distances)
    for _ in range(_ITERATIONS):
        apart = np.linalg.norm(points[:, None] - points[None], axis=2)
        points = solve @ (_laplacian(weights * distances / np.where(apart > 0, apart, np.inf)) @ points)
    # the long side lies flat, qubit 0 at the upper left
    _, _, axes = np.linalg.svd(points - points.mean(axis=0), full_matrices=False)
    points = points @ axes.T
    return points * np.where(points[0] * np.array([-1, 1]) < 0, -1, 1)


def _laplacian(weights: Array) -> Array:
    return np.diag(weights.sum(axis=1)) - weights


def _classical(distances: Array) -> Array:
    """Classical scaling: the leading eigenvectors of the doubly centred squared distances."""
    size = len(distances)
    centre = np.eye(size) - 1 / size
    values, vectors = np.linalg.eigh(-0.5 * centre @ distances**2 @ centre)
    points = np.zeros((size, 2))
    width = min(2, size)
    points[:, :width] = (vectors[:, ::-1] * np.sqrt(np.maximum(values[::-1], 0)))[:, :width]
    return points
