"""Builds quantised linear layers in the forms that runtimes compute fast."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.evaluate import Array
from vlmpass.ir_tools.tape import Tape
from vlmpass.ir_tools.weights import algebra
from vlmpass.ir_tools.weights.leaves import Expression
from vlmpass.ir_tools.weights.packing import pack
from vlmpass.ir_tools.weights.weight import LazyWeight
from vlmpass.rewriter_rules.quant.expressions import Packed
from vlmpass.rewriter_rules.quant.recognize import Quantized

__all__ = [
    "dequantize_linear",
    "float_weight",
    "matmul_nbits",
    "why_not_dequantize_linear",
    "why_not_matmul_nbits",
]

_UNSIGNED = {2: ir.DataType.UINT2, 4: ir.DataType.UINT4, 8: ir.DataType.UINT8}


def _fits(found: Quantized) -> bool:
    return bool(found.zeros.min() >= 0 and found.zeros.max() < 1 << found.bits)


def _in_order(tape: Tape, x: ir.Value, found: Quantized) -> ir.Value:
    """Bring the activation's last axis into the order of the stored rows."""
    if found.order is None:
        return x
    order = tape.const(np.array(found.order, np.int64), name="order")
    return tape.Gather(x, order, axis=-1)


def _weight(tape: Tape, expression: Expression, name: str) -> ir.Value:
    return tape.const(LazyWeight(expression), name=name)


def _array(tape: Tape, array: Array, dtype: ir.DataType, name: str) -> ir.Value:
    packed = array.astype(dtype.numpy())
    return tape.const(ir.Tensor(np.ascontiguousarray(packed), dtype=dtype), name=name)


def dequantize_linear(tape: Tape, x: ir.Value, found: Quantized) -> ir.Value:
    """Return MatMul(x, DequantizeLinear(numbers, scales, zeros)), blocked along axis 0.

    Zero points that do not fit the numbers' type (2**bits, from the convention of storing one
    less) take the numbers to uint8.
    """
    dtype = _UNSIGNED[found.bits] if _fits(found) else ir.DataType.UINT8
    numbers = _weight(tape, algebra.cast(found.numbers, dtype, True), "numbers")
    scales = _array(tape, found.scales, found.dtype, "scales")
    zeros = _array(tape, found.zeros, dtype, "zeros")
    weight = tape.DequantizeLinear(numbers, scales, zeros, axis=0, block_size=found.block)
    return tape.MatMul(_in_order(tape, x, found), weight)


def why_not_dequantize_linear(found: Quantized) -> str | None:
    """Return why DequantizeLinear cannot hold a weight exactly, or None if it can."""
    if found.zeros.min() < 0 or found.zeros.max() > 255:
        return f"a zero point of {found.zeros.max()} does not fit 8 bits"
    return None


def why_not_matmul_nbits(found: Quantized) -> str | None:
    """Return why MatMulNBits cannot hold a weight exactly, or None if it can."""
    if found.bits == 8 and not _fits(found):
        return f"a zero point of {found.zeros.max()} does not fit 8 bits"
    if found.bits == 2:
        return "ONNX Runtime's MatMulNBits takes 4 and 8 bits"
    return None


def matmul_nbits(tape: Tape, x: ir.Value, found: Quantized) -> ir.Value:
    """Return com.microsoft::MatMulNBits, its weight repacked as [outputs, blocks, bytes].

    Zero points that do not fit the numbers' bits (2**bits, from the convention of storing one less)
    are given as floats, which the operator takes too.
    """
    inputs, outputs = found.numbers.shape
    blocks = inputs // found.block
    dtype = _UNSIGNED[found.bits]
    turned = algebra.transposed(algebra.cast(found.numbers, dtype, True), (1, 0))
    width = found.block * found.bits // 8
    if found.bits < 8:
        turned = Packed(ir.DataType.UINT8, (outputs, blocks * width), turned)
    weight = _weight(tape, algebra.reshaped(turned, (outputs, blocks, width)), "numbers")
    scales = _array(tape, found.scales.T, found.dtype, "scales")
    return tape.node(
        "MatMulNBits",
        [_in_order(tape, x, found), weight, scales, _zeros(tape, found)],
        {"K": inputs, "N": outputs, "bits": found.bits, "block_size": found.block},
        domain="com.microsoft",
    )[0]


def _zeros(tape: Tape, found: Quantized) -> ir.Value:
    zeros = np.ascontiguousarray(found.zeros.T)
    if not _fits(found):
        return _array(tape, zeros, found.dtype, "zeros")
    dtype = _UNSIGNED[found.bits]
    if found.bits < 8:
        zeros = np.stack([pack(row.astype(dtype.numpy()), dtype) for row in zeros])
    return _array(tape, zeros, ir.DataType.UINT8, "zeros")


def float_weight(tape: Tape, x: ir.Value, found: Quantized) -> ir.Value:
    """Return MatMul(x, weight) with the weight dequantised by whoever writes the model."""
    return tape.MatMul(x, _weight(tape, found.whole, "weight"))
