"""Angles of positions: what a rotary or sinusoidal embedding turns by, from the position on.

At position 5 000, float16 has steps of 4 and an angle of 5 000 radians is off by as much, so that
its sine says nothing. An angle of a position is what follows from integers, Range and the graph's
inputs by arithmetic with constants; what leads to it stays as wide as the sine.
"""

from __future__ import annotations

from collections.abc import Container

import onnx_ir as ir

from vlmpass.ir_tools.graph.constants import constant_of
from vlmpass.ir_tools.graph.walk import scopes
from vlmpass.ir_tools.operators import Kind, named
from vlmpass.ir_tools.types.typing import Typing

__all__ = ["angles"]

_TURNS = frozenset({"Sin", "Cos", "Tan"})
_REASON = "a position becomes an angle, which needs its low bits"
_ARITHMETIC = named(Kind.MOVE, Kind.CAST, Kind.ELEMENTWISE, Kind.PRODUCT, Kind.GENERATOR)


def angles(model: ir.Model, typing: Typing, kept: Container[ir.Node]) -> dict[ir.Node, str]:
    """Return the nodes that lead from positions to angles, with the reason.

    Args:
        model: The model.
        typing: Its types.
        kept: The nodes that stay wide; of an angle's sine that is to be narrow, nothing is kept.
    """
    nodes = [node for scope in scopes(model) for node in scope.graph]
    inputs = set(model.graph.inputs)
    made: set[ir.Node] = set()

    def is_position(value: ir.Value | None) -> bool:
        if value is None or value in inputs or value.producer() in made:
            return True
        dtype = typing.dtype(value)
        if dtype is not None and not dtype.is_floating_point():
            return True
        return constant_of(value) is not None

    for node in nodes:
        if not node.domain and node.op_type in _ARITHMETIC and all(map(is_position, node.inputs)):
            made.add(node)
    turned = [n for n in nodes if not n.domain and n.op_type in _TURNS and n in kept]
    found: dict[ir.Node, str] = {}
    waiting = [value for node in turned for value in node.inputs]
    while waiting:
        value = waiting.pop()
        maker = value.producer() if value is not None else None
        if maker is None or maker not in made or maker in found or not _is_float(maker, typing):
            continue
        found[maker] = _REASON
        waiting += maker.inputs
    return found


def _is_float(node: ir.Node, typing: Typing) -> bool:
    dtypes = [typing.dtype(value) for value in node.outputs]
    return any(dtype is not None and dtype.is_floating_point() for dtype in dtypes)
