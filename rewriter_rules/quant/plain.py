"""Finds the float weights that products multiply with, and that may be rounded to few bits."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import onnx_ir as ir

from vlmpass.ir_tools.graph.constants import constant_of
from vlmpass.ir_tools.graph.read_attributes import int_of, refers
from vlmpass.ir_tools.graph.walk import Scope, scopes
from vlmpass.ir_tools.weights import as_weight, expressions
from vlmpass.ir_tools.weights.leaves import Expression

__all__ = ["FLOATS", "SENSITIVE", "Left", "Multiplied", "multiplied", "taken_by"]

SENSITIVE = "vlmpass.sensitive"
"""The key of metadata that a product has which stays float because rounding it costs too much."""

FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
_PRODUCTS = ("MatMul", "Gemm", "Conv")


@dataclass(frozen=True)
class Multiplied:
    """A weight that nothing but products use, all of them alike.

    Attributes:
        value: The weight, a constant.
        users: Each product, with the scope that it is in.
        shape: Its shape.
        matrix: The weight as a matrix; that of a Conv is [outputs, everything else].
        axis: The axis of the matrix that products sum over.
    """

    value: ir.Value
    users: tuple[tuple[Scope, ir.Node], ...]
    shape: tuple[int, ...]
    matrix: Expression
    axis: int


@dataclass(frozen=True)
class Left:
    """A weight that stays as it is.

    Attributes:
        reason: Why, after "that are", or "that is" of one.
    """

    reason: str


def multiplied(
    model: ir.Model, at_least: int, excluded: Callable[[ir.Node], bool]
) -> Iterator[Multiplied | Left]:
    """Yield the weights of all products, in the order of the first of each.

    Args:
        model: It must not change before the last one is found.
        at_least: Elements that a weight must have.
        excluded: Whether the weight of a product stays as it is.
    """
    found: dict[ir.Value, list[tuple[Scope, ir.Node]]] = {}
    for scope in scopes(model):
        for node in scope.graph:
            if (weight := _weight(node, model.ir_version)) is not None:
                found.setdefault(weight, []).append((scope, node))
    for value, users in found.items():
        tensor = constant_of(value, model.ir_version)
        assert tensor is not None
        reason = _reason(value, len(tensor.shape), [node for _, node in users], excluded)
        if tensor.size < at_least:
            continue
        if reason:
            yield Left(reason)
            continue
        whole = as_weight(tensor).expression
        rest = math.prod(whole.shape[1:])
        matrix = expressions.reshaped(whole, (whole.shape[0], rest))
        yield Multiplied(value, tuple(users), whole.shape, matrix, _axis(users[0][1]))


def taken_by(model: ir.Model, weight: Multiplied) -> list[tuple[str, bool]]:
    """Return the values that products multiply with a weight, and whether they turn them.

    Empty where not all are measured: in a function, branch or loop, of a Conv, and constants.

    Args:
        model: What the weight is in.
        weight: The weight.
    """
    taken = []
    for scope, node in weight.users:
        x = node.inputs[0]
        if x is None or scope.graph is not model.graph or node.op_type == "Conv":
            return []
        if constant_of(x, model.ir_version) is not None:
            return []
        turned = node.op_type == "Gemm" and int_of(node, "transA", 0) != 0
        taken.append((str(x.name), turned))
    return taken


def _weight(node: ir.Node, ir_version: int) -> ir.Value | None:
    """Return the weight of a product; None if it is none, or not of constant floats."""
    if node.domain or node.op_type not in _PRODUCTS or len(node.inputs) < 2:
        return None
    value = node.inputs[1]
    tensor = constant_of(value, ir_version)
    return value if tensor is not None and tensor.dtype in FLOATS else None


def _axis(node: ir.Node) -> int:
    """Return the axis of its weight, as a matrix, that a product sums over."""
    turned = node.op_type == "Gemm" and int_of(node, "transB", 0) != 0
    return 1 if turned or node.op_type == "Conv" else 0


def _reason(
    value: ir.Value, rank: int, nodes: list[ir.Node], excluded: Callable[[ir.Node], bool]
) -> str | None:
    """Return why a weight stays as it is, if it does."""
    if any(map(refers, nodes)):
        return "in a function whose calls say how they multiply"
    others = [each.node.op_type for each in value.uses() if each.node not in nodes]
    twice = len(value.uses()) - len(others) > len(nodes)
    if others or twice or value.is_graph_output():
        return f"also used by {others[0] if others else 'something else'}"
    if len({(_axis(node), node.op_type == "Conv") for node in nodes}) > 1:
        return "multiplied along different axes"
    if nodes[0].op_type != "Conv" and rank != 2:
        return f"of rank {rank}"
    if any(SENSITIVE in node.metadata_props for node in nodes):
        return "sensitive"
    return "excluded" if any(map(excluded, nodes)) else None
