"""The pass pack-products: products of one input with several weights become one product."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from vlmpass.ir_tools.graph.edit import remove_initializer
from vlmpass.ir_tools.graph.limit import may_apply
from vlmpass.ir_tools.graph.names import Names
from vlmpass.ir_tools.graph.tape import Tape, splice
from vlmpass.ir_tools.graph.walk import Scope, scopes
from vlmpass.ir_tools.weights import as_weight, concat
from vlmpass.passes.pipeline.base import Pass
from vlmpass.passes.pipeline.needs import Need

__all__ = ["PackProducts"]

_FLOATS = (
    ir.DataType.FLOAT,
    ir.DataType.FLOAT16,
    ir.DataType.BFLOAT16,
    ir.DataType.DOUBLE,
)


@dataclass(frozen=True)
class PackProducts(Pass):
    """Multiply once where several MatMuls have one input: queries, keys and values, gate and up.

    Their weights become one, columns beside columns, streamed when the model is saved; Split gives
    each user its part. Weights that something else uses stay, and so do those of functions. What it
    gains is the runtime's matter, so that nothing but this pass does it.
    """

    name: ClassVar[str] = "pack-products"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.SHAPES})
    nothing: ClassVar[str] = "no two products with weights of their own have one input"

    def run(self, model: ir.Model) -> bool:
        """Pack in place."""
        names, changed = Names.of(model), False
        for scope in scopes(model):
            if scope.in_function:
                continue
            for products in list(_together(scope)):
                if may_apply(self.name, products[0].name or ""):
                    _pack(scope, products, names)
                    changed = True
        return changed


def _together(scope: Scope) -> Iterator[list[ir.Node]]:
    """Yield products of a graph that may be one, in order of the first."""
    found: dict[tuple[ir.Value, ir.DataType, int], list[ir.Node]] = {}
    for node in scope.graph:
        weight = _own_weight(node)
        x, rows = node.inputs[0] if node.inputs else None, node.outputs[0].shape
        if weight is None or x is None or rows is None:
            continue
        key = (x, weight.dtype, int(weight.shape.numpy()[0]))
        found.setdefault(key, []).append(node)
    yield from (nodes for nodes in found.values() if len(nodes) > 1)


def _own_weight(node: ir.Node) -> ir.TensorProtocol | None:
    """Return the matrix on the right of a product, if nothing else uses it."""
    if node.domain or node.op_type != "MatMul" or len(node.inputs) < 2:
        return None
    value = node.inputs[1]
    if value is None or value.const_value is None or not value.is_initializer():
        return None
    shared = len(value.uses()) > 1 or value.graph is not node.graph
    if shared or value.is_graph_input() or value.is_graph_output():
        return None
    weight = value.const_value
    plain = weight.dtype in _FLOATS and len(weight.shape) == 2 and weight.size > 0
    return weight if plain else None


def _pack(scope: Scope, products: Sequence[ir.Node], names: Names) -> None:
    """Put one product and a Split in the place of the first of several."""
    first = products[0]
    values = [value for node in products if (value := node.inputs[1]) is not None]
    weights = [as_weight(value.const_value) for value in values if value.const_value is not None]
    op = Tape(names, scope.opsets, f"{first.name or 'MatMul'}/packed")
    product = op.MatMul(first.inputs[0], op.const(concat(weights, 1), name="weight"))
    shape = first.outputs[0].shape
    assert shape is not None
    widths = [weight.expression.shape[1] for weight in weights]
    given = {"axis": len(shape) - 1, "split": widths}
    parts = op.node("Split", [product], given, outputs=len(widths))
    old = [node.outputs[0] for node in products]
    pairs = list(zip(old, parts, strict=True))
    splice(op, [*products[1:], first], pairs, in_function=False)
    for value in values:
        remove_initializer(value)
