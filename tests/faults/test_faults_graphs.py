"""Graphs that say less or other than their nodes need: kept, or refused before the passes."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.inliner
import onnx.parser
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from vlmpass import Pipeline
from vlmpass.ir_tools.check import check
from vlmpass.ir_tools.errors import CheckError, ModelError, VlmpassError
from vlmpass.ir_tools.load import load
from vlmpass.ir_tools.proto.graph_writer import written

from .files import X, Y, model, refused, save_and_read


def test_empty_outputs_at_the_end_are_kept(tmp_path):
    """A Split without sizes cuts into as many parts as it has outputs, named or not."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [6])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])
    proto = model(
        [helper.make_node("Split", ["x"], ["y", "", ""], axis=0)], opset=13, inputs=(x,),
        outputs=(y,),
    )  # fmt: skip
    check(load(proto))
    written = save_and_read(proto, tmp_path)
    assert list(written.graph.node[0].output) == ["y", "", ""]


PARTS = [
    'a, "", "" = Split <axis = 0> (x) y = Relu (a)',
    '"", y, "" = Split <axis = 0> (x)',
    'a, "", "" = Split <axis = 0> (x) "", b, "" = Split <axis = 0> (x) y = Add (a, b)',
    't = Transpose <perm = [1, 0]> (x) a, "", "" = Split <axis = 1> (t) '
    "y = Transpose <perm = [1, 0]> (a)",
    'a, "", "" = Split <axis = 0> (c) r = ReduceSum <keepdims = 0> (a) b, "", "" = '
    "Split <axis = 0> (x) y = Add (b, r)",
    'y, "", "" = Split <axis = 0> (x, sizes)',
]


@pytest.mark.parametrize(
    "intent", [{"simplify": True}, {"opset": 11}, {"opset": 18}, {"opset": 24}, {"fuse": "ort"}]
)
@pytest.mark.parametrize("body", PARTS)
def test_parts_that_are_left_out_count_through_passes(body, intent):
    """Judged by the reference: ONNX Runtime 1.31 crashes on every Split with a part left out."""
    weights = "<float[6] c = {0, 1, 2, 3, 4, 5}, int64[3] sizes = {2, 1, 3}>"
    source = onnx.parser.parse_model(
        f'<ir_version: 7, opset_import: ["": 13]> g (float[6, 2] x) => (float[2, 2] y) {weights} '
        f"{{ {body} }}"
    )
    made = Pipeline(**intent).run(source).model
    result = written(made)
    onnx.checker.check_model(result, full_check=True)
    x = np.random.default_rng(7).standard_normal((6, 2)).astype(np.float32)
    expected, found = (ReferenceEvaluator(each).run(None, {"x": x})[0] for each in (source, result))
    np.testing.assert_array_equal(found, expected)


def test_a_loop_without_a_body(tmp_path):
    nodes = [helper.make_node("Loop", ["", "", "x"], ["y"], name="loop")]
    refused(model(nodes), tmp_path, r"node loop \(Loop\) has no graph as its body")
    nodes[0].attribute.append(helper.make_attribute("body", 3))
    refused(model(nodes), tmp_path, r"node loop \(Loop\) has no graph as its body")
    ref = onnx.AttributeProto(name="body", type=onnx.AttributeProto.GRAPH, ref_attr_name="b")
    loop = onnx.NodeProto(op_type="Loop", input=["", "", "t"], output=["u"], attribute=[ref])
    imports = [helper.make_opsetid("", 18)]
    function = helper.make_function("local", "F", ["t"], ["u"], [loop], imports, ["b"])
    refused(
        model(functions=[function]), tmp_path, "a graph that the call of a function gives, body"
    )


def test_a_graph_that_a_call_gives_is_refused_with_a_remedy_that_works():
    proto = onnx.parser.parse_model(
        """<ir_version: 9, opset_import: ["": 18, "my": 1]> g (bool c) => (float y) {
        y = my.Pick <then = t () => (float a) { a = Constant <value_float = 1.0> () },
                     else = e () => (float b) { b = Constant <value_float = 2.0> () }> (c) }
        <domain: "my", opset_import: ["": 18]> Pick <then, else> (c) => (y) {
        y = If <then_branch: graph = @then, else_branch: graph = @else> (c) }"""
    )
    with pytest.raises(ModelError, match=r"inline it first: onnx\.inliner\.inline_local_functions"):
        load(proto)
    inlined = load(onnx.inliner.inline_local_functions(proto))
    made = Pipeline(simplify=True).run(inlined, verify=True)
    assert made.checked.numbers is not None


