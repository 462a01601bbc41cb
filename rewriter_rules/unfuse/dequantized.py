"""Quantised operators of ONNX Runtime, said on what their numbers stand for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir

from vlmpass.ir_tools.graph.tape import Tape
from vlmpass.rewriter_rules.opset.build import scalar
from vlmpass.rewriter_rules.opset.queries import (
    attribute,
    constant,
    dtype,
    integer,
    integers,
    operand,
    operands,
    optional_input,
    rank,
    real,
)
from vlmpass.rewriter_rules.opset.table import CannotConvert, Outputs
from vlmpass.rewriter_rules.unfuse.unfused import floats, unfused

__all__ = ["DEQUANTIZED"]

_BYTES = (ir.DataType.INT8, ir.DataType.UINT8)


def _real(op: Tape, node: ir.Node, start: int) -> ir.Value:
    """Record what numbers stand for, whose scale and zero point follow them."""
    return op.DequantizeLinear(
        operand(node, start), operand(node, start + 1), optional_input(node, start + 2)
    )


def _whole(op: Tape, node: ir.Node, x: ir.Value, start: int) -> ir.Value:
    """Record the numbers that stand for a result, of the kind that the first operand has."""
    zero, kind = optional_input(node, start + 1), dtype(operand(node, 0))
    return op.QuantizeLinear(x, operand(node, start), zero if zero else scalar(op, 0, kind, "zero"))


def _half_to_even(op: Tape, node: ir.Node, x: ir.Value, start: int) -> ir.Value:
    """Record the numbers that stand for a result of a kernel which rounds them at the very end.

    It adds the zero point before it rounds half to even, QuantizeLinear after it: where the zero
    point is odd, or may be, a half goes the other way, so it is spelled as the kernel does.
    """
    zero = optional_input(node, start + 1)
    known = None if zero is None else constant(zero)
    if zero is None or (known is not None and not known.numpy().item() % 2):
        return _whole(op, node, x, start)
    kind, wide = dtype(zero), dtype(x)
    moved = op.Round(op.Add(op.Div(x, operand(node, start)), op.Cast(zero, to=wide)))
    ends = (scalar(op, float(end), wide, "end") for end in (kind.min, kind.max))
    return op.Cast(op.Clip(moved, *ends), to=kind)


def _unary(op: Tape, node: ir.Node, run: Callable[[ir.Value], ir.Value]) -> ir.Value:
    return _whole(op, node, run(_real(op, node, 0)), 3)


@unfused("QLinearAdd")
def unfuse_q_linear_add(op: Tape, node: ir.Node) -> Outputs:
    """QLinearAdd(a, b) -> QuantizeLinear(DequantizeLinear(a) + DequantizeLinear(b))."""
    return _half_to_even(op, node, op.Add(_real(op, node, 0), _real(op, node, 3)), 6)


@unfused("QLinearMul")
def unfuse_q_linear_mul(op: Tape, node: ir.Node) -> Outputs:
    """QLinearMul(a, b) -> QuantizeLinear(DequantizeLinear(a) * DequantizeLinear(b))."""
    return _half_to_even(op, node, op.Mul(_real(op, node, 0), _real(op, node, 3)), 6)


@unfused("QLinearSigmoid")
def unfuse_q_linear_sigmoid(op: Tape, node: ir.Node) -> Outputs:
    """QLinearSigmoid(x) -> QuantizeLinear(Sigmoid(DequantizeLinear(x)))."""
    return _unary(op, node, op.Sigmoid)


@unfused("QLinearLeakyRelu")
def unfuse_q_linear_leaky_relu(op: Tape, node: ir.Node) -> Outputs:
    """QLinearLeakyRelu(x) -> QuantizeLinear(LeakyRelu(DequantizeLinear(x)))."""
    return _unary(op, node, lambda x: op.LeakyRelu(x, alpha=real(node, "alpha", 0.01)))


@unfused("QLinearSoftmax")
def unfuse_q_linear_softmax(op: Tape, node: ir.Node) -> Outputs:
    """QLinearSoftmax(x) -> QuantizeLinear(Softmax(DequantizeLinear(x)))."""
    count, axis = rank(operand(node, 0)), integer(node, "axis", -1)
    if integer(node, "opset") < 13 and axis % count != count - 1:
        raise CannotConvert(f"before opset 13 it flattens axes from {axis} on")
    return _unary(op, node, lambda x: op.Softmax(x, axis=axis))


@unfused("QLinearReduceMean")
def unfuse_q_linear_reduce_mean(op: Tape, node: ir.Node) -> Outputs:
    """QLinearReduceMean(x) -> QuantizeLinear(ReduceMean(DequantizeLinear(x))).

    ONNX Runtime has it for GPUs alone; its documentation says what it computes.
    """
    axes, kept = list(integers(node, "axes") or ()), integer(node, "keepdims")
    return _unary(op, node, lambda x: op.ReduceMean(x, axes=axes, keepdims=kept))


@unfused("QLinearAveragePool")
def unfuse_q_linear_average_pool(op: Tape, node: ir.Node) -> Outputs:
    """QLinearAveragePool(x) -> QuantizeLinear(AveragePool(DequantizeLinear(x)))."""
    given = {name: each for name, each in node.attributes.items() if name != "channels_last"}
    x = _real(op, node, 0)
    found = _first(op, node, x, lambda y: op.node("AveragePool", [y], given)[0])
    return _half_to_even(op, node, found, 3)


@unfused("QLinearGlobalAveragePool")
def unfuse_q_linear_global_average_pool(op: Tape, node: ir.Node) -> Outputs:
    """QLinearGlobalAveragePool(x) -> QuantizeLinear(GlobalAveragePool(DequantizeLinear(x)))."""
    return _unary(op, node, lambda x: _first(op, node, x, op.GlobalAveragePool))


def _first(op: Tape, node: ir.Node, x: ir.Value, run: Callable[[ir.Value], ir.Value]) -> ir.Value:
    """Record an operator on images whose channels come first, which those at hand need not."""
    return _turned(op, x, run) if integer(node, "channels_last") else run(x)


def _turned(op: Tape, x: ir.Value, run: Callable[[ir.Value], ir.Value]) -> ir.Value:
    """Record an operator on images whose channels come last."""
    axes = [*range(1, rank(x) - 1)]
    turned = op.Transpose(x, perm=[0, rank(x) - 1, *axes])
    return op.Transpose(run(turned), perm=[0, *(axis + 1 for axis in axes), 1])


@unfused("QLinearConv")
def unfuse_contrib_q_linear_conv(op: Tape, node: ir.Node) -> Outputs:
    """com.microsoft::QLinearConv(x, w, b) -> QLinearConv(x, w, b), channels first."""
    given = {name: each for name, each in node.attributes.items() if name != "channels_last"}
    rest = node.inputs[1:]
    x = operand(node, 0)
    return _first(op, node, x, lambda y: op.node("QLinearConv", [y, *rest], given)[0])


@unfused("NhwcMaxPool")
def unfuse_nhwc_max_pool(op: Tape, node: ir.Node) -> Outputs:
    """NhwcMaxPool(x) -> MaxPool(x), channels first."""
    return _turned(op, operand(node, 0), lambda y: op.node("MaxPool", [y], node.attributes)[0])


@unfused("QLinearWhere")
def unfuse_q_linear_where(op: Tape, node: ir.Node) -> Outputs:
    """QLinearWhere(c, x, y) -> QuantizeLinear(Where(c, x', y')).

    x' and y' are what x and y stand for: DequantizeLinear(x), DequantizeLinear(y).
    """
    chosen = op.Where(operand(node, 0), _real(op, node, 1), _real(op, node, 4))
    return op.QuantizeLinear(chosen, *operands(node, 9)[7:])


@unfused("QLinearConcat")
def unfuse_q_linear_concat(op: Tape, node: ir.Node) -> Outputs:
    """QLinearConcat(s, z, a, b) -> QuantizeLinear(Concat(DequantizeLinear(a)), s, z)."""
    parts = [_real(op, node, start) for start in range(2, len(node.inputs), 3)]
    whole = op.Concat(*parts, axis=integer(node, "axis"))
    return op.QuantizeLinear(whole, operand(node, 0), operand(node, 1))


@unfused("QGemm")
def unfuse_q_gemm(op: Tape, node: ir.Node) -> Outputs:
    """QGemm(a, b, c) -> QuantizeLinear(alpha * (Gemm(a, b) + c) * scales)."""
    pair = (_less_zero(op, node, start, name) for start, name in ((0, "A"), (3, "B")))
    product, bias = op.MatMul(*pair), optional_input(node, 6)
    if bias is not None:
        product = op.Add(product, op.Cast(bias, to=ir.DataType.FLOAT))
    alpha = scalar(op, real(node, "alpha", 1.0), ir.DataType.FLOAT, "alpha")
    scale = op.Mul(op.Mul(operand(node, 1), operand(node, 4)), alpha)
    found, to = op.Mul(product, scale), optional_input(node, 7)
    return found if to is None else _quantized(op, node, found, to)


def _quantized(op: Tape, node: ir.Node, x: ir.Value, scale: ir.Value) -> ir.Value:
    return op.QuantizeLinear(x, scale, operand(node, 8))


def _less_zero(op: Tape, node: ir.Node, start: int, name: str) -> ir.Value:
    """Record numbers less their zero points, one for each column, as floats that hold them."""
    pair = (operand(node, index) for index in (start, start + 2))
    number, zero = (op.Cast(each, to=ir.DataType.FLOAT) for each in pair)
    turned = op.Transpose(number, perm=[1, 0]) if integer(node, f"trans{name}") else number
    return op.Sub(turned, zero)


@unfused("MatMulIntegerToFloat")
def unfuse_mat_mul_integer_to_float(op: Tape, node: ir.Node) -> Outputs:
    """MatMulIntegerToFloat(a, b, i, j, y, z, c) -> MatMulInteger(a, b, y, z) * (i * j) + c."""
    inputs = [optional_input(node, index) for index in (0, 1, 4, 5)]
    kind = floats(node, 2, 3, 6)
    scale, bias = op.Mul(operand(node, 2), operand(node, 3)), optional_input(node, 6)
    return _scaled(op, inputs, scale, bias, kind)


@unfused("DynamicQuantizeMatMul")
def unfuse_dynamic_quantize_mat_mul(op: Tape, node: ir.Node) -> Outputs:
    """DynamicQuantizeMatMul(a, b) -> MatMulInteger(DynamicQuantizeLinear(a), b) * scales."""
    numbers, scale, zero = op.node("DynamicQuantizeLinear", node.inputs[:1], outputs=3)
    inputs = [numbers, operand(node, 1), zero, optional_input(node, 3)]
    both = op.Mul(scale, operand(node, 2))
    return _scaled(op, inputs, both, optional_input(node, 4), ir.DataType.FLOAT)


def _scaled(
    op: Tape,
    inputs: Sequence[ir.Value | None],
    scale: ir.Value,
    bias: ir.Value | None,
    kind: ir.DataType,
) -> ir.Value:
    """Record a product of integers as floats, its bias added."""
    product = op.Cast(op.node("MatMulInteger", inputs)[0], to=kind)
    found = op.Mul(product, scale)
    return found if bias is None else op.Add(found, bias)


@unfused("DequantizeLinear")
def unfuse_contrib_dequantize_linear(op: Tape, node: ir.Node) -> Outputs:
    """com.microsoft::DequantizeLinear(x, s, z) -> DequantizeLinear(x, s, z)."""
    return _as_it_is(op, node, operand(node, 0), operand(node, 1))


@unfused("QuantizeLinear")
def unfuse_contrib_quantize_linear(op: Tape, node: ir.Node) -> Outputs:
    """com.microsoft::QuantizeLinear(x, s, z) -> QuantizeLinear(x, s, z)."""
    zero = optional_input(node, 2)
    return _as_it_is(op, node, node.outputs[0] if zero is None else zero, operand(node, 1))


def _as_it_is(op: Tape, node: ir.Node, numbers: ir.Value, scale: ir.Value) -> ir.Value:
    """Record the standard operator of the same name, where the opset has it for such types."""
    kinds, opset = (dtype(numbers), dtype(scale)), op.opsets[""]
    since = 19 if kinds[1] != ir.DataType.FLOAT else 10
    since = max(since, 10 if kinds[0] in (*_BYTES, ir.DataType.INT32) else 21)
    if opset < since:
        raise CannotConvert(f"opset {opset} does not quantise {kinds[1]} as {kinds[0]}")
    axis = attribute(node, "axis")
    return op.node(node.op_type, node.inputs, {"axis": axis} if rank(scale) else {})[0]


DEQUANTIZED = (
    unfuse_q_linear_add
    + unfuse_q_linear_mul
    + unfuse_q_linear_sigmoid
    + unfuse_q_linear_leaky_relu
    + unfuse_q_linear_softmax
    + unfuse_q_linear_reduce_mean
    + unfuse_q_linear_average_pool
    + unfuse_q_linear_global_average_pool
    + unfuse_contrib_q_linear_conv
    + unfuse_nhwc_max_pool
    + unfuse_q_linear_where
    + unfuse_q_linear_concat
    + unfuse_q_gemm
    + unfuse_mat_mul_integer_to_float
    + unfuse_dynamic_quantize_mat_mul
    + unfuse_contrib_dequantize_linear
    + unfuse_contrib_quantize_linear
)
