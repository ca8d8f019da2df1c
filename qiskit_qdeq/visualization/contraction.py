"""How contractive the map q -> m(x + P q) is: eigenvalues of J = ∂m/∂q at q*, and bounds on its norm.

    ρ(J) ≤ ‖J‖₂ ≤ Lip,   J at the equilibrium q*,   Lip a bound over the whole state box.

Plain iteration converges near q* where ρ(J) < 1, and from everywhere to the one equilibrium where Lip < 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from qiskit_qdeq.circuits._checks import check_reals
from qiskit_qdeq.equilibrium.contraction import ContractionReport
from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.visualization._figure import (
    BLACK,
    BLUE,
    GREEN,
    VERMILLION,
    WIDTH,
    check_finite,
    label,
    legend,
    new_figure,
    own_or_given,
)

Array = np.ndarray[Any, np.dtype[Any]]


def plot_spectrum(jacobian: Array) -> Figure:
    """Draw the eigenvalues of J of all samples with the unit circle, and a histogram of ρ(J).

    Args:
        jacobian: J = ∂m/∂q at the equilibria (B, K, K), as `problem.at(solution.state).jacobian`.

    Raises:
        InputError: if it is empty, not square, or not finite.
    """
    jacobian = check_finite("jacobian", jacobian, ("samples", "states", "states"))
    if jacobian.shape[1] != jacobian.shape[2]:
        raise InputError(f"jacobian must have shape (samples, states, states), got {jacobian.shape}")
    eigenvalues = np.linalg.eigvals(jacobian)
    radius = np.abs(eigenvalues).max(axis=1)
    figure = new_figure(WIDTH, 3.3)
    plane, histogram = figure.subplots(1, 2)
    _draw_plane(plane, eigenvalues)
    _draw_histogram(histogram, radius)
    return figure


def _draw_plane(axes: Axes, eigenvalues: Array) -> None:
    inside = np.abs(eigenvalues) < 1
    # many samples overlap: fewer get more ink each
    alpha = float(np.clip(200 / eigenvalues.size, 0.25, 0.8))
    for chosen, color, marker, name in (
        (inside, BLUE, "o", "inside"),
        (~inside, VERMILLION, "^", "on or outside"),
    ):
        points = eigenvalues[chosen]
        if points.size:
            axes.plot(points.real, points.imag, marker, color=color, alpha=alpha, label=name, ms=3.5, mew=0)
    axes.add_patch(Circle((0, 0), 1, fill=False, color=BLACK, linewidth=1))
    reach = 1.1 * max(1.0, float(np.abs(eigenvalues).max()))
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    label(axes, "eigenvalues of ∂m/∂q and the unit circle", "real part", "imaginary part")
    for handle in legend(axes, loc="upper left").legend_handles:
        handle.set_alpha(1)  # type: ignore[union-attr]


def _draw_histogram(axes: Axes, radius: Array) -> None:
    edges = _edges(radius)
    counts, _ = np.histogram(radius.clip(min=edges[0]), edges)
    colors = [VERMILLION if left >= 1 else BLUE for left in edges[:-1]]
    axes.bar(edges[:-1], counts, np.diff(edges), align="edge", color=colors, edgecolor="white", linewidth=0.4)
    if edges[0] > 0:
        axes.set_xscale("log")
    axes.axvline(1, color=BLACK, linewidth=1, linestyle="--")
    axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    title = f"median {np.median(radius):.3g}; at or above 1: {100 * np.mean(radius >= 1):.1f} %"
    label(axes, title, "spectral radius ρ", "samples")


def _edges(radius: Array) -> Array:
    """Bin edges, one at 1: no bar stands on both sides of the limit; even in log ρ where ρ is large."""
    top = max(float(radius.max()), 1.0)
    if top <= 10:
        per_unit = max(round(20 / top), 2)
        return np.arange(np.floor(top * per_unit) + 2) / per_unit
    low = np.floor(8 * np.log10(max(float(radius.min()), 1e-2)))
    return np.asarray(10 ** (np.arange(low, np.floor(8 * np.log10(top)) + 2) / 8))


def plot_contraction(report: ContractionReport, *, axes: Axes | None = None) -> Figure:
    """Draw which share of the samples has ρ(J), ‖J‖₂ and the Lipschitz bound below a value.

    Where a curve crosses the line at 1 one reads the share of samples that are contractive in that sense. A
    curve that ends below 100 % has infinite values: the bound is not known for these samples.

    Args:
        report: what `contraction` returned.
        axes: to draw into instead of a new figure.

    Raises:
        InputError: if the report is empty, its arrays do not match, or an entry is negative or NaN.
    """
    if not isinstance(report, ContractionReport):
        raise InputError(f"report must be a ContractionReport, got {type(report).__name__}")
    curves = {
        "spectral radius ρ(J) at q*": (_sorted(report, "spectral_radius"), BLUE, "-"),
        "largest singular value ‖J‖₂ at q*": (_sorted(report, "singular_value"), GREEN, "--"),
        "Lipschitz bound on the box": (_sorted(report, "lipschitz"), VERMILLION, "-."),
    }
    figure, axes = own_or_given(axes, 5.0, 3.2)
    everything = np.concatenate([values for values, _, _ in curves.values()])
    positive = everything[np.isfinite(everything) & (everything > 0)]
    low, high = _limits(axes, positive)
    for name, (values, color, style) in curves.items():
        _draw_share(axes, values, low, high, name, color, style)
    axes.axvline(1, color=BLACK, linewidth=1, linestyle=":")
    # room above 100 % for the legend
    axes.set(xlim=(low, high), ylim=(0, 140), yticks=range(0, 101, 20))
    many = np.mean(np.asarray(report.equilibria) > 1)
    samples = len(report.lipschitz)
    title = f"contraction of {samples} sample{'s' if samples > 1 else ''}"
    if many:
        title += f"; several equilibria in {100 * many:.1f} %"
    label(axes, title, "value (no unit; below 1 is contractive)", "samples at or below (%)")
    legend(axes, loc="upper left")
    return figure


def _limits(axes: Axes, positive: Array) -> tuple[float, float]:
    """Ends of the axis around the finite values > 0 and the limit 1: logarithmic where they span much."""
    if not positive.size:
        return 0.0, 1.5
    low, high = min([*positive, 1.0]), max([*positive, 1.0])
    if high < 10 * low:
        margin = max(0.08 * (high - low), 1e-3)
        axes.xaxis.set_major_locator(MaxNLocator(6))
        return low - margin, high + margin
    axes.set_xscale("log")
    axes.xaxis.set_minor_formatter(NullFormatter())
    if high < 300 * low:
        # within two decades powers of ten alone are too few
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
    return low / 1.5, high * 1.5


def _sorted(report: ContractionReport, name: str) -> Array:
    values = check_reals(f"report.{name}", getattr(report, name))
    if values.ndim != 1 or not values.size or values.shape != np.shape(report.equilibria):
        raise InputError(
            f"report.{name} must have shape (samples,), not empty, as report.equilibria "
            f"{np.shape(report.equilibria)}, got {values.shape}"
        )
    if np.isnan(values).any() or (values < 0).any():
        row = int(np.flatnonzero(~(values >= 0))[0])
        raise InputError(f"report.{name} must be >= 0, got {values[row]} for sample {row}")
    ordered: Array = np.sort(values)
    return ordered


def _draw_share(axes: Axes, values: Array, low: float, high: float, name: str, color: str, style: str) -> None:
    """The empirical distribution function in per cent, from one end of the axis to the other."""
    finite = values[np.isfinite(values)]
    share = 100 * np.arange(len(finite) + 1) / len(values)
    if len(finite) < len(values):
        name += f" (unknown: {100 * (1 - len(finite) / len(values)):.0f} %)"
    x = np.concatenate([[low], np.maximum(finite, low), [high]])
    y = np.concatenate([share, share[-1:]])
    axes.plot(x, y, drawstyle="steps-post", color=color, linestyle=style, linewidth=1.6, label=name)
