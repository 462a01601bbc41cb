"""Small models of every kind that a file can be, with their data files: seeds for fuzz tests.

Together they hold every message of onnx.proto but those that loading refuses whole.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import numpy as np
import onnx
import onnx.parser
from onnx import AttributeProto, TensorProto, helper, numpy_helper

Made = tuple[onnx.ModelProto, Mapping[str, bytes]]
_Kind = Callable[[], Made]
KINDS: dict[str, _Kind] = {}


def kind(function: _Kind) -> _Kind:
    KINDS[function.__name__] = functools.cache(function)
    return function


def parsed(text: str, opset: int = 18, ir_version: int = 10, more: str = "") -> onnx.ModelProto:
    header = f'<ir_version: {ir_version}, opset_import: ["": {opset}{more}]>'
    return onnx.parser.parse_model(f"{header} {text}")


@kind
def described() -> Made:
    """Everything that says something and computes nothing: names, versions, documents, devices."""
    model = parsed(
        "g (float[batch,3] x) => (float[batch,3] y) { a = Relu (x)  y = Neg (a) }", 23, 11
    )
    model.producer_name, model.producer_version = "maker", "1.2"
    model.domain, model.model_version, model.doc_string = "org.example", 7, "a model"
    model.metadata_props.add(key="author", value="someone")
    graph = model.graph
    graph.doc_string = "a graph"
    graph.metadata_props.add(key="of", value="graph")
    graph.value_info.append(helper.make_tensor_value_info("gone", TensorProto.FLOAT, [1]))
    graph.value_info.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3]))
    graph.value_info.append(helper.make_tensor_value_info("a", TensorProto.FLOAT, ["batch", 3]))
    for value in (graph.input[0], *graph.value_info):
        value.doc_string = f"the value {value.name}"
        value.metadata_props.add(key="of", value=value.name)
        value.type.denotation = "IMAGE"
        value.type.tensor_type.shape.dim[0].denotation = "DATA_BATCH"
    node = graph.node[0]
    node.name, node.doc_string = "relu", "a node"
    node.metadata_props.add(key="of", value="node")
    model.configuration.add(name="two", num_devices=2, device=["gpu0", "gpu1"])
    placed = node.device_configurations.add(configuration_id="two", pipeline_stage=1)
    spec = placed.sharding_spec.add(tensor_name="x", device=[0, 1])
    spec.index_to_device_group_map.add(key=0, value=[0, 1])
    dim = spec.sharded_dim.add(axis=0)
    dim.simple_sharding.add(dim_value=2, num_shards=2)
    return model, {}


@kind
def inline() -> Made:
    """Weights of several element types, in their own fields and raw."""
    model = parsed("""g (float[n,4] x) => (float[n,3] y, int64[2] z) {
        h = MatMul (x, w)  b = Add (h, v)  c = Cast <to = 1> (d)  s = Mul (c, i)
        y = Add (b, s)  z = Identity (k) }""")
    add = model.graph.initializer.append
    add(numpy_helper.from_array(np.arange(12, dtype=np.float32).reshape(4, 3), "w"))
    add(helper.make_tensor("v", TensorProto.FLOAT, [3], [1.0, 2.0, 3.0]))
    add(helper.make_tensor("d", TensorProto.DOUBLE, [3], [1.0, 2.0, 3.0]))
    add(helper.make_tensor("i", TensorProto.FLOAT, [1], [2.0]))
    add(helper.make_tensor("k", TensorProto.INT64, [2], [5, -5]))
    add(helper.make_tensor("unused", TensorProto.UINT64, [2], [5, 7]))
    add(helper.make_tensor("half", TensorProto.FLOAT16, [2], [1.0, 0.5]))
    model.graph.initializer[0].doc_string = "a weight"
    model.graph.initializer[0].metadata_props.add(key="of", value="w")
    return model, {}


@kind
def external() -> Made:
    """Weights in a file beside the model."""
    model = parsed("""g (float[2,4] x) => (float[2,1024] y) {
        h = MatMul (x, w)  y = Add (h, b) }""")
    for name, shape, offset in (("w", [4, 1024], 0), ("b", [1024], 16384)):
        tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape)
        tensor.data_location = TensorProto.EXTERNAL
        length = 4 * int(np.prod(shape))
        stated = {"location": "w.bin", "offset": offset, "length": length, "checksum": "0" * 40}
        for key, value in stated.items():
            tensor.external_data.add(key=key, value=str(value))
        model.graph.initializer.append(tensor)
    return model, {"w.bin": np.arange(5120, dtype=np.float32).tobytes()}


@kind
def functions() -> Made:
    """Functions that call each other, with attributes, defaults, overloads and doc strings."""
    model = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["": 18, "local": 1]>
        g (float[2,3] x) => (float[2,3] y) {
            a = local.F <alpha = 0.5> (x)  y = local.H (a) }
        <opset_import: ["": 18], domain: "local", doc_string: "a function">
        F <alpha> (x) => (y) { y = Elu <alpha: float = @alpha> (x) }
        <opset_import: ["": 18, "local": 1], domain: "local">
        H <beta: float = 2.0> (x) => (y) {
            c = Constant <value = float {3.0}> ()  t = Mul (x, c)
            u = local.F <alpha: float = @beta> (t)  y = Relu (u) }""")
    inner = model.functions[1]
    for name in ("x", "t"):
        inner.value_info.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 3]))
    inner.metadata_props.add(key="of", value="H")
    return model, {}


