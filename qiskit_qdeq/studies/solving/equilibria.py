"""Several equilibria of a sample, sought from many random starts, and whether another one changes the predicted class.

Two solved states (Newton to 1e-10) are two equilibria if they are further apart than `contraction.DISTINCT`, 1e-3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qiskit_qdeq.equilibrium.contraction import DISTINCT, contraction
from qiskit_qdeq.equilibrium.driver import solve
from qiskit_qdeq.equilibrium.solvers import Newton
from qiskit_qdeq.evaluation.protocol import EquilibriumMap
from qiskit_qdeq.model import QDEQModel
from qiskit_qdeq.studies.solving.places import Place

Array = np.ndarray[Any, np.dtype[Any]]

_TIGHT = Newton(tol=1e-10, max_steps=100)
#: Bins of ρ(J): a tenth each, the last one open.
BINS = np.append(np.arange(0, 3.01, 0.1), np.inf)


@dataclass(frozen=True)
class Equilibria:
    """What was found for B samples.

    Attributes:
        states: of every sample the distinct equilibria, that found from zeros first (if it was).
        from_zeros: whether one was found from zeros (B,).
        returned: share of the random starts that were solved and led to the equilibrium found from zeros (B,).
        solved: share of the random starts that were solved.
    """

    states: list[list[Array]]
    from_zeros: Array
    returned: Array
    solved: float

    @property
    def counts(self) -> Array:
        """Equilibria found per sample (B,)."""
        return np.array([len(states) for states in self.states])


def equilibria(problem: EquilibriumMap, starts: int, seed: int) -> Equilibria:
    """Solve from zeros and from `starts` uniform draws of [-1, 1]^K."""
    first = solve(problem, _TIGHT, on_failure="accept")
    states = [[state] if ok else [] for state, ok in zip(first.state, first.converged, strict=True)]
    rng = np.random.default_rng(seed)
    solved, returned = np.zeros((2, problem.batch))
    for _ in range(starts):
        start: Array = rng.uniform(-1, 1, first.state.shape)  # type: ignore[assignment]
        found = solve(problem, _TIGHT, start, on_failure="accept")
        solved += found.converged
        returned += found.converged & (np.linalg.norm(found.state - first.state, axis=1) <= DISTINCT)
        for row in np.flatnonzero(found.converged):
            if all(np.linalg.norm(found.state[row] - known) > DISTINCT for known in states[row]):
                states[row].append(found.state[row])
    share = returned / np.maximum(solved, 1)
    return Equilibria(states, first.converged, share, float(solved.mean()) / max(starts, 1))


def classes_differ(model: QDEQModel, parameters: Array, problem: EquilibriumMap, found: Equilibria) -> Array:
    """Of which samples another equilibrium has another class than the first (B,)."""
    _, matrix, bias = model.split(parameters)

    def classes(position: int) -> Array:
        none = np.zeros(problem.num_states)
        state = [states[min(position, len(states) - 1)] if states else none for states in found.states]
        features = problem.at(np.array(state)).features
        result: Array = (model.readout.activate(features) @ matrix.T + bias).argmax(axis=1)
        return result

    first = classes(0)
    differ = np.zeros(problem.batch, dtype=bool)
    for position in range(1, int(found.counts.max(initial=1))):
        differ |= classes(position) != first
    return differ


def maps_task(arguments: Mapping[str, Any], data_dir: str | None) -> dict[str, Any]:
    """Contraction of the maps of all test samples over a training, and their equilibria before and after it."""
    place = Place.of(arguments["train"], data_dir)
    stages = stages_of(arguments["epochs"])
    parameters = place.snapshots(stages)
    inputs = place.model.prepare(place.split.x_test)
    found = []
    for epoch in stages:
        problem = place.model.map(place.model.split(parameters[epoch])[0], inputs)
        solution = solve(problem, _TIGHT, on_failure="accept")
        report = contraction(problem, solution, place.model.lipschitz_bound(inputs))
        row = {
            "epoch": epoch,
            "accuracy": place.accuracy(parameters[epoch]),
            "unsolved": float(np.mean(~solution.converged)),
            "radius_quantiles": _quantiles(report.spectral_radius),
            "radius_above_1": float(np.mean(report.spectral_radius > 1)),
            "radius_histogram": np.histogram(report.spectral_radius, BINS)[0].tolist(),
            "norm_quantiles": _quantiles(report.singular_value),
            "norm_above_1": float(np.mean(report.singular_value > 1)),
        }
        if epoch in (0, stages[-1]):
            row |= _sought(place.model, parameters[epoch], problem, arguments["starts"], arguments["train"]["seed"])
        found.append(row)
    return {"samples": len(inputs), "stages": found}


def stages_of(epochs: int) -> tuple[int, ...]:
    """Epochs after which the map is looked at: before, after one, a quarter, a half and all of them."""
    return tuple(sorted({0, 1, max(1, epochs // 4), max(1, epochs // 2), epochs}))


def _sought(model: QDEQModel, parameters: Array, problem: EquilibriumMap, starts: int, seed: int) -> dict[str, Any]:
    found = equilibria(problem, starts, seed)
    several = found.counts > 1
    differ = classes_differ(model, parameters, problem, found)
    return {
        "starts": starts,
        "counts": np.bincount(np.minimum(found.counts, 4), minlength=5).tolist(),
        "largest_count": int(found.counts.max(initial=0)),
        "several": float(np.mean(several)),
        "class_differs": float(np.mean(differ)),
        "class_differs_of_several": float(np.mean(differ[several])) if several.any() else None,
        "returned": float(np.mean(found.returned[found.from_zeros])) if found.from_zeros.any() else None,
        "starts_solved": found.solved,
    }


def _quantiles(values: Array) -> list[float]:
    chosen: Sequence[float] = np.round(np.quantile(values, (0.05, 0.25, 0.5, 0.75, 0.95)), 5).tolist()
    return list(chosen)
