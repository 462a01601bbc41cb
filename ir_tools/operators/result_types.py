"""What type the results of operators have, as far as their schemas decide it."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import onnx_ir as ir

from vlmpass.ir_tools.operators.schema import Schema, history, in_force
from vlmpass.ir_tools.operators.type_texts import dtype_of

__all__ = ["ResultType", "result_type"]


class ResultType(NamedTuple):
    """What type a result has, as far as the schemas decide it.

    Attributes:
        fixed: Its element type, where it is always the same.
        operand: The position of an operand of its type, where there is one.
    """

    fixed: ir.DataType | None = None
    operand: int | None = None


@cache
def result_type(op_type: str, index: int) -> ResultType:
    """Return what a result of a standard operator is at every version; nothing if they differ."""
    found = {_result_type(in_force("", op_type, each), index) for each in history(op_type)}
    return found.pop() if len(found) == 1 else ResultType()


def _result_type(known: Schema | None, index: int) -> ResultType:
    formal = None if known is None else known.output_at(index)
    if known is None or formal is None or not formal.homogeneous:
        return ResultType()
    if (fixed := known.fixed.get(formal.parameter)) is not None:
        return ResultType(fixed=dtype_of(fixed))
    same = (i for i, each in enumerate(known.inputs) if each.parameter == formal.parameter)
    return ResultType(operand=next(same, None))
