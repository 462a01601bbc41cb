"""One node as the rule for its operator sees it: inputs, attributes, and what is known of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

import onnx_ir as ir

from vlmpass.ir_tools.shapes.algebra import Algebra, Dim
from vlmpass.ir_tools.shapes.known import UNKNOWN, Known

if TYPE_CHECKING:
    from vlmpass.ir_tools.shapes.analysis import Facts

__all__ = ["Call", "Rule"]


class Call:
    """One node as its rule sees it."""

    __slots__ = ("__dict__", "facts", "node", "opset")

    def __init__(self, facts: Facts, node: ir.Node, opset: int) -> None:
        self.facts = facts
        self.node = node
        self.opset = opset

    @cached_property
    def algebra(self) -> Algebra:
        """The algebra of the analysis."""
        return self.facts.algebra

    def input(self, index: int) -> ir.Value | None:
        """Return an input, None if absent."""
        inputs = self.node.inputs
        return inputs[index] if index < len(inputs) else None

    def known(self, index: int) -> Known:
        """Return what is known about an input."""
        return self.facts[self.input(index)]

    def shape(self, index: int) -> tuple[Dim, ...] | None:
        """Return the shape of an input."""
        return self.facts[self.input(index)].shape

    def elements(self, index: int) -> tuple[Dim, ...] | None:
        """Return the elements of an input; those of a small int64 tensor always exist."""
        return self.facts.elements(self.input(index))

    def numbers(self, index: int) -> tuple[int, ...] | None:
        """Return the elements of an input if all are known numbers."""
        return self.known(index).numbers

    def has(self, index: int) -> bool:
        """Whether an optional input is there."""
        return self.input(index) is not None

    def attribute(self, name: str) -> ir.Attr | None:
        """Return an attribute, None if absent.

        Raises:
            KeyError: A function's caller gives it.
        """
        attribute = self.node.attributes.get(name)
        if attribute is not None and attribute.is_ref():
            raise KeyError(name)
        return attribute

    def get_int(self, name: str, default: int) -> int:
        """Return an integer attribute."""
        attribute = self.attribute(name)
        return default if attribute is None else attribute.as_int()

    def get_ints(self, name: str) -> tuple[int, ...] | None:
        """Return an integer list attribute, None if absent."""
        attribute = self.attribute(name)
        return None if attribute is None else tuple(attribute.as_ints())

    def get_string(self, name: str, default: str) -> str:
        """Return a string attribute."""
        attribute = self.attribute(name)
        return default if attribute is None else attribute.as_string()

    def axes(self, index: int, name: str = "axes") -> tuple[int, ...] | None:
        """Return axes given by an input or, in older opsets, by an attribute."""
        return self.numbers(index) if self.has(index) else self.get_ints(name)

    def fresh(self, rank: int, output: int = 0) -> tuple[Dim, ...]:
        """Return an unknown shape of a known rank."""
        value = self.node.outputs[output]
        return tuple(self.algebra.axis(value, axis) for axis in range(rank))

    def of_rank(self, rank: int | None) -> Known:
        """Return what is known if only the rank is."""
        return UNKNOWN if rank is None else Known(self.fresh(rank))


Rule: TypeAlias = Callable[[Call], "Known | Sequence[Known]"]
"""What an operator says about its outputs; one Known where there is one output."""
