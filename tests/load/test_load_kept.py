"""Nothing is lost on the way from a proto to IR and back."""

import copy
import gc

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from load_full_model import full_model
from load_models import ARRAY, info, model, save
from onnx import helper, numpy_helper

from vlmpass.ir_tools.errors import ModelError
from vlmpass.ir_tools.load import load
from vlmpass.ir_tools.proto.graph_writer import written
from vlmpass.ir_tools.system.collector import collecting, not_collecting

UNORDERED = ("value_info", "quantization_annotation", "metadata_props")


def canonical(proto):
    """The text of a proto, with what has no order in one."""
    proto = copy.deepcopy(proto)

    def walk(message):
        for field, value in message.ListFields():
            if field.name in UNORDERED:
                items = [copy.deepcopy(item) for item in value]
                items.sort(key=lambda item: item.SerializeToString(deterministic=True))
                message.ClearField(field.name)
                getattr(message, field.name).extend(items)
        for field, value in message.ListFields():
            if field.message_type is not None:
                for item in value if field.is_repeated else [value]:
                    walk(item)

    walk(proto)
    return str(proto).splitlines()


@pytest.mark.parametrize("ir_version", [9, 11])
def test_every_field_comes_back(ir_version):
    proto = full_model(ir_version)
    original = copy.deepcopy(proto)
    assert canonical(ir.to_proto(load(proto))) == canonical(original)
    assert proto == original  # the caller's model is not touched


@pytest.mark.parametrize("suffix", ["onnx", "textproto", "json"])
def test_every_field_comes_back_from_a_file(tmp_path, suffix):
    proto = full_model(11)
    path = tmp_path / f"m.{suffix}"
    onnx.save(proto, path)
    assert canonical(ir.to_proto(load(path))) == canonical(proto)


def test_what_is_said_of_an_output_elsewhere_is_kept():
    proto = model(
        inputs=[info("x", doc="input")],
        outputs=[info("y"), info("x"), info("w", dims=(4,))],
    )
    proto.graph.input[0].type.tensor_type.shape.dim[0].denotation = "DATA_BATCH"
    proto.graph.output[1].type.tensor_type.ClearField("shape")
    proto.graph.output[2].ClearField("type")
    proto.graph.value_info.add().CopyFrom(info("w", dims=(4,), doc="weight"))
    loaded = load(proto)
    x, w = loaded.graph.inputs[0], loaded.graph.outputs[2]
    assert x.doc_string == "input"
    assert [str(d) for d in x.shape] == ["n", "4"]
    assert x.shape.get_denotation(0) == "DATA_BATCH"
    assert (w.doc_string, w.dtype, w.shape) == ("weight", ir.DataType.FLOAT, ir.Shape([4]))


def test_types_of_function_inputs_are_kept():
    loaded = load(full_model(11))
    (function,) = loaded.functions.values()
    assert function.inputs[0].dtype == ir.DataType.FLOAT


def test_types_of_values_in_functions_are_kept_whatever_their_names():
    function = helper.make_function(
        "my",
        "F",
        ["x"],
        ["/l.0/y"],
        [helper.make_node("Relu", ["x"], ["/l.0/y"])],
        [helper.make_opsetid("", 21)],
    )
    proto = model([helper.make_node("F", ["x"], ["y"], domain="my")])
    proto.functions.append(function)
    proto.ir_version = 9
    proto.graph.value_info.append(info("my::F//l.0/y", dims=(2, 3)))
    loaded = load(proto)
    assert loaded.functions["my", "F", ""].outputs[0].shape == ir.Shape([2, 3])
    again = written(loaded)
    assert [each.name for each in again.graph.value_info].count("my::F//l.0/y") == 1


def test_the_default_domain_has_one_name():
    proto = model()
    proto.opset_import[0].domain = "ai.onnx"
    assert load(proto).opset_imports == {"": 21, "my": 1}


def test_metadata_of_tensors_is_not_doubled():
    proto = model()
    proto.graph.initializer[0].metadata_props.add(key="a", value="b")
    for _ in range(3):
        proto = ir.to_proto(load(proto))
    assert len(proto.graph.initializer[0].metadata_props) == 1


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_is_as_before(enabled):
    before = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        load(model())
        with pytest.raises(ModelError):
            load(model(outputs=[info("nothing")]))
        assert gc.isenabled() == enabled
    finally:
        (gc.enable if before else gc.disable)()


