"""Overlap of single-qubit encodings against distance (appendix of arXiv:2410.23940, 3,000 random pairs).

    claim    |<0|S(z)†S(z')|0>| ≥ 1 - sin(d²),   d = ‖z - z'‖

A rotation by δ turns a state by at most δ/2, so after k rotations Re<0|S(z)†S(z')|0> ≥ cos(Σ|δ_i|/2) ≥ cos(√k d/2); with
amplitudes 1 - <0|S(z)†S(z')|0> ≤ d² / (2 ‖z‖ ‖z'‖). The claim is a claim up to d² = π/2, where its right side is 0; beyond,
it rises again to 1 at d² = π.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from qiskit_qdeq.circuits import AmplitudeEncoder, AngleEncoder
from qiskit_qdeq.circuits.encoders import Encoder
from qiskit_qdeq.evaluation.encodings import CircuitEncoding
from qiskit_qdeq.studies.theory.finding import Array, Finding, Setting
from qiskit_qdeq.visualization._figure import BLACK, BLUE, GREY, ORANGE, SMALL, WIDTH, label, legend_below, new_figure

#: Where the right side of the claim is 0, and the largest distance drawn.
MEANINGFUL, _FAR = float(np.sqrt(np.pi / 2)), 2.0


def overlaps(encoder: Encoder, first: Array, second: Array) -> Array:
    """<0|S(z)†S(z')|0> (B,) complex, of pairs of inputs (B, D)."""
    circuit = CircuitEncoding(encoder.circuit, encoder.parameters)

    def states(inputs: Array) -> Array:
        angles = encoder.angles(inputs)
        planes = circuit.columns(angles, np.zeros((len(angles), 0, encoder.num_angles)))[:, :, 0]
        return planes[0] + 1j * planes[1]

    product: Array = (states(first).conj() * states(second)).sum(axis=0)
    return product


def claimed(distance: Array) -> Array:
    """1 - sin(d²)."""
    bound: Array = 1 - np.sin(distance**2)
    return bound


@dataclass(frozen=True)
class _Case:
    """An encoding, how its pairs are drawn, and a lower bound on the real part of the overlap that is proven."""

    name: str
    encoder: Encoder
    pairs: Callable[[np.random.Generator, int], tuple[Array, Array]]
    proven: Callable[[Array], Array] | None


def check(setting: Setting) -> Finding:
    """Count the pairs below the claimed bound, and say up to which distance it is proven."""
    rng = np.random.default_rng(setting.seed)
    count = setting.size(3000, 300)
    figure = new_figure(WIDTH, 4.2)
    panels = figure.subplots(2, 3, sharex=True, sharey=True).ravel()
    rows = []
    for case, axes in zip(_cases(), panels, strict=True):
        first, second = case.pairs(rng, count)
        distance = np.linalg.norm(first - second, axis=1)
        overlap = overlaps(case.encoder, first, second)
        inside = distance <= MEANINGFUL
        gap = np.abs(overlap) - claimed(distance)
        real = overlap.real - claimed(distance)
        rows.append(
            (
                case.name,
                count,
                int(inside.sum()),
                int((gap[inside] < -1e-12).sum()),
                int((real[inside] < -1e-12).sum()),
                int((gap[~inside] < -1e-12).sum()),
                float(gap[inside].min()),
                _proven_distance(case),
            )
        )
        _draw(axes, case, distance, overlap)
    for axes in panels[:3]:
        axes.set_xlabel("")
    for position, axes in enumerate(panels):
        if position % 3:
            axes.set_ylabel("")
    legend_below(figure)
    for handle in figure.legends[0].legend_handles:
        if handle is not None and handle.get_label() in {"|overlap|", "real part"}:
            handle.set_markersize(6)  # type: ignore[attr-defined]
    return Finding(
        "overlap of single-qubit encodings against distance d, and the claim |overlap| ≥ 1 - sin(d²)",
        (
            "encoding of one qubit",
            "pairs",
            "d² ≤ π/2",
            "below (modulus)",
            "below (real part)",
            "below, d² > π/2",
            "smallest margin",
            "proven for d ≤",
        ),
        rows,
        (
            "'below' counts pairs with an overlap below 1 - sin(d²); the first two counts and the margin are for d² ≤ π/2.",
            "Beyond d² = π/2 the claimed bound rises again and says nothing about closeness.",
            "k rotations obey overlap ≥ cos(√k d/2), which implies the claim near d = 0 only for k ≤ 8.",
        ),
        figure,
    )


def _cases() -> list[_Case]:
    def near(reach: float, size: int, aligned: bool = False) -> Callable[..., tuple[Array, Array]]:
        def pairs(rng: np.random.Generator, count: int) -> tuple[Array, Array]:
            first = rng.uniform(-reach, reach, (count, size))
            return first, first + _steps(rng, count, size, aligned)

        return pairs

    def rotations(name: str, axes: str, aligned: bool = False) -> _Case:
        size = len(axes)
        encoder = AngleEncoder(axes, [0] * size, 1)
        return _Case(name, encoder, near(np.pi, size, aligned), lambda d: np.cos(np.sqrt(size) * d / 2))

    return [
        rotations("angle: one RY", "y"),
        rotations("angle, n = 4: RY RZ RX RY", "yzxy"),
        rotations("angle, n = 10: ten RY", "y" * 10),
        rotations("ten RY, all differences equal", "y" * 10, aligned=True),
        _Case("amplitude: z in [-1, 1]²", AmplitudeEncoder(2), near(1.0, 2), None),
        _Case("amplitude: ‖z‖, ‖z'‖ ≥ 1", AmplitudeEncoder(2), _long_pairs, lambda d: 1 - d**2 / 2),
    ]


def _steps(rng: np.random.Generator, count: int, size: int, aligned: bool) -> Array:
    """Differences of lengths uniform in [0, 2] in random directions, or all along (1, ..., 1)."""
    direction = np.ones((count, size)) if aligned else rng.standard_normal((count, size))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    steps: Array = rng.uniform(0, _FAR, (count, 1)) * direction
    return steps


def _long_pairs(rng: np.random.Generator, count: int) -> tuple[Array, Array]:
    first, second = np.zeros((0, 2)), np.zeros((0, 2))
    while len(first) < count:
        drawn = rng.uniform(-2, 2, (count, 2))
        moved = drawn + _steps(rng, count, 2, aligned=False)
        kept = (np.linalg.norm(drawn, axis=1) >= 1) & (np.linalg.norm(moved, axis=1) >= 1)
        first, second = np.vstack([first, drawn[kept]]), np.vstack([second, moved[kept]])
    return first[:count], second[:count]


def _proven_distance(case: _Case) -> float:
    """The largest d (in steps of 1e-3) such that the proven bound implies the claim everywhere up to it."""
    grid = np.arange(1e-3, _FAR, 1e-3)
    if case.proven is None:
        return 0.0
    fails = case.proven(grid) < claimed(grid)
    return float(grid[fails.argmax()] - 1e-3) if fails.any() else _FAR


def _draw(axes: Axes, case: _Case, distance: Array, overlap: Array) -> None:
    grid = np.linspace(0, _FAR, 201)
    axes.axvspan(MEANINGFUL, _FAR, color=GREY, alpha=0.2, linewidth=0, label="d² > π/2")
    # behind the moduli: seen where the two differ
    for values, color, name, order in ((np.abs(overlap), BLUE, "|overlap|", 3), (overlap.real, ORANGE, "real part", 2)):
        axes.plot(distance, values, ".", color=color, markersize=2, markeredgewidth=0, label=name, zorder=order)
    axes.plot(grid, claimed(grid), color=BLACK, linewidth=1.4, label="claim 1 − sin(d²)", zorder=4)
    if case.proven is not None:
        look: dict[str, Any] = {"color": BLACK, "linewidth": 1.2, "linestyle": ":", "zorder": 4}
        axes.plot(grid, case.proven(grid), label="proven lower bound", **look)
    axes.set(xlim=(0, _FAR), ylim=(-1.05, 1.05), xticks=(0, 0.5, 1, 1.5))
    label(axes, case.name, "distance d = ‖z − z'‖", "overlap")
    axes.title.set_fontsize(SMALL + 1)
