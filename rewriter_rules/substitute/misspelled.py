"""Nodes of the TorchScript exporter whose attributes or types are PyTorch's, and none of ONNX."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from vlmpass.ir_tools.operators.result_types import result_type

__all__ = ["is_misspelled", "respell"]


def is_misspelled(node: ir.Node) -> bool:
    """Whether a node is none in ONNX, and says what PyTorch meant by it.

    Axes of a permutation are counted from its end; 15 is bfloat16 in PyTorch and complex128 in
    ONNX, which nothing can be cast to; truth values are summed up, which PyTorch does in int64.
    """
    if node.domain or node.op_type not in ("Transpose", "Cast", "CumSum"):
        return False
    if node.op_type == "CumSum":
        return _is_truth(node.inputs[0])
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
    if node.op_type == "CumSum":
        _count(node)
        return
    perm = _given(node, "perm")
    node.attributes["perm"] = ir.AttrInt64s("perm", [axis % len(perm) for axis in perm])


def _given(node: ir.Node, name: str) -> Any:
    attribute = node.attributes.get(name)
    return None if attribute is None or attribute.is_ref() else attribute.value


def _count(node: ir.Node) -> None:
    """Let truth values be numbers before they are summed up."""
    value, graph, result = node.inputs[0], node.graph, node.outputs[0]
    assert value is not None
    assert graph is not None
    cast = ir.node("Cast", [value], {"to": ir.DataType.INT64})
    cast.outputs[0].type = result.type = ir.TensorType(ir.DataType.INT64)
    cast.outputs[0].shape = value.shape
    graph.insert_before(node, cast)
    node.replace_input_with(0, cast.outputs[0])


def _is_truth(value: ir.Value | None) -> bool:
    """Whether a value's elements are truth values, by its type or by the operators before it."""
    while value is not None and value.dtype is None:
        node, index = value.producer(), value.index()
        if node is None or index is None or node.domain or node.op_type == "CumSum":
            return False
        if node.op_type == "Cast":
            return bool(_given(node, "to") == ir.DataType.BOOL)
        made = result_type(node.op_type, index)
        if made.operand is None:
            return made.fixed == ir.DataType.BOOL
        value = node.inputs[made.operand]
    return value is not None and value.dtype == ir.DataType.BOOL
