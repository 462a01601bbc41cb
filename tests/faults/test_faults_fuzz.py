"""Left-out optional arguments, and constants that a rule once took wrongly, converted whole."""

from __future__ import annotations

import contextlib

import numpy as np
import onnx
import onnx.parser
import onnx.reference
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import numpy_helper

from vlmpass import Pipeline
from vlmpass.ir_tools.errors import ModelError, PassFailed, Refused, VlmpassError
from vlmpass.ir_tools.run.input_usage import trace_use
from vlmpass.rewriter_rules.opset import needed_ir_version, raise_ir_version

Feeds = dict[str, np.ndarray]


def model_of(text: str, opset: int, **weights: np.ndarray) -> onnx.ModelProto:
    header = f'<ir_version: 9, opset_import: ["": {opset}]>'
    model = onnx.parser.parse_model(f"{header}\n{text}")
    for name, array in weights.items():
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    onnx.checker.check_model(model, full_check=True)
    return model


def run(model: onnx.ModelProto, feeds: Feeds) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(model.SerializeToString(), options).run(None, feeds)


def converted(model: onnx.ModelProto, feeds: Feeds, **intent: object) -> onnx.ModelProto:
    """Convert, check, and compare with the source."""
    result = ir.to_proto(Pipeline(**intent).run(model).model)
    onnx.checker.check_model(result, full_check=True)
    for expected, found in zip(run(model, feeds), run(result, feeds), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    return result


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(7).standard_normal(shape).astype(np.float32)


def test_a_left_out_output_of_an_equal_node_is_no_stand_in() -> None:
    text = """g (float[5,2,3] x) => (float[1,2,2] y, float[1,1,1,1] z) {
        "", h = LSTM <hidden_size = 2> (x, W, R)
        Y, "" = LSTM <hidden_size = 2> (x, W, R)
        y = Relu (h)
        z = ReduceSum (Y)
    }"""
    source = model_of(text, 14, W=normal(1, 8, 3), R=normal(1, 8, 2))
    result = converted(source, {"x": normal(5, 2, 3)}, simplify=True)
    assert [node.op_type for node in result.graph.node].count("LSTM") == 1


def test_a_left_out_output_has_nothing_computed_for_it() -> None:
    text = """g (float[2,3,4] x) => (float[2,3,4] a, float[2,3,1] b)
        <float[4] w = {1.0, 2.0, 1.0, 1.0}> {
        z, "", v = LayerNormalization (x, w)
        a = Relu (z)
        b = Add (v, v)
    }"""
    source = model_of(text, 18)
    converted(source, {"x": normal(2, 3, 4)}, opset=13)


@pytest.mark.parametrize(
    "text",
    [
        "float[1,4,4,4] y) { f = Conv (x, w) y = Mul (f, k)",
        "float[1,4,4,4] y) { f = Conv (x, w) y = Add (f, k)",
        "float[1,4,4,4] y) { f = Conv (x, w, b) y = Mul (f, k)",
        "float[1,2,4,4] y) { m = MatMul (x, c) y = Mul (m, r)",
        "float[1,2,4,4] y) { m = MatMul (x, c) y = Add (m, r)",
    ],
)
def test_a_constant_that_widens_the_product_stays_outside(text: str) -> None:
    weights = {"w": normal(1, 2, 1, 1), "k": normal(1, 4, 1, 1), "b": normal(1)}
    weights |= {"c": normal(4, 1), "r": normal(4)}
    source = model_of(f"g (float[1,2,4,4] x) => ({text} }}", 18, **weights)
    converted(source, {"x": normal(1, 2, 4, 4)}, simplify=True)


def test_a_factor_of_more_axes_than_a_vectors_product_stays_outside() -> None:
    text = "g (float[N] x) => (float[A, B] y) { m = MatMul (x, c) y = Mul (m, k) }"
    source = model_of(text, 18, c=normal(4, 3), k=normal(1, 3))
    converted(source, {"x": normal(4)}, simplify=True)


@pytest.mark.parametrize("fuse", ["standard", "ort"])
def test_no_axes_are_put_back_as_no_axes(fuse: str) -> None:
    text = """g (int64[3] x) => (int64 v) <int64[0] none = {}> {
        r = ReduceMin <keepdims = 0> (x, none)
        v = Unsqueeze (r, none)
    }"""
    converted(model_of(text, 20), {"x": np.array([3, 1, 2])}, fuse=fuse)


def test_constant_strings_pass_through() -> None:
    text = """g (float[2] x) => (string[2] y, float[2] z) {
        c = Constant <value_strings = ["a", "b"]> ()
        y = Identity (c)
        z = Relu (x)
    }"""
    source = model_of(text, 18)
    result = Pipeline(simplify=True).run(source)
    found = onnx.reference.ReferenceEvaluator(ir.to_proto(result.model)).run(None, {"x": normal(2)})
    assert list(found[0]) == ["a", "b"]


def test_a_triangle_of_strings_is_refused_below_trilu() -> None:
    source = model_of("g (string[A, B] x) => (string[A, B] y) { y = Trilu (x) }", 14)
    with pytest.raises(Refused, match=r"Trilu-14.*string.*choose opset 14"):
        Pipeline(opset=11).run(source)


@pytest.mark.parametrize(
    "node",
    [
        "If (c) <then_branch = t () => (float[2] p) { p = Relu (x) }, "
        "else_branch = e () => (float[2] q) { q = Neg (x) }>",
        "Loop (n, c, x) <body = b (int64 i, bool d, float[2] s) => (bool e, float[2] t)"
        " { e = Identity (d) t = Relu (s) }>",
        "Scan (x) <num_scan_inputs = 1, body = b (float s) => (float t) { t = Relu (s) }>",
    ],
)
def test_a_body_keeps_the_types_that_its_operator_admits(node: str) -> None:
    source = model_of(
        f"g (float[2] x, bool c, int64 n) => (float[2] y) {{ z = {node} y = Neg (z) }}", 13
    )
    onnx.checker.check_model(
        ir.to_proto(Pipeline(dtype="bfloat16").run(source).model), full_check=True
    )


@pytest.mark.parametrize(
    ("node", "opset", "target"),
    [
        ('Pad (x, p, "", "")', 18, 14),
        ('Pad (x, p, "", "")', 18, 8),
    ],
)
def test_an_input_left_out_at_the_end_goes_where_the_version_has_none(
    node: str, opset: int, target: int
) -> None:
    text = f"""g (float[1,3] x) => (float y) <int64[4] p = {{0, 1, 1, 0}}> {{
        z = {node}
        y = ReduceSum <keepdims = 0> (z)
    }}"""
    converted(model_of(text, opset), {"x": normal(1, 3)}, opset=target)


def test_an_output_left_out_of_a_map_over_a_sequence_stays_out() -> None:
    text = """g (float[2] a, float[2] b) => (seq(float[2]) y) {
        s = SequenceConstruct (a, a)
        "", y = SequenceMap (s, b) <body = f (float[2] s0, float[2] x) => (float[2] t, float[2] u)
            { t = Add (s0, x) u = Mul (s0, x) }>
    }"""
    feeds = {"a": normal(2), "b": normal(2)}
    result = ir.to_proto(Pipeline(opset=16).run(model_of(text, 17)).model)  # not run by ORT before
    (found,) = run(result, feeds)
    np.testing.assert_array_equal(found, [feeds["a"] * feeds["b"]] * 2)


def test_integers_of_a_function_are_cast_where_no_constant_holds_them() -> None:
    source = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["": 18, "local": 1]>
        g (float[3,4] x) => (float[3,1] y, int64[2] z) { y, z = local.F (x) }
        <domain: "local", opset_import: ["": 18]> F (x) => (y, z) {
            a = Constant <value = int64[1] {-1}> ()
            z = Constant <value = int64[2] {3, -5}> ()
            y = ReduceMax (x, a)
        }""")
    converted(source, {"x": normal(3, 4)}, opset=8)


def test_frames_of_a_real_signal_are_half_a_spectrum_by_default() -> None:
    text = """g (float[1,32,1] x, float[8] w) => (float[1,7,5,2] y) <int64 s = {4}> {
        y = STFT (x, s, w)
    }"""
    source = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["": 17]>\n{text}')
    result = ir.to_proto(Pipeline(simplify=True).run(source).model)
    feeds = {"x": normal(1, 32, 1), "w": normal(8)}
    np.testing.assert_array_equal(run(result, feeds)[0], run(source, feeds)[0])


@pytest.mark.parametrize(
    "body",
    [
        "s = Squeeze (x, n) y = Unsqueeze (s, n)",
        "u = Unsqueeze (x, n) y = Squeeze (u, n)",
        "s = Squeeze (x, n) y = Squeeze (s, n)",
        "s = Squeeze (x, z) y = Squeeze (s, n)",
    ],
)
def test_no_axes_to_squeeze_are_left_to_the_runtime(body: str) -> None:
    text = f"g (float[N,1,M] x) => (Y) <int64[0] n = {{}}, int64[1] z = {{1}}> {{ {body} }}"
    source = onnx.parser.parse_model(
        f'<ir_version: 9, opset_import: ["": 18]>\n{text.replace("(Y)", "(float[A,B,C] y)")}'
    )
    del source.graph.output[0].type.tensor_type.shape.dim[:]
    source.graph.output[0].type.tensor_type.ClearField("shape")
    feeds = {"x": normal(2, 1, 3)}
    result = ir.to_proto(Pipeline(simplify=True).run(source).model)
    np.testing.assert_array_equal(run(result, feeds)[0], run(source, feeds)[0])


@pytest.mark.parametrize(
    "body",
    [
        'y = Concat <axis = 0> (x, "", x)',
        "s = Slice (x, i, i, j) y = Slice (s, j, j, i)",
        "s = Slice (x, i, j, i) y = Relu (s)",
        "s = Unsqueeze (x, k) y = Unsqueeze (s, k)",
        "s = Squeeze (x, k) y = Squeeze (s, k)",
        "s = ReduceL2 <keepdims = 0> (e, k) y = Relu (s)",
        "s = Transpose <perm = [1, 0, 2]> (x) y = Transpose <perm = [0, 1]> (s)",
    ],
)
def test_arguments_that_do_not_belong_together_are_no_crash(body: str) -> None:
    weights = "int64[1] i = {0}, int64[2] j = {1, 1}, int64[2] k = {7, 7}"
    text = f"g (float[3,4] x, float e) => (float[A] y) <{weights}> {{ {body} }}"
    source = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["": 18]>\n{text}')
    with contextlib.suppress(VlmpassError):
        Pipeline(simplify=True).run(source)


def test_a_scale_of_another_type_than_its_norm_is_cast() -> None:
    source = model_of(
        "g (double[2,4] x, double[4] s) => (double[2,4] y) { y = RMSNormalization (x, s) }", 23
    )
    result = ir.to_proto(Pipeline(dtype="float16", keep_io=True).run(source).model)
    onnx.checker.check_model(result, full_check=True)


def test_a_body_that_is_expanded_takes_no_name_that_is_taken() -> None:
    text = """g (float[3,4] x, bool cond) => (float[3,4] y) {
        y = If (cond) <then_branch = t () => (float[3,4] a) { a = Trilu (x) },
            else_branch = e () => (float[3,4] b) { b = Trilu <upper = 0> (x) }>
    }"""
    feeds = {"x": normal(3, 4), "cond": np.array(True)}
    converted(model_of(text, 23), feeds, opset=9)


@pytest.mark.parametrize("intent", [{"simplify": True}, {"dtype": "bfloat16"}, {"opset": 18}])
def test_a_cycle_is_told_before_any_pass(intent: dict[str, object]) -> None:
    source = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["": 21]>
        g (float16[n] x) => (float16[n] y) {
            c = Cast <to = 1> (c)
            y = Cast <to = 10> (c)
        }""")
    with pytest.raises(VlmpassError, match="cycle through the unnamed Cast"):
        Pipeline(**intent).run(source)


