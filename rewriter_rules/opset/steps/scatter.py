"""Scattering with a reduction, and updates of caches."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.graph.tape import Tape
from vlmpass.rewriter_rules.opset.build import (
    index_along,
    normalized,
    part,
    scalar_at,
    sizes_of,
    vector,
    without,
)
from vlmpass.rewriter_rules.opset.queries import (
    integer,
    operand,
    operands,
    optional_input,
    rank,
    text,
)
from vlmpass.rewriter_rules.opset.table import UNCHANGED, Outputs, adapter, expansion

__all__: list[str] = []

_D = ir.DataType


@adapter("ScatterElements ScatterND", 18, 16)
def extremes(op: Tape, node: ir.Node) -> Outputs:
    """Op(x, i, u, reduction=max) -> a Loop over the updates, one at a time."""
    if text(node, "reduction", "none") in ("max", "min"):
        return _one_by_one(op, node)
    return UNCHANGED


@adapter("ScatterElements ScatterND", 16, 13)
def sums(op: Tape, node: ir.Node) -> Outputs:
    """Op(x, i, u, reduction=add) -> a Loop over the updates, one at a time."""
    if text(node, "reduction", "none") != "none":
        return _one_by_one(op, node)
    return without(op, node, "reduction")


def _one_by_one(op: Tape, node: ir.Node) -> ir.Value:
    """Record a Loop that gathers, combines and scatters a single update in each turn.

    Only so are indices that occur twice right without the reduction.
    """
    x, indices, updates = operands(node, 3)
    if node.op_type == "ScatterElements":
        indices = _full_indices(op, node, x, indices)
    places = op.Reshape(indices, op.Concat(vector(op, [-1]), _last_size(op, indices), axis=0))
    tail = sizes_of(op, updates, rank(operand(node, 1)) - (node.op_type == "ScatterND"), 2**31 - 1)
    rows = op.Reshape(updates, op.Concat(vector(op, [-1]), tail, axis=0))
    count = scalar_at(op, op.Shape(places), 0)
    combine = text(node, "reduction").capitalize()
    body = _turn(op, x, places, rows, combine)
    yes = op.const(np.array(True))
    result = op.node("Loop", [count, yes, x], {"body": body})[0]
    result.type, result.shape = x.type, x.shape
    return result


def _last_size(op: Tape, value: ir.Value) -> ir.Value:
    return sizes_of(op, value, -1, 2**31 - 1)


def _full_indices(op: Tape, node: ir.Node, x: ir.Value, indices: ir.Value) -> ir.Value:
    """Record for each update the coordinates of the element it goes to, in a last axis."""
    count = rank(x)
    axis = normalized(integer(node, "axis"), count)
    shape = op.Shape(indices)
    coordinates: list[ir.Value] = []
    for place in range(count):
        if place == axis:
            wide = op.Cast(indices, to=_D.INT64)
        else:
            wide = op.Expand(index_along(op, shape, place, count), shape)
        coordinates.append(op.Reshape(wide, op.Concat(shape, vector(op, [1]), axis=0)))
    return op.Concat(*coordinates, axis=-1)


def _turn(op: Tape, x: ir.Value, places: ir.Value, rows: ir.Value, combine: str) -> ir.Graph:
    """Return the body of the Loop: turn, condition, data -> condition, data."""
    name = op.names.value
    turn = ir.Value(name=name(f"{op.hint}/turn"), type=ir.TensorType(_D.INT64), shape=ir.Shape([]))
    condition = ir.Value(
        name=name(f"{op.hint}/condition"), type=ir.TensorType(_D.BOOL), shape=ir.Shape([])
    )
    data = ir.Value(name=name(f"{op.hint}/data"), type=x.type, shape=x.shape)
    inner = Tape(op.names, op.opsets, f"{op.hint}/turn")
    at = inner.Reshape(turn, vector(op, [1]))
    place = inner.Gather(places, at, axis=0)
    update = inner.Gather(rows, at, axis=0)
    combined = inner.node(combine, [inner.GatherND(data, place), update])[0]
    changed = inner.ScatterND(data, place, combined)
    again_ = inner.Identity(condition)
    for value, like in ((changed, data), (again_, condition)):
        value.type, value.shape = like.type, like.shape
    op.constants.extend(inner.constants)
    return ir.Graph(
        [turn, condition, data], [again_, changed], nodes=inner.nodes, name=name(f"{op.hint}/body")
    )


@expansion("TensorScatter", 24)
def tensor_scatter(op: Tape, node: ir.Node) -> Outputs:
    """TensorScatter(cache, u, w) -> ScatterND(cache, places from w on, u)."""
    past, update = operands(node, 2)
    axis = normalized(integer(node, "axis", -2), rank(past))
    shape = op.Shape(update)
    lines = [index_along(op, shape, place, axis + 1) for place in range(axis + 1)]
    lines[axis] = _written(op, node, lines[axis], axis)
    lead, last = part(op, shape, 0, axis + 1), vector(op, [axis + 1])
    columns = [op.Unsqueeze(op.Expand(each, lead), last) for each in lines]
    return op.ScatterND(past, op.Concat(*columns, axis=-1), update)


def _written(op: Tape, node: ir.Node, line: ir.Value, axis: int) -> ir.Value:
    """Record where a cache is written along its axis: from where each sequence has come to."""
    starts = optional_input(node, 2)
    if starts is not None:
        batch = vector(op, [-1] + [1] * axis)
        line = op.Add(line, op.Reshape(starts, batch))
    if text(node, "mode", "linear") != "circular":
        return line
    return op.Mod(line, scalar_at(op, op.Shape(operand(node, 0)), axis))
