"""Gate angles as functions of parameters, vectorised over samples, with their derivatives.

Qiskit gates hold `ParameterExpression`s. `AngleMap` turns a list of them into α(p) and ∂α/∂p for arrays of parameter
values. Affine expressions (nearly all circuits) become one matrix product; anything else is evaluated by walking the
expression's SymPy tree with NumPy functions, so that no code is ever generated or executed from a circuit.
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
        InputError: if an expression holds a parameter that is not listed, or a function that has no NumPy counterpart.
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
        linear = {p: expression.gradient(p) for p in expression.parameters}
        if any(isinstance(slope, ParameterExpression) and slope.parameters for slope in linear.values()):
            self._names.update({p.name: index[p] for p in expression.parameters})
            tree = _real_tree(expression)
            slopes = [(index[p], tree.diff(_symbol(p.name))) for p in expression.parameters]
            for _, slope in slopes:
                self._walk(slope, np.ones(self.num_parameters))
            self._curved.append((row, tree, slopes))
            return
        for parameter, slope in linear.items():
            self._matrix[row, index[parameter]] = float(np.real(complex(slope)))
        at_zero = expression.bind(dict.fromkeys(expression.parameters, 0.0))
        self._offset[row] = float(np.real(complex(at_zero)))

    def __call__(self, values: Array) -> Array:
        """α for parameter values (..., P); returns (..., G)."""
        angles: Array = values @ self._matrix.T + self._offset
        for row, tree, _ in self._curved:
            angles[..., row] = self._walk(tree, values)
        return angles

    def jacobian(self, values: Array) -> Array:
        """∂α/∂p for parameter values (..., P); returns (..., G, P), or the constant (G, P) if the map is affine."""
        if self.is_affine:
            return self._matrix
        slopes = np.broadcast_to(self._matrix, (*values.shape[:-1], *self._matrix.shape)).copy()
        for row, _, derivatives in self._curved:
            for column, tree in derivatives:
                slopes[..., row, column] = self._walk(tree, values)
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


def _symbol(name: str) -> Any:
    import sympy

    return sympy.Symbol(name, real=True)


def _real_tree(expression: ParameterExpression) -> Any:
    """The expression's SymPy tree with real symbols, without which |a| would have no derivative."""
    tree = expression.sympify()
    if not hasattr(tree, "free_symbols"):
        raise InputError(f"gate angle {expression} cannot be differentiated: Qiskit has no symbolic form of it")
    return tree.subs({symbol: _symbol(symbol.name) for symbol in tree.free_symbols})
