"""One model with every field that ONNX has and vlmpass keeps."""

import numpy as np
import onnx
from load_models import add_metadata, info
from onnx import AttributeProto, TensorProto, helper, numpy_helper

__all__ = ["full_model"]


def _annotate(graph, name, scale):
    annotation = graph.quantization_annotation.add(tensor_name=name)
    annotation.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value=scale)


def _inputs(graph):
    x = graph.input.add()
    x.CopyFrom(info("x", doc="input", xm="1"))
    x.type.denotation = "TENSOR"
    x.type.tensor_type.shape.dim[0].denotation = "DATA_BATCH"
    sequence = graph.input.add(name="seq").type.sequence_type.elem_type.tensor_type
    sequence.elem_type = TensorProto.FLOAT
    sequence.shape.dim.add().dim_param = "k"
    optional = graph.input.add(name="opt").type.optional_type.elem_type.sequence_type.elem_type
    optional.tensor_type.elem_type = TensorProto.INT64
    sparse = graph.input.add(name="sparse").type.sparse_tensor_type
    sparse.elem_type = TensorProto.FLOAT
    sparse.shape.dim.add().dim_value = 3
    graph.input.add(name="untyped")
    graph.input.add(name="no rank").type.tensor_type.elem_type = TensorProto.FLOAT
    graph.input.add().CopyFrom(info("default", dims=(4,)))
    return x.type


def _initializers(graph):
    w = numpy_helper.from_array(np.ones((4, 4), np.float32), "w")
    w.doc_string = "weight"
    add_metadata(w, {"wm": "1"})
    strings = helper.make_tensor("strings", TensorProto.STRING, [2], [b"a", b"\xff"])
    add_metadata(strings, {"sm": "1"})
    for tensor in (
        w,
        helper.make_tensor("scale", TensorProto.FLOAT, [4], [1, 2, 3, 4]),
        numpy_helper.from_array(np.ones(4, np.float32), "default"),
        strings,
        numpy_helper.from_array(np.float32(3), "three"),
        numpy_helper.from_array(np.array(True), "cond"),
    ):
        graph.initializer.add().CopyFrom(tensor)
    graph.value_info.extend(
        [
            info("w", dims=(4, 4), doc="weight info", wv="2"),
            info("scale", dims=(4,)),
            info("strings", TensorProto.STRING, (2,)),
            info("three", dims=()),
            info("cond", TensorProto.BOOL, ()),
        ]
    )


def _attributes(tensor_type):
    numbers = numpy_helper.from_array(np.arange(3), "numbers")
    attributes = [
        helper.make_attribute("f", 1.5),
        helper.make_attribute("i", -3),
        helper.make_attribute("s", "\u00e9"),
        helper.make_attribute("fs", [1.0, 2.0]),
        helper.make_attribute("is", [1, 2]),
        helper.make_attribute("ss", ["a", "b"]),
        helper.make_attribute("t", numbers),
        helper.make_attribute("ts", [numbers, numpy_helper.from_array(np.arange(2.0), "more")]),
        helper.make_attribute("tp", tensor_type),
        helper.make_attribute("tps", [tensor_type, tensor_type]),
        helper.make_attribute("no f", [], attr_type=AttributeProto.FLOATS),
        helper.make_attribute("no i", [], attr_type=AttributeProto.INTS),
        helper.make_attribute("no s", [], attr_type=AttributeProto.STRINGS),
        helper.make_attribute("empty", ""),
        AttributeProto(name="bytes", type=AttributeProto.STRING, s=b"\xff\xfe"),
    ]
    attributes[0].doc_string = "number"
    attributes[6].doc_string = "tensor"
    return attributes


