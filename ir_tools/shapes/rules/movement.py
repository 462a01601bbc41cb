"""Shapes and integer elements of the operators that only move elements."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from vlmpass.ir_tools.shapes.algebra import (
    ENDLESS,
    Algebra,
    Dim,
    Expr,
    add,
    divide_exactly,
    mul,
    product,
    sub,
)
from vlmpass.ir_tools.shapes.call import Call
from vlmpass.ir_tools.shapes.known import UNKNOWN, Known
from vlmpass.ir_tools.shapes.rules.elementwise import broadcast
from vlmpass.ir_tools.shapes.shape_rules import shape_rule
from vlmpass.ir_tools.shapes.slices import slice_of

__all__ = ["reshaped"]


def _axis(axis: int, rank: int) -> int:
    return axis + rank if axis < 0 else axis


def _vanishes_with(algebra: Algebra, own: Dim, item: Dim) -> bool:
    """Whether a size is 0 wherever another is: its multiple, or what it was broadcast to."""
    atom = own.atom if isinstance(own, Expr) else None
    if atom is not None and algebra.atoms[atom].operation == "broadcast":
        return own == item or item in algebra.atoms[atom].args
    return divide_exactly(own, item) is not None


def reshaped(
    call: Call, data: tuple[Dim, ...] | None, target: Sequence[Dim], allowzero: bool
) -> tuple[Dim, ...]:
    """Return the output shape of a Reshape.

    An element that may be 0 means "copy the axis" unless `allowzero`; it is believed where copying
    gives 0 as well, or where the number of elements leaves nothing else. It does leave something
    else where two computed elements are 0 at once, and an empty tensor is the result in any case.

    Args:
        call: For fresh sizes.
        data: Shape of the input; None if its rank is not known.
        target: Elements of the shape asked for.
        allowzero: Whether a 0 is a size of 0.
    """
    algebra = call.algebra
    fresh = call.fresh(len(target))
    total = None if data is None else product(data)
    dims: list[Dim] = []
    rest: int | None = None
    for index, item in enumerate(target):
        own = data[index] if data is not None and index < len(data) else None
        if item == -1:
            rest = index
            dims.append(1)
        elif isinstance(item, int) and (item > 0 or allowzero):
            dims.append(item)
        elif item == 0:
            dims.append(fresh[index] if own is None else own)
        else:
            fits = total is not None and -1 not in target and product(target) == total
            copies = allowzero or fits or (own is not None and _vanishes_with(algebra, own, item))
            sure = algebra.positive(item) or (algebra.nonnegative(item) and copies)
            dims.append(item if sure else fresh[index])
    if rest is not None:
        dims[rest] = fresh[rest]
        others = product(dims[:rest] + dims[rest + 1 :])
        known = None if total is None or others == 0 else divide_exactly(total, others)
        if known is not None:
            dims[rest] = known
        elif total is not None and algebra.positive(others) and algebra.nonnegative(total):
            dims[rest] = algebra.floordiv(total, others)
    return tuple(dims)


@shape_rule("Reshape")
def _reshape(call: Call) -> Known:
    target = call.elements(1) if call.has(1) else call.get_ints("shape")
    items = call.known(0).elements
    if target is None:
        rank = call.shape(1)
        return call.of_rank(rank[0] if rank and isinstance(rank[0], int) else None)
    shape = reshaped(call, call.shape(0), target, bool(call.get_int("allowzero", 0)))
    return Known(shape, items)


@shape_rule("Flatten")
def _flatten(call: Call) -> Known:
    shape = call.shape(0)
    if shape is None:
        return call.of_rank(2)
    axis = call.get_int("axis", 1)
    axis = axis + len(shape) if axis < 0 else axis
    return Known((product(shape[:axis]), product(shape[axis:])), call.known(0).elements)


@shape_rule("Squeeze")
def _squeeze(call: Call) -> Known:
    shape = call.shape(0)
    axes = call.axes(1)
    if shape is None or (axes is None and call.has(1)) or axes == ():
        return UNKNOWN  # runtimes differ over no axes: none, or all of size 1
    if axes is None:
        if not all((call.algebra.low(dim) or 0) > 1 or isinstance(dim, int) for dim in shape):
            return UNKNOWN  # which axes go depends on the input
        gone = {index for index, dim in enumerate(shape) if dim == 1}
    else:
        gone = {_axis(axis, len(shape)) for axis in axes}
    kept = tuple(dim for index, dim in enumerate(shape) if index not in gone)
    return Known(kept, call.known(0).elements)


@shape_rule("Unsqueeze")
def _unsqueeze(call: Call) -> Known:
    shape = call.shape(0)
    axes = call.axes(1)
    if shape is None or axes is None:
        return UNKNOWN
    rank = len(shape) + len(axes)
    new = {_axis(axis, rank) for axis in axes}
    if len(new) < len(axes) or not new <= set(range(rank)):
        return UNKNOWN  # a misfit for the checker to report
    rest = iter(shape)
    dims: list[Dim] = [1 if index in new else next(rest) for index in range(rank)]
    call.elements(0)
    return Known(tuple(dims), call.known(0).elements)


@shape_rule("Transpose")
def _transpose(call: Call) -> Known:
    known = call.known(0)
    if known.shape is None:
        return UNKNOWN
    perm = call.get_ints("perm") or tuple(reversed(range(len(known.shape))))
    shape = tuple(known.shape[axis] for axis in perm)
    return Known(shape, known.elements if len(shape) <= 1 else None)


@shape_rule("Concat")
def _concat(call: Call) -> Known:
    count = len(call.node.inputs)
    shapes = [call.shape(index) for index in range(count)]
    known = [shape for shape in shapes if shape is not None]
    if not known:
        return UNKNOWN
    rank = len(known[0])
    axis = _axis(call.get_int("axis", 1), rank)
    if len(known) < count:
        return call.of_rank(rank)
    dims: list[Dim] = []
    for index in range(rank):
        column = [shape[index] for shape in known]
        if index == axis:
            total: Dim = 0
            for dim in column:
                total = add(total, dim)
            dims.append(total)
        else:  # all of one size
            dims.append(call.algebra.plainest(column))
    items: tuple[Dim, ...] | None = ()
    for index in range(count if rank == 1 else 0):
        own = call.elements(index)
        items = None if own is None or items is None else items + own
    return Known(tuple(dims), items if rank == 1 else None)


@shape_rule("Split")
def _split(call: Call) -> Sequence[Known]:
    shape = call.shape(0)
    count = len(call.node.outputs)
    if shape is None:
        return [UNKNOWN] * count
    axis = _axis(call.get_int("axis", 0), len(shape))
    sizes: Sequence[Dim] | None = call.elements(1) if call.has(1) else call.get_ints("split")
    if sizes is None and not call.has(1) and isinstance(shape[axis], int):
        size = shape[axis]
        assert isinstance(size, int)
        each = -(-size // count)
        sizes = [max(0, min(each, size - index * each)) for index in range(count)]
    items = call.known(0).elements if len(shape) == 1 else None
    knowns, start = [], 0
    for index in range(count):
        size_here = call.fresh(len(shape), index)[axis] if sizes is None else sizes[index]
        part = None
        if items is not None and isinstance(size_here, int):
            part, start = items[start : start + size_here], start + size_here
        else:
            items = None
        knowns.append(Known((*shape[:axis], size_here, *shape[axis + 1 :]), part))
    return knowns


def _clamped(algebra: Algebra, index: Dim, size: Dim) -> Dim | None:
    """Return where a slice bound lies within [0, size], for a positive step."""
    if isinstance(index, int):
        if index >= ENDLESS:
            return size
        if index <= -ENDLESS:
            return 0
        if index < 0:
            return algebra.maximum(0, add(size, index))
        return algebra.minimum(index, size)
    return algebra.minimum(index, size) if algebra.nonnegative(index) else None


def _slice_length(algebra: Algebra, size: Dim, start: Dim, end: Dim, step: int) -> Dim | None:
    """Return how many elements a slice takes of an axis, None if that is not known."""
    if isinstance(size, int) and isinstance(start, int) and isinstance(end, int):
        part = slice_of(start, end, step, size)
        return None if part is None else len(range(*part.indices(size)))
    if step == -1 and start in (-1, ENDLESS, 2**63 - 1):
        return size if isinstance(end, int) and end <= -ENDLESS else None
    first, last = _clamped(algebra, start, size), _clamped(algebra, end, size)
    if step <= 0 or first is None or last is None:
        return None
    length = algebra.maximum(0, sub(last, first))
    return length if step == 1 else algebra.floordiv(add(length, step - 1), step)


@dataclass(frozen=True)
class _Bounds:
    """The operands of a Slice; None where one is not known."""

    starts: Sequence[Dim] | None
    ends: Sequence[Dim] | None
    axes: Sequence[int] | None
    steps: Sequence[int] | None

    @classmethod
    def of(cls, call: Call) -> _Bounds:
        if call.opset < 10:
            starts, ends, axes = (
                call.get_ints("starts"),
                call.get_ints("ends"),
                call.get_ints("axes"),
            )
            count = len(starts or ())
            return cls(starts, ends, axes or range(count), [1] * count)
        starts_in, ends_in = call.elements(1), call.elements(2)
        count = len(starts_in or ends_in or ())
        return cls(
            starts_in,
            ends_in,
            call.numbers(3) if call.has(3) else range(count),
            call.numbers(4) if call.has(4) else [1] * count,
        )


@shape_rule("Slice")
def _slice(call: Call) -> Known:
    known, bounds = call.known(0), _Bounds.of(call)
    if known.shape is None:
        return UNKNOWN
    rank = len(known.shape)
    starts, ends, axes, steps = bounds.starts, bounds.ends, bounds.axes, bounds.steps
    if axes is None or (starts is None and ends is None):
        return call.of_rank(rank)
    dims = list(known.shape)
    fresh = call.fresh(rank)
    for index, axis in enumerate(_axis(axis, rank) for axis in axes):
        length = None
        if starts is not None and ends is not None and steps is not None:
            args = starts[index], ends[index], steps[index]
            length = _slice_length(call.algebra, dims[axis], *args)
        dims[axis] = fresh[axis] if length is None else length
    items = None
    if rank == 1 and known.elements is not None and starts and ends and steps:
        start, end = starts[0], ends[0]
        if isinstance(start, int) and isinstance(end, int):
            part = slice_of(start, end, steps[0], len(known.elements))
            items = None if part is None else known.elements[part]
    return Known(tuple(dims), items)


@shape_rule("Gather")
def _gather(call: Call) -> Known:
    data, indices = call.shape(0), call.shape(1)
    if data is None or indices is None:
        return UNKNOWN
    axis = _axis(call.get_int("axis", 0), len(data))
    shape = (*data[:axis], *indices, *data[axis + 1 :])
    items, places = call.elements(0), call.numbers(1)
    if items is None or places is None or len(data) != 1:
        return Known(shape)
    if not all(-len(items) <= place < len(items) for place in places):
        return Known(shape)
    return Known(shape, tuple(items[place] for place in places))


@shape_rule("GatherElements")
def _gather_elements(call: Call) -> Known:
    return Known(call.shape(1))


@shape_rule("GatherND")
def _gather_nd(call: Call) -> Known:
    data, indices = call.shape(0), call.shape(1)
    if data is None or not indices or not isinstance(indices[-1], int):
        return UNKNOWN
    batch = call.get_int("batch_dims", 0)
    return Known((*indices[:-1], *data[batch + indices[-1] :]))


@shape_rule("Expand")
def _expand(call: Call) -> Known:
    target = call.elements(1)
    shape = call.shape(0)
    if target is None:
        length = call.shape(1)
        if shape is None or not length or not isinstance(length[0], int):
            return UNKNOWN
        return call.of_rank(max(len(shape), length[0]))
    dims = broadcast(call.algebra, [shape, target])
    static, items = Known(dims).static, call.known(0).elements
    if static is None or items is None or len(items) != 1:
        return Known(dims, items if dims == shape else None)
    count = math.prod(static)
    return Known(dims, items * count if count <= 64 else None)


@shape_rule("Tile")
def _tile(call: Call) -> Known:
    shape, repeats = call.shape(0), call.elements(1)
    if shape is None or repeats is None:
        return call.of_rank(None if shape is None else len(shape))
    dims = tuple(mul(dim, repeat) for dim, repeat in zip(shape, repeats, strict=True))
    items = call.known(0).elements
    times = repeats[0] if len(repeats) == 1 else None
    if items is None or not isinstance(times, int) or times * len(items) > 64:
        return Known(dims)
    return Known(dims, items * times)


@shape_rule("Pad")
def _pad(call: Call) -> Known:
    shape = call.shape(0)
    if shape is None:
        return UNKNOWN
    rank = len(shape)
    pads = call.elements(1) if call.opset >= 11 else call.get_ints("pads")
    axes: Sequence[int] | None = range(rank)
    if call.has(3):
        axes = call.numbers(3)
    if pads is None or axes is None:
        return call.of_rank(rank)
    dims = list(shape)
    for index, axis in enumerate(axes):
        axis = _axis(axis, rank)
        dims[axis] = add(dims[axis], add(pads[index], pads[index + len(axes)]))
    return Known(tuple(dims))


@shape_rule("Shape")
def _shape(call: Call) -> Known:
    shape = call.shape(0)
    if shape is None:
        return UNKNOWN
    start, end = call.get_int("start", 0), call.get_int("end", len(shape))
    if max(abs(start), abs(end)) > len(shape):
        return call.of_rank(1)  # clamped by the standard, not by the reference
    dims = shape[start:end]
    return Known((len(dims),), dims)


@shape_rule("Size")
def _size(call: Call) -> Known:
    shape = call.shape(0)
    return Known((), None if shape is None else (product(shape),))


@shape_rule("SpaceToDepth")
def _space_to_depth(call: Call) -> Known:
    shape = call.shape(0)
    if shape is None or len(shape) != 4:
        return call.of_rank(4)
    n, c, h, w = shape
    block = call.get_int("blocksize", 1)
    algebra = call.algebra
    return Known((n, mul(c, block * block), algebra.floordiv(h, block), algebra.floordiv(w, block)))


@shape_rule("DepthToSpace")
def _depth_to_space(call: Call) -> Known:
    shape = call.shape(0)
    if shape is None or len(shape) != 4:
        return call.of_rank(4)
    n, c, h, w = shape
    block = call.get_int("blocksize", 1)
    return Known((n, call.algebra.floordiv(c, block * block), mul(h, block), mul(w, block)))
