"""First experiment 2: Newton against quasi-Newton: residual over steps and over circuits, and the order of convergence.

    order p:  ‖g_{k+1}‖ ~ c ‖g_k‖^p,    p_k = log(‖g_{k+1}‖/‖g_k‖) / log(‖g_k‖/‖g_{k-1}‖)

Circuits are counted as an estimator would run them: one per sample for m(q), all shifted ones for J.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from qiskit.primitives import StatevectorEstimator

from qiskit_qdeq.equilibrium import solve, solver
from qiskit_qdeq.equilibrium.solution import Solution
from qiskit_qdeq.equilibrium.solvers import Solver
from qiskit_qdeq.model import QDEQModel
from qiskit_qdeq.studies.theory.finding import ENCODINGS, Array, Finding, Setting, paper_model, share
from qiskit_qdeq.visualization._figure import CYCLE, GREY, WIDTH, label, legend_below, new_figure

_TOL = 1e-12
_REACHED = 1e-8
_FLOOR = 1e-14
#: name -> solver's name and options.
_SOLVERS: dict[str, tuple[str, dict[str, Any]]] = {
    "newton": ("newton", {"rescue_steps": 0}),
    "broyden": ("broyden", {}),
    "broyden, J⁻¹ at q₀": ("broyden", {"start_inverse": "jacobian"}),
    "anderson": ("anderson", {}),
    "picard": ("picard", {}),
    "scipy:hybr": ("scipy:hybr", {}),
    "scipy:krylov": ("scipy:krylov", {}),
    "scipy:df-sane": ("scipy:df-sane", {}),
}
#: SciPy's traces hold trial and inner evaluations, which have no order.
_STYLES = {"broyden, J⁻¹ at q₀": "--", "scipy:hybr": ":", "scipy:krylov": ":", "scipy:df-sane": ":"}


def check(setting: Setting) -> Finding:
    """Solve the same random maps with every solver and compare residual traces."""
    split = setting.split()
    draws, samples = setting.size(10, 2), setting.size(40, 8)
    rows: list[tuple[Any, ...]] = []
    traces: dict[str, dict[str, tuple[Array, Array]]] = {}
    for encoding in ENCODINGS:
        model = paper_model(encoding)
        inputs = model.prepare(split.x_test[:samples])
        rng = np.random.default_rng(setting.seed)
        weights = rng.uniform(-np.pi, np.pi, (draws, model.num_weights))
        per_jacobian = circuits_per_jacobian(model, weights[0], inputs)
        traces[encoding] = {}
        for name, (kind, options) in _SOLVERS.items():
            chosen = solver(kind, tol=_TOL, max_steps=200, **options)
            found = [solve(model.map(theta, inputs), chosen, on_failure="accept") for theta in weights]
            trace = _joined(found)
            circuits = _circuits(trace.shape[1], chosen, per_jacobian)
            traces[encoding][name] = (trace, circuits)
            ordered = not kind.startswith("scipy:")
            rows.append((encoding, name, *_row(found, trace, circuits, ordered)))
    return Finding(
        f"Newton against quasi-Newton: {draws} random weights x {samples} samples of {setting.data}, n = 4, from 0",
        (
            "encoding",
            "solver",
            f"‖g‖<{_REACHED:g} %",
            f"‖g‖<{_TOL:g} %",
            "steps median",
            "steps 90 %",
            "circuits median",
            "order median",
            "order 25-75 %",
        ),
        rows,
        (
            f"Steps and circuits per sample until ‖m(q) - q‖ < {_REACHED:g}, over the samples that got there; for SciPy's "
            "methods a step is an evaluation.",
            "'newton' is without the rescue by Broyden that the package adds where Newton stalls.",
            "'order': median over samples of the last p_k with residuals between 1e-1 and 1e-14.",
            "Circuits: one per evaluation, and those of the shift rule where a Jacobian is needed (an exact simulator, or "
            "solver 'probe' on a device, needs far fewer); shortened Newton steps are not counted.",
        ),
        _draw(traces),
    )


def circuits_per_jacobian(model: QDEQModel, weights: Array, inputs: Array) -> int:
    """Circuits that m and ∂m/∂q of one sample take through an estimator."""
    measured = model.measured(StatevectorEstimator()).map(weights, inputs[:1])
    evaluation, _ = measured.linearize(np.zeros((1, model.num_states)), np.zeros(1, dtype=np.int64))
    return evaluation.cost.circuits


def orders(trace: Array) -> Array:
    """The last p_k of every trace (B,) of residuals (B, S + 1), NaN where none is usable."""
    result = np.full(len(trace), np.nan)
    for sample, residuals in enumerate(trace):
        usable = residuals[np.isfinite(residuals) & (residuals > _FLOOR)]
        falling = [
            np.log(c / b) / np.log(b / a)
            for a, b, c in zip(usable, usable[1:], usable[2:], strict=False)
            if 0.1 > a > b > c
        ]
        if falling:
            result[sample] = falling[-1]
    return result


def _joined(found: list[Solution]) -> Array:
    width = max(solution.trace.shape[1] for solution in found)
    return np.vstack(
        [np.pad(one.trace, ((0, 0), (0, width - one.trace.shape[1])), constant_values=np.nan) for one in found]
    )


def _circuits(length: int, chosen: Solver, per_jacobian: int) -> Array:
    """Circuits spent when entry k of a trace is known (S + 1,)."""
    evaluations = np.arange(1, length + 1)
    if chosen.needs_jacobian or getattr(chosen, "with_jacobian", False):
        return evaluations * per_jacobian
    return evaluations + (per_jacobian - 1 if getattr(chosen, "starts_with_jacobian", False) else 0)


def _row(found: list[Solution], trace: Array, circuits: Array, ordered: bool) -> tuple[Any, ...]:
    below = trace < _REACHED
    reached = below.any(axis=1)
    steps = below.argmax(axis=1)[reached]
    converged = np.concatenate([solution.converged for solution in found])
    order = orders(trace) if ordered else np.zeros(0)
    order = order[np.isfinite(order)]
    spread = None if not len(order) else "{:.2f}-{:.2f}".format(*np.quantile(order, (0.25, 0.75)))
    return (
        share(reached),
        share(converged),
        float(np.median(steps)) if len(steps) else None,
        float(np.quantile(steps, 0.9)) if len(steps) else None,
        float(np.median(circuits[steps])) if len(steps) else None,
        float(np.median(order)) if len(order) else None,
        spread,
    )


def _draw(traces: dict[str, dict[str, tuple[Array, Array]]]) -> Figure:
    figure = new_figure(WIDTH, 5.4)
    panels = figure.subplots(2, 2, sharey=True)
    for row, (encoding, solved) in zip(panels, traces.items(), strict=True):
        for position, (name, (trace, circuits)) in enumerate(solved.items()):
            median = _median(trace)
            look = {
                "color": (*CYCLE, GREY)[position],
                "linestyle": _STYLES.get(name, "-"),
                "marker": "o" if name == "newton" else None,
                "markersize": 3,
                "linewidth": 1.4,
                "label": name,
            }
            row[0].plot(median, **look)
            row[1].plot(circuits, median, **look)
        row[0].set_xlim(0, 60)
        row[1].set(xscale="log", xlim=(1, 1000))
        row[0].set(yscale="log", ylim=(_TOL, 3))
        label(row[0], f"{encoding}: over steps", "step", "median residual ‖g‖₂")
        label(row[1], f"{encoding}: over circuits", "circuits per sample (J by shift rule)", "")
    legend_below(figure)
    return figure


def _median(trace: Array) -> Array:
    """Median over samples of the best residual so far (S + 1,)."""
    best = np.fmin.accumulate(trace, axis=1)
    middle: Array = np.median(best, axis=0)
    # what comes after the tolerance is where samples stopped
    middle[1:][middle[:-1] < _TOL] = np.nan
    return middle
