from __future__ import annotations

import pytest

from qiskit_qdeq.evaluation.protocol import Cost
from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.training.cost_estimate import CostEstimate
from qiskit_qdeq.visualization import plot_cost


def estimate(step=None, *, validation=None, test=None, exact=True, steps=4):
    """Two epochs of half the steps."""
    step = step or Cost(100, 100_000, 2, 4, 30.0)
    epoch = (steps // 2) * step
    validations = () if validation is None else (validation, validation)
    return CostEstimate(steps, 16, step, step, (epoch, epoch), validations, test or Cost(), exact)


def bars(figure):
    """Panel title -> name of a bar -> (its end, the text beside it)."""
    names = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    return {
        axes.get_title(): {
            name: (patch.get_x() + patch.get_width(), text.get_text().strip())
            for name, patch, text in zip(names, axes.patches, axes.texts, strict=True)
        }
        for axes in figure.axes
    }


def test_the_parts_of_a_run_add_up_to_the_whole():
    validation, test = Cost(10, 10_000, 2, 2, 7.0), Cost(50, 50_000, 2, 2, 20.0)
    drawn = bars(plot_cost(estimate(validation=validation, test=test)))
    parts = ["training, 4 steps", "validation", "evaluation at the end"]
    assert list(drawn) == ["circuits", "shots", "QPU time"]
    assert all(list(panel) == [*parts, "whole run"] for panel in drawn.values())
    assert [drawn["circuits"][part][0] for part in parts] == [400, 20, 50]
    assert [drawn["QPU time"][part][0] for part in parts] == [120, 14, 20]
    for panel in drawn.values():
        assert panel["whole run"][0] == pytest.approx(sum(panel[part][0] for part in parts))


def test_of_several_estimates_the_bars_are_whole_runs():
    cheap, dear = estimate(), estimate(Cost(300, 300_000, 9, 9, 90.0), exact=False)
    drawn = bars(plot_cost({"probe": cheap, "broyden": dear}))
    assert drawn["circuits"] == {"probe": (400, "400"), "broyden": (1200, "≤ 1,200")}
    assert drawn["shots"] == {"probe": (400_000, "400k"), "broyden": (1_200_000, "≤ 1.2M")}


def test_bars_far_apart_get_a_logarithmic_axis_and_end_at_their_values_all_the_same():
    figure = plot_cost({"few": estimate(Cost(1, 100, 1, 1)), "many": estimate(Cost(1000, 150, 1, 1))})
    assert [axes.get_xscale() for axes in figure.axes] == ["log", "linear"]
    assert bars(figure)["circuits"] == {"few": (pytest.approx(4), "4"), "many": (pytest.approx(4000), "4,000")}


def test_a_part_without_shots_has_an_empty_bar_on_a_logarithmic_axis():
    costs = {"exact values": Cost(8, 0, 1, 1), "few": Cost(8, 10, 1, 1), "many": Cost(8, 10_000, 1, 1)}
    drawn = bars(plot_cost({name: estimate(cost) for name, cost in costs.items()}))
    assert drawn["shots"]["exact values"][1] == "0"
    assert drawn["shots"]["many"][0] == pytest.approx(40_000)


def test_without_durations_there_is_no_panel_of_qpu_time():
    figure = plot_cost(estimate(Cost(10, 1000, 1, 1)))
    assert [axes.get_title() for axes in figure.axes] == ["circuits", "shots"]


@pytest.mark.parametrize(("seconds", "marked"), [(10.0, False), (40.0, True), (400.0, True)])
def test_the_open_plan_is_marked_where_bars_come_near_it(seconds, marked):
    figure = plot_cost(estimate(Cost(10, 1000, 1, 1, seconds)))
    assert [list(line.get_xdata()) for line in figure.axes[-1].lines] == [[600, 600]] * marked
    assert figure.axes[-1].get_xlim()[1] > 600 or not marked


def test_an_evaluation_alone_is_one_bar():
    alone = CostEstimate(0, 0, Cost(), Cost(), (), (), Cost(50, 5000, 1, 1), True)
    assert bars(plot_cost(alone))["circuits"] == {"evaluation": (50, "50")}


def test_the_picture_is_as_wide_as_a_notebook_and_can_be_saved(tmp_path):
    figure = plot_cost(estimate(validation=Cost(10, 10_000, 2, 2, 7.0)))
    figure.savefig(tmp_path / "cost.png", dpi=40)
    assert figure.get_figwidth() <= 7


@pytest.mark.parametrize(
    ("estimates", "message"),
    [
        ({}, "a mapping name -> CostEstimate, not empty"),
        ([estimate()], "must be a CostEstimate or a mapping"),
        ({"probe": Cost(1, 1, 1, 1)}, r"estimates\['probe'\] must be a CostEstimate, got Cost"),
        (estimate(Cost()), "nothing is executed"),
        ({"a": estimate(Cost()), "b": estimate(Cost())}, "nothing is executed"),
    ],
)
def test_estimates_that_cannot_be_drawn_are_refused(estimates, message):
    with pytest.raises(InputError, match=message):
        plot_cost(estimates)
