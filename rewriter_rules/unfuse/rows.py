"""GatherBlockQuantized: rows of a table that is stored in blocks of few bits."""

from __future__ import annotations

import onnx_ir as ir

from vlmpass.ir_tools.graph.tape import Tape
from vlmpass.ir_tools.weights.expressions import cast
from vlmpass.ir_tools.weights.weight import LazyWeight, as_weight
from vlmpass.rewriter_rules.opset.build import scalar, vector
from vlmpass.rewriter_rules.opset.queries import (
    constant,
    dtype,
    integer,
    operand,
    optional_input,
    rank,
)
from vlmpass.rewriter_rules.opset.table import CannotConvert, Outputs
from vlmpass.rewriter_rules.quant.expressions import spread
from vlmpass.rewriter_rules.unfuse.attended import known_size, last_part
from vlmpass.rewriter_rules.unfuse.unfused import floats, unfused

__all__ = ["ROWS"]

_BYTES = ir.DataType.UINT8
_HELD = (ir.DataType.INT4, ir.DataType.UINT4, _BYTES)


@unfused("GatherBlockQuantized")
def unfuse_gather_block_quantized(op: Tape, node: ir.Node) -> Outputs:
    """GatherBlockQuantized(b, i, s, z) -> (Gather(b, i) - Gather(z, i)) * Gather(s, i)."""
    floats(node, 2)
    numbers, zeros = _numbers(op, node), _zeros(op, node)
    taken = _blocks(op, node, _cast(op, node, op.Gather(numbers, operand(node, 1), axis=0)))
    less = op.Sub(taken, _each(op, node, zeros) if zeros.shape else zeros)
    return _flat(op, op.Mul(less, _each(op, node, operand(node, 2))), numbers)


def _numbers(op: Tape, node: ir.Node) -> ir.Value:
    """Record the whole table, a byte for a number.

    Raises:
        CannotConvert: It is no constant of such numbers, or not of rows with blocks along them.
    """
    stored, bits = constant(operand(node, 0)), integer(node, "bits", 4)
    if stored is None or stored.dtype not in _HELD:
        raise CannotConvert("its table is no constant of 4 or 8 bits")
    axis, count = integer(node, "quantize_axis", 1), len(stored.shape)
    if integer(node, "gather_axis") != 0 or axis % count != count - 1 or count != 2:
        raise CannotConvert("it takes no rows of a matrix with blocks along them")
    return _bytes(op, stored, bits)


def _bytes(op: Tape, stored: ir.TensorProtocol, bits: int) -> ir.Value:
    source = as_weight(stored).expression
    if stored.dtype == _BYTES:
        return op.const(LazyWeight(spread(source, bits, _BYTES)), name="numbers")
    kind = ir.DataType.INT8 if stored.dtype == ir.DataType.INT4 else _BYTES
    return op.const(LazyWeight(cast(source, kind, True)), name="numbers")


def _zeros(op: Tape, node: ir.Node) -> ir.Value:
    """Record the zero points of every block, or the one that all have."""
    given, kind = optional_input(node, 3), dtype(operand(node, 2))
    bits, held = integer(node, "bits", 4), dtype(operand(node, 0))
    if given is None:
        middle = 1 << (bits - 1) if held == _BYTES else 0
        return scalar(op, middle, kind, "zero")
    stored, table = constant(given), operand(node, 2)
    if stored is None:
        raise CannotConvert("its zero points are no constant")
    whole = _bytes(op, stored, bits)
    assert table.shape is not None
    width = known_size(table, 1, "the number of blocks")
    return op.Cast(last_part(op, whole, 0, width), to=kind)


def _cast(op: Tape, node: ir.Node, x: ir.Value) -> ir.Value:
    return op.Cast(x, to=dtype(operand(node, 2)))


def _each(op: Tape, node: ir.Node, x: ir.Value) -> ir.Value:
    """Record what belongs to the blocks of the rows that are taken, with an axis for numbers."""
    return op.Unsqueeze(op.Gather(x, operand(node, 1), axis=0), axes=[-1])


def _blocks(op: Tape, node: ir.Node, x: ir.Value) -> ir.Value:
    """Record rows as blocks: (..., blocks, numbers)."""
    size, block = known_size(x, -1, "the width of its table"), integer(node, "block_size", 128)
    if size % block:
        raise CannotConvert(f"rows of {size} are no blocks of {block}")
    lead = [0] * rank(operand(node, 1))
    return op.Reshape(x, vector(op, [*lead, size // block, block]))


def _flat(op: Tape, x: ir.Value, numbers: ir.Value) -> ir.Value:
    width = known_size(numbers, -1, "the width of its table")
    return op.Reshape(x, vector(op, [*[0] * (rank(x) - 2), width]))


ROWS = unfuse_gather_block_quantized
