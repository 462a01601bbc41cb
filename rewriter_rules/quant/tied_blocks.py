"""A tied table in blocks of few bits: one tensor for GatherBlockQuantized and for MatMulNBits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from vlmpass.ir_tools.graph.tape import Tape
from vlmpass.ir_tools.weights import LazyWeight, expressions
from vlmpass.ir_tools.weights.leaves import Expression
from vlmpass.rewriter_rules.quant.emit import UNSIGNED
from vlmpass.rewriter_rules.quant.expressions import Packed
from vlmpass.rewriter_rules.quant.few_bits import Grid, Numbers, Rounded, Scales
from vlmpass.rewriter_rules.quant.tied import TiedTable
from vlmpass.rewriter_rules.quant.written import why_no_product

__all__ = ["TiedBlocks"]

_BYTES = ir.DataType.UINT8


@dataclass(frozen=True)
class TiedBlocks:
    """A tied table that is rounded in blocks along its rows, zero in the middle.

    Attributes:
        table: What holds it now.
        grid: How it is rounded.
    """

    table: TiedTable
    grid: Grid

    @property
    def value(self) -> ir.Value:
        """The table."""
        return self.table.value

    @property
    def matrix(self) -> Expression:
        """What it holds."""
        return self.table.matrix

    @property
    def why_not(self) -> tuple[str, str] | None:
        """Why ONNX Runtime's operators do not hold it, and what helps; None if they do."""
        rows, width = self.matrix.shape
        if width % self.grid.block:
            what = f"rows of {width} numbers are not filled by blocks of {self.grid.block}"
            return what, "choose another block, or leave out tied"
        for node in self.table.heads:
            if node.op_type == "Gemm" and (why := why_no_product(node, rows)):
                return why, "leave out tied"
        return None

    def rounded(self) -> LazyWeight:
        """Return what is left of it, as floats."""
        matrix = self.matrix
        return LazyWeight(Rounded(matrix.dtype, matrix.shape, matrix, self.grid))

    def stored(self, tape: Tape) -> tuple[ir.Value, ir.Value]:
        """Return its numbers [rows, blocks, bytes] and its scales [rows, blocks].

        Args:
            tape: Records them.
        """
        grid, matrix = self.grid, self.matrix
        count, bits = grid.count(matrix.shape), grid.bits
        numbers: Expression = Numbers(UNSIGNED[bits], matrix.shape, matrix, grid)
        if bits < 8:
            packed = matrix.shape[0], matrix.shape[1] * bits // 8
            numbers = Packed(_BYTES, packed, numbers)
        blocks = expressions.reshaped(numbers, (*count, grid.block * bits // 8))
        return (
            tape.const(LazyWeight(blocks), name="numbers"),
            tape.const(LazyWeight(Scales(grid.kind, count, matrix, grid)), name="scales"),
        )

    def looked_up(
        self, tape: Tape, rows: ir.Value, numbers: ir.Value, scales: ir.Value
    ) -> ir.Value:
        """Return some rows as floats, without those that nobody asks for.

        Args:
            tape: Records it.
            rows: Which.
            numbers, scales: Of `stored`.
        """
        grid, width = self.grid, self.matrix.shape[1]
        each = tape.Unsqueeze(scales, axes=[-1])
        held = {"bits": grid.bits, "block_size": grid.block, "gather_axis": 0, "quantize_axis": 2}
        blocks = tape.node(
            "GatherBlockQuantized", [numbers, rows, each], held, domain="com.microsoft"
        )[0]
        if rows.shape is not None:
            return tape.Reshape(blocks, tape.const([0] * len(rows.shape) + [width], name="shape"))
        last = tape.const([width], name="width")
        return tape.Reshape(blocks, tape.Concat(tape.Shape(rows), last, axis=0))

    def products(self) -> Iterator[ir.Node]:
        """Yield what multiplies with it."""
        for head in self.table.heads:
            if head.op_type == "Gemm":
                yield head
            else:
                yield from (use.node for use in head.outputs[0].uses())

    def multiplied(
        self, tape: Tape, node: ir.Node, numbers: ir.Value, scales: ir.Value
    ) -> ir.Value:
        """Return MatMulNBits.

        Args:
            tape: Records it.
            node: One of `products`, as it is when those before it are written.
            numbers, scales: Of `stored`.
        """
        bias = node.inputs[2] if node.op_type == "Gemm" and len(node.inputs) > 2 else None
        rows, width = self.matrix.shape
        held = {"K": width, "N": rows, "bits": self.grid.bits, "block_size": self.grid.block}
        inputs = [node.inputs[0], numbers, scales, None, None, bias]
        return tape.node("MatMulNBits", inputs, held, domain="com.microsoft")[0]
