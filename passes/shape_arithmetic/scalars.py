"""Sizes taken out of vectors one by one, computed with, and put back: kept as vectors throughout.

Both PyTorch exporters write `Reshape(Add(Squeeze(a), Squeeze(b)), [-1])` for `Add(a, b)`. Nodes on
scalars that feed each other are changed together, and only where fewer nodes are left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.graph.constants import constant_of
from vlmpass.ir_tools.graph.edit import add_constant, may_add_integers, remove_dead, replace_value
from vlmpass.ir_tools.graph.names import Names
from vlmpass.ir_tools.graph.walk import Scope
from vlmpass.ir_tools.operators import Kind, broadcasting, named
from vlmpass.ir_tools.shapes.analysis import Facts
from vlmpass.ir_tools.shapes.known import Known

__all__ = ["Scalars"]

_Group = dict[ir.Node, None]


@dataclass
class Scalars:
    """Turns arithmetic on scalars into arithmetic on vectors of one number.

    Attributes:
        facts: Filled in for the whole model.
        names: Asked for when the first new name is needed.
        ir_version: Of the model.
        may: Whether a change at a node is allowed; asked once for each group.
    """

    facts: Facts
    names: Callable[[], Names]
    ir_version: int
    may: Callable[[ir.Node], bool]

    def rewrite(self, scope: Scope) -> bool:
        """Change what pays in the nodes of one graph; True if anything did."""
        if scope.opsets.get("", scope.opsets.get("ai.onnx", 1)) < 7:
            return False  # operands broadcast by an attribute there
        if not may_add_integers(scope, self.ir_version):
            return False
        changed = False
        for group in _groups(self._members(scope.graph)):
            if self._gain(group) > 0 and self.may(next(iter(group))):
                _Writer(self, scope, group).write()
                changed = True
        return changed

    def _members(self, graph: Iterable[ir.Node]) -> _Group:
        """Return nodes that compute a scalar from constants, from vectors and from each other."""
        found: _Group = {}
        for node in graph:
            if node.domain not in ("", "ai.onnx") or not _by_element(node):
                continue
            if self.facts[node.outputs[0]].shape != ():
                continue
            taken = [
                self.source(x) or (x is not None and x.producer() in found) for x in node.inputs
            ]
            if all(taken) and any(x is not None and x.producer() for x in node.inputs):
                found[node] = None
        return found

    def source(self, value: ir.Value | None) -> str:
        """Say what a scalar comes from that has a vector instead; nothing if there is none."""
        if value is None or self.facts[value].shape != ():
            return ""
        if constant_of(value, self.ir_version) is not None:
            return "Constant"
        node = value.producer()
        if node is None or node.domain not in ("", "ai.onnx") or not node.inputs:
            return ""
        before = self.facts[node.inputs[0]].shape
        if node.op_type == "Squeeze" and before == (1,):
            return "Squeeze"
        vector = before is not None and len(before) == 1
        index = node.inputs[1] if node.op_type == "Gather" else None
        known = index is not None and constant_of(index, self.ir_version) is not None
        return "Gather" if vector and known else ""

    def puts_back(self, node: ir.Node, value: ir.Value) -> bool:
        """Whether all that a node does is to make a scalar a vector, so that it may go."""
        if node.op_type not in ("Unsqueeze", "Reshape") or node.domain not in ("", "ai.onnx"):
            return False
        if node.inputs[0] is not value:
            return False
        (result,) = node.outputs
        return self.facts[result].shape == (1,) and not result.is_graph_output()

    def _gain(self, group: _Group) -> int:
        """Return how many nodes fewer there would be."""
        gain = 0
        sources: dict[ir.Value, None] = {}
        for node in group:
            sources.update(dict.fromkeys(x for x in node.inputs if x is not None))
            (result,) = node.outputs
            outside = [use.node for use in result.uses() if use.node not in group]
            back = [user for user in outside if self.puts_back(user, result)]
            gain += len(back) - (len(back) < len(outside) or result.is_graph_output())
        for value in sources:
            how = self.source(value)
            freed = not value.is_graph_output() and all(use.node in group for use in value.uses())
            gain += {"Squeeze": int(freed), "Gather": int(freed) - 1}.get(how, 0)
        return gain


def _by_element(node: ir.Node) -> bool:
    """Whether a node computes the same of vectors of one number as of scalars."""
    alone = len(node.inputs) == 1 and node.op_type in named(Kind.ELEMENTWISE, Kind.CAST)
    return alone or node.op_type in broadcasting() & named(Kind.ELEMENTWISE)


def _groups(members: _Group) -> Iterator[_Group]:
    """Yield the members that feed each other together, in their order."""
    place = {node: at for at, node in enumerate(members)}
    seen: set[ir.Node] = set()
    for node in members:
        if node in seen:
            continue
        group, pending = {node}, [node]
        while pending:
            each = pending.pop()
            users = [use.node for output in each.outputs for use in output.uses()]
            makers = [x.producer() for x in each.inputs if x is not None]
            near = [x for x in (*users, *makers) if x in place and x not in group]
            group.update(x for x in near if x is not None)
            pending.extend(x for x in near if x is not None)
        seen |= group
        yield dict.fromkeys(sorted(group, key=place.__getitem__))


@dataclass
class _Writer:
    """Writes one group."""

    scalars: Scalars
    scope: Scope
    group: _Group
    vectors: dict[ir.Value, ir.Value] = field(default_factory=dict)

    def write(self) -> None:
        dead: list[ir.Node] = []
        for node in self.group:
            inputs = [None if x is None else self.vector(x, node) for x in node.inputs]
            (old,) = node.outputs
            new = self.vectors[old] = self.node(node.op_type, inputs, node, old)
            users = [use.node for use in old.uses() if use.node not in self.group]
            back = [user for user in users if self.scalars.puts_back(user, old)]
            for user in back:
                user.outputs[0].replace_all_uses_with(new)
            dead += [node, *back]
            if len(back) < len(users) or old.is_graph_output():
                replace_value(old, self.node("Squeeze", [new], node, old), fresh=True)
        remove_dead(dead)

    def vector(self, value: ir.Value, anchor: ir.Node) -> ir.Value:
        """Return a scalar as a vector."""
        if value not in self.vectors:
            self.vectors[value] = self._vector(value, anchor)
        return self.vectors[value]

    def _vector(self, value: ir.Value, anchor: ir.Node) -> ir.Value:
        tensor = constant_of(value, self.scalars.ir_version)
        if tensor is not None:
            return self.constant(tensor, value, anchor)
        node = value.producer()
        assert node is not None
        source = node.inputs[0]
        assert source is not None
        if node.op_type == "Squeeze":
            return source
        index = node.inputs[1]
        assert index is not None
        place = constant_of(index, self.scalars.ir_version)
        assert place is not None
        # In the graph of the Gather, which may be one around this.
        return self.node("Gather", [source, self.constant(place, index, node)], node, value)

    def constant(self, tensor: ir.TensorProtocol, value: ir.Value, anchor: ir.Node) -> ir.Value:
        as_node = self.scope.in_function or self.scalars.ir_version < 4
        name = self.scalars.names().value(f"{value.name}/vector")
        array = np.asarray(tensor.numpy()).reshape(1)
        made = add_constant(ir.Tensor(array, dtype=tensor.dtype), anchor, name, as_node=as_node)
        if as_node:
            self.scalars.facts[made] = self.scalars.facts.of_tensor(tensor)._replace(shape=(1,))
        return made

    def node(
        self, op_type: str, inputs: list[ir.Value | None], like: ir.Node, old: ir.Value
    ) -> ir.Value:
        """Put a node before another, for the same number as an old value."""
        graph, names, facts = like.graph, self.scalars.names(), self.scalars.facts
        assert graph is not None
        squeezed = op_type == "Squeeze"
        attributes = () if squeezed else like.attributes.values()
        node = ir.Node("", op_type, inputs, attributes, num_outputs=1)
        node.name = names.node(f"{like.name or op_type}/{'scalar' if squeezed else 'vector'}")
        node.metadata_props.update(like.metadata_props)
        (value,) = node.outputs
        value.name = names.value(f"{node.name}_output")
        shape = () if squeezed else (1,)
        dtype = facts.dtype(old)
        value.type = None if dtype is None else ir.TensorType(dtype)
        value.shape = ir.Shape(shape)
        facts[value] = Known(shape, facts[old].elements)
        graph.insert_before(like, node)
        return value
