"""Builds quantised linear layers in the forms that runtimes compute fast."""

from __future__ import annotations

from dataclasses import dataclass

import ml_dtypes
import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.graph.tape import Tape
from vlmpass.ir_tools.weights import expressions
from vlmpass.ir_tools.weights.leaves import Expression, Held
from vlmpass.ir_tools.weights.weight import LazyWeight
from vlmpass.rewriter_rules.quant.constant import minus
from vlmpass.rewriter_rules.quant.expressions import Packed
from vlmpass.rewriter_rules.quant.find import Layer
from vlmpass.rewriter_rules.quant.linear import Linear
from vlmpass.rewriter_rules.quant.recognize import Quantized

__all__ = [
    "BLOCKED_OPSET",
    "BLOCKED_SINCE",
    "NBITS_BLOCKS",
    "UNSIGNED",
    "Builder",
    "Shared",
    "dequantize_linear",
    "float_weight",
    "held_as",
    "matmul_nbits",
    "number_type",
    "significant_bits",
    "since_opset",
    "unfit_zeros",
    "unrounded",
    "why_not_matmul_nbits",
]

NBITS_BLOCKS = (256, 128, 64, 32, 16)
"""The rows that a block of MatMulNBits may have, as ONNX Runtime takes them."""

UNSIGNED = {
    2: ir.DataType.UINT2,
    4: ir.DataType.UINT4,
    8: ir.DataType.UINT8,
    16: ir.DataType.UINT16,
}
"""The type of so many bits that has no sign."""
_SIGNED = {2: ir.DataType.INT2, 4: ir.DataType.INT4, 8: ir.DataType.INT8}
BLOCKED_SINCE = {2: 25, 4: 21, 8: 21, 16: 21}
"""The opset from which DequantizeLinear has blocks and numbers of so many bits."""
BLOCKED_OPSET = min(BLOCKED_SINCE.values())
"""The opset from which DequantizeLinear has blocks at all."""


def number_type(bits: int, *, signed: bool) -> ir.DataType:
    """Return the integer type of so many bits."""
    return _SIGNED[bits] if signed else UNSIGNED[bits]


def since_opset(bits: int, per_output: bool) -> int:
    """Return the opset from which DequantizeLinear has numbers of so many bits.

    Args:
        bits: Of each number.
        per_output: Whether there is one scale for each output; else there are blocks.
    """
    return 10 if bits == 8 and per_output else BLOCKED_SINCE[bits]


class Shared:
    """Constants of layers already built, for others with the same weight."""

    def __init__(self) -> None:
        self._made: dict[tuple[int, ir.Value, bool], dict[str, ir.Value]] = {}

    def of(self, layer: Layer) -> dict[str, ir.Value]:
        """Return those that a layer can use, by name; in a function every layer has its own."""
        if layer.scope.in_function:
            return {}
        product = layer.linear.product
        key = (id(layer.scope.graph), product.weight, product.turned)
        return self._made.setdefault(key, {})


@dataclass(frozen=True)
class Builder:
    """Where one layer is built.

    Attributes:
        tape: Records its nodes.
        layer: The layer.
        x: What enters it now that others are built.
        shared: Its weight's constants by name, where a layer built before has the same weight.
    """

    tape: Tape
    layer: Linear
    x: ir.Value
    shared: dict[str, ir.Value]

    def constant(self, expression: Expression, name: str) -> ir.Value:
        """Return a lazy tensor that belongs to the weight as a constant."""
        if name not in self.shared:
            self.shared[name] = self.tape.const(LazyWeight(expression), name=name)
        return self.shared[name]

    def bias(self) -> ir.Value | None:
        """Return the layer's bias: the value that it was, where that has the right shape."""
        bias = self.layer.bias
        if isinstance(bias, Expression):
            return self.tape.const(LazyWeight(bias), name="bias")
        return bias

    def product(self, x: ir.Value, weight: ir.Value) -> ir.Value:
        """Return the product with a weight, and the bias: a Gemm if it is one, of a matrix."""
        bias = self.bias()
        product = self.layer.product
        if product.node.op_type == "Gemm" and self.layer.x is product.x:
            return self.tape.Gemm(x, weight, bias)
        made = self.tape.MatMul(x, weight)
        return made if bias is None else self.tape.Add(made, bias)


def _in_order(builder: Builder, x: ir.Value, found: Quantized) -> ir.Value:
    """Bring the activation's last axis into the order of the stored rows."""
    if found.order is None:
        return x
    order = builder.constant(expressions.cast(found.order, ir.DataType.INT32, True), "order")
    return builder.tape.Gather(x, order, axis=-1)


def _middle(found: Quantized) -> bool:
    """Whether every zero point is the middle of the numbers, as symmetric quantisation has it."""
    return found.span == (1 << (found.bits - 1),) * 2


def _fits(found: Quantized) -> bool:
    """Whether the zero points are numbers of as many bits."""
    return found.span is not None and 0 <= found.span[0] <= found.span[1] < 1 << found.bits


def unfit_zeros(found: Quantized) -> str:
    """Return the beginning of a sentence about zero points that some bits do not hold."""
    if found.span is None:
        return "zero points that are not whole numbers do not fit"
    low, high = found.span
    return f"a zero point of {low if low < 0 else high} does not fit"


