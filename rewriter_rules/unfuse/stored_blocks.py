"""Weights of few bits in blocks, as ONNX Runtime's own operators store them, made floats again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.graph.tape import Tape
from vlmpass.ir_tools.weights import expressions
from vlmpass.ir_tools.weights.leaves import Expression
from vlmpass.ir_tools.weights.weight import LazyWeight, as_weight
from vlmpass.rewriter_rules.opset.build import scalar, vector
from vlmpass.rewriter_rules.opset.queries import constant, dtype
from vlmpass.rewriter_rules.opset.table import CannotConvert
from vlmpass.rewriter_rules.quant.emit import BLOCKED_SINCE, UNSIGNED
from vlmpass.rewriter_rules.quant.expressions import spread
from vlmpass.rewriter_rules.unfuse.attended import last_part

__all__ = ["Blocks", "by_groups", "dequantized"]

_BYTES = ir.DataType.UINT8


@dataclass(frozen=True)
class Blocks:
    """A weight [outputs, inputs], packed in blocks of inputs.

    Attributes:
        outputs: Its rows.
        inputs: Its columns.
        bits: Of a number.
        block: Numbers with one scale and zero point.
        numbers: What is stored, [outputs, bytes].
        scales: What numbers are multiplied by, one for each block.
        zeros: Their zero points, as floats or as numbers of as many bits in bytes; None for the
            middle.
        across: How many outputs share bytes of zero points, which have one each; 0 where the
            blocks of a row do.
    """

    outputs: int
    inputs: int
    bits: int
    block: int
    numbers: Expression
    scales: ir.Value
    zeros: ir.Value | None
    across: int = 0

    @property
    def blocks(self) -> int:
        """The blocks of a row; the last one may be longer than what is left."""
        return -(-self.inputs // self.block)

    @property
    def counted(self) -> bool:
        """Whether its zero points are given as numbers of few bits."""
        return self.zeros is not None and dtype(self.zeros) == _BYTES


def dequantized(op: Tape, packed: Blocks) -> ir.Value:
    """Record a weight [outputs, inputs] whose blocks are of inputs that follow each other."""
    standard = packed.zeros is None or packed.counted
    standard &= op.opsets[""] >= BLOCKED_SINCE[packed.bits]
    whole = (_blocked if standard else _computed)(op, packed)
    return last_part(op, whole, 0, packed.inputs) if packed.inputs % packed.block else whole


def _blocked(op: Tape, packed: Blocks) -> ir.Value:
    """Record DequantizeLinear of numbers that are stored as they were."""
    kind = UNSIGNED[packed.bits]
    numbers = op.const(LazyWeight(spread(packed.numbers, packed.bits, kind)), name="numbers")
    zeros = _zeros(op, packed, kind)
    return op.DequantizeLinear(numbers, _scales(op, packed), zeros, axis=1, block_size=packed.block)


def _scales(op: Tape, packed: Blocks) -> ir.Value:
    return op.Reshape(packed.scales, vector(op, [packed.outputs, packed.blocks]))


def _zeros(op: Tape, packed: Blocks, kind: ir.DataType) -> ir.Value:
    """Record the zero points [outputs, blocks], by default the middle of the numbers."""
    sizes = (packed.outputs, packed.blocks)
    if packed.zeros is None:
        middle = np.full(sizes, 1 << (packed.bits - 1), np.uint8).astype(kind.numpy())
        return op.const(middle, kind, "zeros")
    stored = constant(packed.zeros)
    if stored is None:
        raise CannotConvert("its zero points are no constant")
    source, width = as_weight(stored).expression, packed.across or packed.blocks
    lines = packed.outputs * packed.blocks // width
    rows = expressions.reshaped(source, (lines, source.size // lines))
    found = expressions.taken(spread(rows, packed.bits, kind), ((0, lines), (0, width)))
    return op.const(LazyWeight(expressions.reshaped(found, sizes)), name="zeros")


def _computed(op: Tape, packed: Blocks) -> ir.Value:
    """Record (number - zero point) * scale, numbers being bytes."""
    kind, zeros = dtype(packed.scales), _float_zeros(op, packed)
    shape = vector(op, [packed.outputs, packed.blocks, packed.block])
    numbers = op.Cast(op.Reshape(_bytes(op, packed), shape), to=kind)
    zeros, scales = (op.Unsqueeze(each, axes=[2]) for each in (zeros, _scales(op, packed)))
    whole = vector(op, [packed.outputs, packed.blocks * packed.block])
    return op.Reshape(op.Mul(op.Sub(numbers, zeros), scales), whole)


def _bytes(op: Tape, packed: Blocks) -> ir.Value:
    return op.const(LazyWeight(spread(packed.numbers, packed.bits, _BYTES)), name="numbers")


def by_groups(op: Tape, packed: Blocks, groups: ir.Value) -> ir.Value:
    """Record (number - zero point) * scale where it is told which block each input is of.

    Args:
        op: The tape.
        packed: The weight.
        groups: The block of each input, and of what fills the last block up.

    Raises:
        CannotConvert: Its zero points are numbers of few bits: the documentation has them beside
            such groups, and ONNX Runtime's kernel takes the middle in place of them.
    """
    if packed.counted:
        raise CannotConvert("its kernel leaves out zero points of few bits beside a g_idx")
    numbers, zeros = _bytes(op, packed), _float_zeros(op, packed)
    if packed.inputs % packed.block:
        numbers, groups = (last_part(op, each, 0, packed.inputs) for each in (numbers, groups))
    scales = op.Gather(_scales(op, packed), groups, axis=1)
    zeros = zeros if packed.zeros is None else op.Gather(zeros, groups, axis=1)
    return op.Mul(op.Sub(op.Cast(numbers, to=dtype(scales)), zeros), scales)


def _float_zeros(op: Tape, packed: Blocks) -> ir.Value:
    kind = dtype(packed.scales)
    if packed.zeros is None:
        middle = scalar(op, 1 << (packed.bits - 1), kind, "zero")
        return op.Reshape(middle, vector(op, [1, 1]))
    if packed.counted:
        return op.Cast(_zeros(op, packed, _BYTES), to=kind)
    shaped = op.Reshape(packed.zeros, vector(op, [packed.outputs, packed.blocks]))
    return shaped if dtype(shaped) == kind else op.Cast(shaped, to=kind)
