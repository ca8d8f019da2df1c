from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest

from qiskit_qdeq.exceptions import InputError, StudyError
from qiskit_qdeq.programs import reproduce_paper
from qiskit_qdeq.programs.arguments import TrainArguments, from_mapping
from qiskit_qdeq.programs.recipes import model_of, normalization_of, training_of
from qiskit_qdeq.studies import profiles
from qiskit_qdeq.studies.paper_report import figures_of, markdown
from qiskit_qdeq.studies.paper_rows import QUICK, TABLES, Scale, rows_of
from qiskit_qdeq.studies.statistics import Spread, difference
from qiskit_qdeq.studies.training_tasks import described, train_task
from qiskit_qdeq.training.trainer import Trainer

EVERYTHING = ("wang", "pca", "vae")
SMALL = {"tables": ["digits-4"], "encodings": ["amplitude"], "epochs": 1, "limit": 60, "workers": 1, "quiet": True}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    options = {**SMALL, "groups": ["paper", "control"], "seeds": 2, "output": str(folder)}
    return folder, options, reproduce_paper.main(None, options)


def test_every_row_of_the_issue_is_in_the_tables():
    for name in ("mnist-4", "mnist-10", "fashion-10", "cifar-10"):
        rows = rows_of(name, Scale(), EVERYTHING)
        wanted = {"IMPLICIT", "IMPLICIT+WARMUP", "DIRECT-1", "DIRECT-2", "DIRECT-5", "DIRECT-10"}
        for encoding in ("amplitude", "angle") if name == "mnist-4" else ("amplitude",):
            assert {row.name for row in rows if (row.group, row.encoding) == ("paper", encoding)} == wanted
        assert {row.name for row in rows if row.group == "control"} == {"logistic", "mlp", "svm"}
        assert {"IMPLICIT", "DIRECT-1"} <= {row.name for row in rows if row.group == "default"}
    baselines = [row for row in rows_of("mnist-4", Scale(), EVERYTHING) if row.group == "baseline"]
    assert {(row.encoding, row.name) for row in baselines} == {
        (encoding, name) for encoding in ("amplitude", "angle") for name in EVERYTHING
    }


def test_labels_of_rows_are_unique():
    labels = [row.label for name in TABLES for row in rows_of(name, QUICK, EVERYTHING)]
    assert len(set(labels)) == len(labels)


def test_the_papers_rows_have_the_authors_recipe():
    row = next(row for row in rows_of("digits-4", Scale(), ()) if row.name == "IMPLICIT+WARMUP")
    options, split, config = described(
        {name: value for name, value in row.task(3).arguments.items() if name != "kind"}, None
    )
    assert (config.optimizer, config.learning_rate, config.batch_size, config.clip_norm) == ("adam", 0.005, 256, 0.25)
    assert (config.epochs, config.dropout, config.seed, config.layers) == (100, 0.05, 3, 2)
    assert (config.solver.name, config.solver.max_steps, config.regularization.kind) == ("broyden", 10, "hutchinson")
    assert len(split.x_train) == TABLES["digits-4"].train_samples
    # 434 samples are two steps an epoch, half of them warm-up
    assert config.warmup_steps == 100
    assert model_of(options, split).build().num_parameters == 107


@pytest.mark.parametrize("scale", [Scale(), QUICK, Scale(epochs=3, limit=100)])
@pytest.mark.parametrize(
    ("table", "samples"),
    [("digits-4", 434), ("mnist-4", 19_136), ("mnist-10", 48_000), ("fashion-10", 48_000), ("cifar-10", 40_000)],
)
def test_warm_up_is_half_of_the_steps(table, samples, scale):
    rows = [row.arguments for row in rows_of(table, scale, ()) if row.name == "IMPLICIT+WARMUP"]
    assert len(rows) >= 2
    samples = min(samples, scale.limit or samples)
    for arguments in rows:
        steps = arguments["epochs"] * math.ceil(samples / arguments["batch_size"])
        assert arguments["warmup"] == steps // 2


