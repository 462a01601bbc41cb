"""Every name stands for one thing wherever it can be seen."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from vlmpass.ir_tools.errors import Refusal, Refused
from vlmpass.ir_tools.graph.names import Names
from vlmpass.ir_tools.graph.walk import subgraphs
from vlmpass.passes.pipeline.base import Pass

__all__ = ["FixNames"]


@dataclass(frozen=True)
class FixNames(Pass):
    """Name what has no name, and rename what has that of something else in sight.

    The inputs, outputs and initializers of the graph keep their names, and so do the inputs and
    outputs of functions; whatever else has one of these names is renamed.
    """

    name = "fix-names"

    def run(self, model: ir.Model) -> bool:
        """Name and rename."""
        names = Names.of(model)
        changed = _Fixer(names, str(self)).owner(model.graph)
        for function in model.functions.values():
            changed |= _Fixer(names, str(self)).owner(function.graph)
        return changed


class _Fixer:
    """Walks a graph or function with the table of the names in sight."""

    def __init__(self, names: Names, request: str) -> None:
        self.names = names
        self.request = request
        self.visible: dict[str, ir.Value] = {}
        self.changed = False

    def owner(self, graph: ir.Graph) -> bool:
        """Fix a graph or function with its subgraphs; return whether anything changed."""
        fixed = (*graph.inputs, *graph.initializers.values(), *graph.outputs)
        for value in fixed:
            if value.name and self.visible.setdefault(value.name, value) is not value:
                reason = "two of the inputs, outputs and initializers have this name"
                raise Refused(self.request, [Refusal(f"'{value.name}'", reason)])
        self._scope(graph)
        return self.changed

    def _scope(self, graph: ir.Graph) -> None:
        local: list[str] = []
        values = dict.fromkeys((*graph.inputs, *graph.initializers.values()))  # one may be both
        for index, value in enumerate(values):
            self._value(value, f"input_{index}", local)
        taken: set[str] = set()
        for node in graph:
            if not node.name or node.name in taken:
                node.name = self.names.node(node.name or node.op_type)
                self.changed = True
            taken.add(node.name)
            for inner in subgraphs(node):
                self._scope(inner)
            for index, value in enumerate(node.outputs):
                if value.name or value.uses() or value.is_graph_output():
                    self._value(value, f"{node.name}/output_{index}", local)
        for name in local:
            del self.visible[name]

    def _value(self, value: ir.Value, hint: str, local: list[str]) -> None:
        if value.name and self.visible.setdefault(value.name, value) is value:
            local.append(value.name)
            return
        value.name = self.names.value(value.name or hint)
        self.changed = True
        self.visible[value.name] = value
        local.append(value.name)
