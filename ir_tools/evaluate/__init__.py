"""Evaluating one node on constant inputs, as exactly as a runtime does."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.evaluate.arithmetic import KERNELS, Array, Inputs
from vlmpass.ir_tools.evaluate.moves import MOVES
from vlmpass.ir_tools.evaluate.reference import REFERENCE, by_reference

__all__ = ["Array", "can_evaluate", "evaluate"]


def can_evaluate(node: ir.Node) -> bool:
    """Whether a node of this operator can be evaluated, given constant inputs that suit it."""
    if node.domain not in ("", "ai.onnx") or not node.outputs:
        return False
    op_type = node.op_type
    if op_type not in KERNELS and op_type not in MOVES and op_type not in REFERENCE:
        return False
    return not any(attribute.is_ref() for attribute in node.attributes.values())


def evaluate(node: ir.Node, inputs: Inputs, opsets: Mapping[str, int]) -> list[Array] | None:
    """Return the outputs of a node: integers exactly, floats within 1 ulp of ONNX Runtime.

    float16 and bfloat16 are rounded after this one node, as a runtime that keeps to the graph does.

    Args:
        node: One that `can_evaluate` says yes to.
        inputs: Their values; None for an absent optional input.
        opsets: Imported opset version by domain.

    Returns:
        One array for each output, or None where no result is exact enough or the inputs do not fit
        the operator, which is for the runtime to report.
    """
    opset = opsets.get("", opsets.get("ai.onnx", 1))
    try:
        with np.errstate(all="ignore"):
            found = _compute(node, inputs, opset)
    except (ValueError, IndexError, TypeError, OverflowError):
        return None
    if found is None:
        return None
    outputs = found if isinstance(found, list) else [found]
    return outputs if len(outputs) == len(node.outputs) else None


def _compute(node: ir.Node, inputs: Inputs, opset: int) -> Array | list[Array] | None:
    if (move := MOVES.get(node.op_type)) is not None:
        return move(node, inputs, opset)
    present = [array for array in inputs if array is not None]
    if len(present) < len(inputs):
        return None
    if (kernel := KERNELS.get(node.op_type)) is not None:
        result = kernel(node, present)
        return None if result is None else np.asarray(result)
    return by_reference(node, present, opset)
