"""Faults of names and order: a graph holds values, a file holds names, and both must agree.

A graph is sound if every name, read back, stands for the value that was meant. Names are visible
from the enclosing scopes, and never defined twice in sight of each other.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from vlmpass.ir_tools.check.fault import fault
from vlmpass.ir_tools.errors import CheckError
from vlmpass.ir_tools.graph.describe import describe_type, name_node
from vlmpass.ir_tools.graph.order import circle
from vlmpass.ir_tools.graph.walk import all_nodes, scopes, subgraphs
from vlmpass.ir_tools.operators.schema import needed_inputs
from vlmpass.ir_tools.system.listed import listed

__all__ = ["check_structure", "refuse_cycles", "refuse_lacking"]

_RENAME = "run fix-names"
_SORT = "run topological-sort"
_CIRCLE = 4  # nodes of a circle that are named
_INFERRED = "declare it, for converting infers it where it can"


def check_structure(model: ir.Model) -> None:
    """Check names, order and opset imports of the graph, its subgraphs and the functions.

    Raises:
        CheckError: The first fault.
    """
    _Names(model.graph, "the graph").scope(model.graph, "the graph", top=True)
    for kind, values in (("input", model.graph.inputs), ("output", model.graph.outputs)):
        for value in values:
            if value.type is None:
                remedy = _INFERRED if kind == "output" else "declare it"
                raise CheckError(f"{kind} '{value.name}' has no type", remedy=remedy)
            if isinstance(value.type, ir.TensorType) and value.shape is None:
                reason = f"{kind} '{value.name}' has no shape, not even a rank"
                remedy = _INFERRED if kind == "output" else "declare it"
                raise CheckError(reason, remedy=remedy)
    for (domain, name, _), function in model.functions.items():
        where = f"function {domain}::{name}"
        if function.graph.initializers:
            raise CheckError(f"{where} holds initializers, which no file can store")
        _Names(function, where).scope(function.graph, where, top=True)


def refuse_cycles(model: ir.Model) -> None:
    """Refuse a model that no order of its nodes computes.

    Raises:
        CheckError: A graph or function has a cycle; its nodes are named.
    """
    for scope in scopes(model):
        if nodes := circle(scope.graph):
            raise _cycle(nodes)


def refuse_lacking(model: ir.Model) -> None:
    """Refuse nodes that lack inputs of every version of their operator, or outputs of their graphs.

    Raises:
        CheckError: A node lacks something.
    """
    for node in all_nodes(model):
        needed = needed_inputs(node.op_type) if node.domain == "" else 0
        given = [value is not None for value in node.inputs[:needed]]
        if given.count(True) < needed and node.op_identifier() not in model.functions:
            lacking = "input" if needed == 1 else "inputs"
            raise fault(node, f"{node.op_type} takes {needed} {lacking}, none of them left out")
        if _bodies_lack(node):
            raise fault(node, "its inputs and outputs are not as many as its graphs have")


def _bodies_lack(node: ir.Node) -> bool:
    """Whether a graph that a node runs takes or gives less than the node hands in and out."""
    if (node.domain, node.op_type) == ("", "If"):
        return any(len(graph.outputs) < len(node.outputs) for graph in subgraphs(node))
    if (node.domain, node.op_type) != ("", "Loop"):
        return False
    body = next(subgraphs(node), None)
    taken, given = (0, 0) if body is None else (len(body.inputs), len(body.outputs))
    return taken < len(node.inputs) or given < max(len(node.inputs) - 1, len(node.outputs) + 1)


def _cycle(nodes: Sequence[ir.Node]) -> CheckError:
    names = listed((name_node(each) for each in reversed(nodes)), _CIRCLE)
    reason = f"the graph has a cycle through {names}"
    return CheckError(reason, remedy="export it again: no order of its nodes computes it")


class _Names:
    """Walks a graph or function with the table of the names in sight."""

    def __init__(self, owner: ir.Graph | ir.Function, owner_name: str) -> None:
        self.owner = owner
        self.owner_name = owner_name
        self.visible: dict[str, ir.Value] = {}
        self.around: list[ir.Graph] = []

    def scope(self, graph: ir.Graph, where: str, *, top: bool) -> None:
        """Check one graph; its names are out of sight again at the end."""
        local: list[str] = []
        self.around.append(graph)
        for value in graph.inputs:
            self.define(value, local, f"input '{value.name}' of {where}")
        for value in graph.initializers.values():
            _check_initializer(value, where)
            if self.visible.get(value.name or "") is not value:
                self.define(value, local, f"initializer '{value.name}' of {where}")
        taken: set[str] = set()
        visible = self.visible
        for node in graph:
            if node.name and node.name in taken:
                raise fault(node, "another node beside it has the same name", _RENAME)
            taken.add(node.name or "")
            self.node(node)
            for index, value in enumerate(node.outputs):
                name = value.name
                if name and name not in visible:
                    visible[name] = value
                    local.append(name)
                else:
                    self.nameless_or_taken(node, index, value)
        self.graph_outputs(graph, where, local, top=top)
        for name in local:
            del self.visible[name]
        self.around.pop()

    def define(self, value: ir.Value, local: list[str], what: str) -> None:
        if not value.name:
            raise CheckError(f"{what} has no name", remedy=_RENAME)
        if value.name in self.visible:
            raise CheckError(f"{what} has the name of another value in sight", remedy=_RENAME)
        self.visible[value.name] = value
        local.append(value.name)

    def node(self, node: ir.Node) -> None:
        if node.domain not in self.owner.opset_imports:
            domain = node.domain or "ai.onnx"
            raise fault(node, f"{self.owner_name} imports no opset of its domain '{domain}'")
        visible = self.visible
        for index, value in enumerate(node.inputs):
            if value is not None and visible.get(value.name or "") is not value:
                raise self.unseen(node, index, value)
        attributes = node.attributes.data
        if attributes:
            for attribute in attributes.values():
                if attribute.is_ref() and isinstance(self.owner, ir.Graph):
                    reason = f"attribute '{attribute.name}' refers to one of a function, outside of"
                    raise fault(node, f"{reason} any")
            for graph in subgraphs(node):
                self.scope(graph, f"a subgraph of {name_node(node)}", top=False)

    def unseen(self, node: ir.Node, index: int, value: ir.Value) -> CheckError:
        """Say why the value is not the one that its name stands for at this node."""
        what = f"input {index}, '{value.name}'"
        if not value.name:
            return fault(node, f"input {index} has no name", _RENAME)
        if value.name in self.visible:
            reason = f"{what}, is not the value of that name which is visible here"
            return fault(node, reason, _RENAME)
        producer = value.producer()
        if producer is not None and any(producer.graph is graph for graph in self.around):
            return self.out_of_order(node, what, producer)
        return fault(node, f"{what}, is made by nothing that is visible here")

    def out_of_order(self, node: ir.Node, what: str, producer: ir.Node) -> CheckError:
        nodes = circle(self.owner if producer.graph is self.around[0] else self.around[-1])
        if not nodes:
            return fault(node, f"{what}, is made later, by {name_node(producer)}", _SORT)
        return _cycle(nodes)

    def nameless_or_taken(self, node: ir.Node, index: int, value: ir.Value) -> None:
        """Refuse an output without a name that is used, and one of a name that is taken."""
        if value.name:
            reason = f"output {index}, '{value.name}', has the name of another value in sight"
            raise fault(node, reason, _RENAME)
        if value.uses() or value.is_graph_output():
            raise fault(node, f"output {index} is used and has no name", _RENAME)

    def graph_outputs(self, graph: ir.Graph, where: str, local: list[str], *, top: bool) -> None:
        own = set(local)
        for value in graph.outputs:
            what = f"output '{value.name}' of {where}"
            if self.visible.get(value.name or "") is not value:
                raise CheckError(f"{what} is made by nothing in it")
            if not top and value.name not in own:
                raise CheckError(
                    f"{what} is a value from outside", remedy="put an Identity between"
                )
            if isinstance(self.owner, ir.Function) and top and value.producer() is None:
                raise CheckError(f"{what} is one of its inputs", remedy="put an Identity between")


def _check_initializer(value: ir.Value, where: str) -> None:
    tensor = value.const_value
    what = f"initializer '{value.name}' of {where}"
    if tensor is None:
        raise CheckError(f"{what} has no data")
    dims = tensor.shape.numpy()
    if (value.dtype not in (None, tensor.dtype)) or not _fits(value.shape, dims):
        held = f"{tensor.dtype.name.lower()}[{','.join(map(str, dims))}]"
        raise CheckError(f"{what} is declared {describe_type(value)} but holds {held}")


def _fits(shape: ir.Shape | None, dims: Sequence[int]) -> bool:
    if shape is None:
        return True
    if len(shape) != len(dims):
        return False
    return all(not isinstance(a, int) or a == b for a, b in zip(shape, dims, strict=True))
