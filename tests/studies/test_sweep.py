from __future__ import annotations

import json

import numpy as np
import pytest

from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.programs import readout_study, sweep, train

SMALL = {"fixed": ["epochs=1", "limit=24", "limit_train=16", "batch_size=8"], "seeds": 2, "quiet": True, "workers": 1}


def here(function, tasks):
    """A mapper that stays in this process."""
    return map(function, tasks)


def test_a_row_is_what_train_gives_for_its_options(tmp_path):
    found = sweep.main(None, {**SMALL, "vary": ["solver=newton,picard", "state_scale=0.1,0.4"], "output": tmp_path})
    assert [row["options"] for row in found["rows"]] == [
        {"solver": solver, "state_scale": scale} for solver in ("newton", "picard") for scale in (0.1, 0.4)
    ]
    row = found["rows"][3]
    own = {"solver": "picard", "state_scale": 0.4, "epochs": 1, "limit": 24, "limit_train": 16, "batch_size": 8}
    alone = [
        train.main(None, {**own, "seed": seed, "quiet": True, "no_plots": True, "output": tmp_path / f"alone-{seed}"})
        for seed in (0, 1)
    ]
    assert row["values"]["test_loss"] == [run["test_loss"] for run in alone]
    assert row["mean"]["test_accuracy"] == np.mean([run["test_accuracy"] for run in alone])
    assert row["std"]["test_loss"] == pytest.approx(np.std([run["test_loss"] for run in alone], ddof=1))
    assert json.loads((tmp_path / "results.json").read_text("utf-8"))["rows"] == found["rows"]
    assert (tmp_path / "results.md").read_text("utf-8").count("\n| newton") == 2
    assert (tmp_path / "accuracy.png").read_bytes().startswith(b"\x89PNG")


def test_a_larger_sweep_does_not_repeat_the_smaller_one(tmp_path):
    sweep.main(None, {**SMALL, "vary": ["learning_rate=0.01,0.1"], "output": tmp_path})
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "tasks").iterdir()}
    sweep.main(None, {**SMALL, "vary": ["learning_rate=0.01,0.1,0.2"], "output": tmp_path})
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "tasks").iterdir()}
    assert len(before) == 4
    assert len(after) == 6
    assert {name: after[name] for name in before} == before


@pytest.mark.filterwarnings("ignore::qiskit_qdeq.exceptions.ConvergenceWarning")
def test_circuits_are_shown_where_there_are_any(tmp_path):
    arguments = {**SMALL, "vary": ["shots=50,100"], "seeds": 1, "output": tmp_path}
    found = sweep.main("aer", arguments)
    assert found["rows"][0]["mean"]["circuits"] > 0
    assert found["rows"][1]["mean"]["shots"] > found["rows"][0]["mean"]["shots"]
    assert "circuits" in (tmp_path / "results.md").read_text("utf-8")


def test_quick_is_a_default_and_what_is_fixed_counts(tmp_path):
    found = sweep.main(
        None,
        {"vary": ["preset=default,paper"], "fixed": ["limit=24"], "quick": True, "seeds": 1, "quiet": True}
        | {"output": tmp_path},
    )
    assert found["fixed"] == {"epochs": 3, "limit": 24}


