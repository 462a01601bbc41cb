"""BitShift as a product with, or a quotient by, a power of two."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.rewrite import P, Replacement, RuleSet, Tape, rule
from vlmpass.rewriter_rules.opset.build import cast
from vlmpass.rewriter_rules.opset.queries import dtype, operands, text
from vlmpass.rewriter_rules.opset.table import CannotConvert, Outputs
from vlmpass.rewriter_rules.unfuse.unfused import spelled

__all__ = ["SHIFTING"]

_D = ir.DataType


def _moved(op: Tape, node: ir.Node) -> Outputs:
    x, amount = operands(node, 2)
    kind = dtype(x)
    if kind.is_signed() or kind.bitwidth > 32:
        raise CannotConvert(f"no signed type holds all of {kind.name.lower()} and its shifts")
    width = kind.bitwidth
    steps = op.Min(cast(op, amount, _D.INT64), op.const(width))
    # By the width or more nothing is left: the last power divides all, and its product is 0.
    powers = op.const(2 ** np.arange(width + 1, dtype=np.int64), name="powers")
    wide, power = op.Cast(x, to=_D.INT64), op.Gather(powers, steps, axis=0)
    if text(node, "direction") == "RIGHT":
        return op.Cast(op.Div(wide, power), to=kind)
    modulus = op.const(2**width)
    return op.Cast(op.Mod(op.Mul(wide, power), modulus), to=kind)


@rule(P.BitShift(P.any, ..., _node="node"), opset=(13, None))
def bit_shift_to_power(op: Tape, node: ir.Node) -> Replacement:
    """BitShift(x, y) -> x * 2^y modulo 2^width, or x / 2^y, of unsigned integers to 32 bits."""
    return spelled(_moved, op, node)


SHIFTING = RuleSet((bit_shift_to_power,))
