"""What an option of a conversion would do about a node: tried on the facts, not on the model."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from vlmpass.ir_tools.operators.schema import history, since
from vlmpass.ir_tools.operators.type_texts import tensor
from vlmpass.ir_tools.targets.judge import Context, signature

__all__ = ["SET_DIMS", "remedy"]

SET_DIMS = "vlmpass convert --passes 'set-dims{...}'"
"""What helps where sizes are open that must not be."""

_WIDE = tensor(ir.DataType.FLOAT)
_NARROW = {tensor(each) for each in (ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE)}


def remedy(node: ir.Node, context: Context) -> str:
    """Return the options of `vlmpass convert` with which a target takes a node; empty if none.

    Args:
        node: One that the target does not run.
        context: What for, and where it stands.
    """
    kinds = signature(node)
    wide = tuple(_WIDE if kind in _NARROW else kind for kind in kinds)
    for types, option in ((kinds, ""), (wide, "--dtype float32")):
        if types == kinds and option:
            continue
        if option and context.verdict(node, types).runs:
            return option
        for opset in _opsets(node, context):
            if context.at({**context.opsets, "": opset}).verdict(node, types).runs:
                return " ".join(filter(None, (f"--opset {opset}", option)))
    return ""


def _opsets(node: ir.Node, context: Context) -> Iterator[int]:
    """Yield the newest opset for every other version of an operator, the preferred opset first."""
    if node.domain not in ("", "ai.onnx"):
        return
    target, versions = context.target, history(node.op_type)
    now = context.opsets.get("", context.opsets.get("ai.onnx", 1))
    seen = {since(node.op_type, now)}
    first = [target.preferred_opset] if target.preferred_opset is not None else []
    for opset in (*first, *range(target.opset, target.lowest_opset - 1, -1)):
        version = since(node.op_type, opset)
        if version is not None and version in versions and version not in seen:
            seen.add(version)
            yield opset
