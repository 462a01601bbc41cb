"""Which nodes give the same outputs whenever they get the same inputs."""

from __future__ import annotations

import onnx_ir as ir

from vlmpass.ir_tools.graph.walk import holds_graphs
from vlmpass.ir_tools.operators import Kind, traits_of

__all__ = ["Determinism"]

_DRAWS = (Kind.RANDOM, Kind.SEARCH, Kind.FOREIGN)


class Determinism:
    """Answers for one model, whose functions it looks into.

    Args:
        model: The model.
    """

    def __init__(self, model: ir.Model) -> None:
        self._functions = model.functions
        self._answers: dict[ir.OperatorIdentifier, bool] = {}

    def holds(self, node: ir.Node) -> bool:
        """Whether a node without subgraphs is deterministic; False for unknown operators."""
        if holds_graphs(node):
            return False
        identifier = node.op_identifier()
        if identifier in self._functions:
            if identifier not in self._answers:
                self._answers[identifier] = False  # a function that calls itself is none
                body = self._functions[identifier]
                self._answers[identifier] = all(self.holds(inner) for inner in body)
            return self._answers[identifier]
        if node.op_type == "Dropout":
            return len(node.inputs) < 3 or node.inputs[2] is None
        traits = traits_of(node.domain, node.op_type)
        return traits is not None and traits.kind not in _DRAWS
