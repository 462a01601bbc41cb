"""Steps from a value to what it is made of, as walks over attention take them."""

from __future__ import annotations

from onnx_ir import Node, Value

from vlmpass.ir_tools.graph.constants import constant_of
from vlmpass.ir_tools.rewrite import Declined, refuse

__all__ = ["alone", "made_by", "number", "scaled"]


def made_by(value: Value | None, *op_types: str) -> Node | None:
    """Return what produces a value, if that is one of these operators of the standard."""
    node = None if value is None else value.producer()
    return node if node is not None and not node.domain and node.op_type in op_types else None


def number(value: Value | None) -> float | None:
    """Return the number that a constant is, whatever its rank."""
    tensor = constant_of(value)
    return float(tensor.numpy().item()) if tensor is not None and tensor.size == 1 else None


def alone(value: Value) -> Value | Declined:
    """Return a value that has one user, or why it must stay."""
    if value.is_graph_output():
        return refuse("{} inside the match is an output of the graph", value)
    if len(value.uses()) > 1:
        users = [use.node for use in value.uses()]
        return refuse("{} is also used by {} ({})", value, users[-1], users[-1].op_type)
    return value


def scaled(value: Value | None) -> tuple[Value, float] | None:
    """Return what is multiplied with a number or divided by one, and the factor."""
    node = made_by(value, "Mul", "Div")
    if node is None:
        return None
    first, second = node.inputs
    factor = number(second)
    if factor is None and node.op_type == "Mul":
        first, factor = second, number(first)
    if first is None or not factor:
        return None
    return first, factor if node.op_type == "Mul" else 1 / factor
