"""Small models that were folded wrongly, or not at all, and what is right for each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

import vlmpass

X = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3])
Z = helper.make_tensor_value_info("z", TensorProto.FLOAT, [2, 3])


def model_of(
    node: onnx.NodeProto, constants: dict[str, np.ndarray], opset: int, output: onnx.ValueInfoProto
) -> onnx.ModelProto:
    """Return a model of a node on constants, beside a Relu of its input."""
    tensors = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    relu = helper.make_node("Relu", ["x"], ["z"])
    graph = helper.make_graph([node, relu], "g", [X], [output, Z], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def simplified(model: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    source, target = folder / "source.onnx", folder / "target.onnx"
    onnx.save(model, source)
    vlmpass.Pipeline(simplify=True, fuse="standard").convert(source, target)
    return onnx.load(target)


def run(model: onnx.ModelProto) -> list[np.ndarray]:
    session = ort.InferenceSession(model.SerializeToString())
    return session.run(None, {"x": np.ones((2, 3), np.float32)})


def output(name: str, kind: int, shape: list[object]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def test_gather_elements_never_broadcasts(tmp_path) -> None:
    node = helper.make_node("GatherElements", ["d", "i"], ["y"], axis=1)
    data = np.arange(9, dtype=np.float32).reshape(3, 3)
    constants = {"d": data, "i": np.array([[0, 2, 1]])}
    source = model_of(node, constants, 18, output("y", TensorProto.FLOAT, [1, 3]))
    after = simplified(source, tmp_path)
    assert [each.op_type for each in after.graph.node] == ["Constant", "Relu"]
    np.testing.assert_array_equal(run(after)[0], data[:1, [0, 2, 1]])


@pytest.mark.parametrize(("start", "end"), [(-3, 2**63 - 1), (-3, -9), (0, 2**31 - 1), (-5, -3)])
def test_backward_slices_that_are_read_differently_are_left_alone(tmp_path, start, end) -> None:
    node = helper.make_node("Slice", ["d", "s", "e", "a", "t"], ["y"])
    constants = {
        "d": np.full((1, 1, 1), 3, np.int8),
        "s": np.array([start]),
        "e": np.array([end]),
        "a": np.array([-2]),
        "t": np.array([-1]),
    }
    source = model_of(node, constants, 17, output("y", TensorProto.INT8, [None, None, None]))
    after = simplified(source, tmp_path)
    assert "Slice" in [each.op_type for each in after.graph.node]
    for found, wanted in zip(run(after), run(source), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_a_power_of_scalars_is_folded(tmp_path) -> None:
    node = helper.make_node("Pow", ["a", "b"], ["y"])
    constants = {"a": np.array(3), "b": np.array(2)}
    after = simplified(model_of(node, constants, 17, output("y", TensorProto.INT64, [])), tmp_path)
    assert [each.op_type for each in after.graph.node] == ["Constant", "Relu"]
    assert run(after)[0] == 9


@pytest.mark.parametrize("opset", [7, 8])
def test_integers_are_no_constants_below_opset_9(tmp_path, opset) -> None:
    node = helper.make_node("Shape", ["x"], ["y"])
    source = model_of(node, {}, opset, output("y", TensorProto.INT64, [2]))
    after = simplified(source, tmp_path)
    onnx.checker.check_model(after, full_check=True)
    np.testing.assert_array_equal(run(after)[0], [2, 3])


def test_a_split_into_one_part_goes(tmp_path) -> None:
    split = helper.make_node("Split", ["x", "s"], ["p"], axis=1)
    again = helper.make_node("Split", ["p"], ["q"], axis=0)
    relu = helper.make_node("Relu", ["q"], ["z"])
    sizes = numpy_helper.from_array(np.array([3]), "s")
    graph = helper.make_graph([split, again, relu], "g", [X], [Z], [sizes])
    opsets = [helper.make_opsetid("", 14)]
    after = simplified(helper.make_model(graph, opset_imports=opsets, ir_version=8), tmp_path)
    assert [each.op_type for each in after.graph.node] == ["Relu"]


def test_constants_of_strings_pass_through(tmp_path) -> None:
    made = helper.make_node("Constant", [], ["c"], value_strings=["a", "b"])
    copied = helper.make_node("Identity", ["c"], ["y"])
    relu = helper.make_node("Relu", ["x"], ["z"])
    outputs = [output("y", TensorProto.STRING, [2]), Z]
    graph = helper.make_graph([made, copied, relu], "g", [X], outputs)
    opsets = [helper.make_opsetid("", 18)]
    after = simplified(helper.make_model(graph, opset_imports=opsets, ir_version=8), tmp_path)
    assert run(after)[0].tolist() == ["a", "b"]