def test_what_a_call_leaves_out_is_not_built_upon() -> None:
    source = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["": 18, "local": 1]>
        g (float[2,3] x) => (float[2,3] y) { y = local.F (x, "") }
        <domain: "local", opset_import: ["": 18]> F (x, low) => (y) { y = Clip (x, low) }""")
    with pytest.raises(Refused, match=r"its input 'low' is left out by a call.*inline-functions"):
        Pipeline(opset=9).run(source)
    inlined = Pipeline("inline-functions,infer,convert-opset{to=9},infer").run(source)
    onnx.checker.check_model(ir.to_proto(inlined.model), full_check=True)


def test_caches_of_rows_that_nothing_picks_are_refused() -> None:
    text = """g (float[1,2,5,8] x, float[9,4] c, float[9,4] s) => (float[1,2,5,8] y) {
        y = RotaryEmbedding (x, c, s)
    }"""
    with pytest.raises(Refused, match="its caches do not have 3 axes"):
        Pipeline(opset=18).run(model_of(text, 23))


def test_a_constant_of_nothing_is_refused() -> None:
    source = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["": 13]>
        g (float[2] x) => (float[2] y) { c = Constant () y = Add (x, c) }""")
    with pytest.raises(VlmpassError):
        Pipeline(opset=8).run(source)


