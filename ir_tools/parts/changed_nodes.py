"""Which nodes of a model are others than those of another one, by all that they say."""

from __future__ import annotations

from collections.abc import Hashable

import onnx_ir as ir

from vlmpass.ir_tools.graph.contents import elements_of, kind_of
from vlmpass.ir_tools.graph.walk import subgraphs
from vlmpass.ir_tools.weights import as_weight

__all__ = ["Signatures", "changed"]

_SMALL = 4096


class Signatures:
    """What is equal for equal nodes of two models: operator, names, attributes, weights.

    Args:
        model: Has the functions that its nodes call.
    """

    def __init__(self, model: ir.Model) -> None:
        self._functions = model.functions
        self._bodies: dict[ir.OperatorIdentifier, Hashable] = {}

    def of(self, node: ir.Node) -> Hashable:
        """Return a node's signature."""
        return (
            node.op_identifier(),
            tuple(self._operand(value) for value in node.inputs),
            tuple(value.name for value in node.outputs),
            tuple(sorted(self._attribute(each) for each in node.attributes.values())),
            tuple(self._graph(graph) for graph in subgraphs(node)),
            self._body(node.op_identifier()),
        )

    def _graph(self, graph: ir.Graph | ir.Function) -> Hashable:
        ends = (*graph.inputs, *graph.outputs)
        return tuple(self.of(node) for node in graph), tuple(value.name for value in ends)

    def _body(self, name: ir.OperatorIdentifier) -> Hashable:
        if name in self._functions and name not in self._bodies:
            self._bodies[name] = None  # one that calls itself
            self._bodies[name] = self._graph(self._functions[name])
        return self._bodies.get(name)

    def _operand(self, value: ir.Value | None) -> Hashable:
        if value is None:
            return None
        tensor = value.const_value if value.is_initializer() else None
        return value.name if tensor is None else (value.name, _content(tensor))

    def _attribute(self, attribute: ir.Attr) -> tuple[str, str]:
        if attribute.type == ir.AttributeType.TENSOR and not attribute.is_ref():
            return attribute.name, repr(_content(attribute.as_tensor()))
        graphs = attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
        return attribute.name, "" if graphs else str(attribute.value or attribute.ref_attr_name)


def _content(tensor: ir.TensorProtocol) -> Hashable:
    if tensor.dtype == ir.DataType.STRING:
        return tuple(tensor.numpy().ravel())
    small = tensor.nbytes <= _SMALL
    return kind_of(tensor), elements_of(tensor) if small else as_weight(tensor).expression


def changed(before: ir.Model, after: ir.Model) -> tuple[list[ir.Node], list[ir.Node]]:
    """Return the nodes of the main graph that only one of two models has, in graph order."""
    one, two = Signatures(before), Signatures(after)
    old = {node: one.of(node) for node in before.graph}
    new = {node: two.of(node) for node in after.graph}
    gone, come = {*old.values()} - {*new.values()}, {*new.values()} - {*old.values()}
    return [n for n, each in old.items() if each in gone], [
        n for n, each in new.items() if each in come
    ]
