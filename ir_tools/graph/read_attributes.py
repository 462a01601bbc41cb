"""Attributes as numbers, where rules ask for them; what a call gives is no number of the node.

onnx_ir gives None for an attribute that a function's node takes from its call, whatever the
default: what is read so would be taken for 0 or for absent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import onnx_ir as ir

from vlmpass.ir_tools.errors import VlmpassError

__all__ = ["GivenByCall", "float_of", "int_of", "ints_of", "refers", "text_of"]

T = TypeVar("T")


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


def int_of(node: ir.Node, name: str, default: T) -> int | T:
    """Return an integer attribute.

    Args:
        node: The node.
        name: The attribute.
        default: What an absent one means.

    Raises:
        GivenByCall: It is not the node's own.
    """
    found = _own(node, name)
    return default if found is None else found.as_int()


def float_of(node: ir.Node, name: str, default: T) -> float | T:
    """Return a float attribute.

    Args:
        node: The node.
        name: The attribute.
        default: What an absent one means.

    Raises:
        GivenByCall: It is not the node's own.
    """
    found = _own(node, name)
    return default if found is None else found.as_float()


def text_of(node: ir.Node, name: str, default: T) -> str | T:
    """Return a string attribute.

    Args:
        node: The node.
        name: The attribute.
        default: What an absent one means.

    Raises:
        GivenByCall: It is not the node's own.
    """
    found = _own(node, name)
    return default if found is None else found.as_string()


def ints_of(node: ir.Node, name: str, default: T) -> Sequence[int] | T:
    """Return an attribute of integers.

    Args:
        node: The node.
        name: The attribute.
        default: What an absent one means.

    Raises:
        GivenByCall: It is not the node's own.
    """
    found = _own(node, name)
    return default if found is None else found.as_ints()
