"""Bringing the nodes of a subgraph out into the graph around it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import onnx_ir as ir

from vlmpass.ir_tools.graph.edit import add_constant, remove_dead, replace_value
from vlmpass.ir_tools.graph.names import Names
from vlmpass.ir_tools.graph.walk import all_nodes, all_values, subgraphs

__all__ = ["Inliner", "takes_scalars"]


def takes_scalars(body: ir.Graph) -> bool:
    """Whether a Loop's body takes number and condition as scalars.

    ONNX Runtime hands vectors of one to a body that declares them so.
    """
    return all(not value.shape for value in body.inputs[:2])


class Inliner:
    """Brings subgraphs of one model out, keeping every name unique.

    Branches may use the same names; a name that is used anywhere else gets a number.

    Args:
        model: The model; it is read once, and only edited through this object from then on.
    """

    def __init__(self, model: ir.Model) -> None:
        self._names = Names.of(model)
        self._old_format = model.ir_version < 4
        self._values = Counter(value.name for value in all_values(model))
        self._nodes = Counter(node.name for node in all_nodes(model))

    def inline(
        self,
        node: ir.Node,
        graph: ir.Graph,
        inputs: Mapping[ir.Value, ir.Value],
        results: Sequence[ir.Value | None],
        *,
        in_function: bool,
    ) -> None:
        """Replace a node by the nodes of one of its subgraphs.

        Args:
            node: The node, such as an If; its other subgraphs are dropped.
            graph: One of its subgraphs.
            inputs: What stands for each input of the subgraph.
            results: For each output of the node the value of the subgraph, or of a graph around it,
                that stands for it; None for one that nobody uses.
            in_function: Whether the node lies in a function, where constants are nodes.
        """
        for other in subgraphs(node):
            if other is not graph:
                self._forget(other)
        graph.outputs.clear()
        for inner, outer in inputs.items():
            inner.replace_all_uses_with(outer)
        moved = list(graph)
        graph.remove(moved)
        target = node.graph
        assert target is not None
        self._move_initializers(graph, node, in_function)
        target.insert_before(node, moved)
        for each in moved:
            self._rename(each)
        self._hand_over(node, results)
        remove_dead(moved)

    def drop(self, node: ir.Node, results: Sequence[ir.Value | None]) -> None:
        """Replace a node by values around it, and drop its subgraphs; arguments as `inline`."""
        for graph in subgraphs(node):
            self._forget(graph)
        self._hand_over(node, results)

    def name(self, hint: str) -> str:
        """Return a fresh name for a value or node."""
        name = self._names.value(hint)
        self._values[name] += 1
        return name

    def _hand_over(self, node: ir.Node, results: Sequence[ir.Value | None]) -> None:
        def copy(value: ir.Value) -> ir.Value:
            identity = ir.Node("", "Identity", [value], num_outputs=1, name=node.name)
            assert node.graph is not None
            node.graph.insert_before(node, identity)
            return identity.outputs[0]

        for old, new in zip(node.outputs, results, strict=False):
            if new is not None:
                replace_value(old, new, fresh=False, copy=copy)
        remove_dead([node])

    def _forget(self, graph: ir.Graph) -> None:
        """Free the names of a subgraph that goes away."""
        for node in graph.all_nodes():
            self._nodes[node.name] -= 1
            self._values.subtract(value.name for value in node.outputs)
            for inner in subgraphs(node):
                self._values.subtract(list(inner.initializers))
        self._values.subtract(list(graph.initializers))

    def _rename(self, node: ir.Node) -> None:
        if self._nodes[node.name] > 1 and node.name:
            self._nodes[node.name] -= 1
            node.name = self._names.node(node.name)
            self._nodes[node.name] += 1
        for value in node.outputs:
            self._rename_value(value)

    def _rename_value(self, value: ir.Value) -> None:
        if value.name and self._values[value.name] > 1:
            self._values[value.name] -= 1
            value.name = self._names.value(value.name)
            self._values[value.name] += 1

    def _move_initializers(self, graph: ir.Graph, node: ir.Node, in_function: bool) -> None:
        target = node.graph
        assert target is not None
        for name, value in list(graph.initializers.items()):
            del graph.initializers[name]
            self._rename_value(value)
            tensor = value.const_value
            if in_function or self._old_format:
                assert tensor is not None
                constant = add_constant(tensor, node, value.name or "", as_node=True)
                value.replace_all_uses_with(constant)
            else:
                target.register_initializer(value)
