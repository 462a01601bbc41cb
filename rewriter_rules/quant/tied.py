"""A table of embeddings that is the matrix of the output, too: rounded, it stays one tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import onnx_ir as ir

from vlmpass.ir_tools.graph.constants import constant_of
from vlmpass.ir_tools.graph.read_attributes import int_of, ints_of, refers
from vlmpass.ir_tools.graph.tape import Tape
from vlmpass.ir_tools.weights import LazyWeight, as_weight, expressions
from vlmpass.ir_tools.weights.leaves import Expression
from vlmpass.rewriter_rules.quant.few_bits import Grid, Numbers, Rounded, Scales
from vlmpass.rewriter_rules.quant.plain import FLOATS, SENSITIVE
from vlmpass.rewriter_rules.quant.written import PER_OUTPUT_OPSET, scale_type

__all__ = ["TiedTable", "tied_tables"]


@dataclass(frozen=True)
class TiedTable:
    """A matrix of which rows are looked up, and that products multiply with, turned.

    Attributes:
        value: The matrix, [rows, width].
        matrix: What it holds.
        lookups: The Gathers of rows.
        heads: What takes it whole: Transposes before products, and Gemms that turn it.
        opset: Of the graph.
    """

    value: ir.Value
    matrix: Expression
    lookups: tuple[ir.Node, ...]
    heads: tuple[ir.Node, ...]
    opset: int

    @property
    def grid(self) -> Grid:
        """How it is rounded: 8 bits, zero in the middle, a scale for each row."""
        kind = scale_type(self.matrix.dtype, self.opset)
        width = max(1, self.matrix.shape[1])
        return Grid(8, 1, width, True, False, kind, weight=self.value.name or "")

    @property
    def why_not(self) -> tuple[str, str] | None:
        """Why DequantizeLinear does not hold it, and what helps; None if it does."""
        if self.opset >= PER_OUTPUT_OPSET:
            return None
        what = f"DequantizeLinear has a scale for each row from opset {PER_OUTPUT_OPSET} on"
        return what, f"put convert-opset{{to={PER_OUTPUT_OPSET}}} before it"

    def rounded(self) -> LazyWeight:
        """Return what is left of it, as floats."""
        matrix = self.matrix
        return LazyWeight(Rounded(matrix.dtype, matrix.shape, matrix, self.grid))

    def stored(self, tape: Tape) -> tuple[ir.Value, ir.Value]:
        """Return its numbers and its scales, one for each row.

        Args:
            tape: Records them.
        """
        grid, matrix = self.grid, self.matrix
        numbers = Numbers(ir.DataType.INT8, matrix.shape, matrix, grid, shift=grid.middle)
        scales = Scales(grid.kind, grid.count(matrix.shape), matrix, grid)
        flat = expressions.reshaped(scales, (scales.size,))
        return (
            tape.const(LazyWeight(numbers), name="numbers"),
            tape.const(LazyWeight(flat), name="scales"),
        )

    def looked_up(self, tape: Tape, rows: ir.Value | None, numbers: ir.Value,
                  scales: ir.Value) -> ir.Value:  # fmt: skip
        """Return some rows as floats, without those that nobody asks for.

        Args:
            tape: Records it.
            rows: Which.
            numbers, scales: Of `stored`.
        """
        found = tape.Cast(tape.Gather(numbers, rows, axis=0), to=self.grid.kind)
        steps = tape.Unsqueeze(tape.Gather(scales, rows, axis=0), axes=[-1])
        return self._typed(tape, tape.Mul(found, steps))

    def whole(self, tape: Tape, numbers: ir.Value, scales: ir.Value) -> ir.Value:
        """Return it all as floats.

        Args:
            tape: Records it.
            numbers, scales: Of `stored`.
        """
        return self._typed(tape, tape.DequantizeLinear(numbers, scales, axis=0))

    def _typed(self, tape: Tape, made: ir.Value) -> ir.Value:
        dtype = self.matrix.dtype
        return made if self.grid.kind == dtype else tape.Cast(made, to=dtype)


def tied_tables(
    model: ir.Model, at_least: int, excluded: Callable[[ir.Node], bool]
) -> Iterator[TiedTable]:
    """Yield the tables of the main graph that nothing but lookups and products use.

    Args:
        model: It must not change before the last one is found.
        at_least: Elements that a table must have.
        excluded: Whether the weight of a product stays as it is.
    """
    opset = model.graph.opset_imports.get("", 1)
    for value in list(model.graph.initializers.values()):
        tensor = constant_of(value, model.ir_version)
        if tensor is None or tensor.dtype not in FLOATS or len(tensor.shape) != 2:
            continue
        users = tuple(dict.fromkeys(use.node for use in value.uses()))
        here = all(
            node.graph is model.graph and not refers(node) and SENSITIVE not in node.metadata_props
            for node in users
        )
        if not here or tensor.size < at_least or value.is_graph_output():
            continue
        lookups = tuple(node for node in users if _looks_up(node, value))
        heads = tuple(node for node in users if _multiplies(node, value, excluded))
        if lookups and heads and len(lookups) + len(heads) == len(users):
            yield TiedTable(value, as_weight(tensor).expression, lookups, heads, opset)


def _looks_up(node: ir.Node, value: ir.Value) -> bool:
    if node.domain or node.op_type != "Gather" or int_of(node, "axis", 0) != 0:
        return False
    return node.inputs[0] is value and node.inputs[1] is not value


def _multiplies(node: ir.Node, value: ir.Value, excluded: Callable[[ir.Node], bool]) -> bool:
    """Whether a node turns a table for products alone, or is one that turns it."""
    if node.domain:
        return False
    if node.op_type == "Gemm":
        turned = int_of(node, "transB", 0) != 0 and list(node.inputs).count(value) == 1
        return turned and node.inputs[1] is value and not _stays(node, excluded)
    if node.op_type != "Transpose" or list(ints_of(node, "perm", (1, 0))) != [1, 0]:
        return False
    made = node.outputs[0]
    uses = tuple(made.uses())
    products = all(
        use.node.op_type == "MatMul" and use.idx == 1 and not use.node.domain
        and not _stays(use.node, excluded) for use in uses
    )  # fmt: skip
    return bool(uses) and products and not made.is_graph_output()


def _stays(node: ir.Node, excluded: Callable[[ir.Node], bool]) -> bool:
    return SENSITIVE in node.metadata_props or excluded(node)