def test_the_collector_runs_within_what_keeps_it_off_if_it_was_on():
    before = gc.isenabled()
    try:
        for enabled in (True, False):
            (gc.enable if enabled else gc.disable)()
            with not_collecting():
                with not_collecting(), collecting():
                    assert gc.isenabled() == enabled
                assert not gc.isenabled()
            assert gc.isenabled() == enabled
    finally:
        (gc.enable if before else gc.disable)()


def test_equal_small_tensors_share_an_array_that_nobody_can_write_to():
    tensors = [numpy_helper.from_array(np.ones(2, np.int64), name) for name in ("a", "b")]
    tensors += [numpy_helper.from_array(np.ones(2, np.uint64), "c")]
    proto = model(initializers=[numpy_helper.from_array(ARRAY[0], "w"), *tensors])
    held = load(proto).graph.initializers
    a, b, c = (held[name].const_value for name in "abc")
    assert a.raw is b.raw
    assert a is not b
    assert (a.name, b.name) == ("a", "b")
    assert not a.raw.flags.writeable
    assert c.dtype == ir.DataType.UINT64


def test_unsorted_nodes_are_accepted():
    nodes = [helper.make_node("Relu", ["h"], ["y"]), helper.make_node("Add", ["x", "w"], ["h"])]
    assert [node.op_type for node in load(model(nodes)).graph] == ["Relu", "Add"]


def test_typed_and_raw_data():
    tensors = {
        "a": helper.make_tensor("a", onnx.TensorProto.FLOAT16, [2], [1.0, 2.0]),
        "b": helper.make_tensor("b", onnx.TensorProto.INT4, [3], [1, -2, 3]),
        "c": helper.make_tensor("c", onnx.TensorProto.UINT2, [5], [1, 2, 3, 0, 1]),
        "d": helper.make_tensor("d", onnx.TensorProto.COMPLEX64, [1], [1 + 2j]),
        "e": helper.make_tensor("e", onnx.TensorProto.UINT32, [2], [1, 2]),
        "f": helper.make_tensor("f", onnx.TensorProto.BOOL, [2], [True, False]),
        "g": helper.make_tensor("g", onnx.TensorProto.FLOAT6E2M3, [3], [1.0, 2.0, 0.5]),
        "h": helper.make_tensor("h", onnx.TensorProto.FLOAT8E4M3FN, [1], [1.0]),
        "empty": helper.make_tensor("empty", onnx.TensorProto.FLOAT, [0, 3], []),
        "w": numpy_helper.from_array(ARRAY[0], "w"),
    }
    loaded = load(model(initializers=list(tensors.values())))
    for name, tensor in tensors.items():
        value = loaded.graph.initializers[name].const_value
        assert np.array_equal(value.numpy(), numpy_helper.to_array(tensor)), name


def test_large_inline_tensors_stay_in_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr("vlmpass.ir_tools.load.parse._INLINE_FILE_BYTES", 0)
    monkeypatch.setattr("vlmpass.ir_tools.load.parse._INLINE_TENSOR_BYTES", 1)
    proto = full_model(11)
    loaded = load(save(proto, tmp_path))
    expected = copy.deepcopy(proto)
    got = canonical(ir.to_proto(loaded))
    for tensor in expected.graph.initializer:  # raw data are written as raw data
        assert tensor.name in loaded.graph.initializers
    assert got == canonical(expected)


def test_extents_below_zero_are_unknown():
    nodes = [
        helper.make_node("Add", ["x", "w"], ["h"]),
        helper.make_node("Relu", ["h"], ["y"]),
    ]
    proto = model(nodes, inputs=[info("x", dims=[-1, 4])], outputs=[info("y", dims=[-1, 4])])
    proto.graph.value_info.append(info("h", dims=[-1, 4]))
    proto.graph.input[0].type.tensor_type.shape.dim[0].denotation = "DATA_BATCH"
    loaded = load(proto)
    values = [loaded.graph.inputs[0], *(node.outputs[0] for node in loaded.graph)]
    assert [value.shape[0].value for value in values] == [None] * 3
    assert [value.shape[1] for value in values] == [4] * 3
    assert values[0].shape.get_denotation(0) == "DATA_BATCH"
    assert proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value == -1
