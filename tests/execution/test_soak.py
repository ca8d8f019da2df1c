"""A long run leaves nothing behind in memory but its history and its journal."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

SOAK = Path(__file__).parents[2] / "benchmarks" / "soak.py"


@pytest.mark.slow
def test_memory_and_open_files_of_a_long_run_stay_flat():
    rows = runpy.run_path(str(SOAK))["soak"](900, 100).rows
    assert len(rows) >= 9
    # caches are full after a few hundred jobs; a journal entry and the epoch's history remain of each
    (first, resident, traced, files), (last, *after) = rows[4], rows[-1]
    assert after[2] == files
    assert (after[1] - traced) * 2**20 / (last - first) < 3000
    assert after[0] - resident < 10