def run_of(row):
    """Model, training and normalization of a row."""
    arguments = {name: value for name, value in row.task(0).arguments.items() if name != "kind"}
    options = from_mapping(TrainArguments, arguments)
    table = TABLES[row.table]
    sizes = type("Split", (), {"num_features": 16 if table.num_qubits == 4 else 100, "num_classes": 4})()
    return model_of(options, sizes).as_dict(), training_of(options, sizes).as_dict(), normalization_of(options)


@pytest.mark.parametrize("table", [name for name, table in TABLES.items() if table.ablation])
def test_the_ablation_goes_from_the_authors_model_to_the_default_preset(table):
    rows = rows_of(table, Scale(epochs=25), ())
    ablation = [row for row in rows if row.group == "ablation"]
    ends = [
        next(row for row in rows if row.group == group and row.name == "IMPLICIT") for group in ("paper", "default")
    ]
    runs = [run_of(row) for row in ablation]
    assert [runs[0], runs[-1]] == [run_of(row) for row in ends]
    assert all(first != second for first, second in itertools.pairwise(runs))


@pytest.mark.parametrize("table", TABLES)
def test_the_default_group_is_the_default_preset(table):
    row = next(row for row in rows_of(table, Scale(epochs=25), ()) if row.group == "default" and row.name == "IMPLICIT")
    _, config, _ = run_of(row)
    options = from_mapping(TrainArguments, {"data": TABLES[table].data, "num_qubits": TABLES[table].num_qubits})
    sizes = type("Split", (), {"num_features": 16, "num_classes": 4})()
    assert config == {**training_of(options, sizes).as_dict(), "epochs": 25}


def test_a_row_without_a_random_start_or_draw_has_one_seed():
    def seeds(table, scale=QUICK):
        return {row.name: len(row.seeds(3)) for row in rows_of(table, scale, ()) if row.group == "control"}

    assert seeds("mnist-4", Scale()) == seeds("digits-4", Scale()) == {"logistic": 1, "mlp": 3, "svm": 1}
    for table in ("mnist-10", "fashion-10", "cifar-10"):
        # the kernel machine gets 20,000 of the samples, drawn by the seed
        assert seeds(table, Scale()) == {"logistic": 1, "mlp": 3, "svm": 3}
        assert seeds(table) == {"logistic": 1, "mlp": 3, "svm": 1}


def test_a_study_has_all_columns_and_files(study):
    folder, _, results = study
    assert {path.name for path in folder.iterdir()} >= {
        "results.json",
        "results.md",
        "accuracy.png",
        "cost.png",
        "tasks",
    }
    assert json.loads((folder / "results.json").read_text()) == json.loads(json.dumps(results))
    rows = {(row["group"], row["name"]): row for row in results["rows"]}
    implicit = rows["paper", "IMPLICIT"]
    assert len(implicit["test_accuracy"]) == 2
    assert implicit["mean"] == pytest.approx(np.mean(implicit["test_accuracy"]))
    assert (implicit["depth"], implicit["two_qubit_gates"], implicit["num_parameters"]) == (48, 28, 107)
    # K + 1 circuits of a sample's map and one at its solution
    assert implicit["inference_circuits"] == 6
    assert [rows["paper", f"DIRECT-{layers}"]["inference_circuits"] for layers in (1, 2, 5, 10)] == [1, 2, 5, 10]
    # five circuits of each of the 60 samples, ten for all, then values and shifts of the weights that matter
    assert implicit["train_circuits"] == 60 * 5 + 10 + 60 * (1 + 68)
    assert implicit["peak_mib"] > 50
    assert set(implicit["layers"]) == {"1", "2", "5"}
    assert rows["control", "logistic"]["num_parameters"] == 4 * 17


def test_the_same_command_again_does_nothing_twice(study, monkeypatch):
    _, options, results = study

    def refused(*args, **more):
        raise AssertionError("done again")

    monkeypatch.setattr(reproduce_paper, "perform", refused)
    assert reproduce_paper.main(None, options)["rows"] == results["rows"]


