"""Rounded weights as nodes: DequantizeLinear before a product, or MatMulNBits in its place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import onnx_ir as ir

from vlmpass.ir_tools.graph.read_attributes import float_of, int_of
from vlmpass.ir_tools.graph.tape import Tape
from vlmpass.ir_tools.weights import LazyWeight, expressions
from vlmpass.ir_tools.weights.leaves import Expression
from vlmpass.rewriter_rules.quant.emit import (
    BLOCKED_OPSET,
    Builder,
    matmul_nbits,
    number_type,
    since_opset,
)
from vlmpass.rewriter_rules.quant.few_bits import Grid, Numbers, Rounded, Scales, Zeros
from vlmpass.rewriter_rules.quant.linear import Linear, Product
from vlmpass.rewriter_rules.quant.plain import Multiplied
from vlmpass.rewriter_rules.quant.recognize import Quantized
from vlmpass.rewriter_rules.quant.solved import Solved

__all__ = [
    "PER_OUTPUT_OPSET",
    "Parts",
    "dequantized",
    "nbits_product",
    "needed_opset",
    "rounded",
    "scale_type",
    "why_no_product",
    "why_not_nbits",
]

PER_OUTPUT_OPSET = 13
"""The opset from which DequantizeLinear has an axis."""
_HALF_SCALES_OPSET = 19
"""The opset from which its scales may be of half precision."""


@dataclass(frozen=True)
class Parts:
    """The constants of a rounded weight in one graph, made when they are first asked for.

    Attributes:
        tape: Records them.
        weight: The weight.
        grid: How it is rounded.
        solved: What it is rounded to, where that was found before.
        made: Those made already, by name.
    """

    tape: Tape
    weight: Multiplied
    grid: Grid
    solved: Solved | None = None
    made: dict[str, ir.Value] = field(default_factory=dict)

    def on(self, tape: Tape) -> Parts:
        """Return the same for another tape."""
        return replace(self, tape=tape)

    def constant(self, name: str, expression: Callable[[], Expression]) -> ir.Value:
        """Return a constant that belongs to the weight."""
        if name not in self.made:
            made = self.tape.const(
                LazyWeight(expression()), name=f"{self.weight.value.name}.{name}"
            )
            self.made[name] = made
        return self.made[name]

    @property
    def blocks(self) -> tuple[int, int]:
        """The shape of the scales."""
        return self.grid.count(self.weight.matrix.shape)

    def numbers(self, kind: ir.DataType, shift: int) -> Expression:
        """Return the numbers less a shift as a matrix."""
        if self.solved is not None:
            return self.solved.numbers(kind, shift)
        matrix = self.weight.matrix
        return Numbers(kind, matrix.shape, matrix, self.grid, shift=shift)

    def scales(self) -> Expression:
        """Return the scales as a matrix."""
        if self.solved is not None:
            return self.solved.scales()
        return Scales(self.grid.kind, self.blocks, self.weight.matrix, self.grid)

    def zeros(self, kind: ir.DataType) -> Expression:
        """Return the zero points as a matrix."""
        if self.solved is not None:
            return self.solved.zeros(kind)
        return Zeros(kind, self.blocks, self.weight.matrix, self.grid)

    def rounded(self) -> Expression:
        """Return the weight as a matrix of floats."""
        return rounded(self.weight, self.grid, self.solved)


def rounded(weight: Multiplied, grid: Grid, solved: Solved | None) -> Expression:
    """Return what is left of a weight, as a matrix of floats.

    Args:
        weight: The weight.
        grid: How it is rounded.
        solved: What it is rounded to, where that was found before.
    """
    matrix = weight.matrix
    if solved is not None:
        return solved.rounded(matrix.dtype)
    return Rounded(matrix.dtype, matrix.shape, matrix, grid)


def scale_type(dtype: ir.DataType, opset: int) -> ir.DataType:
    """Return the type that DequantizeLinear has at an opset for the scales of such a weight."""
    return dtype if opset >= _HALF_SCALES_OPSET else ir.DataType.FLOAT


def needed_opset(grid: Grid, shape: tuple[int, ...]) -> int:
    """Return the opset from which DequantizeLinear holds a weight that is rounded so."""
    whole = grid.block >= shape[grid.axis]
    return max(PER_OUTPUT_OPSET if whole else BLOCKED_OPSET, since_opset(grid.bits, whole))


def dequantized(parts: Parts) -> ir.Value:
    """Return DequantizeLinear(numbers, scales, zeros), in the shape of the weight.

    It stands before the first product of a graph, for all of them.
    """
    if "weight" not in parts.made:
        parts.made["weight"] = _dequantized(parts)
    return parts.made["weight"]


def _dequantized(parts: Parts) -> ir.Value:
    grid, shape = parts.grid, parts.weight.shape
    kind = number_type(grid.bits, signed=grid.symmetric)
    shift = grid.middle if grid.symmetric else 0
    whole = grid.block >= parts.weight.matrix.shape[grid.axis]

    def laid(found: Expression) -> Expression:
        return expressions.reshaped(found, (found.size,)) if whole else found

    numbers = parts.constant(
        "numbers", lambda: expressions.reshaped(parts.numbers(kind, shift), shape)
    )
    scales = parts.constant("scales", lambda: laid(parts.scales()))
    zeros = None
    if not grid.symmetric:
        zeros = parts.constant("zeros", lambda: laid(parts.zeros(kind)))
    axis, size = (1 - grid.axis, None) if whole else (grid.axis, grid.block)
    made = parts.tape.DequantizeLinear(numbers, scales, zeros, axis=axis, block_size=size)
    dtype = parts.weight.matrix.dtype
    return made if grid.kind == dtype else parts.tape.Cast(made, to=dtype.value)


def why_not_nbits(weight: Multiplied, node: ir.Node) -> str | None:
    """Return why MatMulNBits cannot stand for a product with a weight, if it cannot."""
    outputs = weight.matrix.shape[1 - weight.axis]
    return why_no_product(node, outputs) if node.op_type == "Gemm" else None


def why_no_product(node: ir.Node, outputs: int) -> str | None:
    """Return why MatMulNBits cannot stand for a Gemm of so many outputs, if it cannot."""
    if float_of(node, "alpha", 1.0) != 1.0 or float_of(node, "beta", 1.0) != 1.0:
        return "MatMulNBits has no factors, and the Gemm has"
    if int_of(node, "transA", 0):
        return "MatMulNBits does not turn its input, and the Gemm does"
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is not None and bias.shape != (outputs,):
        return "MatMulNBits takes one number of bias for each output, and the Gemm has another"
    return None


def nbits_product(parts: Parts, node: ir.Node) -> ir.Value:
    """Return com.microsoft::MatMulNBits in the place of a product."""
    x, value = node.inputs[0], parts.weight.value
    assert x is not None
    grid, turned = parts.grid, parts.grid.axis == 1

    def rows_first(found: Expression) -> Expression:
        return expressions.transposed(found, (1, 0)) if turned else found

    middle = grid.middle if grid.symmetric else None
    kind = grid.kind if grid.free else ir.DataType.UINT8
    whole = (0, (1 << grid.bits) - 1) if middle is None else (middle, middle)
    found = Quantized(
        whole=rows_first(parts.rounded()),
        numbers=rows_first(parts.numbers(ir.DataType.UINT8, 0)),
        bits=grid.bits,
        block=grid.block,
        scales=rows_first(parts.scales()),
        zeros=rows_first(parts.zeros(kind)),
        span=None if grid.free else whole,
        order=None,
    )
    bias = node.inputs[2] if node.op_type == "Gemm" and len(node.inputs) > 2 else None
    layer = Linear(Product(node, x, value, turned), x, bias, (node,))
    return matmul_nbits(Builder(parts.tape, layer, x, parts.made), found)
