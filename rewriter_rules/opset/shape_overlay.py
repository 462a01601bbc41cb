"""What adapters may ask about values, for as long as they ask: types, and shapes that are proven.

Exporters declare traced sizes between a graph's inputs and outputs, and a conversion that believed
them would be right for these sizes only. While adapters look, a value has the shape that follows
from the model's inputs and the operators, and of what is declared beyond that only its rank.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from vlmpass.ir_tools.graph.infer_node import infer_node
from vlmpass.ir_tools.graph.walk import Scope
from vlmpass.ir_tools.shapes.declared import declared_sizes, refuted
from vlmpass.ir_tools.shapes.inferred import inferred_shapes
from vlmpass.ir_tools.types import solve

__all__ = ["Proven"]


class Proven:
    """Gives every value its proven shape, and its type if it has none, until taken back.

    Args:
        model: In topological order.
        scopes: All of its graphs.
    """

    def __init__(self, model: ir.Model, scopes: Sequence[Scope]) -> None:
        self._shapes: list[tuple[ir.Value, ir.Shape | None]] = []
        self._refuted: set[ir.Value] = set()
        self._untyped: list[ir.Value] = []
        proven = inferred_shapes(model)
        typing = solve(model)
        for scope in scopes:
            for value in scope.graph.inputs:
                if scope.graph is not model.graph:
                    self._keep_rank(value)
                self._type(value, typing.type_of(value))
            for node in scope.graph:
                for value in node.outputs:
                    sizes = proven.get(value)
                    if sizes is None:
                        self._keep_rank(value)
                    else:
                        if refuted(declared_sizes(value), sizes):
                            self._refuted.add(value)
                        self._set(value, ir.Shape([size.known for size in sizes]))
                if any(value.shape is None for value in node.outputs):
                    infer_node(node, scope.opsets)
                for value in node.outputs:
                    self._type(value, typing.type_of(value))

    def take_back(self, *, correct: bool) -> None:
        """Give every value what it had before.

        Args:
            correct: Whether shapes that are proven wrong are not given back: a runtime believes
                them and computes with them, once something new asks for a shape.
        """
        for value, shape in self._shapes:
            if not correct or value not in self._refuted:
                value.shape = shape
        for value in self._untyped:
            value.type = None

    def _set(self, value: ir.Value, shape: ir.Shape | None) -> None:
        self._shapes.append((value, value.shape))
        if value.type is None:
            self._untyped.append(value)
        value.shape = shape

    def _keep_rank(self, value: ir.Value) -> None:
        self._set(value, None if value.shape is None else ir.Shape([None] * len(value.shape)))

    def _type(self, value: ir.Value, found: ir.TypeProtocol | None) -> None:
        if value.type is None and found is not None:
            value.type = found
