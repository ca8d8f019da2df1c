"""Do fixed points exist? Searched over random weights and inputs, beside the conditions that would guarantee them.

    q = m(x + P q; θ),   q in [-1, 1]^K,   z = P q,   ‖z‖ ≤ s n

Expectation values stay in the box, so a continuous m has a fixed point there (Brouwer). Angle encoding is always continuous.
Amplitude encoding is wherever x + P q ≠ 0: sufficient is ‖x‖ > n (arXiv:2410.23940), and already that x is not of the
form -P q, which holds for all inputs but a set of measure zero. A contraction follows from ‖x‖ > 3n, since
‖Df‖ ≤ 2n / ‖z + x‖.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from qiskit_qdeq.data import DataSplit
from qiskit_qdeq.equilibrium import contraction, solve
from qiskit_qdeq.equilibrium.solvers import Newton
from qiskit_qdeq.model import QDEQModel
from qiskit_qdeq.studies.theory.finding import ENCODINGS, Array, Finding, Setting, number, paper_model, share
from qiskit_qdeq.visualization._figure import BLACK, CYCLE, GREY, WIDTH, label, legend, new_figure

#: Inputs x = P c with c in the box: amplitude encoding is undefined at q = -c.
_SINGULAR = "x = P c"
#: What is left of Okabe and Ito's colours.
_YELLOW = "#F0E442"
#: Lengths below are zero: the root of a rounding error.
_ZERO = 1e-6
#: Residual at which a fixed point counts as found.
FOUND = 1e-8


@dataclass(frozen=True)
class _Search:
    """Fixed points of one encoding for many weights and the same inputs; arrays over (weights, samples), flat."""

    encoding: str
    num_qubits: int
    source: str
    equilibria: Array
    radius: Array
    length: Array
    nearest: Array | None
    lipschitz: Array
    bound_share: Array
    norms: Array
    slopes: Array

    def row(self) -> tuple[Any, ...]:
        """The table's row."""
        n, amplitude = self.num_qubits, self.nearest is not None
        return (
            self.encoding,
            n,
            self.source,
            len(self.equilibria),
            share(self.equilibria > 0),
            share(self.equilibria > 1),
            share((self.equilibria % 2 == 0) & (self.equilibria > 0)),
            int(self.equilibria.max()),
            share(self.length > n) if amplitude else None,
            share(self.nearest > _ZERO) if self.nearest is not None else 100.0,
            share(self.length > 3 * n) if amplitude else None,
            share(self.lipschitz < 1),
            share(self.radius < 1),
            float(self.bound_share.max()),
        )


def check(setting: Setting) -> Finding:
    """Search fixed points from many starts and compare with what the conditions promise."""
    searches = []
    for encoding in ENCODINGS:
        model = paper_model(encoding)
        for source in ("normal", setting.data, *((_SINGULAR,) if encoding == "amplitude" else ())):
            inputs = _inputs(setting, model, 4, source, setting.size(40, 10))
            searches.append(_search(setting, model, encoding, source, inputs, setting.size(250, 8), 12))
        model = paper_model(encoding, 10)
        for source in ("normal", *(() if setting.data == "digits" else (setting.data,))):
            inputs = _inputs(setting, model, 10, source, setting.size(10, 3))
            searches.append(_search(setting, model, encoding, source, inputs, setting.size(20, 1), setting.size(12, 1)))
    whole = [conditions(setting.split(n), n) for n in ((4,) if setting.data == "digits" else (4, 10))]
    return Finding(
        f"fixed points over random models (uniform weights, state_scale 1): residual < {FOUND:g} from 0 and random starts",
        (
            "encoding",
            "n",
            "inputs",
            "maps",
            "found %",
            "several %",
            "even %",
            "most",
            "‖x‖>n %",
            "continuous %",
            "‖x‖>3n %",
            "Lip<1 %",
            "ρ<1 %",
            "largest ‖J‖/bound",
        ),
        [search.row() for search in searches],
        (
            f"'{_SINGULAR}': inputs chosen so that x + P q = 0 for a q in the box, where amplitude encoding is undefined.",
            "'several': more than one fixed point; where the map is continuous their number is almost always odd, so that "
            "'even' says how often one was missed.",
            "'continuous': the map is continuous on all of [-1, 1]^K, which guarantees a fixed point; ‖x‖ > n and ‖x‖ > 3n "
            "are the sufficient conditions for existence and contraction with amplitude encoding.",
            "'Lip<1': the bound over the box is below 1; 'ρ<1': spectral radius of J at the fixed point reached from 0.",
            "'largest ‖J‖/bound': over random states, ‖∂m/∂q‖₂ against 2n/‖x + P q‖ (amplitude) or against the bound over "
            "the box (angle).",
            *map(_sentence, whole),
        ),
        _draw(searches),
        {"whole data set": whole},
    )


