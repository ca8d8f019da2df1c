"""First experiment 3: the implicit gradient against finite differences.

    dL/dθ = Σ_b λ_bᵀ ∂m/∂θ,   (1 - Jᵀ) λ = ∂L/∂q*     against     (L(θ + h e_i) - L(θ - h e_i)) / 2h

L is solved anew for every shifted θ. The reference of the comparisons between modes is the fourth-order difference
(8 (L(h) - L(-h)) - (L(2h) - L(-2h))) / 12h at h = 1e-3. Errors are ‖g - g_ref‖ / ‖g_ref‖ over the circuit weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from qiskit_qdeq.equilibrium import solve
from qiskit_qdeq.equilibrium.solvers import Broyden, Newton, Solver
from qiskit_qdeq.gradient.implicit import Backward
from qiskit_qdeq.model import QDEQModel
from qiskit_qdeq.studies.theory.finding import ENCODINGS, Array, Finding, Setting, paper_model
from qiskit_qdeq.training.config import TrainingConfig
from qiskit_qdeq.training.step import StepResult, training_step
from qiskit_qdeq.visualization._figure import BLACK, BLUE, CYCLE, VERMILLION, WIDTH, label, legend, new_figure

#: name -> how λ is found.
MODES: dict[str, Backward] = {
    "exact": Backward("exact"),
    "broyden": Backward("broyden", tol=1e-12, max_steps=200, on_failure="accept"),
    "anderson": Backward("anderson", tol=1e-12, max_steps=200, on_failure="accept"),
    "gmres": Backward("gmres", tol=1e-12),
    "shine": Backward("shine"),
    "neumann, 20 terms": Backward("neumann", terms=20),
    "neumann, 5 terms": Backward("neumann", terms=5),
    "jfb": Backward("jfb"),
}
_TIGHT = 1e-13
_COLORS = {"amplitude": BLUE, "angle": VERMILLION}


@dataclass(frozen=True)
class Problem:
    """A minibatch whose samples all have an equilibrium that Newton and Broyden find from 0."""

    model: QDEQModel
    parameters: Array
    inputs: Array
    labels: Array
    state: Array
    radius: float

    def step(
        self, solver: Solver, backward: Backward, parameters: Array | None = None, warm: bool = False
    ) -> StepResult:
        """Loss and gradient; from q* with `warm`, so that shifted weights stay on the same branch."""
        config = TrainingConfig(solver=solver, backward=backward)
        return training_step(
            self.model,
            self.parameters if parameters is None else parameters,
            self.inputs,
            self.labels,
            config,
            direct=False,
            initial=self.state if warm else None,
            rng=np.random.default_rng,
        )

    def gradient(self, solver: Solver, backward: Backward) -> Array:
        """∂L/∂θ (p,)."""
        return self.step(solver, backward).gradient[: self.model.num_weights]

    def differences(self, step: float) -> Array:
        """(L(θ + h e_i) - L(θ - h e_i)) / 2h (p,)."""
        return np.array([self._loss(i, step) - self._loss(i, -step) for i in range(self.model.num_weights)]) / (
            2 * step
        )

    def reference(self) -> Array:
        """The fourth-order difference."""
        step = 1e-3
        fine: Array = (4 * self.differences(step) - self.differences(2 * step)) / 3
        return fine

    def _loss(self, index: int, shift: float) -> float:
        shifted = self.parameters.copy()
        shifted[index] += shift
        return self.step(Newton(tol=_TIGHT), MODES["jfb"], shifted, warm=True).loss


def problem_of(setting: Setting, encoding: str) -> Problem:
    """Random parameters and samples of the data set, those left out on which a solver fails."""
    split = setting.split()
    # relu has kinks, at which differences show nothing but themselves
    model = paper_model(encoding, num_classes=split.num_classes, activation="identity")
    parameters = model.initial_parameters(setting.seed)
    inputs, labels = model.prepare(split.x_test), split.y_test
    problem = model.map(model.split(parameters)[0], inputs)
    newton = solve(problem, Newton(tol=_TIGHT), on_failure="accept")
    broyden = solve(problem, Broyden(tol=1e-12, max_steps=200), on_failure="accept")
    same = np.linalg.norm(newton.state - broyden.state, axis=1) < 1e-6
    kept = np.flatnonzero(newton.converged & broyden.converged & same)[: setting.size(32, 8)]
    jacobian = problem.at(newton.state).jacobian[kept]
    radius = float(np.abs(np.linalg.eigvals(jacobian)).max())
    return Problem(model, parameters, inputs[kept], labels[kept], newton.state[kept].copy(), radius)


def relative_error(found: Array, reference: Array) -> float:
    """‖found - reference‖ / ‖reference‖."""
    return float(np.linalg.norm(found - reference) / np.linalg.norm(reference))


def check(setting: Setting) -> Finding:
    """Compare every backward mode with finite differences, over step sizes and solver tolerances."""
    figure = new_figure(WIDTH, 5.6)
    panels = figure.subplots(2, 2)
    shifts = np.logspace(-0.5, -10, setting.size(20, 6))
    tolerances = np.logspace(-1, -12, setting.size(12, 4))
    rows: list[tuple[Any, ...]] = []
    values: dict[str, Any] = {"h": shifts, "tolerance": tolerances}
    errors: dict[str, list[float]] = {}
    for encoding in ENCODINGS:
        problem = problem_of(setting, encoding)
        reference = problem.reference()
        tight = Broyden(tol=1e-12, max_steps=200)
        exact = problem.gradient(tight, MODES["exact"])
        curve = [relative_error(exact, problem.differences(float(shift))) for shift in shifts]
        loose = {
            name: _over_tolerance(problem, MODES[name], tolerances, reference) for name in ("exact", "shine", "jfb")
        }
        errors[encoding] = []
        for name, backward in MODES.items():
            found = problem.gradient(tight, backward)
            errors[encoding].append(relative_error(found, reference))
            cosine = float(found @ reference / np.linalg.norm(found) / np.linalg.norm(reference))
            rows.append((encoding, name, errors[encoding][-1], cosine, len(problem.inputs), problem.radius))
        values[encoding] = {"over h": curve, "over tolerance": loose}
        panels[0, 0].plot(shifts, curve, ".-", color=_COLORS[encoding], label=encoding)
        _draw_tolerance(panels[1, ENCODINGS.index(encoding)], encoding, tolerances, loose)
    _draw_shifts(panels[0, 0], shifts, values["amplitude"]["over h"])
    _draw_modes(panels[0, 1], errors)
    return Finding(
        f"implicit gradient of {problem.model.num_weights} circuit weights against finite differences: {setting.data}, "
        "n = 4",
        ("encoding", "backward mode", "relative error", "cosine", "samples", "largest ρ"),
        rows,
        (
            "Relative error and cosine against fourth-order central differences (h = 1e-3); forward: Broyden to 1e-12.",
            "The exact modes differ from the differences by no more than these are wrong themselves.",
            "neumann and jfb are approximations by design; shine reuses the forward solve's inverse.",
            "'largest ρ': of the minibatch's equilibria; from 1 on the Neumann series diverges.",
        ),
        figure,
        values,
    )


def _over_tolerance(problem: Problem, backward: Backward, tolerances: Array, reference: Array) -> list[float]:
    solvers: Callable[[float], Broyden] = lambda tol: Broyden(tol=tol, max_steps=200)  # noqa: E731
    return [relative_error(problem.gradient(solvers(float(tol)), backward), reference) for tol in tolerances]


def _draw_shifts(axes: Axes, shifts: Array, curve: list[float]) -> None:
    """Truncation grows as h², rounding as 1/h: guides laid through the ends of a curve."""
    for end, power, style, name in ((0, 2, ":", "∝ h²"), (-1, -1, "--", "∝ 1/h")):
        guide = curve[end] * (shifts / shifts[end]) ** power
        axes.plot(shifts, guide, color=BLACK, linewidth=1, linestyle=style, label=name)
    axes.set(xscale="log", yscale="log", ylim=(1e-12, 10))
    label(axes, "mode exact against central differences", "step h of the differences (rad)", "relative error")
    legend(axes, loc="lower left")


def _draw_modes(axes: Axes, errors: dict[str, list[float]]) -> None:
    for offset, (encoding, values) in zip((-0.2, 0.2), errors.items(), strict=True):
        places = np.arange(len(values)) + offset
        axes.barh(places, np.maximum(values, 1e-16), 0.36, left=1e-16, color=_COLORS[encoding], label=encoding)
    axes.set_yticks(range(len(MODES)), list(MODES))
    axes.invert_yaxis()
    axes.set(xscale="log", xlim=(1e-13, 10))
    label(axes, "every backward mode", "relative error", "")
    legend(axes, loc="upper right")


def _draw_tolerance(axes: Axes, encoding: str, tolerances: Array, loose: dict[str, list[float]]) -> None:
    for position, (name, values) in enumerate(loose.items()):
        axes.plot(tolerances, values, ".-", color=CYCLE[position], label=name)
    axes.plot(tolerances, tolerances, color=BLACK, linewidth=1, linestyle=":", label="tolerance")
    axes.set(xscale="log", yscale="log", ylim=(1e-13, 10))
    label(axes, f"{encoding}: over the forward tolerance", "tolerance on ‖g‖ (Broyden)", "relative error")
    legend(axes, loc="lower right")
