"""The circuit of a template, drawn by Qiskit and folded to the width of a notebook."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from qiskit import QuantumCircuit
from qiskit.circuit import Gate, Parameter
from qiskit.exceptions import MissingOptionalLibraryError

from qiskit_qdeq.circuits import CircuitTemplate
from qiskit_qdeq.circuits._checks import check_count
from qiskit_qdeq.exceptions import InputError, MissingExtraError
from qiskit_qdeq.visualization._figure import WIDTH, NotebookFigure

PARTS = ("boxed", "template", "encoder", "ansatz")

_BOX = "S(φ)"
_ASIDE = 0.08
#: Inches per gate width of a short circuit, which is not stretched to the full width.
_UNIT = 0.5


def plot_circuit(
    template: CircuitTemplate,
    *,
    part: str = "boxed",
    fold: int = 14,
    reverse_bits: bool = False,
    style: str | dict[str, Any] | None = None,
) -> Figure:
    """Draw a template's circuit with Qiskit's matplotlib drawer.

    Whatever their names, angles are written φi and weights θi: i is the index into the encoder's angles and
    into the weights. A global phase is not drawn.

    Args:
        template: the circuit U(θ) S(φ).
        part: "boxed" draws the encoder as one box S(φ) before the ansatz, "template" every gate of both,
            "encoder" and "ansatz" one of them.
        fold: most gate columns per row; the rows are made about equally long.
        reverse_bits: wire 0 (Qiskit's last qubit) on top, instead of qubit 0.
        style: as in `QuantumCircuit.draw`.

    Raises:
        InputError: for an unknown part or a fold below 2.
        MissingExtraError: if pylatexenc, which Qiskit's drawer needs, is not installed.
    """
    if not isinstance(template, CircuitTemplate):
        raise InputError(f"template must be a CircuitTemplate, got {type(template).__name__}")
    fold = check_count("fold", fold, minimum=2)
    if not isinstance(reverse_bits, bool):
        raise InputError(f"reverse_bits must be True or False, got {reverse_bits!r}")
    if part not in PARTS:
        raise InputError(f"part must be one of {list(PARTS)}, got {part!r}")
    circuit = _part(template, part)
    options: dict[str, Any] = {"output": "mpl", "fold": -1, "reverse_bits": reverse_bits, "style": style}
    try:
        figure = _draw(circuit, WIDTH, options)
        # a column is one unit wide, and so is the space for the names of the wires
        columns = math.floor(_span(figure)[0]) - 1
        if columns > fold:
            columns = math.ceil(columns / math.ceil(columns / fold))
            options["fold"] = columns
        figure = _draw(circuit, min(WIDTH, (columns + 1.5) * _UNIT), options)
    except MissingOptionalLibraryError as error:
        raise MissingExtraError(
            'Qiskit\'s matplotlib drawer needs pylatexenc, which is not installed: pip install "qiskit-qdeq[drawing]"'
        ) from error
    if part == "boxed":
        _remove_wire_numbers(figure)
    return figure


def _part(template: CircuitTemplate, part: str) -> QuantumCircuit:
    """A copy to draw, with short parameter names."""
    if part == "boxed":
        circuit = QuantumCircuit(template.num_qubits)
        circuit.append(Gate(_BOX, template.num_qubits, []), circuit.qubits)
        circuit.compose(template.ansatz, inplace=True)
    else:
        encoder, ansatz = template.encoder.circuit, template.ansatz
        circuit = {"template": template.circuit, "encoder": encoder, "ansatz": ansatz}[part].copy()
    # the drawer would write a global phase into pyplot's current figure
    circuit.global_phase = 0
    names = _numbered("φ", template.encoder.parameters) | _numbered("θ", template.weights)
    used = [old for old in names if old in circuit.parameters]
    # in two steps: a new name may be an old name of another parameter
    between = {old: Parameter(f"{index}: {old.name}") for index, old in enumerate(used)}
    circuit.assign_parameters(between, inplace=True)
    circuit.assign_parameters({between[old]: names[old] for old in used}, inplace=True)
    return circuit


def _numbered(letter: str, parameters: Sequence[Parameter]) -> dict[Parameter, Parameter]:
    return {old: Parameter(f"{letter}{i}") for i, old in enumerate(parameters)}


def _draw(circuit: QuantumCircuit, width: float, options: dict[str, Any]) -> NotebookFigure:
    """Draw into a figure of that width, from which Qiskit takes the text size; the height is ours to set."""
    figure = NotebookFigure(figsize=(width, width))
    axes = figure.add_axes((0, 0, 1, 1))
    circuit.draw(ax=axes, **options)
    across, down = _span(figure)
    figure.set_size_inches(width, width * down / across)
    return figure


def _remove_wire_numbers(figure: Figure) -> None:
    """Qiskit numbers the wires at the left edge of a box, across its name; S(φ) acts on all of them in order."""
    texts = figure.axes[0].texts
    box = next(text for text in texts if text.get_text() == _BOX)
    left = box.get_position()[0]
    numbers = [text for text in texts if text.get_text().isdecimal() and text.get_position()[0] < left]
    for text in numbers:
        text.remove()
    if numbers:
        # back into the middle, from which the numbers pushed it
        box.set_x(left - _ASIDE)


def _span(figure: Figure) -> tuple[float, float]:
    (left, right), (bottom, top) = figure.axes[0].get_xlim(), figure.axes[0].get_ylim()
    return right - left, top - bottom
