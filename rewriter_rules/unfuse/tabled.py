"""Products with weights of four bits that stand for entries of a table, made floats again."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.graph.tape import Tape
from vlmpass.rewriter_rules.opset.build import vector
from vlmpass.rewriter_rules.opset.queries import integer, operand
from vlmpass.rewriter_rules.opset.table import CannotConvert, Outputs
from vlmpass.rewriter_rules.unfuse.attended import last_part
from vlmpass.rewriter_rules.unfuse.unfused import floats, unfused

__all__ = ["TABLED"]

_SMALL = (0.0, 0.0052083333, 0.66666667, 1.0, 0.33333333, 0.5, 0.16666667, 0.25)
FP4 = np.array([*_SMALL, *(-number for number in _SMALL)], np.float32)
"""Of a sign and three bits, as bitsandbytes has them."""
NF4 = np.array(
    [
        -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
        -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
        0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
        0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
    ],
    np.float32,
)  # fmt: skip
"""Quantiles of a normal distribution (QLoRA, arXiv:2305.14314, appendix E)."""
_TABLES = (FP4, NF4)


@unfused("MatMulBnb4")
def unfuse_mat_mul_bnb4(op: Tape, node: ir.Node) -> Outputs:
    """MatMulBnb4(x, w, s) -> MatMul(x, Transpose(table[w] * s))."""
    kind = floats(node, 0, 2)
    inputs, outputs, block = (_positive(node, name) for name in ("K", "N", "block_size"))
    if not integer(node, "transB", 1):
        raise CannotConvert("its weight is not stored by outputs, as all kernels have it")
    rest = -inputs * outputs % block
    numbers = _numbers(op, node, kind)
    whole = last_part(op, numbers, 0, inputs * outputs)
    if rest:
        whole = op.Concat(whole, op.const(np.zeros(rest, kind.numpy())), axis=0)
    blocks = op.Mul(op.Reshape(whole, vector(op, [-1, block])), _scales(op, node))
    weight = last_part(op, op.Reshape(blocks, vector(op, [-1])), 0, inputs * outputs)
    turned = op.Transpose(op.Reshape(weight, vector(op, [outputs, inputs])), perm=[1, 0])
    return op.MatMul(operand(node, 0), turned)


def _numbers(op: Tape, node: ir.Node, kind: ir.DataType) -> ir.Value:
    """Record the entries of the table: of each byte the upper half first."""
    which = integer(node, "quant_type", -1)
    if which not in (0, 1):
        raise CannotConvert(f"its quant_type is {which}, neither 0 (fp4) nor 1 (nf4)")
    table = _TABLES[which]
    pairs = np.stack([np.repeat(table, len(table)), np.tile(table, len(table))], axis=1)
    places = op.Cast(op.Reshape(operand(node, 1), vector(op, [-1])), to=ir.DataType.INT32)
    found = op.Gather(op.const(pairs.astype(kind.numpy()), name="table"), places)
    return op.Reshape(found, vector(op, [-1]))


def _scales(op: Tape, node: ir.Node) -> ir.Value:
    return op.Reshape(operand(node, 2), vector(op, [-1, 1]))


def _positive(node: ir.Node, name: str) -> int:
    number = integer(node, name, 0)
    if number < 1:
        raise CannotConvert(f"its {name} is {number}")
    return number


TABLED = unfuse_mat_mul_bnb4
