"""Which nodes must come before which, and circles of nodes that wait for each other."""

from __future__ import annotations

import onnx_ir as ir

from vlmpass.ir_tools.graph.clone import captured
from vlmpass.ir_tools.graph.walk import holds_graphs

__all__ = ["circle", "producers"]


def circle(graph: ir.Graph | ir.Function) -> list[ir.Node]:
    """Return the nodes of one circle, each a producer of the one before it; none if there is none.

    A node uses what its subgraphs use.
    """
    done: set[ir.Node] = set()
    for start in graph:
        path = {start: iter(producers(start))} if start not in done else {}
        while path:
            node = next(reversed(path))
            producer = next(path[node], None)
            if producer is None:
                done.add(node)
                del path[node]
            elif producer in path:
                nodes = list(path)
                return nodes[nodes.index(producer) :]
            elif producer not in done:
                path[producer] = iter(producers(producer))
    return []


def producers(node: ir.Node) -> list[ir.Node]:
    """Return the nodes beside this one that it depends on, also from within its subgraphs."""
    used = [*node.inputs, *(captured(node) if holds_graphs(node) else ())]
    makers = [None if value is None else value.producer() for value in used]
    beside = [each for each in makers if each is not None and each.graph is node.graph]
    return list(dict.fromkeys(beside))
