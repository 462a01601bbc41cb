"""Opening models: from a path, a ModelProto, an ir.Model or a torch ONNXProgram to an ir.Model."""

from typing import TYPE_CHECKING

from vlmpass.ir_tools.system.lazy_imports import lazy

if TYPE_CHECKING:
    from vlmpass.ir_tools.load.source import load

__all__ = ["load"]

__getattr__ = lazy(__name__, {"load": "source"})
