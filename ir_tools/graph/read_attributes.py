"""Attributes as numbers, where rules ask for them; what a call gives is no number of the node.

onnx_ir gives None for an attribute that a function's node takes from its call, whatever the
default: what is read so would be taken for 0 or for absent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import onnx_ir as ir

from vlmpass.ir_tools.errors import VlmpassError

__all__ = ["GivenByCall", "float_of", "int_of", "ints_of", "refers", "text_of"]

T = TypeVar("T")
V = TypeVar("V")


class GivenByCall(VlmpassError):
    """An attribute decides, and each call of the function around its node gives another one.

    A rule that asks for it is refused there.

    Args:
        node: The node.
        name: The attribute.
    """

    def __init__(self, node: ir.Node, name: str) -> None:
        self.node = node
        self.name = name
        problem = f"{node.op_type} {node.name or ''}: calls of its function give its {name}"
        super().__init__(problem, remedy="run inline-functions first")


def refers(node: ir.Node) -> bool:
    """Return whether calls of the function around a node give any of its attributes."""
    return any(each.is_ref() for each in node.attributes.values())


def _own(node: ir.Node, name: str) -> ir.Attr | None:
    given = node.attributes.get(name)
    if given is not None and given.is_ref():
        raise GivenByCall(node, name)
    return given


class _Reader(Generic[V]):
    """Reads attributes of one kind.

    Args:
        convert: Takes the value out of an attribute that is there.
    """

    def __init__(self, convert: Callable[[ir.Attr], V]) -> None:
        self._convert = convert

    def __call__(self, node: ir.Node, name: str, default: T) -> V | T:
        """Return what a node's own attribute says.

        Args:
            node: The node.
            name: The attribute.
            default: What an absent one means.

        Raises:
            GivenByCall: It is not the node's own.
        """
        found = _own(node, name)
        return default if found is None else self._convert(found)


int_of = _Reader(ir.Attr.as_int)
float_of = _Reader(ir.Attr.as_float)
text_of = _Reader(ir.Attr.as_string)
ints_of = _Reader(ir.Attr.as_ints)
