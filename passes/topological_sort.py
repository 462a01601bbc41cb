"""Producers before users, in every graph."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from vlmpass.ir_tools.describe import name_node
from vlmpass.ir_tools.errors import Refusal, Refused
from vlmpass.ir_tools.walk import scopes, subgraphs
from vlmpass.passes.base import Pass

__all__ = ["TopologicalSort"]


@dataclass(frozen=True)
class TopologicalSort(Pass):
    """Put producers before users in every graph, subgraph and function.

    A graph that is in order stays as it is, and nodes that do not depend on each other keep their
    order. Nodes that depend on themselves in a circle are refused.
    """

    name = "topological-sort"
    keeps_values: ClassVar[bool] = True

    def run(self, model: ir.Model) -> bool:
        """Sort what is out of order."""
        owners = [model.graph, *(function.graph for function in model.functions.values())]
        unsorted = [graph for graph in owners if not _in_order(graph, set())]
        for graph in unsorted:
            try:
                graph.sort()
            except ValueError:
                raise Refused(str(self), [_circle(model)]) from None
        return bool(unsorted)


def _in_order(graph: ir.Graph, seen: set[ir.Node]) -> bool:
    for node in graph:
        for value in node.inputs:
            producer = None if value is None else value.producer()
            if producer is not None and producer.graph is not None and producer not in seen:
                return False
        if not all(_in_order(inner, seen) for inner in subgraphs(node)):
            return False
        seen.add(node)
    return True


def _circle(model: ir.Model) -> Refusal:
    """Name the nodes of one circle, each a producer of the one before it."""
    for scope in scopes(model):
        done: set[ir.Node] = set()
        for start in scope.graph:
            path = {start: _producers(start)} if start not in done else {}
            while path:
                node = next(reversed(path))
                producer = next(path[node], None)
                if producer is None:
                    done.add(node)
                    del path[node]
                elif producer in path:
                    nodes = list(path)
                    circle = nodes[nodes.index(producer) :]
                    names = " <- ".join(name_node(each) for each in [*circle, producer])
                    return Refusal(name_node(producer), f"it depends on itself: {names}")
                elif producer not in done:
                    path[producer] = _producers(producer)
    raise AssertionError("a graph without a circle can be sorted")


def _producers(node: ir.Node) -> Iterator[ir.Node]:
    """Yield the nodes beside this one that it depends on, also from within its subgraphs."""
    pending = [node]
    while pending:
        each = pending.pop()
        for value in each.inputs:
            producer = None if value is None else value.producer()
            if producer is not None and producer.graph is node.graph:
                yield producer
        pending.extend(inner for graph in subgraphs(each) for inner in graph)
