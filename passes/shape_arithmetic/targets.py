"""Inputs that can be constants because all that matters about them is proven."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import onnx_ir as ir

from vlmpass.ir_tools.operators import keeping_order
from vlmpass.ir_tools.shapes.algebra import Algebra, Dim, product
from vlmpass.ir_tools.shapes.analysis import Facts

__all__ = ["constant_target", "is_no_op"]

_END = 2**63 - 1


def constant_target(node: ir.Node, facts: Facts) -> tuple[int, tuple[int, ...]] | None:
    """Return an input of a node and the numbers that can stand for its computed elements.

    The node does the same for every input, axes of size 0 included. None if there is nothing to
    replace: the input is a constant already, or more of it matters than is proven.
    """
    finder = _FINDERS.get(node.op_type)
    if finder is None or len(node.inputs) < 2 or _is_open(node):
        return None
    index, find = finder
    value = node.inputs[index] if index < len(node.inputs) else None
    if value is None:
        return None
    elements, data = facts[value].elements, facts[node.inputs[0]].shape
    if elements is None or data is None or all(isinstance(item, int) for item in elements):
        return None
    numbers = find(node, facts, data, elements)
    return None if numbers is None else (index, numbers)


def _reshape(
    node: ir.Node, facts: Facts, data: tuple[Dim, ...], target: tuple[Dim, ...]
) -> tuple[int, ...] | None:
    """Write 0 for an axis that is copied and -1 for the one that follows from the others."""
    if node.attributes.get_int("allowzero", 0):
        return _one_left(facts.algebra, target, target) if 0 not in target else None
    found = [
        0 if index < len(data) and data[index] == item else item
        for index, item in enumerate(target)
    ]
    return _one_left(facts.algebra, found, target)


def _one_left(
    algebra: Algebra, found: Sequence[Dim], target: Sequence[Dim]
) -> tuple[int, ...] | None:
    """Replace the one unknown size by -1; with axes of size 0 that works only if it is the 0."""
    unknown = [index for index, item in enumerate(found) if not isinstance(item, int)]
    numbers = [item if isinstance(item, int) else -1 for item in found]
    if not unknown:
        return tuple(numbers)
    others = [item for index, item in enumerate(target) if index != unknown[0]]
    if len(unknown) > 1 or -1 in target or not algebra.positive(product(others)):
        return None
    return tuple(numbers) if algebra.nonnegative(target[unknown[0]]) else None


def _expand(
    node: ir.Node, facts: Facts, data: tuple[Dim, ...], target: tuple[Dim, ...]
) -> tuple[int, ...] | None:
    """Write 1 for an axis that is long enough already."""
    own = (1,) * (len(target) - len(data)) + data
    if len(own) > len(target):
        return None
    found = [1 if dim == item else item for dim, item in zip(own, target, strict=True)]
    numbers = tuple(item for item in found if isinstance(item, int))
    return numbers if len(numbers) == len(found) else None


def _slice_ends(
    node: ir.Node, facts: Facts, data: tuple[Dim, ...], ends: tuple[Dim, ...]
) -> tuple[int, ...] | None:
    """Write the largest number for an end that is the end of the axis."""
    given = [facts[value].numbers if value is not None else None for value in node.inputs[3:]]
    if len(given) != len(node.inputs[3:]) or None in given[: len(node.inputs) - 3]:
        return None
    axes, steps = [*given, None, None][:2]
    if steps is not None and min(steps) < 0:
        return None
    numbers: list[int] = []
    for axis, end in zip(axes or range(len(ends)), ends, strict=True):
        if isinstance(end, int):
            numbers.append(end)
        elif facts.algebra.at_least(end, data[axis]):
            numbers.append(_END)
        else:
            return None
    return tuple(numbers)


_FINDERS = {"Reshape": (1, _reshape), "Expand": (1, _expand), "Slice": (2, _slice_ends)}


@cache
def _may_be_no_ops() -> frozenset[str]:
    return keeping_order() | {"Expand", "Slice", "Tile"} | {"Cast", "Transpose"}


def is_no_op(node: ir.Node, facts: Facts) -> bool:
    """Whether a node only hands on its first input: element type, shape and order stay."""
    operator = node.op_type
    if operator not in _may_be_no_ops() or _is_open(node):
        return False
    if not node.inputs or node.inputs[0] is None:
        return False
    if operator == "Identity":
        return True
    if operator == "Cast":
        return facts.dtype(node.inputs[0]) == node.attributes.get_int("to", 0)
    if operator == "Transpose":
        perm = node.attributes.get_ints("perm", ())
        return bool(perm) and list(perm) == list(range(len(perm)))
    before, after = facts[node.inputs[0]].shape, facts[node.outputs[0]].shape
    if before is None or before != after:
        return False
    if operator != "Slice":
        return True
    steps = node.inputs[4] if len(node.inputs) > 4 else None
    if steps is None:
        return True
    numbers = facts[steps].numbers
    return numbers is not None and set(numbers) == {1}


def _is_open(node: ir.Node) -> bool:
    """Whether a function's caller gives an attribute of the node."""
    attributes = node.attributes.data
    return bool(attributes) and any(attribute.is_ref() for attribute in attributes.values())
