"""The caches of a decoder: what comes in, is joined with what is new, and goes out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from vlmpass.ir_tools.graph.tape import Tape

__all__ = ["CACHE_RANK", "LENGTH", "OPERATORS", "Cached", "caches", "joined", "register"]

OPERATORS = {
    ("", "Attention"): {4: 1, 5: 2},
    ("com.microsoft", "MultiHeadAttention"): {6: 1, 7: 2},
}
"""Which input is of before, and which output it comes out of with what is new."""
LENGTH = "past_length"
CACHE_RANK = 4
"""A cache is [batch, heads, tokens, width], or with tokens before heads."""


@dataclass(frozen=True)
class Cached:
    """A cache: an input, and the output that holds it and what is new.

    Attributes:
        past: The input.
        present: The output.
        axis: Along which tokens lie.
        joins: What joins it with what is new.
        at: As which input of that the new comes in.
    """

    past: ir.Value
    present: ir.Value
    axis: int
    joins: ir.Node
    at: int

    @property
    def new(self) -> ir.Value | None:
        """What is joined with it, as it stands now: it may be of a cache that was laid out anew."""
        return self.joins.inputs[self.at]

    @property
    def size(self) -> int | ir.SymbolicDim | None:
        """How many tokens the input holds."""
        return None if self.past.shape is None else self.past.shape[self.axis]


def caches(
    graph: ir.Graph, operators: Mapping[tuple[str, str], Mapping[int, int]] = OPERATORS
) -> Iterator[Cached]:
    """Yield inputs that something new is joined with, and given out.

    Args:
        graph: The main graph.
        operators: What joins them, as `OPERATORS` has it.
    """
    for value in graph.inputs:
        users = [use for use in value.uses() if use.node.graph is graph]
        found = [each for use in users for each in joined(value, *use, operators)]
        if len(found) == 1:
            yield found[0]


def joined(
    value: ir.Value,
    node: ir.Node,
    at: int,
    operators: Mapping[tuple[str, str], Mapping[int, int]] = OPERATORS,
    *,
    held: bool = False,
) -> Iterator[Cached]:
    """Yield what a node makes of a cache, or of the part of a buffer that counts.

    Args:
        value: It.
        node: Takes it.
        at: As which input.
        operators: What joins caches with what is new.
        held: Whether that comes out in a buffer, and not by itself.
    """
    outputs = operators.get((node.domain, node.op_type), {})
    given = node.outputs[outputs[at]] if outputs.get(at, 9) < len(node.outputs) else None
    if given is not None and given.is_graph_output() != held:
        yield Cached(value, given, 2, node, outputs[at])
    joins = (node.domain, node.op_type) == ("", "Concat") and at == 0 and len(node.inputs) == 2
    if (
        joins
        and node.outputs[0].is_graph_output() != held
        and value.shape is not None
        and len(value.shape) == CACHE_RANK
    ):
        axis = node.attributes.get_int("axis", 0) % len(value.shape)
        if axis:
            yield Cached(value, node.outputs[0], axis, node, 1)


def register(graph: ir.Graph, tape: Tape) -> None:
    """Let constants of a tape be initializers.

    Args:
        graph: Takes them.
        tape: Recorded them.
    """
    for constant in tape.constants:
        graph.register_initializer(constant)
