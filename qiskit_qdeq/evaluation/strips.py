"""Complex arithmetic on strips of eight columns, written as vector instructions.

A strip is a flat array: row i of 2**n has its eight real parts at 16 i, its eight imaginary parts behind them. Left to
itself the compiler cannot know that the rows a gate mixes do not overlap and copies them one by one; said outright, the
sweeps run at twice the speed, near what the processor can multiply.

    rotate       rows <- G rows                                  (2 or 4 rows)
    correlate    total[a, b] += V_a conj(Λ_b), lane by lane
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from qiskit_qdeq.evaluation.vectors import spread

#: Columns of a strip.
STRIP = 8
_CONTRACT = ("contract",)


class _Strip:
    """A flat array inside generated code, read and written eight numbers at a time."""

    def __init__(self, context: Any, builder: Any, kind: Any, value: Any) -> None:
        self._builder = builder
        element = context.get_value_type(kind.dtype)
        self._align = context.get_abi_sizeof(element)
        self._vector = ir.VectorType(element, STRIP)
        self._data = context.make_array(kind)(context, builder, value).data

    def _pointer(self, offset: Any, part: int) -> Any:
        moved = self._builder.add(offset, offset.type(part * STRIP))
        return self._builder.bitcast(self._builder.gep(self._data, [moved]), self._vector.as_pointer())

    def load(self, offset: Any) -> tuple[Any, Any]:
        """Real and imaginary parts of the row at `offset`."""
        re, im = [self._builder.load(self._pointer(offset, part), align=self._align) for part in range(2)]
        return re, im

    def store(self, offset: Any, row: tuple[Any, Any]) -> None:
        for part, value in enumerate(row):
            self._builder.store(value, self._pointer(offset, part), align=self._align)

    def splat(self, index: int) -> Any:
        """Number `index` of the array in all eight places."""
        number = self._builder.load(self._builder.gep(self._data, [ir.IntType(64)(index)]))
        return spread(self._builder, number, self._vector)


def _multiply_add(builder: Any, x: Any, y: Any, total: Any) -> Any:
    product = builder.fmul(x, y, flags=_CONTRACT)
    return product if total is None else builder.fadd(product, total, flags=_CONTRACT)


def _complex_multiply_add(builder: Any, x: tuple[Any, Any], y: tuple[Any, Any], total: Any) -> tuple[Any, Any]:
    """total + x y."""
    re, im = total or (None, None)
    re = _multiply_add(builder, x[0], y[0], re)
    re = _multiply_add(builder, builder.fneg(x[1]), y[1], re)
    im = _multiply_add(builder, x[0], y[1], im)
    im = _multiply_add(builder, x[1], y[0], im)
    return re, im


@intrinsic  # type: ignore[untyped-decorator]
def rotate(typing: Any, strip: Any, offsets: Any, matrix: Any) -> tuple[Any, Callable[..., Any]]:
    """Rows at `offsets` (a tuple of 2 or 4) <- G rows, G the leading corner of `matrix` (4, 4, 2)."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        rows = _Strip(context, builder, strip, values[0])
        gate = _Strip(context, builder, matrix, values[2])
        places = cgutils.unpack_tuple(builder, values[1])
        old = [rows.load(place) for place in places]
        for r, place in enumerate(places):
            total: Any = None
            for s, row in enumerate(old):
                entry = gate.splat(8 * r + 2 * s), gate.splat(8 * r + 2 * s + 1)
                total = _complex_multiply_add(builder, entry, row, total)
            rows.store(place, total)
        return context.get_dummy_value()

    return types.void(strip, offsets, matrix), generate


@intrinsic  # type: ignore[untyped-decorator]
def correlate(typing: Any, states: Any, cotangents: Any, offsets: Any, total: Any) -> tuple[Any, Callable[..., Any]]:
    """total[a, b] += V_a conj(Λ_b) for the rows at `offsets` (2 or 4); `total` is a strip, row 4 a + b."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        left = _Strip(context, builder, states, values[0])
        right = _Strip(context, builder, cotangents, values[1])
        sums = _Strip(context, builder, total, values[3])
        places = cgutils.unpack_tuple(builder, values[2])
        conjugated = [(re, builder.fneg(im)) for re, im in (right.load(place) for place in places)]
        for a, place in enumerate(places):
            row = left.load(place)
            for b, other in enumerate(conjugated):
                at = ir.IntType(64)(2 * STRIP * (4 * a + b))
                sums.store(at, _complex_multiply_add(builder, row, other, sums.load(at)))
        return context.get_dummy_value()

    return types.void(states, cotangents, offsets, total), generate


@numba.njit(inline="always")  # type: ignore[misc]
def gather(columns, first, width, strip):  # type: ignore[no-untyped-def]
    """strip <- columns first..first + width of planar (2, rows, C); the rest of its eight columns is zero."""
    rows = columns.shape[1]
    if width < STRIP:
        for i in range(2 * rows * STRIP):
            strip[i] = 0
    for i in range(rows):
        for part in range(2):
            for c in range(width):
                strip[(2 * i + part) * STRIP + c] = columns[part, i, first + c]


@numba.njit(inline="always")  # type: ignore[misc]
def scatter(strip, columns, first, width):  # type: ignore[no-untyped-def]
    """columns first..first + width of planar (2, rows, C) <- strip."""
    for i in range(columns.shape[1]):
        for part in range(2):
            for c in range(width):
                columns[part, i, first + c] = strip[(2 * i + part) * STRIP + c]
