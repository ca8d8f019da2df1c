"""Cached kernels are dropped when any source they may have been inlined from changes, and only then."""

from __future__ import annotations

import pytest

from qiskit_qdeq.evaluation.jit import drop_stale_kernels


@pytest.fixture
def package(tmp_path):
    for folder in ("evaluation/__pycache__", "__pycache__"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "evaluation" / "lanes.py").write_text("a = 1\n")
    (tmp_path / "readout.py").write_text("b = 1\n")
    return tmp_path


def cached(package):
    files = [package / "evaluation/__pycache__/lanes.f-1.py311.nbi", package / "__pycache__/readout.f-1.py311.1.nbc"]
    for file in files:
        file.write_bytes(b"kernel")
    return files


@pytest.mark.parametrize("source", ["evaluation/lanes.py", "readout.py"])
def test_a_changed_source_drops_every_kernel(package, source):
    drop_stale_kernels(package)
    files = cached(package)
    assert not drop_stale_kernels(package)
    assert all(file.exists() for file in files)
    (package / source).write_text("c = 2\n")
    assert drop_stale_kernels(package)
    assert not any(file.exists() for file in files)
    assert not drop_stale_kernels(package)


def test_other_files_stay(package):
    other = package / "evaluation/__pycache__/lanes.cpython-311.pyc"
    other.write_bytes(b"code")
    cached(package)
    assert drop_stale_kernels(package)
    assert other.exists()
