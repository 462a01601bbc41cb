"""Products of rounded operands said in floats, by the definition of the rounding.

A result is held against this. Nothing of it is QuantizeLinear or DequantizeLinear.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.graph.tape import Tape
from vlmpass.ir_tools.weights import LazyWeight, expressions
from vlmpass.rewriter_rules.quant.few_bits import Rounded
from vlmpass.rewriter_rules.quant.in_qdq import weight_grid
from vlmpass.rewriter_rules.quant.levels import Levels
from vlmpass.rewriter_rules.quant.plain import Multiplied

__all__ = ["float_product"]


def float_product(tape: Tape, weight: Multiplied, node: ir.Node, levels: Levels) -> ir.Value:
    """Return a product whose input and weight are rounded and floats again.

    Args:
        tape: Records it.
        weight: What it multiplies with.
        node: The product.
        levels: What its input is rounded to.
    """
    rounded = Rounded(weight.matrix.dtype, weight.matrix.shape, weight.matrix, weight_grid(weight))
    held = tape.const(LazyWeight(expressions.reshaped(rounded, weight.shape)), name="rounded")
    given = _by_definition(tape, node.inputs[0], levels)
    return tape.node(node.op_type, [given, held, *node.inputs[2:]], node.attributes)[0]


def _by_definition(tape: Tape, x: ir.Value | None, levels: Levels) -> ir.Value:
    """Return ``clip(round(x / scale)) * scale``, the ends being those less the zero point."""
    scale = tape.const(np.float32(levels.scale), name="scale")
    low, high = (tape.const(np.float32(end - levels.zero), name="end") for end in levels.ends)
    steps = tape.Round(tape.Div(x, scale))
    return tape.Mul(tape.Clip(steps, low, high), scale)
