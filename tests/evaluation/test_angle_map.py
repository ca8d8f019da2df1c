"""Gate angles as functions of parameters, against Qiskit's own binding and finite differences."""

from __future__ import annotations

import numpy as np
import pytest
from oracles import central_difference, relative_error
from qiskit.circuit import Parameter, ParameterExpression, ParameterVector

from qiskit_qdeq.evaluation.expressions import AngleMap
from qiskit_qdeq.exceptions import InputError

A, B = ParameterVector("a", 2)
C = Parameter("γ")

EXPRESSIONS = {
    "number": 0.25,
    "parameter": A,
    "affine": 2 * A - 0.5 * B + 1,
    "cancelled": A - A + B,
    "cancelled_beside_a_curve": A**2 + B - B,
    "cancelled_curve": A.sin() - A.sin() + B,
    "product": A * B * C,
    "quotient": A / (B + 3),
    "power": A**3 + B**2,
    "fractional_power": (A + 4) ** 0.5,
    "negative_power": (A + 4) ** -2,
    "sin": (A * B).sin(),
    "cos": A.cos() * C,
    "tan": (0.3 * A).tan(),
    "arcsin": (0.3 * A).arcsin(),
    "arccos": (0.3 * A).arccos(),
    "arctan": (A + B).arctan(),
    "exp": (0.5 * A).exp(),
    "log": (A * A + 1).log(),
    "abs": (A * B).abs(),
    "abs_of_parameter": abs(A),
    "nested": ((A.sin() + 2).log() * B).exp() - C,
    "zz_feature_map": 2 * (np.pi - A) * (np.pi - B),
}


def bound(expression, values):
    if not isinstance(expression, ParameterExpression):
        return expression
    return float(expression.bind({p: v for p, v in zip((A, B, C), values, strict=True) if p in expression.parameters}))


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_angles_and_slopes_are_those_of_the_bound_expression(name):
    expression = EXPRESSIONS[name]
    angles = AngleMap([expression], [A, B, C])
    for values in ([0.4, 1.2, -0.7], [-0.9, 0.3, 0.1]):
        point = np.array(values)
        np.testing.assert_allclose(angles(point), [bound(expression, point)], atol=1e-13)
        expected = central_difference(lambda p: [bound(expression, p)], point)
        assert relative_error(angles.jacobian(point), expected) < 1e-8
        assert relative_error(angles.pull_back(point, np.array([2.0])), 2 * expected[0]) < 1e-8


def test_many_samples_are_mapped_at_once_and_row_by_row():
    expressions = [expression for name, expression in EXPRESSIONS.items() if not name.startswith("abs")]
    angles = AngleMap(expressions, [C, A, B])
    values = np.random.default_rng(0).uniform(-0.9, 0.9, (5, 3))
    together, slopes = angles(values), angles.jacobian(values)
    assert together.shape == (5, len(expressions))
    assert slopes.shape == (5, len(expressions), 3)
    for row in range(5):
        expected = [bound(expression, values[row][[1, 2, 0]]) for expression in expressions]
        np.testing.assert_allclose(together[row], expected, atol=1e-13)
        np.testing.assert_allclose(slopes[row], angles.jacobian(values[row]), atol=1e-13)


def test_whether_a_map_is_affine_is_told_by_its_expressions():
    assert AngleMap([EXPRESSIONS["affine"], EXPRESSIONS["cancelled"], 0.3], [A, B]).is_affine
    assert not AngleMap([A, A * B], [A, B]).is_affine


def test_a_parameter_that_is_not_listed_is_an_error_that_names_it():
    with pytest.raises(InputError, match="γ"):
        AngleMap([A + C], [A, B])


def test_a_parameter_in_an_exponent_is_right_or_an_input_error():
    """Qiskit's own symbolic form of a number to the power of a parameter does not exist."""
    try:
        angles = AngleMap([2 ** (A * 0.5)], [A])
    except InputError:
        return
    np.testing.assert_allclose(angles(np.array([3.0])), [2**1.5], atol=1e-12)
    np.testing.assert_allclose(angles.jacobian(np.array([3.0])), [[0.5 * np.log(2) * 2**1.5]], atol=1e-12)
