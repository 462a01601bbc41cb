"""What the calls of functions pass: constants that a function's body can be rewritten with."""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

from vlmpass.ir_tools.graph.edit import is_used, remove_unused_constant
from vlmpass.ir_tools.graph.walk import Scope, all_nodes, scopes
from vlmpass.ir_tools.weights.leaves import Expression
from vlmpass.rewriter_rules.quant.constant import Constants
from vlmpass.rewriter_rules.quant.origins import Origin, Origins

__all__ = ["Calls", "drop_unused_inputs", "used_inputs"]


class Calls:
    """Every call of every function of a model, followed outwards to the graph.

    Args:
        model: The model; it must not change while this is used.
    """

    def __init__(self, model: ir.Model) -> None:
        self._formals: dict[ir.Value, tuple[ir.OperatorIdentifier, int]] = {
            value: (key, index)
            for key, function in model.functions.items()
            for index, value in enumerate(function.inputs)
        }
        self._calls: dict[ir.OperatorIdentifier, list[tuple[ir.Node, Scope]]] = {}
        for scope in scopes(model):
            for node in scope.graph:
                if node.op_identifier() in model.functions:
                    self._calls.setdefault(node.op_identifier(), []).append((node, scope))
        self._origins = Origins(self._outside)

    def constants(self, scope: Scope) -> Constants:
        """Return a fresh view of a scope's constants, a function's inputs among them."""
        return Constants(scope.opsets, self._same_everywhere)

    def origin(self, value: ir.Value) -> Origin:
        """Return what a value comes from, over the borders of functions."""
        return self._origins.of(value)

    def why_disputed(self, value: ir.Value) -> tuple[str, str]:
        """Return why a value of several constants is none to rewrite with, and what to do."""
        if value in self._formals:
            (_, name, _), _ = self._formals[value]
            reason = f"its packed weights are input '{value.name}' of function {name}, whose calls"
            return f"{reason} pass different ones", "put inline-functions before it"
        reason = f"initializer '{value.name}' is an input as well, so that callers may replace it"
        return reason, "export with keep_initializers_as_inputs=False"

    def _passed(self, value: ir.Value) -> list[tuple[ir.Value | None, Scope]]:
        key, index = self._formals[value]
        return [
            (call.inputs[index] if index < len(call.inputs) else None, scope)
            for call, scope in self._calls.get(key, ())
        ]

    def _same_everywhere(self, value: ir.Value) -> Expression | None:
        """Return what a function's input is if every call passes the same constant."""
        if value not in self._formals:
            return None
        found: list[Expression | None] = []
        for passed, scope in self._passed(value):
            found.append(None if passed is None else self.constants(scope).express(passed))
        return found[0] if found and all(each == found[0] for each in found) else None

    def _outside(self, value: ir.Value) -> Origin:
        if value not in self._formals:
            replaceable = value.is_initializer() and value.is_graph_input()
            return Origin(disputed=value) if replaceable else Origin(varies=True)
        origins = [
            self.origin(passed) if passed is not None else Origin(varies=True)
            for passed, _ in self._passed(value)
        ]
        if not origins or any(each.varies for each in origins):
            return Origin(varies=True)
        unpacks = any(each.unpacks for each in origins)
        disputed = next((each.disputed for each in origins if each.disputed is not None), None)
        if disputed is None and self._same_everywhere(value) is None:
            disputed = value
        return Origin(unpacks=unpacks, disputed=disputed)


def used_inputs(model: ir.Model) -> set[ir.Value]:
    """Return the inputs of functions that these use."""
    return {value for each in model.functions.values() for value in each.inputs if is_used(value)}


def drop_unused_inputs(model: ir.Model, before: Collection[ir.Value]) -> None:
    """Remove inputs that functions use no longer, and what their calls computed only for them.

    Args:
        model: The model.
        before: The inputs that were used before.
    """
    for key, function in model.functions.items():
        gone = {i for i, each in enumerate(function.inputs) if each in before and not is_used(each)}
        if not gone:
            continue
        inputs = [each for i, each in enumerate(function.inputs) if i not in gone]
        function.inputs.clear()
        function.inputs.extend(inputs)
        for node in [each for each in all_nodes(model) if each.op_identifier() == key]:
            passed = list(node.inputs)
            kept = [each for i, each in enumerate(passed) if i not in gone]
            node.resize_inputs(len(kept))
            for index, value in enumerate(kept):
                node.replace_input_with(index, value)
            for value in passed:
                if value is not None:
                    remove_unused_constant(value)
