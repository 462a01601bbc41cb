"""What holds in the functions of a model at every call of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from vlmpass.ir_tools.shapes.algebra import Dim
from vlmpass.ir_tools.shapes.facts import Facts, visit_scope
from vlmpass.ir_tools.walk import Scope, scopes, subgraphs

__all__ = ["Dims", "Shared", "at_all_calls"]

Dims = tuple["int | str | None", ...]
"""A shape: sizes, names of sizes, None for one that is not known."""


@dataclass
class Shared:
    """What the calls of one function have in common.

    Attributes:
        shapes: The shape of every value of the body, its subgraphs included: None where some call
            leaves the rank open or calls differ in it.
        alike: Whether the same is known of the arguments of all calls.
    """

    shapes: dict[ir.Value, Dims | None] = field(default_factory=dict)
    alike: bool = True


def at_all_calls(
    model: ir.Model, facts: Facts, say: Callable[[Dim], int | str | None]
) -> dict[ir.OperatorIdentifier, Shared]:
    """Return what holds in functions whichever call they run for; nothing where none is called.

    Each function is looked at once for each set of facts about its arguments that a call has,
    callers before what they call.

    Args:
        model: Its functions do not call themselves.
        facts: About its main graph, visited; what lies in functions is found by following calls.
        say: Says a size by what lies outside of all functions, so that what is said alike is the
            same at all calls; None for a size it cannot say.
    """
    found: dict[ir.OperatorIdentifier, Shared] = {}
    done: set[Facts] = set()
    pending = [
        (facts, node)
        for scope in scopes(model)
        if not scope.in_function
        for node in scope.graph
        if node.op_identifier() in model.functions
    ]
    while pending:
        outer, call = pending.pop()
        key = call.op_identifier()
        function = model.functions[key]
        inner = outer.body(call, function)
        if inner in done:
            continue
        done.add(inner)
        visit_scope(inner, Scope(function, function, 0), lambda node, scope: None)
        _share(found, key, {value: _said(inner, value, say) for value in _values(function)})
        pending += [(inner, node) for node in function.all_nodes() if _calls(node, model)]
    return found


def _calls(node: ir.Node, model: ir.Model) -> bool:
    return node.op_identifier() in model.functions


def _values(graph: ir.Function | ir.Graph) -> Iterator[ir.Value]:
    """Yield the values of a function, its subgraphs included, that are not constants of theirs."""
    yield from graph.inputs
    for node in graph:
        yield from node.outputs
        for inner in subgraphs(node):
            yield from _values(inner)


def _said(facts: Facts, value: ir.Value, say: Callable[[Dim], int | str | None]) -> Dims | None:
    shape = facts[value].shape
    return None if shape is None else tuple(map(say, shape))


def _share(
    found: dict[ir.OperatorIdentifier, Shared],
    key: ir.OperatorIdentifier,
    shapes: Mapping[ir.Value, Dims | None],
) -> None:
    """Hold what was found of earlier calls against one more."""
    shared = found.get(key)
    if shared is None:
        found[key] = Shared(dict(shapes))
        return
    shared.alike = False
    for value, shape in shapes.items():
        before = shared.shapes[value]
        if before is None or shape is None or len(before) != len(shape):
            shared.shapes[value] = None
        else:
            shared.shapes[value] = tuple(
                one if one == other else None for one, other in zip(before, shape, strict=True)
            )
