"""What an option of a conversion would do about a node: tried on the facts, not on the model."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from vlmpass.ir_tools.operators.schema import history, since
from vlmpass.ir_tools.operators.type_texts import tensor
from vlmpass.ir_tools.targets.judge import Context, signature

__all__ = ["SET_DIMS", "deciding", "remedy"]

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


def deciding(node: ir.Node) -> str:
    """Return the command that decides an If whose condition hangs on open axes alone; else nothing.

    Args:
        node: Any node.
    """
    axes: dict[str, None] = {}
    pending = [node.inputs[0]] if (node.domain, node.op_type) == ("", "If") else []
    seen = set(pending)
    while pending:
        value = pending.pop()
        maker = None if value is None else value.producer()
        if maker is None and (value is None or value.const_value is None):
            return ""  # what is fed decides
        if maker is not None and maker.op_type in ("Shape", "Size"):
            shape = maker.inputs[0].shape if maker.inputs[0] is not None else None
            sizes = [None] if shape is None else [s for s in shape if not isinstance(s, int)]
            if any(size is None or size.value is None for size in sizes):
                return ""
            axes.update((str(size.value), None) for size in sizes if size is not None)
        elif maker is not None:
            pending += [each for each in maker.inputs if each not in seen]
            seen.update(maker.inputs)
    return SET_DIMS.replace("...", " ".join(f"{axis}=..." for axis in axes)) if axes else ""


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
