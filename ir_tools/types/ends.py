"""Inputs and outputs of functions that keep their types, and all that crosses there."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import onnx_ir as ir

from vlmpass.ir_tools.graph.walk import scopes
from vlmpass.ir_tools.types.bodies import Slot

__all__ = ["End", "wide_ends"]


@dataclass(frozen=True)
class End:
    """An input or output of a function, in its body and at one call.

    Attributes:
        values: The values that are typed by it: the formal input, or the call's output.
        slots: The places that take what crosses there.
    """

    values: tuple[ir.Value, ...]
    slots: tuple[Slot, ...]


def wide_ends(model: ir.Model, wide: Collection[ir.Value]) -> Iterator[End]:
    """Yield the ends of functions where wide values cross, for every call.

    What one function hands to another as it is is wide in both.

    Args:
        model: The model.
        wide: Values of the main graph and of functions.
    """
    if not wide:
        return
    calls = list(_calls(model))
    formals = {value for function in model.functions.values() for value in function.inputs}
    spread = set(wide)
    while more := set(_crossing(calls, formals, spread)) - spread:
        spread |= more
    for node, function in calls:
        for index, (value, formal) in enumerate(zip(node.inputs, function.inputs, strict=False)):
            if value is not None and formal in spread:
                assert node.graph is not None
                assert node.graph is not None
                yield End((formal,), (Slot(value, node, index, node.graph),))
        for index, (value, inner) in enumerate(zip(node.outputs, function.outputs, strict=False)):
            if value in spread:
                yield End((value,), (Slot(inner, None, index, function.graph),))


def _crossing(
    calls: Collection[tuple[ir.Node, ir.Function]],
    formals: Collection[ir.Value],
    spread: Collection[ir.Value],
) -> Iterator[ir.Value]:
    """Yield what is wide because what it is handed to, or comes from, is."""
    for node, function in calls:
        for value, formal in zip(node.inputs, function.inputs, strict=False):
            if value is not None and value in formals and formal in spread:
                yield value
        for value, inner in zip(node.outputs, function.outputs, strict=False):
            if value in spread or inner in spread:
                yield from (value, inner)


def _calls(model: ir.Model) -> Iterator[tuple[ir.Node, ir.Function]]:
    for scope in scopes(model):
        for node in scope.graph:
            function = model.functions.get(node.op_identifier())
            if function is not None:
                yield node, function
