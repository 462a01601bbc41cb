"""What a conversion will do to a model: a value that touches the model once, when applied."""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass
from functools import reduce
from operator import or_

import onnx_ir as ir

from vlmpass.ir_tools.graph.edit import is_used
from vlmpass.ir_tools.graph.effects import EXACT, NumberChanges
from vlmpass.ir_tools.graph.removals import Removals
from vlmpass.ir_tools.graph.tape import splice
from vlmpass.ir_tools.graph.walk import Scope, subgraphs
from vlmpass.rewriter_rules.opset.conversion import Built
from vlmpass.rewriter_rules.opset.element_types.widen import Widening
from vlmpass.rewriter_rules.opset.seen import SeenValue, original

__all__ = ["ConversionPlan", "Replacement"]


@dataclass
class Replacement:
    """One node of the model and what will stand for it."""

    scope: Scope
    node: ir.Node
    built: Built

    def read_the_model(self, own: Container[int]) -> None:
        """Let the new nodes read values of the model in place of what these were seen as.

        Args:
            own: Identities of the graphs that belong to the model.
        """
        _read_originals(self.built.tape.nodes, own)
        self.built.outputs = [
            None if value is None else original(value) for value in self.built.outputs
        ]

    def apply(self, standing: dict[ir.Value, ir.Value], removals: Removals) -> None:
        """Put the new nodes in the place of the old one.

        Args:
            standing: What stands for outputs of nodes that are gone; it gets those of this one.
            removals: What takes the old one out.
        """
        pairs = [
            (old, standing.get(new, new))
            for old, new in zip(self.node.outputs, self.built.outputs, strict=False)
            if new is not None
        ]
        within = self.scope.in_function
        splice(self.built.tape, [self.node], pairs, in_function=within, remove=removals.remove)
        standing.update(pairs)


def _read_originals(nodes: Iterable[ir.Node], own: Container[int]) -> None:
    for node in nodes:
        for index, value in enumerate(node.inputs):
            if isinstance(value, SeenValue):
                node.replace_input_with(index, value.original)
        for graph in subgraphs(node):
            if id(graph) not in own:
                _read_originals(graph, own)


@dataclass(frozen=True)
class ConversionPlan:
    """All that leads a model to an opset.

    Attributes:
        replacements: Nodes and what will stand for them, in the order of the model.
        widening: What gets another element type.
        shapes: Proven shapes in place of declared ones that they contradict.
        own: Identities of the model's graphs.
    """

    replacements: list[Replacement]
    widening: Widening
    shapes: dict[ir.Value, ir.Shape]
    own: Container[int]

    def __bool__(self) -> bool:
        return bool(self.replacements or self.widening)

    @property
    def changes(self) -> NumberChanges:
        """What differs in numbers afterwards."""
        return reduce(or_, (each.built.changes for each in self.replacements), EXACT)

    def apply(self) -> None:
        """Change the model; a plan is applied once."""
        operands = [value for each in self.replacements for value in each.node.inputs]
        self.widening.apply()
        for value, shape in self.shapes.items():
            value.shape = shape
        for each in self.replacements:
            each.read_the_model(self.own)
        standing: dict[ir.Value, ir.Value] = {}
        removals = Removals()
        for each in self.replacements:
            each.apply(standing, removals)
        _drop_unused((value for value in operands if value is not None), removals)
        removals.finish()


def _drop_unused(operands: Iterable[ir.Value], removals: Removals) -> None:
    """Remove constants that only nodes now replaced had read."""
    for value in dict.fromkeys(operands):
        if is_used(value) or value.is_graph_input():
            continue
        node = value.producer()
        if node is not None and node.graph is not None:
            if (node.domain, node.op_type) == ("", "Constant") and node not in removals:
                removals.remove(node.graph, [node])
        elif value.is_initializer() and value.graph is not None and value.name:
            del value.graph.initializers[value.name]
