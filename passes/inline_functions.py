"""Calls of functions replaced by the functions' bodies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from vlmpass.ir_tools.check.versions import check_functions
from vlmpass.ir_tools.errors import Refusal, Refused
from vlmpass.ir_tools.graph.clone import instantiate
from vlmpass.ir_tools.graph.describe import name_node
from vlmpass.ir_tools.graph.names import Names
from vlmpass.ir_tools.graph.tape import Tape, splice
from vlmpass.ir_tools.graph.walk import Scope, scopes, subgraphs
from vlmpass.ir_tools.operators.schema import in_force
from vlmpass.passes.pipeline.base import OptionError, Pass

__all__ = ["InlineFunctions"]


@dataclass(frozen=True)
class InlineFunctions(Pass):
    """Replace every call of a function by its body, and remove the functions.

    Nodes of the body are named after the call, and take its metadata over where they have none of
    their own. A function whose operators mean something else at the caller's opset is refused.
    """

    name = "inline-functions"
    nothing: ClassVar[str] = "the model has no functions"

    only: tuple[str, ...] = ()
    """Names of the functions to inline, such as pkg.onnxscript::Gelu or Gelu; all if empty."""

    def run(self, model: ir.Model) -> bool:
        """Inline into functions first, callees before callers, then into the graph."""
        chosen = self._chosen(model)
        if not chosen:
            return False
        check_functions(model)
        bodies = _bodies(model)
        refusals = [each for scope in scopes(model) for each in _refusals(scope, chosen, bodies)]
        if refusals:
            raise Refused(str(self), refusals)
        names = Names.of(model)
        for function in list(_callees_first(model, bodies)):
            _inline(function, chosen, names)
        _inline(model.graph, chosen, names)
        for key in chosen:
            del model.functions[key]
        return True

    def _chosen(self, model: ir.Model) -> dict[ir.OperatorIdentifier, ir.Function]:
        known = {f"{domain}::{name}" for domain, name, _ in model.functions}
        known |= {name for _, name, _ in model.functions}
        for name in self.only:
            if name not in known:
                raise OptionError("only", f"the model has no function {name}")
        return {
            key: function
            for key, function in model.functions.items()
            if not self.only or key[1] in self.only or f"{key[0]}::{key[1]}" in self.only
        }


_Bodies = dict[ir.OperatorIdentifier, list[ir.Node]]


def _bodies(model: ir.Model) -> _Bodies:
    """Return the nodes of every function, those of its subgraphs included."""
    bodies: _Bodies = {key: [] for key in model.functions}
    for scope in scopes(model):
        if isinstance(scope.owner, ir.Function):
            bodies[scope.owner.identifier()] += scope.graph
    return bodies


def _callees_first(model: ir.Model, bodies: _Bodies) -> Iterator[ir.Function]:
    """Yield every function after those that it calls; there are no circles."""
    done: set[ir.OperatorIdentifier] = set()

    def visit(key: ir.OperatorIdentifier) -> Iterator[ir.Function]:
        if key in model.functions and key not in done:
            done.add(key)
            for node in bodies[key]:
                yield from visit(node.op_identifier())
            yield model.functions[key]

    for key in model.functions:
        yield from visit(key)


def _refusals(
    scope: Scope, chosen: dict[ir.OperatorIdentifier, ir.Function], bodies: _Bodies
) -> Iterator[Refusal]:
    """Yield the nodes that calls in this scope would bring to an opset where they differ."""
    called = {node.op_identifier() for node in scope.graph}
    pending = [chosen[key] for key in chosen if key in called]
    seen = set(pending)
    while pending:
        function = pending.pop()
        for node in bodies[function.identifier()]:
            callee = chosen.get(node.op_identifier())
            if callee is not None and callee not in seen:
                seen.add(callee)
                pending.append(callee)
            theirs = function.opset_imports.get(node.domain, 1)
            ours = scope.opsets.get(node.domain, theirs)
            if node.op_identifier() not in bodies and not _same(node, theirs, ours):
                yield Refusal(
                    f"{name_node(node)} of function {function.domain}::{function.name}",
                    f"it is of opset {theirs} and would come to opset {ours}, where it differs",
                    f"run convert-opset{{to={theirs}}} or convert-opset{{to={ours}}} first",
                )


def _same(node: ir.Node, a: int, b: int) -> bool:
    if a == b:
        return True
    there, here = (in_force(node.domain, node.op_type, version) for version in (a, b))
    return there is not None and here is not None and there.version == here.version


def _inline(
    owner: ir.Graph | ir.Function,
    chosen: dict[ir.OperatorIdentifier, ir.Function],
    names: Names,
) -> None:
    in_function = isinstance(owner, ir.Function)
    graphs = [owner.graph if isinstance(owner, ir.Function) else owner]
    while graphs:
        for node in list(graphs.pop()):
            function = chosen.get(node.op_identifier())
            if function is None:
                graphs.extend(subgraphs(node))
                continue
            for domain, version in function.opset_imports.items():
                owner.opset_imports.setdefault(domain, version)
            _replace(node, function, Tape(names, owner.opset_imports, _hint(node)), in_function)


def _hint(call: ir.Node) -> str:
    return call.name or call.op_type


def _replace(call: ir.Node, function: ir.Function, tape: Tape, in_function: bool) -> None:
    nodes, values = instantiate(function, call)
    _rename(nodes, lambda name: f"{_hint(call)}/{name}", tape.names)
    tape.nodes = nodes
    pairs: list[tuple[ir.Value, ir.Value]] = []
    for old, new in zip(call.outputs, values, strict=True):
        if old.uses() or old.is_graph_output():
            if new is None:
                reason = f"its output '{old.name}' is an input that the call leaves out"
                raise Refused("inline-functions", [Refusal(name_node(call), reason)])
            pairs.append((old, new))
    splice(tape, [call], pairs, in_function=in_function)


def _rename(nodes: list[ir.Node], prefix: Callable[[str], str], names: Names) -> None:
    """Name nodes and values of a copied body apart, and forget the sizes only the body names.

    A symbolic size of a function is its own: that of two calls under one name may differ.
    """
    for node in nodes:
        node.name = names.node(prefix(node.name or node.op_type))
        values = list(node.outputs)
        for graph in subgraphs(node):
            values += [*graph.inputs, *graph.initializers.values()]
            _rename(list(graph), prefix, names)
        for value in values:
            if value.name:
                value.name = names.value(prefix(value.name))
            if value.shape is not None:
                value.shape = ir.Shape([d if isinstance(d, int) else None for d in value.shape])