@pytest.mark.parametrize("inputs", [["x"], ["x", ""], []])
def test_a_node_that_lacks_an_input_is_refused_before_the_passes(inputs):
    nodes = [helper.make_node("Mul", inputs, ["a"]), helper.make_node("Softmax", ["a"], ["y"])]
    with pytest.raises(VlmpassError, match="Mul takes 2 inputs, none of them left out"):
        Pipeline(dtype="float16").run(model(nodes))


@pytest.mark.parametrize(
    "body",
    [
        "y, z = If (c) <then_branch = t () => (float[2,3] p) { p = Neg (x) },"
        " else_branch = e () => (float[2,3] q) { q = Abs (x) }>",
        'y = Loop ("", c, x, x) <body = l (int64 i, bool k, float[2,3] u) => (bool o, float[2,3] v)'
        " { o = Identity (k) v = Neg (u) }>",
        'y, z = Loop ("", c, x) <body = l (int64 i, bool k, float[2,3] u)'
        " => (bool o, float[2,3] v) { o = Identity (k) v = Neg (u) }>",
    ],
)
def test_graphs_that_give_less_than_their_node_are_refused_before_the_passes(body):
    source = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": 17]> g (bool c, float[2,3] x) => (float[2,3] y) '
        f"{{ {body} }}"
    )
    with pytest.raises(VlmpassError, match="not as many as its graphs have"):
        Pipeline(simplify=True).run(source)


@pytest.mark.parametrize("number", [77, 2**32, -5])
def test_an_element_type_that_nobody_knows(tmp_path, number):
    nodes = [helper.make_node("Cast", ["x"], ["y"], to=number)]
    refused(
        model(nodes), tmp_path, rf"attribute to of node of y .* element type {number}, which is"
    )


@pytest.mark.parametrize("version", [-1, 2**31, 2**62])
def test_an_opset_that_cannot_be(tmp_path, version):
    proto = model()
    proto.opset_import[0].version = version
    refused(proto, tmp_path, f"imports opset {version} of domain ai.onnx, and no such opset can be")


@pytest.mark.parametrize("name", ["a\nb", "a" * 100_000])
def test_names_in_many_lines_or_without_end(tmp_path, name):
    proto = model([helper.make_node("Relu", [name], ["y"])])
    refused(proto, tmp_path, "reads a.*which nothing defines")
    with pytest.raises(ModelError) as caught:
        load(proto)
    assert len(str(caught.value)) < 2000


def test_an_input_that_is_an_output_of_another_type(tmp_path):
    other = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 4])
    refused(model(outputs=(Y, other)), tmp_path, "says two things of value x, as an input and as")
    same = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, None])
    assert save_and_read(model(outputs=(Y, same)), tmp_path).graph.input[0] == X


@pytest.mark.parametrize(
    "other",
    [
        helper.make_tensor_value_info("y", TensorProto.INT8, [2, 3]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 3, 1]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 4]),
        helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, [2, 3]),
    ],
    ids=["elements", "rank", "size", "kind"],
)
def test_an_output_that_is_restated_as_another(tmp_path, other):
    proto = model()
    proto.graph.value_info.append(other)
    refused(proto, tmp_path, "says two things of value y, in its value_info and as an input or out")


def test_what_an_output_leaves_open_and_another_place_says_is_kept(tmp_path):
    proto = model(outputs=(helper.make_tensor_value_info("y", 0, [2, 3]),))
    proto.graph.value_info.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, None))
    assert save_and_read(proto, tmp_path).graph.output[0] == Y


def test_annotations_of_what_nothing_defines_are_kept(tmp_path):
    proto = model()
    annotation = proto.graph.quantization_annotation.add(tensor_name="gone")
    annotation.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="s")
    written = save_and_read(proto, tmp_path)
    assert written.graph.quantization_annotation == proto.graph.quantization_annotation


def test_a_long_name_that_onnx_complains_of():
    """Explaining what the checker said once took the square of the length of a name."""
    node = helper.make_node("Relu", ["x"], ["y"], **{"a" * 70_000: 1})
    with pytest.raises(CheckError, match="Unrecognized attribute") as caught:
        check(load(model([node])))
    assert len(str(caught.value)) < 10_000


def test_what_is_said_of_unknown_values_is_kept(tmp_path):
    proto = model()
    proto.graph.value_info.append(helper.make_tensor_value_info("gone", TensorProto.FLOAT, [5]))
    assert save_and_read(proto, tmp_path).graph.value_info == proto.graph.value_info
