"""Reductions: axes as attribute and as input, types, and the last of several maxima."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from vlmpass.ir_tools.graph.tape import Tape
from vlmpass.ir_tools.operators import Kind, named
from vlmpass.rewriter_rules.opset.build import (
    given_integers,
    normalized,
    scalar,
    scalar_at,
    vector,
    without,
)
from vlmpass.rewriter_rules.opset.queries import (
    again,
    dtype,
    integer,
    integers,
    known_or_none,
    listed,
    operand,
    optional_input,
    rank,
)
from vlmpass.rewriter_rules.opset.table import UNCHANGED, Outputs, adapter

__all__ = ["conditional", "flagged_axes"]

_ALL = " ".join(
    name for name in sorted(named(Kind.REDUCTION)) if name[:6] == "Reduce" and name != "ReduceSum"
)
"""All but ReduceSum, whose axes became an input five opsets earlier."""


def _rounded(op: Tape, x: ir.Value, function: Callable[[ir.Value], ir.Value]) -> ir.Value:
    """Record a function, in double where x is an integer."""
    if not dtype(x).is_integer():
        return function(x)
    return op.Cast(function(op.Cast(x, to=ir.DataType.DOUBLE)), to=dtype(x))


def _element(op: Tape, node: ir.Node, x: ir.Value) -> ir.Value:
    """Record what a reduction over no axis makes of each element."""
    if node.op_type == "ReduceLogSum":
        return _rounded(op, x, op.Log)
    value, _ = _first_element(op, node, x)
    return op.Identity(x) if value is x else value


@adapter(_ALL, 13, 18)
@adapter("ReduceSum Squeeze Unsqueeze", 11, 13)
def axes_become_input(op: Tape, node: ir.Node) -> Outputs:
    """Op(x, axes=a) -> Op(x, a)."""
    axes = given_integers(op, node, "axes")
    if axes is None:
        return UNCHANGED
    return again(op, node, [node.inputs[0], axes], drop=("axes",))


@adapter(_ALL, 18, 13)
@adapter("ReduceSum", 13, 11)
def axes_become_attribute(op: Tape, node: ir.Node) -> Outputs:
    """Op(x, a) -> Op(x, axes=a), one conditional Op for each axis if a varies."""
    x, axes = operand(node, 0), optional_input(node, 1)
    values, bare = known_or_none(axes), integer(node, "noop_with_empty_axes") == 1
    if axes is not None and values is None:
        return _reduce_at(op, node, x, axes, bare)
    chosen = None if values is None or not values.size else listed(values)
    if bare and chosen is None:
        return _element(op, node, x)
    return again(op, node, [x], drop=("noop_with_empty_axes",), axes=chosen)


def flagged_axes(op: Tape, axes: ir.Value, count: int) -> ir.Value:
    """Record for each axis of a rank whether it is among some axes, as int64 0 or 1; opset 11.

    Args:
        op: The tape.
        axes: An int64 vector, elements in [-count, count - 1].
        count: The rank.
    """
    places = op.Mod(axes, op.const(count))
    ones = op.Expand(op.const(1), op.Shape(axes))
    return op.ScatterElements(vector(op, [0] * count), places, ones, axis=0)


def _flag_at(op: Tape, flags: ir.Value, axis: int) -> ir.Value:
    """Record one flag as a bool scalar."""
    return op.Cast(scalar_at(op, flags, axis), to=ir.DataType.BOOL)


def conditional(
    op: Tape,
    flag: ir.Value,
    yes: Callable[[Tape], ir.Value],
    no: Callable[[Tape], ir.Value],
    kind: ir.TypeProtocol | None,
) -> ir.Value:
    """Record an If with one output of a type, each branch built on a tape of its own.

    bfloat16 leaves the branches as float, since If does not admit it before opset 16.

    Args:
        op: The tape.
        flag: A bool scalar.
        yes: Builds the output where it is true.
        no: Builds the output where it is false.
        kind: The type of the output; None if it is not known.
    """
    narrow = isinstance(kind, ir.TensorType) and kind.dtype == ir.DataType.BFLOAT16
    branches: dict[str, object] = {}
    shapes: list[ir.Shape | None] = []
    for name, build in (("then_branch", yes), ("else_branch", no)):
        inner = Tape(op.names, op.opsets, f"{op.hint}/{name}")
        output = build(inner)
        output.type = output.type or kind
        if narrow:
            output = inner.Cast(output, to=ir.DataType.FLOAT)
        shapes.append(output.shape)
        label = op.names.value(f"{op.hint}/{name}")
        branches[name] = ir.Graph([], [output], nodes=inner.nodes, name=label)
        op.constants.extend(inner.constants)
    (value,) = op.node("If", [flag], branches)
    value.type, value.shape = kind, _common(*shapes)
    if narrow:
        value.type = ir.TensorType(ir.DataType.FLOAT)
        return op.Cast(value, to=ir.DataType.BFLOAT16)
    return value


def _common(one: ir.Shape | None, other: ir.Shape | None) -> ir.Shape | None:
    """Return what two shapes say alike; None where one is unknown or the ranks differ."""
    if one is None or other is None or len(one) != len(other):
        return None
    pairs = zip(one, other, strict=True)
    return ir.Shape([a if isinstance(a, int) and a == b else None for a, b in pairs])


def _reduce_at(op: Tape, node: ir.Node, x: ir.Value, axes: ir.Value, bare: bool) -> Outputs:
    count = rank(x)
    if count == 0:
        return _element(op, node, x)
    flags = flagged_axes(op, axes, count)
    if not bare:
        none = op.Equal(op.Size(axes), op.const(0))
        flags = op.Max(flags, op.Cast(none, to=ir.DataType.INT64))
    kind, whole = dtype(x), dtype(x).is_integer()
    if whole and node.op_type in ("ReduceL2", "ReduceLogSumExp"):
        x = op.Cast(x, to=ir.DataType.DOUBLE)
    value, operator = _first_element(op, node, x)
    for axis in range(count):
        value = _reduce_if(op, operator, value, _flag_at(op, flags, axis), axis)
    if node.op_type == "ReduceLogSum":
        value = _rounded(op, value, op.Log)
    if whole and node.op_type == "ReduceMean":
        value = op.Div(value, op.Cast(op.Div(op.Size(x), op.Size(value)), to=kind))
    elif dtype(value) != kind:
        value = op.Cast(value, to=kind)
    if integer(node, "keepdims", 1) != 1:
        kept = op.Cast(op.Sub(op.const(1), flags), to=ir.DataType.BOOL)
        value = op.Reshape(value, op.Compress(op.Shape(value), kept, axis=0))
    return value


def _first_element(op: Tape, node: ir.Node, x: ir.Value) -> tuple[ir.Value, str]:
    """Return what to reduce axis by axis and by which operator."""
    if node.op_type == "ReduceSumSquare":
        return op.Mul(x, x), "ReduceSum"
    # A mean of means of integers would be rounded at every axis.
    mean = node.op_type == "ReduceMean" and dtype(x).is_integer()
    if node.op_type == "ReduceLogSum" or mean:
        return x, "ReduceSum"
    if node.op_type in ("ReduceL1", "ReduceL2"):
        return op.Abs(x), node.op_type
    return x, node.op_type


def _reduce_if(op: Tape, operator: str, x: ir.Value, flag: ir.Value, axis: int) -> ir.Value:
    def reduced(inner: Tape) -> ir.Value:
        if operator == "ReduceSum" and op.opsets[""] >= 13:
            return inner.ReduceSum(x, vector(op, [axis]), keepdims=1)
        return inner.node(operator, [x], {"axes": [axis], "keepdims": 1})[0]

    value = conditional(op, flag, reduced, lambda inner: inner.Identity(x), x.type)
    if value.shape is None:
        value.shape = ir.Shape([None] * rank(x))
    return value


@adapter(_ALL + " ReduceSum", 11, 1)
def axes_from_the_front(op: Tape, node: ir.Node) -> Outputs:
    """Op(x, axes=a) -> Op(x, axes=a + r) for each a below 0."""
    axes = integers(node, "axes")
    if axes is None or min(axes, default=0) >= 0:
        return UNCHANGED
    x = operand(node, 0)
    count = rank(x)
    return again(op, node, axes=[normalized(axis, count) for axis in axes])


@adapter("ReduceMax ReduceMin", 20, 18)
def reduce_bool(op: Tape, node: ir.Node) -> Outputs:
    """Op(x) -> Cast(Op(Cast(x, to=uint8)), to=bool), of booleans."""
    x = operand(node, 0)
    if dtype(x) != ir.DataType.BOOL:
        return UNCHANGED
    numbers = op.Cast(x, to=ir.DataType.UINT8)
    (reduced,) = again(op, node, [numbers, *node.inputs[1:]])
    return op.Cast(reduced, to=ir.DataType.BOOL)


@adapter("ArgMax ArgMin", 12, 11)
def last_index(op: Tape, node: ir.Node) -> Outputs:
    """Op(x, select_last_index=1) -> d - 1 - Op(reversed x), d the size of the axis."""
    if integer(node, "select_last_index") == 0:
        return without(op, node, "select_last_index")
    x, axis = operand(node, 0), integer(node, "axis")
    backwards = op.Slice(x, *(vector(op, [each]) for each in (-1, 1 - 2**63, axis, -1)))
    (found,) = again(op, node, [backwards], drop=("select_last_index",))
    size = scalar_at(op, op.Shape(x), axis)
    return op.Sub(op.Sub(size, scalar(op, 1, ir.DataType.INT64)), found)
