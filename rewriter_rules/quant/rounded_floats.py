"""Products of rounded operands said in floats, by the definition of the rounding.

A result is held against this. Nothing of it is QuantizeLinear or DequantizeLinear.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.graph.tape import Tape
from vlmpass.ir_tools.weights import LazyWeight, expressions
from vlmpass.rewriter_rules.quant.biases import Bias
from vlmpass.rewriter_rules.quant.few_bits import Rounded
from vlmpass.rewriter_rules.quant.in_qdq import output_scales, weight_grid
from vlmpass.rewriter_rules.quant.levels import Levels
from vlmpass.rewriter_rules.quant.plain import Multiplied

__all__ = ["FloatProduct"]


@dataclass(frozen=True)
class FloatProduct:
    """A product whose operands are rounded and floats again.

    Attributes:
        weight: What it multiplies with.
        node: The product.
        levels: What its input is rounded to.
        output: What its output is, if that is rounded.
        bias: Its bias, if that is rounded.
    """

    weight: Multiplied
    node: ir.Node
    levels: Levels
    output: Levels | None
    bias: Bias | None

    def product(self, tape: Tape) -> tuple[ir.Value, ir.Value]:
        """Return what stands for the product, and the weight in it.

        Args:
            tape: Records it.
        """
        weight, node = self.weight, self.node
        kind, shape = weight.matrix.dtype, weight.matrix.shape
        rounded = Rounded(kind, shape, weight.matrix, weight_grid(weight))
        held = tape.const(LazyWeight(expressions.reshaped(rounded, weight.shape)), name="rounded")
        inputs = [_by_definition(tape, node.inputs[0], self.levels), held, *node.inputs[2:]]
        if self.bias is not None and self.bias.add is None:
            inputs[self.bias.index] = self.added(tape)
        made = tape.node(node.op_type, inputs, node.attributes)[0]
        return made if self.output is None else _by_definition(tape, made, self.output), held

    def added(self, tape: Tape) -> ir.Value:
        """Return the bias in whole steps of both scales; as it is where 32 bits do not hold it.

        Args:
            tape: Records it.
        """
        bias = self.bias
        assert bias is not None
        step = output_scales(self.weight) * np.float32(self.levels.scale)
        with np.errstate(all="ignore"):
            wanted = np.rint(bias.numbers / step)
        fits = bool(np.abs(wanted).max(initial=0.0) < 2**31 - 128)
        return tape.const(wanted * step if fits else bias.numbers, name="bias")


def _by_definition(tape: Tape, x: ir.Value | None, levels: Levels) -> ir.Value:
    """Return ``clip(round(x / scale)) * scale``, the ends being those less the zero point."""
    scale = tape.const(np.float32(levels.scale), name="scale")
    low, high = (tape.const(np.float32(end - levels.zero), name="end") for end in levels.ends)
    steps = tape.Round(tape.Div(x, scale))
    return tape.Mul(tape.Clip(steps, low, high), scale)
