"""Where a model can be cut into pieces that run one after the other.

The main graph is cut in its order where the weights of a piece reach a budget.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from vlmpass.ir_tools.errors import VerifyError
from vlmpass.ir_tools.graph.clone import captured, excerpt
from vlmpass.ir_tools.graph.walk import subgraphs
from vlmpass.ir_tools.types.typing import Typing, solve

__all__ = ["SEGMENT_BYTES", "Segment", "extract", "is_repeated", "joins_nodes", "segments"]

SEGMENT_BYTES = 256_000_000
"""Bytes of weights in one piece, unless a single node has more."""

_MOST_NODES = 500


@dataclass(frozen=True)
class Segment:
    """Nodes of the main graph that run together.

    Attributes:
        nodes: In graph order; Constants and Casts of weights come first and may be in others too.
        inputs: What they take that earlier segments make or the user gives.
        outputs: What later segments take, and the model's outputs among what they make.
        initializers: The weights they use.
        nbytes: Bytes of weights and constants.
    """

    nodes: tuple[ir.Node, ...]
    inputs: tuple[ir.Value, ...]
    outputs: tuple[ir.Value, ...]
    initializers: tuple[ir.Value, ...]
    nbytes: int


def is_repeated(value: ir.Value) -> bool:
    """Whether a value comes from weights alone by nodes that may stand in every segment."""
    node = value.producer()
    if node is None or node.domain or value.is_graph_output():
        return False
    if node.op_type == "Constant":
        return True
    below = node.inputs[0] if node.op_type in ("Cast", "Identity") else None
    return below is not None and (_is_weight(below) or is_repeated(below))


def _is_weight(value: ir.Value) -> bool:
    return value.is_initializer() and not value.is_graph_input()


def joins_nodes(value: ir.Value) -> bool:
    """Whether ONNX Runtime, at its basic level, makes one node of a value's maker and its user.

    That node rounds once where the two round twice, so that a cut between them is seen.
    """
    node, uses = value.producer(), tuple(value.uses())
    if node is None or node.domain or len(uses) != 1 or value.is_graph_output():
        return False
    user = uses[0].node
    adds = node.op_type == "MatMul" and user.op_type == "Add"
    scales = node.op_type == "Conv" and user.op_type in ("Add", "Mul", "BatchNormalization")
    return (adds or scales) and any(
        each is not None and (_is_weight(each) or is_repeated(each)) for each in user.inputs
    )


def _bytes_inside(node: ir.Node) -> int:
    """Return the bytes of tensors in a node's attributes and in its subgraphs."""
    total = 0
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.TENSOR and not attribute.is_ref():
            total += attribute.as_tensor().nbytes
    for graph in subgraphs(node):
        tensors = (value.const_value for value in graph.initializers.values())
        total += sum(tensor.nbytes for tensor in tensors if tensor is not None)
        total += sum(_bytes_inside(inner) for inner in graph)
    return total


