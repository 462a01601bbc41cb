"""Axes merged, moved and split again: one Transpose in the place of three nodes."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from vlmpass.ir_tools.shapes.algebra import Algebra, Dim, divide_exactly, product
from vlmpass.ir_tools.shapes.analysis import Facts

__all__ = ["as_one_transpose"]


def as_one_transpose(node: ir.Node, facts: Facts) -> tuple[ir.Value, tuple[int, ...]] | None:
    """Return x and perm if a node is the end of Reshape(Transpose(Reshape(x))) that moves axes.

    The first Reshape merges neighbouring axes, the last one splits them as they were; so the
    attention of PyTorch's exporter turns its keys. It is the same for every input that the three
    nodes accept. A Transpose that something else uses is left alone: it would be computed twice.
    """
    turn = _behind(node, "Reshape", "Transpose")
    merge = None if turn is None else _behind(turn, "Transpose", "Reshape")
    if turn is None or merge is None or len(node.inputs) < 2 or len(merge.inputs) < 2:
        return None
    x, between = merge.inputs[0], turn.outputs[0]
    if x is None or len(between.uses()) != 1 or between.is_graph_output():
        return None
    if any(each.is_ref() for part in (merge, turn, node) for each in part.attributes.values()):
        return None
    whole, first, last = facts[x].shape, *(facts[each.inputs[1]].elements for each in (merge, node))
    if whole is None or first is None or last is None:
        return None
    merged = _sizes(first, whole, literal=_literal(merge))
    groups = None if merged is None else _merged(whole, merged)
    if merged is None or groups is None:
        return None
    perm = turn.attributes.get_ints("perm", tuple(reversed(range(len(merged)))))
    axes = tuple(axis for at in perm for axis in groups[at])
    turned = [merged[at] for at in perm]
    wanted = tuple(whole[axis] for axis in axes)
    if _sizes(last, turned, literal=_literal(node)) != wanted:
        return None
    # What a size of 0 does: it may mean to copy an axis, or that the last Reshape fails.
    fatal = () if _literal(node) else last[len(turned) :]
    safe = _copies_zeros(facts.algebra, first, whole, merge, fatal)
    return (x, axes) if safe and _copies_zeros(facts.algebra, last, turned, node, fatal) else None


def _behind(node: ir.Node, op_type: str, before: str) -> ir.Node | None:
    """Return the maker of a node's first input, if both are of the operators asked for."""
    if node.op_type != op_type or node.domain not in ("", "ai.onnx") or not node.inputs:
        return None
    value = node.inputs[0]
    found = None if value is None else value.producer()
    known = found is not None and found.op_type == before and found.domain in ("", "ai.onnx")
    return found if known else None


def _literal(reshape: ir.Node) -> bool:
    return bool(reshape.attributes.get_int("allowzero", 0))


def _sizes(target: Sequence[Dim], data: Sequence[Dim], *, literal: bool) -> tuple[Dim, ...] | None:
    """Return the shape that a Reshape gives to data if no computed element of its target is 0."""
    sizes: list[Dim] = []
    for index, item in enumerate(target):
        if item == 0 and not literal:
            if index >= len(data):
                return None
            item = data[index]
        sizes.append(item)
    if -1 in sizes:
        rest = sizes.index(-1)
        others = product(sizes[:rest] + sizes[rest + 1 :])
        found = None if others == 0 else divide_exactly(product(data), others)
        if found is None:
            return None
        sizes[rest] = found
    return tuple(sizes)


def _copies_zeros(
    algebra: Algebra,
    target: Sequence[Dim],
    data: Sequence[Dim],
    reshape: ir.Node,
    fatal: Sequence[Dim],
) -> bool:
    """Whether every element that turns out to be 0 gives an axis of size 0, or is fatal later."""
    if _literal(reshape):
        return True
    for index, item in enumerate(target):
        if isinstance(item, int) or algebra.positive(item) or item in fatal:
            continue
        if index >= len(data) or divide_exactly(data[index], item) is None:
            return False
    return True


def _merged(before: Sequence[Dim], after: Sequence[Dim]) -> list[list[int]] | None:
    """Return which neighbouring axes each axis is the product of."""
    groups: list[list[int]] = []
    start = 0
    for size in after:
        stop = start
        while stop <= len(before) and product(before[start:stop]) != size:
            stop += 1
        if stop > len(before):
            return None
        groups.append(list(range(start, stop)))
        start = stop
    return groups if start == len(before) else None
