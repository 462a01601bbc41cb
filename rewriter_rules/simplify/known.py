"""What is known of shapes and types, in the words that rules ask for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import onnx_ir as ir

from vlmpass.ir_tools.graph.symbols import same_size
from vlmpass.ir_tools.graph.tape import Tape

__all__ = [
    "FLOATS",
    "FOREVER",
    "broadcast_into",
    "dim",
    "matched",
    "normal",
    "rank",
    "same_shape",
]

FLOATS: Final = frozenset(
    [ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE]
)
FOREVER: Final = 2**31 - 1
"""No axis is longer: a Slice end from here on means the end, as exporters write it."""

# Bits of the significand and range of exponents of a normal number.
_FLOAT_FORMATS: Final = {
    ir.DataType.FLOAT8E4M3FN: (4, -9, 8),
    ir.DataType.FLOAT8E5M2: (3, -16, 15),
    ir.DataType.FLOAT16: (11, -24, 15),
    ir.DataType.BFLOAT16: (8, -133, 127),
    ir.DataType.FLOAT: (24, -149, 127),
    ir.DataType.DOUBLE: (53, -1074, 1023),
}


def rank(value: ir.Value) -> int | None:
    """Return the number of axes, if it is known."""
    return None if value.shape is None else value.shape.rank()


def dim(op: Tape, value: ir.Value, axis: int) -> int | str | None:
    """Return a dimension: its size, its symbol, or None where neither is known.

    Args:
        op: Knows the last axes of values whose rank is open.
        value: The value.
        axis: Counted from the back, if the rank may be open.
    """
    if value.shape is None:
        last = op.last_axes.get(value, ())
        return last[axis] if -len(last) <= axis < 0 else None
    if not -value.shape.rank() <= axis < value.shape.rank():
        return None
    found = value.shape[axis]
    return found if isinstance(found, int) else found.value


def same_shape(one: ir.Value, other: ir.Value) -> bool:
    """Return whether two values are known to have the same shape."""
    if one.shape is None or other.shape is None or len(one.shape) != len(other.shape):
        return False
    return all(map(same_size, one.shape, other.shape))


def broadcast_into(op: Tape, shape: Sequence[int], value: ir.Value) -> bool:
    """Return whether broadcasting a value with a shape is known to leave the value's shape.

    Args:
        op: Knows the last axes of values whose rank is open.
        shape: What broadcasts.
        value: What it is broadcast with.
    """
    own = rank(value)
    if own is None or len(shape) > own:
        return False
    offset = own - len(shape)
    return all(size in (1, dim(op, value, offset + at)) for at, size in enumerate(shape))


def matched(*lists: Sequence[int] | None) -> bool:
    """Return whether lists, those that are given, are of one length and not empty."""
    lengths = {len(each) for each in lists if each is not None}
    return len(lengths) == 1 and 0 not in lengths


def normal(axes: Sequence[int], rank: int | None) -> tuple[int, ...] | None:
    """Return axes counted from the front.

    None where that takes a rank that is not known, where one is named twice, or is beyond the rank.
    """
    if rank is None and any(axis < 0 for axis in axes):
        return None
    found = tuple(axis + rank if axis < 0 and rank is not None else axis for axis in axes)
    fits = all(axis >= 0 and (rank is None or axis < rank) for axis in found)
    return found if fits and len(set(found)) == len(found) else None
