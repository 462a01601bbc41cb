"""Integer arithmetic that a graph does in floats, which must not lose a bit.

Exporters write integer division as Cast, Div, Floor, Cast, and some unpack packed integers that
way; sizes, positions and indices are computed likewise. float32 holds what float16 would round from
2049 on and lose above 65504. Exact is what follows from integers and small constants by arithmetic
alone; of that, what is rounded to whole numbers, compared or becomes an integer decides something
and stays as wide as it is, with all that leads to it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.graph.constants import constant_of
from vlmpass.ir_tools.graph.walk import scopes
from vlmpass.ir_tools.operators import Kind, jumping, named, rounding, whole
from vlmpass.ir_tools.types.typing import Typing

__all__ = ["integer_arithmetic"]

_REASON = "integers are computed in floats, which half precision would round"
_SMALL = 1 << 16
_CASTS = named(Kind.CAST)
_ARITHMETIC = _CASTS | named(
    Kind.MOVE, Kind.ELEMENTWISE, Kind.REDUCTION, Kind.CUMULATION, Kind.GENERATOR
)


class _Region:
    """What of a model is exact, in one sweep over its nodes."""

    def __init__(self, typing: Typing) -> None:
        self._typing = typing
        self._exact: set[ir.Value] = set()
        self._whole: set[ir.Value] = set()
        self._numbers: dict[ir.Value, bool | None] = {}
        self.exact: dict[ir.Node, None] = {}
        self.deciding: dict[ir.Node, None] = {}

    def add(self, node: ir.Node) -> None:
        """Note whether a node is exact, whole, and whether it decides something."""
        if node.domain or not all(self._is_exact(value) for value in _data(node)):
            return
        if node.op_type in jumping() and self._takes_float(node):
            self.deciding[node] = None
        if node.op_type not in _ARITHMETIC or not self._is_number(node):
            return
        if not any(self._is_float(value) for value in node.outputs):
            if node.op_type in _CASTS and self._makes_integers(node) and self._takes_float(node):
                self.deciding[node] = None
            return
        self.exact[node] = None
        self._exact.update(node.outputs)
        if node.op_type in rounding() or self._keeps_whole(node):
            self._whole.update(node.outputs)
            floats = (value for value in _given(node) if self._is_float(value))
            if any(value.producer() in self.deciding for value in floats):
                self.deciding[node] = None

    def _is_number(self, node: ir.Node) -> bool:
        """Whether a node computes numbers, rather than looking them up in a table of weights."""
        table = node.inputs[0] if node.op_type == "Gather" else None
        return table is None or not self._is_float(table) or constant_of(table) is None

    def _keeps_whole(self, node: ir.Node) -> bool:
        if node.op_type not in whole() | _CASTS:
            return False
        return all(self._is_whole(value) for value in _data(node) if value is not None)

    def _is_float(self, value: ir.Value) -> bool:
        dtype = self._typing.dtype(value)
        return dtype is not None and dtype.is_floating_point()

    def _takes_float(self, node: ir.Node) -> bool:
        return any(self._is_float(value) for value in _data(node) if value is not None)

    def _makes_integers(self, node: ir.Node) -> bool:
        dtype = self._typing.dtype(node.outputs[0])
        return dtype is not None and dtype.is_integer()

    def _is_exact(self, value: ir.Value | None) -> bool:
        if value is None or value in self._exact:
            return True
        dtype = self._typing.dtype(value)
        if dtype is None or not dtype.is_floating_point():
            return dtype is not None
        return self._constant(value) is not None

    def _is_whole(self, value: ir.Value) -> bool:
        if value in self._whole or not self._is_float(value):
            return True
        return self._constant(value) is True

    def _constant(self, value: ir.Value) -> bool | None:
        """Return whether a small constant holds whole numbers; None for anything else."""
        if value not in self._numbers:
            tensor = constant_of(value)
            small = tensor is not None and tensor.size <= _SMALL
            if tensor is None or not small:
                self._numbers[value] = None
            else:
                array = np.asarray(tensor.numpy(), np.float64)
                self._numbers[value] = bool((array == np.floor(array)).all())
        return self._numbers[value]


def _data(node: ir.Node) -> tuple[ir.Value | None, ...]:
    """Return the inputs whose numbers matter."""
    return tuple(node.inputs[:1] if node.op_type == "CastLike" else node.inputs)


def _given(node: ir.Node) -> Iterator[ir.Value]:
    yield from (value for value in _data(node) if value is not None)


def integer_arithmetic(
    model: ir.Model, typing: Typing, narrowed: Collection[ir.DataType]
) -> dict[ir.Node, str]:
    """Return the nodes that compute integers in floats that are to become narrower.

    Args:
        model: Any model; no large weight is read.
        typing: Its types.
        narrowed: The float types that are to give way to narrower ones.

    Returns:
        The nodes, each with the reason why it must keep its types.
    """
    region = _Region(typing)
    if not narrowed:
        return {}
    nodes = [node for scope in scopes(model) for node in scope.graph]
    for node in nodes:
        region.add(node)
    kept = dict(region.deciding)
    for node in reversed(nodes):
        if node in kept:
            below = (value.producer() for value in _given(node))
            kept.update((each, None) for each in below if each in region.exact)
    return {node: _REASON for node in nodes if node in kept and _narrows(node, typing, narrowed)}


def _narrows(node: ir.Node, typing: Typing, narrowed: Collection[ir.DataType]) -> bool:
    return any(typing.dtype(value) in narrowed for value in (*node.outputs, *_given(node)))
