"""The shapes that adapters may believe: those that are proven.

Exporters declare traced sizes between a graph's inputs and outputs, and a conversion that believed
them would be right for these sizes only. Adapters see the shape that follows from the model's
inputs and the operators, and of what is declared beyond that only its rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from vlmpass.ir_tools.graph.infer_node import infer_node
from vlmpass.ir_tools.graph.walk import Scope
from vlmpass.ir_tools.shapes.declared import declared_sizes, refuted
from vlmpass.ir_tools.shapes.inferred import Size, inferred_shapes
from vlmpass.ir_tools.types import Typing
from vlmpass.rewriter_rules.opset.view import ModelView, Overlay

__all__ = ["ShapeOverlay"]


@dataclass
class ShapeOverlay:
    """The proven shape of every value, and a type for those that have none.

    Attributes:
        overlay: The shapes and types.
        refuted: Those shapes that contradict what is declared: a runtime believes what is declared
            and computes with it, once something new asks for a shape.
    """

    overlay: Overlay = field(default_factory=Overlay)
    refuted: dict[ir.Value, ir.Shape] = field(default_factory=dict)

    @classmethod
    def of(cls, model: ir.Model, scopes: Sequence[Scope], typing: Typing) -> ShapeOverlay:
        """Prove the shapes of a model.

        Args:
            model: In topological order; it is not changed.
            scopes: All of its graphs.
            typing: Its types.
        """
        found, proven = cls(), inferred_shapes(model)
        view = ModelView((found.overlay,), lambda: typing)
        for scope in scopes:
            if scope.graph is not model.graph:
                found._keep_ranks(scope.graph.inputs)
            for node in scope.graph:
                for value in node.outputs:
                    found._note(value, proven.get(value))
                if any(found.overlay.shapes[value] is None for value in node.outputs):
                    found._infer(node, scope, view)
        return found

    def _note(self, value: ir.Value, sizes: Sequence[Size] | None) -> None:
        if sizes is None:
            self._keep_ranks([value])
            return
        shape = ir.Shape([size.known for size in sizes])
        self.overlay.shapes[value] = shape
        if refuted(declared_sizes(value), sizes):
            self.refuted[value] = shape

    def _keep_ranks(self, values: Sequence[ir.Value]) -> None:
        for value in values:
            rank = None if value.shape is None else [None] * len(value.shape)
            self.overlay.shapes[value] = None if rank is None else ir.Shape(rank)

    def _infer(self, node: ir.Node, scope: Scope, view: ModelView) -> None:
        """Take what follows from the ranks of operands where no size is proven."""
        seen = view.node(node)
        infer_node(seen, scope.opsets)
        for value, output in zip(node.outputs, seen.outputs, strict=True):
            self.overlay.shapes[value] = output.shape
            if value.type is None and output.type is not None:
                self.overlay.types[value] = output.type
