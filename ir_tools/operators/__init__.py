"""What onnx and ONNX Runtime say of operators, apart from any one model."""

from vlmpass.ir_tools.operators.traits import (
    Kind,
    Traits,
    broadcasting,
    commutes,
    complete,
    named,
    traits_of,
)

__all__ = ["Kind", "Traits", "broadcasting", "commutes", "complete", "named", "traits_of"]
