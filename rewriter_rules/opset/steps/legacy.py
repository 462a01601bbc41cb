"""Opsets 1 to 6: broadcasting that is asked for, attributes that went, names for types."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.graph.tape import Tape
from vlmpass.ir_tools.operators.schema import history, named_type, operators, schema
from vlmpass.rewriter_rules.opset.build import at_opset, flat, normalized, scalar, vector, without
from vlmpass.rewriter_rules.opset.queries import (
    again,
    attribute,
    dims,
    dtype,
    integer,
    integers,
    known_or_none,
    listed,
    operand,
    operands,
    optional_input,
    rank,
    real,
    text,
)
from vlmpass.rewriter_rules.opset.table import UNCHANGED, CannotConvert, Outputs, adapter

__all__: list[str] = []

_D = ir.DataType
_INPLACE = {
    name
    for name in operators()
    if history(name)[:2] == (1, 6) and "consumed_inputs" in schema(name, 1).attributes
} - {"Clip", "Selu"}
"""What could overwrite an input, and changed nothing else when that left."""


@adapter(" ".join(sorted(_INPLACE)), 1, 6)
def without_consumed_inputs(op: Tape, node: ir.Node) -> Outputs:
    """Op(x, consumed_inputs=c) -> Op(x)."""
    return without(op, node, "consumed_inputs")


@adapter("Add Sub Mul Div", 6, 7)
@adapter("And Or Xor Equal Greater Less Pow", 1, 7)
def aligned(op: Tape, node: ir.Node) -> Outputs:
    """Op(x, y, broadcast=1, axis=a) -> Op(x, y with axes of size 1 at its end)."""
    x, y = operands(node, 2)
    if not integer(node, "broadcast"):
        _demand_one_shape(x, y)
    elif (axis := integer(node, "axis", -1)) != -1:
        y = _trailing(op, y, rank(x) - normalized(axis, rank(x)) - rank(y))
    dropped = [name for name in ("axis", "broadcast") if name in node.attributes]
    return again(op, node, [x, y], drop=dropped) if dropped else UNCHANGED


def _demand_one_shape(x: ir.Value, y: ir.Value) -> None:
    """Refuse operands that differ in shape though broadcasting is off: nothing says how."""
    first, second = dims(x), dims(y)
    if first is None or second is None:
        return
    pairs = zip(first, second, strict=False)
    if len(first) != len(second) or any(a != b for a, b in pairs if None not in (a, b)):
        raise CannotConvert(
            "its operands have different shapes, and below opset 7 nothing broadcasts unless its"
            " attribute broadcast is 1",
            "set broadcast=1 on the node",
        )


def _trailing(op: Tape, value: ir.Value, count: int) -> ir.Value:
    """Record a value with more axes of size 1 behind its own."""
    if count < 0:
        raise CannotConvert(f"its axis leaves no room for the {rank(value)} axes of {value.name}")
    axes = range(rank(value), rank(value) + count)
    return op.Unsqueeze(value, axes=list(axes)) if count else value


@adapter("PRelu", 6, 7)
def slope_of_channels(op: Tape, node: ir.Node) -> Outputs:
    """PRelu(x, s) -> PRelu(x, s with axes of size 1 at its end), s one number for a channel."""
    x, slope = operands(node, 2)
    if rank(slope) != 1 or rank(x) <= 2 or dims(slope) == [1]:
        return UNCHANGED
    return again(op, node, [x, _trailing(op, slope, rank(x) - 2)])


@adapter("Gemm", 1, 6)
def product_as_it_was(op: Tape, node: ir.Node) -> Outputs:
    """Gemm(a, b, c) stays."""
    return UNCHANGED


@adapter("Gemm", 6, 7)
def addend_broadcasts(op: Tape, node: ir.Node) -> Outputs:
    """Gemm(a, b, c, broadcast=1) -> Gemm(a, b, c)."""
    return without(op, node, "broadcast")


@adapter("Dropout", 6, 7)
def never_trains(op: Tape, node: ir.Node) -> Outputs:
    """Dropout(x, is_test=1) -> Dropout(x)."""
    if not integer(node, "is_test") and real(node, "ratio", 0.5) != 0:
        raise CannotConvert(
            "its attribute is_test is 0, so that it drops elements at random, and from opset 7 on"
            " it keeps all of them",
            "set is_test=1 on the node, if the model is for inference",
        )
    return without(op, node, "is_test")


@adapter("BatchNormalization", 6, 7)
def outputs_say_what_it_does(op: Tape, node: ir.Node) -> Outputs:
    """BatchNormalization(x, is_test=t) -> BatchNormalization(x): it trains if it has outputs to."""
    return without(op, node, "is_test")


@adapter("GRU", 1, 3)
def direction_spelled(op: Tape, node: ir.Node) -> Outputs:
    """GRU(x, direction=foward) -> GRU(x, direction=forward)."""
    wrong = text(node, "direction", "forward") == "foward"
    return again(op, node, direction="forward") if wrong else UNCHANGED


@adapter("GRU", 3, 7)
@adapter("LSTM RNN", 1, 7)
def outputs_as_asked(op: Tape, node: ir.Node) -> Outputs:
    """Op(x, output_sequence=s) -> Op(x)."""
    return without(op, node, "output_sequence")


@adapter("Selu", 1, 6)
def rounded_defaults(op: Tape, node: ir.Node) -> Outputs:
    """Selu(x) -> Selu(x, alpha=1.6732, gamma=1.0507)."""
    alpha, gamma = real(node, "alpha", 1.6732), real(node, "gamma", 1.0507)
    return again(op, node, drop=("consumed_inputs",), alpha=alpha, gamma=gamma)


@adapter("Clip", 1, 6)
def bounds_of_the_type(op: Tape, node: ir.Node) -> Outputs:
    """Clip(x) -> Clip of opset 11, which has no bounds by default, where x is of doubles."""
    x = operand(node, 0)
    if dtype(x) != _D.DOUBLE or {"min", "max"} <= set(node.attributes):
        return again(op, node, drop=("consumed_inputs",))
    at_opset(op, 11)
    given = [attribute(node, name) for name in ("min", "max")]
    bounds = [None if each is None else scalar(op, each.as_float(), dtype(x)) for each in given]
    return op.Clip(x, *bounds)


@adapter("Concat", 1, 4)
def axis_said(op: Tape, node: ir.Node) -> Outputs:
    """Concat(x, y) -> Concat(x, y, axis=1)."""
    return again(op, node, axis=integer(node, "axis", 1))


@adapter("Cast", 1, 6)
def type_by_number(op: Tape, node: ir.Node) -> Outputs:
    """Cast(x, to="FLOAT") -> Cast(x, to=1)."""
    kind = named_type(node.attributes["to"])
    if kind is None:
        raise CannotConvert(
            f"its attribute to is '{text(node, 'to')}', which is the name of no element type"
        )
    return again(op, node, to=kind)


@adapter("Split", 1, 2)
def sizes_only_as_attribute(op: Tape, node: ir.Node) -> Outputs:
    """Split(x, s) -> Split(x, split=s), or the one of opset 13 if s varies."""
    x, sizes = operand(node, 0), optional_input(node, 1)
    if sizes is None:
        return UNCHANGED
    fixed = known_or_none(sizes)
    if fixed is not None:
        return again(op, node, [x], split=listed(fixed))
    at_opset(op, 13)
    return again(op, node, [x, op.Cast(sizes, to=_D.INT64)], drop=("split",))


@adapter("Tile", 1, 6)
def repeats_of_every_axis(op: Tape, node: ir.Node) -> Outputs:
    """Tile(x, n, axis) -> Tile(x, r), r being n at this axis and 1 at the others."""
    x, tiles, axis = operands(node, 3)
    amount, place, count = known_or_none(tiles), known_or_none(axis), rank(x)
    if amount is None or place is None:
        return op.Tile(x, _hot(op, axis, tiles, count))
    repeats = np.ones(count, np.int64)
    repeats[normalized(listed(place)[0], count)] = listed(amount)[0]
    return op.Tile(x, op.const(repeats))


def _hot(op: Tape, axis: ir.Value, amount: ir.Value, count: int) -> ir.Value:
    """Record an amount at one axis, and 1 at the others."""
    at_opset(op, 11)
    place, given = (
        op.Reshape(op.Cast(each, to=_D.INT64), vector(op, [1])) for each in (axis, amount)
    )
    values = op.Concat(vector(op, [1]), given, axis=0)
    return flat(op, op.OneHot(place, op.const(count), values))


@adapter("LpPool", 1, 2)
def whole_power(op: Tape, node: ir.Node) -> Outputs:
    """LpPool(x, p=2.0) -> LpPool(x, p=2), or the root of the sum of powers if p is no integer."""
    power, kernel = real(node, "p", 2.0), integers(node, "kernel_shape")
    if kernel is None:
        raise CannotConvert("it has no kernel_shape", "set kernel_shape on the node")
    if power.is_integer():
        return again(op, node, p=int(power))
    return _root_of_powers(op, node, power, lambda powers: _window_sum(op, node, powers, kernel))


def _root_of_powers(
    op: Tape, node: ir.Node, power: float, total: Callable[[ir.Value], ir.Value]
) -> ir.Value:
    """Record the root of what a total makes of the powers of x."""
    at_opset(op, 7)
    x = operand(node, 0)
    exponent = scalar(op, power, dtype(x))
    return op.Pow(total(op.Pow(op.Abs(x), exponent)), op.Reciprocal(exponent))


def _window_sum(op: Tape, node: ir.Node, x: ir.Value, kernel: Sequence[int]) -> ir.Value:
    """Record the sum in each window."""
    (mean,) = again(op, node, [x], op_type="AveragePool", drop=("p",), count_include_pad=1)
    return op.Mul(mean, scalar(op, float(np.prod(kernel)), dtype(x)))


@adapter("GlobalLpPool", 1, 2)
def whole_power_of_all(op: Tape, node: ir.Node) -> Outputs:
    """GlobalLpPool(x, p=2.0) -> GlobalLpPool(x, p=2), or the root of the sum of powers."""
    power = real(node, "p", 2.0)
    if power.is_integer():
        return again(op, node, p=int(power))
    axes = [*range(2, rank(operand(node, 0)))]
    return _root_of_powers(op, node, power, lambda powers: op.ReduceSum(powers, axes=axes))


@adapter("Pad", 1, 2)
def paddings_become_pads(op: Tape, node: ir.Node) -> Outputs:
    """Pad(x, paddings=p) -> Pad(x, pads=p)."""
    return again(op, node, drop=("paddings",), pads=integers(node, "paddings"))


@adapter("Reshape", 1, 5)
def shape_becomes_input(op: Tape, node: ir.Node) -> Outputs:
    """Reshape(x, shape=s) -> Reshape(x, s)."""
    shape = integers(node, "shape")
    if shape is None:
        raise CannotConvert("it has no shape", "set its attribute shape")
    return op.Reshape(operand(node, 0), vector(op, shape, "shape"))


@adapter("Upsample", 1, 7)
def scales_of_every_axis(op: Tape, node: ir.Node) -> Outputs:
    """Upsample(x, height_scale=h, width_scale=w) -> Upsample(x, scales=[1, 1, h, w])."""
    mode = {"bilinear": "linear"}.get(text(node, "mode", "nearest"), text(node, "mode", "nearest"))
    scales: Sequence[float] = [1.0, 1.0, real(node, "height_scale"), real(node, "width_scale")]
    return op.Upsample(operand(node, 0), mode=mode, scales=scales)
