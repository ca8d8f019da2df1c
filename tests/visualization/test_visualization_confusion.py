from __future__ import annotations

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.visualization import plot_confusion


def cells(figure):
    return {(round(t.get_position()[1]), round(t.get_position()[0])): t.get_text() for t in figure.axes[0].texts}


def test_cells_hold_counts_and_shares_of_the_true_class():
    figure = plot_confusion([0, 0, 0, 1, 2, 2], [0, 0, 1, 1, 0, 2], ("cat", "dog", "eel"))
    assert cells(figure) == {
        (0, 0): "2\n67 %",
        (0, 1): "1\n33 %",
        (0, 2): "0",
        (1, 0): "0",
        (1, 1): "1\n100 %",
        (1, 2): "0",
        (2, 0): "1\n50 %",
        (2, 1): "0",
        (2, 2): "1\n50 %",
    }
    axes = figure.axes[0]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["cat", "dog", "eel"]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["cat", "dog", "eel"]
    assert axes.get_title() == "accuracy 66.7 % of 6 samples"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class (rows add up to 100 %)")


def test_a_class_without_samples_leaves_its_row_empty(tmp_path):
    figure = plot_confusion([0, 0], [0, 2], (3, 6, 9))
    assert [cells(figure)[1, column] for column in range(3)] == ["0", "0", "0"]
    assert np.isfinite(figure.axes[0].images[0].get_array()).all()
    figure.savefig(tmp_path / "confusion.png", dpi=40)


def test_many_classes_give_way_to_colour_alone():
    labels = np.arange(30)
    assert len(cells(plot_confusion(labels[:15], labels[:15], range(15)))) == 225
    figure = plot_confusion(labels, labels, range(30))
    assert not cells(figure)
    assert figure.axes[1].get_ylabel() == "share of the true class"
    assert figure.get_figwidth() <= 7


def test_axes_of_the_caller_are_used():
    figure = Figure()
    axes = figure.add_subplot()
    assert plot_confusion([0, 1], [0, 1], ["0", "1", "b"], axes=axes) is figure
    assert axes.images


@pytest.mark.parametrize(
    ("labels", "predictions", "classes", "message"),
    [
        ([], [], "ab", "classes must be a sequence"),
        ([], [], ["a", "b"], "labels must be integers"),
        ([0, 1], [0], ["a", "b"], "differ in length: 2 and 1"),
        ([0, 2], [0, 1], ["a", "b"], r"labels\[1\] is 2, but 2 classes have labels 0 to 1"),
        ([0, 1], [0, -1], ["a", "b"], r"predictions\[1\] is -1"),
        ([0.0, np.nan], [0, 1], ["a", "b"], "labels must be integers"),
        ([[0, 1]], [0, 1], ["a", "b"], "labels must be integers"),
        ([0, 0], [0, 0], ["a"], "at least two classes"),
        ([0, 0], [0, 0], 4, "classes must be a sequence"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels, predictions, classes, message):
    with pytest.raises(InputError, match=message):
        plot_confusion(labels, predictions, classes)


def test_long_names_are_shortened_and_leave_the_matrix_its_size():
    names = ["a very long name of a class indeed", "versicolor", "virginica"]
    figures = [plot_confusion([0, 1, 2], [0, 1, 1], classes) for classes in (["a", "b", "c"], names)]
    for figure in figures:
        FigureCanvasAgg(figure).draw()
    short, long = (figure.axes[0].get_window_extent().width for figure in figures)
    assert long > 0.8 * short
    assert figures[1].axes[0].get_yticklabels()[0].get_text() == "a very long name of a c…"