def test_parts_that_are_folded_have_names_of_their_own() -> None:
    text = """g (float[2] x) => (float[3,2] p, float[3,2] q) {
        c = Constant <value = float[3,4] {1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3}> ()
        p, q = Split <axis = 1> (c)
    }"""
    source = model_of(text, 11)
    source.graph.node[1].name = "n0"
    converted(source, {"x": normal(2)}, simplify=True)


@pytest.mark.parametrize("intent", [{"simplify": True}, {"opset": 13}, {"fuse": "ort"}])
@pytest.mark.parametrize(
    "nodes",
    [
        "c, d = Constant<value_float = 1.0>() y = Add(x, c)",
        "c = Constant<value_float = 1.0>(x) y = Add(x, c)",
        "y, d = Identity(x, x) z = Neg(d)",
        "s = Shape(x) t, d = Reshape(x, s) y = Neg(t)",
        "t, d = com.microsoft.FastGelu(x, x, x) y = Neg(t)",
    ],
)
def test_nodes_with_more_than_their_operators_have(nodes: str, intent: dict[str, object]) -> None:
    """Passes take such nodes as they are, whatever the check says of them in the end."""
    source = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 18, "com.microsoft" : 1]>
        g (float[2,3] x) => (float[2,3] y) {{ {nodes} }}"""
    )
    failed: VlmpassError | None = None
    try:
        Pipeline(**intent).run(source, verify=False)
    except VlmpassError as error:
        failed = error
    assert not isinstance(failed, PassFailed) or isinstance(failed.cause, VlmpassError)


@pytest.mark.parametrize("dtype", ["FLOAT6E2M3", "FLOAT6E3M2"])
def test_a_number_that_its_type_has_no_bits_for_is_refused(dtype: str) -> None:
    model = model_of("g (float[4] x) => (float[4] y) { y = Relu (x) }", 25)
    kind = onnx.TensorProto.DataType.Value(dtype)
    tensor = onnx.TensorProto(name="w", data_type=kind, dims=[4], int32_data=[1, 64, 2, 3])
    model.graph.initializer.append(tensor)
    with pytest.raises(ModelError, match=f"holds 64, which {dtype} has no bits for"):
        Pipeline(simplify=True).run(model)


def test_a_model_without_any_type_keeps_its_ir_version() -> None:
    model = ir.Model(ir.Graph([], [], nodes=[], opset_imports={"": 17}), ir_version=8)
    raise_ir_version(model)
    assert model.ir_version == 8
    assert needed_ir_version(model) == 4


def test_a_conv_without_weights_says_nothing_of_its_input() -> None:
    """In a function, that of a call which leaves them out."""
    model = ir.from_onnx_text("""<ir_version: 10, opset_import: ["": 21, "l": 1]>
    g (float[1,4,6,6] x, float[4,4,3,1] w) => (float[1,4,3,6] y) { y = l.f(x, "") }
    <domain: "l", opset_import: ["": 21]> f (x, w) => (y) {
      y = Conv<auto_pad = "SAME_UPPER", strides = [2, 1]>(x, w) }""")
    assert trace_use(model, model.graph.inputs[0]).stride is None
