"""What a model draws at random, made the same in two models: each of its nodes gets a seed."""

from __future__ import annotations

import onnx_ir as ir

from vlmpass.ir_tools.graph.clone import clone
from vlmpass.ir_tools.graph.walk import Scope, all_nodes, scopes
from vlmpass.ir_tools.operators import Kind, named
from vlmpass.ir_tools.operators.schema import in_force

__all__ = ["draws", "with_seeds"]


def with_seeds(model: ir.Model) -> ir.Model | None:
    """Return a copy whose nodes that draw have seeds, by their place among such nodes.

    Passes keep these in their order, so that a source and its result draw the same numbers.

    Args:
        model: It is not changed.

    Returns:
        The copy; None where every node that draws has a seed.
    """
    if not any(_lacks_seed(node, scope) for scope in scopes(model) for node in scope.graph):
        return None
    copy, number = clone(model), 0
    for scope in scopes(copy):
        for node in scope.graph:
            if _lacks_seed(node, scope):
                number += 1
                node.attributes["seed"] = ir.AttrFloat32("seed", float(number))
    return copy


def _lacks_seed(node: ir.Node, scope: Scope) -> bool:
    if node.domain or node.op_type not in named(Kind.RANDOM) or "seed" in node.attributes:
        return False
    found = in_force("", node.op_type, scope.opsets.get("", 1))
    return found is not None and "seed" in found.attributes


def draws(model: ir.Model) -> bool:
    """Whether anything in a model is drawn at random, with a seed or without."""
    return any(
        not node.domain
        and (node.op_type in named(Kind.RANDOM) or _trains(node))
        and node.op_identifier() not in model.functions
        for node in all_nodes(model)
    )


def _trains(node: ir.Node) -> bool:
    return node.op_type == "Dropout" and len(node.inputs) > 2 and node.inputs[2] is not None
