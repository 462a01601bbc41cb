"""Places that one type holds together across an operator with subgraphs, and what it may be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from vlmpass.ir_tools.graph.read_attributes import int_of
from vlmpass.ir_tools.graph.walk import Scope, subgraphs
from vlmpass.ir_tools.operators import Kind, named
from vlmpass.ir_tools.operators.formal import Formal, Schema
from vlmpass.ir_tools.operators.schema import in_force

__all__ = ["STRUCTURAL", "Slot", "Tie", "graph_of", "ties"]

STRUCTURAL = frozenset(("", name) for name in named(Kind.CONTROL))
"""Operators that are what their subgraphs make of them."""


@dataclass(frozen=True)
class Slot:
    """A place that takes a value.

    Attributes:
        value: The value.
        node: The node that takes it; None for an output of `graph`.
        index: Position among the node's inputs or the graph's outputs.
        graph: The graph it lies in.
    """

    value: ir.Value
    node: ir.Node | None
    index: int
    graph: ir.Graph


@dataclass(frozen=True)
class Tie:
    """What has one type, or that type's sequence for SequenceMap, inside and outside a node.

    Attributes:
        name: For messages, such as ``output 0``.
        outside: The node's own input or output.
        allowed: The types that the operator admits for it.
        slots: The places that take the values.
        values: The values that are typed by them.
    """

    name: str
    outside: ir.Value
    allowed: frozenset[str]
    slots: tuple[Slot, ...]
    values: tuple[ir.Value, ...]


def graph_of(scope: Scope) -> ir.Graph:
    """Return the graph of a scope, a function's own for a function."""
    return scope.graph.graph if isinstance(scope.graph, ir.Function) else scope.graph


def ties(node: ir.Node, scope: Scope) -> Iterator[Tie]:
    """Yield the ties of an operator with subgraphs; nothing for any other.

    Args:
        node: A node.
        scope: The scope it lies in.
    """
    known = in_force(node.domain, node.op_type, scope.opsets.get(node.domain, 1))
    if known is None or (node.domain, node.op_type) not in STRUCTURAL:
        return
    if node.op_type == "If":
        yield from _of_if(node, known)
    elif node.op_type == "SequenceMap":
        yield from _of_map(node, known, graph_of(scope))
    else:
        batched = node.op_type == "Scan" and known.version < 9  # input 0 is sequence_lens there
        yield from _of_loop(node, known, graph_of(scope), 1 if batched else 0)


def _allowed(known: Schema, formal: Formal | None) -> frozenset[str]:
    return known.allowed[formal.parameter] if formal is not None else frozenset()


def _of_if(node: ir.Node, known: Schema) -> Iterator[Tie]:
    branches = list(subgraphs(node))
    for index, value in enumerate(node.outputs):
        slots = [
            Slot(branch.outputs[index], None, index, branch)
            for branch in branches
            if index < len(branch.outputs)
        ]
        allowed = _allowed(known, known.output_at(index))
        yield Tie(f"output {index}", value, allowed, tuple(slots), (value,))


def _of_map(node: ir.Node, known: Schema, graph: ir.Graph) -> Iterator[Tie]:
    for body in subgraphs(node):
        yield from _entering(node, known, graph, node.inputs, body.inputs)
        for index, (value, inner) in enumerate(zip(node.outputs, body.outputs, strict=False)):
            allowed = _allowed(known, known.output_at(index))
            slots = (Slot(inner, None, index, body),)
            yield Tie(f"output {index}", value, allowed, slots, (value,))


def _entering(
    node: ir.Node,
    known: Schema,
    graph: ir.Graph,
    given: Sequence[ir.Value | None],
    inner: Sequence[ir.Value],
) -> Iterator[Tie]:
    """Yield ties of the last inputs of a node with those of its body."""
    first = len(node.inputs) - len(given)
    for index, (value, below) in enumerate(zip(given, inner, strict=False), first):
        if value is not None:
            slots = (Slot(value, node, index, graph),)
            allowed = _allowed(known, known.input_at(index))
            yield Tie(f"input {index}", value, allowed, slots, (below,))


def _of_loop(node: ir.Node, known: Schema, graph: ir.Graph, batched: int) -> Iterator[Tie]:
    loop = node.op_type == "Loop"
    first_in, first_out, inner_in = (2, 1, 2) if loop else (batched, 0, 0)
    scanned = 0 if loop else int_of(node, "num_scan_inputs", 0)
    carried = len(node.inputs) - first_in - scanned
    for body in subgraphs(node):
        for index, after in enumerate(body.outputs[first_out:]):
            slots = [Slot(after, None, first_out + index, body)]
            values = [node.outputs[index]] if index < len(node.outputs) else []
            before = node.inputs[first_in + index] if index < carried else None
            if before is not None:
                slots.insert(0, Slot(before, node, first_in + index, graph))
                values.append(body.inputs[inner_in + index])
            outside = before if before is not None else next(iter(values), after)
            allowed = _allowed(known, known.output_at(index))
            yield Tie(f"value {index}", outside, allowed, tuple(slots), tuple(values))
        rest = node.inputs[first_in + carried :]
        yield from _entering(node, known, graph, rest, body.inputs[inner_in + carried :])
