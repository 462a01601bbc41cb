"""The numbers that a mask holds, where these are few and can be told without running."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable

import numpy as np
from onnx_ir import DataType, Node, Value

from vlmpass.ir_tools.graph.constants import constant_of
from vlmpass.ir_tools.operators.traits import hands_on
from vlmpass.rewriter_rules.simplify.known import FLOATS

__all__ = ["MANY", "held"]

DEEP = 12
"""Masks are put together in fewer steps."""
MANY = 1 << 16
"""A constant of more numbers is not read."""
FEW = 64
"""Sums of more numbers are not told."""
COMBINE = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply}


def held(value: Value | None, deep: int = DEEP) -> frozenset[float] | None:
    """Return all numbers that a value may hold; None where they are not known, or NaN is one.

    Args:
        value: A mask, or what it is made of.
        deep: How many steps back are looked at.
    """
    if value is None or value.dtype is None:
        return None
    if value.dtype == DataType.BOOL:
        return frozenset((0.0, 1.0))
    tensor = constant_of(value)
    if tensor is not None:
        small = tensor.size <= MANY and (value.dtype in FLOATS or value.dtype.is_integer())
        return _all_of(np.unique(tensor.numpy()).astype(np.float64)) if small else None
    node = value.producer()
    if node is None or node.domain or not deep:
        return None
    return _made(node, value.dtype, deep - 1)


def _all_of(numbers: Iterable[float]) -> frozenset[float] | None:
    found = frozenset(map(float, numbers))
    return None if any(map(math.isnan, found)) else found


def _made(node: Node, dtype: DataType, deep: int) -> frozenset[float] | None:
    """Return the numbers that a node makes of those of its operands."""
    if node.op_type == "Cast":
        cast = held(node.inputs[0], deep)
        return None if cast is None or dtype not in FLOATS else _typed(cast, dtype)
    combine = COMBINE.get(node.op_type)
    moved = [x for at, x in enumerate(node.inputs) if combine or hands_on(node, at)]
    sets = [held(each, deep) for each in moved]
    known = [each for each in sets if each is not None]
    if not sets or len(known) < len(sets):
        return None
    if combine is None:
        return frozenset().union(*known)
    if dtype not in FLOATS or math.prod(map(len, known)) > FEW:
        return None
    kind = dtype.numpy().type
    with np.errstate(all="ignore"):
        pairs = [combine(kind(one), kind(two)) for one, two in itertools.product(*known)]
    return _all_of(pairs)


def _typed(numbers: Iterable[float], dtype: DataType) -> frozenset[float] | None:
    with np.errstate(over="ignore"):
        return _all_of(np.array([*numbers]).astype(dtype.numpy()).astype(np.float64))
