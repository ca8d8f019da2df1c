"""What runs will cost, as bars: circuits, shots and QPU seconds, of the parts of one run or of several runs side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullFormatter

from qiskit_qdeq.evaluation.protocol import Cost
from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.training.cost_estimate import OPEN_PLAN_SECONDS, CostEstimate
from qiskit_qdeq.visualization._figure import BLACK, BLUE, SKY, SMALL, WIDTH, label, legend_below, new_figure

Array = np.ndarray[Any, np.dtype[Any]]

#: Field of a `Cost` -> title and axis of its panel.
_PANELS = {
    "circuits": ("circuits", "circuits executed"),
    "shots": ("shots", "executions"),
    "qpu_seconds": ("QPU time", "seconds by IBM's formula"),
}
#: Largest over smallest bar from which the axis is logarithmic.
_LOG_FROM = 20.0


def plot_cost(estimates: Mapping[str, CostEstimate] | CostEstimate) -> Figure:
    """Draw circuits, shots and QPU seconds as bars, a panel each.

    Of one estimate the bars are the parts of the run (all training steps, all validations, the evaluation at the end) and,
    darker, the whole run; of several the whole runs. An estimate that is an upper bound has a "≤" before its figures. Where
    bars differ by more than a factor of 20 the axis is logarithmic. The panel of QPU seconds is left out where no device
    tells its durations; its dashed line is IBM's Open Plan, where the bars come near it.

    Args:
        estimates: from `estimate_cost`, or several of them under the names of their bars.

    Raises:
        InputError: if there is no estimate, or all of them say that nothing is executed.

    >>> from qiskit_qdeq import Execution, TrainingConfig, estimate_cost, executed, model_config, solver
    >>> model = model_config("default", 16, 4, 4).build()
    >>> config = TrainingConfig(solver=solver("probe"), epochs=5, batch_size=16)
    >>> with executed(model, Execution("aer", shots=1024)) as measured:
    ...     figure = plot_cost(estimate_cost(measured, config, train_samples=40, valid_samples=20))
    >>> [axes.get_title() for axes in figure.axes]
    ['circuits', 'shots']
    """
    bars = list(_bars(estimates))
    costs = [cost for _, cost, _, _ in bars]
    if not any(cost.jobs for cost in costs):
        raise InputError(
            "estimates say that nothing is executed, so there is nothing to draw: estimate a measured model"
        )
    shown = [name for name in _PANELS if any(getattr(cost, name) for cost in costs)]
    figure = new_figure(WIDTH, 0.9 + 0.28 * len(bars))
    panels = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    for axes, name in zip(panels, shown, strict=True):
        _draw(axes, bars, np.array([getattr(cost, name) for cost in costs], dtype=float))
        label(axes, *_PANELS[name], "")
    panels[0].set_yticks(range(len(bars)), [name for name, *_ in bars], fontsize=SMALL)
    panels[0].invert_yaxis()
    for axes in panels[1:]:
        axes.tick_params(labelleft=False)
    if shown[-1] == "qpu_seconds" and _open_plan(panels[-1], max(cost.qpu_seconds for cost in costs)):
        legend_below(figure)
    return figure


def _bars(estimates: Any) -> Iterator[tuple[str, Cost, bool, bool]]:
    """Name, cost, whether it is exact, and whether it is a whole run."""
    if isinstance(estimates, CostEstimate):
        run = estimates
        parts = [
            (f"training, {run.steps:,} step{'s' * (run.steps > 1)}", sum(run.epochs, Cost())),
            ("validation", sum(run.validations, Cost())),
            ("evaluation at the end" if run.steps else "evaluation", run.test),
        ]
        present = [(name, cost) for name, cost in parts if cost.jobs]
        for name, cost in present:
            yield name, cost, run.exact, False
        if len(present) != 1:
            yield "whole run", run.total, run.exact, True
        return
    if not isinstance(estimates, Mapping) or not estimates:
        raise InputError(
            f"estimates must be a CostEstimate or a mapping name -> CostEstimate, not empty, got {estimates!r}"
        )
    for name, run in estimates.items():
        if not isinstance(run, CostEstimate):
            raise InputError(f"estimates[{name!r}] must be a CostEstimate, got {type(run).__name__}")
        yield str(name), run.total, run.exact, True


def _draw(axes: Axes, bars: list[tuple[str, Cost, bool, bool]], values: Array) -> None:
    positive = values[values > 0]
    logarithmic = positive.max() > _LOG_FROM * positive.min()
    # a log axis has no zero: bars begin at the power of ten below the smallest of them
    start = 10.0 ** np.floor(np.log10(positive.min() / 2)) if logarithmic else 0.0
    for place, (value, (_, _, exact, whole)) in enumerate(zip(values, bars, strict=True)):
        axes.barh(place, max(value - start, 0), left=start, height=0.7, color=BLUE if whole else SKY)
        text = f" {'' if exact or not value else '≤ '}{_shown(value)}"
        axes.text(max(value, start), place, text, va="center", ha="left", fontsize=SMALL)
    # room for the figures at the ends of the bars
    top = positive.max()
    if logarithmic:
        axes.set_xscale("log")
        axes.set_xlim(start, top * (top / start) ** 0.55)
        axes.xaxis.set_major_locator(LogLocator(numticks=5))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_xlim(0, 1.5 * top)
        axes.xaxis.set_major_locator(MaxNLocator(3))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _shown(value: float) -> str:
    """A figure with three digits, and k or M for thousands and millions.

    >>> _shown(4890624.0), _shown(1194.0), _shown(12.4), _shown(0.0)
    ('4.89M', '1,194', '12.4', '0')
    """
    if value >= 1e6:
        return f"{value / 1e6:,.3g}M"
    if value >= 1e4:
        return f"{value / 1e3:,.3g}k"
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def _open_plan(axes: Axes, largest: float) -> bool:
    """Mark the free allowance, unless all bars are far below it."""
    if largest < OPEN_PLAN_SECONDS / 10:
        return False
    name = f"IBM's Open Plan: {OPEN_PLAN_SECONDS} s in 28 days"
    axes.axvline(OPEN_PLAN_SECONDS, color=BLACK, linewidth=0.9, linestyle="--", label=name)
    low, high = axes.get_xlim()
    axes.set_xlim(low, max(high, 1.1 * OPEN_PLAN_SECONDS))
    return True
