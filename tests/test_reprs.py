"""What notebooks and consoles show: short lines and small tables with the figures of the object, text escaped."""

from __future__ import annotations

import dataclasses
from html.parser import HTMLParser

import numpy as np
import pytest
from qiskit.primitives import StatevectorEstimator

from qiskit_qdeq import _html, model_config
from qiskit_qdeq.equilibrium import ContractionReport, Solution, Status, contraction, solve
from qiskit_qdeq.evaluation.protocol import Cost
from qiskit_qdeq.inference import Prediction, predict
from qiskit_qdeq.training.callbacks import TrainingResult
from qiskit_qdeq.training.cost_estimate import CostEstimate

BATCH, CLASSES = 300, 3


class Page(HTMLParser):
    """Rows of cells, remarks below the tables, and every tag of a page; a tag that is not closed in order is an error."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.remarks, self.tags, self._open = [], [], set(), []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag, attributes):
        assert not attributes
        self.tags.add(tag)
        self._open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in {"th", "td"}:
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open[-1] == "p":
            self.remarks.append(data)
        elif self._open[-1] in {"th", "td"}:
            self.rows[-1][-1] += data

    @property
    def facts(self):
        return dict(self.rows)


@pytest.fixture(scope="module")
def model():
    return model_config("default", 4, CLASSES, 2).build()


@pytest.fixture(scope="module")
def solved(model):
    parameters = model.initial_parameters(0)
    inputs = model.prepare(np.random.default_rng(0).normal(size=(BATCH, 4)))
    problem = model.map(model.split(parameters)[0], inputs)
    return parameters, inputs, problem, solve(problem, "newton")


@pytest.fixture(scope="module")
def shown(model, solved):
    """One of each, with what is computed for hundreds of samples."""
    parameters, inputs, problem, solution = solved
    history = [{"epoch": epoch, "loss": 1 / epoch, "accuracy": 0.5} for epoch in range(1, 401)]
    step = Cost(10, 1000, 2, 3, 4.5)
    return {
        "model": model,
        "solution": solution,
        "prediction": predict(model, parameters, inputs, None),
        "report": contraction(problem, solution, model.lipschitz_bound(inputs)),
        "result": TrainingResult(parameters, parameters, history, 7, 800, ""),
        "estimate": CostEstimate(400, 10, step, step, (step,) * 400, (), Cost(), True),
    }


KINDS = ("model", "solution", "prediction", "report", "result", "estimate")


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_console_shows_is_one_line_without_the_arrays(kind, shown):
    text = repr(shown[kind])
    assert len(text) < 250
    assert "\n" not in text
    assert "array" not in text
    assert text.startswith(type(shown[kind]).__name__)


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_notebook_shows_is_a_small_table_and_nothing_that_runs(kind, shown):
    text = shown[kind]._repr_html_()
    page = Page(text)
    assert page.tags <= {"table", "caption", "tr", "th", "td", "p"}
    assert 2 <= len(page.rows) <= 12
    assert len(text) < 2500


def test_a_model_tells_its_circuit_and_how_it_is_evaluated(model):
    facts = Page(model._repr_html_()).facts
    assert facts["encoder"] == "AmplitudeEncoder(num_features=4, num_qubits=2)"
    assert facts["circuit"].startswith("2 qubits")
    assert facts["parameters"] == str(model.num_parameters)
    assert facts["evaluation"] == "computed exactly"
    measured = Page(model.measured(StatevectorEstimator())._repr_html_()).facts
    assert measured["evaluation"] == "measured by StatevectorEstimator"
    assert Page(model.noisy("0.001,0.01,0.02")._repr_html_()).facts["evaluation"] == "computed, under noise"


def test_a_model_without_a_head_says_so():
    config = dataclasses.replace(model_config("default", 4, 2, 2), readout="z", head="none", bias=0.5)
    facts = Page(dataclasses.replace(config, num_features=3).build()._repr_html_()).facts
    assert facts["head"] == "the logits themselves"
    assert facts["features"] == "3 and a bias of 0.5"


def test_a_solution_counts_how_its_samples_ended_and_what_was_executed():
    status = np.array([Status.CONVERGED, Status.CONVERGED, Status.MAX_STEPS])
    found = Solution(
        np.zeros((3, 2)),
        np.array([1e-9, 3e-9, 0.5]),
        status,
        np.array([3, 4, 50]),
        np.array([4, 5, 51]),
        np.zeros((3, 0)),
        Cost(60, 6000, 9, 9, 12.25),
    )
    page = Page(found._repr_html_())
    assert page.facts["samples converged"] == "2 of 3"
    assert page.facts["residual ‖m(q) - q‖"] == "median 3.0e-09 max 5.0e-01"
    assert page.facts["evaluations"] == "60"
    assert (page.facts["shots"], page.facts["jobs"], page.facts["QPU seconds"]) == ("6,000", "9", "12.2")
    assert page.remarks == [f"2 {Status.CONVERGED}", f"1 {Status.MAX_STEPS}"]
    assert repr(found) == (
        "Solution(2 of 3 samples converged, residual median 3.0e-09 max 5.0e-01, steps median 4 max 50)"
    )


def test_a_prediction_tells_samples_logits_and_residuals(shown):
    found = shown["prediction"]
    assert repr(found).startswith(f"Prediction({BATCH} samples, {CLASSES} logits, {BATCH} converged, residual median ")
    assert Page(found._repr_html_()).facts["logits"] == f"{BATCH} × {CLASSES}"


def test_a_report_shows_the_same_figures_everywhere():
    report = ContractionReport(
        np.array([0.25, 1.5]),
        np.array([0.5, 2.0]),
        np.array([0.75, 3.0]),
        np.array([1e-9, np.inf]),
        equilibria=np.array([1, 3]),
        starts=np.array([4, 4]),
    )
    facts = Page(report._repr_html_()).facts
    assert facts["spectral radius"] == "median 0.875 max 1.500 (above 1: 50.0%)"
    assert facts["Lipschitz bound"] == "median 1.875 max 3.000 (below 1: 50.0%)"
    assert facts["several equilibria"] == "found for 50.0%"
    for name, value in facts.items():
        assert f"{name.ljust(17)} {value}" in str(report)
    assert "50.0% with several equilibria" in repr(report)


def test_a_report_without_a_search_says_nothing_of_several_equilibria(shown):
    assert Page(shown["report"]._repr_html_()).facts["several equilibria"] == "not sought (starts=0)"
    assert "several" not in repr(shown["report"])


def test_a_training_result_shows_first_best_and_last_epoch(shown):
    result = shown["result"]
    rows = Page(result._repr_html_()).rows
    assert rows[0] == ["", "epoch 1", "epoch 7 (best)", "epoch 400"]
    assert rows[1] == ["loss", "1", "0.1429", "0.0025"]
    assert repr(result) == "TrainingResult(400 epochs, 800 steps, best epoch 7, loss 0.0025, accuracy 0.5)"


def test_a_run_that_never_finished_an_epoch_can_be_shown():
    result = TrainingResult(np.zeros(2), np.zeros(2), [], -1, 3, "budget <reached>")
    assert repr(result) == "TrainingResult(0 epochs, 3 steps, stopped: budget <reached>)"
    assert Page(result._repr_html_()).remarks == ["0 epochs, 3 steps, stopped: budget <reached>"]


def test_a_cost_estimate_is_short_however_many_epochs_it_has(shown):
    assert repr(shown["estimate"]) == (
        "CostEstimate(400 steps, 800 jobs, 4,000 circuits, 400,000 shots, QPU time 0:30:00)"
    )
    upper = dataclasses.replace(shown["estimate"], exact=False)
    assert "at most 800 jobs" in repr(upper)


@pytest.mark.parametrize("kind", ["solution", "prediction", "report"])
def test_no_samples_can_be_shown(kind, model):
    none = np.zeros(0)
    empty = {
        "solution": Solution(np.zeros((0, 2)), none, none, none, none, np.zeros((0, 1))),
        "prediction": Prediction(np.zeros((0, 3)), np.zeros((0, 2)), none, none, none),
        "report": ContractionReport(none, none, none, none, none, none),
    }[kind]
    assert repr(empty) == f"{type(empty).__name__}(0 samples)"
    assert "<table>" in empty._repr_html_()


@pytest.mark.parametrize("text", ["<script>alert(1)</script>", 'a & "b"', "<b>", "x > 1 's"])
def test_every_text_is_escaped_and_comes_back_as_it_was(text):
    facts = Page(_html.facts(text, {text: text}, [text]))
    assert facts.rows == [[text, text]]
    assert "".join(facts.remarks) == text
    assert facts.tags == {"table", "caption", "tr", "th", "td", "p"}
    assert Page(_html.grid(text, [text, text], [[text, text]], [text])).rows == [[text, text], [text, text]]
