"""Values that have one shape because they are computed alike, of what has one shape."""

from __future__ import annotations

import numpy as np
from onnx_ir import Node, Value

from vlmpass.ir_tools.graph.constants import constant_of
from vlmpass.ir_tools.operators.traits import Kind, broadcasting, traits_of

__all__ = ["shaped_alike"]

DEEP = 10
"""Keys and values come from one value in fewer steps."""
MANY = 16
"""Sizes and axes are no longer."""
TELLING = (Kind.MOVE, Kind.CAST, Kind.ELEMENTWISE, Kind.PRODUCT, Kind.NORMALIZATION)
"""What operators make of shapes and sizes alone, and the same each time."""


def shaped_alike(one: Value | None, two: Value | None, deep: int = DEEP) -> bool:
    """Return whether two values have one shape: the same steps lead to them from one value.

    Args:
        one: Such as keys.
        two: Such as values.
        deep: How many steps back are looked at.
    """
    one, two = _without_bias(one), _without_bias(two)
    if one is two:
        return True
    if one is None or two is None:
        return False
    first, second = constant_of(one), constant_of(two)
    if first is not None or second is not None:
        return first is not None and second is not None and first.shape == second.shape
    nodes = _alike(one, two)
    traits = None if nodes is None else traits_of("", nodes[0].op_type)
    if nodes is None or traits is None or traits.kind not in TELLING or not deep:
        return False
    pairs = zip(nodes[0].inputs, nodes[1].inputs, strict=True)
    return all(
        _equal(a, b, deep - 1) if at in traits.sizes else shaped_alike(a, b, deep - 1)
        for at, (a, b) in enumerate(pairs)
    )


def _alike(one: Value, two: Value) -> tuple[Node, Node] | None:
    """Return what makes two values, if these are nodes of one kind that differ in inputs alone."""
    first, second = one.producer(), two.producer()
    if first is None or second is None or first.domain or first.op_type != second.op_type:
        return None
    same = not second.domain and len(first.inputs) == len(second.inputs)
    places = first.outputs.index(one) == second.outputs.index(two)
    return (first, second) if same and places and first.attributes == second.attributes else None


def _equal(one: Value | None, two: Value | None, deep: int) -> bool:
    """Return whether two values that hold sizes or axes are equal."""
    if one is two:
        return True
    first, second = constant_of(one), constant_of(two)
    if first is not None and second is not None:
        small = first.size <= MANY and second.size <= MANY
        return small and np.array_equal(first.numpy(), second.numpy())
    nodes = None if one is None or two is None else _alike(one, two)
    if nodes is None or not deep:
        return False
    if nodes[0].op_type == "Shape":
        return shaped_alike(nodes[0].inputs[0], nodes[1].inputs[0], deep - 1)
    traits = traits_of("", nodes[0].op_type)
    pairs = zip(nodes[0].inputs, nodes[1].inputs, strict=True)
    told = traits is not None and traits.kind in TELLING
    return told and all(_equal(a, b, deep - 1) for a, b in pairs)


def _without_bias(value: Value | None) -> Value | None:
    """Return what a constant row is added to, which changes no shape."""
    node = None if value is None else value.producer()
    if node is None or node.domain or node.op_type not in broadcasting() or len(node.inputs) != 2:
        return value
    for x, bias in (node.inputs, reversed(node.inputs)):
        row = constant_of(bias)
        size = x.shape[-1] if x is not None and x.shape else None
        if (
            row is not None
            and len(row.shape) < 2
            and isinstance(size, int)
            and row.size in (1, size)
        ):
            return _without_bias(x)
    return value
