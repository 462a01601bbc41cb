"""What is equal for functions that do the same by the same names."""

from __future__ import annotations

from collections.abc import Iterable

import onnx
import onnx_ir as ir

from vlmpass.ir_tools.proto.onnx_text import Digests
from vlmpass.ir_tools.proto.proto_view import skeleton

__all__ = ["function_identity"]

_ASIDE = ("name", "doc_string", "metadata_props", "value_info")
"""What says nothing of what a node or a graph does."""


def function_identity(function: ir.Function, digests: Digests) -> bytes:
    """Return what is equal for functions of equal bodies, opsets, ends and defaults.

    Args:
        function: Its tensors count by their digests; its nodes' names and notes do not.
        digests: Those known already.
    """

    def stand_in(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
        shape = ir.Shape(tensor.shape.numpy())
        return ir.ExternalTensor(digests.of(tensor), None, None, tensor.dtype, shape=shape, name="")

    empty = ir.Graph([], [], nodes=[], opset_imports={"": 1})
    (proto,) = skeleton(ir.Model(empty, ir_version=10, functions=[function]), stand_in).functions
    for key in _ASIDE[1:]:
        proto.ClearField(key)
    _bare(proto.node)
    return bytes(proto.SerializeToString(deterministic=True))


def _bare(nodes: Iterable[onnx.NodeProto]) -> None:
    for node in nodes:
        for key in _ASIDE[:3]:
            node.ClearField(key)
        for attribute in node.attribute:
            attribute.ClearField("doc_string")
            for graph in (attribute.g, *attribute.graphs):
                if graph.ByteSize():
                    for key in _ASIDE:
                        graph.ClearField(key)
                    _bare(graph.node)
        ordered = sorted(node.attribute, key=lambda each: each.name)
        del node.attribute[:]
        node.attribute.extend(ordered)