def test_options_given_again_add_to_what_they_had(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = []
    monkeypatch.setattr(sweep, "main", lambda arguments: asked.append(arguments))
    sweep.command(
        [
            "--vary",
            "solver=newton",
            "--fixed",
            "epochs=1",
            "--vary",
            "start=zeros",
            "preset=paper",
            "--fixed",
            "limit=40",
        ]
    )
    assert asked == [{"vary": ["solver=newton", "start=zeros", "preset=paper"], "fixed": ["epochs=1", "limit=40"]}]


def test_rows_name_the_folders_of_their_runs(tmp_path):
    found = sweep.main(None, {**SMALL, "vary": ["solver=newton,picard"], "output": tmp_path})
    folders = [tmp_path / run for row in found["rows"] for run in row["runs"]]
    assert len(set(folders)) == len(folders) == 2 * found["seeds"]
    assert all((folder / "metrics.json").exists() for folder in folders)


def test_a_folder_is_a_sweep_s_from_its_beginning_on(tmp_path, monkeypatch):
    def stop(*arguments, **options):
        raise KeyboardInterrupt

    arguments = {"vary": ["solver=newton"], "seeds": 1, "quiet": True, "output": str(tmp_path / "study")}
    arguments["fixed"] = SMALL["fixed"]
    with monkeypatch.context() as patch:
        patch.setattr(sweep, "perform", stop)
        with pytest.raises(KeyboardInterrupt):
            sweep.main(None, arguments, mapper=here)
    with pytest.raises(InputError, match="of the study 'sweep', which readouts would replace"):
        readout_study.main(None, {"quick": True, "output": arguments["output"]})
    with pytest.raises(InputError, match="is the folder of a study: name another"):
        train.main(None, {"epochs": 1, "limit": 24, "quiet": True, "output": arguments["output"]})
    train.main(None, {"epochs": 1, "limit": 24, "quiet": True, "no_plots": True, "output": tmp_path / "run"})
    with pytest.raises(InputError, match="is the folder of a run of `train`"):
        sweep.main(None, {**arguments, "output": tmp_path / "run"})
    assert sweep.main(None, arguments, mapper=here)["study"] == "sweep"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "vary must name at least one option"),
        ({"vary": ["solver"]}, "vary must be like solver=newton, got 'solver'"),
        ({"vary": ["limit_train=40,1"]}, "limit"),
        ({"vary": ["solver=newton"], "fixed": ["num_qubits=30"]}, "num_qubits|qubits"),
        (
            {
                "vary": ["shots=50,60"],
                "fixed": ["backend=aer", "regularization=state", "regularization_strength=0.1"],
            },
            "needs second derivatives, which are not measured",
        ),
        ({"vary": ["solver=newton"], "data_dir": "."}, "--data-dir has no effect on digits"),
        ({"vary": ["solver="]}, "vary must be like solver=newton"),
        ({"vary": ["solvers=newton"]}, "vary: train has no option 'solvers'; there are"),
        ({"vary": ["seed=1,2"]}, "vary: seed is no option of a sweep's runs"),
        ({"vary": ["epochs=1,x"]}, "vary: epochs=x cannot be read"),
        ({"vary": ["epochs=1,1"]}, "vary: epochs=1,1 names a value twice"),
        ({"vary": ["epochs=1", "epochs=2"]}, "vary: epochs is given twice"),
        ({"vary": ["epochs=1,0"]}, "epochs must be an integer of at least 1, got 0"),
        ({"vary": ["solver=newton,newtn"]}, "solver must be one of .*got 'newtn'"),
        ({"vary": ["preset=default,papr"]}, "preset must be one of .*got 'papr'"),
        ({"vary": ["probe_ahead=yes"]}, "vary: probe_ahead must be true or false, got 'yes'"),
        ({"vary": ["classes=0,1"]}, "vary: classes is a list itself"),
        ({"vary": ["shots=10,20"]}, "--shots cannot have an effect with --backend exact"),
        ({"vary": ["layers=1,2"]}, "--layers 2 has no effect on the equilibrium"),
        ({"vary": ["epochs=1"], "fixed": ["epochs=1"]}, "epochs is both fixed and varied"),
        ({"vary": ["backend=exact,fake:atlantis"]}, "no fake backend 'atlantis'"),
        ({"vary": ["backend=fake:torino,fake:yorktown"], "fixed": ["num_qubits=6"]}, "yorktown has only 5"),
        ({"vary": ["epochs=1"], "seeds": 0}, "seeds must be >= 1"),
        ({"vary": [f"epochs={','.join(map(str, range(1, 1000)))}"], "seeds": 101}, "100,899 runs, more than 100,000"),
    ],
)
def test_what_cannot_be_swept_is_refused_before_anything_is_written(arguments, message, tmp_path):
    with pytest.raises(InputError, match=message):
        sweep.main(None, {"output": tmp_path / "new", "quiet": True, **arguments})
    assert not (tmp_path / "new").exists()


def test_a_backend_object_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"backend of a sweep must be a text .* got 3"):
        sweep.main(3, {"vary": ["epochs=1,2"], "output": tmp_path})


@pytest.mark.parametrize("found", ['{"study": "noise"}', '{"rows": []}', "{", "[1]"])
def test_results_of_something_else_are_not_replaced(found, tmp_path):
    (tmp_path / "results.json").write_text(found, "utf-8")
    with pytest.raises(InputError, match=r"holds results.json of .*, which sweep would replace: name another folder"):
        sweep.main(None, {**SMALL, "vary": ["epochs=1,2"], "fixed": ["limit=24"], "output": tmp_path})
    assert (tmp_path / "results.json").read_text("utf-8") == found
