"""Element types the lower opset lacks, inside a model: carried in wider ones, or refused."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from vlmpass.ir_tools.errors import ModelError, Refused
from vlmpass.passes.convert_opset import ConvertOpset
from vlmpass.rewriter_rules.opset.element_types import absent

from .opset_cases import attempts, differs
from .opset_graphs import assert_same_after, build

D = ir.DataType
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(3, 8)).astype(np.float32)


DEQUANTIZED = """agraph (float[3,8] x) => (float[3,6] y) {
    t = Transpose <perm=[1,0]> (w)
    d = DequantizeLinear <axis=1> (t, s, z)
    u = Transpose <perm=[1,0]> (d)
    y = MatMul(x, u)
}"""


@pytest.mark.parametrize("to", [20, 19, 17, 13, 11, 9])
@pytest.mark.parametrize(
    ("dtype", "low", "wide"), [(D.INT4, -8, D.INT8), (D.UINT4, 0, D.UINT8), (D.INT2, -2, D.INT8)]
)
def test_sub_byte_weights_become_bytes(dtype, low, wide, to):
    weights = RANDOM.integers(low, low + 2**dtype.bitwidth, (8, 6))
    model = build(
        DEQUANTIZED,
        25 if dtype == D.INT2 else 21,
        w=(weights, dtype),
        s=(RANDOM.uniform(0.1, 1, 8), D.FLOAT),
        z=(weights[:, 0], dtype),
    )
    assert_same_after(model, to, X)
    assert model.graph.initializers["w"].dtype == wide


@pytest.mark.parametrize("to", [20, 13])
def test_blocks_of_two_bits_are_dequantised(to):
    model = build(
        """agraph (float[3,8] x) => (float[3,6] y) {
            d = DequantizeLinear <axis=0, block_size=4> (w, s, z)
            y = MatMul(x, d)
        }""",
        25,
        w=(RANDOM.integers(0, 4, (8, 6)), D.UINT2),
        s=(RANDOM.uniform(0.1, 1, (2, 6)), D.FLOAT),
        z=(RANDOM.integers(0, 4, (2, 6)), D.UINT2),
    )
    assert_same_after(model, to, X)


EIGHT_BITS = [D.FLOAT8E4M3FN, D.FLOAT8E4M3FNUZ, D.FLOAT8E5M2, D.FLOAT8E5M2FNUZ]


@pytest.mark.parametrize("to", [18, 11])
@pytest.mark.parametrize("dtype", EIGHT_BITS)
@pytest.mark.parametrize("read", ["Cast <to=1> (w)", "DequantizeLinear(w, s)"])
def test_float8_weights_become_wider_floats(read, dtype, to):
    text = f"agraph (float[3,8] x) => (float[3,6] y) {{ d = {read}  y = MatMul(x, d) }}"
    constants = {"w": (RANDOM.normal(size=(8, 6)), dtype)}
    if "s" in read.partition("(")[2]:
        constants["s"] = (0.3, D.FLOAT)
    assert_same_after(build(text, 19, **constants), to, X)


@pytest.mark.parametrize("to", [12, 11])
def test_bfloat16_weights_that_are_gathered_become_float(to):
    model = build(
        """agraph (int64[3] i) => (float[6,6] y) {
            e = Gather(w, i)
            c = Concat <axis=0> (e, e)
            y = Cast <to=1> (c)
        }""",
        18,
        w=(RANDOM.normal(size=(8, 6)), D.BFLOAT16),
    )
    assert_same_after(model, to, np.array([1, 0, 7]))


def test_a_constant_node_is_widened_too():
    model = build("agraph (float[4] x) => (float[4] y) { d = Cast <to=1> (w)  y = Add(x, d) }", 21)
    (cast, _) = model.graph
    tensor = ir.Tensor(np.array([-8, -1, 0, 7]).astype(D.INT4.numpy()), dtype=D.INT4)
    constant = ir.node("Constant", [], {"value": tensor})
    cast.replace_input_with(0, constant.outputs[0])
    constant.outputs[0].name = "c"
    model.graph.insert_before(cast, constant)
    assert_same_after(model, 13, X[0, :4])


GATHERED = "agraph (int64[3] i) => (float[3,6] y) { e = Gather(w, i)"


def test_what_computes_in_bfloat16_computes_in_float():
    weights = RANDOM.normal(size=(8, 6))
    model = build(f"{GATHERED}  p = Mul(e, e)  y = Cast <to=1> (p) }}", 18, w=(weights, D.BFLOAT16))
    ConvertOpset(to=12).run(model)
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    assert [node.op_type for node in model.graph] == ["Gather", "Mul"]
    expected = weights[[1, 0, 7]].astype(D.BFLOAT16.numpy()).astype(np.float32) ** 2
    for found in attempts(proto, [np.array([1, 0, 7])]):
        np.testing.assert_array_equal(found[0], expected)


@pytest.mark.parametrize(
    ("body", "weights", "source", "to"),
    [
        ("r = Cast <to=16> (e)  y = Cast <to=1> (r)", D.FLOAT, 18, 12),
        ("r = Cast <to=17> (e)  t = Transpose(r)  u = Transpose(t)  y = Cast <to=1> (u)",
         D.FLOAT16, 21, 18),
        ("z = Cast <to=22> (e)  q = QuantizeLinear(e, s, z)  y = DequantizeLinear(q, s, z)",
         D.FLOAT, 21, 18),
        ("q = QuantizeLinear <output_dtype=17, axis=1, block_size=3> (e, b)"
         "  y = DequantizeLinear <axis=1, block_size=3> (q, b)", D.FLOAT, 23, 20),
    ],
)  # fmt: skip
def test_what_is_rounded_inside_is_rounded_by_arithmetic(body, weights, source, to):
    constants = {"w": (RANDOM.normal(size=(8, 6)), weights)}
    if "(e, s" in body:
        constants["s"] = (0.3, D.FLOAT)
        body = body.replace("Cast <to=22> (e)", "Cast <to=22> (s)")
    if "(e, b)" in body:
        constants["b"] = (RANDOM.uniform(0.1, 1, (3, 2)), D.FLOAT)
    model = build(f"{GATHERED}  {body} }}", source, **constants)
    assert_same_after(model, to, np.array([1, 0, 7]))


@pytest.mark.parametrize(
    ("body", "dtype", "reason"),
    [
        ("y = Cast <to=1> (e)  q = another.Op(e)", D.BFLOAT16, "it works on bfloat16"),
        ("s = Cast <to=8> (e)  y = Cast <to=1> (s)", D.BFLOAT16, "it works on bfloat16"),
        ("b = BitCast <to=4> (e)  y = Cast <to=1> (b)", D.BFLOAT16, "it works on bfloat16"),
    ],
)
def test_what_needs_an_absent_type_is_refused_and_nothing_is_edited(body, dtype, reason):
    model = build(f"{GATHERED}  {body} }}", 26, w=(RANDOM.normal(size=(8, 6)), dtype))
    before = ir.to_proto(model).SerializeToString()
    with pytest.raises(Refused, match=reason):
        ConvertOpset(to=12).run(model)
    assert ir.to_proto(model).SerializeToString() == before


def test_a_foreign_operator_keeps_the_type_it_works_on():
    text = (
        "agraph (float[3,8] x) => (float[3,6] y) { d = Cast <to=1> (v)  y = another.Op(x, w, d) }"
    )
    constants = {name: (RANDOM.integers(-8, 8, (8, 6)), D.INT4) for name in "vw"}
    model = build(text, 21, **constants)
    ConvertOpset(to=18).run(model)
    assert {name: value.dtype for name, value in model.graph.initializers.items()} == {
        "v": D.INT8,
        "w": D.INT4,
    }
    assert model.ir_version == 10


def test_a_weight_that_another_node_needs_as_it_is_keeps_its_type():
    model = build(
        """agraph (float[3,8] x) => (float[3,6] y, int4[8,6] z) {
            d = Cast <to=1> (w)  y = MatMul(x, d)  z = Identity(w)
        }""",
        21,
        w=(RANDOM.integers(-8, 8, (8, 6)), D.INT4),
    )
    before = ir.to_proto(model).SerializeToString()
    with pytest.raises(Refused, match="the graph takes or gives int4") as refused:
        ConvertOpset(to=20).run(model)
    assert "choose opset 21 or higher" in str(refused.value)
    assert ir.to_proto(model).SerializeToString() == before


def test_lowest_does_not_widen():
    text = "agraph (float[3,8] x) => (float[3,6] y) { d = Cast <to=1> (w)  y = MatMul(x, d) }"
    model = build(text, 25, w=(RANDOM.integers(-8, 8, (8, 6)), D.INT4))
    ConvertOpset(to="lowest").run(model)
    assert model.opset_imports[""] == 21
    assert model.graph.initializers["w"].dtype == D.INT4


@pytest.mark.parametrize("to", [18, 13, 11])
@pytest.mark.parametrize(
    ("one", "other"), [((2, 3), (3,)), ((), (4,)), ((3, 1), (2,)), ((0,), (1,))]
)
def test_texts_are_compared_by_their_places(one, other, to):
    texts = np.array(["a", "b", "cc", ""], object)
    a, b = (np.array(RANDOM.choice(texts, shape), object) for shape in (one, other))
    types = [f"string[{','.join(map(str, each.shape))}]" for each in (a, b)]
    result = np.broadcast_shapes(one, other)
    model = build(
        f"agraph ({types[0]} a, {types[1]} b) => (bool[{','.join(map(str, result))}] y)"
        " { y = Equal(a, b) }",
        19,
    )
    for value, each in zip(model.graph.inputs, (a, b), strict=True):
        value.shape = ir.Shape(each.shape)
    ConvertOpset(to=to).run(model)
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    for found in attempts(proto, [a, b]):
        assert not isinstance(found, Exception), found
        np.testing.assert_array_equal(found[0], np.array(a == b, bool))


@pytest.mark.parametrize(("training", "ratio"), [(True, 0.25), (False, 0.25), (True, 0.0)])
def test_dropout_that_may_train_keeps_its_share(training, ratio):
    model = build(
        """agraph (float[100,100] x, float r, bool t) => (float[100,100] y, bool[100,100] m) {
            y, m = Dropout <seed=3> (x, r, t)
        }""",
        13,
    )
    ConvertOpset(to=11).run(model)
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    x = RANDOM.uniform(1, 2, (100, 100)).astype(np.float32)
    for found in attempts(proto, [x, np.float32(ratio), np.array(training)]):
        assert not isinstance(found, Exception), found
        value, mask = found
        share = ratio if training else 0.0
        np.testing.assert_allclose(value, np.where(mask, x / np.float32(1 - share), 0), rtol=1e-6)
        assert abs(1 - mask.mean() - share) < 0.02
        assert mask.all() == (share == 0)


def test_a_sequence_passes_through_at_opset_11():
    model = ir.from_onnx_text(
        '<ir_version: 8, opset_import: ["" : 16]>\n'
        "agraph (seq(float[2]) s) => (seq(float[2]) t) { t = Identity(s) }"
    )
    ConvertOpset(to=11).run(model)
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    given = [np.array([1, 2], np.float32), np.array([3, 4], np.float32)]
    for found in attempts(proto, [given]):
        assert not isinstance(found, Exception), found
        assert differs(given, found[0], 0, 0, values=True) == ""


def test_types_that_cast_never_has_are_no_obstacle():
    text = "agraph (complex64[2,1] x) => (complex64[2] y) { y = Reshape <allowzero=0> (x, s) }"
    model = build(text, 16, s=([2], D.INT64))
    ConvertOpset(to=13).run(model)
    onnx.checker.check_model(ir.to_proto(model), full_check=True)


def test_a_branch_reads_a_widened_weight_of_the_graph_around_it():
    model = build(
        """agraph (float[3,8] x, bool c) => (float[3,6] y) {
            y = If (c) <
                then_branch = t () => (float[3,6] a) {
                    d = DequantizeLinear(w, s)  n = Abs(d)  a = MatMul(x, n)
                },
                else_branch = e () => (float[3,6] b) { f = Cast <to=1> (w)  b = MatMul(x, f) }
            >
        }""",
        21,
    )
    constants = {"w": (RANDOM.integers(-8, 8, (8, 6)), D.INT4), "s": (0.5, D.FLOAT)}
    for name, (values, dtype) in constants.items():
        tensor = ir.Tensor(np.asarray(values).astype(dtype.numpy()), dtype=dtype, name=name)
        value = ir.Value(name=name, type=ir.TensorType(dtype), shape=tensor.shape)
        value.const_value = tensor
        model.graph.initializers[name] = value
        for graph in model.graph[0].attributes.values():
            for node in graph.as_graph():
                for index, used in enumerate(node.inputs):
                    if used is not None and used.name == name:
                        node.replace_input_with(index, value)
    for taken in (True, False):
        assert_same_after(model.clone(), 17, X, np.array(taken))


def test_a_constant_in_a_function_is_widened():
    model = ir.from_onnx_text(
        """<ir_version: 10, opset_import: ["" : 21, "local" : 1]>
        agraph (float[4] x) => (float[4] y) { y = local.shift(x) }
        <domain: "local", opset_import: ["" : 21]>
        shift (a) => (b) { k = Identity(a)  d = Cast <to=1> (k)  b = Add(a, d) }"""
    )
    (function,) = model.functions.values()
    tensor = ir.Tensor(np.array([-8, -1, 0, 7]).astype(D.INT4.numpy()), dtype=D.INT4)
    constant = ir.node("Constant", [], {"value": tensor})
    constant.outputs[0].name = "w"
    function[1].replace_input_with(0, constant.outputs[0])
    function.remove(function[0], safe=True)
    function.insert_before(function[0], constant)
    assert_same_after(model, 17, X[0, :4])


def test_a_model_of_an_unknown_opset_is_left_as_it_is():
    text = "agraph (float[3,8] x) => (float[3,6] y) { d = Cast <to=1> (w)  y = MatMul(x, d) }"
    model = build(text, 99, w=(RANDOM.integers(-8, 8, (8, 6)), D.INT4))
    with pytest.raises(ModelError, match="imports opset 99"):
        ConvertOpset(to=13).run(model)
    assert model.graph.initializers["w"].dtype == D.INT4


def test_a_value_whose_elements_have_no_type_is_told_without_one():
    assert absent._said(ir.Value(name="v")) == "a sequence or an optional of no type"
