"""The pass cse: what is computed twice from the same values is computed once."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import ClassVar

import onnx_ir as ir

from vlmpass.ir_tools.evaluate.determinism import Determinism
from vlmpass.ir_tools.graph.contents import elements_of, kind_of
from vlmpass.ir_tools.graph.edit import is_used, remove_dead, replace_value
from vlmpass.ir_tools.graph.limit import may_apply
from vlmpass.ir_tools.graph.walk import Scope, subgraphs
from vlmpass.ir_tools.operators import commutes
from vlmpass.ir_tools.shapes import constant_of
from vlmpass.ir_tools.system.collector import without_collector
from vlmpass.passes.pipeline.base import Pass

__all__ = ["CommonSubexpressions"]

_SMALL = 1024
_LISTS = (ir.AttributeType.INTS, ir.AttributeType.FLOATS, ir.AttributeType.STRINGS)


@dataclass(frozen=True)
class CommonSubexpressions(Pass):
    """Compute equal nodes once: same operator, attributes and inputs, small constants by content.

    Random operators and operators of unknown domains are left alone. A subgraph uses what the
    graphs around it have computed; graph outputs keep their names.
    """

    name: ClassVar[str] = "cse"
    nothing: ClassVar[str] = "no two nodes compute the same"
    keeps_values: ClassVar[bool] = True

    @without_collector
    def run(self, model: ir.Model) -> bool:
        """Look through the main graph, its subgraphs and the functions."""
        work = _Work(model.ir_version, Determinism(model))
        owners: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
        for owner in owners:
            work.scope(Scope(owner, owner, 0))
        remove_dead(work.replaced)
        return bool(work.replaced)


@dataclass
class _Work:
    """One run over a model.

    Attributes:
        tables: First nodes by what they compute, for every graph around the one being visited.
        numbers: A number for every distinct input, so that keys stay short.
        known: These numbers by value.
        replaced: Nodes nobody needs any more.
    """

    ir_version: int
    determinism: Determinism
    tables: list[dict[Hashable, ir.Node]] = field(default_factory=list)
    numbers: dict[Hashable, int] = field(default_factory=dict)
    known: dict[ir.Value, int] = field(default_factory=dict)
    replaced: list[ir.Node] = field(default_factory=list)

    def scope(self, scope: Scope) -> None:
        del self.tables[scope.depth :]
        self.tables.append({})
        for node in scope.graph:
            if self.determinism.holds(node):
                self.node(node)
                continue
            for graph in subgraphs(node):
                self.scope(Scope(graph, scope.owner, scope.depth + 1))
                del self.tables[scope.depth + 1 :]

    def node(self, node: ir.Node) -> None:
        key = self.key(node)
        if key is None:
            return
        for table in self.tables:
            first = table.get(key)
            if first is not None and self.replace(node, first):
                return
        self.tables[-1].setdefault(key, node)

    def key(self, node: ir.Node) -> Hashable | None:
        data = node.attributes.data
        attributes = tuple((name, _hashable(each)) for name, each in sorted(data.items()))
        inputs = [self.number(value) for value in node.inputs]
        while inputs and inputs[-1] == -1:
            inputs.pop()
        if len(inputs) == 2 and commutes(node.domain, node.op_type):
            inputs.sort()
        operator = node.domain, node.op_type, node.overload, len(node.outputs)
        return (*operator, attributes, tuple(inputs))

    def number(self, value: ir.Value | None) -> int:
        if value is None:
            return -1
        known = self.known.get(value)
        if known is None:
            known = self.known[value] = self.new_number(value)
        return known

    def new_number(self, value: ir.Value) -> int:
        key: Hashable = value
        tensor = constant_of(value, self.ir_version)
        if tensor is not None and tensor.nbytes <= _SMALL and tensor.dtype != ir.DataType.STRING:
            key = _content(tensor)
        return self.numbers.setdefault(key, len(self.numbers))

    def replace(self, node: ir.Node, first: ir.Node) -> bool:
        """Let the outputs of the first node stand for those of a later one, if they can."""
        outputs = zip(node.outputs, first.outputs, strict=True)
        pairs = [(old, new) for old, new in outputs if is_used(old) or new.name]
        for old, new in pairs:
            apart = first.graph is not node.graph or new.is_graph_output()
            if _must_be_named_as(old, new) and apart:
                return False
        if not may_apply("cse", node.name or node.op_type):
            return True
        for old, new in pairs:
            replace_value(old, new, fresh=not new.name)
        self.replaced.append(node)
        return True


def _must_be_named_as(old: ir.Value, new: ir.Value) -> bool:
    """Whether a stand-in takes the name: of a graph output, or as it was left out until now."""
    return old.is_graph_output() or not new.name


def _content(tensor: ir.TensorProtocol) -> Hashable:
    return kind_of(tensor), elements_of(tensor)


def _hashable(attribute: ir.Attr) -> Hashable:
    if attribute.is_ref():
        return "ref", attribute.ref_attr_name
    value = attribute.value
    if attribute.type == ir.AttributeType.TENSOR:
        plain = value.nbytes <= _SMALL and value.dtype != ir.DataType.STRING
        return _content(value) if plain else id(value)
    if attribute.type in _LISTS:
        value = tuple(value)
    elif not isinstance(value, (str, bytes, int, float)):
        return id(value)
    return attribute.type.value, repr(value)
