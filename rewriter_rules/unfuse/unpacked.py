"""Products with weights that ONNX Runtime packs in blocks, said by what dequantises them."""

from __future__ import annotations

import onnx_ir as ir

from vlmpass.ir_tools.graph.tape import Tape
from vlmpass.ir_tools.weights import expressions
from vlmpass.ir_tools.weights.weight import as_weight
from vlmpass.rewriter_rules.opset.queries import constant, integer, operand, optional_input
from vlmpass.rewriter_rules.opset.table import CannotConvert, Outputs
from vlmpass.rewriter_rules.quant.emit import UNSIGNED
from vlmpass.rewriter_rules.unfuse.stored_blocks import Blocks, by_groups, dequantized
from vlmpass.rewriter_rules.unfuse.unfused import floats, unfused

__all__ = ["UNPACKED"]


@unfused("MatMulNBits")
def unfuse_mat_mul_nbits(op: Tape, node: ir.Node) -> Outputs:
    """MatMulNBits(x, b, s, z, g, c) -> MatMul(x, Transpose(DequantizeLinear(b, s, z))) + c."""
    floats(node, 0, 2, 5)
    packed, groups, bias = _packed(node), optional_input(node, 4), optional_input(node, 5)
    weight = dequantized(op, packed) if groups is None else by_groups(op, packed, groups)
    product = op.MatMul(operand(node, 0), op.Transpose(weight, perm=[1, 0]))
    return product if bias is None else op.Add(product, bias)


def _packed(node: ir.Node) -> Blocks:
    """Return what the weight is.

    Raises:
        CannotConvert: It is no constant, left out, or laid out for one device.
    """
    stored = constant(operand(node, 1))
    if stored is None or stored.dtype != ir.DataType.UINT8:
        raise CannotConvert("its weights are no constant bytes")
    if integer(node, "weight_prepacked"):
        raise CannotConvert("its weights are packed for one kind of device")
    outputs, inputs = (integer(node, name) for name in ("N", "K"))
    bits, block = integer(node, "bits", 4), integer(node, "block_size")
    source = as_weight(stored).expression
    if bits not in UNSIGNED or source.size * 8 != outputs * -(-inputs // block) * block * bits:
        raise CannotConvert(f"its weights are not {outputs} rows of {inputs} times {bits} bits")
    rows = expressions.reshaped(source, (outputs, source.size // outputs))
    scales, zeros = operand(node, 2), optional_input(node, 3)
    return Blocks(outputs, inputs, bits, block, rows, scales, zeros)


UNPACKED = unfuse_mat_mul_nbits
