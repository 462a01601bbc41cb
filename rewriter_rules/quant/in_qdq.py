"""Products between QuantizeLinear and DequantizeLinear, which runtimes fuse to integers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.evaluate import Array
from vlmpass.ir_tools.graph.tape import Tape
from vlmpass.ir_tools.weights import LazyWeight, expressions
from vlmpass.ir_tools.weights.evaluate import evaluate
from vlmpass.rewriter_rules.quant.biases import Bias
from vlmpass.rewriter_rules.quant.few_bits import Grid, Numbers, Scales
from vlmpass.rewriter_rules.quant.levels import Levels
from vlmpass.rewriter_rules.quant.plain import Multiplied

__all__ = ["RoundedProducts", "output_scales", "weight_grid"]

_FLOAT = ir.DataType.FLOAT


def weight_grid(weight: Multiplied) -> Grid:
    """Return how a weight is rounded: 8 bits, zero in the middle, a scale for each output."""
    length = max(1, weight.matrix.shape[weight.axis])
    return Grid(8, weight.axis, length, True, False, _FLOAT, weight=weight.value.name or "")


def output_scales(weight: Multiplied) -> Array:
    """Return the scale of a weight for each output; the weight is read, a part at a time."""
    grid = weight_grid(weight)
    found = Scales(_FLOAT, grid.count(weight.matrix.shape), weight.matrix, grid)
    return evaluate(found).reshape(-1)


@dataclass
class RoundedProducts:
    """Writes products of rounded operands; what several take is rounded once.

    They are to be written in the order of the graph.

    Attributes:
        levels: What the inputs of products are rounded to.
        outputs: What their outputs are, of those products whose outputs are rounded.
        biases: Those that are rounded.
    """

    levels: Mapping[ir.Node, Levels]
    outputs: Mapping[ir.Node, Levels]
    biases: Mapping[ir.Node, Bias]
    _inputs: dict[ir.Value, ir.Value] = field(default_factory=dict)
    _weights: dict[ir.Value, ir.Value] = field(default_factory=dict)
    _scales: dict[ir.Value, Array] = field(default_factory=dict)
    _zeros: dict[int, ir.Value] = field(default_factory=dict)

    def product(self, tape: Tape, weight: Multiplied, node: ir.Node) -> ir.Value:
        """Return the product of DequantizeLinear(QuantizeLinear(x)) and DequantizeLinear(w).

        Args:
            tape: Records it.
            weight: What it multiplies with.
            node: The product.
        """
        bias = self.biases.get(node)
        inputs = [self._input(tape, node), self._weight(tape, weight), *node.inputs[2:]]
        if bias is not None and bias.add is None:
            inputs[bias.index] = self.bias(tape, weight, node)
        made = tape.node(node.op_type, inputs, node.attributes)[0]
        return _rounded(tape, made, self.outputs[node]) if node in self.outputs else made

    def bias(self, tape: Tape, weight: Multiplied, node: ir.Node) -> ir.Value:
        """Return DequantizeLinear(bias) of 32 bits; as it is where those do not hold it.

        Args:
            tape: Records it.
            weight: What the product multiplies with.
            node: The product; it has such a bias.
        """
        if weight.value not in self._scales:
            self._scales[weight.value] = output_scales(weight)
        bias = self.biases[node]
        scales = self._scales[weight.value] * np.float32(self.levels[node].scale)
        steps = bias.steps(scales)
        if steps is None:
            return bias.value
        numbers = tape.const(steps.astype(np.int32), name="bias")
        return tape.DequantizeLinear(numbers, tape.const(scales, name="bias_scales"), axis=0)

    def _input(self, tape: Tape, node: ir.Node) -> ir.Value:
        x = node.inputs[0]
        assert x is not None
        if x not in self._inputs:
            self._inputs[x] = _rounded(tape, x, self.levels[node])
        return self._inputs[x]

    def _weight(self, tape: Tape, weight: Multiplied) -> ir.Value:
        """Return DequantizeLinear(w), with zero points: ONNX Runtime fuses nothing without."""
        if weight.value not in self._weights:
            grid, matrix = weight_grid(weight), weight.matrix
            whole = Numbers(ir.DataType.INT8, matrix.shape, matrix, grid, shift=grid.middle)
            scales = Scales(_FLOAT, grid.count(matrix.shape), matrix, grid)
            count = scales.size
            if count not in self._zeros:
                self._zeros[count] = tape.const(np.zeros(count, np.int8), name="zeros")
            self._weights[weight.value] = tape.DequantizeLinear(
                tape.const(LazyWeight(expressions.reshaped(whole, weight.shape)), name="numbers"),
                tape.const(LazyWeight(expressions.reshaped(scales, (count,))), name="scales"),
                self._zeros[count],
                axis=1 - weight.axis,
            )
        return self._weights[weight.value]


def _rounded(tape: Tape, x: ir.Value, levels: Levels) -> ir.Value:
    scale = tape.const(np.float32(levels.scale), name="scale")
    zero = tape.const(np.array(levels.zero, levels.kind.numpy()), name="zero")
    return tape.DequantizeLinear(tape.QuantizeLinear(x, scale, zero), scale, zero)
