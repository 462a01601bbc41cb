"""Products computed in integers: activations rounded as they come, weights beforehand."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.graph.read_attributes import float_of, int_of
from vlmpass.ir_tools.graph.tape import Tape
from vlmpass.ir_tools.graph.walk import Scope
from vlmpass.ir_tools.weights import LazyWeight, expressions
from vlmpass.rewriter_rules.quant.few_bits import Grid, Numbers, Scales
from vlmpass.rewriter_rules.quant.plain import Multiplied

__all__ = ["MOST_SUMMED", "IntegerWeight", "Integers", "why_not_integers"]

MOST_SUMMED = (2**31 - 1) // (255 * 128)
"""The longest sum of products of 8 bits that 32 bits hold in any case."""
_FLOAT = ir.DataType.FLOAT


def why_not_integers(weight: Multiplied) -> str | None:
    """Return why no product of integers stands for those with a weight, after "that are"."""
    if weight.matrix.shape[weight.axis] > MOST_SUMMED:
        return f"summed over more than {MOST_SUMMED} numbers"
    for _, node in weight.users:
        if node.op_type not in ("MatMul", "Gemm"):
            return f"of {node.op_type}"
        if float_of(node, "alpha", 1.0) != 1.0 or float_of(node, "beta", 1.0) != 1.0:
            return "of a Gemm with factors"
        if int_of(node, "transA", 0):
            return "of a Gemm that turns its input"
    return None


@dataclass(frozen=True)
class IntegerWeight:
    """A weight as [inputs, outputs] of 8 bits with a scale for each output, lazily.

    Attributes:
        weight: The weight.
        signed: Whether its numbers are, with zero at 0, or not, with zero at 128.
    """

    weight: Multiplied
    signed: bool

    @property
    def grid(self) -> Grid:
        """How it is rounded."""
        matrix, axis = self.weight.matrix, self.weight.axis
        name = self.weight.value.name or ""
        return Grid(8, axis, max(1, matrix.shape[axis]), True, False, _FLOAT, weight=name)

    def numbers(self, dtype: ir.DataType, shift: int) -> LazyWeight:
        """Return its numbers, from 0 to 255, less a shift."""
        matrix = self.weight.matrix
        found = Numbers(dtype, matrix.shape, matrix, self.grid, shift=shift)
        turned = self.weight.axis == 1
        return LazyWeight(expressions.transposed(found, (1, 0)) if turned else found)

    def scales(self) -> LazyWeight:
        """Return its scales as [outputs]."""
        matrix = self.weight.matrix
        found = Scales(_FLOAT, self.grid.count(matrix.shape), matrix, self.grid)
        return LazyWeight(expressions.reshaped(found, (found.size,)))


@dataclass
class Integers:
    """Writes products in integers; what several of one graph take is made once.

    They are to be written in the order of the graph.

    Attributes:
        signed: Whether the numbers of weights are.
    """

    signed: bool
    _inputs: dict[tuple[int, ir.Value], tuple[ir.Value, ...]] = field(default_factory=dict)
    _weights: dict[tuple[int, ir.Value], tuple[ir.Value | None, ...]] = field(default_factory=dict)

    def product(self, tape: Tape, scope: Scope, weight: Multiplied, node: ir.Node) -> ir.Value:
        """Return Mul(Cast(MatMulInteger(round(x), w)), scales), and the bias of a Gemm.

        Args:
            tape: Records it.
            scope: Where the product stands.
            weight: What it multiplies with.
            node: The product.
        """
        x, bias = node.inputs[0], node.inputs[2] if len(node.inputs) > 2 else None
        assert x is not None
        dtype = weight.matrix.dtype
        numbers, scale, zero = self._input(tape, scope, x, dtype)
        rows, scales, middle = self._weight(tape, scope, weight)
        made = tape.MatMulInteger(numbers, rows, zero, middle)
        made = tape.Mul(tape.Cast(made, to=_FLOAT), tape.Mul(scale, scales))
        if dtype != _FLOAT:
            made = tape.Cast(made, to=dtype)
        return made if bias is None else tape.Add(made, bias)

    def _input(
        self, tape: Tape, scope: Scope, x: ir.Value, dtype: ir.DataType
    ) -> tuple[ir.Value, ...]:
        key = (id(scope.graph), x)
        if key not in self._inputs:
            wide = x if dtype == _FLOAT else tape.Cast(x, to=_FLOAT)
            self._inputs[key] = tuple(tape.node("DynamicQuantizeLinear", [wide], outputs=3))
        return self._inputs[key]

    def _weight(self, tape: Tape, scope: Scope, weight: Multiplied) -> tuple[ir.Value | None, ...]:
        key, held = (id(scope.graph), weight.value), IntegerWeight(weight, self.signed)
        if key not in self._weights:
            kind = ir.DataType.INT8 if self.signed else ir.DataType.UINT8
            middle = held.grid.middle
            self._weights[key] = (
                tape.const(held.numbers(kind, middle if self.signed else 0), name="q"),
                tape.const(held.scales(), name="s"),
                None if self.signed else tape.const(np.array(middle, np.uint8), name="z"),
            )
        return self._weights[key]
