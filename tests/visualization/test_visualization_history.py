from __future__ import annotations

import numpy as np
import pytest

from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.training.config import TrainingConfig
from qiskit_qdeq.training.trainer import Trainer
from qiskit_qdeq.visualization import plot_history


def record(epoch, **changes):
    values = {
        "epoch": epoch,
        "loss": 1 / epoch,
        "penalty": 0.0,
        "accuracy": 1 - 0.5 / epoch,
        "residual": 1e-7 / epoch,
        "max_residual": 1e-6,
        "solver_steps": 3.5,
        "unconverged": 0.0,
        "gradient_norm": 0.3,
        "learning_rate": 0.1,
        "spectral_radius": 0.4,
        "seconds": 0.2,
        "valid_loss": 1.1 / epoch,
        "valid_accuracy": 1 - 0.6 / epoch,
        "valid_residual": 1e-8,
    }
    return values | changes


def direct(epoch):
    return record(epoch, residual=0.0, max_residual=0.0, solver_steps=0.0, unconverged=0.0, valid_residual=0.3)


def panel(figure, title):
    return next(axes for axes in figure.axes if axes.get_title().startswith(title))


def curves(axes):
    return {line.get_label(): (line.get_xdata(), line.get_ydata()) for line in axes.lines}


def test_every_quantity_has_a_panel_with_its_values():
    figure = plot_history([record(epoch) for epoch in (1, 2, 3)])
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == [
        "loss",
        "accuracy",
        "residual",
        "solver (all converged)",
        "spectral radius of ∂m/∂q",
        "gradient",
    ]
    epochs, loss = curves(panel(figure, "loss"))["train"]
    np.testing.assert_array_equal(epochs, [1, 2, 3])
    np.testing.assert_array_equal(loss, [1, 1 / 2, 1 / 3])
    np.testing.assert_allclose(curves(panel(figure, "loss"))["valid"][1], [1.1, 1.1 / 2, 1.1 / 3])
    np.testing.assert_allclose(curves(panel(figure, "accuracy"))["train"][1], [50, 75, 100 - 50 / 3])
    np.testing.assert_array_equal(curves(panel(figure, "residual"))["train, largest"][1], [1e-6] * 3)
    np.testing.assert_array_equal(curves(panel(figure, "solver"))["steps"][1], [3.5] * 3)
    assert panel(figure, "residual").get_yscale() == "log"


def test_every_panel_shows_the_same_epochs_and_the_lowest_names_them():
    figure = plot_history([record(epoch) for epoch in (1, 2, 3)])
    assert len({axes.get_xlim() for axes in figure.axes}) == 1
    assert [axes.get_xlabel() for axes in figure.axes] == [""] * 3 + ["epoch"] * 3
    assert all(axes.get_ylabel() for axes in figure.axes)


def test_a_direct_run_has_no_solver_panels():
    figure = plot_history([direct(1), direct(2)])
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["loss", "accuracy", "spectral radius of ∂m/∂q", "gradient"]


def test_direct_warm_up_epochs_are_gaps():
    figure = plot_history([direct(1), direct(2), record(3)])
    for title, name in (("residual", "train, mean"), ("residual", "valid, median"), ("solver", "steps")):
        np.testing.assert_array_equal(np.isnan(curves(panel(figure, title))[name][1]), [True, True, False])
    assert not np.isnan(curves(panel(figure, "loss"))["train"][1]).any()


def test_unconverged_samples_are_drawn_in_per_cent_on_an_axis_of_their_own():
    figure = plot_history([record(1, unconverged=0.25), record(2, unconverged=0.05)])
    share = next(axes for axes in figure.axes if axes.get_ylabel() == "unconverged (%)")
    np.testing.assert_allclose(share.lines[0].get_ydata(), [25, 5])


def test_quantities_nobody_recorded_are_left_out():
    figure = plot_history([{"epoch": 1, "loss": 0.5, "accuracy": 0.5}])
    assert [axes.get_title() for axes in figure.axes] == ["loss", "accuracy"]
    assert list(curves(figure.axes[0])) == ["train"]


def test_a_validation_residual_that_is_infinite_is_a_gap():
    figure = plot_history([record(1), record(2, valid_residual=np.inf)])
    shown = curves(panel(figure, "residual"))["valid, median"][1]
    assert shown[0] == 1e-8
    assert np.isnan(shown[1])


def test_the_best_epoch_is_marked_in_every_panel():
    history = [record(epoch) for epoch in (1, 2, 3)]
    for axes in plot_history(history, best_epoch=2).axes:
        assert [2, 2] in [list(line.get_xdata()) for line in axes.lines]
    for axes in plot_history(history, best_epoch=-1).axes:
        assert all(-1 not in line.get_xdata() for line in axes.lines)


def test_the_history_of_a_trainer_is_drawn_at_notebook_width(model, tmp_path):
    x = np.random.default_rng(0).normal(size=(12, 4)) + 2
    y = np.arange(12) % 2
    result = Trainer(model, TrainingConfig(epochs=2, batch_size=6), x, y, x, y).run()
    figure = plot_history(result.history, best_epoch=result.best_epoch)
    figure.savefig(tmp_path / "history.png", dpi=40)
    assert figure.get_figwidth() <= 7
    assert [record["loss"] for record in result.history] == list(curves(panel(figure, "loss"))["train"][1])


@pytest.mark.parametrize(
    ("history", "message"),
    [
        ([], "history is empty"),
        ({"epoch": 1}, "history must be a list"),
        ([3], r"history\[0\] must be a record"),
        ([record(1), {"epoch": 2, "loss": 1.0}], r"history\[1\] has no 'accuracy'"),
        ([record(1), {k: v for k, v in record(2).items() if k != "valid_loss"}], "has no 'valid_loss'"),
        ([record(1, loss=np.nan)], r"history\[0\]\['loss'\] must be finite"),
        ([record(1, loss="1.0")], r"history\[0\]\['loss'\] must be a number"),
        ([record(1, accuracy=True)], "must be a number"),
        ([record(2), record(1)], "rising epochs"),
    ],
)
def test_a_history_that_cannot_be_drawn_is_refused(history, message):
    with pytest.raises(InputError, match=message):
        plot_history(history)


def test_a_best_epoch_outside_the_history_is_refused():
    with pytest.raises(InputError, match="best_epoch must be among the epochs 1 to 1, got 7"):
        plot_history([record(1)], best_epoch=7)


@pytest.mark.parametrize(
    "history", [[record(1)], [*map(direct, range(1, 30)), record(30)]], ids=["one", "after 29 direct"]
)
def test_a_single_epoch_is_visible_in_every_panel(history):
    for axes in plot_history(history).axes:
        for line in axes.lines:
            if line.get_label().startswith("_"):
                continue
            known = np.isfinite(line.get_ydata())
            if known.sum() == 1:
                assert line.get_marker() == "o"
                assert np.array_equal(line.get_markevery(), known)


def test_unconverged_samples_and_steps_do_not_hide_each_other():
    axes = plot_history([record(1, unconverged=0.02)]).axes
    points = [a.transData.transform((1, a.lines[0].get_ydata()[0])) for a in axes if a.get_ylabel() in SOLVER]
    assert len(points) == 2
    assert abs(points[0][1] - points[1][1]) > 10


SOLVER = ("steps per sample", "unconverged (%)")
