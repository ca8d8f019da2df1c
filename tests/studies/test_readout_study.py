from __future__ import annotations

import pytest

from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.programs import readout_study


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("readouts")
    options = {"quick": True, "seeds": 1, "epochs": 30, "samples": 500, "workers": 1, "quiet": True}
    return folder, readout_study.main(None, {**options, "output": str(folder)})


def test_more_shots_come_nearer_to_exact_values(study):
    folder, results = study
    assert [(row["readout"], row["features"]) for row in results["rows"]] == [
        ("z", 4),
        ("zz", 10),
        ("zzz", 14),
        ("zzzz", 15),
    ]
    gaps = {}
    for row in results["rows"]:
        assert list(row["mean"]) == ["exact", "100", "1000", "10000"]
        for shots in ("100", "10000"):
            gaps.setdefault(shots, []).append(abs(row["mean"][shots] - row["mean"]["exact"]))
    few, many = (sum(gap) / len(gap) for gap in gaps.values())
    assert 0 <= many < 0.01 < few
    assert {path.name for path in folder.iterdir()} >= {"results.json", "results.md", "shots.png"}


def test_what_is_asked_wins_over_quick_and_what_there_is_over_both(study):
    _, results = study
    # the test part of digits 0, 3, 6, 9 has 180
    assert (results["seeds"], results["samples"]) == (1, 180)
    assert len(list((study[0] / "tasks").iterdir())) == 4


@pytest.mark.parametrize("name", ["samples", "seeds"])
def test_numbers_below_one_are_refused(tmp_path, name):
    with pytest.raises(InputError, match=f"{name} must be >= 1"):
        readout_study.main(None, {name: 0, "output": str(tmp_path)})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": "mnist", "data_dir": "nowhere"}, "does not exist"),
        ({"num_qubits": 3}, "num_qubits=3 must be 4"),
        ({"classes": (0, 77)}, "class 77 is not in the data set"),
        ({"num_qubits": 30}, "GB for exact evaluation"),
    ],
)
def test_data_that_cannot_be_used_are_refused_before_anything_is_written(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        readout_study.main(None, {**options, "quick": True, "output": str(tmp_path / "new")})
    assert not (tmp_path / "new").exists()
