"""What produces a value: as a key for the index and as words for a message."""

from __future__ import annotations

import onnx_ir as ir

from vlmpass.ir_tools.rewrite.constants import Constants, is_constant
from vlmpass.ir_tools.rewrite.plan import ABSENT_TOKEN, CONSTANT_TOKEN

__all__ = ["Found", "describe", "token_of"]


def token_of(value: ir.Value | None) -> str:
    """Return what produces a value, as `Plan.may_match` wants it."""
    if value is None:
        return ABSENT_TOKEN
    producer = value.producer()
    if producer is None:
        return CONSTANT_TOKEN if is_constant(value) else "?"
    op_type = producer.op_type
    return CONSTANT_TOKEN if op_type == "Constant" else op_type


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
