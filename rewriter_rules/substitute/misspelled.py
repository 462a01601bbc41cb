"""Nodes of the TorchScript exporter whose attributes are PyTorch's, and none of ONNX."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

__all__ = ["is_misspelled", "respell"]


def is_misspelled(node: ir.Node) -> bool:
    """Whether a node is none in ONNX, and says what PyTorch meant by it.

    Axes of a permutation are counted from its end; 15 is bfloat16 in PyTorch and complex128 in
    ONNX, which nothing can be cast to.
    """
    if node.domain or node.op_type not in ("Transpose", "Cast"):
        return False
    if node.op_type == "Cast":
        return bool(_given(node, "to") == ir.DataType.COMPLEX128)
    perm = _given(node, "perm") or ()
    axes = sorted(axis % len(perm) for axis in perm)
    return any(axis < 0 for axis in perm) and axes == list(range(len(perm)))


def respell(node: ir.Node) -> None:
    """Let a node that is misspelled say in ONNX what PyTorch meant, in place."""
    if node.op_type == "Cast":
        node.attributes["to"] = ir.AttrInt64("to", ir.DataType.BFLOAT16)
        node.outputs[0].type = ir.TensorType(ir.DataType.BFLOAT16)
        return
    perm = _given(node, "perm")
    node.attributes["perm"] = ir.AttrInt64s("perm", [axis % len(perm) for axis in perm])


def _given(node: ir.Node, name: str) -> Any:
    attribute = node.attributes.get(name)
    return None if attribute is None or attribute.is_ref() else attribute.value
