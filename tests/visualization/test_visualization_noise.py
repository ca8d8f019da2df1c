from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure

from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.visualization import plot_noise


def band(axes, index=0):
    """Lower and upper edge of a curve's spread at every strength."""
    points = axes.collections[index].get_paths()[0].vertices
    strengths = np.unique(points[:, 0])
    return np.array([[points[points[:, 0] == x, 1].min(), points[points[:, 0] == x, 1].max()] for x in strengths]).T


def test_points_are_means_and_bands_one_standard_deviation():
    values = np.array([[97.0, 96.0, 95.0], [80.0, 90.0, 100.0]])
    axes = plot_noise([0.0, 0.1], {"model": values}, figure="samples right (%)").axes[0]
    np.testing.assert_allclose(axes.lines[0].get_ydata(), [96, 90])
    np.testing.assert_allclose(band(axes), [[95, 80], [97, 100]])
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("noise strength", "samples right (%)")


def test_a_curve_without_repetitions_has_no_band():
    axes = plot_noise([1, 2, 3], {"model": [0.9, 0.8, 0.7]}).axes[0]
    assert not axes.collections
    assert axes.get_legend() is None


def test_every_model_has_a_curve_of_its_own_look_in_the_legend():
    axes = plot_noise([1, 2], {"one": [0.9, 0.8], "other": [[0.7, 0.6], [0.5, 0.4]]}).axes[0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["one", "other"]
    assert len({(line.get_color(), line.get_marker()) for line in axes.lines}) == 2


@pytest.mark.parametrize(
    ("strengths", "values", "scales"),
    [
        ([128, 8192], [0.2, 0.02], ("log", "linear")),
        ([128, 8192], [0.4, 0.01], ("log", "log")),
        ([0.0, 1.0], [0.0, 0.5], ("linear", "linear")),
        ([0.0, 1.0], [1e-9, 0.5], ("linear", "log")),
    ],
)
def test_axes_are_logarithmic_where_values_are_positive_and_far_apart(strengths, values, scales):
    axes = plot_noise(strengths, {"model": values}).axes[0]
    assert (axes.get_xscale(), axes.get_yscale()) == scales


def test_on_a_logarithmic_axis_a_band_ends_at_the_smallest_repetition():
    axes = plot_noise([1, 2], {"model": [[1e-4, 1.0], [1e-4, 1e-4]]}).axes[0]
    np.testing.assert_allclose(band(axes)[0], [1e-4, 1e-4])


def test_it_draws_into_the_axes_of_the_caller(tmp_path):
    figure = Figure()
    left, right = figure.subplots(1, 2)
    assert plot_noise([1, 2], {"model": [1, 2]}, title="left", axes=left) is figure
    plot_noise([1, 2], {"model": [[1, 2], [3, 4]]}, title="right", axes=right)
    assert [axes.get_title() for axes in figure.axes] == ["left", "right"]
    figure.savefig(tmp_path / "noise.png", dpi=40)


@pytest.mark.parametrize(
    ("strengths", "curves", "message"),
    [
        ([], {"a": []}, "strengths must have shape"),
        ([2, 1], {"a": [1, 2]}, "strengths must rise"),
        ([1, 2], {}, "curves must be a mapping name -> values, not empty"),
        ([1, 2], [1, 2], "curves must be a mapping"),
        ([1, 2], {"a": [1, 2, 3]}, r"curves\['a'\] must have one row per strength, 2, got shape \(3,\)"),
        ([1, 2], {"a": [1, np.nan]}, r"curves\['a'\] must be finite"),
        ([1, 2], {"a": np.ones((2, 2, 2))}, r"curves\['a'\] must have shape"),
        ([1, 2], {"a": ["high", "low"]}, r"curves\['a'\] must be real numbers"),
    ],
)
def test_what_cannot_be_drawn_is_refused(strengths, curves, message):
    with pytest.raises(InputError, match=message):
        plot_noise(strengths, curves)