def held_as(found: Quantized, opset: int) -> ir.DataType | None:
    """Return the integer type that holds numbers and zero points of DequantizeLinear.

    Symmetric weights are stored less their zero point. Zero points that do not fit the numbers'
    bits, 2**bits from the convention of storing one less, take the next wider type, and so do
    numbers of fewer bits than the opset has a type for. None if not even 16 bits hold them, or
    they are not whole.
    """
    if found.span is None:
        return None
    low, high = found.span
    if _middle(found):
        low, high, types = 0, 0, _SIGNED
    else:
        types = UNSIGNED
    enough = [
        bits
        for bits in types
        if bits >= found.bits
        and high < 1 << bits
        and BLOCKED_SINCE[bits] <= max(opset, BLOCKED_OPSET)
    ]
    return types[enough[0]] if enough and low >= 0 else None


def dequantize_linear(builder: Builder, found: Quantized) -> ir.Value:
    """Return MatMul(x, DequantizeLinear(numbers, scales, zeros)), blocked along axis 0."""
    dtype = held_as(found, builder.tape.opsets.get("", 1))
    assert dtype is not None
    numbers, zeros = found.numbers, None
    if _middle(found):
        numbers = minus(numbers, 1 << (found.bits - 1))
    else:
        zeros = builder.constant(expressions.cast(found.zeros, dtype, True), "zeros")
    weight = builder.tape.DequantizeLinear(
        builder.constant(expressions.cast(numbers, dtype, True), "numbers"),
        builder.constant(found.scales, "scales"),
        zeros,
        axis=0,
        block_size=found.block,
    )
    if found.scales.dtype != found.whole.dtype:
        weight = builder.tape.Cast(weight, to=found.whole.dtype.value)
    return builder.product(_in_order(builder, builder.x, found), weight)


def why_not_matmul_nbits(found: Quantized) -> str | None:
    """Return why MatMulNBits cannot hold a weight exactly, or None if it can."""
    if found.bits == 8 and not _fits(found):
        return f"{unfit_zeros(found)} 8 bits"
    return None


def unrounded(found: Quantized) -> ir.DataType | None:
    """Return the type that MatMulNBits leaves a weight's products unrounded to; None if none.

    The graph rounds scale times number to the scales' type and then takes it to the activation's,
    or to the activation's alone; the operator rounds neither.
    """
    kinds = (found.scales.dtype, found.whole.dtype)
    return min(kinds, key=significant_bits) if kinds[0] != kinds[1] else None


def significant_bits(dtype: ir.DataType) -> int:
    """Return the significant bits of a floating-point type, the leading one among them."""
    nmant: int = ml_dtypes.finfo(dtype.numpy()).nmant  # type: ignore[no-untyped-call]
    return nmant + 1


def matmul_nbits(builder: Builder, found: Quantized) -> ir.Value:
    """Return com.microsoft::MatMulNBits, its weight repacked as [outputs, blocks, bytes].

    Zero points that do not fit the numbers' bits are given as floats, which the operator takes too;
    those in the middle are left out. It computes in the scales' type, in float32 if that is not the
    activation's.
    """
    inputs, outputs = found.numbers.shape
    around = found.whole.dtype
    kind = around if unrounded(found) is None else ir.DataType.FLOAT
    bias = builder.bias()

    def entering(value: ir.Value) -> ir.Value:
        return value if kind == around else builder.tape.Cast(value, to=kind.value)

    blocks = -(-inputs // found.block)
    width = found.block * found.bits // 8
    numbers = _packed(found.numbers, found.bits, found.block)
    scales = expressions.cast(expressions.transposed(found.scales, (1, 0)), kind, True)
    made = builder.tape.node(
        "MatMulNBits",
        [
            entering(_in_order(builder, builder.x, found)),
            builder.constant(expressions.reshaped(numbers, (outputs, blocks, width)), "numbers"),
            builder.constant(scales, "scales"),
            _nbits_zeros(builder, found, kind),
            None,
            entering(bias) if bias is not None else None,
        ],
        {"K": inputs, "N": outputs, "bits": found.bits, "block_size": found.block},
        domain="com.microsoft",
    )[0]
    return made if kind == around else builder.tape.Cast(made, to=around.value)


def _nbits_zeros(builder: Builder, found: Quantized, kind: ir.DataType) -> ir.Value | None:
    if _middle(found):
        return None
    if _fits(found):
        return builder.constant(_packed(found.zeros, found.bits, 8 // found.bits), "zeros")
    turned = expressions.transposed(found.zeros, (1, 0))
    return builder.constant(expressions.cast(turned, kind, True), "zeros")


def _packed(numbers: Expression, bits: int, multiple: int) -> Expression:
    """Return columns as rows of bytes, filled up to a multiple with zeros."""
    rows, columns = numbers.shape
    dtype = UNSIGNED[bits]
    numbers = expressions.cast(numbers, dtype, True)
    if missing := -rows % multiple:
        rest = Held.of(ir.Tensor(np.zeros((missing, columns), dtype.numpy()), dtype=dtype))
        numbers = expressions.joined((numbers, rest), 0)
    turned = expressions.transposed(numbers, (1, 0))
    if bits == 8:
        return turned
    return Packed(ir.DataType.UINT8, (columns, (rows + missing) * bits // 8), turned)


def float_weight(builder: Builder, whole: Expression) -> ir.Value:
    """Return MatMul(x, weight) with the weight dequantised by whoever writes the model."""
    return builder.product(builder.x, builder.constant(whole, "weight"))
