"""Expressions over dimensions written as nodes: each size and each sum once for a graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.graph.edit import add_constant
from vlmpass.ir_tools.graph.names import Names
from vlmpass.ir_tools.shapes.algebra import Algebra, Dim, Expr
from vlmpass.ir_tools.shapes.polynomial import Monomial

__all__ = ["Lowering"]

_OPERATIONS = {"floordiv": "Div", "truncdiv": "Div", "max": "Max", "min": "Min"}


class Lowering:
    """Writes shapes into one graph; later requests reuse the nodes of earlier ones.

    Requests must come in the order of their anchors, so that what is reused lies before.

    Args:
        algebra: What the expressions are made with.
        names: Of the model.
        opsets: Imported opset version by domain.
        as_nodes: Whether constants are nodes here, not initializers.
    """

    def __init__(
        self, algebra: Algebra, names: Names, opsets: Mapping[str, int], *, as_nodes: bool
    ) -> None:
        self._algebra = algebra
        self._names = names
        self._opset = opsets.get("", opsets.get("ai.onnx", 1))
        self._as_nodes = as_nodes
        self._made: dict[object, ir.Value] = {}

    def can(self, dim: Dim) -> bool:
        """Whether an expression can be written down."""
        if isinstance(dim, int):
            return True
        for serial in {serial for monomial, _ in dim.terms for serial, _ in monomial}:
            atom = self._algebra.atoms[serial]
            if atom.value is None and not (
                atom.operation in _OPERATIONS and all(map(self.can, atom.args))
            ):
                return False
            if atom.operation in ("max", "min") and self._opset < 12:
                return False  # for floats only
            if atom.operation == "floordiv" and not all(
                isinstance(arg, int) or self._algebra.nonnegative(arg) for arg in atom.args
            ):
                return False  # Div rounds towards zero
        return True

    def vector(self, dims: Sequence[Dim], anchor: ir.Node) -> ir.Value:
        """Return an int64 vector of sizes, whose nodes lie before the anchor."""
        key = tuple(dims)
        if key in self._made:
            return self._made[key]
        numbers = [dim for dim in dims if isinstance(dim, int)]
        if len(numbers) == len(dims):
            value = self._constant(numbers, anchor)
        elif len(dims) == 1:
            assert isinstance(dims[0], Expr)
            value = self._expression(dims[0], anchor)
        else:
            parts = [self.vector(part, anchor) for part in _runs(dims)]
            value = self.concat(parts, len(dims), anchor)
        self._made[key] = value
        return value

    def concat(self, parts: Sequence[ir.Value], length: int, anchor: ir.Node) -> ir.Value:
        """Return the parts of a vector in a row.

        Args:
            parts: int64 vectors, at least one.
            length: How many elements they have together.
            anchor: What is written lies before this node.
        """
        if len(parts) == 1:
            return parts[0]
        return self._node("Concat", parts, [ir.AttrInt64("axis", 0)], anchor, length)

    def axes(
        self, value: ir.Value, start: int, count: int, anchor: ir.Node, *, whole: bool = False
    ) -> ir.Value:
        """Return the sizes of neighbouring axes of a value, an int64 vector.

        Args:
            value: The value.
            start: The first axis, counted from the front.
            count: How many axes.
            anchor: What is written lies before this node.
            whole: Whether these are all its axes.
        """
        if whole:
            return self._node("Shape", [value], [], anchor, count)
        if self._opset >= 15:
            bounds = [ir.AttrInt64("start", start), ir.AttrInt64("end", start + count)]
            return self._node("Shape", [value], bounds, anchor, count)
        shape = self._node("Shape", [value], [], anchor, None)
        places = self._constant(range(start, start + count), anchor)
        return self._node("Gather", [shape, places], [], anchor, count)

    def _expression(self, expr: Expr, anchor: ir.Node) -> ir.Value:
        total: ir.Value | None = None
        ordered = sorted(expr.terms, key=lambda term: (term[1] < 0, not term[0]))
        for monomial, factor in ordered:
            value = self._monomial(monomial, abs(factor) if total else factor, anchor)
            if total is None:
                total = value
            else:
                total = self._node("Add" if factor > 0 else "Sub", [total, value], [], anchor)
        assert total is not None
        return total

    def _monomial(self, monomial: Monomial, factor: int, anchor: ir.Node) -> ir.Value:
        serials = [serial for serial, power in monomial for _ in range(power)]
        parts = [self._atom(serial, anchor) for serial in serials]
        if factor != 1 or not parts:
            parts.append(self._constant([factor], anchor))
        value = parts[0]
        for part in parts[1:]:
            value = self._node("Mul", [value, part], [], anchor)
        return value

    def _atom(self, serial: int, anchor: ir.Node) -> ir.Value:
        key = ("atom", serial)
        if key not in self._made:
            self._made[key] = self._make_atom(serial, anchor)
        return self._made[key]

    def _make_atom(self, serial: int, anchor: ir.Node) -> ir.Value:
        atom = self._algebra.atoms[serial]
        if atom.value is None:
            args = [self.vector([arg], anchor) for arg in atom.args]
            return self._node(_OPERATIONS[atom.operation], args, [], anchor)
        if atom.operation == "element":
            shape = self._constant([-1], anchor)
            flat = self._node("Reshape", [atom.value, shape], [], anchor, None)
            return self._node("Gather", [flat, self._constant([atom.index], anchor)], [], anchor)
        return self.axes(atom.value, atom.index, 1, anchor)

    def _constant(self, numbers: Sequence[int], anchor: ir.Node) -> ir.Value:
        key = ("constant", *numbers)
        if key not in self._made:
            name = self._names.value(f"{anchor.name or anchor.op_type}/sizes")
            tensor = ir.Tensor(np.array(numbers, np.int64))
            self._made[key] = add_constant(tensor, anchor, name, as_node=self._as_nodes)
        return self._made[key]

    def _node(
        self,
        op_type: str,
        inputs: Sequence[ir.Value],
        attributes: Sequence[ir.Attr],
        anchor: ir.Node,
        length: int | None = 1,
    ) -> ir.Value:
        key = (op_type, tuple(inputs), tuple((a.name, a.value) for a in attributes))
        if key in self._made:
            return self._made[key]
        node = ir.Node("", op_type, inputs, attributes, num_outputs=1)
        node.name = self._names.node(f"{anchor.name or anchor.op_type}/{op_type}")
        for name, text in anchor.metadata_props.items():
            node.metadata_props[name] = text
        (value,) = node.outputs
        value.name = self._names.value(f"{node.name}_output")
        value.type = ir.TensorType(ir.DataType.INT64)
        value.shape = ir.Shape([length])
        graph = anchor.graph
        assert graph is not None
        graph.insert_before(anchor, node)
        self._made[key] = value
        return value


def _runs(dims: Sequence[Dim]) -> list[list[Dim]]:
    """Group neighbouring numbers, which become one constant."""
    runs: list[list[Dim]] = []
    for dim in dims:
        together = isinstance(dim, int) and runs and isinstance(runs[-1][-1], int)
        if together:
            runs[-1].append(dim)
        else:
            runs.append([dim])
    return runs