def test_an_interrupted_run_goes_on_from_its_checkpoint(tmp_path, monkeypatch):
    arguments = {"data": "digits", "epochs": 3, "seed": 1, "limit": 100}
    whole = train_task(arguments, folder=tmp_path / "whole", data_dir=None)
    rows = Trainer.rows

    def dies(self, step):
        if step == 3:
            raise KeyboardInterrupt
        return rows(self, step)

    monkeypatch.setattr(Trainer, "rows", dies)
    with pytest.raises(KeyboardInterrupt):
        train_task(arguments, folder=tmp_path / "part", data_dir=None)
    monkeypatch.undo()
    resumed = train_task(arguments, folder=tmp_path / "part", data_dir=None)
    for name in ("test_accuracy", "test_loss", "paper_residual", "layers", "steps"):
        assert resumed[name] == whole[name]


def test_one_run_that_fails_leaves_the_others(tmp_path, monkeypatch):
    def fails(arguments, **more):
        if arguments["kind"] == "control" and arguments["name"] == "mlp":
            raise ValueError("no memory for this")
        return {"test_accuracy": 0.5}

    monkeypatch.setattr(reproduce_paper, "perform", fails)
    with pytest.raises(StudyError, match=r"1 of 3 tasks failed.*mlp/seed-0: ValueError: no memory for this"):
        reproduce_paper.main(None, {**SMALL, "groups": ["control"], "seeds": 1, "output": str(tmp_path)})
    assert len(list((tmp_path / "tasks").glob("*.json"))) == 2


@pytest.mark.parametrize(("limit", "kept", "batch"), [(60, 60, 60), (300, 300, 256), (None, 434, 256)])
def test_time_is_measured_on_the_samples_of_the_run(monkeypatch, limit, kept, batch):
    row = next(row for row in rows_of("digits-4", Scale(limit=limit), ()) if row.name == "DIRECT-1")
    arguments = {name: value for name, value in row.profile().arguments.items() if name != "kind"}
    seen = []

    def measure(module, question):
        class Watched(Trainer):
            def __init__(self, model, config, x, y):
                seen.append((len(x), config.batch_size))
                super().__init__(model, config, x, y)

        monkeypatch.setattr(profiles, "Trainer", Watched)
        return profiles._measure(**question)

    monkeypatch.setattr(profiles, "in_fresh_process", measure)
    found = profiles.profile_task(arguments, data_dir=None)
    assert seen == [(kept, batch)]
    # a value and the shifts of 68 gate angles, of each sample of a full step
    assert found["train_circuits"] == batch * (1 + 68)


def test_rows_with_angles_alone_are_a_study(tmp_path, monkeypatch):
    done = {"test_accuracy": 0.5, "steps": 1, "ms_per_step": 2.0, "peak_mib": 3.0}
    done |= {"train_circuits": 4, "inference_circuits": 5}
    monkeypatch.setattr(reproduce_paper, "perform", lambda *arguments, **more: done)
    options = {**SMALL, "groups": ["paper"], "encodings": ["angle"], "seeds": 1, "output": str(tmp_path)}
    rows = reproduce_paper.main(None, options)["rows"]
    assert {(row["encoding"], row["train_circuits"]) for row in rows} == {("angle", 4)}
    assert (tmp_path / "accuracy.png").exists()
    # it shows amplitude encoding
    assert not (tmp_path / "cost.png").exists()


def test_a_figure_that_fails_leaves_the_results(tmp_path, monkeypatch):
    def fails(*arguments):
        raise ValueError("no font")

    monkeypatch.setattr(reproduce_paper, "draw_accuracy", fails)
    monkeypatch.setattr(reproduce_paper, "perform", lambda *arguments, **more: {"test_accuracy": 0.5})
    with pytest.raises(ValueError, match="no font"):
        reproduce_paper.main(None, {**SMALL, "groups": ["control"], "seeds": 1, "output": str(tmp_path)})
    assert len(json.loads((tmp_path / "results.json").read_text())["rows"]) == 3
    assert "RBF SVM" in (tmp_path / "results.md").read_text()