def conditions(split: DataSplit, num_qubits: int) -> dict[str, Any]:
    """How many samples of all parts of a data set meet the conditions of amplitude encoding."""
    model = paper_model("amplitude", num_qubits)
    inputs = model.prepare(np.vstack([split.x_train, split.x_valid, split.x_test]))
    lipschitz = model.lipschitz_bound(inputs)
    length = np.linalg.norm(inputs, axis=1)
    return {
        "data": split.name,
        "n": num_qubits,
        "samples": len(inputs),
        "longer than n %": share(length > num_qubits),
        "longer than 3n %": share(length > 3 * num_qubits),
        "contraction proven %": share(lipschitz < 1),
        "shortest length": float(length.min()),
        "shortest x + P q": float((2 * num_qubits / lipschitz).min()),
    }


def _sentence(found: dict[str, Any]) -> str:
    return (
        f"All {found['samples']} samples of {found['data']}, n = {found['n']}: ‖x‖ > n for "
        f"{number(found['longer than n %'])} %, ‖x‖ > 3n for {number(found['longer than 3n %'])} %, Lip < 1 for "
        f"{number(found['contraction proven %'])} %; shortest ‖x‖ {found['shortest length']:.2f}, shortest ‖x + P q‖ "
        f"{found['shortest x + P q']:.2f}."
    )


def _inputs(setting: Setting, model: QDEQModel, num_qubits: int, source: str, count: int) -> Array:
    if source == "normal":
        drawn = np.random.default_rng([setting.seed, num_qubits]).standard_normal((count, num_qubits**2))
    elif source == _SINGULAR:
        drawn = np.random.default_rng([setting.seed, 1]).uniform(-1, 1, (count, num_qubits)) @ model.injection.T
    else:
        drawn = setting.split(num_qubits).x_test[:count]
    return model.prepare(drawn)


def _search(
    setting: Setting, model: QDEQModel, encoding: str, source: str, inputs: Array, draws: int, starts: int
) -> _Search:
    # a stream of its own: the inputs' would make weights of them
    rng = np.random.default_rng([setting.seed, 2, model.num_states])
    lipschitz = model.lipschitz_bound(inputs)
    amplitude = encoding == "amplitude"
    solver = Newton(tol=FOUND)
    parts: list[list[Array]] = [[], [], [], [], []]
    for _ in range(draws):
        problem = model.map(rng.uniform(-np.pi, np.pi, model.num_weights), inputs)
        found = solve(problem, solver, on_failure="accept")
        report = contraction(problem, found, lipschitz, starts=starts, solver=solver, seed=rng)
        state: Array = rng.uniform(-1, 1, found.state.shape)  # type: ignore[assignment]
        slopes = np.linalg.norm(problem.at(state).jacobian, ord=2, axis=(1, 2))
        norms = np.linalg.norm(inputs + state @ model.injection.T, axis=1)
        bound = 2 * model.num_states / norms if amplitude else lipschitz
        for part, values in zip(
            parts, (report.equilibria, report.spectral_radius, slopes / bound, norms, slopes), strict=True
        ):
            part.append(values)
    equilibria, radius, bound_share, norms, slopes = (np.concatenate(part) for part in parts)
    return _Search(
        encoding,
        model.template.num_qubits,
        source,
        equilibria,
        radius,
        np.tile(np.linalg.norm(inputs, axis=1), draws),
        # the bound over the box is 2n over the shortest x + P q in it
        np.tile(2 * model.num_states / lipschitz, draws) if amplitude else None,
        np.tile(lipschitz, draws),
        bound_share,
        norms,
        slopes,
    )


