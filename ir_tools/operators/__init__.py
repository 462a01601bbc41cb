"""What onnx and ONNX Runtime say of operators, apart from any one model."""

from vlmpass.ir_tools.operators.traits import (
    Kind,
    Traits,
    broadcasting,
    commutes,
    complete,
    hands_on,
    is_exact,
    keeping_order,
    keeping_shape,
    named,
    traits_of,
    whole,
)

__all__ = [
    "Kind",
    "Traits",
    "broadcasting",
    "commutes",
    "complete",
    "hands_on",
    "is_exact",
    "keeping_order",
    "keeping_shape",
    "named",
    "traits_of",
    "whole",
]
