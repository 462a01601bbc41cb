"""What onnx and ONNX Runtime say of operators, apart from any one model."""

from vlmpass.ir_tools.operators.traits import (
    Kind,
    Traits,
    broadcasting,
    combining,
    commutes,
    complete,
    hands_on,
    is_exact,
    jumping,
    keeping_order,
    keeping_shape,
    named,
    rearranging,
    rounding,
    traits_of,
    whole,
)

__all__ = [
    "Kind",
    "Traits",
    "broadcasting",
    "combining",
    "commutes",
    "complete",
    "hands_on",
    "is_exact",
    "jumping",
    "keeping_order",
    "keeping_shape",
    "named",
    "rearranging",
    "rounding",
    "traits_of",
    "whole",
]
