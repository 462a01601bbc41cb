"""What no output of the model depends on goes away."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from vlmpass.ir_tools.graph.edit import is_used, remove_dead
from vlmpass.ir_tools.graph.walk import Scope, scopes
from vlmpass.passes.pipeline.base import Pass

__all__ = ["RemoveUnused"]


@dataclass(frozen=True)
class RemoveUnused(Pass):
    """Remove nodes, initializers, functions and opset imports that no output depends on.

    Inputs and outputs of the model stay, an initializer that is an input included. A node without
    outputs stays, since it can only be there for what it does.
    """

    name = "remove-unused"
    keeps_values: ClassVar[bool] = True

    def run(self, model: ir.Model) -> bool:
        """Remove what is unused, functions first so that their bodies keep nothing alive."""
        changed = _remove_functions(model)
        places = list(scopes(model))
        if remove_dead(_unused_nodes(places)):
            changed = True
            _remove_functions(model)
            places = list(scopes(model))
        for scope in places:
            if isinstance(scope.graph, ir.Graph):
                changed |= _remove_initializers(scope.graph)
        return _remove_imports(model, places) or changed


def _unused_nodes(places: Iterable[Scope]) -> Iterator[ir.Node]:
    """Yield the nodes with outputs of which none is used."""
    for scope in places:
        for node in scope.graph:
            outputs = node.outputs
            if outputs and not any(map(is_used, outputs)):
                yield node


def _remove_functions(model: ir.Model) -> bool:
    if not model.functions:
        return False
    calls: dict[ir.Graph | ir.Function, set[ir.OperatorIdentifier]] = {}
    for scope in scopes(model):
        keys = {node.op_identifier() for node in scope.graph}
        calls.setdefault(scope.owner, set()).update(keys & model.functions.keys())
    called: set[ir.OperatorIdentifier] = set()
    pending: list[ir.Graph | ir.Function] = [model.graph]
    while pending:
        new = calls.get(pending.pop(), set()) - called
        called |= new
        pending.extend(model.functions[key] for key in sorted(new))
    unused = [key for key in model.functions if key not in called]
    for key in unused:
        del model.functions[key]
    return bool(unused)


def _remove_initializers(graph: ir.Graph) -> bool:
    unused = [
        name
        for name, value in graph.initializers.items()
        if not is_used(value) and not value.is_graph_input()
    ]
    for name in unused:
        del graph.initializers[name]
    return bool(unused)


def _remove_imports(model: ir.Model, places: Iterable[Scope]) -> bool:
    """Keep the domain of ONNX itself, and in the graph those of the functions' nodes as well.

    A runtime that inlines a function looks its operators up in the imports of the graph.
    """
    used: dict[int, set[str]] = {}
    everywhere = {""}
    for scope in places:
        domains = {node.domain for node in scope.graph}
        used.setdefault(id(scope.owner), {""}).update(domains)
        everywhere |= domains
    changed = False
    for owner in (model.graph, *model.functions.values()):
        kept = everywhere if owner is model.graph else used[id(owner)]
        assert isinstance(owner, (ir.Graph, ir.Function))
        for domain in [each for each in owner.opset_imports if each not in kept]:
            del owner.opset_imports[domain]
            changed = True
    return changed
