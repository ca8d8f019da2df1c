from __future__ import annotations

import os
import struct
import subprocess
import sys

import pytest
from matplotlib.figure import Figure

from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.visualization import plot_history, save_figures

HISTORY = [{"epoch": 1, "loss": 0.5, "accuracy": 0.5}]


def size(path):
    """Width and height in the header of a PNG file."""
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", data[16:24])


def test_every_figure_becomes_a_png_of_the_asked_resolution(tmp_path):
    folder = tmp_path / "new" / "figures"
    paths = save_figures(folder, {"loss": plot_history(HISTORY), "other": Figure(figsize=(2, 1))}, dpi=50)
    assert paths == {"loss": folder / "loss.png", "other": folder / "other.png"}
    assert size(paths["loss"])[0] == 350
    assert size(paths["other"]) == (100, 50)
    assert sorted(os.listdir(folder)) == ["loss.png", "other.png"]


def test_nothing_is_written_if_one_figure_cannot_be_drawn(tmp_path):
    class Broken(Figure):
        def savefig(self, *args, **kwargs):
            raise RuntimeError("broken")

    (tmp_path / "good.png").write_bytes(b"old")
    with pytest.raises(RuntimeError, match="broken"):
        save_figures(tmp_path, {"good": Figure(), "bad": Broken()})
    assert (tmp_path / "good.png").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["good.png"]


def test_a_failed_write_keeps_the_old_file_and_leaves_no_other(tmp_path, monkeypatch):
    def fail(source, target):
        raise OSError("disk full")

    (tmp_path / "a.png").write_bytes(b"old")
    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        save_figures(tmp_path, {"a": Figure()})
    assert (tmp_path / "a.png").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.png"]


@pytest.mark.parametrize("name", ["", "../a", "a/b", "a\\b", "c:a", ".hidden", "a\0b", 3])
def test_names_that_are_no_file_names_are_refused(tmp_path, name):
    with pytest.raises(InputError, match="no plain file name"):
        save_figures(tmp_path / "new", {name: Figure()})
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("figures", "dpi", "message"),
    [
        ({"a": Figure(), "A": Figure()}, 100, "in case only"),
        ({"a": "figure"}, 100, r"figures\['a'\] must be a matplotlib Figure, got str"),
        ([Figure()], 100, "figures must be a mapping"),
        ({"a": Figure()}, 0, "dpi must be an integer of at least 1"),
    ],
)
def test_what_cannot_be_saved_is_refused(tmp_path, figures, dpi, message):
    with pytest.raises(InputError, match=message):
        save_figures(tmp_path, figures, dpi=dpi)
    assert not os.listdir(tmp_path)


def test_a_notebook_gets_a_png_without_pyplot():
    assert plot_history(HISTORY)._repr_png_()[:4] == b"\x89PNG"
    code = (
        "import sys; from qiskit_qdeq.visualization import plot_history;"
        f"plot_history({HISTORY!r})._repr_png_(); assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
