"""Finds the linear layers of a model whose weights its graph dequantises."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from vlmpass.ir_tools.graph.constants import constant_of
from vlmpass.ir_tools.graph.walk import Scope, scopes
from vlmpass.ir_tools.shapes import Facts, facts_of, visit_scope
from vlmpass.rewriter_rules.quant.calls import Calls
from vlmpass.rewriter_rules.quant.constant import Constants
from vlmpass.rewriter_rules.quant.linear import Linear, Product, layer_around, product_of
from vlmpass.rewriter_rules.quant.recognize import Odd, Quantized, recognize

__all__ = ["Layer", "find_layers"]

_MORE = ("it does more than multiply and add a bias", "spell it as MatMul and Add")
_OUTSIDE = ("its weight is unpacked outside of its function", "put inline-functions before it")


@dataclass(frozen=True)
class Layer:
    """A linear layer with a dequantised weight.

    Attributes:
        scope: Where it is.
        linear: Its nodes.
        weight: What its weight is made of.
    """

    scope: Scope
    linear: Linear
    weight: Quantized | Odd


def find_layers(model: ir.Model, blocks: Sequence[int] | None) -> Iterator[Layer]:
    """Yield all of them, functions' last.

    Args:
        model: It must not change before the last one is found.
        blocks: As in `recognize`.
    """
    calls = Calls(model)
    known: dict[tuple[ir.Value, bool], Quantized | Odd | None] = {}
    facts: dict[ir.Graph | ir.Function, Facts] = {}
    for scope in scopes(model):
        for node in scope.graph:
            product = product_of(node)
            if product is None:
                continue
            key = product.weight, product.turned
            constants = calls.constants(scope)
            if key not in known:
                known[key] = _weight(product, calls, constants, blocks)
            weight = known[key]
            if weight is None:
                continue
            if scope.owner not in facts:
                facts[scope.owner] = _facts(model, scope)
            yield _layer(scope, product, weight, constants, facts[scope.owner])


def _weight(
    product: Product, calls: Calls, constants: Constants, blocks: Sequence[int] | None
) -> Quantized | Odd | None:
    """Return what a weight is made of; None if it is nothing that a graph unpacks."""
    if constant_of(product.weight) is not None:
        return None
    origin = calls.origin(product.weight)
    if origin.varies:
        return None
    if product.weight.producer() is None:
        return Odd(None, *_OUTSIDE) if origin.unpacks else None
    if origin.disputed is not None:
        return Odd(None, *calls.why_disputed(origin.disputed)) if origin.unpacks else None
    found = recognize(product.weight, constants, turned=product.turned, blocks=blocks)
    return None if isinstance(found, Odd) and not origin.unpacks else found


def _facts(model: ir.Model, scope: Scope) -> Facts:
    facts = facts_of(model)
    visit_scope(facts, Scope(scope.owner, scope.owner, 0), lambda node, scope: None)
    return facts


def _layer(
    scope: Scope, product: Product, weight: Quantized | Odd, constants: Constants, facts: Facts
) -> Layer:
    bare = Linear(product, product.x, None, (product.node,))
    if weight.whole is None or len(weight.whole.shape) != 2:
        return Layer(scope, bare, weight)
    linear = layer_around(product, weight.whole, constants, facts)
    if linear is None:
        return Layer(scope, bare, Odd(None, *_MORE))
    return Layer(scope, linear, weight)
