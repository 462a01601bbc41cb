"""Element types of every value, from the operator schemas."""

from vlmpass.ir_tools.operators.type_texts import dtype_of, parse, spell
from vlmpass.ir_tools.types.conflict import Binding, Conflict
from vlmpass.ir_tools.types.typing import Typing, apply, require_well_typed, solve

__all__ = [
    "Binding",
    "Conflict",
    "Typing",
    "apply",
    "dtype_of",
    "parse",
    "require_well_typed",
    "solve",
    "spell",
]
