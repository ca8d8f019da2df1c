"""Rotations as encoders: the multilinear closed form and clustered sweeps, against Statevector and the columns route."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import central_difference, random_circuit, random_observables, relative_error, statevector_values
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector

from qiskit_qdeq.circuits import AngleEncoder, CircuitTemplate, paper_ansatz
from qiskit_qdeq.equilibrium import Broyden, Newton, solve
from qiskit_qdeq.equilibrium.iteration import Iteration
from qiskit_qdeq.evaluation.bloch import ProductLayout
from qiskit_qdeq.evaluation.clusters import ClusteredProgram
from qiskit_qdeq.evaluation.columns import ColumnEvaluator
from qiskit_qdeq.evaluation.encodings import ProductEncoding
from qiskit_qdeq.evaluation.exact import exact_evaluator
from qiskit_qdeq.evaluation.observables import Observables
from qiskit_qdeq.evaluation.product import ProductEvaluator
from qiskit_qdeq.evaluation.program import GateProgram
from qiskit_qdeq.evaluation.protocol import Cotangent

SEEDS = st.integers(0, 2**32 - 1)


def random_problem(seed, num_qubits, *, readout=None, batch=3, gates=14):
    """A layout of any rotations, a dense injection, general observables; samples, states and weights."""
    rng = np.random.default_rng(seed)
    size = int(rng.integers(1, 4 * num_qubits + 1))
    axes = list(rng.choice(list("xyz"), size, p=rng.dirichlet(np.ones(3))))
    encoder = AngleEncoder(axes, rng.integers(num_qubits, size=size).tolist(), num_qubits)
    weights = ParameterVector("w", 4)
    letters = ("IZ", "IXYZ")
    template = CircuitTemplate(
        encoder,
        random_circuit(rng, num_qubits, gates, weights),
        weights=weights,
        state_observables=random_observables(rng, num_qubits, int(rng.integers(1, 8)), letters[rng.integers(2)]),
        readout=readout or random_observables(rng, num_qubits, int(rng.integers(1, 5)), letters[rng.integers(2)]),
    )
    injection = rng.normal(size=(size, template.num_states))
    inputs, state = 2 * rng.normal(size=(batch, size)), rng.uniform(-1, 1, (batch, template.num_states))
    return template, injection, inputs, state, rng.uniform(-3, 3, 4)


def by_columns(template, injection, weights):
    """The evaluator that multiplies columns by U(θ), bound."""
    layout = ProductLayout(*template.encoder.product_axes, template.num_qubits)
    observables = (Observables(template.state_observables), Observables(template.readout_observables))
    program = GateProgram(template.ansatz, template.weights)
    return ColumnEvaluator(program, ProductEncoding(layout), *observables, injection).bind(weights)


@settings(deadline=None, derandomize=True, max_examples=40)
@given(SEEDS, st.integers(1, 4))
def test_values_and_both_jacobians_are_those_of_statevector_for_any_rotations(seed, num_qubits):
    template, injection, inputs, state, weights = random_problem(seed, num_qubits)
    evaluator = exact_evaluator(template, injection)
    assert isinstance(evaluator, ProductEvaluator)
    point = evaluator.bind(weights).map(inputs).at(state)
    moved = inputs + state @ injection.T
    expected = statevector_values(template, moved, weights, template.state_observables)
    features = statevector_values(template, moved, weights, template.readout_observables)
    scale = max(1.0, np.abs(expected).max(), np.abs(features).max())
    np.testing.assert_allclose(point.values, expected, atol=1e-12 * scale, rtol=0)
    np.testing.assert_allclose(point.features, features, atol=1e-12 * scale, rtol=0)
    plain = by_columns(template, injection, weights).map(inputs).at(state)
    cotangent = np.random.default_rng(seed).normal(size=features.shape)
    for name in ("jacobian", "input_jacobian"):
        assert relative_error(getattr(point, name), getattr(plain, name)) < 1e-10, name
    assert relative_error(point.pull_features(cotangent), plain.pull_features(cotangent)) < 1e-10


@settings(deadline=None, derandomize=True, max_examples=20)
@given(SEEDS, st.integers(1, 4))
def test_the_compiled_solve_ends_where_the_columns_say_it_does(seed, num_qubits):
    template, injection, inputs, _, weights = random_problem(seed, num_qubits, batch=20)
    problem = exact_evaluator(template, 0.3 * injection).bind(weights).map(inputs)
    solution = solve(problem, Newton(tol=1e-11), on_failure="accept")
    plain = by_columns(template, 0.3 * injection, weights).map(inputs).at(solution.state.copy())
    residual = np.linalg.norm(plain.values - solution.state, axis=1)
    np.testing.assert_allclose(residual, solution.residual, atol=1e-11)
    point = problem.at(solution.state)
    assert relative_error(point.values, plain.values) < 1e-11
    assert relative_error(point.jacobian, plain.jacobian) < 1e-10


@settings(deadline=None, derandomize=True, max_examples=20)
@given(SEEDS, st.integers(1, 4), st.integers(1, 7))
def test_compiled_broyden_takes_the_steps_of_the_general_loop(seed, num_qubits, max_steps):
    template, injection, inputs, state, weights = random_problem(seed, num_qubits, batch=20)
    problem = exact_evaluator(template, 0.3 * injection).bind(weights).map(inputs)
    solver = Broyden(tol=1e-3, rtol=1e-4, max_steps=max_steps)
    general = Iteration(problem, solver, 0.1 * np.resize(state, (20, state.shape[1])), keep_inverse=True).run()
    initial = 0.1 * np.resize(state, (20, state.shape[1]))
    compiled = solve(problem, solver, initial, on_failure="accept", keep_inverse=True)
    for name in ("status", "steps", "evaluations"):
        np.testing.assert_array_equal(getattr(compiled, name), getattr(general, name), name)
    # a small denominator enlarges rounding, in both alike
    for name in ("state", "residual", "trace"):
        np.testing.assert_allclose(getattr(compiled, name), getattr(general, name), atol=1e-7, err_msg=name)
    scale = np.abs(general.inverse).max(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(compiled.inverse / scale, general.inverse / scale, atol=1e-6)


@pytest.mark.parametrize("readout", ["z", "zz", None])
def test_the_weight_gradient_is_that_of_finite_differences_whether_or_not_readouts_are_states(readout):
    rng = np.random.default_rng(8)
    weights = ParameterVector("w", 4)
    template = CircuitTemplate(
        AngleEncoder.layered(7, 3),
        random_circuit(rng, 3, 14, weights),
        weights=weights,
        readout=readout or random_observables(rng, 3, 3),
    )
    injection, inputs = rng.normal(size=(7, 3)), rng.normal(size=(4, 7))
    state, theta = rng.uniform(-1, 1, (4, 3)), rng.uniform(-2, 2, 4)
    evaluator = exact_evaluator(template, injection)
    values, features = rng.normal(size=(4, 3)), rng.normal(size=(4, template.num_readouts))

    def scalar(t):
        point = evaluator.bind(t).map(inputs).at(state)
        return np.sum(values * point.values) + np.sum(features * point.features)

    problem = evaluator.bind(theta).map(inputs)
    found = problem.pull_back([Cotangent(problem.at(state), values=values, features=features)])
    assert relative_error(found, central_difference(scalar, theta)) < 1e-6


def test_a_sample_is_the_same_to_the_last_bit_whatever_its_batch_mates():
    template, injection, inputs, state, weights = random_problem(5, 4, batch=150)
    bound = exact_evaluator(template, injection).bind(weights)
    cotangent = np.random.default_rng(0).normal(size=(150, template.num_readouts))

    def results(rows):
        problem = bound.map(inputs[rows])
        solution = solve(problem, "newton", state[rows], on_failure="accept")
        point = problem.at(solution.state)
        return (
            solve(problem, "broyden", state[rows], on_failure="accept").state,
            solution.state, solution.status, solution.evaluations, point.values, point.jacobian, point.features,
            point.input_jacobian, point.implicit_term(cotangent[rows]).values,
        )  # fmt: skip

    together = results(np.arange(150))
    for rows in (np.array([3]), np.array([149, 0, 70]), np.arange(149, -1, -1)):
        for all_rows, some in zip(together, results(rows), strict=True):
            np.testing.assert_array_equal(all_rows[rows], some)


def test_only_components_that_rotations_reach_are_kept():
    axes = {"z": [], "y": [0, 2], "x": [1, 2], "yz": [0, 1, 2], "zzx": [1, 2], "xx": [1, 2], "zxy": [0, 1, 2]}
    for letters, reached in axes.items():
        layout = ProductLayout(np.array(["xyz".index(a) for a in letters]), np.zeros(len(letters), dtype=int), 2)
        assert layout.dims.tolist() == ([1 + len(reached)] if reached else [])
        assert [s for slots in layout.slots for s in slots if s >= 0] == reached
    paper = ProductLayout(*AngleEncoder.paper(10).product_axes, 10)
    assert (paper.wires, paper.size, len(paper.axes)) == ([0, 1, 3, 4, 6, 7, 9], 3**7, 7)


def test_angles_of_any_size_are_reduced_to_full_precision():
    template = CircuitTemplate(AngleEncoder("y", [0], 1), rotation_free())
    inputs = np.concatenate([np.linspace(-400, 400, 3001), [1e5, 1.1e5, -3e7, 1e15, 1e300]])[:, None]
    problem = exact_evaluator(template, np.zeros((1, 1))).bind(np.zeros(1)).map(inputs)
    np.testing.assert_allclose(problem.at(np.zeros((len(inputs), 1))).values, np.cos(inputs), atol=1e-15)


def rotation_free():
    circuit = QuantumCircuit(1)
    circuit.rz(ParameterVector("w", 1)[0], 0)
    return circuit


@settings(deadline=None, derandomize=True, max_examples=20)
@given(SEEDS, st.integers(1, 5), st.integers(0, 12))
def test_clusters_evolved_apart_give_the_columns_and_the_gradient_of_one_sweep(seed, num_qubits, num_gates):
    rng = np.random.default_rng(seed)
    parameters = ParameterVector("w", 3)
    circuit = random_circuit(rng, num_qubits, num_gates, parameters)
    circuit.barrier()
    theta = rng.uniform(-3, 3, 3)
    live = sorted(rng.choice(num_qubits, rng.integers(num_qubits + 1), replace=False).tolist(), reverse=True)
    phases = {qubit: rng.choice([1, -1j]) for qubit in live}
    columns, weight = np.zeros(1, dtype=int), np.ones(1, dtype=complex)
    for qubit in live:
        columns = np.add.outer(columns, [0, 1 << qubit]).ravel()
        weight = np.outer(weight, [1, phases[qubit]]).ravel()
    start = np.zeros((2**num_qubits, len(columns)), dtype=complex)
    start[columns, np.arange(len(columns))] = weight
    plain = GateProgram(circuit, parameters).bind(theta)
    expected = plain.apply(np.stack([start.real, start.imag]))
    bound = ClusteredProgram(circuit, parameters, phases, np.float64).bind(theta)
    np.testing.assert_allclose(bound.matrix, expected, atol=1e-13)
    cotangents = rng.normal(size=expected.shape)
    gradient = plain.pull_back(expected.copy(), cotangents.copy())
    np.testing.assert_allclose(bound.pull_back(cotangents.copy()), gradient, atol=1e-12)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_papers_ten_qubits_give_the_columns_routes_values_and_gradient(dtype):
    rng = np.random.default_rng(3)
    template = CircuitTemplate(AngleEncoder.paper(10), paper_ansatz(10), readout="zz")
    injection = np.repeat(np.eye(10), 10, axis=0) / 10
    theta = rng.uniform(-3, 3, template.num_weights)
    inputs, state = rng.normal(size=(5, 100)), rng.uniform(-1, 1, (5, 10))
    tolerance = 1e-11 if dtype == "float64" else 2e-5
    problem = exact_evaluator(template, injection, dtype).bind(theta).map(inputs)
    plain = by_columns(template, injection, theta).map(inputs)
    point, other = problem.at(state), plain.at(state)
    for name in ("values", "features", "jacobian"):
        assert relative_error(getattr(point, name), getattr(other, name)) < tolerance, name
    values, features = rng.normal(size=(5, 10)), rng.normal(size=(5, template.num_readouts))
    assert relative_error(point.pull_features(features), other.pull_features(features)) < tolerance
    found = problem.pull_back([Cotangent(point, values=values, features=features.astype(dtype))])
    expected = plain.pull_back([Cotangent(other, values=values, features=features)])
    assert relative_error(found, expected) < tolerance
