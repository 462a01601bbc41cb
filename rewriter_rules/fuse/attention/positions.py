"""Places of queries and keys, one after the other from some place on, as sums of sizes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from onnx_ir import Node, Value

from vlmpass.ir_tools.graph.constants import constant_of
from vlmpass.ir_tools.graph.symbols import ProvenDim
from vlmpass.rewriter_rules.fuse.attention.steps_back import Size, integers, made_by, sizes_in

__all__ = ["Places", "Terms", "exactly", "places_of", "plus", "terms_of", "terms_of_size"]

DEEP = 8
"""Places are put together in fewer steps."""
MANY = 1 << 12
"""A table of more places is not read."""

Terms: TypeAlias = "Mapping[Hashable, int]"
"""A sum of sizes: how often each stands in it, and the number that is added under None."""


def plus(one: Terms, other: Terms, times: int = 1) -> Terms:
    """Return a sum of two sums.

    Args:
        one: Counts once.
        other: Counts as often as is said.
        times: How often, perhaps less than never.
    """
    total = Counter(one)
    for size, count in other.items():
        total[size] += times * count
    return {size: count for size, count in total.items() if count}


def exactly(number: int) -> Terms:
    """Return a sum that is a number."""
    return {None: number} if number else {}


def terms_of_size(size: Size) -> Terms | None:
    """Return the size of an axis as a sum; None where nothing tells it from others."""
    if isinstance(size, int):
        return exactly(size)
    if size.value is not None:
        return {size.value: 1}
    return {size.symbol: 1} if isinstance(size, ProvenDim) else None


def terms_of(value: Value | None, deep: int = DEEP) -> Terms | None:
    """Return the one integer that a value holds as a sum of sizes, None where it is not known.

    Args:
        value: Of one element, whatever its rank.
        deep: How many steps back are looked at.
    """
    sizes = sizes_in(value)
    if sizes is not None:
        return terms_of_size(sizes[0]) if len(sizes) == 1 else None
    node = made_by(value, "Add", "Sub", "Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze")
    if node is None or not deep or not _is_integer(value):
        return None
    if node.op_type not in ("Add", "Sub"):
        return terms_of(node.inputs[0], deep - 1)
    one, other = (terms_of(each, deep - 1) for each in node.inputs)
    if one is None or other is None:
        return None
    return plus(one, other, 1 if node.op_type == "Add" else -1)


def _is_integer(value: Value | None) -> bool:
    return value is not None and value.dtype is not None and value.dtype.is_integer()


@dataclass(frozen=True)
class Places:
    """Integers one after the other.

    Attributes:
        first: Where they start.
        count: How many there are.
    """

    first: Terms
    count: Terms


def places_of(value: Value | None, deep: int = DEEP) -> Places | None:
    """Return what places a value holds along its one axis that is none of 1.

    Args:
        value: Of integers, in their order.
        deep: How many steps back are looked at.
    """
    if not _is_integer(value) or value is None or not deep:
        return None
    tensor = constant_of(value)
    if tensor is not None:
        return _of_table(tensor.numpy().ravel()) if 0 < tensor.size <= MANY else None
    node = made_by(value, "Range", "Add", "Sub", "Cast", "Identity", "Reshape", "Unsqueeze")
    if node is None:
        return None
    if node.op_type == "Range":
        first, end = (terms_of(each) for each in node.inputs[:2])
        steps = integers(node.inputs[2]) == [1]
        return None if not steps or first is None or end is None else _from(first, end)
    return _moved(node, deep - 1)


def _from(first: Terms, end: Terms) -> Places:
    return Places(first, plus(end, first, -1))


def _of_table(numbers: np.ndarray) -> Places | None:
    first = int(numbers[0])
    ordered = np.array_equal(numbers, np.arange(first, first + len(numbers)))
    return _from(exactly(first), exactly(first + len(numbers))) if ordered else None


def _moved(node: Node, deep: int) -> Places | None:
    """Return places that a node hands on, or adds one number to."""
    if node.op_type not in ("Add", "Sub"):
        return places_of(node.inputs[0], deep)
    one, other = node.inputs
    for places, by in ((one, other), (other, one)) if node.op_type == "Add" else ((one, other),):
        found, step = places_of(places, deep), terms_of(by)
        if found is not None and step is not None and by is not None and _is_one(by):
            first = plus(found.first, step, 1 if node.op_type == "Add" else -1)
            return Places(first, found.count)
    return None


def _is_one(value: Value) -> bool:
    return value.shape is not None and all(size == 1 for size in value.shape)
