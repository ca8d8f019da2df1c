"""Gate angles as functions of parameters, vectorised over samples, with their derivatives.

Qiskit gates hold `ParameterExpression`s. `AngleMap` turns a list of them into α(p) and ∂α/∂p for arrays of parameter
values. Affine expressions (nearly all circuits) become one matrix product; anything else is evaluated by walking the
expression's SymPy tree with NumPy functions, so that no code is ever generated or executed from a circuit. Outside of
an expression's domain (log, arccos, 1/p, ...) samples get NaN, which is reported per sample by those who know it; weights,
shared by all samples, are refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import numpy as np
from qiskit.circuit import Parameter, ParameterExpression

from qiskit_qdeq.exceptions import InputError

Array = np.ndarray[Any, np.dtype[Any]]

_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "exp": np.exp,
    "log": np.log,
    "Abs": np.abs,
    "sign": np.sign,
    "re": np.real,
    "im": np.imag,
    "conjugate": np.conj,
}


class AngleMap:
    """Angles α_g(p) of the gates of a circuit and their derivatives with respect to the parameters p.

    Args:
        expressions: one number or `ParameterExpression` per gate angle.
        parameters: the parameters, in the order of the columns of the values given later.

    Raises:
        InputError: if an expression is not real, has no derivative, holds a parameter that is not listed, or a function
            that has no NumPy counterpart.
    """

    def __init__(self, expressions: Sequence[float | ParameterExpression], parameters: Sequence[Parameter]) -> None:
        self.num_angles = len(expressions)
        self.num_parameters = len(parameters)
        index = {parameter: i for i, parameter in enumerate(parameters)}
        self._matrix = np.zeros((self.num_angles, self.num_parameters))
        self._offset = np.zeros(self.num_angles)
        self._curved: list[tuple[int, Any, list[tuple[int, Any]]]] = []
        self._names: dict[str, int] = {}
        for row, expression in enumerate(expressions):
            if not isinstance(expression, ParameterExpression):
                self._offset[row] = float(expression)
                continue
            unknown = [p.name for p in expression.parameters if p not in index]
            if unknown:
                raise InputError(f"gate angle {expression} holds parameters {unknown} that are not listed")
            self._add(row, expression, index)
        self.is_affine = not self._curved

    def _add(self, row: int, expression: ParameterExpression, index: dict[Parameter, int]) -> None:
        linear = {p: _slope(expression, p) for p in expression.parameters}
        if any(isinstance(slope, ParameterExpression) and slope.parameters for slope in linear.values()):
            self._names.update({p.name: index[p] for p in expression.parameters})
            tree = _real_tree(expression)
            slopes = [(index[p], tree.diff(_symbol(p.name))) for p in expression.parameters]
            with np.errstate(all="ignore"):
                for _, slope in slopes:
                    self._walk(slope, np.ones(self.num_parameters))
            self._curved.append((row, tree, slopes))
            return
        for parameter, slope in linear.items():
            self._matrix[row, index[parameter]] = _real(slope, expression)
        at_zero = expression.bind(dict.fromkeys(expression.parameters, 0.0))
        self._offset[row] = _real(at_zero, expression)

    def __call__(self, values: Array) -> Array:
        """α for parameter values (..., P); returns (..., G), NaN where a sample is outside of an angle's domain.

        Raises:
            InputError: for a single set of values (P,) outside of the domain, naming the angle.
        """
        angles: Array = values @ self._matrix.T + self._offset
        with np.errstate(all="ignore"):
            for row, tree, _ in self._curved:
                angles[..., row] = self._walk(tree, values)
        if angles.ndim == 1:
            self._check_domain(angles, values, "is")
        return angles

    def undefined(self, values: Array) -> tuple[int, str] | None:
        """The first sample of `values` (B, P) without an angle, with words that say which angle and at what values."""
        if self.is_affine:
            return None
        rows = [row for row, _, _ in self._curved]
        bad = np.argwhere(~np.isfinite(self(values)[:, rows]))
        if not len(bad):
            return None
        sample = int(bad[0, 0])
        return sample, self._describe(rows[bad[0, 1]], values[sample])

    def _check_domain(self, found: Array, values: Array, verb: str) -> None:
        bad = [row for row, _, _ in self._curved if not math.isfinite(found[row])]
        if bad:
            raise InputError(
                f"{self._describe(bad[0], values)} {verb} not finite: build the gate with an expression that is defined "
                "for all values"
            )

    def _describe(self, row: int, values: Array) -> str:
        tree = next(tree for other, tree, _ in self._curved if other == row)
        at = ", ".join(f"{name} = {values[self._names[name]]:.6g}" for name in sorted(map(str, tree.free_symbols)))
        return f"gate angle {tree} at {at}"

    def jacobian(self, values: Array) -> Array:
        """∂α/∂p for parameter values (..., P); returns (..., G, P), or the constant (G, P) if the map is affine."""
        if self.is_affine:
            return self._matrix
        slopes = np.broadcast_to(self._matrix, (*values.shape[:-1], *self._matrix.shape)).copy()
        with np.errstate(all="ignore"):
            for row, _, derivatives in self._curved:
                for column, tree in derivatives:
                    slopes[..., row, column] = self._walk(tree, values)
        if slopes.ndim == 2:
            self._check_domain(slopes.sum(axis=1), values, "has a derivative that is")
        return slopes

    def pull_back(self, values: Array, gradient: Array) -> Array:
        """∂L/∂p = (∂α/∂p)ᵀ ∂L/∂α at a single set of parameter values (P,)."""
        result: Array = gradient @ self.jacobian(values)
        return result

    def _walk(self, tree: Any, values: Array) -> Any:
        if tree.is_Symbol:
            return values[..., self._names[tree.name]]
        if tree.is_Number or tree.is_NumberSymbol:
            return float(tree)
        arguments = [self._walk(argument, values) for argument in tree.args]
        if tree.is_Add:
            return math.fsum(arguments) if all(map(np.isscalar, arguments)) else sum(arguments)
        if tree.is_Mul:
            return reduce(np.multiply, arguments)
        if tree.is_Pow:
            return np.power(*arguments)
        name = type(tree).__name__
        if name not in _FUNCTIONS:
            raise InputError(f"gate angle holds the function {name!r}, which this package cannot evaluate")
        return _FUNCTIONS[name](*arguments)


def _slope(expression: ParameterExpression, parameter: Parameter) -> Any:
    try:
        return expression.gradient(parameter)
    except RuntimeError as error:
        raise InputError(f"gate angle {expression} cannot be differentiated: {error}") from None


def _real(number: Any, expression: ParameterExpression) -> float:
    value = complex(number)
    if value.imag:
        raise InputError(f"gate angle {expression} is complex: gate angles must be real")
    return value.real


def _symbol(name: str) -> Any:
    import sympy

    return sympy.Symbol(name, real=True)


def _real_tree(expression: ParameterExpression) -> Any:
    """The expression's SymPy tree with real symbols, without which |a| would have no derivative."""
    import sympy

    tree = expression.sympify()
    if not hasattr(tree, "free_symbols"):
        raise InputError(f"gate angle {expression} cannot be differentiated: Qiskit has no symbolic form of it")
    if tree.has(sympy.I):
        raise InputError(f"gate angle {expression} is complex: gate angles must be real")
    return tree.subs({symbol: _symbol(symbol.name) for symbol in tree.free_symbols})
