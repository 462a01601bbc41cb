"""Products between QuantizeLinear and DequantizeLinear, which runtimes fuse to integers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.graph.tape import Tape
from vlmpass.rewriter_rules.quant.few_bits import Grid
from vlmpass.rewriter_rules.quant.levels import Levels
from vlmpass.rewriter_rules.quant.plain import Multiplied
from vlmpass.rewriter_rules.quant.written import Parts, dequantized

__all__ = ["RoundedProducts", "weight_grid"]

_FLOAT = ir.DataType.FLOAT


def weight_grid(weight: Multiplied) -> Grid:
    """Return how a weight is rounded: 8 bits, zero in the middle, a scale for each output."""
    length = max(1, weight.matrix.shape[weight.axis])
    return Grid(8, weight.axis, length, True, False, _FLOAT, weight=weight.value.name or "")


@dataclass
class RoundedProducts:
    """Writes products of rounded operands; what several take is rounded once.

    They are to be written in the order of the graph.

    Attributes:
        levels: What the inputs of products are rounded to.
    """

    levels: Mapping[ir.Node, Levels]
    _inputs: dict[ir.Value, ir.Value] = field(default_factory=dict)
    _weights: dict[ir.Value, Parts] = field(default_factory=dict)

    def product(self, tape: Tape, weight: Multiplied, node: ir.Node) -> ir.Value:
        """Return the product of DequantizeLinear(QuantizeLinear(x)) and DequantizeLinear(w).

        Args:
            tape: Records it.
            weight: What it multiplies with.
            node: The product.
        """
        parts = self._weights.setdefault(weight.value, Parts(tape, weight, weight_grid(weight)))
        inputs = [self._input(tape, node), dequantized(parts.on(tape)), *node.inputs[2:]]
        return tape.node(node.op_type, inputs, node.attributes)[0]

    def _input(self, tape: Tape, node: ir.Node) -> ir.Value:
        x = node.inputs[0]
        assert x is not None
        if x not in self._inputs:
            self._inputs[x] = _rounded(tape, x, self.levels[node])
        return self._inputs[x]


def _rounded(tape: Tape, x: ir.Value, levels: Levels) -> ir.Value:
    scale = tape.const(np.float32(levels.scale), name="scale")
    zero = tape.const(np.array(levels.zero, levels.kind.numpy()), name="zero")
    return tape.DequantizeLinear(tape.QuantizeLinear(x, scale, zero), scale, zero)
