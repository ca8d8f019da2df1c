"""The picture of copies on a coupling map: what it shows and where."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import to_hex
from qiskit import QuantumCircuit
from qiskit_ibm_runtime.fake_provider import FakeGuadalupeV2, FakeManilaV2

from qiskit_qdeq import choose_copies
from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.visualization import plot_copies
from qiskit_qdeq.visualization.copies import _positions


def chain(size):
    circuit = QuantumCircuit(size)
    for qubit in range(size - 1):
        circuit.cx(qubit, qubit + 1)
    return circuit


@pytest.fixture(scope="module")
def copies():
    return choose_copies(FakeGuadalupeV2(), chain(3), max_error_ratio=5)


def test_qubits_of_a_copy_have_its_colour_and_free_ones_are_grey(copies):
    axes = plot_copies(copies).axes[0]
    free, *shown = axes.collections
    assert len(shown) == len(copies) >= 2
    used = {qubit for copy in copies.copies for qubit in copy.qubits}
    assert len(free.get_offsets()) == 16 - len(used)
    where = _positions(16, copies.couplings)
    for copy, points in zip(copies.copies, shown, strict=True):
        np.testing.assert_allclose(points.get_offsets(), where[list(copy.qubits)])
    assert len({to_hex(points.get_facecolor()[0]) for points in shown}) == len(copies)
    assert {text.get_text() for text in axes.texts} == {str(qubit) for qubit in range(16)}
    # every coupling is a line; those inside a copy are thicker
    lines = [line.get_linewidth() for line in axes.lines]
    assert len(lines) == len(copies.couplings)
    assert sum(width > 2 for width in lines) == 2 * len(copies)


def test_the_legend_names_qubits_and_errors(copies):
    figure = plot_copies(copies)
    entries = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    first = copies.copies[0]
    assert entries[0].startswith(" ".join(map(str, first.qubits)))
    assert f"{first.two_qubit_error:.2%}" in entries[0]
    assert f"{first.errors:.2f}" in entries[0]
    assert len(entries) == len(copies)


def test_a_chain_is_drawn_as_a_straight_line_and_a_square_as_a_square():
    chain_ = _positions(5, ((0, 1), (1, 2), (2, 3), (3, 4)))
    np.testing.assert_allclose(chain_[:, 1], 0, atol=1e-6)
    np.testing.assert_allclose(np.diff(chain_[:, 0]), 1, atol=1e-6)
    square = _positions(4, ((0, 1), (1, 2), (2, 3), (3, 0)))
    sides = np.linalg.norm(square - np.roll(square, 1, axis=0), axis=1)
    np.testing.assert_allclose(sides, sides[0], rtol=1e-6)


def test_parts_of_a_device_without_coupling_and_a_single_qubit_have_a_place():
    where = _positions(4, ((0, 1), (2, 3)))
    assert np.isfinite(where).all()
    assert len(np.unique(where.round(6), axis=0)) == 4
    assert _positions(1, ()).shape == (1, 2)


def test_draw_writes_a_file(copies, tmp_path):
    path = tmp_path / "copies.png"
    copies.draw(str(path))
    assert path.read_bytes().startswith(b"\x89PNG")
    assert plot_copies(choose_copies(FakeManilaV2(), chain(4), copies=1)).axes[0].get_title().startswith("1 copy of")


def test_copies_without_couplings_cannot_be_drawn():
    with pytest.raises(InputError, match="device with couplings"):
        plot_copies(choose_copies(None, chain(2), copies=2))
    with pytest.raises(InputError, match="copies must be"):
        plot_copies("copies")
