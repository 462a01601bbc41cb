"""Evaluating one node on constant inputs, as exactly as a runtime does."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.evaluate.arithmetic import KERNELS, Array, Inputs
from vlmpass.ir_tools.evaluate.conform import conforms, outputs_conform
from vlmpass.ir_tools.evaluate.moves import MOVES
from vlmpass.ir_tools.evaluate.reference import REFERENCE, by_reference

__all__ = ["Array", "can_evaluate", "evaluate"]

_COMPLEX = frozenset({ir.DataType.COMPLEX64, ir.DataType.COMPLEX128})
"""What no runtime computes with, and the reference evaluator only in part."""
_VARIADIC = frozenset({"Max", "Min", "Sum"})
"""What broadcasts since opset 8 only."""


_FLAGS = (
    "allowzero", "exclusive", "fmod", "keepdims", "noop_with_empty_axes", "reverse", "saturate",
    "select_last_index", "upper",
)  # fmt: skip
"""Attributes that are 0 or 1; other numbers are taken for either by one runtime or another."""


def can_evaluate(node: ir.Node) -> bool:
    """Whether a node of this operator can be evaluated, given constant inputs that suit it."""
    if node.domain not in ("", "ai.onnx") or not node.outputs:
        return False
    op_type = node.op_type
    if op_type not in KERNELS and op_type not in MOVES and op_type not in REFERENCE:
        return False
    if any(attribute.is_ref() for attribute in node.attributes.values()):
        return False
    return all(node.attributes.get_int(flag, 0) in (0, 1) for flag in _FLAGS)


def evaluate(node: ir.Node, inputs: Inputs, opsets: Mapping[str, int]) -> list[Array] | None:
    """Return the outputs of a node: integers exactly, floats within 1 ulp of ONNX Runtime.

    Where the standard, the reference evaluator and ONNX Runtime give different results, and where
    the schema does not admit the inputs, there are none: what the model says then is left to its
    runtime. float16 and bfloat16 are rounded after this one node, as a runtime that keeps to the
    graph does.

    Args:
        node: One that `can_evaluate` says yes to.
        inputs: Their values; None for an absent optional input.
        opsets: Imported opset version by domain.

    Returns:
        One array for each output, or None where no result is exact enough or the inputs do not fit
        the operator, which is for the runtime to report.
    """
    opset = opsets.get("", opsets.get("ai.onnx", 1))
    types = [None if array is None else _dtype(array) for array in inputs]
    if not conforms(node, types, opset) or not _COMPLEX.isdisjoint(types):
        return None
    try:
        with np.errstate(all="ignore"):
            found = _compute(node, inputs, opset)
    except (ValueError, IndexError, TypeError, OverflowError):
        return None
    if found is None:
        return None
    outputs = [np.asarray(each) for each in (found if isinstance(found, list) else [found])]
    if len(outputs) != len(node.outputs):
        return None
    return outputs if outputs_conform(node, types, list(map(_dtype, outputs)), opset) else None


def _dtype(array: Array) -> ir.DataType:
    text = array.dtype.kind in "OUST"
    return ir.DataType.STRING if text else ir.DataType.from_numpy(array.dtype)


def _compute(node: ir.Node, inputs: Inputs, opset: int) -> Array | list[Array] | None:
    if (move := MOVES.get(node.op_type)) is not None:
        return move(node, inputs, opset)
    present = [array for array in inputs if array is not None]
    if len(present) < len(inputs):
        return None
    if opset < 8 and node.op_type in _VARIADIC and len({x.shape for x in present}) > 1:
        return None
    if (kernel := KERNELS.get(node.op_type)) is not None:
        return kernel(node, present)
    return by_reference(node, present, opset)
