"""Into what a model falls apart where a target takes some nodes and another runs the rest."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from vlmpass.ir_tools.graph.constants import constant_of
from vlmpass.ir_tools.graph.walk import subgraphs
from vlmpass.ir_tools.inspecting.macs import Macs, macs_of

__all__ = ["Partition", "partition"]


@dataclass(frozen=True)
class Partition:
    """How a model is split.

    Attributes:
        taken: Connected parts of the main graph that the target takes.
        fallen: Those that fall back.
        fallen_nodes: How many nodes fall back.
        share: The part of the multiply-accumulates that falls back, of those that can be counted
            with every open dimension at 1; None where there are none.
        weights: The most bytes of weights of a part that the target takes.
    """

    taken: int
    fallen: int
    fallen_nodes: int
    share: float | None
    weights: int


def partition(model: ir.Model, taken: Mapping[ir.Node, bool]) -> Partition:
    """Return how a model is split; nodes of subgraphs go with the node that holds them.

    Parts that depend on each other through the other side are apart, or they would form a circle.

    Args:
        model: Its main graph is looked at.
        taken: Which nodes the target takes.
    """
    levels = _levels(model.graph, taken)
    part = {node: node for node in levels}
    for node in levels:
        for each in _producers(node):
            if levels.get(each) == levels[node] and taken[each] == taken[node]:
                part[_root(part, each)] = _root(part, node)
    roots = {side: {_root(part, n) for n in part if taken[n] == side} for side in (True, False)}
    fallen = [node for node in part if not taken[node]]
    share, weights = _share(part, taken), _most_weights(part, taken)
    return Partition(len(roots[True]), len(roots[False]), len(fallen), share, weights)


def _levels(graph: ir.Graph, taken: Mapping[ir.Node, bool]) -> dict[ir.Node, int]:
    """Return how often a path to each node changes sides at least; as late as its users allow."""
    levels: dict[ir.Node, int] = {}
    for node in graph:
        known = [each for each in _producers(node) if each in levels]
        steps = (levels[each] + (taken[each] != taken[node]) for each in known)
        levels[node] = max(steps, default=0)
    for node in reversed(graph):
        users = [use.node for value in node.outputs for use in value.uses()]
        steps = (levels[e] - (taken[e] != taken[node]) for e in users if e in levels)
        levels[node] = min(steps, default=levels[node])
    return levels


def _producers(node: ir.Node) -> list[ir.Node]:
    found = (value.producer() for value in node.inputs if value is not None)
    return [each for each in found if each is not None]


def _root(part: dict[ir.Node, ir.Node], node: ir.Node) -> ir.Node:
    while part[node] is not node:
        part[node] = part[part[node]]
        node = part[node]
    return node


def _most_weights(part: dict[ir.Node, ir.Node], taken: Mapping[ir.Node, bool]) -> int:
    held: dict[ir.Node, dict[int, int]] = defaultdict(dict)
    for node in part:
        if taken[node]:
            held[_root(part, node)].update(_weights(node))
    return max((sum(each.values()) for each in held.values()), default=0)


def _weights(node: ir.Node) -> Iterator[tuple[int, int]]:
    """Yield the constants that a node and those inside it read, with their bytes."""
    for value in node.inputs:
        tensor = constant_of(value)
        if tensor is not None and tensor.dtype is not ir.DataType.STRING:
            yield id(value), tensor.nbytes
    for graph in subgraphs(node):
        for inner in graph:
            yield from _weights(inner)


def _share(nodes: Mapping[ir.Node, ir.Node], taken: Mapping[ir.Node, bool]) -> float | None:
    sides = {True: 0, False: 0}
    for node in nodes:
        macs = macs_of(node)
        if macs is not None:
            sides[taken[node]] += _number(macs)
    total = sum(sides.values())
    return sides[False] / total if total else None


def _number(macs: Macs) -> int:
    return sum(macs.terms.values())
