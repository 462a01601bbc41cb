"""What products in integers compute, in doubles: those are exact, so that both agree bit by bit.

A result is held against this. Nothing of it multiplies integers.
"""

from __future__ import annotations

import onnx_ir as ir

from vlmpass.ir_tools.graph.tape import Tape
from vlmpass.rewriter_rules.quant.in_integers import IntegerWeight
from vlmpass.rewriter_rules.quant.plain import Multiplied

__all__ = ["double_product"]

_DOUBLE, _FLOAT = ir.DataType.DOUBLE, ir.DataType.FLOAT


def double_product(tape: Tape, weight: Multiplied, node: ir.Node) -> ir.Value:
    """Return the product of an input and a weight that are both rounded to 8 bits.

    Args:
        tape: Records it.
        weight: The weight.
        node: The product, in floats.
    """
    held = IntegerWeight(weight, signed=True)
    given = tape.Cast(node.inputs[0], to=_FLOAT)
    numbers, scale, zero = tape.node("DynamicQuantizeLinear", [given], outputs=3)
    centred = tape.Sub(tape.Cast(numbers, to=_DOUBLE), tape.Cast(zero, to=_DOUBLE))
    rows = tape.const(held.numbers(_DOUBLE, held.grid.middle), name="rows")
    scales = tape.const(held.scales(), name="scales")
    made = tape.Cast(tape.MatMul(centred, rows), to=_FLOAT)
    made = tape.Mul(made, tape.Mul(scale, scales))
    made = tape.Cast(made, to=weight.matrix.dtype)
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    return made if bias is None else tape.Add(made, bias)
