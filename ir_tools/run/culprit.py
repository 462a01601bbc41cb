"""Which node of a model keeps ONNX Runtime from loading it.

What it says names nodes of function bodies that it has inlined, or of its own fusions. Where that
is no node of the model, nodes are loaded alone, one of each kind, and then the shortest part of the
graph from its start that does not load is looked for.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence

import onnx_ir as ir

from vlmpass.ir_tools.graph.clone import captured
from vlmpass.ir_tools.graph.describe import name_node
from vlmpass.ir_tools.graph.walk import all_nodes
from vlmpass.ir_tools.run.allowance import Allowance
from vlmpass.ir_tools.run.loading import Loader
from vlmpass.ir_tools.run.runner import RunError
from vlmpass.ir_tools.run.segments import Segment, extract
from vlmpass.ir_tools.types.typing import Typing, solve

__all__ = ["culprit", "retold", "told"]

_SECONDS = 10.0
_OPERATOR = re.compile(r"(?:implementation for (?:[\w.]+[:.])?|Op \(|operator \()(\w+)")
_NAMED = re.compile(r"(?:node with name '|Node \(|Node:|node:|Name:')\s*([^')\s]+)")


def culprit(model: ir.Model, error: RunError, loader: Loader) -> tuple[ir.Node, RunError] | None:
    """Return the node at fault and what ONNX Runtime says of it; None where it cannot be told.

    Args:
        model: A model that does not load.
        error: Why not.
        loader: Loads parts of it, for about 10 seconds at most.
    """
    named = {str(node.name): node for node in all_nodes(model) if node.name}
    for name in _NAMED.findall(error.reason):
        if name in named:
            return named[name], error
    search = _Search(model, loader, error)
    return search.alone() or search.shortest()


def retold(model: ir.Model, error: RunError, allowance: Allowance) -> RunError:
    """Return why a model was not loaded, of a node of the model where a stranger was named.

    Args:
        model: The model that was not loaded.
        error: What was said.
        allowance: Memory and time that loading parts of it may take.
    """
    if error.is_stop or not _strangers(model, error):
        return error
    with Loader(allowance) as loader:
        return RunError(error.stage, error.backend, told(model, error, loader))


def _strangers(model: ir.Model, error: RunError) -> set[str]:
    """Return the operators that a reason is about and that the model has not."""
    return set(_OPERATOR.findall(error.reason)) - {node.op_type for node in all_nodes(model)}


def told(model: ir.Model, error: RunError, loader: Loader, *, always: bool = True) -> str:
    """Return why a model does not load, beginning with the node of the model that is at fault.

    Args:
        model: A model that does not load.
        error: Why not.
        loader: As for `culprit`.
        always: Whether the node is looked for also where the reason is about an operator that the
            model has.
    """
    if error.is_stop or not (always or _strangers(model, error)):
        return error.reason
    found = culprit(model, error, loader)
    return error.reason if found is None else f"{name_node(found[0])}: {found[1].reason}"


class _Search:
    def __init__(self, model: ir.Model, loader: Loader, error: RunError) -> None:
        self._error = error
        self._model = model
        self._loader = loader
        self._typing: Typing = solve(model)
        self._nodes = list(model.graph)
        self._until = time.monotonic() + _SECONDS

    def alone(self) -> tuple[ir.Node, RunError] | None:
        """Return the first node that does not load alone."""
        for node in self._kinds():
            if time.monotonic() > self._until:
                return None
            found = self._why_not([node])
            if found is not None:
                return node, found
        return None

    def shortest(self) -> tuple[ir.Node, RunError] | None:
        """Return the last node of the shortest start of the graph that does not load."""
        low, high = 0, len(self._nodes)
        last = self._error
        while low + 1 < high and time.monotonic() <= self._until:
            middle = (low + high) // 2
            found = self._why_not(self._nodes[:middle])
            if found is None:
                low = middle
            else:
                high, last = middle, found
        return None if low + 1 < high or not high else (self._nodes[high - 1], last)

    def _kinds(self) -> Iterator[ir.Node]:
        """Yield the first node of each operator, types of operands and attributes."""
        seen: set[tuple[object, ...]] = set()
        for node in self._nodes:
            types = tuple(v and self._typing.text_of(v) for v in (*node.inputs, *node.outputs))
            plain = [a for a in node.attributes.values() if a.type != ir.AttributeType.TENSOR]
            kind = (node.op_identifier(), types, tuple(map(str, plain)))
            if kind not in seen:
                seen.add(kind)
                yield node

    def _why_not(self, nodes: Sequence[ir.Node]) -> RunError | None:
        here = set(nodes)
        used = dict.fromkeys(v for n in nodes for v in (*n.inputs, *captured(n)) if v is not None)
        weights = tuple(v for v in used if v.is_initializer())
        inputs = tuple(
            v
            for v in used
            if v.is_graph_input() or not (v.is_initializer() or v.producer() in here)
        )
        made = [v for n in nodes for v in n.outputs if v.name]
        outputs = [v for v in made if v.is_graph_output() or any(u not in here for u in _users(v))]
        segment = Segment(tuple(nodes), inputs, tuple(outputs or made), weights, 0)
        found = self._loader.why_not(extract(self._model, segment, self._typing))
        # Alone, a node may lack what it needs around it: only the same kind of refusal counts.
        return found if found is not None and found.code == self._error.code else None


def _users(value: ir.Value) -> Iterator[ir.Node]:
    return (use.node for use in value.uses())
