from __future__ import annotations

import pytest

from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.programs import readout_study


def test_more_shots_come_nearer_to_exact_values(tmp_path):
    options = {
        "quick": True,
        "seeds": 1,
        "epochs": 30,
        "samples": 50,
        "workers": 1,
        "quiet": True,
        "output": str(tmp_path),
    }
    results = readout_study.main(None, options)
    assert [(row["readout"], row["features"]) for row in results["rows"]] == [
        ("z", 4),
        ("zz", 10),
        ("zzz", 14),
        ("zzzz", 15),
    ]
    for row in results["rows"]:
        assert list(row["mean"]) == ["exact", "100", "1000", "10000"]
        # 50 samples: one more or less is 2 points
        assert row["mean"]["10000"] == pytest.approx(row["mean"]["exact"], abs=0.05)
    assert {path.name for path in tmp_path.iterdir()} >= {"results.json", "results.md", "shots.png"}


@pytest.mark.parametrize("name", ["samples", "seeds"])
def test_numbers_below_one_are_refused(tmp_path, name):
    with pytest.raises(InputError, match=f"{name} must be >= 1"):
        readout_study.main(None, {name: 0, "output": str(tmp_path)})
