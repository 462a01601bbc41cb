"""Masks as the one operator takes them: added to scores, with a row for each query."""

from __future__ import annotations

import math

import numpy as np
from onnx_ir import DataType, Value

from vlmpass.ir_tools.graph.constants import constant_of
from vlmpass.ir_tools.graph.symbols import same_size
from vlmpass.ir_tools.rewrite import Declined, Tape, refuse
from vlmpass.rewriter_rules.fuse.attention.scores import Mask
from vlmpass.rewriter_rules.fuse.attention.steps_back import axis_size, made_by, number

__all__ = ["as_added", "is_finite", "spread"]

FAR_BELOW = -1e9
"""What is filled in counts as a mask from here down, in float32; halves from near their lowest."""
MANY = 1 << 16
"""A constant mask of more numbers is not read."""
NARROW = (DataType.FLOAT16, DataType.BFLOAT16)
ROUNDED = "what {} adds to {} is rounded away there, and not in the float32 of kernels"
"""A row of which nothing is left is then no mean of all values."""


def lowest(dtype: DataType) -> float:
    """Return the lowest finite number but one of an element type.

    ONNX Runtime takes the very lowest for minus infinity, which makes a row of it nothing: by the
    standard, and in what exporters write, such a row is the mean of all values.
    """
    return float(np.nextafter(dtype.min, dtype.numpy().type(0)))


def _bounded(value: float, dtype: DataType) -> float:
    return max(value, lowest(dtype)) if math.isfinite(value) else value


def _raised(op: Tape, mask: Value, dtype: DataType) -> Value:
    """Return a mask to add without the very lowest number."""
    if not _reaches_down(mask, dtype):
        return mask
    select, ends = made_by(mask, "Where"), _ends(mask)
    if select is None or None in ends:
        return op.Max(mask, op.const(lowest(dtype), dtype))
    numbers = [op.const(_bounded(end, dtype), dtype) for end in ends if end is not None]
    return op.Where(select.inputs[0], *numbers)


def _reaches_down(mask: Value, dtype: DataType) -> bool:
    """Return whether a mask may hold the very lowest number."""
    ends = _ends(mask)
    if ends and None not in ends:
        return any(end != _bounded(end, dtype) for end in ends if end is not None)
    tensor = constant_of(mask)
    if tensor is None or tensor.size > MANY:
        return True
    return bool((tensor.numpy() == dtype.min).any())


def _ends(value: Value) -> list[float | None]:
    """Return the numbers that a Where chooses from; none for what is no Where."""
    node = made_by(value, "Where")
    return [] if node is None else [number(end) for end in node.inputs[1:]]


def _cuts_off(mask: Mask) -> bool:
    """Return whether a mask adds nothing to a score or minus infinity."""
    ends = _ends(mask.value) if mask.filled is None else [number(mask.filled)]
    return bool(ends) and all(end in (0.0, -math.inf) for end in ends)


def is_finite(mask: Mask) -> bool:
    """Return whether what a mask adds or fills in is known to be no infinity."""
    ends = _ends(mask.value) if mask.filled is None else [number(mask.filled)]
    return bool(ends) and all(end is not None and math.isfinite(end) for end in ends)


def as_added(op: Tape, mask: Mask, dtype: DataType) -> Value | Declined:
    """Return what to add to scores for a mask, or why scores may count all the same.

    Args:
        op: Records it.
        mask: Added, or a Where of scores.
        dtype: Of the scores.
    """
    if dtype in NARROW and not _cuts_off(mask):
        return refuse(ROUNDED, mask.value, dtype)
    if mask.filled is None:
        return _raised(op, mask.value, dtype)
    fill = number(mask.filled)
    if fill is None:
        return refuse("what {} fills in is no constant", mask.filled)
    if fill > max(FAR_BELOW, lowest(dtype)):
        return refuse("scores may be as low as {}, which is filled in", fill)
    ends = [op.const(0.0, dtype), op.const(_bounded(fill, dtype), dtype)]
    return op.Where(mask.value, *(ends if mask.kept else reversed(ends)))


def spread(op: Tape, mask: Value, query: Value, key: Value) -> Value | Declined:
    """Return a mask with a row for each query and a column for each key.

    Args:
        op: Records what it takes.
        mask: What broadcasts with scores.
        query: [batch, heads, queries, size].
        key: [batch, heads, keys, size].
    """
    shape = mask.shape
    assert query.shape is not None
    assert key.shape is not None
    if shape is None or len(shape) > 4:
        return refuse("the shape of {} is not known to fit scores", mask)
    outer = list(zip(reversed(shape[:-2]), [query.shape[1], query.shape[0]], strict=False))
    if any(size != 1 and not same_size(size, whole) for size, whole in outer):
        return refuse("{} is not known to have heads and batch of scores", mask)
    whole = [query.shape[2], key.shape[2]]
    if len(shape) in (2, 4) and all(map(same_size, shape[-2:], whole)):
        return mask
    parts = [op.const([1, 1]), axis_size(op, query, 2), axis_size(op, key, 2)]
    sizes = op.Concat(*parts, axis=0)
    return op.Expand(mask, sizes)
