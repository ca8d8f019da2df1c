"""What all pictures share: figures made without pyplot, Okabe and Ito's colours, text sizes, checks.

pyplot keeps every figure it makes alive and asks for a display backend. A `Figure` made directly does
neither: it is freed with its last reference and drawn when it is saved or shown.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.legend import Legend

from qiskit_qdeq.circuits._checks import check_reals
from qiskit_qdeq.exceptions import InputError

Array = np.ndarray[Any, np.dtype[Any]]

#: Told apart with every common colour vision deficiency (M. Okabe, K. Ito, Color Universal Design, 2008).
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
BLUE, VERMILLION, PURPLE, GREY = "#0072B2", "#D55E00", "#CC79A7", "#999999"
CYCLE = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, BLACK)

#: Width of a notebook cell, inches.
WIDTH = 7.0
TITLE, TEXT, SMALL = 9, 8, 7

RESIDUAL = "residual ‖m(q) − q‖₂"


class NotebookFigure(Figure):
    """A Figure that a notebook shows as an image even where pyplot was never imported."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue()


def new_figure(width: float, height: float) -> NotebookFigure:
    """An empty figure, inches, whose panels are laid out without overlaps."""
    layout = ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.06)
    return NotebookFigure(figsize=(width, height), layout=layout)


def own_or_given(axes: Any, width: float, height: float) -> tuple[Figure, Axes]:
    """The figure and axes to draw into: the caller's, or new ones.

    Raises:
        InputError: if `axes` is neither None nor a matplotlib Axes.
    """
    if axes is None:
        figure = new_figure(width, height)
        return figure, figure.add_subplot()
    if not isinstance(axes, Axes):
        raise InputError(f"axes must be a matplotlib Axes or None, got {type(axes).__name__}")
    # axes may stand in a SubFigure, whose own `figure` is the figure that can be saved
    return axes.figure.figure, axes


def label(axes: Axes, title: str, x: str, y: str) -> None:
    """Title and axis labels in the sizes of all pictures."""
    axes.set_title(title, fontsize=TITLE)
    axes.set_xlabel(x, fontsize=TEXT)
    axes.set_ylabel(y, fontsize=TEXT)
    axes.tick_params(which="both", labelsize=SMALL)


def legend(axes: Axes, **options: Any) -> Legend:
    """A legend small enough for a panel, see-through so that it hides no curve."""
    look = {"fontsize": SMALL, "framealpha": 0.6, "edgecolor": "none", "borderpad": 0.2, "labelspacing": 0.25}
    return axes.legend(**{**look, **options})


def legend_below(figure: Figure | SubFigure, title: str | None = None) -> None:
    """One legend under all panels of a figure or of a part of one, with every name once."""
    handles: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(name, handle)
    handles = dict(sorted(handles.items(), key=lambda item: item[1].get_zorder()))
    look: dict[str, Any] = {"ncols": 4, "fontsize": SMALL, "title_fontsize": SMALL, "frameon": False}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", title=title, **look)


def check_finite(name: str, values: Any, shape: tuple[str, ...]) -> Array:
    """`values` as float64 with one axis per entry of `shape`, none of them empty, and all entries finite.

    Raises:
        InputError: naming the argument `name`.
    """
    array = check_reals(name, values)
    wanted = f"({', '.join(shape)}{',' if len(shape) == 1 else ''})"
    if array.ndim != len(shape) or not array.size:
        raise InputError(f"{name} must have shape {wanted}, not empty, got {array.shape}")
    if not np.isfinite(array).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise InputError(f"{name} must be finite, got {array[where]} at index {where}")
    return array
