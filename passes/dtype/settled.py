"""Islands that an earlier conversion to half precision left: a second one leaves them as they are.

What a first run kept in float32, by measuring or by a pattern that its own Casts break up since, a
second may not find again. An island is what lies between Casts that we made, all of them.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping

import onnx_ir as ir

from vlmpass.ir_tools.graph.constants import constant_of
from vlmpass.ir_tools.graph.names import Names
from vlmpass.ir_tools.graph.walk import Scope, scopes, subgraphs
from vlmpass.ir_tools.types.cast_nodes import is_made, mark
from vlmpass.ir_tools.types.typing import Typing

__all__ = ["settle", "settled"]

_REASON = "an earlier conversion kept it"
_FLOAT = ir.DataType.FLOAT


def settled(
    model: ir.Model, typing: Typing, half: ir.DataType, *, keep_io: bool
) -> dict[ir.Node, str]:
    """Return the nodes of islands that were left in float32, with the reason.

    Args:
        model: The model.
        typing: Its types.
        half: The half precision around the islands.
        keep_io: Whether inputs and outputs of the graph may be part of an island.
    """
    found: dict[ir.Node, str] = {}
    users = _Users()
    for scope in scopes(model):
        open_ends = keep_io and scope.graph is model.graph
        for island in _Regions(scope, typing, half, model.functions, users).run():
            if island.is_closed(open_ends):
                found.update(dict.fromkeys(island.nodes, _REASON))
    return found


def settle(model: ir.Model, typing: Typing, half: ir.DataType, kept: Mapping[ir.Node, str]) -> None:
    """Mark the source's own Casts at the ends of islands, so that `settled` finds them closed.

    Args:
        model: As a conversion leaves it.
        typing: Its types.
        half: The half precision around the islands.
        kept: The nodes of islands, with the reason.
    """
    names = Names.of(model)
    for node in kept:
        around = [value.producer() for value in node.inputs if value is not None]
        around += [user for value in node.outputs for user, _ in value.uses()]
        for each in around:
            if each is not None and is_edge(each, typing, half) and not is_made(each):
                mark(each, names, kept[node])


def is_edge(node: ir.Node, typing: Typing, half: ir.DataType) -> bool:
    """Whether a node casts between a half precision and float32."""
    if (node.domain, node.op_type) != ("", "Cast") or node.inputs[0] is None:
        return False
    return {typing.dtype(node.inputs[0]), typing.dtype(node.outputs[0])} == {half, _FLOAT}


class _Region:
    """Nodes that hand float32 values to each other, and where they end."""

    def __init__(self) -> None:
        self.nodes: list[ir.Node] = []
        self.made = 0
        self.foreign = False
        self.reaches_border = False

    def is_closed(self, open_ends: bool) -> bool:
        ends = open_ends or not self.reaches_border
        return self.made > 0 and not self.foreign and ends


class _Users:
    """What takes values, by graph; once each, as what thousands share would be asked by each."""

    def __init__(self) -> None:
        self._left: dict[ir.Value, dict[object, list[ir.Node]]] = {}

    def take(self, value: ir.Value, graph: object) -> list[ir.Node]:
        """Return the nodes of a graph that take a value, the first time; none after that."""
        if value not in self._left:
            left = self._left[value] = {}
            for user, _ in value.uses():
                left.setdefault(user.graph, []).append(user)
        return self._left[value].pop(graph, [])


class _Regions:
    """The regions of one graph."""

    def __init__(
        self,
        scope: Scope,
        typing: Typing,
        half: ir.DataType,
        functions: Container[ir.OperatorIdentifier],
        users: _Users,
    ) -> None:
        self._typing = typing
        self._users = users
        self._functions = functions
        self._half = half
        self._nodes = list(scope.graph)
        self._seen: set[ir.Node] = set()

    def run(self) -> Iterator[_Region]:
        for node in self._nodes:
            if node not in self._seen and not self._is_edge(node) and self._is_wide(node):
                yield self._grow(node)

    def _grow(self, start: ir.Node) -> _Region:
        region, waiting = _Region(), [start]
        self._seen.add(start)
        while waiting:
            node = waiting.pop()
            region.nodes.append(node)
            region.foreign |= self._is_shell(node)
            for near in self._near(node, region):
                if self._is_edge(near):
                    region.made += is_made(near)
                    region.foreign |= not is_made(near)
                elif near not in self._seen:
                    self._seen.add(near)
                    waiting.append(near)
        return region

    def _near(self, node: ir.Node, region: _Region) -> Iterator[ir.Node]:
        """Yield the nodes at the other ends of a node's float32 values; of a value once."""
        for value in filter(None, (*node.inputs, *node.outputs)):
            if self._typing.dtype(value) != _FLOAT or constant_of(value) is not None:
                continue
            producer = value.producer()
            region.reaches_border |= producer is None or value.is_graph_output()
            users = self._users.take(value, node.graph)
            yield from (each for each in (producer, *users) if each not in (None, node) and each)

    def _is_shell(self, node: ir.Node) -> bool:
        """Whether a node is what its subgraphs or its function make of it."""
        return node.op_identifier() in self._functions or any(True for _ in subgraphs(node))

    def _is_edge(self, node: ir.Node) -> bool:
        return is_edge(node, self._typing, self._half)

    def _is_wide(self, node: ir.Node) -> bool:
        values = filter(None, (*node.inputs, *node.outputs))
        return any(self._typing.dtype(v) == _FLOAT and constant_of(v) is None for v in values)
