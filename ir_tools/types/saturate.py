"""Masks of a wide type on their way into a narrow one: they stop at its range.

-3.4e38 cast to half precision is minus infinity, and makes NaN of a row that is masked throughout.
Constants that become narrow are refitted as they are cast; what is computed from wide ones, by a
node that stays wide, is bounded before its Cast likewise.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.graph.constants import constant_of
from vlmpass.ir_tools.graph.edit import constant_node
from vlmpass.ir_tools.graph.names import Names
from vlmpass.ir_tools.graph.walk import Scope, scopes
from vlmpass.ir_tools.operators import Kind, combining, named
from vlmpass.ir_tools.operators.dtypes import end_of
from vlmpass.ir_tools.operators.type_texts import dtype_of
from vlmpass.ir_tools.types.narrow import MASK

__all__ = ["CARRIERS", "Saturation"]

CARRIERS = combining() | named(Kind.MOVE, Kind.FILL, Kind.SCATTER, Kind.CAST, Kind.GENERATOR)
"""Operators that hand masks on, or make them."""

_BROADCASTS = 8  # the opset from which on operands of Max may differ in shape
_INSPECTED = 1 << 24
_WIDE = (ir.DataType.FLOAT, ir.DataType.DOUBLE)


class Saturation:
    """Bounds what holds masks beyond the range of the type that it is cast to.

    Args:
        model: The model, its constants as they were.
        names: Where fresh names come from.
    """

    def __init__(self, model: ir.Model, names: Names) -> None:
        self._names = names
        self._masks: dict[ir.Value, float] = {}
        self._made: dict[tuple[ir.Value, str], ir.Value] = {}
        for scope in scopes(model):
            if scope.opsets.get("", 1) >= _BROADCASTS:
                self._look(scope)

    def bounded(self, value: ir.Value, have: str, want: str) -> ir.Value:
        """Return a value, bounded in its own type if it holds masks that another one does not.

        Args:
            value: A value that is not a constant.
            have: Its tensor type.
            want: The type that it is to be cast to.
        """
        wide, narrow, node = dtype_of(have), dtype_of(want), value.producer()
        if value not in self._masks or node is None or wide is None or narrow is None:
            return value
        if not narrow.is_floating_point() or self._masks[value] <= end_of(narrow):
            return value
        if (value, want) not in self._made:
            self._made[value, want] = self._bound(value, wide, -end_of(narrow) / 2, node)
        return self._made[value, want]

    def _look(self, scope: Scope) -> None:
        """Note what carries finite masks, and no infinite ones."""
        endless: set[ir.Value] = set()
        for node in scope.graph:
            if node.domain or node.op_type not in CARRIERS:
                continue
            sizes = list(self._sizes(node, endless))
            if any(np.isinf(sizes)):
                endless.update(node.outputs)
            elif sizes:
                self._masks.update(dict.fromkeys(node.outputs, max(sizes)))

    def _sizes(self, node: ir.Node, endless: set[ir.Value]) -> Iterator[float]:
        """Yield the sizes of the masks that come in, or are made."""
        fill = node.attributes.get("value") if node.op_type == "ConstantOfShape" else None
        if fill is not None and not fill.is_ref():
            yield from _mask(fill.as_tensor())
        for value in filter(None, node.inputs):
            if value in endless:
                yield np.inf
            elif value in self._masks:
                yield self._masks[value]
            elif (held := constant_of(value)) is not None:
                yield from _mask(held)

    def _bound(self, value: ir.Value, dtype: ir.DataType, least: float, node: ir.Node) -> ir.Value:
        name = self._names.value(f"{value.name}/bounded")
        end = constant_node(
            ir.tensor(least, dtype=dtype),
            self._names.value(f"{name}/least"),
            self._names.node(f"{name}/Constant"),
        )
        bound = ir.Node("", "Max", [value, end.outputs[0]], name=self._names.node(f"{name}/Max"))
        made = bound.outputs[0]
        made.name, made.type, made.shape = name, ir.TensorType(dtype), value.shape
        assert node.graph is not None
        node.graph.insert_after(node, [end, bound])
        return made


def _mask(tensor: ir.TensorProtocol) -> Iterator[float]:
    """Yield the size of the largest mask that a tensor holds, if it holds any."""
    if tensor.dtype in _WIDE and tensor.size and tensor.nbytes <= _INSPECTED:
        largest = float(np.abs(tensor.numpy()).max())
        if largest >= MASK:
            yield largest
