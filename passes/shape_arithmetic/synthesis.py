"""Shape vectors computed with fewer nodes: parts of one Shape, vectors at hand, and constants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from vlmpass.ir_tools.graph.walk import needed_among
from vlmpass.ir_tools.shapes.algebra import Dim
from vlmpass.ir_tools.shapes.analysis import Facts
from vlmpass.ir_tools.shapes.lower import Lowering

__all__ = ["Part", "cost_of", "plan", "private_nodes", "still_needed", "vectors_among", "write"]


@dataclass(frozen=True)
class Part:
    """Neighbouring elements of a shape vector.

    Attributes:
        dims: The elements.
        value: The value whose axes from `start` they are, or the vector; None for constants.
        start: The first of these axes.
        whole: Whether they are all its axes.
        vector: Whether they are the elements of the value itself.
    """

    dims: tuple[Dim, ...]
    value: ir.Value | None = None
    start: int = 0
    whole: bool = False
    vector: bool = False


def plan(
    target: Sequence[Dim],
    sources: Sequence[ir.Value],
    facts: Facts,
    vectors: Sequence[ir.Value] = (),
) -> list[Part] | None:
    """Cut a shape vector into parts of the sources' shapes, whole other vectors and constants.

    Args:
        target: Elements of the shape vector.
        sources: Values whose axes may be read.
        facts: What is known about all of them.
        vectors: int64 vectors whose elements may be taken.

    Returns:
        The parts, None if an element is none of these.
    """
    parts: list[Part] = []
    index = 0
    while index < len(target):
        if isinstance(target[index], int):
            stop = index + 1
            while stop < len(target) and isinstance(target[stop], int):
                stop += 1
            parts.append(Part(tuple(target[index:stop])))
        else:
            found = [_vector(target[index:], vector, facts) for vector in vectors]
            found += [_longest(target[index:], source, facts) for source in sources]
            best = max(found, key=lambda part: len(part.dims), default=None)
            if best is None or not best.dims:
                return None
            parts.append(best)
            stop = index + len(best.dims)
        index = stop
    return parts


def _vector(target: Sequence[Dim], vector: ir.Value, facts: Facts) -> Part:
    elements = facts[vector].elements or ()
    fits = tuple(target[: len(elements)]) == elements
    return Part(elements if fits else (), vector, vector=True)


def _longest(target: Sequence[Dim], source: ir.Value, facts: Facts) -> Part:
    shape = facts[source].shape or ()
    best = Part((), source)
    for start in range(len(shape)):
        length = 0
        while (
            length < len(target)
            and start + length < len(shape)
            and shape[start + length] == target[length]
        ):
            length += 1
        if length > len(best.dims):
            whole = start == 0 and length == len(shape)
            best = Part(tuple(target[:length]), source, start, whole)
    return best


def cost_of(parts: Sequence[Part], opset: int) -> int:
    """Return how many nodes it takes to compute a vector from its parts."""
    shapes = [part for part in parts if part.value is not None and not part.vector]
    cost = len(shapes) + (len(parts) > 1)
    if opset < 15:
        cost += len({part.value for part in shapes if not part.whole})
    return cost


def write(parts: Sequence[Part], lowering: Lowering, anchor: ir.Node) -> ir.Value:
    """Return the vector, whose nodes lie before the anchor.

    Args:
        parts: As `plan` cut the vector.
        lowering: Writes into the graph.
        anchor: A node of the graph.
    """
    values = [_written(part, lowering, anchor) for part in parts]
    return lowering.concat(values, sum(len(part.dims) for part in parts), anchor)


def _written(part: Part, lowering: Lowering, anchor: ir.Node) -> ir.Value:
    if part.value is None:
        return lowering.vector(part.dims, anchor)
    if part.vector:
        return part.value
    return lowering.axes(part.value, part.start, len(part.dims), anchor, whole=part.whole)


def private_nodes(value: ir.Value) -> list[ir.Node]:
    """Return the nodes that would go away if nobody used a value, constants left out."""
    producer = value.producer()
    found: dict[ir.Node, None] = {}
    pending = [] if producer is None else [producer]
    while pending:
        node = pending.pop()
        outputs = node.outputs
        mine = node is producer or all(
            not output.is_graph_output() and all(use.node in found for use in output.uses())
            for output in outputs
        )
        if not mine or node in found:
            continue
        found[node] = None
        for each in node.inputs:
            above = None if each is None else each.producer()
            if above is not None and above.graph is node.graph:
                pending.append(above)
    return [node for node in found if node.op_type != "Constant"]


def vectors_among(nodes: Sequence[ir.Node], facts: Facts) -> list[ir.Value]:
    """Return the int64 vectors of sizes, not all of them numbers, that nodes take."""
    taken = dict.fromkeys(value for node in nodes for value in node.inputs if value is not None)
    found = []
    for value in taken:
        known = facts[value]
        if known.elements is None or known.numbers is not None:
            continue
        if known.shape == (len(known.elements),) and facts.dtype(value) == ir.DataType.INT64:
            found.append(value)
    return found[::-1]


def still_needed(parts: Sequence[Part], nodes: Sequence[ir.Node]) -> int:
    """Return how many of some nodes compute the vectors among the parts."""
    return len(needed_among((part.value for part in parts if part.vector), nodes))
