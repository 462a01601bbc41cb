"""Nodes taken out of graphs many at a time: each call of onnx_ir goes over all outputs of one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import onnx_ir as ir

__all__ = ["Removals"]

_MANY = 512


class Removals:
    """Nodes that are off all values and not yet out of their graphs."""

    def __init__(self) -> None:
        self._waiting: dict[ir.Node, ir.Graph] = {}

    def __contains__(self, node: object) -> bool:
        return node in self._waiting

    def remove(self, graph: ir.Graph, nodes: Sequence[ir.Node]) -> None:
        """Take nodes off what they use, and out of their graph at some time.

        Args:
            graph: The graph of all of them.
            nodes: That nothing else uses.

        Raises:
            ValueError: Something else uses one, or it is an output of a graph.
        """
        going = frozenset(nodes)
        for node in nodes:
            for output in node.outputs:
                if output.is_graph_output() or any(u.node not in going for u in output.uses()):
                    raise ValueError(f"node '{node.name}' is still in use")
        for node in nodes:
            for index in range(len(node.inputs)):
                node.replace_input_with(index, None)
        self.wait(graph, nodes)

    def wait(self, graph: ir.Graph, nodes: Iterable[ir.Node]) -> None:
        """Take nodes that are off all values out of their graph at some time."""
        self._waiting.update((node, graph) for node in nodes)
        if len(self._waiting) >= _MANY:
            self.finish()

    def finish(self) -> None:
        """Take out of their graphs all that wait for it."""
        by_graph: dict[ir.Graph, list[ir.Node]] = {}
        for node, graph in self._waiting.items():
            by_graph.setdefault(graph, []).append(node)
        self._waiting.clear()
        for graph, nodes in by_graph.items():
            graph.remove(nodes)
