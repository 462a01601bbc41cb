"""Casts around nodes that a target runs in a wider type, where one undoes another."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from vlmpass.ir_tools.graph.edit import is_used, replace_value
from vlmpass.ir_tools.graph.removals import Removals
from vlmpass.passes.legalize.remedies import CAST_RULE, NARROW_RULE

__all__ = ["cancel"]

_RULES = (CAST_RULE, NARROW_RULE)


def cancel(nodes: Iterable[ir.Node]) -> None:
    """Let what comes from a wider floating type and goes back to it stay in it, and cast once.

    A value that stays wide between two nodes is rounded once less than in the type that it had.

    Args:
        nodes: Those of graphs, in topological order; only Casts around nodes that run in another
            type are looked at.
    """
    made: dict[tuple[ir.Value, int, ir.Graph], ir.Value] = {}
    downs: list[ir.Node] = []
    removals = Removals()
    for node in list(nodes):
        if node.op_type != "Cast" or node.metadata_props.get("vlmpass.rule") not in _RULES:
            continue
        source, to = node.inputs[0], node.attributes["to"].as_int()
        assert source is not None
        assert node.graph is not None
        before = _widened_from(source, to)
        if before is not None:
            downs.append(source.producer())  # type: ignore[arg-type]
        stands = before or made.setdefault((source, to, node.graph), node.outputs[0])
        if stands is not node.outputs[0] and not node.outputs[0].is_graph_output():
            replace_value(node.outputs[0], stands, fresh=False)
            removals.remove(node.graph, [node])
    for node in dict.fromkeys(downs):
        if node not in removals and node.graph is not None and not is_used(node.outputs[0]):
            removals.remove(node.graph, [node])
    removals.finish()


def _widened_from(value: ir.Value, to: int) -> ir.Value | None:
    """Return the wide value that a value was narrowed from, if it was in the type asked for."""
    node = value.producer()
    if node is None or node.op_type != "Cast" or node.domain:
        return None
    if node.metadata_props.get("vlmpass.rule") not in _RULES:
        return None
    source = node.inputs[0]
    if source is None or source.dtype is None or not source.dtype.is_floating_point():
        return None
    return source if source.dtype.value == to else None
