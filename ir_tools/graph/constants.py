"""Where constants come from: initializers that nobody overrides, and Constant nodes."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

__all__ = ["constant_of", "is_constant", "node_tensor", "source_of"]

_NUMBERS = {
    "value_float": np.float32,
    "value_floats": np.float32,
    "value_int": np.int64,
    "value_ints": np.int64,
}


def is_constant(value: ir.Value, ir_version: int = 4) -> bool:
    """Whether a value is the same in every run: a Constant's, or a tensor nobody overrides.

    Args:
        value: A value of a graph, of a function, or one that is in neither yet.
        ir_version: Of the model. Below 4 every initializer is an input too, and runtimes take none
            from the caller; where it is not given, no input is taken for a constant.
    """
    producer = value.producer()
    if producer is not None:
        return producer.op_type == "Constant" and producer.domain == ""
    overridden = ir_version >= 4 and value.is_graph_input()
    return value.const_value is not None and not overridden


def constant_of(value: ir.Value | None, ir_version: int = 4) -> ir.TensorProtocol | None:
    """Return the tensor of a constant, unread; None for anything else and for sparse ones.

    Args:
        value: Any value, or none.
        ir_version: Of the model, see `is_constant`.
    """
    if value is None or not is_constant(value, ir_version):
        return None
    producer = value.producer()
    return value.const_value if producer is None else node_tensor(producer)


def source_of(value: ir.Value) -> ir.Value:
    """Return what a value is by name: through Identity nodes, which change nothing."""
    producer = value.producer()
    while (
        producer is not None
        and (producer.domain, producer.op_type) == ("", "Identity")
        and producer.inputs[0] is not None
    ):
        value = producer.inputs[0]
        producer = value.producer()
    return value


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
