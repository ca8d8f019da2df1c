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


@pytest.mark.parametrize(
    ("expression", "value", "shown"),
    [
        (A.log(), -1.0, r"log\(a\[0\]\) at a\[0\] = -1"),
        (A.arccos(), 1.5, "acos"),
        (1 / A, 0.0, "not finite"),
        (A**0.5, -2.0, r"\*\*0.5"),
    ],
)
def test_weights_outside_of_the_domain_are_an_error_that_names_the_angle(expression, value, shown):
    angles = AngleMap([B, expression], [A, B])
    assert np.isfinite(angles(np.array([0.5, 1.0]))).all()
    with pytest.raises(InputError, match=shown):
        angles(np.array([value, 1.0]))


def test_weights_where_an_angle_has_no_slope_are_an_error():
    angles = AngleMap([A**0.5], [A])
    np.testing.assert_array_equal(angles(np.array([0.0])), [0.0])
    with pytest.raises(InputError, match="derivative that is not finite"):
        angles.jacobian(np.array([0.0]))


def test_the_first_sample_outside_of_the_domain_is_named_and_the_others_keep_their_angles():
    angles = AngleMap([B, A.log()], [A, B])
    values = np.array([[1.0, 0.0], [2.0, 0.0], [-3.0, 0.0], [-4.0, 0.0]])
    np.testing.assert_allclose(angles(values)[:2, 1], np.log([1.0, 2.0]))
    sample, words = angles.undefined(values)
    assert sample == 2
    assert "a[0] = -3" in words
    assert angles.undefined(values[:2]) is None
    assert AngleMap([A], [A]).undefined(np.array([[np.inf]])) is None


@pytest.mark.parametrize("expression", [A * 1j, A + 1j, (1j * A).exp(), A * B * 1j])
def test_a_complex_angle_is_refused(expression):
    with pytest.raises(InputError, match="is complex"):
        AngleMap([expression], [A, B])


def test_an_angle_without_a_derivative_is_refused():
    with pytest.raises(InputError, match="cannot be differentiated"):
        AngleMap([A.sign()], [A])


def test_imaginary_parts_that_cancel_are_no_obstacle():
    np.testing.assert_array_equal(AngleMap([1j * A * 1j], [A])(np.array([2.0])), [-2.0])
