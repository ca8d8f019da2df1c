"""Results do not depend on the number of threads, and nothing is compiled again in a second process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = """
import sys
import numpy as np
from qiskit.circuit import ParameterVector
from oracles import build_model, random_circuit, random_template
from qiskit_qdeq.evaluation.exact import exact_evaluator
from qiskit_qdeq.evaluation.program import GateProgram
from qiskit_qdeq.evaluation.protocol import Cotangent
from qiskit_qdeq.equilibrium import Newton, solve

found = {}
rng = np.random.default_rng(0)
weights = ParameterVector("w", 5)
circuit, theta = random_circuit(rng, 7, 25, weights), rng.uniform(-2, 2, 5)
columns, cotangents = rng.normal(size=(2, 128, 333)), rng.normal(size=(2, 128, 333))
bound = GateProgram(circuit, weights).bind(theta)
moved = bound.apply(columns.copy())
found["sweep_forward"] = moved.copy()
found["sweep_backward"] = bound.pull_back(moved, cotangents, want_input=True)
found["sweep_cotangents"] = cotangents
for kind in ("amplitude", "angle", "reupload"):
    template = random_template(np.random.default_rng(1), kind, 7)
    shape = template.num_features, template.num_states
    injection = np.random.default_rng(2).normal(size=shape)
    inputs = np.random.default_rng(3).normal(size=(300, shape[0]))
    problem = exact_evaluator(template, injection).bind(np.full(template.num_weights, 0.4)).map(inputs)
    point = problem.at(np.random.default_rng(4).uniform(-1, 1, (300, shape[1])))
    term = Cotangent(point, values=point.values, features=point.features)
    found[kind + "_gradient"] = problem.pull_back([term])
    found[kind + "_jacobian"] = point.jacobian
model = build_model("amplitude")
problem = model.evaluator.bind(np.linspace(-2, 2, 9)).map(np.random.default_rng(5).normal(size=(4000, 6)))
found["newton"] = solve(problem, Newton(tol=1e-9), on_failure="accept").state
np.savez(sys.argv[1], **found)
"""


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    """Results and output of two processes, one after the other, with one and with two threads."""
    results, outputs = [], []
    for threads in ("1", "2"):
        path = tmp_path_factory.mktemp("threads") / f"{threads}.npz"
        tests = str(Path(__file__).parents[1])
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": threads,
            "PYTHONPATH": tests,
            "NUMBA_DEBUG_CACHE": "1",
        }
        run = subprocess.run(
            [sys.executable, "-c", SCRIPT, str(path)],
            check=True,
            env=environment,
            capture_output=True,
            text=True,
        )
        outputs.append(run.stdout + run.stderr)
        with np.load(path) as stored:
            results.append(dict(stored))
    return results, outputs


def test_a_second_process_compiles_nothing_anew(processes):
    _, (_, second) = processes
    assert "data loaded" in second
    assert not [line for line in second.splitlines() if "data saved" in line]


def test_one_and_two_threads_give_the_same_numbers(processes):
    (one, two), _ = processes
    for name in one:
        if name.startswith("sweep"):
            np.testing.assert_array_equal(one[name], two[name], err_msg=name)
        else:
            scale = max(1.0, np.abs(one[name]).max())
            np.testing.assert_allclose(one[name], two[name], atol=1e-12 * scale, rtol=0, err_msg=name)