def test_columns_of_time_can_be_left_out(tmp_path):
    options = {**SMALL, "groups": ["default"], "seeds": 1, "no_times": True, "output": str(tmp_path)}
    rows = reproduce_paper.main(None, options)["rows"]
    assert {row["ms_per_step"] for row in rows} == {None}
    assert not (tmp_path / "cost.png").exists()
    assert all(row["runtime_s"] >= 0 for row in rows)


def test_own_published_figures_stand_beside_the_rows(tmp_path):
    file = tmp_path / "published.json"
    file.write_text(json.dumps({"source": "a thesis", "digits-4": {"amplitude IMPLICIT": {"test_accuracy": 0.5}}}))
    found = reproduce_paper._published(str(file))
    assert found["source"].startswith("a thesis; figures that it does not have: Schleich et al.")
    row = next(row for row in rows_of("digits-4", Scale(), ()) if row.name == "IMPLICIT")
    figures = figures_of(row, [{"test_accuracy": 0.75, "steps": 1, "train_seconds": 2.0}], None, found["digits-4"])
    assert figures["published"] == 0.5
    assert "| IMPLICIT | 75.00 | 50.00 |" in markdown([figures])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tables": ["mnist-5"]}, r"tables must be among \['digits-4'"),
        ({"groups": ["authors"]}, "groups must be among"),
        ({"encodings": ["phase"]}, "encodings must be among"),
        ({"groups": ["baseline"], "encodings": []}, "leave no row"),
        ({"epochs": 0}, "epochs must be >= 1"),
        ({"limit": -1}, "limit must be >= 1"),
        ({"seeds": 0}, "seeds must be >= 1"),
        ({"workers": -1}, "workers"),
        ({"published": "no-such-file"}, "cannot be read as JSON"),
        ({"tables": "digits-4"}, r"tables must be a list of texts, such as .*, got 'digits-4'"),
        ({"rows": 3}, "unknown arguments"),
    ],
)
def test_mistakes_are_named(tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        reproduce_paper.main(None, {**SMALL, "output": str(tmp_path), **change})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "got list"),
        ("3", "got int"),
        ("{", "cannot be read as JSON"),
        ("[" * 100_000, "cannot be read as JSON"),
        ('{"source": 3}', "source must say in words"),
        ('{"mnist-4": 3}', "got 'mnist-4'"),
        ('{"mnist-9": {}}', "got 'mnist-9'"),
        ('{"mnist-4": {"amplitude IMPLICIT": {"test_accuracy": 93.4}}}', "a fraction"),
        ('{"mnist-4": {"amplitude IMPLCIT": {"test_accuracy": 0.9}}}', "has rows best, .*got 'amplitude IMPLCIT'"),
        ('{"mnist-10": {"angle IMPLICIT": {"test_accuracy": 0.7}}}', "got 'angle IMPLICIT'"),
    ],
)
def test_a_published_file_of_another_form_is_refused(tmp_path, text, message):
    file = tmp_path / "published.json"
    file.write_text(text)
    with pytest.raises(InputError, match=f"--published.*{message}"):
        reproduce_paper._published(str(file))


def test_the_packages_own_published_figures_would_be_accepted():
    own = json.loads(reproduce_paper._PUBLISHED.read_text())
    found = reproduce_paper._published(str(reproduce_paper._PUBLISHED))
    assert {**found, "source": own["source"]} == own


def test_spread_and_difference_are_those_of_statistics_books():
    first, second = Spread.of([1.0, 2.0, 3.0]), Spread.of([2.0, 4.0])
    assert (first.mean, first.std, first.error) == (2.0, 1.0, pytest.approx(1 / math.sqrt(3)))
    assert difference(first, second) == (-1.0, pytest.approx(math.sqrt(1 / 3 + 2 / 2)))
    assert Spread.of([0.5]).error is None
    assert difference(Spread.of([0.5]), first) == (-1.5, None)
