"""First experiment 1: fixed points on synthetic data; iterates fall into q* at the rate that J predicts.

q_{t+1} = m(x + P q_t),    ‖q_t - q*‖ ~ ρ(J)^t    near q*
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.datasets import make_classification

from qiskit_qdeq.equilibrium import contraction, solve
from qiskit_qdeq.equilibrium.driver import direct_state
from qiskit_qdeq.equilibrium.solution import Solution
from qiskit_qdeq.equilibrium.solvers import Newton, Picard
from qiskit_qdeq.evaluation.protocol import EquilibriumMap
from qiskit_qdeq.inference import predict
from qiskit_qdeq.studies.theory.finding import ENCODINGS, Array, Finding, Setting, paper_model, share
from qiskit_qdeq.training.config import TrainingConfig
from qiskit_qdeq.training.trainer import Trainer
from qiskit_qdeq.visualization._figure import BLACK, BLUE, CYCLE, ORANGE, WIDTH, label, legend, new_figure

_TOL = 1e-10
_LAYERS = 60
_CLASSES = 3


@dataclass(frozen=True)
class _Run:
    """One model on the test samples: distances (T + 1, B) of plain iteration from 0 to q*, and their rate."""

    encoding: str
    problem: EquilibriumMap
    solution: Solution
    radius: Array
    distances: Array
    rate: Array


def check(setting: Setting) -> Finding:
    """Train both encodings on a synthetic set; look for equilibria from many starts and iterate towards them."""
    samples = setting.size(300, 60)
    x, y = make_classification(
        2 * samples,
        16,
        n_informative=8,
        n_redundant=4,
        n_classes=_CLASSES,
        n_clusters_per_class=1,
        random_state=setting.seed,
    )
    x /= x.std(axis=0)
    rows: list[tuple[Any, ...]] = []
    runs = []
    for encoding in ENCODINGS:
        model = paper_model(encoding, num_classes=_CLASSES, activation="identity")
        config = TrainingConfig(epochs=setting.size(30, 3), batch_size=min(64, samples), seed=setting.seed)
        trainer = Trainer(model, config, x[:samples], y[:samples])
        inputs = model.prepare(x[samples:])
        for stage, parameters in (
            ("random", trainer.state.parameters.copy()),
            ("trained", None),
        ):
            if parameters is None:
                parameters = trainer.run().last_parameters
            problem = model.map(model.split(parameters)[0], inputs)
            found = solve(problem, Newton(tol=_TOL), on_failure="accept")
            starts = setting.size(20, 4)
            report = contraction(
                problem,
                found,
                model.lipschitz_bound(inputs),
                starts=starts,
                solver=Newton(tol=_TOL),
                seed=setting.seed,
            )
            plain = _plain_iteration(problem, starts, setting.seed)
            run = _iterated(encoding, problem, found, report.spectral_radius)
            near = np.isfinite(run.rate)
            rows.append(
                (
                    encoding,
                    stage,
                    share(predict(model, parameters, inputs, Newton()).logits.argmax(axis=1) == y[samples:]),
                    share(found.converged),
                    float(found.residual[found.converged].max()),
                    share(report.equilibria > 1),
                    int(report.equilibria.max()),
                    share(plain),
                    share(report.spectral_radius < 1),
                    float(np.median(report.spectral_radius)),
                    float(np.median(np.abs(run.rate[near] - run.radius[near]))) if near.any() else None,
                )
            )
        runs.append(run)
    return Finding(
        f"fixed points on synthetic data: {_CLASSES} classes, 16 features, n = 4, {samples} test samples, "
        f"{starts} random starts",
        (
            "encoding",
            "weights",
            "accuracy %",
            "solved %",
            "largest residual",
            "several %",
            "most",
            "iteration converges %",
            "ρ<1 %",
            "ρ median",
            "rate - ρ",
        ),
        rows,
        (
            f"'solved': by Newton from 0 to {_TOL:g}; 'several': samples with more than one equilibrium, 'most': how many.",
            "'iteration converges': share of samples where q <- m(x + P q) reaches an equilibrium from every random start.",
            "'rate - ρ': median of |observed rate of the iteration - ρ(J)| where it is slow enough to measure a rate.",
        ),
        _draw(runs, setting.seed),
    )


def _plain_iteration(problem: EquilibriumMap, starts: int, seed: int) -> Array:
    """Whether plain iteration converges from every start (B,)."""
    rng = np.random.default_rng(seed)
    reached = np.ones(problem.batch, dtype=bool)
    for _ in range(starts):
        start = rng.uniform(-1, 1, (problem.batch, problem.num_states))
        reached &= solve(problem, Picard(tol=1e-8, max_steps=500), start, on_failure="accept").converged
    return reached


def _iterated(encoding: str, problem: EquilibriumMap, solution: Solution, radius: Array) -> _Run:
    states = [np.zeros(solution.state.shape)]
    for _ in range(_LAYERS):
        states.append(direct_state(problem, 1, states[-1]))
    distances = np.linalg.norm(np.array(states) - solution.state, axis=2)
    distances[:, ~solution.converged] = np.nan
    return _Run(encoding, problem, solution, radius, distances, rates(distances))


def rates(distances: Array) -> Array:
    """exp of the slope of log ‖q_t - q*‖ over the steps with 1e-9 < ‖q_t - q*‖ < 1e-2; NaN with fewer than 8 (B,)."""
    rates = np.full(distances.shape[1], np.nan)
    for sample, trace in enumerate(distances.T):
        steps = np.flatnonzero((trace > 1e-9) & (trace < 1e-2))
        if len(steps) >= 8:
            rates[sample] = np.exp(np.polyfit(steps, np.log(trace[steps]), 1)[0])
    return rates


def _draw(runs: list[_Run], seed: int) -> Figure:
    figure = new_figure(WIDTH, 4.8)
    panels = figure.subplots(2, 3)
    for row, run in zip(panels, runs, strict=True):
        _draw_paths(row[0], run, seed)
        _draw_distances(row[1], run)
        _draw_rates(row[2], run)
    return figure


def _draw_paths(axes: Axes, run: _Run, seed: int) -> None:
    """Iterates of one sample, of median ρ among the contractive, from starts in the box."""
    good = np.flatnonzero(run.solution.converged & (run.radius < 1))
    sample = int(good[np.argsort(run.radius[good])[len(good) // 2]]) if len(good) else 0
    rng = np.random.default_rng(seed)
    for index in range(6):
        state: Array = rng.uniform(-1, 1, (1, run.problem.num_states))  # type: ignore[assignment]
        path = [state[0]]
        for _ in range(25):
            state = run.problem.values(state, np.array([sample])).values
            path.append(state[0])
        points = np.array(path)
        axes.plot(points[:, 0], points[:, 1], ".-", color=CYCLE[index], linewidth=0.8, markersize=3)
    centre = run.solution.state[sample]
    axes.plot(centre[0], centre[1], "o", color=BLACK, markersize=9, fillstyle="none", label="q*")
    axes.set(xlim=(-1.05, 1.05), ylim=(-1.05, 1.05), aspect="equal")
    label(axes, f"{run.encoding}: 6 starts, ρ {run.radius[sample]:.2f}", "state q₀", "state q₁")
    legend(axes, loc="best")


def _draw_distances(axes: Axes, run: _Run) -> None:
    chosen = np.flatnonzero(run.solution.converged)[:25]
    names = {True: "ρ < 1", False: "ρ ≥ 1"}
    for sample in chosen:
        inside = bool(run.radius[sample] < 1)
        drawn = np.maximum(run.distances[:, sample], 1e-12)
        axes.plot(drawn, color=BLUE if inside else ORANGE, linewidth=0.6, alpha=0.7, label=names.pop(inside, ""))
    axes.set(yscale="log", ylim=(3e-13, 1e4), yticks=(1, 1e-4, 1e-8, 1e-12))
    label(axes, f"{run.encoding}: iterates from 0", "step", "distance to q* (L₂)")
    handles, texts = axes.get_legend_handles_labels()
    kept = [(handle, text) for handle, text in zip(handles, texts, strict=True) if text]
    legend(axes, handles=[handle for handle, _ in kept], labels=[text for _, text in kept], loc="upper right")


def _draw_rates(axes: Axes, run: _Run) -> None:
    axes.plot(run.radius, run.rate, ".", color=BLUE, markersize=4, alpha=0.6)
    axes.plot([0, 1], [0, 1], color=BLACK, linewidth=1, linestyle=":", label="rate = ρ(J)")
    axes.set(xlim=(0, 1.05), ylim=(0, 1.05), aspect="equal")
    label(axes, f"{run.encoding}: rate", "ρ(J) at q*", "observed rate")
    legend(axes, loc="upper left")
