"""Between which numbers the results of operators lie; of those alone that any type computes alike.

What has a rule here computes the same in every type of integers that holds its operands, its
results and what is noted to come up on the way, such as sums of a part of the elements.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import onnx_ir as ir

from vlmpass.ir_tools.operators import Kind, named
from vlmpass.ir_tools.shapes.algebra import ENDLESS
from vlmpass.ir_tools.shapes.interval import BOOL, Interval, hull, of_type
from vlmpass.ir_tools.shapes.intervals import Ranged, interval_rule

__all__: list[str] = []

_ONE = Interval(1, 1)
_ZERO = Interval(0, 0)


def _is_whole(call: Ranged) -> bool:
    dtype = call.dtype()
    return dtype is not None and dtype.is_integer()


def _of_two(
    compute: Callable[[Interval, Interval], Interval],
) -> Callable[[Ranged], Interval | None]:
    def rule(call: Ranged) -> Interval | None:
        a, b = call.of(0), call.of(1)
        return None if a is None or b is None else compute(a, b)

    return rule


interval_rule("Sub")(_of_two(lambda a, b: a - b))
interval_rule("Mul")(_of_two(lambda a, b: a * b))


@interval_rule("Add Sum")
def _add(call: Ranged) -> Interval | None:
    parts = [each for each in call.operands if each is not None]
    if len(parts) < len(call.operands) or not (_is_whole(call) or len(parts) <= 2):
        return None  # floats round at every step
    total = parts[0]
    for part in parts[1:]:
        total = total + part
        call.passes(total)
    return total


@interval_rule("Div")
def _div(call: Ranged) -> Interval | None:
    a, b = call.of(0), call.of(1)
    return None if a is None or b is None else a.divided(b, whole=_is_whole(call))


@interval_rule("Mod")
def _mod(call: Ranged) -> Interval | None:
    a, b = call.of(0), call.of(1)
    if a is None or b is None or 0 in b or not _is_whole(call):
        return None
    if -1 in b:
        call.passes(-a)  # the quotient, of which hardware fails where the type lacks it
    most = max(abs(b.low), abs(b.high)) - 1
    if call.get_int("fmod", 0):
        return Interval(max(-most, min(a.low, 0)), min(most, max(a.high, 0)))
    if b.low > 0:
        return a if a.low >= 0 and a.high < b.low else Interval(0, most)
    return Interval(-most, 0)


@interval_rule("Neg")
def _neg(call: Ranged) -> Interval | None:
    x = call.of(0)
    return None if x is None else -x


@interval_rule("Abs")
def _abs(call: Ranged) -> Interval | None:
    x = call.of(0)
    if x is None:
        return None
    return Interval(0 if 0 in x else min(abs(x.low), abs(x.high)), max(abs(x.low), abs(x.high)))


@interval_rule("Sign")
def _sign(call: Ranged) -> Interval | None:
    return Interval(-1, 1) if _is_whole(call) else None


@interval_rule("Relu")
def _relu(call: Ranged) -> Interval | None:
    x = call.of(0)
    return None if x is None else _greater(x, _ZERO)


def _greater(a: Interval, b: Interval) -> Interval:
    return Interval(max(a.low, b.low), max(a.high, b.high))


def _lesser(a: Interval, b: Interval) -> Interval:
    return Interval(min(a.low, b.low), min(a.high, b.high))


def _reduced(
    parts: Sequence[Interval | None], choose: Callable[[Interval, Interval], Interval]
) -> Interval | None:
    known = [each for each in parts if each is not None]
    if len(known) < len(parts):
        return None
    found = known[0]
    for each in known[1:]:
        found = choose(found, each)
    return found


@interval_rule("Max")
def _max(call: Ranged) -> Interval | None:
    return _reduced(call.operands, _greater)


@interval_rule("Min")
def _min(call: Ranged) -> Interval | None:
    return _reduced(call.operands, _lesser)


@interval_rule("Clip")
def _clip(call: Ranged) -> Interval | None:
    x, low, high = call.of(0), call.of(1), call.of(2)
    if x is None or call.attribute("min") or call.attribute("max"):
        return None
    if call.has(1):
        x = None if low is None else _greater(x, low)
    if call.has(2):
        x = None if high is None or x is None else _lesser(x, high)
    return x


@interval_rule("Where")
def _where(call: Ranged) -> Interval | None:
    return hull([call.of(1), call.of(2)])


@interval_rule("Concat")
def _concat(call: Ranged) -> Interval | None:
    return hull(call.operands)


@interval_rule(" ".join(sorted(named(Kind.MOVE) - {"Concat", "Where"})))
def _move(call: Ranged) -> list[Interval | None]:
    return [call.of(0)] * len(call.node.outputs)


@interval_rule("Pad")
def _pad(call: Ranged) -> Interval | None:
    if call.attribute("value"):
        return None
    if call.get_string("mode", "constant") != "constant":
        return call.of(0)
    return hull([call.of(0), call.of(2) if call.has(2) else _ZERO])


@interval_rule("Trilu")
def _trilu(call: Ranged) -> Interval | None:
    return hull([call.of(0), _ZERO])


@interval_rule("ScatterElements ScatterND Scatter")
def _scatter(call: Ranged) -> Interval | None:
    combines = call.get_string("reduction", "none") in ("add", "mul")
    return None if combines else hull([call.of(0), call.of(2)])


@interval_rule("BitwiseAnd BitwiseOr BitwiseXor BitwiseNot")
def _bits(call: Ranged) -> Interval | None:
    """Of numbers that so many bits and a sign hold, a result needs no more of them."""
    part = hull(call.operands)
    if part is None or not _is_whole(call):
        return None
    most = 1 << max(int(abs(part.low)), int(abs(part.high))).bit_length()
    unsigned = part.low >= 0 and call.node.op_type != "BitwiseNot"
    return Interval(0 if unsigned else -most, most - 1)


@interval_rule("And Or Not Xor Equal Less Greater LessOrEqual GreaterOrEqual")
def _decision(call: Ranged) -> Interval | None:
    return BOOL


@interval_rule("Floor")
def _floor(call: Ranged) -> Interval | None:
    x = call.of(0)
    return None if x is None else Interval(math.floor(x.low), math.floor(x.high))


@interval_rule("Ceil")
def _ceil(call: Ranged) -> Interval | None:
    x = call.of(0)
    return None if x is None else Interval(math.ceil(x.low), math.ceil(x.high))


@interval_rule("Round")
def _round(call: Ranged) -> Interval | None:
    x = call.of(0)
    return None if x is None else Interval(round(x.low), round(x.high))


@interval_rule("Sqrt")
def _sqrt(call: Ranged) -> Interval | None:
    x = call.of(0)
    return None if x is None or x.low < 0 else Interval(math.sqrt(x.low), math.sqrt(x.high))


@interval_rule("Cast CastLike")
def _cast(call: Ranged) -> Interval | None:
    x, to = call.of(0), call.dtype()
    if x is None or to is None or to == ir.DataType.BOOL:
        return None
    whole = of_type(to)
    if whole is None:
        return x
    found = Interval(math.trunc(x.low), math.trunc(x.high))
    return found if whole.low <= found.low and found.high <= whole.high else None


def _count(call: Ranged, axes: Sequence[int] | None) -> Interval:
    """Return how many elements lie along axes of the first input, all where they are not known."""
    sizes = call.sizes(0)
    if sizes is None:
        return Interval(0, 2**62)
    count = _ONE
    for axis in range(len(sizes)) if axes is None else axes:
        count = count * sizes[axis]
    return count


@interval_rule("ReduceSum")
def _sum(call: Ranged) -> Interval | None:
    x, axes = call.of(0), call.axes(1)
    if x is None or not _is_whole(call):
        return None
    return x.taken(_greater(_count(call, axes or None), _ONE))


@interval_rule("CumSum")
def _sum_so_far(call: Ranged) -> Interval | None:
    x, axis = call.of(0), call.numbers(1)
    return x.taken(_count(call, axis)) if x is not None and _is_whole(call) else None


@interval_rule("ReduceMax ReduceMin")
def _extreme(call: Ranged) -> Interval | None:
    """An extreme of nothing is the end of the type."""
    sizes = call.sizes(0)
    return call.of(0) if sizes is not None and all(each.low > 0 for each in sizes) else None


@interval_rule("MatMul")
def _product(call: Ranged) -> Interval | None:
    a, b, sizes = call.of(0), call.of(1), call.sizes(0)
    if a is None or b is None or not sizes or not _is_whole(call):
        return None
    call.passes(a * b)
    return (a * b).taken(sizes[-1])


def _places(sizes: Sequence[Interval]) -> Interval:
    return Interval(0, max([each.high for each in sizes] + [1]) - 1)


@interval_rule("ArgMax ArgMin")
def _arg_extreme(call: Ranged) -> Interval | None:
    sizes = call.sizes(0)
    return None if sizes is None else _places([sizes[call.get_int("axis", 0)]])


@interval_rule("TopK")
def _top(call: Ranged) -> Sequence[Interval | None]:
    sizes = call.sizes(0)
    places = None if sizes is None else _places([sizes[call.get_int("axis", -1)]])
    return [call.of(0), places]


@interval_rule("NonZero")
def _nonzero(call: Ranged) -> Interval | None:
    sizes = call.sizes(0)
    return None if sizes is None else _places(sizes)


@interval_rule("Shape")
def _shape(call: Ranged) -> Interval | None:
    sizes = call.sizes(0)
    return hull(sizes) if sizes else Interval(0, ENDLESS - 1)


@interval_rule("Size")
def _size(call: Ranged) -> Interval | None:
    return _count(call, None)


@interval_rule("ConstantOfShape")
def _filled(call: Ranged) -> Interval | None:
    given = call.attribute("value")
    if given is None:
        return _ZERO
    number = given.as_tensor().numpy().reshape(-1)[0].item()
    return Interval(number, number) if math.isfinite(number) else None


@interval_rule("Range")
def _range(call: Ranged) -> Interval | None:
    start, limit, delta = call.of(0), call.of(1), call.of(2)
    if start is None or limit is None or delta is None or not _is_whole(call):
        return None
    ends = [start.low, start.high]
    if delta.high > 0:
        ends.append(limit.high - 1)
    if delta.low < 0:
        ends.append(limit.low + 1)
    found = Interval(min(ends), max(ends))
    call.passes(found + delta, limit - start)  # as it is counted, and one step further
    return found