@kind
def subgraphs() -> Made:
    """If, Loop and Scan, whose bodies read what lies around them."""
    model = parsed("""g (float[2,3] x, bool c) => (float[2,3] y, float[n,2,3] s) {
        a = Relu (x)
        b = If (c) <then_branch = t () => (float[2,3] p) { p = Neg (a) },
                    else_branch = e () => (float[2,3] q) { q = Add (a, w) }>
        m = Constant <value_int = 2> ()
        y, s = Loop (m, c, b) <body = l (int64 i, bool k, float[2,3] u)
            => (bool ko, float[2,3] v, float[2,3] o) {
            ko = Identity (k)  v = Add (u, a)  o = Sqrt (v) }> }""")
    model.graph.initializer.append(
        numpy_helper.from_array(np.ones((2, 3), np.float32), "w"),
    )
    return model, {}


@kind
def quantised() -> Made:
    """Integers of four and eight bits with scales, and annotations that tell of them."""
    model = parsed("""g (float[2,4] x) => (float[2,3] y) {
        f = DequantizeLinear <axis = 1> (w, s, z)  q = QuantizeLinear (x, t, o)
        r = DequantizeLinear (q, t, o)  y = MatMul (r, f) }""", 21)  # fmt: skip
    add = model.graph.initializer.append
    add(helper.make_tensor("w", TensorProto.INT4, [4, 3], [1, -2, 3] * 4))
    add(helper.make_tensor("s", TensorProto.FLOAT, [3], [0.5, 0.25, 1.0]))
    add(helper.make_tensor("z", TensorProto.INT4, [3], [0, 1, 2]))
    add(helper.make_tensor("t", TensorProto.FLOAT, [], [0.1]))
    add(helper.make_tensor("o", TensorProto.UINT8, [], [128]))
    annotation = model.graph.quantization_annotation.add(tensor_name="x")
    annotation.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="t")
    annotation.quant_parameter_tensor_names.add(key="ZERO_POINT_TENSOR", value="o")
    return model, {}


@kind
def containers() -> Made:
    """Sequences, optionals, strings, and attributes of every type that can be kept."""
    model = parsed("""g (seq(float[2]) q, float[2] x, string[2] t, optional(float[2]) m)
        => (seq(float[2]) r, string[2] u, bool h) {
        r = SequenceInsert (q, x)  u = Identity (t)  h = OptionalHasElement (m)
        e = SequenceEmpty <dtype = 1> ()  k = Constant <value_strings = ["a", "b"]> ()
        z = mine.Op <f = 1.5, i = 3, s = "text", fs = [1.0, 2.0], is = [1, 2], ss = ["p", "q"]> (x)
        }""", more=', "mine": 1')  # fmt: skip
    node = model.graph.node[-1]
    one = numpy_helper.from_array(np.ones(2, np.float32), "one")
    node.attribute.append(helper.make_attribute("ts", [one, one]))
    node.attribute.append(
        helper.make_attribute("tp", helper.make_tensor_type_proto(TensorProto.FLOAT, [2, "n"]))
    )
    body = helper.make_graph([], "inner", [], [])
    node.attribute.append(helper.make_attribute("gs", [body, body]))
    node.attribute.append(
        AttributeProto(
            name="tps",
            type=AttributeProto.TYPE_PROTOS,
            type_protos=[helper.make_tensor_type_proto(TensorProto.INT64, None)],
        )
    )
    return model, {}


@kind
def sparse() -> Made:
    """A type of a sparse tensor; sparse constants are refused by name."""
    model = parsed("g (float[2,3] x) => (float[2,3] y) { y = Relu (x) }")
    value = model.graph.value_info.add(name="said")
    value.type.sparse_tensor_type.elem_type = TensorProto.FLOAT
    value.type.sparse_tensor_type.shape.dim.add(dim_value=3)
    return model, {}


@kind
def old() -> Made:
    """A model of opset 7 and IR 3, whose initializers are inputs."""
    model = parsed("""g (float[2,3] x, float[3] w) => (float[2,3] y) {
        a = Mul (x, w)  y = Softmax <axis = 1> (a) }""", 7, 3)  # fmt: skip
    model.graph.initializer.append(helper.make_tensor("w", TensorProto.FLOAT, [3], [1.0, 2.0, 3.0]))
    return model, {}


@kind
def attention() -> Made:
    """A block of a language model, as exporters write it."""
    model = parsed("""g (float[b,s,8] x) => (float[b,s,8] y) {
        n = LayerNormalization (x, scale)  q = MatMul (n, wq)  k = MatMul (n, wk)
        kt = Transpose <perm = [0, 2, 1]> (k)  p = MatMul (q, kt)  r = Mul (p, c)
        m = Softmax <axis = -1> (r)  v = MatMul (n, wv)  o = MatMul (m, v)
        d = Div (o, root)  e = Erf (d)  f = Add (e, one)  g1 = Mul (o, f)  h = Mul (g1, half)
        y = Add (x, h) }""")
    rng = np.random.default_rng(7)
    for name, shape in (("wq", (8, 8)), ("wk", (8, 8)), ("wv", (8, 8)), ("scale", (8,))):
        weight = rng.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(weight, name))
    for name, number in (("c", 0.35), ("root", 2**0.5), ("one", 1.0), ("half", 0.5)):
        scalar = np.array(number, np.float32)
        model.graph.initializer.append(numpy_helper.from_array(scalar, name))
    return model, {}
