"""Scattering with a reduction, and updates of caches."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.graph.tape import Tape
from vlmpass.rewriter_rules.opset.build import normalized, vector
from vlmpass.rewriter_rules.opset.queries import (
    again,
    integer,
    operand,
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
    return again(op, node, drop=("reduction",)) if "reduction" in node.attributes else UNCHANGED


_COMBINE = {"add": "Add", "mul": "Mul", "max": "Max", "min": "Min"}


def _one_by_one(op: Tape, node: ir.Node) -> ir.Value:
    """Record a Loop that gathers, combines and scatters a single update in each turn.

    Only so are indices that occur twice right without the reduction.
    """
    x, indices, updates = (operand(node, index) for index in range(3))
    if node.op_type == "ScatterElements":
        indices = _full_indices(op, node, x, indices)
    places = op.Reshape(indices, op.Concat(vector(op, [-1]), _last_size(op, indices), axis=0))
    tail = op.Slice(
        op.Shape(updates),
        vector(op, [rank(operand(node, 1)) - (node.op_type == "ScatterND")]),
        vector(op, [2**31 - 1]),
        vector(op, [0]),
    )
    rows = op.Reshape(updates, op.Concat(vector(op, [-1]), tail, axis=0))
    count = op.Gather(op.Shape(places), op.const(np.int64(0)), axis=0)
    combine = _COMBINE[text(node, "reduction")]
    body = _turn(op, x, places, rows, combine)
    yes = op.const(np.array(True))
    result = op.node("Loop", [count, yes, x], {"body": body})[0]
    result.type, result.shape = x.type, x.shape
    return result


def _last_size(op: Tape, value: ir.Value) -> ir.Value:
    return op.Slice(op.Shape(value), vector(op, [-1]), vector(op, [2**31 - 1]), vector(op, [0]))


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
            size = op.Gather(shape, op.const(np.int64(place)), axis=0)
            line = op.Range(op.const(np.int64(0)), size, op.const(np.int64(1)))
            spread = [1] * count
            spread[place] = -1
            wide = op.Expand(op.Reshape(line, vector(op, spread)), shape)
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
    past, update, starts = operand(node, 0), operand(node, 1), optional_input(node, 2)
    count = rank(past)
    axis = normalized(integer(node, "axis", -2), count)
    shape = op.Shape(update)
    coordinates: list[ir.Value] = []
    for place in range(axis + 1):
        size = op.Gather(shape, op.const(np.int64(place)), axis=0)
        line = op.Range(op.const(np.int64(0)), size, op.const(np.int64(1)))
        spread = [1] * (axis + 1)
        spread[place] = -1
        coordinates.append(op.Reshape(line, vector(op, spread)))
    if starts is not None:
        batch = vector(op, [-1] + [1] * axis)
        coordinates[axis] = op.Add(coordinates[axis], op.Reshape(starts, batch))
    if text(node, "mode", "linear") == "circular":
        limit = op.Gather(op.Shape(past), op.const(np.int64(axis)), axis=0)
        coordinates[axis] = op.Mod(coordinates[axis], limit)
    lead = op.Slice(shape, vector(op, [0]), vector(op, [axis + 1]), vector(op, [0]))
    last = vector(op, [axis + 1])
    columns = [op.Unsqueeze(op.Expand(each, lead), last) for each in coordinates]
    return op.ScatterND(past, op.Concat(*columns, axis=-1), update)
