"""Where constants come from: initializers that nobody overrides, and Constant nodes."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

__all__ = ["constant_of", "is_constant", "node_tensor"]

_NUMBERS = {
    "value_float": np.float32,
    "value_floats": np.float32,
    "value_int": np.int64,
    "value_ints": np.int64,
}


def is_constant(value: ir.Value, ir_version: int) -> bool:
    """Whether a value is an initializer that no caller can override, or a Constant's output."""
    if value.is_initializer():
        return value.const_value is not None and (ir_version < 4 or not value.is_graph_input())
    producer = value.producer()
    return producer is not None and producer.op_type == "Constant" and producer.domain == ""


def constant_of(value: ir.Value, ir_version: int) -> ir.TensorProtocol | None:
    """Return the tensor of a constant value, None for any other value and for sparse ones."""
    producer = value.producer()
    if producer is not None:
        constant = producer.op_type == "Constant" and producer.domain in ("", "ai.onnx")
        return node_tensor(producer) if constant else None
    return value.const_value if is_constant(value, ir_version) else None


def node_tensor(node: ir.Node) -> ir.TensorProtocol | None:
    """Return what a Constant node holds, whichever attribute it is in.

    Returns:
        The tensor, None for a sparse one and for one that the caller of a function gives.
    """
    for name, attribute in node.attributes.items():
        if attribute.is_ref():
            return None
        if name == "value":
            return attribute.as_tensor()
        if name in _NUMBERS:
            return ir.Tensor(np.array(attribute.value, _NUMBERS[name]))
        if name == "value_string":
            return ir.StringTensor([attribute.as_string().encode()], shape=ir.Shape([]))
        if name == "value_strings":
            texts = [text.encode() for text in attribute.as_strings()]
            return ir.StringTensor(texts, shape=ir.Shape([len(texts)]))
    return None
