"""What a model draws at random, made the same in two models: each of its nodes gets a seed."""

from __future__ import annotations

import onnx_ir as ir

from vlmpass.ir_tools.graph.clone import clone
from vlmpass.ir_tools.graph.walk import Scope, scopes
from vlmpass.ir_tools.operators import Kind, named
from vlmpass.ir_tools.operators.schema import in_force

__all__ = ["with_seeds"]


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
