"""The pass as a whole: all refusals before any edit, names and functions kept, one stamp."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from vlmpass.ir_tools.errors import ModelError, Refused, VlmpassError
from vlmpass.passes.convert_opset import ConvertOpset
from vlmpass.passes.pipeline.text import parse

from .opset_cases import _by_ort


def convert(text: str, to: int | str) -> ir.Model:
    model = ir.from_onnx_text(text)
    ConvertOpset(to=to).run(model)
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    return model


def operators(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


HEAD = '<ir_version: 8, opset_import: ["" : {}]>\n'


def test_nodes_that_mean_the_same_are_not_touched():
    model = ir.from_onnx_text(
        HEAD.format(14)
        + """agraph (float[2,n] x, float[n,4] w) => (float[2,4] y) {
            h = MatMul(x, w)  r = Relu(h)  y = Add(r, h)
        }"""
    )
    nodes = list(model.graph)
    nodes[0].metadata_props["namespace"] = "block"
    assert ConvertOpset(to=21).run(model)
    assert list(model.graph) == nodes
    assert model.opset_imports[""] == 21
    assert model.ir_version == 10
    assert not ConvertOpset(to=21).run(model)


def test_names_types_and_metadata_stay_with_a_replaced_node():
    model = ir.from_onnx_text(
        HEAD.format(13)
        + "agraph (float[2,n] x) => (float[2,1] y) { y = ReduceMean <axes=[1], keepdims=1> (x) }"
    )
    (node,) = model.graph
    node.name, node.doc_string = "norm/mean", "the mean"
    node.metadata_props["namespace"] = "norm"
    model.graph.outputs[0].doc_string = "result"
    ConvertOpset(to=18).run(model)
    (node,) = model.graph
    assert (node.name, node.doc_string) == ("norm/mean", "the mean")
    assert node.metadata_props == {"namespace": "norm", "vlmpass.rule": "axes_become_input"}
    assert model.graph.outputs[0].name == "y"
    assert model.graph.outputs[0].doc_string == "result"
    assert list(model.graph.initializers) == ["norm/mean/axes"]


def test_every_refusal_is_listed_and_nothing_is_edited():
    text = (
        HEAD.format(20)
        + """agraph (string[2] a, string[2] b, float[2] x) =>
        (string[2] c, bool[2] d, float[2] y) {
            [cat] c = StringConcat(a, b)
            [full] d = RegexFullMatch <pattern = "a+"> (a)
            [gelu] y = Gelu(x)
        }"""
    )
    model = ir.from_onnx_text(text)
    before = ir.to_proto(model).SerializeToString()
    with pytest.raises(Refused) as refused:
        ConvertOpset(to=17).run(model)
    assert [each.node for each in refused.value.refusals] == [
        "cat (StringConcat-20)",
        "full (RegexFullMatch-20)",
    ]
    assert all(each.reason and each.remedy for each in refused.value.refusals)
    assert ir.to_proto(model).SerializeToString() == before
    assert [len(value.uses()) for value in model.graph.inputs] == [2, 1, 1]


@pytest.mark.parametrize(
    ("nodes", "problem"),
    [
        ("y = Gelu(x)", "Gelu does not exist before opset 20, and opset 13 is imported"),
        ("y = Relu <alpha = 1.0> (x)", "Relu-13 has no attribute alpha"),
        ("y = Add(x)", "Add-13 does not take 1 inputs"),
        ("y = Cast(x)", "Cast-13 needs its attribute to"),
    ],
)
def test_an_ill_formed_node_is_refused(nodes, problem):
    model = ir.from_onnx_text(
        HEAD.format(13) + f"agraph (float[2] x) => (float[2] y) {{ {nodes} }}"
    )
    with pytest.raises(Refused, match="ill-formed") as refused:
        ConvertOpset(to=18).run(model)
    assert problem in str(refused.value)


@pytest.mark.parametrize("to", [6, 99])
def test_an_opset_out_of_range_is_refused(to):
    with pytest.raises(VlmpassError, match=f"opset {to} is out of range"):
        ConvertOpset(to=to)


def test_a_source_out_of_range_is_refused():
    model = ir.from_onnx_text(
        HEAD.format(0) + "agraph (float[2] x) => (float[2] y) { y = Relu(x) }"
    )
    with pytest.raises(ModelError, match="imports opset 0"):
        ConvertOpset(to=18).run(model)


def test_its_text_round_trips():
    (found,) = parse("convert-opset{to=18}")
    assert found == ConvertOpset(to=18)
    assert str(found) == "convert-opset{to=18}"
    assert str(ConvertOpset(to="lowest")) == "convert-opset{to=lowest}"


FUNCTION = """<ir_version: 9, opset_import: ["" : 18, "local" : 1]>
agraph (float[2,3] x) => (float[2,1] y, float[2,3] z) {
    y = local.mean <keep = 1> (x)
    z = local.act (x)
}
<domain: "local", opset_import: ["" : 17]>
mean <keep> (v) => (m) { m = ReduceMean <axes = [1], keepdims: int = @keep> (v) }
<domain: "local", opset_import: ["" : 20]>
act (v) => (w) { w = Gelu(v) }
"""


def test_functions_are_converted_with_their_own_imports():
    model = convert(FUNCTION, 18)
    functions = {function.name: function for function in model.functions.values()}
    assert {f.opset_imports[""] for f in functions.values()} == {18}
    assert [node.op_type for node in functions["mean"]] == ["Constant", "ReduceMean"]
    assert "Gelu" not in [node.op_type for node in functions["act"]]
    x = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)
    y, z = _by_ort(ir.to_proto(model), [x])
    np.testing.assert_allclose(y, x.mean(1, keepdims=True), rtol=1e-6)
    erf = np.vectorize(__import__("math").erf)
    np.testing.assert_allclose(z, x / 2 * (1 + erf(x / 2**0.5)), rtol=1e-5, atol=1e-6)


def test_other_domains_are_untouched():
    model = ir.from_onnx_text(
        '<ir_version: 8, opset_import: ["" : 13, "com.microsoft" : 1]>'
        "agraph (float[2] x) => (float[2] y) { y = com.microsoft.Gelu(x) }"
    )
    ConvertOpset(to=18).run(model)
    assert dict(model.opset_imports) == {"": 18, "com.microsoft": 1}
    assert operators(model) == ["Gelu"]


def test_subgraphs_are_converted_and_read_outer_constants():
    model = convert(
        HEAD.format(18)
        + """agraph (bool c, float[2,3] x) => (float[s,t] y)
        <int64[1] axes = {1}> {
            y = If (c) <
                then_branch = yes () => (float[s,t] a) { a = ReduceMax (x, axes) },
                else_branch = no () => (float[s,t] b) { b = Identity (x) }
            >
        }""",
        17,
    )
    (node,) = model.graph
    assert [inner.op_type for inner in node.attributes["then_branch"].as_graph()] == ["ReduceMax"]
    assert not model.graph.initializers
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    (y,) = _by_ort(ir.to_proto(model), [np.array(True), x])
    np.testing.assert_array_equal(y, x.max(1, keepdims=True))


def test_a_constant_that_others_read_stays():
    model = convert(
        HEAD.format(18)
        + """agraph (float[2,3] x) => (float[2,1] y, int64[1] z)
        <int64[1] axes = {1}> { y = ReduceMax (x, axes)  z = Identity (axes) }""",
        17,
    )
    assert list(model.graph.initializers) == ["axes"]


def test_an_initializer_that_is_an_input_is_no_constant():
    model = convert(
        HEAD.format(18)
        + """agraph (float[2,3] x, int64[1] axes = {1}) => (float[a,b] y) {
            y = ReduceMax (x, axes)
        }""",
        17,
    )
    assert "If" in operators(model)
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString())
    for axis in (0, 1, -1):
        (y,) = session.run(None, {"x": x, "axes": np.array([axis])})
        np.testing.assert_array_equal(y, x.max(axis, keepdims=True))


def test_types_are_bridged_where_values_survive():
    model = convert(
        HEAD.format(22)
        + """agraph (bfloat16[1,1,4,4] x, bfloat16[1,1,3,3] w) => (bfloat16[1,1,2,2] y) {
            [conv] y = Conv (x, w)
        }""",
        21,
    )
    assert operators(model) == ["Cast", "Cast", "Conv", "Cast"]
    assert {n.metadata_props["vlmpass.rule"] for n in model.graph} == {"bridge-types"}


def test_types_that_the_opset_does_not_have_are_refused():
    model = ir.from_onnx_text(
        HEAD.format(13) + "agraph (bfloat16[4] x) => (bfloat16[4] y) { y = Relu(x) }"
    )
    with pytest.raises(Refused, match="bfloat16"):
        ConvertOpset(to=12).run(model)


@pytest.mark.parametrize(
    ("source", "nodes", "lowest"),
    [
        (18, "y = Relu(x)", 7),
        (18, "y = LayerNormalization(x, x)", 17),
        (21, "y = HardSwish(x)", 14),
        (20, "y = Gelu(x)", 20),
    ],
)
def test_the_lowest_opset_is_the_one_that_needs_no_rewriting(source, nodes, lowest):
    model = convert(
        HEAD.format(source) + f"agraph (float[2] x) => (float[2] y) {{ {nodes} }}", "lowest"
    )
    assert model.opset_imports[""] == lowest


@pytest.mark.parametrize(
    ("source", "kind", "nodes", "chosen"),
    [
        (13, "float", "y = Relu(x)", 21),
        (24, "float", "y = Swish(x)", 21),
        (26, "float4e2m1", "y = Transpose(x)", 23),
        (26, "uint2", "y = Transpose(x)", 25),
    ],
)
def test_auto_goes_up_from_21_only_for_what_cannot_be_there(source, kind, nodes, chosen):
    text = f"agraph ({kind}[2] x) => ({kind}[2] y) {{ {nodes} }}"
    assert convert(HEAD.format(source) + text, "auto").opset_imports[""] == chosen


@pytest.mark.parametrize(
    ("to", "dtype", "version"),
    [(13, "float", 7), (18, "float", 8), (21, "int4", 10), (25, "float", 13)],
)
def test_the_ir_version_follows_the_opset_and_the_types(to, dtype, version):
    model = ir.from_onnx_text(
        f'<ir_version: 11, opset_import: ["" : 22]> agraph ({dtype}[2] x) => ({dtype}[2] y) '
        "{ y = Identity(x) }"
    )
    ConvertOpset(to=to).run(model)
    assert model.ir_version == version


def test_a_weight_is_never_read():
    class Unreadable(ir.LazyTensor):
        pass

    def fail() -> ir.TensorProtocol:
        raise AssertionError("a weight was read")

    weight = Unreadable(fail, ir.DataType.FLOAT, ir.Shape([4096, 4096]), name="w")
    model = ir.from_onnx_text(
        HEAD.format(18)
        + """agraph (float[2,4096] x, float[4096,4096] w) => (float[2,1] y) {
            h = MatMul(x, w)  n = LayerNormalization(h, h)  y = ReduceMean(n, a)
        }""".replace("ReduceMean(n, a)", "ReduceL2(n)")
    )
    value = model.graph.inputs[1]
    model.graph.inputs.pop()
    value.const_value = weight
    model.graph.register_initializer(value)
    ConvertOpset(to=11).run(model)
    assert model.graph.initializers["w"].const_value is weight
