"""What values come from: constants that a graph unpacks, or anything that varies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

from vlmpass.ir_tools.graph.constants import constant_of
from vlmpass.ir_tools.graph.walk import operands_first, subgraphs

__all__ = ["Origin", "Origins"]

_UNPACKS = frozenset({"BitShift", "BitwiseAnd", "Mod"})


@dataclass(frozen=True)
class Origin:
    """What a value comes from.

    Attributes:
        varies: Whether anything but constants takes part.
        unpacks: Whether bits of integers are taken apart on the way.
        disputed: A value that is a constant each time, but not always the same one: an input of a
            function with several calls, or an initializer that the model's caller may replace.
    """

    varies: bool = False
    unpacks: bool = False
    disputed: ir.Value | None = None


class Origins:
    """Finds the origin of values, each node once.

    Args:
        outside: The origin of a value that no node makes and that is no constant.
    """

    def __init__(self, outside: Callable[[ir.Value], Origin]) -> None:
        self._outside = outside
        self._found: dict[ir.Value, Origin] = {}

    def of(self, value: ir.Value) -> Origin:
        """Return what a value comes from."""
        for each in operands_first(value, self._inputs, self._found):
            self._found[each] = self._of(each)
        return self._found[value]

    @staticmethod
    def _inputs(value: ir.Value) -> list[ir.Value]:
        node = value.producer()
        if node is None or constant_of(value) is not None:
            return []
        return [each for each in node.inputs if each is not None]

    def _of(self, value: ir.Value) -> Origin:
        if constant_of(value) is not None:
            return Origin()
        node = value.producer()
        if node is None:
            return self._outside(value)
        origins = [self._found[each] for each in self._inputs(value)]
        known = bool(origins) and not node.domain and not any(subgraphs(node))
        return Origin(
            not known or any(each.varies for each in origins),
            node.op_type in _UNPACKS or any(each.unpacks for each in origins),
            next((each.disputed for each in origins if each.disputed is not None), None),
        )
