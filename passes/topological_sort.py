"""Producers before users, in every graph."""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from vlmpass.ir_tools.errors import Refusal, Refused
from vlmpass.ir_tools.graph.describe import name_node
from vlmpass.ir_tools.graph.order import circle, producers
from vlmpass.ir_tools.graph.walk import scopes
from vlmpass.passes.pipeline.base import Pass

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
        orders = [(scope.graph, _sorted(scope.graph)) for scope in scopes(model)]
        circles = [_refusal(circle(graph)) for graph, order in orders if len(order) < len(graph)]
        if circles:
            raise Refused(str(self), circles)
        changed = False
        for graph, order in orders:
            if order != list(graph):
                graph.extend(order)
                changed = True
        return changed


def _sorted(graph: ir.Graph | ir.Function) -> list[ir.Node]:
    """Return the nodes, producers first; those before a circle are left out.

    From the end on, the last node that nobody waits for is taken: what can stay stays.
    """
    nodes = list(graph)
    places = {node: place for place, node in enumerate(nodes)}
    waits = [[places[each] for each in producers(node)] for node in nodes]
    users = Counter(place for each in waits for place in each)
    ready = [-place for place in range(len(nodes)) if not users[place]]
    heapq.heapify(ready)
    order = []
    while ready:
        place = -heapq.heappop(ready)
        order.append(nodes[place])
        for producer in waits[place]:
            users[producer] -= 1
            if not users[producer]:
                heapq.heappush(ready, -producer)
    return order[::-1]


def _refusal(nodes: list[ir.Node]) -> Refusal:
    names = " <- ".join(name_node(each) for each in [*nodes, nodes[0]])
    return Refusal(name_node(nodes[0]), f"it depends on itself: {names}")
