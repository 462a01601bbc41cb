"""Masks as the one operator takes them: one, added to scores, with a row for each query."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from onnx_ir import DataType, Shape, Value

from vlmpass.ir_tools.graph.constants import constant_of
from vlmpass.ir_tools.graph.read_attributes import int_of
from vlmpass.ir_tools.graph.symbols import same_size
from vlmpass.ir_tools.rewrite import Declined, Tape, refuse
from vlmpass.rewriter_rules.fuse.attention.mask_numbers import MANY, held
from vlmpass.rewriter_rules.fuse.attention.same_shape import shaped_alike
from vlmpass.rewriter_rules.fuse.attention.scores import Mask
from vlmpass.rewriter_rules.fuse.attention.steps_back import Size, axis_size, made_by, number
from vlmpass.rewriter_rules.simplify.known import rank

__all__ = [
    "FAR_BELOW",
    "combined",
    "for_rows",
    "is_finite",
    "lowest",
    "spread",
    "without_lowest",
    "without_nothing",
]

FAR_BELOW = -1e9
"""What is filled in counts as a mask from here down; no score is as low."""
SWALLOWS = -1e30
"""A sum with a number from here down is that number, whatever the score."""
CUTS = {0.0, -math.inf}
NARROW = (DataType.FLOAT16, DataType.BFLOAT16)
ROUNDED = "what {} adds to {} is rounded away there, and not in the float32 of kernels"
"""A row of which nothing is left is then no mean of all values."""


def lowest(dtype: DataType) -> float:
    """Return the lowest finite number but one of an element type.

    ONNX Runtime takes the very lowest for minus infinity, which makes a row of it nothing: by the
    standard, and in what exporters write, such a row is the mean of all values.
    """
    return float(np.nextafter(dtype.min, dtype.numpy().type(0)))


def _bounded(value: float, floor: float) -> float:
    return max(value, floor) if math.isfinite(value) else value


def is_finite(mask: Value | None) -> bool:
    """Return whether what is added to scores is known to be no infinity."""
    numbers = None if mask is None else held(mask)
    return mask is None or (numbers is not None and -math.inf not in numbers)


def combined(
    op: Tape, masks: Sequence[Mask], dtype: DataType, floor: float
) -> Value | Declined | None:
    """Return what to add to scores for all masks, or why that is not what they do.

    Each does to what the ones before it add what it does to scores. Where one fills in, that is
    what it fills in, or what a sum with any score still is.

    Args:
        op: Records it.
        masks: Added, or a Where of scores, in their order.
        dtype: Of the scores.
        floor: The lowest finite number to fill in.
    """
    reason = _not_a_sum(masks, dtype)
    if reason is not None:
        return reason
    whole: Value | None = None
    for mask in masks:
        if mask.filled is None:
            whole = mask.value if whole is None else op.Add(whole, mask.value)
            continue
        fill = number(mask.filled)
        assert fill is not None
        low = _bounded(fill, floor) if fill <= SWALLOWS else lowest(dtype)
        kept = op.const(0.0, dtype) if whole is None else whole
        ends = [kept, op.const(low, dtype)]
        whole = op.Where(mask.value, *(ends if mask.kept else reversed(ends)))
    return whole


def _not_a_sum(masks: Sequence[Mask], dtype: DataType) -> Declined | None:
    """Return why no one sum is what masks make of scores, in rows of which nothing is left too."""
    fills: set[float] = set()
    for mask in masks:
        fill = number(mask.filled)
        if mask.filled is not None and fill is None:
            return refuse("what {} fills in is no constant", mask.filled)
        if fill is not None and not fill <= FAR_BELOW:
            return refuse("scores may be as low as {}, which is filled in", fill)
        if fill is not None:
            fills.add(fill)
    added = [mask.value for mask in masks if mask.filled is None]
    rough = [value for value in added if not _holds_only(value, CUTS, -math.inf)]
    if dtype in NARROW and (rough or fills - CUTS):
        return refuse(ROUNDED, rough[0] if rough else max(fills), dtype)
    shallow = [fill for fill in fills if fill > SWALLOWS]
    if shallow and (rough or fills - {*shallow[:1], -math.inf}):
        return refuse("what else masks scores is not known to differ from {}", shallow[0])
    loose = [value for value in rough if not _holds_only(value, CUTS, SWALLOWS)]
    if len(loose) > 1:
        return refuse("{} and {} are added one after the other, and rounded", *loose[:2])
    return None


def _holds_only(value: Value, numbers: set[float], down_from: float) -> bool:
    """Return whether a value is known to hold certain numbers, and what is very low, alone."""
    found = held(value)
    return found is not None and all(each in numbers or each <= down_from for each in found)


def without_lowest(op: Tape, mask: Value, dtype: DataType) -> Value:
    """Return a mask to add that has another number for the very lowest, which is just as far.

    Args:
        op: Records what it takes.
        mask: Added to scores.
        dtype: Of both.
    """
    numbers = held(mask)
    if numbers is not None and dtype.min not in numbers:
        return mask
    floor = lowest(dtype)
    select, low = made_by(mask, "Where"), op.const(floor, dtype)
    ends = [] if select is None else [number(end) for end in select.inputs[1:]]
    if select is not None and None not in ends:
        raised = [op.const(_bounded(end, floor), dtype) for end in ends if end is not None]
        return op.Where(select.inputs[0], *raised)
    if is_finite(mask):
        return op.Max(mask, low)
    return op.Where(op.Equal(mask, op.const(dtype.min, dtype)), low, mask)


def without_nothing(op: Tape, mask: Value, dtype: DataType) -> Value:
    """Return a mask with NaN in rows that leave nothing, of which Softmax makes NaN.

    The operator makes 0 of them.

    Args:
        op: Records what it takes.
        mask: Added to scores.
        dtype: Of both.
    """
    tensor = constant_of(mask)
    if tensor is not None and tensor.size <= MANY and rank(mask):
        whole = not np.isneginf(tensor.numpy().astype(np.float64)).all(-1).any()
    else:
        whole = is_finite(mask)
    if whole:
        return mask
    highest = op.ReduceMax(mask, axes=[-1], keepdims=1) if rank(mask) else mask
    nothing = op.Equal(highest, op.const(-math.inf, dtype))
    return op.Where(nothing, op.const(math.nan, dtype), mask)


def _as_many(key: Value, value: Value) -> bool:
    """Return whether there are as many keys as values.

    Each cache of a decoder has a length of its own by name; both are taken for equally long where
    as much is joined with them. Were they not, the operator would not run.
    """
    assert key.shape is not None
    assert value.shape is not None
    joins = [made_by(each, "Concat") for each in (key, value)]
    new = [
        node.inputs[1]
        for node in joins
        if node and len(node.inputs) == 2 and int_of(node, "axis", 0) in (2, -2)
    ]
    sizes = [each.shape[2] for each in new if each is not None and rank(each) == 4 and each.shape]
    joined = len(sizes) == 2 and same_size(*sizes)
    return same_size(key.shape[2], value.shape[2]) or joined or shaped_alike(key, value)


def _fits(size: Size, whole: Size) -> bool:
    """Return whether an axis is known to be of a size that broadcasts to a whole one."""
    known = isinstance(whole, int) and whole > 1 and not isinstance(size, int)
    return size == 1 or same_size(size, whole) or known


def for_rows(op: Tape, query: Value, masks: Sequence[Value]) -> Value:
    """Return queries, of which one is as many as there are rows of a mask.

    Args:
        op: Records what it takes, which is nothing where masks are known to have as many rows.
        query: [batch, heads, queries, size].
        masks: What is added to scores, or conditions.
    """
    for mask in masks:
        shape, whole = mask.shape, query.shape
        assert whole is not None
        if shape is None or len(shape) < 2 or _fits(shape[-2], whole[2]):
            continue
        sizes = op.Concat(op.const([1, 1]), axis_size(op, mask, -2), op.const([1]), axis=0)
        query = op.Expand(query, sizes)
        query.shape = Shape([*whole[:2], None, whole[3]])
    return query


def _misfit(mask: Value, query: Value, key: Value, value: Value) -> Declined | None:
    """Return why a mask may not broadcast with scores, or make more of them.

    More columns than keys would be as many as values, for the product with these.
    """
    assert query.shape is not None
    assert key.shape is not None
    assert value.shape is not None
    shape = mask.shape
    if shape is None or len(shape) > 4:
        return refuse("the shape of {} is not known to fit scores", mask)
    scores = [key.shape[2], query.shape[2], query.shape[1], query.shape[0]]
    alike = [_fits(*sizes) for sizes in zip(reversed(shape), scores, strict=False)]
    if not all(alike[2:]):
        return refuse("{} is not known to have heads and batch of scores", mask)
    if alike and not alike[0] and not _as_many(key, value):
        return refuse("{} is not known to have as many columns as there are keys", mask)
    return None


def spread(
    op: Tape, mask: Value, parts: Sequence[Value], operands: tuple[Value, Value, Value]
) -> Value | Declined:
    """Return a mask with a row for each query and a column for each key.

    Args:
        op: Records what it takes.
        mask: What broadcasts with scores.
        parts: Of what it was put together, in shape.
        operands: Queries, keys and values, [batch, heads, length, size].
    """
    for part in parts:
        misfit = _misfit(part, *operands)
        if misfit is not None:
            return misfit
    query, key, _ = operands
    assert query.shape is not None
    assert key.shape is not None
    shapes = [part.shape for part in parts if part.shape is not None]
    full = [
        any(len(shape) >= -axis and same_size(shape[axis], size) for shape in shapes)
        for axis, size in ((-2, query.shape[2]), (-1, key.shape[2]))
    ]
    if max(map(len, shapes)) in (2, 4) and all(full):
        return mask
    sizes = op.const([1, 1]), axis_size(op, query, 2), _length(op, key)
    return op.Expand(mask, op.Concat(*sizes, axis=0))


def _length(op: Tape, key: Value) -> Value:
    """Return how many keys there are, in a vector of one, and not of what a cache makes of them."""
    join = made_by(key, "Concat")
    if join is None or int_of(join, "axis", 0) not in (2, -2) or len(join.inputs) != 2:
        return axis_size(op, key, 2)
    before, now = (axis_size(op, each, 2) for each in join.inputs if each is not None)
    return op.Add(before, now)
