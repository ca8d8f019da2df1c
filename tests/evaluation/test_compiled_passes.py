"""The vector type, and the compiled passes of large minibatches against the NumPy path that small ones take."""

from __future__ import annotations

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import random_circuit
from qiskit.circuit import ParameterVector
from qiskit.quantum_info import SparsePauliOp

from qiskit_qdeq.circuits import AmplitudeEncoder, CircuitTemplate
from qiskit_qdeq.equilibrium import Newton, solve
from qiskit_qdeq.evaluation.exact import exact_evaluator
from qiskit_qdeq.evaluation.linear import solve_adjoint
from qiskit_qdeq.evaluation.vectors import LANES, load, splat, sqrt, store, total, where


@numba.njit
def _compute(x, y, out):
    a, b = load(x, 0), load(y, 3)
    c = 2.0 * a - b / (a * a + 1.0)
    c += splat(0.5)
    store(out, 0, where(a, b, sqrt(c * c), c))
    return total(c)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_vector_arithmetic_is_numpys_lane_by_lane(dtype):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=LANES).astype(dtype), rng.normal(size=LANES + 3).astype(dtype)
    x[5], out = np.nan, np.zeros(LANES, dtype)
    found = _compute(x, y, out)
    a, b = x.astype(float), y[3:].astype(float)
    c = 2 * a - b / (a * a + 1) + 0.5
    np.testing.assert_allclose(out, np.where(a <= b, np.abs(c), c), rtol=1e-14 if dtype == "float64" else 1e-6)
    assert np.isnan(found)
    x[5] = 0.25
    a = x.astype(float)
    assert _compute(x, y, out) == pytest.approx(np.sum(2 * a - b / (a * a + 1) + 0.5), rel=1e-12)


def _problem(seed, batch, readout):
    rng = np.random.default_rng(seed)
    weights = ParameterVector("w", 4)
    template = CircuitTemplate(AmplitudeEncoder(7, 3), random_circuit(rng, 3, 15, weights), readout=readout)
    injection = 0.2 * rng.normal(size=(7, 3))
    bound = exact_evaluator(template, injection).bind(rng.uniform(-3, 3, template.num_weights))
    return bound, rng.normal(size=(batch, 7)), rng.normal(size=(batch, template.num_readouts))


def _implicit(problem, cotangent):
    solution = solve(problem, Newton(tol=1e-12), on_failure="accept", keep_trace=False)
    point = problem.at(solution.state)
    term = point.implicit_term(cotangent)
    return solution.state, point.features, point.columns, term.values, problem.pull_back([term])


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1), st.integers(LANES, 5 * LANES), st.booleans())
def test_a_large_minibatch_gives_what_its_samples_give_alone(seed, batch, mixed):
    """Sizes that do and do not fill the last vector; readouts that are products of Z and sums of them."""
    sums = [SparsePauliOp(["ZZI", "IIZ"], [0.5, -0.25]), SparsePauliOp("ZIZ"), SparsePauliOp(["III", "ZII"], [1, 2])]
    bound, inputs, cotangent = _problem(seed, batch, sums if mixed else "zz")
    state, features, columns, adjoint, gradient = _implicit(bound.map(inputs), cotangent)
    summed = np.zeros_like(gradient)
    for row in range(batch):
        one = slice(row, row + 1)
        alone = _implicit(bound.map(inputs[one]), cotangent[one])
        summed += alone[4]
        np.testing.assert_allclose(state[row], alone[0][0], atol=1e-11)
        np.testing.assert_allclose(features[row], alone[1][0], atol=1e-11)
        np.testing.assert_allclose(columns[..., row], alone[2][..., 0], atol=1e-10)
        np.testing.assert_allclose(adjoint[row], alone[3][0], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(gradient, summed, rtol=1e-9, atol=1e-9 * max(1.0, np.abs(summed).max()))


def test_a_matrix_that_needs_exchanges_is_solved_beside_others_that_do_not():
    rng = np.random.default_rng(1)
    jacobian, cotangent = rng.normal(size=(2 * LANES + 5, 3, 3)), rng.normal(size=(2 * LANES + 5, 3))
    # 1 - Jᵀ with a zero in the first pivot
    jacobian[7, 0, 0] = 1.0
    found = solve_adjoint(jacobian, cotangent)
    expected = np.linalg.solve(np.eye(3) - np.swapaxes(jacobian, 1, 2), cotangent[..., None])[..., 0]
    np.testing.assert_allclose(found, expected, rtol=1e-7)
