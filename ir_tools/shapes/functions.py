"""What holds in the functions of a model at every call of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import onnx_ir as ir

from vlmpass.ir_tools.graph.walk import Scope, scopes, subgraphs
from vlmpass.ir_tools.shapes.algebra import Dim
from vlmpass.ir_tools.shapes.analysis import Facts, visit_scope

__all__ = ["Calls", "Dims", "at_all_calls", "common_axes", "values_of"]

Dims = tuple["int | str | None", ...]
"""A shape: sizes, names of sizes, None for one that is not known."""


@dataclass
class Calls:
    """What the calls of one function make of its body.

    Attributes:
        shapes: The different shapes of every value of the body, its subgraphs included, None being
            one of them where some call leaves the rank open.
        alike: Whether the same is known of the arguments of all calls.
    """

    shapes: dict[ir.Value, dict[Dims | None, None]] = field(default_factory=dict)
    alike: bool = True


def at_all_calls(
    model: ir.Model, facts: Facts, say: Callable[[Dim], int | str | None]
) -> dict[ir.OperatorIdentifier, Calls]:
    """Return what is known in functions at each call; nothing for those that are never called.

    Each function is looked at once for each set of facts about its arguments that a call has,
    callers before what they call.

    Args:
        model: Its functions do not call themselves.
        facts: About its main graph, visited; what lies in functions is found by following calls.
        say: Says a size by what lies outside of all functions, so that what is said alike is the
            same at all calls; None for a size it cannot say.
    """
    found: dict[ir.OperatorIdentifier, Calls] = {}
    done: set[Facts] = set()
    outside = (scope.graph for scope in scopes(model) if not scope.in_function)
    pending = [(facts, call) for graph in outside for call in _calls(graph, model)]
    while pending:
        outer, call = pending.pop()
        key = call.op_identifier()
        function = model.functions[key]
        inner = outer.body(call, function)
        if inner in done:
            continue
        done.add(inner)
        visit_scope(inner, Scope(function, function, 0), lambda node, scope: None)
        calls = found.setdefault(key, Calls())
        calls.alike = not calls.shapes
        for value in values_of(function):
            shape = inner[value].shape
            dims = None if shape is None else tuple(map(say, shape))
            calls.shapes.setdefault(value, {})[dims] = None
        pending += [(inner, node) for node in _calls(function.all_nodes(), model)]
    return found


def common_axes(shapes: Iterable[Dims | None]) -> Dims:
    """Return the last axes that all of some shapes have; None for a size they differ in."""
    known = [() if shape is None else shape for shape in shapes]
    count = min(map(len, known))
    columns = zip(*(shape[len(shape) - count :] for shape in known), strict=True)
    return tuple(sizes[0] if len(set(sizes)) == 1 else None for sizes in columns)


def _calls(nodes: Iterable[ir.Node], model: ir.Model) -> list[ir.Node]:
    return [node for node in nodes if node.op_identifier() in model.functions]


def values_of(graph: ir.Function | ir.Graph) -> Iterator[ir.Value]:
    """Yield the values of a function and its subgraphs, but initializers of these."""
    yield from graph.inputs
    for node in graph:
        yield from node.outputs
        for inner in subgraphs(node):
            yield from values_of(inner)
