"""The exact evaluator against Qiskit's Statevector and central differences."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from oracles import (
    FIXED,
    ROTATIONS,
    append_gate,
    central_difference,
    random_circuit,
    random_encoder,
    random_observables,
    random_template,
    relative_error,
    statevector_values,
)
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.quantum_info import SparsePauliOp

from qiskit_qdeq.circuits import AmplitudeEncoder, AngleEncoder, CircuitTemplate, correlators, paper_ansatz
from qiskit_qdeq.equilibrium import Newton, solve
from qiskit_qdeq.evaluation.exact import exact_evaluator
from qiskit_qdeq.evaluation.protocol import Cotangent
from qiskit_qdeq.exceptions import InputError

KINDS = ["amplitude", "padded", "layered", "angle", "zz", "reupload"]
SEEDS = st.integers(0, 2**32 - 1)


def problem_of(seed, kind, num_qubits, *, batch=3, dtype="float64", **options):
    """A random template, weights, injection, samples and states."""
    rng = np.random.default_rng(seed)
    template = random_template(rng, kind, num_qubits, **options)
    weights = rng.uniform(-2, 2, template.num_weights)
    injection = 0.5 * rng.normal(size=(template.num_features, template.num_states))
    inputs = rng.normal(size=(batch, template.num_features)) + 0.5
    state = rng.uniform(-1, 1, (batch, template.num_states))
    return template, weights, injection, inputs, state, exact_evaluator(template, injection, dtype)


def assert_matches_statevector(template, weights, injection, inputs, state, evaluator, tolerance=1e-12):
    problem = evaluator.bind(weights).map(inputs)
    for q in (state, np.zeros_like(state)):
        moved = inputs + q @ injection.T
        point = problem.at(q)
        expected = statevector_values(template, moved, weights, template.state_observables)
        features = statevector_values(template, moved, weights, template.readout_observables)
        scale = max(1.0, np.abs(expected).max(), np.abs(features).max())
        np.testing.assert_allclose(point.values, expected, atol=tolerance * scale, rtol=0)
        np.testing.assert_allclose(point.features, features, atol=tolerance * scale, rtol=0)
        rows = np.arange(len(inputs))[::-1][:-1]
        evaluation = problem.values(q[rows], rows)
        np.testing.assert_allclose(evaluation.values, expected[rows], atol=tolerance * scale, rtol=0)
        assert evaluation.std_errors is None


@settings(max_examples=60)
@given(SEEDS, st.sampled_from(KINDS), st.integers(1, 5))
def test_values_and_features_are_those_of_statevector(seed, kind, num_qubits):
    if kind == "zz":
        num_qubits = max(num_qubits, 2)
    assert_matches_statevector(*problem_of(seed, kind, num_qubits))


@pytest.mark.parametrize("kind", ["amplitude", "padded", "layered", "angle", "zz", "reupload"])
def test_values_and_features_are_those_of_statevector_beyond_the_dense_matrix(kind):
    assert_matches_statevector(*problem_of(7, kind, 7, batch=2, num_gates=20))


def test_values_and_features_are_those_of_statevector_for_the_papers_angle_encoder():
    assert_matches_statevector(*problem_of(4, "paper", 4))


@pytest.mark.parametrize("encoder", [AmplitudeEncoder(100, 10), AngleEncoder.paper(10)], ids=["amplitude", "angle"])
def test_values_and_features_are_those_of_statevector_at_ten_qubits(encoder):
    rng = np.random.default_rng(10)
    # many strings of one flip mask, some with an odd number of Y: the transform, not the sign table
    labels = ["".join(rng.choice(list("XY"), 2)) + "".join(rng.choice(list("IZ"), 8)) for _ in range(60)]
    readout = [*correlators(10, 3), SparsePauliOp(labels, rng.normal(size=60)), SparsePauliOp("YXZIIYXZIY")]
    template = CircuitTemplate(encoder, paper_ansatz(10), readout=readout)
    injection = rng.normal(size=(100, 10)) / 10
    weights = rng.uniform(-3, 3, template.num_weights)
    inputs, state = rng.normal(size=(2, 100)), rng.uniform(-1, 1, (2, 10))
    evaluator = exact_evaluator(template, injection)
    assert_matches_statevector(template, weights, injection, inputs, state, evaluator)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_qubits", [3, 7])
def test_single_precision_is_good_to_five_digits(kind, num_qubits):
    case = problem_of(32, kind, num_qubits, dtype="float32")
    assert_matches_statevector(*case, tolerance=1e-5)
    _, weights, _, inputs, state, evaluator = case
    assert evaluator.bind(weights).map(inputs).at(state).values.dtype == np.float32


def test_a_batch_large_enough_for_several_threads_gives_the_values_of_single_samples():
    for kind in ("padded", "angle", "reupload"):
        _, weights, _, inputs, state, evaluator = problem_of(5, kind, 5, batch=700)
        bound = evaluator.bind(weights)
        point = bound.map(inputs).at(state)
        for row in (0, 333, 699):
            alone = bound.map(inputs[row : row + 1]).at(state[row : row + 1])
            np.testing.assert_allclose(point.values[row], alone.values[0], atol=1e-13)
            np.testing.assert_allclose(point.features[row], alone.features[0], atol=1e-13)
            np.testing.assert_allclose(point.jacobian[row], alone.jacobian[0], atol=1e-12)


@pytest.mark.parametrize("name", [*ROTATIONS, *FIXED])
def test_every_gate_gives_statevectors_values_and_gradients(name):
    """The gate between Hadamards and rotations, on qubits in both orders, with parameters used repeatedly."""
    size, count = ROTATIONS.get(name) or (FIXED[name], 0)
    weights = ParameterVector("w", max(count, 1))
    circuit = QuantumCircuit(3)
    for qubit in range(3):
        circuit.h(qubit)
        circuit.rz(0.3 + 0.4 * qubit, qubit)
    circuit.ry(0.7 * weights[0] + 0.1, 0)
    for qubits in ([0, 1, 2], [2, 0, 1]):
        append_gate(circuit, name, [1.3 * w - 0.2 for w in weights[:count]], qubits[:size])
        circuit.h(qubits[0])
    template = CircuitTemplate(
        AngleEncoder.layered(3, 3),
        circuit,
        weights=weights,
        readout=random_observables(np.random.default_rng(1), 3, 3),
    )
    theta, inputs = np.linspace(0.4, 1.5, len(weights)), np.array([[0.3, -0.8, 1.1]])
    evaluator = exact_evaluator(template, np.zeros((3, 3)))

    def oracle(values):
        return statevector_values(template, inputs, values, template.readout_observables)[0]

    problem = evaluator.bind(theta).map(inputs)
    point = problem.at(np.zeros((1, 3)))
    np.testing.assert_allclose(point.features[0], oracle(theta), atol=1e-12)
    cotangent = np.array([[1.0, -0.5, 0.25]])
    expected = cotangent[0] @ central_difference(oracle, theta)
    assert relative_error(problem.pull_back([Cotangent(point, features=cotangent)]), expected) < 1e-6


@settings(max_examples=30)
@given(SEEDS, st.sampled_from(KINDS), st.integers(1, 4))
def test_derivatives_with_respect_to_state_and_input_are_those_of_finite_differences(seed, kind, num_qubits):
    if kind == "zz":
        num_qubits = max(num_qubits, 2)
    _, weights, injection, inputs, state, evaluator = problem_of(seed, kind, num_qubits, batch=2)
    # near u = 0 amplitude encoding is ill-conditioned, and finite differences lose the digits asked for
    assume(np.linalg.norm(inputs + state @ injection.T, axis=1).min() > 0.3)
    bound = evaluator.bind(weights)
    problem = bound.map(inputs)
    point = problem.at(state)
    rows = np.arange(2)

    def at_inputs(x):
        return bound.map(x).at(state).values

    def features_at(q):
        return problem.at(q).features

    each = np.einsum("bjbk->bjk", central_difference(lambda q: problem.at(q).values, state))
    assert relative_error(point.jacobian, each) < 1e-6
    evaluation, jacobian = problem.linearize(state[rows[::-1]], rows[::-1])
    assert relative_error(jacobian[::-1], each) < 1e-6
    np.testing.assert_allclose(evaluation.values[::-1], point.values, atol=1e-12)
    slopes = np.einsum("bjbd->bjd", central_difference(at_inputs, inputs))
    assert relative_error(point.input_jacobian, slopes) < 1e-6
    assert relative_error(point.input_jacobian @ injection, point.jacobian) < 1e-10
    cotangent = np.random.default_rng(seed).normal(size=point.features.shape)
    pulled = np.einsum("bf,bfbk->bk", cotangent, central_difference(features_at, state))
    assert relative_error(point.pull_features(cotangent), pulled) < 1e-6
    system = np.eye(state.shape[1]) - np.swapaxes(each, 1, 2)
    if np.linalg.cond(system).max() < 1e3:
        adjoint = np.linalg.solve(system, pulled[:, :, None])[:, :, 0]
        assert relative_error(point.implicit_term(cotangent).values, adjoint) < 1e-5


def scalar(problem, states, terms):
    """The scalar that terms (values, features, directions, slopes) at several states stand for."""
    total = 0.0
    for state, (values, features, directions, slopes) in zip(states, terms, strict=True):
        point = problem.at(state)
        if values is not None:
            total += np.sum(values * point.values)
        if features is not None:
            total += np.sum(features * point.features)
        if directions is not None:
            spread = np.broadcast_to(directions, (problem.batch, *directions.shape[1:]))
            total += np.einsum("bjr,bjd,brd->", slopes, point.input_jacobian, spread)
    return total


@settings(max_examples=30)
@given(SEEDS, st.sampled_from(KINDS), st.integers(1, 4))
def test_weight_gradient_of_any_sum_of_terms_is_that_of_finite_differences(seed, kind, num_qubits):
    if kind == "zz":
        num_qubits = max(num_qubits, 2)
    template, weights, _, inputs, state, evaluator = problem_of(seed, kind, num_qubits, batch=2, num_weights=4)
    rng = np.random.default_rng(seed + 1)
    batch, size, features, width = 2, template.num_states, template.num_readouts, template.num_features
    states = [np.zeros_like(state), state, rng.uniform(-1, 1, state.shape)]
    shared = rng.normal(size=(1, 2, width))
    own = rng.normal(size=(batch, 3, width))
    terms = [
        (rng.normal(size=(batch, size)), None, None, None),
        (None, rng.normal(size=(batch, features)), shared, rng.normal(size=(batch, size, 2))),
        (
            rng.normal(size=(batch, size)),
            rng.normal(size=(batch, features)),
            own,
            rng.normal(size=(batch, size, 3)),
        ),
    ]
    problem = evaluator.bind(weights).map(inputs)
    built = [Cotangent(problem.at(q), *term) for q, term in zip(states, terms, strict=True)]

    def total(theta):
        return scalar(evaluator.bind(theta).map(inputs), states, terms)

    expected = central_difference(total, weights)
    assert relative_error(problem.pull_back(built), expected) < 1e-6
    for q, term in zip(states, terms, strict=True):
        alone = central_difference(lambda t, q=q, c=term: scalar(evaluator.bind(t).map(inputs), [q], [c]), weights)
        assert relative_error(problem.pull_back([Cotangent(problem.at(q), *term)]), alone) < 1e-6


@pytest.mark.parametrize("kind", ["padded", "angle", "reupload"])
def test_weight_gradient_beyond_the_dense_matrix_is_that_of_finite_differences(kind):
    template, weights, _, inputs, state, evaluator = problem_of(3, kind, 7, batch=2, num_weights=3)
    rng = np.random.default_rng(0)
    term = (
        rng.normal(size=(2, template.num_states)),
        rng.normal(size=(2, template.num_readouts)),
        rng.normal(size=(2, 2, template.num_features)),
        rng.normal(size=(2, template.num_states, 2)),
    )
    problem = evaluator.bind(weights).map(inputs)
    expected = central_difference(lambda t: scalar(evaluator.bind(t).map(inputs), [state], [term]), weights)
    assert relative_error(problem.pull_back([Cotangent(problem.at(state), *term)]), expected) < 1e-6


@pytest.mark.parametrize("kind", ["padded", "angle"])
def test_the_same_point_may_be_asked_in_any_order_and_again(kind):
    template, weights, _, inputs, state, evaluator = problem_of(21, kind, 3)
    bound = evaluator.bind(weights)
    features = np.random.default_rng(0).normal(size=(3, template.num_readouts))

    def results(order):
        problem = bound.map(inputs)
        point = problem.at(state)
        found = {
            "values": lambda: point.values,
            "features": lambda: point.features,
            "jacobian": lambda: point.jacobian,
            "input": lambda: point.input_jacobian,
            "pull": lambda: point.pull_features(features),
            "back": lambda: problem.pull_back([Cotangent(point, features=features)]),
        }
        return {name: np.array(found[name]()) for name in order}

    names = ["values", "features", "jacobian", "input", "pull", "back"]
    first, second = results(names), results([*names[::-1], *names])
    for name in names:
        np.testing.assert_allclose(first[name], second[name], atol=1e-12, err_msg=name)


@pytest.mark.parametrize("kind", ["padded", "angle"])
def test_pull_features_is_right_when_the_caller_reuses_the_array(kind):
    template, weights, _, inputs, state, evaluator = problem_of(22, kind, 3)
    problem = evaluator.bind(weights).map(inputs)
    point = problem.at(state)
    cotangent = np.random.default_rng(0).normal(size=(3, template.num_readouts))
    once = point.pull_features(cotangent).copy()
    gradient = problem.pull_back([Cotangent(point, features=cotangent)])
    cotangent *= 2
    np.testing.assert_allclose(point.pull_features(cotangent), 2 * once, atol=1e-12)
    np.testing.assert_allclose(problem.pull_back([Cotangent(point, features=cotangent)]), 2 * gradient, atol=1e-12)


@pytest.mark.parametrize("kind", ["padded", "angle"])
def test_inputs_weights_and_states_given_are_left_as_they_are(kind):
    template, weights, _, inputs, state, evaluator = problem_of(23, kind, 3)
    copies = weights.copy(), inputs.copy(), state.copy()
    problem = evaluator.bind(weights).map(inputs)
    point = problem.at(state)
    problem.pull_back([Cotangent(point, values=np.ones((3, template.num_states)), features=point.features)])
    problem.linearize(state, np.arange(3))
    for kept, now in zip(copies, (weights, inputs, state), strict=True):
        np.testing.assert_array_equal(kept, now)


def solved_point(kind, observables="ZZ", batch=40, max_steps=50):
    """A map, its solution with samples of every status, the point there and at a copy of the same state."""
    rng = np.random.default_rng(1)
    weights = ParameterVector("w", 5)
    letters = "IZ" if observables == "ZZ" else "IXYZ"
    template = CircuitTemplate(
        random_encoder(rng, kind, 3),
        random_circuit(rng, 3, 12, weights),
        weights=weights,
        state_observables=random_observables(rng, 3, 3, letters),
        readout=random_observables(rng, 3, 4, letters),
    )
    injection = 2 * rng.normal(size=(template.num_features, 3))
    inputs = rng.normal(size=(batch, template.num_features))
    bound = exact_evaluator(template, injection).bind(rng.uniform(-2, 2, 5))
    problem, fresh = bound.map(inputs), bound.map(inputs)
    solution = solve(problem, Newton(max_shortenings=2, max_steps=max_steps, rescue_steps=0), on_failure="accept")
    return problem, fresh, solution


@pytest.mark.parametrize("max_steps", [2, 50])
@pytest.mark.parametrize("observables", ["ZZ", "XYZ"])
@pytest.mark.parametrize("kind", ["padded", "angle"])
def test_the_point_at_a_solution_is_the_point_at_its_state_whatever_the_status(kind, observables, max_steps):
    problem, fresh, solution = solved_point(kind, observables, max_steps=max_steps)
    assert len(np.unique(solution.status)) > 1
    kept, plain = problem.at(solution.state), fresh.at(solution.state.copy())
    cotangent = np.random.default_rng(2).normal(size=plain.features.shape)
    for name in ("values", "features", "jacobian", "input_jacobian"):
        assert relative_error(getattr(kept, name), getattr(plain, name)) < 1e-9, name
    assert relative_error(kept.pull_features(cotangent), plain.pull_features(cotangent)) < 1e-9
    well = np.linalg.cond(np.eye(3) - plain.jacobian) < 1e4
    assert (
        relative_error(kept.implicit_term(cotangent).values[well], plain.implicit_term(cotangent).values[well]) < 1e-7
    )


@pytest.mark.parametrize("kind", ["padded", "angle"])
def test_what_is_pulled_back_after_an_adjoint_is_what_the_terms_say(kind):
    """Whatever `adjoint` keeps for the usual next step must not leak into other terms."""
    problem, fresh, solution = solved_point(kind)
    point, plain = problem.at(solution.state), fresh.at(solution.state.copy())
    features = np.random.default_rng(3).normal(size=plain.features.shape)
    values = point.implicit_term(features).values
    other = np.random.default_rng(4).normal(size=features.shape)
    directions = np.random.default_rng(5).normal(size=(1, 2, problem.inputs.shape[1]))
    slopes = np.random.default_rng(6).normal(size=(len(features), 3, 2))
    for term in (
        (values, features),
        (values, None),
        (values, other),
        (None, features),
        (values.copy(), features),
        (values, features, directions, slopes),
    ):
        expected = fresh.pull_back([Cotangent(plain, *(None if part is None else part.copy() for part in term))])
        assert relative_error(problem.pull_back([Cotangent(point, *term)]), expected) < 1e-9
    copies = [Cotangent(plain, values.copy(), features.copy()), Cotangent(plain, None, other)]
    expected = fresh.pull_back(copies)
    assert (
        relative_error(problem.pull_back([Cotangent(point, values, features), Cotangent(point, None, other)]), expected)
        < 1e-9
    )
    values *= 3
    expected = fresh.pull_back([Cotangent(plain, values.copy(), features)])
    assert relative_error(problem.pull_back([Cotangent(point, values, features)]), expected) < 1e-9


@pytest.mark.parametrize("kind", ["padded", "angle"])
def test_a_solution_state_cannot_be_changed_in_place_and_a_changed_copy_is_a_new_state(kind):
    problem, fresh, solution = solved_point(kind)
    with pytest.raises(ValueError, match="read-only"):
        solution.state[:] = 0
    changed = np.clip(solution.state + 0.3, -1, 1)
    kept, plain = problem.at(changed), fresh.at(changed.copy())
    for name in ("values", "features", "jacobian", "input_jacobian"):
        assert relative_error(getattr(kept, name), getattr(plain, name)) < 1e-9, name


def test_amplitude_encoding_does_not_depend_on_the_length_of_the_input_without_feedback():
    template, weights, injection, inputs, _, _ = problem_of(24, "padded", 3)
    bound = exact_evaluator(template, 0 * injection).bind(weights)
    zero = np.zeros((3, injection.shape[1]))
    expected = bound.map(inputs).at(zero).values
    for factor in (-1.0, 1e-3, 1e5):
        np.testing.assert_allclose(bound.map(factor * inputs).at(zero).values, expected, atol=1e-12)


def test_amplitudes_and_rotations_have_a_closed_form_and_other_circuits_have_none():
    for kind in KINDS:
        _, weights, _, inputs, _, evaluator = problem_of(25, kind, 2)
        expected = kind not in {"zz", "reupload"}
        assert hasattr(evaluator.bind(weights).map(inputs), "closed_form") == expected


def test_unknown_dtype_and_misshapen_injection_are_errors():
    rng = np.random.default_rng(0)
    template = random_template(rng, "angle", 2)
    good = np.zeros((template.num_features, template.num_states))
    with pytest.raises(InputError, match=r"dtype .*'float16'"):
        exact_evaluator(template, good, "float16")
    with pytest.raises(InputError, match=r"injection must have shape .*got"):
        exact_evaluator(template, np.zeros((template.num_features + 1, template.num_states)))


def test_a_circuit_of_single_qubit_gates_only_needs_no_entangler():
    weights = ParameterVector("w", 2)
    circuit = QuantumCircuit(3)
    circuit.rx(weights[0], 0)
    circuit.ry(weights[1], 2)
    template = CircuitTemplate(AmplitudeEncoder(5, 3), circuit, weights=weights, readout="zzz")
    rng = np.random.default_rng(2)
    theta, inputs, state = rng.normal(size=2), rng.normal(size=(3, 5)), rng.uniform(-1, 1, (3, 3))
    injection = rng.normal(size=(5, 3))
    assert_matches_statevector(template, theta, injection, inputs, state, exact_evaluator(template, injection))


def test_composite_gates_barriers_and_open_controls_are_unrolled():
    rng = np.random.default_rng(6)
    weights = ParameterVector("w", 3)
    inner = random_circuit(rng, 2, 5, weights[:2])
    circuit = QuantumCircuit(3)
    circuit.append(inner.to_gate(), [2, 0])
    circuit.barrier()
    circuit.append(inner.to_gate().control(1, ctrl_state=0), [1, 0, 2])
    circuit.crx(weights[2], 0, 1, ctrl_state=0)
    circuit.mcp(weights[2] * 0.5, [0, 1], 2)
    template = CircuitTemplate(AmplitudeEncoder(8), circuit, weights=weights)
    theta, inputs, state = rng.normal(size=3), rng.normal(size=(2, 8)), rng.uniform(-1, 1, (2, 3))
    injection = rng.normal(size=(8, 3))
    assert_matches_statevector(template, theta, injection, inputs, state, exact_evaluator(template, injection))


@pytest.mark.parametrize("name", ["p", "rx", "crx", "barrier", "id", "delay"])
def test_a_gate_of_ones_own_is_not_mistaken_for_the_library_gate_of_its_name(name):
    weights = ParameterVector("w", 1)
    inner = QuantumCircuit(2, name=name)
    inner.ry(weights[0], 0)
    inner.cx(0, 1)
    inner.rx(2 * weights[0] + 0.4, 1)
    circuit = QuantumCircuit(2)
    circuit.h(0)
    circuit.append(inner.to_gate(), [0, 1])
    template = CircuitTemplate(AmplitudeEncoder(4), circuit, weights=weights)
    rng = np.random.default_rng(8)
    inputs, state, injection = rng.normal(size=(2, 4)), rng.uniform(-1, 1, (2, 2)), rng.normal(size=(4, 2))
    evaluator = exact_evaluator(template, injection)
    assert_matches_statevector(template, np.array([0.7]), injection, inputs, state, evaluator)
