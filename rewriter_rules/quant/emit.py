"""Builds quantised linear layers in the forms that runtimes compute fast."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.tape import Tape
from vlmpass.ir_tools.weights import algebra
from vlmpass.ir_tools.weights.leaves import Expression, Held
from vlmpass.ir_tools.weights.weight import LazyWeight
from vlmpass.rewriter_rules.quant.constant import minus
from vlmpass.rewriter_rules.quant.expressions import Packed
from vlmpass.rewriter_rules.quant.find import Layer
from vlmpass.rewriter_rules.quant.linear import Linear
from vlmpass.rewriter_rules.quant.recognize import Quantized

__all__ = [
    "NBITS_BLOCKS",
    "Builder",
    "Shared",
    "dequantize_linear",
    "float_weight",
    "held_as",
    "matmul_nbits",
    "unfit_zeros",
    "why_not_matmul_nbits",
]

NBITS_BLOCKS = (256, 128, 64, 32, 16)
"""The rows that a block of MatMulNBits may have, as ONNX Runtime takes them."""

_UNSIGNED = {
    2: ir.DataType.UINT2,
    4: ir.DataType.UINT4,
    8: ir.DataType.UINT8,
    16: ir.DataType.UINT16,
}
_SIGNED = {2: ir.DataType.INT2, 4: ir.DataType.INT4, 8: ir.DataType.INT8}


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
    order = builder.constant(algebra.cast(found.order, ir.DataType.INT32, True), "order")
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


def held_as(found: Quantized) -> ir.DataType | None:
    """Return the integer type that holds numbers and zero points of DequantizeLinear.

    Symmetric weights are stored less their zero point. Zero points that do not fit the numbers'
    bits, 2**bits from the convention of storing one less, take the next wider type. None if not
    even 16 bits hold them, or they are not whole.
    """
    if found.span is None:
        return None
    if _middle(found):
        return _SIGNED[found.bits]
    low, high = found.span
    enough = [bits for bits in _UNSIGNED if bits >= found.bits and high < 1 << bits]
    return _UNSIGNED[enough[0]] if enough and low >= 0 else None


def dequantize_linear(builder: Builder, found: Quantized) -> ir.Value:
    """Return MatMul(x, DequantizeLinear(numbers, scales, zeros)), blocked along axis 0."""
    dtype = held_as(found)
    assert dtype is not None
    numbers, zeros = found.numbers, None
    if _middle(found):
        numbers = minus(numbers, 1 << (found.bits - 1))
    else:
        zeros = builder.constant(algebra.cast(found.zeros, dtype, True), "zeros")
    weight = builder.tape.DequantizeLinear(
        builder.constant(algebra.cast(numbers, dtype, True), "numbers"),
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
    if found.scales.dtype != found.whole.dtype:
        kinds = (str(each.dtype).lower() for each in (found.scales, found.whole))
        return "its weights are rounded to {} before they are used as {}".format(*kinds)
    return None


def matmul_nbits(builder: Builder, found: Quantized) -> ir.Value:
    """Return com.microsoft::MatMulNBits, its weight repacked as [outputs, blocks, bytes].

    Zero points that do not fit the numbers' bits are given as floats, which the operator takes too;
    those in the middle are left out.
    """
    inputs, outputs = found.numbers.shape
    blocks = -(-inputs // found.block)
    width = found.block * found.bits // 8
    numbers = _packed(found.numbers, found.bits, found.block)
    scales = algebra.transposed(found.scales, (1, 0))
    return builder.tape.node(
        "MatMulNBits",
        [
            _in_order(builder, builder.x, found),
            builder.constant(algebra.reshaped(numbers, (outputs, blocks, width)), "numbers"),
            builder.constant(scales, "scales"),
            _nbits_zeros(builder, found),
            None,
            builder.bias(),
        ],
        {"K": inputs, "N": outputs, "bits": found.bits, "block_size": found.block},
        domain="com.microsoft",
    )[0]


def _nbits_zeros(builder: Builder, found: Quantized) -> ir.Value | None:
    if _middle(found):
        return None
    if _fits(found):
        return builder.constant(_packed(found.zeros, found.bits, 8 // found.bits), "zeros")
    turned = algebra.transposed(found.zeros, (1, 0))
    return builder.constant(algebra.cast(turned, found.whole.dtype, True), "zeros")


def _packed(numbers: Expression, bits: int, multiple: int) -> Expression:
    """Return columns as rows of bytes, filled up to a multiple with zeros."""
    rows, columns = numbers.shape
    dtype = _UNSIGNED[bits]
    numbers = algebra.cast(numbers, dtype, True)
    if missing := -rows % multiple:
        rest = Held.of(ir.Tensor(np.zeros((missing, columns), dtype.numpy()), dtype=dtype))
        numbers = algebra.joined((numbers, rest), 0)
    turned = algebra.transposed(numbers, (1, 0))
    if bits == 8:
        return turned
    return Packed(ir.DataType.UINT8, (columns, (rows + missing) * bits // 8), turned)


def float_weight(builder: Builder, whole: Expression) -> ir.Value:
    """Return MatMul(x, weight) with the weight dequantised by whoever writes the model."""
    return builder.product(builder.x, builder.constant(whole, "weight"))
