"""onnx's shape inference over a large graph with subgraphs, one part after the other.

For every subgraph that it enters, onnx copies all that it knows of the graph around: the time is
the product of the nodes and of those that hold graphs. A part is a model of its own, which has as
inputs what it reads of earlier ones, with the types that were found there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import onnx

from vlmpass.ir_tools.proto.proto_view import graph_protos

__all__ = ["in_parts", "wants_parts"]

_PART = 4_000
_MOST = 1_000_000
"""Nodes times nodes that hold graphs, of which onnx takes some half a second in all."""
_GENERATED = "unk__"  # what onnx calls sizes that it does not know


def wants_parts(model: onnx.ModelProto) -> bool:
    """Whether a main graph has so many nodes, and so many that hold graphs, that parts pay."""
    nodes = model.graph.node
    if len(nodes) <= 2 * _PART:
        return False
    holders = sum(next(graph_protos(node), None) is not None for node in nodes if node.attribute)
    return len(nodes) * holders > _MOST


def in_parts(model: onnx.ModelProto, infer: Callable[[bytes], bytes]) -> Iterator[onnx.GraphProto]:
    """Yield the parts of the main graph, each as inferred.

    Types and shapes go from part to part; what onnx propagates of the data of shapes does not, and
    so less may be known than of the whole where it is asked to. Its type check does not do that.

    Args:
        model: Large tensors are references; its nodes are in topological order.
        infer: onnx's inference of a serialised model.
    """
    graph = model.graph
    parts = [graph.node[at : at + _PART] for at in range(0, len(graph.node), _PART)]
    read = [_read_from_outside(nodes) for nodes in parts]
    wanted = {name for names in read for name in names}
    types = {info.name: info.type for info in graph.input if info.name in wanted}
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    told = {info.name: info for info in graph.value_info}
    results = {info.name: info for info in graph.output}
    for nodes, names in zip(parts, read, strict=True):
        part = onnx.ModelProto(ir_version=model.ir_version)
        part.opset_import.extend(model.opset_import)
        part.functions.extend(model.functions)
        part.graph.name = graph.name
        part.graph.node.extend(nodes)
        for name in names:
            if name in tensors:
                part.graph.initializer.append(tensors[name])
            if name in types:
                part.graph.input.add(name=name, type=types[name])
        for name in (name for node in nodes for name in node.output):
            if name in results:
                part.graph.output.append(results[name])
            elif name in told:
                part.graph.value_info.append(told[name])
        found = onnx.load_model_from_string(infer(part.SerializeToString())).graph
        for info in (*found.value_info, *found.output):
            if info.name in wanted:
                types[info.name] = _without_generated(info.type)
        yield found


def _read_from_outside(nodes: Sequence[onnx.NodeProto]) -> list[str]:
    """Return what some nodes read and do not make, each name once."""
    made = {name for node in nodes for name in node.output}
    return [name for name in dict.fromkeys(_names_read(nodes)) if name and name not in made]


def _names_read(nodes: Iterable[onnx.NodeProto]) -> Iterator[str]:
    """Yield the names that nodes and the graphs in them read, wherever they are made."""
    for node in nodes:
        yield from node.input
        for graph in graph_protos(node) if node.attribute else ():
            yield from _names_read(graph.node)
            yield from (info.name for info in graph.output)


def _without_generated(type_: onnx.TypeProto) -> onnx.TypeProto:
    """Return a type without the sizes that onnx named: another part may use the name again."""
    found = onnx.TypeProto()
    found.CopyFrom(type_)
    for dim in found.tensor_type.shape.dim if found.HasField("tensor_type") else ():
        if dim.dim_param.startswith(_GENERATED):
            dim.ClearField("dim_param")
    return found