def _draw(searches: list[_Search]) -> Figure:
    figure = new_figure(WIDTH, 5.4)
    panels = figure.subplots(2, 2)
    small = [search for search in searches if search.num_qubits == 4]
    _draw_counts(panels[0, 0], searches)
    _draw_lengths(panels[0, 1], [one for one in small if one.encoding == "amplitude" and one.source != _SINGULAR])
    for axes, encoding in zip(panels[1], ENCODINGS, strict=True):
        _draw_bound(axes, [one for one in small if one.encoding == encoding and one.source != _SINGULAR])
    return figure


def _draw_counts(axes: Axes, searches: list[_Search]) -> None:
    width = 0.8 / len(searches)
    colors = (*CYCLE, GREY, _YELLOW)
    for position, search in enumerate(searches):
        shares = [share(search.equilibria == count) for count in range(5)] + [share(search.equilibria > 4)]
        offset = (position - (len(searches) - 1) / 2) * width
        name = f"{search.encoding}, {search.num_qubits}, {search.source}"
        axes.bar(np.arange(6) + offset, shares, width, color=colors[position], label=name)
    axes.set_xticks(range(6), ["0", "1", "2", "3", "4", "≥ 5"])
    # rare cases are the point: a linear axis would hide them; the room above is the legend's
    axes.set(yscale="log", ylim=(0.005, 3e5), yticks=(0.01, 0.1, 1, 10, 100))
    axes.yaxis.set_major_formatter("{x:g}")
    label(axes, "fixed points found per map", "fixed points", "maps (%)")
    legend(axes, loc="upper left", ncols=2, fontsize=6, title="encoding, n, inputs", title_fontsize=6)


def _draw_lengths(axes: Axes, searches: list[_Search]) -> None:
    for position, search in enumerate(searches):
        assert search.nearest is not None
        for values, style, name in (
            (search.length, "-", "‖x‖"),
            (search.nearest, "--", "min over the box ‖x + P q‖"),
        ):
            ordered = np.sort(np.unique(values))
            heights = 100 * np.arange(1, len(ordered) + 1) / len(ordered)
            axes.step(ordered, heights, style, where="post", color=CYCLE[position], label=f"{name}, {search.source}")
    n = searches[0].num_qubits
    for limit, text in ((n, "n"), (3 * n, "3n")):
        axes.axvline(limit, color=BLACK, linewidth=1, linestyle=":")
        axes.annotate(text, (limit, 2), textcoords="offset points", xytext=(3, 0), fontsize=8)
    axes.set(xlim=(0, 3.2 * n), ylim=(0, 150), yticks=range(0, 101, 20))
    label(axes, "amplitude encoding: lengths of inputs", "length (no unit)", "samples at or below (%)")
    legend(axes, loc="upper left")


def _draw_bound(axes: Axes, searches: list[_Search]) -> None:
    encoding = searches[0].encoding
    for position, search in enumerate(searches):
        look: dict[str, Any] = {"color": CYCLE[position], "markersize": 2.5, "markeredgewidth": 0, "alpha": 0.7}
        chosen = slice(None, None, max(1, len(search.norms) // 800))
        axes.plot(search.norms[chosen], search.slopes[chosen], ".", label=search.source, **look)
    norms = np.concatenate([search.norms for search in searches])
    grid = np.geomspace(norms.min(), norms.max(), 100)
    if encoding == "amplitude":
        axes.plot(grid, 2 * searches[0].num_qubits / grid, color=BLACK, label="bound 2n / ‖x + P q‖")
    else:
        bound = float(searches[0].lipschitz[0])
        axes.plot(grid, np.full(100, bound), color=BLACK, label=f"bound {bound:g}")
    axes.set(xscale="log", yscale="log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())
    label(axes, f"{encoding} encoding: ‖J‖₂ at random states", "‖x + P q‖ (no unit)", "‖∂m/∂q‖₂")
    legend(axes, loc="lower left", markerscale=3)
