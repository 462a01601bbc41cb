"""What is written of a graph is what onnx_ir writes of it, and what that leaves out."""

from pathlib import Path

import onnx
import onnx_ir as ir
import pytest
from load_full_model import full_model
from load_models import model as small_model

from vlmpass.ir_tools.errors import ModelError, SaveError
from vlmpass.ir_tools.graph.walk import scopes
from vlmpass.ir_tools.load import load
from vlmpass.ir_tools.proto.graph_writer import UNKNOWN, written
from vlmpass.ir_tools.proto.proto_view import skeleton

FIXTURES = sorted((Path(__file__).parents[1] / "fixtures").rglob("*.onnx"))


def assert_same(model):
    ours, theirs = written(model), ir.to_proto(model)
    assert ours.SerializeToString() == theirs.SerializeToString()


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
def test_a_fixture(path):
    assert_same(load(path))


@pytest.mark.parametrize("version", [8, 9, 10, 11, 13])
def test_every_field(version):
    model = load(full_model(version))
    for scope in scopes(model):
        scope.graph.meta.pop(UNKNOWN, None)
    assert_same(model)


def split(*outputs):
    node = onnx.helper.make_node("Split", ["x"], list(outputs), name="split")
    made = [onnx.helper.make_tensor_value_info(outputs[0], 1, None)]
    return load(small_model(nodes=[node], outputs=made, initializers=[]))


def test_empty_names_at_the_end_of_outputs_are_written():
    assert list(written(split("a", "", "")).graph.node[0].output) == ["a", "", ""]


def test_a_shape_without_a_type_is_not_written():
    model = split("a", "b", "c")
    model.graph[0].outputs[1].shape = ir.Shape([2])
    assert not written(model).graph.value_info


def test_what_has_no_protobuf_form_is_said():
    model = split("a", "b")
    model.graph[0].attributes["axis"] = ir.Attr("axis", ir.AttributeType.INT, 1 << 70)
    with pytest.raises(SaveError, match="cannot be written as a protobuf: "):
        written(model)
    model = split("a", "b")
    model.graph[0].outputs[0].name = None
    with pytest.raises(SaveError, match="cannot be written as a protobuf: "):
        written(model)


def test_what_a_tensor_raises_comes_out_as_it_is():
    def refuse(tensor):
        raise ModelError("not this one")

    model = load(small_model())
    with pytest.raises(ModelError, match="not this one"):
        skeleton(model, refuse)

    def late(tensor):
        return ir.LazyTensor(lambda: refuse(tensor), dtype=tensor.dtype, shape=tensor.shape)

    with pytest.raises(ModelError, match="not this one"):
        skeleton(model, late)


def test_writing_changes_nothing_in_the_model():
    model = load(small_model())
    tensor = model.graph.initializers["w"].const_value
    tensor.name = "another"
    assert [each.name for each in written(model).graph.initializer] == ["w"]
    assert tensor.name == "another"


def test_attributes_that_are_shared_are_written_at_each_node():
    model = split("a", "b")
    shared = ir.AttrInt64("axis", 1)
    other = ir.Node("", "Split", model.graph[0].inputs, [shared], num_outputs=2)
    model.graph.append(other)
    model.graph[0].attributes["axis"] = shared
    nodes = written(model).graph.node
    assert [each.attribute[0].i for each in nodes] == [1, 1]
