"""Opening models: from a path, a ModelProto, an ir.Model or a torch ONNXProgram to an ir.Model."""

from vlmpass.ir_tools.load.source import load

__all__ = ["load"]
