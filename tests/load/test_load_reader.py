"""What is read of a protobuf is what onnx_ir reads of it: fixtures, and every kind of field."""

import itertools
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from load_full_model import full_model
from load_models import model as small_model

from vlmpass.ir_tools.graph.walk import all_nodes, all_values
from vlmpass.ir_tools.load.graph_reader import GraphReader
from vlmpass.ir_tools.proto.proto_tensors import model_tensors

FIXTURES = sorted((Path(__file__).parents[1] / "fixtures").rglob("*.onnx"))


def told(model):
    """Everything that a model says of its values and nodes, in their order."""
    serialized = ir.to_proto(model).SerializeToString(deterministic=True)
    nodes = {node: number for number, node in enumerate(all_nodes(model))}
    values = {
        (value.name, number): (
            value.type,
            value.type and value.type.denotation,
            value.shape and list(value.shape),
            value.shape and [value.shape.get_denotation(i) for i in range(len(value.shape))],
            value.doc_string or None,
            dict(value.metadata_props),
            dict(value.meta),
            [(nodes[user], index) for user, index in value.uses()],
            value.is_graph_input() + 2 * value.is_graph_output() + 4 * value.is_initializer(),
        )
        for number, value in enumerate(all_values(model))
    }
    return serialized, values, list(nodes)


def described(node):
    fields = (node.domain, node.op_type, node.overload, node.name, node.doc_string)
    names = [value and value.name for value in node.inputs]
    return *fields, names, [*node.attributes], node.metadata_props, node.device_configurations


def assert_same(proto):
    untouched = proto.SerializeToString()
    ours, theirs = told(GraphReader().model(proto)), told(ir.from_proto(proto))
    assert proto.SerializeToString() == untouched
    assert ours[0] == theirs[0]
    assert ours[1] == theirs[1]
    for own, other in zip(ours[2], theirs[2], strict=True):
        assert str(described(own)) == str(described(other))  # of values, their names


@pytest.mark.parametrize("version", [10, 11])
def test_every_field(version):
    proto = full_model(version)
    for function in proto.functions:
        del function.value_info[:]  # of a function's inputs onnx_ir reads nothing
    for tensor in model_tensors(proto):
        del tensor.metadata_props[:]  # onnx_ir would write them twice
    assert_same(proto)


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
def test_a_fixture(path):
    assert_same(onnx.load(path, load_external_data=False))


def test_types_of_function_inputs_are_read():
    proto = full_model(11)
    function = GraphReader().model(proto).functions.values()
    infos = {info.name for each in proto.functions for info in each.value_info}
    inputs = [value for each in function for value in each.inputs if value.name in infos]
    assert inputs
    assert all(value.type is not None for value in inputs)


def test_what_is_shared_cannot_be_changed():
    proto = full_model(11)
    held = {id(value.shape): value for value in all_values(GraphReader().model(proto))}
    for value in held.values():
        assert value.shape is None or value.shape.frozen
        assert value.dtype is None or value.type is not ir.TensorType(value.dtype)


def test_values_of_one_type_can_take_another():
    proto = small_model()
    model = GraphReader().model(proto)
    x, y = model.graph.inputs[0], model.graph.outputs[0]
    assert x.shape is y.shape
    x.dtype = ir.DataType.FLOAT16
    assert y.dtype == ir.DataType.FLOAT


def test_equal_small_tensors_share_an_array_and_keep_their_names():
    array = np.arange(4, dtype=np.int64)
    tensors = [onnx.numpy_helper.from_array(array, name) for name in "abc"]
    other = onnx.numpy_helper.from_array(array.astype(np.int32), "d")
    proto = small_model(nodes=[], outputs=[], initializers=[*tensors, other])
    held = [value.const_value for value in GraphReader().model(proto).graph.initializers.values()]
    assert [each.name for each in held] == ["a", "b", "c", "d"]
    pairs = itertools.combinations(held, 2)
    shared = {(a.name, b.name) for a, b in pairs if np.shares_memory(a.raw, b.raw)}
    assert shared == {("a", "b"), ("a", "c"), ("b", "c")}
    with pytest.raises(ValueError, match="read-only"):
        held[0].raw[0] = 1
