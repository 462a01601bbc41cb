"""What produces a value: in words for a message."""

from __future__ import annotations

import onnx_ir as ir

from vlmpass.ir_tools.graph.constants import is_constant
from vlmpass.ir_tools.rewrite.constant_values import Constants

__all__ = ["Found", "describe"]


def describe(value: ir.Value | None) -> str:
    """Return what a value is, for messages: ``Tanh at '/act'`` or ``input 'x'``."""
    if value is None:
        return "nothing"
    if is_constant(value):
        array = Constants().small(value)
        if array is not None and array.size <= 4:
            numbers = [f"{float(number):.7g}" for number in array.flat]
            return f"[{', '.join(numbers)}]" if array.ndim else numbers[0]
        return f"constant '{value.name}'"
    producer = value.producer()
    if producer is not None:
        return f"{producer.op_type} at '{producer.name or value.name}'"
    return f"input '{value.name}'"


class Found:
    """A value that is described only when somebody reads the message."""

    def __init__(self, value: ir.Value | None) -> None:
        self.value = value

    def __str__(self) -> str:
        return describe(self.value)