class _Plan:
    """Where to cut."""

    def __init__(self, model: ir.Model, typing: Typing, budget: int) -> None:
        self._budget = budget
        self._typing = typing
        self._graph = model.graph
        self._nodes = [n for n in model.graph if not any(map(is_repeated, n.outputs))]
        self._used = {node: self._takes(node) for node in self._nodes}
        self._place = {v: i for i, node in enumerate(self._nodes) for v in node.outputs}
        self._last: dict[ir.Value, int] = {}
        for index, node in enumerate(self._nodes):
            for value in self._used[node]:
                if self._place.get(value, -1) >= index:
                    raise VerifyError(
                        f"node '{node.name}' comes before what makes '{value.name}'",
                        remedy="run the pass topological-sort first",
                    )
                self._last[value] = index

    @staticmethod
    def _takes(node: ir.Node) -> tuple[ir.Value, ...]:
        given = (value for value in node.inputs if value is not None)
        return tuple(dict.fromkeys((*given, *captured(node))))

    def run(self) -> Iterator[Segment]:
        blocked, start, size = self._blocked(), 0, 0
        weights: set[ir.Value] = set()
        for index, node in enumerate(self._nodes):
            fresh = [value for value in self._used[node] if value not in weights]
            more = sum(self._weight(value) for value in fresh) + _bytes_inside(node)
            full = size + more > self._budget or index - start >= _MOST_NODES
            if full and index > start and not blocked[index]:
                yield self._segment(start, index, size)
                start, size, weights = index, 0, set()
                more = sum(map(self._weight, self._used[node])) + _bytes_inside(node)
            size += more
            weights.update(self._used[node])
        if self._nodes:
            yield self._segment(start, len(self._nodes), size)

    def _weight(self, value: ir.Value) -> int:
        """Return the bytes that a value brings into a segment as a weight."""
        if value.is_initializer():
            return value.const_value.nbytes if value.const_value is not None else 0
        node = value.producer()
        if node is None or not is_repeated(value):
            return 0
        return _bytes_inside(node) + sum(map(self._weight, filter(None, node.inputs)))

    def _blocked(self) -> list[bool]:
        """Return, for each node, whether a value crosses the place before it that none may cut.

        Its type is unknown, or it would be computed otherwise.
        """
        steps = [0] * (len(self._nodes) + 2)
        for value, made in self._place.items():
            last = self._last.get(value, made)
            if last > made and (self._typing.text_of(value) is None or joins_nodes(value)):
                steps[made + 1] += 1
                steps[last + 1] -= 1
        crossing, blocked = 0, []
        for step in steps:
            crossing += step
            blocked.append(crossing > 0)
        return blocked

    def _segment(self, start: int, stop: int, size: int) -> Segment:
        nodes = self._nodes[start:stop]
        repeated: dict[ir.Node, None] = {}
        inputs: dict[ir.Value, None] = {}
        weights: dict[ir.Value, None] = {}

        def take(value: ir.Value) -> None:
            producer = value.producer()
            if producer is not None and is_repeated(value):
                for below in producer.inputs:
                    if below is not None:
                        take(below)
                repeated[producer] = None
                return
            if value.is_initializer():
                weights[value] = None
            if value.is_graph_input() or not start <= self._place.get(value, start) < stop:
                inputs[value] = None

        for value in dict.fromkeys(value for node in nodes for value in self._used[node]):
            take(value)
        made = [value for node in nodes for value in node.outputs]
        outputs = [v for v in made if self._last.get(v, -1) >= stop or v.is_graph_output()]
        return Segment((*repeated, *nodes), tuple(inputs), tuple(outputs), tuple(weights), size)


def segments(
    model: ir.Model, budget: int = SEGMENT_BYTES, typing: Typing | None = None
) -> list[Segment]:
    """Cut the main graph in its order into segments of bounded weights; none is read.

    Args:
        model: Its main graph is in topological order.
        budget: Bytes of weights and constants in one segment. A node that has more is one alone,
            and no cut is made where a value of unknown type would have to cross it.
        typing: Its types, if they are known already.

    Raises:
        VerifyError: The graph is not in topological order.
    """
    return list(_Plan(model, typing or solve(model), budget).run())


def extract(model: ir.Model, segment: Segment, typing: Typing) -> ir.Model:
    """Return a segment as a model of its own, its inputs and outputs declared by type alone.

    Args:
        model: The model that the segment is of; it stays as it is.
        segment: The nodes, and the values at their ends.
        typing: The model's types.
    """
    piece = excerpt(model, segment.nodes, segment.inputs, segment.outputs, segment.initializers)
    pairs = zip(
        (*segment.inputs, *segment.outputs),
        (*piece.graph.inputs, *piece.graph.outputs),
        strict=True,
    )
    for old, new in pairs:
        new.type = typing.type_of(old) or new.type
        if not old.is_graph_input():
            new.shape = None
    return piece
