"""Cosines and sines of rotary embeddings: whether both elements of a pair have the same."""

from __future__ import annotations

from enum import Enum

import numpy as np
from onnx_ir import Node, Value

from vlmpass.ir_tools.graph.constants import constant_of
from vlmpass.ir_tools.graph.read_attributes import int_of, ints_of
from vlmpass.ir_tools.operators.traits import Kind, keeping_order, named
from vlmpass.rewriter_rules.fuse.attention.steps_back import integers

__all__ = ["Pairs", "doubled"]

DEEP = 16
"""Angles are made in fewer steps."""
MANY = 1 << 24
"""A longer constant is not read."""


class Pairs(Enum):
    """Which elements of a row are turned together."""

    HALVES = "halves"
    """Each of the first half with that of the second half."""
    NEIGHBOURS = "neighbours"
    """Each of even index with the next."""

    def parts(self, row: range) -> tuple[range, range]:
        """Return the first and the second elements of all pairs of a row of even size."""
        if self == Pairs.NEIGHBOURS:
            return row[::2], row[1::2]
        half = len(row) // 2
        return row[:half], row[half:]


def _last(value: Value | None) -> int | None:
    """Return the size of the last axis."""
    size = value.shape[-1] if value is not None and value.shape else None
    return size if isinstance(size, int) else None


def doubled(value: Value | None, pairs: Pairs, deep: int = DEEP) -> bool:
    """Return whether both elements of each pair are proven to be equal, in every row.

    Args:
        value: Angles, or what is computed of them.
        pairs: Which elements are a pair.
        deep: How many steps back are looked at.
    """
    size = _last(value)
    if value is None or size is None or size % 2 or not deep:
        return False
    tensor = constant_of(value)
    if tensor is not None:
        return tensor.size <= MANY and _equal(tensor.numpy(), pairs)
    node = value.producer()
    if node is None or node.domain:
        return False
    return _doubles(node, value, pairs) or _passes_on(node, value, pairs, deep - 1)


def _equal(rows: np.ndarray, pairs: Pairs) -> bool:
    one, two = pairs.parts(range(rows.shape[-1]))
    return bool((rows[..., list(one)] == rows[..., list(two)]).all())


def _doubles(node: Node, value: Value, pairs: Pairs) -> bool:
    """Return whether a node puts each element into both places of a pair."""
    if pairs == Pairs.HALVES:
        return node.op_type == "Concat" and _twice_along_the_last(node)
    wide = node.inputs[0] if node.op_type == "Reshape" else None
    apart = None if wide is None else wide.producer()
    if apart is None or apart.domain or _last(wide) != 2:
        return False
    if apart.op_type == "Concat":
        return _twice_along_the_last(apart)
    return apart.op_type in ("Expand", "Tile") and _last(apart.inputs[0]) == 1


def _twice_along_the_last(concat: Node) -> bool:
    rank = len(concat.outputs[0].shape or ())
    along = int_of(concat, "axis", 0) in (-1, rank - 1)
    return along and len(concat.inputs) == 2 and concat.inputs[0] is concat.inputs[1]


def _passes_on(node: Node, value: Value, pairs: Pairs, deep: int) -> bool:
    """Return whether a node's rows have equal pairs because those of its operands have."""
    if node.op_type in named(Kind.ELEMENTWISE) or node.op_type == "Cast":
        wide = [each for each in node.inputs if each is not None and _spans(each)]
        return bool(wide) and all(doubled(each, pairs, deep) for each in wide)
    first = node.inputs[0]
    if _last(first) != _last(value) or first is None or first.shape is None:
        return False
    last = len(first.shape) - 1
    if node.op_type == "Transpose":
        return ints_of(node, "perm", (0,))[-1] == last and doubled(first, pairs, deep)
    if node.op_type == "Gather":
        axis = int_of(node, "axis", 0)
        return axis not in (-1, last) and doubled(first, pairs, deep)
    if node.op_type == "Slice":
        axes = integers(node.inputs[3]) if len(node.inputs) > 3 else None
        return bool(axes) and not {-1, last} & set(axes or ()) and doubled(first, pairs, deep)
    whole = node.op_type in keeping_order() or node.op_type in ("Expand", "Tile")
    return whole and doubled(first, pairs, deep)


def _spans(value: Value) -> bool:
    """Return whether a value may differ along the last axis."""
    return value.shape is None or (len(value.shape) > 0 and value.shape[-1] != 1)
