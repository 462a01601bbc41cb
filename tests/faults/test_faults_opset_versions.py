"""Conversions that random operator versions showed to be wrong, invalid or needlessly refused."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from vlmpass.ir_tools.errors import ModelError
from vlmpass.ir_tools.load import load
from vlmpass.passes.convert_opset import ConvertOpset

from .test_faults_opset import converted, refusal, run


@pytest.mark.parametrize("alpha", [-0.25, 0.5, 1.0])
def test_celu_of_any_alpha(alpha):
    text = f"g (float[4] x) => (float[4] y) {{ y = Celu<alpha = {alpha}>(x) }}"
    x = np.array([-3, -0.1, 0.5, 2], np.float32)
    found, wanted = (run(converted(text, 12, opset), x=x)[0] for opset in (8, 12))
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_bodies_of_onnx_take_no_name_in_sight():
    text = """g (int64 prev, bool cond) => (int64[?] y)
        <int64 zero = {0}, int64 one = {1}, int64 two = {-2}> {
        y = If(cond) <then_branch = t () => (int64[?] a) { a = Range(zero, prev, one)},
            else_branch = e () => (int64[?] b) { b = Range(prev, zero, two) }> }"""
    proto = converted(text, 13, 10)
    for cond, wanted in ((True, [0, 1, 2, 3, 4]), (False, [5, 3, 1])):
        (y,) = run(proto, prev=np.array(5), cond=np.array(cond))
        np.testing.assert_array_equal(y, wanted)


@pytest.mark.parametrize(
    ("kind", "numbers"),
    [
        ("int32", (-(2**31), 2**31 - 1, 2**28)),
        ("float", (0, 2**25 + 4, 2**24)),
        ("double", (0, 1 + 1e-9, 1)),
    ],
)
def test_a_range_is_counted_exactly(kind, numbers):
    text = f"g ({kind} a, {kind} b, {kind} d) => ({kind}[?] y) {{ y = Range(a, b, d) }}"
    dtype = {"float": "float32", "double": "float64"}.get(kind, kind)
    feeds = dict(zip("abd", (np.array(each, dtype) for each in numbers), strict=True))
    (y,) = run(converted(text, 11, 7), **feeds)
    assert len(y) == np.ceil((int(numbers[1]) - numbers[0]) / numbers[2] + 1e-10)


def test_one_statistic_of_training_becomes_both():
    text = """g (float[2,3,4] x, float[3] s) => (float[2,3,4] y, float[3] m) {
        y, m = BatchNormalization<training_mode = 1>(x, s, s, s, s) }"""
    model = ir.from_onnx_text(f'<ir_version: 8, opset_import: ["" : 14]>{text}')
    ConvertOpset(to=15).run(model)
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    feeds = {"x": np.random.default_rng(0).normal(size=(2, 3, 4)), "s": np.ones(3)}
    feeds = {name: array.astype(np.float32) for name, array in feeds.items()}
    _, mean = run(proto, **feeds)
    wanted = 0.9 + 0.1 * feeds["x"].mean(axis=(0, 2))
    np.testing.assert_allclose(mean, wanted, rtol=1e-5)


def test_outputs_left_without_names_do_not_train():
    text = """g (float[2,3,4] x, float[3] s) => (float[2,3,4] y) {
        y, "", "" = BatchNormalization(x, s, s, s, s) }"""
    proto = converted(text, 9, 15)
    (node,) = proto.graph.node
    assert len(node.output) == 1
    assert not any(each.name == "training_mode" and each.i for each in node.attribute)


@pytest.mark.parametrize("opset", [22, 20, 13])
def test_scores_of_attention_are_kept_over_two_steps(opset):
    text = """g (float[2,4,3,8] q, float[2,4,5,8] k, float[3,4] m)
        => (float[2,4,3,8] y, float[2,4,3,5] s) { y, "", "", s = Attention(q, k, k, m) }"""
    rng = np.random.default_rng(0)
    shapes = {"q": (2, 4, 3, 8), "k": (2, 4, 5, 8), "m": (3, 4)}
    feeds = {name: rng.normal(size=size).astype(np.float32) for name, size in shapes.items()}
    source = onnx.parser.parse_model(f'<ir_version: 11, opset_import: ["" : 24]>{text}')
    wanted = ReferenceEvaluator(source).run(None, feeds)
    for one, other in zip(run(converted(text, 24, opset), **feeds), wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("to", [16, 15, 13])
def test_a_map_over_a_sequence_may_leave_out_its_last_result(to):
    text = """g (float[2] x) => (float[2] y) <int64 i = {1}> {
        s = SequenceConstruct(x, x)
        m, "" = SequenceMap(s) <body = b (float[2] e) => (float[2] p, float[2] q) {
            p = Add(e, e) q = Mul(e, e) }>
        y = SequenceAt(m, i) }"""
    model = load(onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]>{text}'))
    ConvertOpset(to=to).run(model)
    (y,) = run(ir.to_proto(model), x=np.float32([1, 3]))
    np.testing.assert_array_equal(y, [2, 6])


def test_results_of_two_types_keep_each_its_own():
    text = """g (float[2,4,3,8] q, float16[2,4,5,8] v, float[2,4,5,8] k,
        float16[2,4,1,8] p, float[2,4,1,8] o) => (float[2,4,3,8] y, float16[2,4,6,8] w) {
        y, "", s = Attention(q, k, v, "", o, p) w = Identity(s) }"""
    converted(text, 23, 16)


@pytest.mark.parametrize("kind", ["int8", "uint8", "int16", "uint16", "int32", "uint32"])
@pytest.mark.parametrize("fmod", [0, 1])
def test_remainders_of_narrow_integers(kind, fmod):
    text = f"g ({kind}[6] x, {kind}[6] y) => ({kind}[6] z) {{ z = Mod<fmod = {fmod}>(x, y) }}"
    x, y = (np.array(each).astype(kind) for each in ([7, -7, 7, -7, 0, 100], [3, 3, -3, -3, 5, 7]))
    y = np.where(y == 0, 1, y).astype(kind)
    (z,) = run(converted(text, 10, 9), x=x, y=y)
    np.testing.assert_array_equal(z, np.fmod(x, y) if fmod else np.mod(x, y), strict=True)


@pytest.mark.parametrize("kind", ["float", "double", "int32", "int64", "uint32", "uint64"])
def test_slopes_of_every_type_run_below_16(kind):
    text = f"g ({kind}[2,3] x, {kind}[3] s) => ({kind}[2,3] y) {{ y = PRelu(x, s) }}"
    dtype = {"float": "float32", "double": "float64"}.get(kind, kind)
    x, s = np.array([[1, -2, 3], [-4, 5, -6]]).astype(dtype), np.array([2, 3, 4]).astype(dtype)
    (y,) = run(converted(text, 16, 9), x=x, s=s)
    np.testing.assert_array_equal(y, np.where(x < 0, s * x, x), strict=True)


@pytest.mark.parametrize("kind", ["int32", "int16", "uint32", "uint8"])
def test_the_smallest_of_integers_with_the_lowest_among_them(kind):
    text = f"""g ({kind}[4] x) => ({kind}[2] y, int64[2] i) <int64[1] k = {{2}}> {{
        y, i = TopK<largest = 0>(x, k) }}"""
    low = np.iinfo(kind).min
    y, i = run(converted(text, 11, 10), x=np.array([3, low, 1, 7], kind))
    np.testing.assert_array_equal(y, [low, 1])
    np.testing.assert_array_equal(i, [1, 2])


def test_axes_that_count_from_the_end_are_put_in_order():
    text = "g (float[1,3,1] x) => (float[3] y) { y = Squeeze<axes = [-1, 0]>(x) }"
    (y,) = run(converted(text, 11, 9), x=np.ones((1, 3, 1), np.float32))
    assert y.shape == (3,)


@pytest.mark.parametrize("kind", ["uint8", "int8", "int32", "int64"])
def test_shrinking_by_a_fraction(kind):
    text = f"g ({kind}[4] x) => ({kind}[4] y) {{ y = Shrink<bias = 0.5, lambd = 1.5>(x) }}"
    x = np.array([0, 2, 5, 7]).astype(kind)
    found, wanted = (run(converted(text, 9, opset), x=x)[0] for opset in (8, 9))
    np.testing.assert_array_equal(found, wanted, strict=True)


@pytest.mark.parametrize("kind", ["float", "double"])
def test_the_sign_of_what_is_not_finite(kind):
    text = f"g ({kind}[6] x) => ({kind}[6] y) {{ y = Sign(x) }}"
    dtype = {"float": np.float32, "double": np.float64}[kind]
    x = np.array([np.nan, np.inf, -np.inf, -0.0, 3, -1e-30], dtype)
    found, wanted = (run(converted(text, 9, opset), x=x)[0] for opset in (8, 9))
    np.testing.assert_array_equal(found, wanted, strict=True)
    np.testing.assert_array_equal(found, [np.nan, 1, -1, 0, 1, -1])


def test_a_sequence_of_strings_passes_an_identity():
    text = """g (string[2] x) => (string[2] y) <int64 i = {0}> {
        s = SequenceConstruct(x, x) t = Identity(s) y = SequenceAt(t, i) }"""
    (y,) = run(converted(text, 14, 13), x=np.array(["a", "é"], object))
    assert list(y) == ["a", "é"]


@pytest.mark.parametrize(
    ("text", "opset", "to", "said"),
    [
        (
            """g (float[2,3,5,8] x, float[9,4] c) => (float[2,3,5,8] y) {
            y = RotaryEmbedding(x, c, c) }""",
            23,
            20,
            "as they do without position_ids",
        ),
        (
            """g (float[4] x) => (float[0] y, int64[0] i) <int64[1] k = {0}> {
            y, i = TopK(x, k) }""",
            11,
            9,
            "asks for no element",
        ),
        (
            "g (float[n,3] x, int64[1] a) => (float[?,?] y) { y = ReduceSum(x, a) }",
            13,
            10,
            "branches give different shapes",
        ),
    ],
)
def test_what_the_lower_opset_cannot_hold_is_refused(text, opset, to, said):
    assert said in refusal(text, opset, to)


def sparse(dims, values, places) -> onnx.SparseTensorProto:
    parts = (np.array(each) for each in (values, places))
    tensors = [numpy_helper.from_array(each, "part") for each in parts]
    return helper.make_sparse_tensor(*tensors, dims)


def with_sparse(value: onnx.SparseTensorProto, kind: int) -> onnx.ModelProto:
    node = helper.make_node("Constant", [], ["c"], sparse_value=value)
    last = helper.make_node("Identity", ["c"], ["y"])
    outputs = [helper.make_tensor_value_info("y", kind, value.dims)]
    graph = helper.make_graph([node, last], "g", [], outputs)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


@pytest.mark.parametrize("places", [[1, 5], [[0, 1], [1, 2]]])
@pytest.mark.parametrize("dtype", [np.float32, np.int64])
@pytest.mark.parametrize("to", [7, 9, 21])
def test_a_sparse_constant_is_held_dense(places, dtype, to):
    proto = with_sparse(sparse([2, 3], np.array([4, 7], dtype), places),
                        helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))  # fmt: skip
    before = proto.SerializeToString()
    model = load(proto)
    assert proto.SerializeToString() == before
    ConvertOpset(to=to).run(model)
    (y,) = run(ir.to_proto(model))
    np.testing.assert_array_equal(y, np.array([[0, 4, 0], [0, 0, 7]], dtype), strict=True)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (sparse([2, 3], [1.0], [6]), "has indices outside of it"),
        (sparse([2, 3], [1.0], [[0, 3]]), "has indices outside of it"),
        (sparse([2, 3], [1.0, 2.0], [1]), "does not fit its indices"),
        (sparse([2, 3], [1.0], [[1]]), "does not fit its indices"),
        (sparse([2**30, 2**30], [1.0], [1]), "more than 64 MiB"),
    ],
)
def test_a_sparse_constant_that_cannot_be_held(value, said):
    with pytest.raises(ModelError, match=said):
        load(with_sparse(value, TensorProto.DOUBLE))
