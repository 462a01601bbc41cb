"""Models that loading and checking once took wrongly: each is read right or refused in one line."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import TensorProto, helper, numpy_helper

from vlmpass import Pipeline
from vlmpass.ir_tools.check import check
from vlmpass.ir_tools.errors import CheckError, ModelError, VlmpassError
from vlmpass.ir_tools.load import load
from vlmpass.ir_tools.load.calls import MOST_NODES
from vlmpass.ir_tools.proto.wire import to_varint
from vlmpass.ir_tools.run.runner import Runner
from vlmpass.ir_tools.save import save

from .files import LOCAL, X, Y, model, refused, save_and_read, with_bytes


def test_a_name_that_is_not_utf8(tmp_path):
    proto = model()
    proto.graph.name = "gname"
    refused(with_bytes(proto, b"gname", b"gn\xe3me"), tmp_path, r"name of graph of .* is not UTF-8")


def test_an_attribute_of_onnx_that_is_not_utf8(tmp_path):
    node = helper.make_node("Resize", ["x", "", "s"], ["y"], mode="nearest")
    proto = model([node], [numpy_helper.from_array(np.ones(2, np.float32), "s")])
    proto = with_bytes(proto, b"nearest", b"near\xe4st")
    refused(proto, tmp_path, r"attribute mode of node of y \(Resize\) .* is not UTF-8")


def test_a_cycle_is_called_one():
    nodes = [
        helper.make_node("Add", ["x", "b"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Relu", ["b"], ["y"]),
    ]
    with pytest.raises(CheckError, match=r"the graph has a cycle through .*'b'.*'a'; export it"):
        check(load(model(nodes)))
    with pytest.raises(VlmpassError, match="the graph has a cycle through"):
        Pipeline(opset=17).run(model(nodes))


def test_what_is_only_out_of_order_is_no_cycle():
    nodes = [helper.make_node("Relu", ["a"], ["y"]), helper.make_node("Relu", ["x"], ["a"])]
    with pytest.raises(CheckError, match=r"is made later, by .*; run topological-sort"):
        check(load(model(nodes)))


def chain(depth, calls):
    functions = []
    for level in range(depth):
        last = level == depth - 1
        name, domain = ("Relu", "") if last else (f"F{level + 1}", "local")
        nodes = [
            helper.make_node(name, [f"t{call}"], [f"t{call + 1}"], domain=domain)
            for call in range(calls)
        ]
        functions.append(
            helper.make_function(
                "local",
                f"F{level}",
                ["t0"],
                [f"t{calls}"],
                nodes,
                [helper.make_opsetid("", 18), LOCAL],
            )
        )
    return model([helper.make_node("F0", ["x"], ["y"], domain="local")], functions=functions)


def test_functions_that_multiply(tmp_path):
    refused(chain(30, 2), tmp_path, rf"stand for 2147483646 nodes .* more than the {MOST_NODES}")


def test_functions_that_nest_too_deep(tmp_path):
    refused(chain(1000, 1), tmp_path, "functions call each other more than 100 deep")


@pytest.mark.parametrize(("depth", "calls"), [(90, 1), (5, 5)])
def test_functions_within_measure(depth, calls):
    assert Pipeline(simplify=True).run(chain(depth, calls))


def test_functions_that_call_themselves(tmp_path):
    functions = [
        helper.make_function(
            "local", name, ["a"], ["b"], [helper.make_node(other, ["a"], ["b"], domain="local")],
            [LOCAL],
        )
        for name, other in (("F", "G"), ("G", "F"))
    ]  # fmt: skip
    refused(model(functions=functions), tmp_path, "functions call themselves: local::F -> local::G")


@pytest.mark.parametrize("dims", [[2**62, 2**62], [0, 2**62], [2**40, 2**40]])
def test_shapes_that_no_memory_holds(tmp_path, dims):
    huge = helper.make_tensor_value_info("x", TensorProto.FLOAT, dims)
    refused(model(inputs=(huge,)), tmp_path, "value x has the shape .* more than any memory")
    empty = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=dims)
    refused(model(inits=[empty]), tmp_path, "initializer w has the shape .* more than any memory")


def test_more_axes_than_an_array_has(tmp_path):
    many = numpy_helper.from_array(np.ones((), np.float32), "w")
    many.dims.extend([1] * 200)
    refused(model(inits=[many]), tmp_path, "initializer w has 200 axes, more than the 64")


@pytest.mark.parametrize("field", ["raw_data", "int32_data", "float_data"])
def test_strings_beside_numbers(tmp_path, field):
    kind = TensorProto.INT32 if field == "int32_data" else TensorProto.FLOAT
    tensor = TensorProto(name="w", data_type=kind, dims=[1], string_data=[b"a"])
    value = b"\0\0\0\0" if field == "raw_data" else [1]
    getattr(tensor, field).extend(value) if field != "raw_data" else setattr(tensor, field, value)
    refused(model(inits=[tensor]), tmp_path, f"w holds data in {field} and in string_data")


def test_devices_below_the_ir_version_that_has_them(tmp_path):
    proto = model()
    proto.configuration.add(name="cfg", num_devices=2)
    refused(proto, tmp_path, "configuration of devices, which IR version 10 does not have")
    proto.ir_version = 11
    assert save_and_read(proto, tmp_path).configuration == proto.configuration
    proto.opset_import[0].version = 23
    path, out = tmp_path / "m.onnx", tmp_path / "18.onnx"
    path.write_bytes(proto.SerializeToString())
    Pipeline(opset=18).convert(path, out, verify=False)
    written = onnx.load(out)
    assert (written.ir_version, written.opset_import[0].version) == (11, 18)
    assert written.configuration == proto.configuration
    proto.ir_version = 11
    loaded = load(proto)
    loaded.ir_version = 10
    with pytest.raises(VlmpassError, match="IR version 10 has no configuration of devices"):
        save(loaded, tmp_path / "10.onnx")


def test_deprecated_is_not_invalid(tmp_path):
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 4, 3, 3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 4, 3, 3])
    node = helper.make_node("GroupNormalization", ["x", "s", "s"], ["y"], num_groups=2)
    scale = numpy_helper.from_array(np.ones(2, np.float32), "s")
    proto = model([node], [scale], inputs=(x,), outputs=(y,))
    out = load(proto)
    Pipeline(simplify=True).run(out)
    check(out)


def test_functions_of_ir_version_7():
    body = [helper.make_node("Relu", ["a"], ["b"])]
    function = helper.make_function("local", "F", ["a"], ["b"], body, [helper.make_opsetid("", 15)])
    call = helper.make_node("F", ["x"], ["y"], domain="local")
    source = load(model([call], opset=15, ir_version=7, functions=[function]))
    check(source)
    Pipeline(opset=13).run(source)
    check(source)


def test_inline_tensors_that_say_where_they_are(tmp_path):
    """onnx writes data_location wherever it has read external data."""
    weight = numpy_helper.from_array(np.ones((3, 800_000), np.float32), "w")
    weight.data_location = TensorProto.DEFAULT
    assert weight.HasField("data_location")
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 800_000])
    proto = model([helper.make_node("MatMul", ["x", "w"], ["y"])], [weight], outputs=(out,))
    path = tmp_path / "m.onnx"
    path.write_bytes(proto.SerializeToString())
    assert path.stat().st_size > 8 << 20
    loaded = load(path)
    check(loaded)
    np.testing.assert_array_equal(
        loaded.graph.initializers["w"].const_value.numpy(), np.ones((3, 800_000), np.float32)
    )


@pytest.mark.parametrize("offset", [None, 0, 4096])
def test_an_external_length_of_0_is_the_rest(tmp_path, offset):
    weight = np.arange(3, dtype=np.float32)
    (tmp_path / "w.bin").write_bytes(b"\0" * (offset or 0) + weight.tobytes() + b"more")
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[3])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="w.bin")
    if offset is not None:
        tensor.external_data.add(key="offset", value=str(offset))
    tensor.external_data.add(key="length", value="0")
    path = tmp_path / "m.onnx"
    path.write_bytes(
        model([helper.make_node("Add", ["x", "w"], ["y"])], [tensor]).SerializeToString()
    )
    source = load(path)
    check(source)
    np.testing.assert_array_equal(source.graph.initializers["w"].const_value.numpy(), weight)
    save(source, tmp_path / "out.onnx")
    with Runner(tmp_path / "out.onnx") as runner:
        made = runner.run({"x": np.zeros((2, 3), np.float32)})["y"]
    np.testing.assert_array_equal(made, np.stack([weight, weight]))


def test_an_external_length_of_0_of_a_short_file(tmp_path):
    (tmp_path / "w.bin").write_bytes(b"\0" * 8)
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[3])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "w.bin"), ("length", "0")):
        tensor.external_data.add(key=key, value=value)
    path = tmp_path / "m.onnx"
    path.write_bytes(model(inits=[tensor]).SerializeToString())
    with pytest.raises(ModelError, match=r"wants bytes 0 to 12 of w\.bin, which has 8"):
        load(path)


def test_a_graph_without_a_name(tmp_path):
    proto = model()
    proto.graph.name = ""
    check(load(proto))
    onnx.checker.check_model(save_and_read(proto, tmp_path))


def nested(depth):
    """Return a serialized model with Ifs in Ifs; protobuf would not build one of any depth."""
    inner = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [], [Y])
    graph = inner.SerializeToString()
    for _ in range(depth):
        attribute = onnx.AttributeProto(name="then_branch", type=onnx.AttributeProto.GRAPH)
        around = attribute.SerializeToString() + field(onnx.AttributeProto, "g", graph)
        other = helper.make_attribute("else_branch", inner)
        node = onnx.NodeProto(op_type="If", input=["c"], output=["y"], attribute=[other])
        node = node.SerializeToString() + field(onnx.NodeProto, "attribute", around)
        empty = helper.make_graph([], "g", [], [Y]).SerializeToString()
        graph = empty + field(onnx.GraphProto, "node", node)
    graph += field(onnx.GraphProto, "input", X.SerializeToString())
    c = helper.make_tensor_value_info("c", TensorProto.BOOL, [])
    graph += field(onnx.GraphProto, "input", c.SerializeToString())
    around = onnx.ModelProto(ir_version=10, opset_import=[helper.make_opsetid("", 18)])
    return around.SerializeToString() + field(onnx.ModelProto, "graph", graph)


def field(proto, name, content):
    number = proto.DESCRIPTOR.fields_by_name[name].number
    return to_varint(number << 3 | 2) + to_varint(len(content)) + content


@pytest.mark.parametrize("depth", [32, 33, 40, 200])
def test_subgraphs_too_deep_for_protobuf(tmp_path, depth):
    path = tmp_path / "m.onnx"
    path.write_bytes(nested(depth))
    with pytest.raises(ModelError, match="subgraphs in subgraphs, more than 30 deep"):
        load(path)


def test_subgraphs_that_protobuf_reads(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(nested(28))
    load(path)


@pytest.mark.parametrize(
    ("name", "remedy"),
    [("nope.onnx", ""), ("modle.onnx", "did you mean model.onnx?"), ("x.bin", ""),
     ("model", "did you mean model.onnx?")],
)  # fmt: skip
def test_suggestions_are_alike_in_their_stems(tmp_path, name, remedy):
    for other in ("x.onnx", "model.onnx", "y.bin2"):
        (tmp_path / other).write_bytes(b"")
    with pytest.raises(ModelError, match="does not exist") as caught:
        load(tmp_path / name)
    assert caught.value.remedy == remedy


@pytest.mark.parametrize("kind", ["optional_type", "sequence_type"])
def test_sparse_elements_of_a_shape_are_refused_by_name(tmp_path, kind):
    value = onnx.ValueInfoProto(name="s")
    sparse = getattr(value.type, kind).elem_type.sparse_tensor_type
    sparse.elem_type = TensorProto.FLOAT
    sparse.shape.dim.add().dim_value = 3
    refused(model(inputs=(X, value)), tmp_path, "value s holds sparse tensors of a shape")
