"""Which classes are taken for which: the confusion matrix with counts and shares of each true class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.visualization._figure import SMALL, WIDTH, label, own_or_given

Array = np.ndarray[Any, np.dtype[Any]]

#: Classes up to which a cell has room for counts and percentages, and for counts.
_PERCENT, _COUNTS = 12, 20
#: Letters of a class name that are shown.
_NAME = 24


def plot_confusion(labels: Any, predictions: Any, classes: Sequence[Any], *, axes: Axes | None = None) -> Figure:
    """Draw the confusion matrix: rows are true classes, columns predicted ones, colours shares of the row.

    Args:
        labels: true labels 0..C-1 (N,).
        predictions: predicted labels 0..C-1 (N,), as `prediction.logits.argmax(axis=1)`.
        classes: the names of the C classes, as `DataSplit.classes`.
        axes: to draw into instead of a new figure.

    Raises:
        InputError: for labels that are not integers in 0..C-1, no samples, or lengths that differ.
    """
    from sklearn.metrics import confusion_matrix

    names = _class_names(classes)
    labels = _check_labels("labels", labels, len(names))
    predictions = _check_labels("predictions", predictions, len(names))
    if labels.shape != predictions.shape:
        raise InputError(f"labels and predictions differ in length: {len(labels)} and {len(predictions)}")
    counts = confusion_matrix(labels, predictions, labels=np.arange(len(names)))
    totals = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(totals, 1)
    side = float(np.clip(1.2 + 0.6 * len(names), 3.2, 6.3 if len(names) <= _PERCENT else WIDTH))
    turned = max(map(len, names)) * len(names) > 50
    # long names take their room from outside of the matrix
    long = 0.055 * max(0, max(map(len, names)) - 8)
    high = side if len(names) <= _PERCENT else 0.85 * side
    figure, axes = own_or_given(axes, side + long, high + long * turned)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if len(names) > _PERCENT:
        bar = figure.colorbar(image, ax=axes, shrink=0.8, ticks=[0, 0.5, 1], format=_percent)
        bar.ax.tick_params(labelsize=SMALL)
        bar.set_label("share of the true class", fontsize=SMALL)
    _write_cells(axes, counts, shares)
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks(range(len(names)), names)
    if turned:
        axes.tick_params("x", labelrotation=90)
    right = np.trace(counts) / len(labels)
    title = f"accuracy {100 * right:.1f} % of {len(labels)} samples"
    label(axes, title, "predicted class", "true class (rows add up to 100 %)")
    return figure


def _class_names(classes: Any) -> list[str]:
    if isinstance(classes, str) or not np.iterable(classes):
        raise InputError(f"classes must be a sequence of class names, got {classes!r}")
    names = [_shortened(str(name)) for name in classes]
    if len(names) < 2:
        raise InputError(f"classes must name at least two classes, got {names}")
    return names


def _shortened(name: str) -> str:
    return name if len(name) <= _NAME else f"{name[: _NAME - 1]}…"


def _check_labels(name: str, values: Any, num_classes: int) -> Array:
    array = np.asarray(values)
    if array.ndim != 1 or array.dtype.kind not in "iu" or not array.size:
        raise InputError(f"{name} must be integers of shape (samples,), not empty, got {array.dtype} {array.shape}")
    if array.min() < 0 or array.max() >= num_classes:
        row = int(np.flatnonzero((array < 0) | (array >= num_classes))[0])
        raise InputError(f"{name}[{row}] is {array[row]}, but {num_classes} classes have labels 0 to {num_classes - 1}")
    return array


def _percent(share: Any, _: Any = None) -> str:
    return f"{100 * share:.0f} %"


def _write_cells(axes: Axes, counts: Array, shares: Array) -> None:
    size = len(counts)
    if size > _COUNTS:
        return
    for row, column in np.ndindex(counts.shape):
        text = f"{counts[row, column]}"
        if counts[row, column] and size <= _PERCENT:
            text += f"\n{_percent(shares[row, column])}"
        # zero cells are most of a good matrix: pale, so that the errors stand out
        color = "white" if shares[row, column] > 0.5 else "black" if counts[row, column] else "#AAAAAA"
        axes.text(column, row, text, ha="center", va="center", fontsize=SMALL, color=color)
