"""Masks that are added before a softmax: part of its island, as float32 has room for them.

Added to -3.4e38, a score of float32 disappears, so that a row that is masked throughout comes out
even; added to -1e4 it keeps three digits, and such a row comes out as if nothing were masked. No
number of float16 does either to scores.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterator
from dataclasses import dataclass

import ml_dtypes
import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.graph.constants import constant_of
from vlmpass.ir_tools.graph.walk import Scope, scopes
from vlmpass.ir_tools.operators import rearranging
from vlmpass.ir_tools.types.narrow import MASK
from vlmpass.ir_tools.types.saturate import CARRIERS

__all__ = ["masks_of_islands"]

_INSPECTED = 1 << 24
_LAST = rearranging() | {"Add", "Sub", "Sum"}
_REASON = "a mask is added to what a softmax takes, and half precision has no room for both"


@dataclass(frozen=True)
class _Masks:
    """Which numbers are masks that a half precision does not replace.

    Attributes:
        least: The least size: added to it, a score of the half precision loses its fraction.
        most: The most: beyond, float32 loses a score too, and the half precision holds the mask.
    """

    least: float
    most: float

    @classmethod
    def of(cls, half: ir.DataType) -> _Masks:
        info = ml_dtypes.finfo(half.numpy())  # type: ignore[no-untyped-call]
        return cls(1 / float(info.eps), MASK if float(info.max) > MASK else math.inf)

    def among(self, tensor: ir.TensorProtocol) -> bool:
        """Whether a tensor holds a mask."""
        if tensor.dtype not in (ir.DataType.FLOAT, ir.DataType.DOUBLE):
            return False
        if tensor.nbytes > _INSPECTED:
            return False
        sizes = np.abs(tensor.numpy())
        return bool(((sizes >= self.least) & (sizes < self.most)).any())

    def carries(self, node: ir.Node, masked: set[ir.Value]) -> bool:
        """Whether a node hands a mask on, or makes one."""
        if node.op_type == "ConstantOfShape":
            fill = node.attributes.get("value")
            return fill is not None and not fill.is_ref() and self.among(fill.as_tensor())
        return any(value is not None and self.comes_in(value, masked) for value in node.inputs)

    def comes_in(self, value: ir.Value, masked: set[ir.Value]) -> bool:
        """Whether a value is a mask."""
        tensor = constant_of(value)
        return value in masked or (tensor is not None and self.among(tensor))


def masks_of_islands(
    model: ir.Model, kept: Container[ir.Node], half: ir.DataType
) -> dict[ir.Node, str]:
    """Return the nodes that make masks and add them to what goes into islands and nowhere else.

    Args:
        model: The model.
        kept: The nodes of the islands.
        half: The half precision of what is not in them.

    Returns:
        The nodes with the reason; those of a mask that is used otherwise as well are not among
        them.
    """
    found: dict[ir.Node, str] = {}
    for scope in scopes(model):
        found.update(dict.fromkeys(_in_scope(scope, kept, _Masks.of(half)), _REASON))
    return found


def _in_scope(scope: Scope, kept: Container[ir.Node], masks: _Masks) -> dict[ir.Node, None]:
    carrying: dict[ir.Node, None] = {}
    masked: set[ir.Value] = set()
    for node in scope.graph:
        if not node.domain and node.op_type in CARRIERS and masks.carries(node, masked):
            carrying[node] = None
            masked.update(node.outputs)
    joined: dict[ir.Node, None] = {}
    for node in reversed(carrying):
        users = list(_users(node))
        inside = (user in joined or (node.op_type in _LAST and user in kept) for user in users)
        if users and all(inside):
            joined[node] = None
    while loose := [node for node in joined if not _is_tied(node, masked, joined, kept)]:
        for node in loose:
            del joined[node]
    return joined


def _users(node: ir.Node) -> Iterator[ir.Node | None]:
    """Yield the users of a node's outputs, None for a graph that gives one out."""
    for value in node.outputs:
        yield from (user for user, _ in value.uses())
        if value.is_graph_output():
            yield None


def _is_tied(
    node: ir.Node,
    masked: set[ir.Value],
    joined: Container[ir.Node],
    kept: Container[ir.Node],
) -> bool:
    """Whether all that carries a mask on either side of a node is in an island as well."""
    makers = (value.producer() for value in node.inputs if value in masked)
    return all(each in joined for each in makers) and all(
        user in kept or user in joined for user in _users(node)
    )