def _branches():
    then = onnx.GraphProto(name="then", doc_string="then branch")
    add_metadata(then, {"tm": "1"})
    then.initializer.add().CopyFrom(numpy_helper.from_array(np.ones(4, np.float32), "sw"))
    then.node.add().CopyFrom(helper.make_node("Add", ["c", "sw"], ["tz"], name="sub"))
    then.node.add().CopyFrom(helper.make_node("Relu", ["tz"], ["ty"]))
    then.value_info.extend([info("sw", dims=(4,)), info("tz", sm="9")])
    then.output.add().CopyFrom(info("ty", doc="then output"))
    _annotate(then, "tz", "sw")
    other = onnx.GraphProto(name="else")
    other.node.add().CopyFrom(helper.make_node("Identity", ["f1"], ["ey"]))
    other.output.add().CopyFrom(info("ey"))
    return then, other


def _nodes(graph, tensor_type, devices):
    product = helper.make_node("MatMul", ["x", "w"], ["h"], name="mm", doc_string="node")
    add_metadata(product, {"nm": "1"})
    if devices:
        device = product.device_configurations.add(configuration_id="cfg", pipeline_stage=1)
        spec = device.sharding_spec.add(tensor_name="x", device=[0, 1])
        spec.sharded_dim.add(axis=0).simple_sharding.add(dim_value=2, num_shards=2)
    call = helper.make_node("F", ["c"], ["f1", "f2"], domain="my", overload="ov", alpha=2.0)
    weird = helper.make_node("Weird", ["c"], ["", "k"], domain="other")
    weird.attribute.extend(_attributes(tensor_type))
    then, other = _branches()
    graph.node.extend(
        [
            product,
            helper.make_node("Clip", ["h", "", "three"], ["c"]),
            call,
            weird,
            helper.make_node("If", ["cond"], ["y"], then_branch=then, else_branch=other),
        ]
    )
    graph.value_info.add().CopyFrom(info("h", doc="hidden", hm="3"))
    _annotate(graph, "h", "scale")


def _function(proto, value_infos):
    function = proto.functions.add(name="F", domain="my", overload="ov", doc_string="function")
    add_metadata(function, {"fm": "1"})
    function.input.append("a")
    function.output.extend(["fy", "fz"])
    function.opset_import.add(domain="", version=21)
    function.attribute.append("alpha")
    function.attribute_proto.add().CopyFrom(helper.make_attribute("beta", 3.0))
    function.attribute_proto.add().CopyFrom(
        helper.make_attribute("table", numpy_helper.from_array(np.arange(3), "table"))
    )
    leaky = helper.make_node("LeakyRelu", ["a"], ["fy"])
    reference = leaky.attribute.add(name="alpha", ref_attr_name="alpha", type=AttributeProto.FLOAT)
    reference.doc_string = "reference"
    ones = numpy_helper.from_array(np.ones(4, np.float32), "ones")
    function.node.extend(
        [
            leaky,
            helper.make_node("Constant", [], ["fc"], value=ones),
            helper.make_node("Add", ["fy", "fc"], ["fz"]),
        ]
    )
    infos = [info("a", fa="1"), info("fy"), info("fc", dims=(4,))]
    if value_infos:
        function.value_info.extend(infos)
    else:
        for one in infos:
            one.name = f"my::F/{one.name}"
            proto.graph.value_info.add().CopyFrom(one)


def full_model(ir_version):
    """Return a model of IR version 9 (what it has of it) or 11."""
    proto = onnx.ModelProto(
        ir_version=ir_version,
        producer_name="p",
        producer_version="1",
        domain="d",
        model_version=7,
        doc_string="model",
    )
    for domain, version in (("", 21), ("my", 1), ("other", 3)):
        proto.opset_import.add(domain=domain, version=version)
    add_metadata(proto, {"a": "b", "c": "d"})
    proto.graph.name = "g"
    proto.graph.doc_string = "graph"
    add_metadata(proto.graph, {"ga": "gb"})
    tensor_type = _inputs(proto.graph)
    _initializers(proto.graph)
    _nodes(proto.graph, tensor_type, ir_version >= 11)
    proto.graph.output.add().CopyFrom(info("y", doc="output", om="1"))
    _function(proto, ir_version >= 10)
    if ir_version >= 11:
        proto.configuration.add(name="cfg", num_devices=2, device=["a", "b"])
    else:
        proto.functions[0].ClearField("overload")
        proto.graph.node[2].ClearField("overload")
    return proto
