"""Shapes and integer elements of the operators that work element by element."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import onnx_ir as ir

from vlmpass.ir_tools.operators import broadcasting, keeping_shape
from vlmpass.ir_tools.shapes.algebra import Algebra, Dim, add, mul, sub
from vlmpass.ir_tools.shapes.call import Call
from vlmpass.ir_tools.shapes.known import Known
from vlmpass.ir_tools.shapes.shape_rules import shape_rule

__all__ = ["broadcast"]

_BOUNDS = {ir.DataType.INT32: 2**31, ir.DataType.INT64: 2**63}


def broadcast(algebra: Algebra, shapes: Sequence[tuple[Dim, ...] | None]) -> tuple[Dim, ...] | None:
    """Return the shape that several are broadcast to, None if the rank of one is not known."""
    known = [shape for shape in shapes if shape is not None]
    if len(known) < len(shapes):
        return None
    if not known or known.count(known[0]) == len(known):
        return known[0] if known else ()
    rank = max(map(len, known))
    padded = [(1,) * (rank - len(shape)) + shape for shape in known]
    return tuple(algebra.broadcast(dims) for dims in zip(*padded, strict=True))


def _spread(items: tuple[Dim, ...] | None, count: int) -> tuple[Dim, ...] | None:
    """Return the elements of a scalar or vector broadcast to a number of elements."""
    if items is None or len(items) == count:
        return items
    return items * count if len(items) == 1 else None


@shape_rule(" ".join(keeping_shape()))
@shape_rule(
    "Gelu FastGelu BiasGelu QuickGelu RotaryEmbedding MRotaryEmbedding MoE QMoE", "com.microsoft"
)
@shape_rule("SimplifiedLayerNormalization", "com.microsoft")
def _same(call: Call) -> Known:
    """Say that the first output is shaped like the first input."""
    return Known(call.shape(0))


@shape_rule(" ".join(broadcasting() - keeping_shape()))
def _broadcast(call: Call) -> Known:
    shapes = [call.facts[value].shape for value in call.node.inputs if value is not None]
    return Known(broadcast(call.algebra, shapes))


_Compute: TypeAlias = "Callable[[Call, tuple[Dim, ...]], Dim | None]"


def element_rule(operators: str) -> Callable[[_Compute], _Compute]:
    """Make a rule of a function that computes an element from one of every operand."""

    def enter(compute: _Compute) -> _Compute:
        shape_rule(operators)(lambda call: _computed(call, compute))
        return compute

    return enter


def _computed(call: Call, compute: _Compute) -> Known:
    shape = _broadcast(call).shape
    static = Known(shape).static
    if static is None or len(static) > 1:
        return Known(shape)
    rows = []
    for index in range(len(call.node.inputs)):
        items = _spread(call.elements(index), math.prod(static))
        if items is None:
            return Known(shape)
        rows.append(items)
    results = [compute(call, column) for column in zip(*rows, strict=True)]
    kept = tuple(item for item in results if item is not None)
    return Known(shape, kept if len(kept) == len(results) else None)


def _wraps(call: Call) -> bool:
    """Whether products of sizes may be too large for the element type."""
    value = call.input(0)
    return value is None or call.facts.dtype(value) != ir.DataType.INT64


@element_rule("Add Sum")
def _add(call: Call, items: tuple[Dim, ...]) -> Dim | None:
    total: Dim = 0
    for item in items:
        total = add(total, item)
    return total


@element_rule("Sub")
def _sub(call: Call, items: tuple[Dim, ...]) -> Dim | None:
    return sub(items[0], items[1])


@element_rule("Neg")
def _neg(call: Call, items: tuple[Dim, ...]) -> Dim | None:
    return mul(items[0], -1)


@element_rule("Mul")
def _mul(call: Call, items: tuple[Dim, ...]) -> Dim | None:
    if _wraps(call) and not any(isinstance(item, int) for item in items):
        return None
    return mul(items[0], items[1])


@element_rule("Div")
def _div(call: Call, items: tuple[Dim, ...]) -> Dim | None:
    return None if items[1] == 0 else call.algebra.truncdiv(items[0], items[1])


@element_rule("Mod")
def _mod(call: Call, items: tuple[Dim, ...]) -> Dim | None:
    a, b = items
    if b == 0:
        return None
    if call.get_int("fmod", 0):
        return sub(a, mul(b, call.algebra.truncdiv(a, b)))
    return sub(a, mul(b, call.algebra.floordiv(a, b)))


@element_rule("Max")
def _max(call: Call, items: tuple[Dim, ...]) -> Dim | None:
    best = items[0]
    for item in items[1:]:
        best = call.algebra.maximum(best, item)
    return best


@element_rule("Min")
def _min(call: Call, items: tuple[Dim, ...]) -> Dim | None:
    best = items[0]
    for item in items[1:]:
        best = call.algebra.minimum(best, item)
    return best


@element_rule("Abs")
def _abs(call: Call, items: tuple[Dim, ...]) -> Dim | None:
    (item,) = items
    if isinstance(item, int):
        return abs(item)
    return item if call.algebra.nonnegative(item) else None


def _truth(decided: bool | None) -> Dim | None:
    return None if decided is None else int(decided)


@element_rule("Equal")
def _equal(call: Call, items: tuple[Dim, ...]) -> Dim | None:
    return _truth(call.algebra.equal(items[0], items[1]))


@element_rule("Less")
def _less(call: Call, items: tuple[Dim, ...]) -> Dim | None:
    return _truth(call.algebra.less(items[0], items[1]))


@element_rule("Greater")
def _greater(call: Call, items: tuple[Dim, ...]) -> Dim | None:
    return _truth(call.algebra.less(items[1], items[0]))


def _opposite(decided: Dim | None) -> Dim | None:
    return None if decided is None else sub(1, decided)


@element_rule("Not")
def _not(call: Call, items: tuple[Dim, ...]) -> Dim | None:
    return _opposite(items[0])


@element_rule("GreaterOrEqual")
def _not_less(call: Call, items: tuple[Dim, ...]) -> Dim | None:
    return _opposite(_less(call, items))


@element_rule("LessOrEqual")
def _not_greater(call: Call, items: tuple[Dim, ...]) -> Dim | None:
    return _opposite(_greater(call, items))


@element_rule("And")
def _and(call: Call, items: tuple[Dim, ...]) -> Dim | None:
    return mul(items[0], items[1])


@element_rule("Or")
def _or(call: Call, items: tuple[Dim, ...]) -> Dim | None:
    return sub(add(items[0], items[1]), mul(items[0], items[1]))


@element_rule("Where")
def _where(call: Call, items: tuple[Dim, ...]) -> Dim | None:
    condition, yes, no = items
    if yes == no:
        return yes
    return (yes if condition else no) if isinstance(condition, int) else None


@shape_rule("Cast")
def _cast(call: Call) -> Known:
    """Keep elements that the target type holds."""
    shape = call.shape(0)
    target = ir.DataType(call.get_int("to", 0))
    items = call.elements(0)
    if items is None or target not in (ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL):
        return Known(shape)
    if target == ir.DataType.BOOL:
        truths = [call.algebra.equal(item, 0) for item in items]
        decided = tuple(int(not truth) for truth in truths if truth is not None)
        return Known(shape, decided if len(decided) == len(items) else None)
    limit = _BOUNDS[target]
    numbers = [item for item in items if isinstance(item, int)]
    if any(not -limit <= number < limit for number in numbers):
        return Known(shape)
    if target == ir.DataType.INT32 and not all(_is_size(call.algebra, item) for item in items):
        return Known(shape)
    return Known(shape, items)


def _is_size(algebra: Algebra, item: Dim) -> bool:
    """Whether an element is a number or the size of an axis, which is below 2**31."""
    if isinstance(item, int):
        return True
    return item.atom is not None and algebra.atoms[item.atom].operation == "dim"


@shape_rule("Identity")
def _identity(call: Call) -> Known:
    return call.known(0)


@shape_rule("Dropout")
def _dropout(call: Call) -> Sequence[Known]:
    return [Known(call.shape(0))] * 2


@shape_rule("Clip")
def _clip(call: Call) -> Known:
    shape = call.shape(0)
    items = call.elements(0)
    if items is None or call.opset < 11:
        return Known(shape)
    low, high = call.elements(1), call.elements(2)
    if (call.has(1) and low is None) or (call.has(2) and high is None):
        return Known(shape)
    for index, item in enumerate(items):
        if low is not None:
            item = call.algebra.maximum(item, low[0])
        if high is not None:
            item = call.algebra.minimum(item, high[0])
        items = (*items[:index], item, *items[index + 1 :])
    return Known(shape, items)
