"""A graph put into other surroundings: a branch of an If, a function, a wider use of its values."""

from __future__ import annotations

import onnx
import onnx_ir as ir

from vlmpass.ir_tools.graph.walk import all_values

LOCAL = "local"


def _branch(proto: onnx.ModelProto, name: str) -> onnx.AttributeProto:
    """Return a branch with a model's nodes; the one named else has constants of its own."""
    graph = onnx.GraphProto(name=name)
    made = {output for node in proto.graph.node for output in node.output}
    if name == "else":
        made |= {tensor.name for tensor in proto.graph.initializer}
        graph.initializer.extend(proto.graph.initializer)
        for tensor in graph.initializer:
            tensor.name = f"{name}/{tensor.name}"
    for node in proto.graph.node:
        copy = graph.node.add()
        copy.CopyFrom(node)
        copy.name = f"{name}/{node.name}"
        copy.input[:] = [f"{name}/{i}" if i in made else i for i in node.input]
        copy.output[:] = [f"{name}/{o}" for o in node.output]
    for old, new in (
        (proto.graph.output, graph.output),
        (proto.graph.value_info, graph.value_info),
    ):
        for info in old:
            if info.name in made:
                new.add().CopyFrom(info)
                new[-1].name = f"{name}/{info.name}"
    return onnx.helper.make_attribute(f"{name}_branch", graph)


def in_branches(model: ir.Model) -> ir.Model:
    """Return a model with the graph in both branches of an If.

    The first branch takes its constants from outside, the second has its own.
    """
    proto = ir.to_proto(model)
    outer = onnx.ModelProto()
    outer.CopyFrom(proto)
    for emptied in (outer.graph.node, outer.graph.output, outer.graph.value_info):
        del emptied[:]
    condition = onnx.helper.make_tensor_value_info("condition", onnx.TensorProto.BOOL, [])
    outer.graph.input.append(condition)
    branches = [_branch(proto, name) for name in ("then", "else")]
    node = onnx.NodeProto(op_type="If", name="if", input=["condition"], attribute=branches)
    for info in proto.graph.output:
        outer.graph.output.add().CopyFrom(info)
        node.output.append(info.name)
    outer.graph.node.append(node)
    return ir.serde.from_proto(outer)


def in_function(model: ir.Model) -> ir.Model:
    """Return a model that calls a function with the graph's nodes, its constants inside."""
    proto = ir.to_proto(model)
    inputs = [value.name for value in proto.graph.input]
    outputs = [value.name for value in proto.graph.output]
    function = onnx.FunctionProto(domain=LOCAL, name="body", input=inputs, output=outputs)
    function.opset_import.extend(proto.opset_import)
    for tensor in proto.graph.initializer:
        attribute = onnx.helper.make_attribute("value", tensor)
        function.node.add(op_type="Constant", output=[tensor.name], attribute=[attribute])
    function.node.extend(proto.graph.node)
    outer = onnx.ModelProto()
    outer.CopyFrom(proto)
    del outer.graph.node[:]
    del outer.graph.initializer[:]
    del outer.graph.value_info[:]
    outer.graph.node.add(op_type="body", domain=LOCAL, name="call", input=inputs, output=outputs)
    outer.opset_import.add(domain=LOCAL, version=1)
    outer.functions.append(function)
    placed = ir.serde.from_proto(outer)
    known = {value.name: value for value in all_values(model)}
    (body,) = placed.functions.values()
    for value in [*body.inputs, *(output for node in body for output in node.outputs)]:
        if value.name in known:
            value.type, value.shape = known[value.name].type, known[value.name].shape
    return placed


def with_user(model: ir.Model, value: ir.Value) -> ir.Model:
    """Return a copy in which one more node uses a value, to be an output of the graph."""
    proto = ir.to_proto(model)
    known = {info.name: info for info in [*proto.graph.value_info, *proto.graph.output]}
    kind = known[value.name or ""].type
    several = kind.HasField("sequence_type")
    proto.graph.node.add(
        op_type="SequenceLength" if several else "Identity",
        name="witness",
        input=[value.name or ""],
        output=["witness"],
    )
    info = proto.graph.output.add(name="witness")
    if several:
        info.CopyFrom(onnx.helper.make_tensor_value_info("witness", onnx.TensorProto.INT64, []))
    else:
        info.type.CopyFrom(kind)
    return ir.serde.from_proto(proto)
