"""A model as a protobuf whose tensors are replaced on the way, the model itself left alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import cast

import onnx
import onnx_ir as ir

from vlmpass.ir_tools.proto.graph_writer import Declare, written

__all__ = ["StandIn", "graph_protos", "inline", "skeleton"]

StandIn = Callable[[ir.TensorProtocol], ir.TensorProtocol]


def inline(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    """Return a tensor under a name of its own that is serialised by value, wherever it lies."""
    if tensor.dtype == ir.DataType.STRING:
        return ir.StringTensor(
            tensor.numpy().ravel().tolist(),
            shape=cast(ir.Shape, tensor.shape),
            name=tensor.name,
            doc_string=tensor.doc_string,
            metadata_props=dict(tensor.metadata_props),
        )
    return ir.LazyTensor(
        lambda: tensor,
        dtype=tensor.dtype,
        shape=cast(ir.Shape, tensor.shape),
        name=tensor.name,
        doc_string=tensor.doc_string,
        metadata_props=dict(tensor.metadata_props),
    )


def skeleton(model: ir.Model, stand_in: StandIn, declare: Declare | None = None) -> onnx.ModelProto:
    """Return the protobuf of a model with other tensors in it.

    Args:
        model: Any model; it is not changed.
        stand_in: Returns what is serialised in place of a tensor.
        declare: Returns a value of the same name with the type and shape to declare in place of a
            node output or an input of a subgraph or function. By default, its own.

    Raises:
        VlmpassError: A tensor cannot be computed, or something in the model has no protobuf form.
    """
    return written(model, lambda tensor, _: stand_in(tensor), declare)


def graph_protos(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Yield the graphs in the attributes of a node, in the order of `walk.subgraphs`."""
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH and not attribute.ref_attr_name:
            yield attribute.g
        yield from attribute.graphs
