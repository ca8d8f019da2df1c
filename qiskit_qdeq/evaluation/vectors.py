"""A numba type for sixteen double-precision numbers that are computed with together.

Loops over lanes that the compiler has to turn into vector instructions by itself take seconds to compile and often stay
scalar, because rows of one working array might overlap. With `Vector` a kernel says what it means:

    total += quadratic[j, k, l] * load(t, l * LANES)         sixteen samples at once

`+ - * /` work between vectors and with plain numbers. Every operation is one instruction in the kernel itself: nothing is
called, so a kernel gives the same bits whether it was just compiled or loaded from the cache.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.errors import TypingError
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

#: Numbers in a vector: two registers of the widest processors, so that one waits while the other computes.
LANES = 16

_DOUBLE = ir.DoubleType()
_VECTOR = ir.VectorType(_DOUBLE, LANES)
_CONTRACT = ("contract",)


class Vector(types.Type):  # type: ignore[misc]
    """The type of sixteen doubles."""

    def __init__(self) -> None:
        super().__init__(name="Vector")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _VECTOR)


_VECTOR_TYPE = Vector()


def spread(builder: Any, number: Any, kind: Any = _VECTOR) -> Any:
    """A number in every place of a vector."""
    blank = ir.Constant(kind, ir.Undefined)
    single = builder.insert_element(blank, number, ir.IntType(32)(0))
    return builder.shuffle_vector(single, blank, ir.VectorType(ir.IntType(32), kind.count)([0] * kind.count))


def pointer(context: Any, builder: Any, kind: Any, array: Any, offset: Any) -> tuple[Any, int]:
    """Pointer to the numbers at `offset` of an array, and their alignment."""
    element = context.get_value_type(kind.dtype)
    data = builder.gep(context.make_array(kind)(context, builder, array).data, [offset])
    return builder.bitcast(data, ir.VectorType(element, LANES).as_pointer()), context.get_abi_sizeof(element)


def _contiguous(kind: Any) -> None:
    if not isinstance(kind, types.Array) or kind.layout != "C":
        raise TypingError(f"vectors are read from and written to contiguous arrays, got {kind}")


@intrinsic  # type: ignore[untyped-decorator]
def load(typing: Any, array: Any, offset: Any) -> tuple[Any, Callable[..., Any]]:
    """`LANES` numbers at `offset` of a contiguous float64 or float32 array, counted as if it were flat."""
    _contiguous(array)

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        place, align = pointer(context, builder, array, *values)
        found = builder.load(place, align=align)
        return found if array.dtype == types.float64 else builder.fpext(found, _VECTOR)

    return signature(_VECTOR_TYPE, array, types.intp), generate


@intrinsic  # type: ignore[untyped-decorator]
def store(typing: Any, array: Any, offset: Any, value: Any) -> tuple[Any, Callable[..., Any]]:
    """`LANES` numbers at `offset` of a contiguous array <- value."""
    _contiguous(array)

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        place, align = pointer(context, builder, array, *values[:2])
        given = values[2]
        if array.dtype != types.float64:
            given = builder.fptrunc(given, ir.VectorType(context.get_value_type(array.dtype), LANES))
        builder.store(given, place, align=align)
        return context.get_dummy_value()

    return signature(types.void, array, types.intp, _VECTOR_TYPE), generate


@intrinsic  # type: ignore[untyped-decorator]
def splat(typing: Any, number: Any) -> tuple[Any, Callable[..., Any]]:
    """The number in all lanes."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return spread(builder, values[0])

    return signature(_VECTOR_TYPE, types.float64), generate


@intrinsic  # type: ignore[untyped-decorator]
def where(typing: Any, left: Any, right: Any, yes: Any, no: Any) -> tuple[Any, Callable[..., Any]]:
    """`yes` in lanes with left <= right, `no` in the others, those with NaN among them."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        a, b, chosen, other = values
        return builder.select(builder.fcmp_ordered("<=", a, b), chosen, other)

    return signature(_VECTOR_TYPE, *[_VECTOR_TYPE] * 4), generate


@intrinsic  # type: ignore[untyped-decorator]
def sqrt(typing: Any, value: Any) -> tuple[Any, Callable[..., Any]]:
    """Square roots."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        kind = ir.FunctionType(_VECTOR, [_VECTOR])
        root = cgutils.get_or_insert_function(builder.module, kind, f"llvm.sqrt.v{LANES}f64")
        return builder.call(root, values)

    return signature(_VECTOR_TYPE, _VECTOR_TYPE), generate


@intrinsic  # type: ignore[untyped-decorator]
def total(typing: Any, value: Any) -> tuple[Any, Callable[..., Any]]:
    """The sum over lanes, halves added until one number is left."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        found, width = values[0], LANES
        while width > 1:
            width //= 2
            halves = [
                builder.shuffle_vector(found, found, ir.VectorType(ir.IntType(32), width)(list(places)))
                for places in (range(width), range(width, 2 * width))
            ]
            found = builder.fadd(*halves)
        return builder.extract_element(found, ir.IntType(32)(0))

    return signature(types.float64, _VECTOR_TYPE), generate


class _Arithmetic(AbstractTemplate):  # type: ignore[misc]
    """Vector with vector or number -> Vector."""

    def generic(self, args: Any, kws: Any) -> Any:
        if len(args) == 2 and Vector in map(type, args):
            return signature(_VECTOR_TYPE, *[a if type(a) is Vector else types.float64 for a in args])
        return None


def _register(symbol: Any, instruction: str) -> None:
    infer_global(symbol)(type(f"_{instruction}", (_Arithmetic,), {"key": symbol}))

    def lower(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        both = [
            value if type(kind) is Vector else spread(builder, value)
            for kind, value in zip(signature.args, values, strict=True)
        ]
        return getattr(builder, instruction)(*both, flags=_CONTRACT)

    for kinds in ((Vector, Vector), (Vector, types.Float), (types.Float, Vector)):
        lower_builtin(symbol, *kinds)(lower)


for _symbols, _instruction in (
    ((operator.add, operator.iadd), "fadd"),
    ((operator.sub, operator.isub), "fsub"),
    ((operator.mul, operator.imul), "fmul"),
    ((operator.truediv, operator.itruediv), "fdiv"),
):
    for _symbol in _symbols:
        _register(_symbol, _instruction)
