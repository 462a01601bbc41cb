"""Products with weights that ONNX Runtime packs in blocks, said by what dequantises them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.graph.tape import Tape
from vlmpass.ir_tools.weights import expressions
from vlmpass.ir_tools.weights.leaves import Expression
from vlmpass.ir_tools.weights.weight import LazyWeight, as_weight
from vlmpass.rewriter_rules.opset.build import scalar, vector
from vlmpass.rewriter_rules.opset.queries import constant, dtype, integer, operand, optional_input
from vlmpass.rewriter_rules.opset.table import CannotConvert, Outputs
from vlmpass.rewriter_rules.quant.emit import BLOCKED_SINCE, UNSIGNED
from vlmpass.rewriter_rules.quant.expressions import spread
from vlmpass.rewriter_rules.unfuse.attended import last_part
from vlmpass.rewriter_rules.unfuse.unfused import floats, unfused

__all__ = ["UNPACKED"]

_BYTES = ir.DataType.UINT8


@dataclass(frozen=True)
class _Packed:
    """A weight [outputs, inputs], packed in blocks of inputs.

    Attributes:
        outputs: Its rows.
        inputs: Its columns.
        bits: Of a number.
        block: Numbers with one scale and zero point.
        numbers: What is stored, [outputs, blocks, bytes].
    """

    outputs: int
    inputs: int
    bits: int
    block: int
    numbers: Expression

    @property
    def blocks(self) -> int:
        """The blocks of a row; the last one may be longer than what is left."""
        return -(-self.inputs // self.block)


@unfused("MatMulNBits")
def unfuse_mat_mul_nbits(op: Tape, node: ir.Node) -> Outputs:
    """MatMulNBits(x, b, s, z, g, c) -> MatMul(x, Transpose(DequantizeLinear(b, s, z))) + c."""
    floats(node, 0, 2, 5)
    packed, bias = _packed(node), optional_input(node, 5)
    weight = (_grouped if optional_input(node, 4) is not None else _in_order)(op, node, packed)
    product = op.MatMul(operand(node, 0), op.Transpose(weight, perm=[1, 0]))
    return product if bias is None else op.Add(product, bias)


def _packed(node: ir.Node) -> _Packed:
    """Return what the weight is.

    Raises:
        CannotConvert: It is no constant, left out, or laid out for one device.
    """
    stored = constant(operand(node, 1))
    if stored is None or stored.dtype != _BYTES:
        raise CannotConvert("its weights are no constant bytes")
    if integer(node, "weight_prepacked"):
        raise CannotConvert("its weights are packed for one kind of device")
    outputs, inputs = (integer(node, name) for name in ("N", "K"))
    bits, block = integer(node, "bits", 4), integer(node, "block_size")
    source = as_weight(stored).expression
    if bits not in UNSIGNED or source.size * 8 != outputs * -(-inputs // block) * block * bits:
        raise CannotConvert(f"its weights are not {outputs} rows of {inputs} times {bits} bits")
    rows = expressions.reshaped(source, (outputs, source.size // outputs))
    return _Packed(outputs, inputs, bits, block, rows)


def _in_order(op: Tape, node: ir.Node, packed: _Packed) -> ir.Value:
    """Record the weight [outputs, inputs] where blocks are of inputs that follow each other."""
    whole = (_blocked if _may_be_blocked(op, node, packed) else _computed)(op, node, packed)
    return last_part(op, whole, 0, packed.inputs) if packed.inputs % packed.block else whole


def _may_be_blocked(op: Tape, node: ir.Node, packed: _Packed) -> bool:
    """Whether the opset has DequantizeLinear for it, and its zero points are such numbers."""
    zeros = optional_input(node, 3)
    whole = zeros is None or dtype(zeros) == _BYTES
    return whole and op.opsets[""] >= BLOCKED_SINCE[packed.bits]


def _blocked(op: Tape, node: ir.Node, packed: _Packed) -> ir.Value:
    """Record DequantizeLinear of numbers that are stored as they were."""
    kind = UNSIGNED[packed.bits]
    scales = op.Reshape(operand(node, 2), vector(op, [packed.outputs, packed.blocks]))
    numbers = op.const(LazyWeight(spread(packed.numbers, packed.bits, kind)), name="numbers")
    zeros = _zeros(op, node, packed, kind)
    return op.DequantizeLinear(numbers, scales, zeros, axis=1, block_size=packed.block)


def _zeros(op: Tape, node: ir.Node, packed: _Packed, kind: ir.DataType) -> ir.Value:
    """Record the zero points [outputs, blocks], by default the middle of the numbers."""
    given, sizes = optional_input(node, 3), (packed.outputs, packed.blocks)
    if given is None:
        middle = np.full(sizes, 1 << (packed.bits - 1), np.uint8).astype(kind.numpy())
        return op.const(middle, kind, "zeros")
    stored = constant(given)
    if stored is None:
        raise CannotConvert("its zero points are no constant")
    source = as_weight(stored).expression
    rows = expressions.reshaped(source, (sizes[0], source.size // sizes[0]))
    box = ((0, sizes[0]), (0, sizes[1]))
    return op.const(
        LazyWeight(expressions.taken(spread(rows, packed.bits, kind), box)), name="zeros"
    )


def _computed(op: Tape, node: ir.Node, packed: _Packed) -> ir.Value:
    """Record (number - zero point) * scale, numbers being bytes."""
    kind = dtype(operand(node, 2))
    numbers = op.const(LazyWeight(spread(packed.numbers, packed.bits, _BYTES)), name="numbers")
    scales = op.Reshape(operand(node, 2), vector(op, [packed.outputs, packed.blocks]))
    zeros = _float_zeros(op, node, packed, kind)
    shape = vector(op, [packed.outputs, packed.blocks, packed.block])
    numbers = op.Cast(op.Reshape(numbers, shape), to=kind)
    zeros, scales = (op.Unsqueeze(each, axes=[2]) for each in (zeros, scales))
    whole = vector(op, [packed.outputs, packed.blocks * packed.block])
    return op.Reshape(op.Mul(op.Sub(numbers, zeros), scales), whole)


def _grouped(op: Tape, node: ir.Node, packed: _Packed) -> ir.Value:
    """Record (number - zero point) * scale where it is told which block each input is of.

    Raises:
        CannotConvert: Its zero points are numbers of few bits: the documentation has them beside
            such groups, and ONNX Runtime's kernel takes the middle in place of them.
    """
    kind, given, groups = dtype(operand(node, 2)), optional_input(node, 3), operand(node, 4)
    if given is not None and dtype(given) == _BYTES:
        raise CannotConvert("its kernel leaves out zero points of few bits beside a g_idx")
    numbers = op.const(LazyWeight(spread(packed.numbers, packed.bits, _BYTES)), name="numbers")
    if packed.inputs % packed.block:
        numbers, groups = (last_part(op, each, 0, packed.inputs) for each in (numbers, groups))
    zeros = _float_zeros(op, node, packed, kind)
    scales = op.Reshape(operand(node, 2), vector(op, [packed.outputs, packed.blocks]))
    scales = op.Gather(scales, groups, axis=1)
    zeros = zeros if given is None else op.Gather(zeros, groups, axis=1)
    return op.Mul(op.Sub(op.Cast(numbers, to=kind), zeros), scales)


def _float_zeros(op: Tape, node: ir.Node, packed: _Packed, kind: ir.DataType) -> ir.Value:
    given = optional_input(node, 3)
    if given is not None and dtype(given) != _BYTES:
        shaped = op.Reshape(given, vector(op, [packed.outputs, packed.blocks]))
        return shaped if dtype(given) == kind else op.Cast(shaped, to=kind)
    if given is None:
        middle = scalar(op, 1 << (packed.bits - 1), kind, "zero")
        return op.Reshape(middle, vector(op, [1, 1]))
    return op.Cast(_zeros(op, node, packed, _BYTES), to=kind)


UNPACKED = unfuse_mat_mul_nbits
