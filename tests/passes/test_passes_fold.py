from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper

from tests.passes.simplifying import operators, proto_of, run, simplify
from vlmpass.passes.folding.fold import Fold
from vlmpass.passes.pipeline.base import OptionError

X = {"x": np.arange(6, dtype=np.float32).reshape(2, 3)}
EMPTY = {"x": np.zeros((0, 3), np.float32)}


def fold(text: str, *feeds, **header) -> ir.Model:
    return simplify(proto_of(text, **header), [Fold()], *(feeds or (X,)))


def test_constants_of_constants_become_one_initializer() -> None:
    model = fold("""g (float[n,3] x) => (float[n,3] y) {
        a = Constant<value_float=2.0>()  b = Constant<value_ints=[3]>()
        c = Cast<to=1>(b)  d = Mul(a, c)  y = Mul(x, d) }""")
    assert operators(model) == ["Mul"]
    assert list(model.graph.initializers) == ["d"]


def test_constant_nodes_become_initializers_of_the_same_name() -> None:
    model = fold(
        "g (float[n,3] x) => (float[n,3] y) { k = Constant<value_float=2.0>() y = Mul(x, k) }"
    )
    assert list(model.graph) == [model.graph.node(0)]
    assert list(model.graph.initializers) == ["k"]


def test_initializers_that_are_inputs_stay_what_the_caller_says() -> None:
    text = """g (float[n,3] x, float[1] k = {2.0}) => (float[n,3] y) {
        m = Neg(k)  y = Mul(x, m) }"""
    feeds = {**X, "k": np.array([5], np.float32)}
    assert operators(fold(text, X, feeds)) == ["Neg", "Mul"]


def test_before_ir_version_4_constants_become_nodes() -> None:
    text = """g (float[n,3] x) => (float[n,3] y) {
        a = Constant<value: tensor = float {2.0}>()  b = Neg(a)  y = Mul(x, b) }"""
    model = fold(text, opset=8, ir_version=3)
    assert operators(model) == ["Mul"]
    assert not model.graph.initializers


def test_shape_chain_of_known_axes() -> None:
    model = fold("""g (float[n,3] x) => (float[k] y) {
        s = Shape(x)  i = Constant<value_int=1>()  d = Gather(s, i)  z = Constant<value_ints=[0]>()
        u = Unsqueeze(d, z)  m = Constant<value_ints=[-1]>()  t = Concat<axis=0>(u, m)
        r = Reshape(x, t)  f = Constant<value_ints=[-1]>()  y = Reshape(r, f) }""")
    assert operators(model) == ["Reshape", "Reshape"]


def test_declared_intermediate_shapes_are_not_believed() -> None:
    proto = proto_of("""g (float[n,3] x) => (int64[2] y) { r = Relu(x)  y = Shape(r) }""")
    proto.graph.value_info.append(helper.make_tensor_value_info("r", 1, [2, 3]))
    model = simplify(proto, [Fold()], X, EMPTY)
    assert operators(model) == ["Relu", "Shape"]


def test_graph_output_that_is_constant_keeps_its_name() -> None:
    model = fold("""g (float[n,3] x) => (float[n,3] y, int64[1] k) {
        s = Shape<start=1, end=2>(x)  t = Constant<value_ints=[4]>()  k = Add(s, t)
        y = Neg(x) }""")
    assert operators(model) == ["Neg"]
    (producer,) = [value.producer() for value in model.graph.outputs if value.name == "k"]
    assert producer is not None
    assert producer.op_type == "Constant"


def test_identity_of_an_initializer_as_output_stays() -> None:
    text = """g (float[n,3] x) => (float[n,3] y, float[1] k)
        <float[1] w = {1.0}> { y = Neg(x)  k = Identity(w) }"""
    assert operators(fold(text)) == ["Neg", "Identity"]


def test_decided_where_and_range() -> None:
    model = fold("""g (float[n,3] x) => (float[n,3] y) {
        c = Constant<value: tensor = bool {1}>()  a = Constant<value: tensor = int64 {0}>()
        b = Constant<value: tensor = int64 {3}>()  o = Constant<value: tensor = int64 {1}>()
        l = Where(c, b, a)  r = Range(a, l, o)  f = Cast<to=1>(r)  y = Add(x, f) }""")
    assert operators(model) == ["Add"]


def test_large_results_are_not_stored() -> None:
    model = fold(
        """g (float[m,k] x) => (float[m,k] y) {
        s = Constant<value_ints=[64,64]>()
        z = ConstantOfShape<value: tensor = float[1] {1.0}>(s)  a = Constant<value_float=2.0>()
        b = Add(z, a)  y = Add(x, b) }""",
        {"x": np.ones((64, 64), np.float32)},
    )
    assert operators(model) == ["ConstantOfShape", "Add", "Add"]


def test_large_intermediate_results_with_a_small_end_are_folded() -> None:
    model = fold("""g (float[n,3] x) => (float[n,3] y) {
        s = Constant<value_ints=[64,64]>()  z = ConstantOfShape<value: tensor = int64[1] {1}>(s)
        a = Constant<value_ints=[0,1]>()  b = ReduceSum<keepdims=0>(z, a)
        c = Cast<to=1>(b)  y = Add(x, c) }""")
    assert operators(model) == ["Add"]


def weighted(
    nodes: list[onnx.NodeProto], outputs: int = 1, **weights: np.ndarray
) -> onnx.ModelProto:
    inits = [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()]
    outs = [helper.make_tensor_value_info(f"y{i}", 1, ["n", f"m{i}"]) for i in range(outputs)]
    ins = [helper.make_tensor_value_info("x", 1, ["n", 32])]
    graph = helper.make_graph(nodes, "g", ins, outs, inits)
    imports = [helper.make_opsetid("", 18)]
    return helper.make_model(graph, opset_imports=imports, ir_version=9)


W = np.random.default_rng(0).standard_normal((32, 32)).astype(np.float32)
WIDE = {"x": np.random.default_rng(1).standard_normal((4, 32)).astype(np.float32)}


def node(op: str, inputs: list[str], output: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(op, inputs, [output], **attributes)


def test_weight_with_one_user_is_transposed() -> None:
    proto = weighted([node("Transpose", ["w"], "t"), node("MatMul", ["x", "t"], "y0")], w=W)
    model = simplify(proto, [Fold()], WIDE)
    assert operators(model) == ["MatMul"]
    assert list(model.graph.initializers) == ["t"]


def test_tied_weight_is_not_stored_twice() -> None:
    proto = weighted(
        [
            node("Transpose", ["w"], "t"),
            node("MatMul", ["x", "t"], "y0"),
            node("MatMul", ["x", "w"], "y1"),
        ],
        outputs=2,
        w=W,
    )
    model = simplify(proto, [Fold()], WIDE)
    assert operators(model) == ["Transpose", "MatMul", "MatMul"]


def test_widening_waits_for_permission() -> None:
    proto = weighted(
        [node("Cast", ["w"], "t", to=1), node("MatMul", ["x", "t"], "y0")],
        w=W.astype(np.float16),
    )
    assert operators(simplify(proto, [Fold()], WIDE)) == ["Cast", "MatMul"]
    assert operators(simplify(proto, [Fold(max_growth=2.0)], WIDE)) == ["MatMul"]


def test_split_weight_goes_into_its_parts() -> None:
    split = helper.make_node("Split", ["w"], ["a", "b"], axis=1, num_outputs=2)
    proto = weighted(
        [split, node("MatMul", ["x", "a"], "y0"), node("MatMul", ["x", "b"], "y1")],
        outputs=2,
        w=W,
    )
    model = simplify(proto, [Fold()], WIDE)
    assert list(model.graph.initializers) == ["a", "b"]


def test_a_rejected_use_keeps_the_others_from_copying() -> None:
    proto = weighted(
        [
            node("Transpose", ["w"], "t"),
            node("Tile", ["w", "r"], "v"),
            node("MatMul", ["x", "t"], "y0"),
            node("MatMul", ["x", "v"], "y1"),
        ],
        outputs=2,
        w=W,
        r=np.array([1, 4]),
    )
    model = simplify(proto, [Fold()], WIDE)
    assert operators(model) == ["Transpose", "Tile", "MatMul", "MatMul"]


def test_large_weight_is_never_read(tmp_path, monkeypatch) -> None:
    big = np.ones((600, 600), np.float32)
    proto = weighted([node("Transpose", ["w"], "t"), node("MatMul", ["x", "t"], "y0")], w=big)
    model = ir.from_proto(proto)
    ir.save(model, tmp_path / "m.onnx", external_data="m.data", size_threshold_bytes=0)
    model = ir.load(tmp_path / "m.onnx")

    def refuse(self: object) -> None:
        raise AssertionError("read")

    monkeypatch.setattr(ir.ExternalTensor, "numpy", refuse)
    monkeypatch.setattr(ir.ExternalTensor, "tobytes", refuse)
    assert Fold().run(model)
    (weight,) = model.graph.initializers.values()
    assert weight.name == "t"
    assert weight.shape == [600, 600]


def test_dequantisation_stays() -> None:
    proto = weighted(
        [
            node("DequantizeLinear", ["q", "s"], "w", axis=0),
            node("MatMul", ["x", "w"], "y0"),
        ],
        q=np.ones((32, 8), np.int8),
        s=np.ones(32, np.float32),
    )
    assert operators(simplify(proto, [Fold()], WIDE)) == ["DequantizeLinear", "MatMul"]


def test_packed_weights_stay_packed() -> None:
    proto = weighted(
        [
            node("Unsqueeze", ["q", "axis"], "u"),
            node("BitwiseAnd", ["u", "mask"], "v"),
            node("Reshape", ["v", "flat"], "r"),
            node("Cast", ["r"], "f", to=1),
            node("MatMul", ["x", "f"], "y0"),
        ],
        q=np.arange(32, dtype=np.int32).reshape(4, 8),
        axis=np.array([1]),
        mask=np.array([1, 3, 7, 15, 31, 63, 127, 255], np.int32).reshape(1, 8, 1),
        flat=np.array([32, 8]),
    )
    model = simplify(proto, [Fold()], WIDE)
    assert operators(model) == ["Unsqueeze", "BitwiseAnd", "Reshape", "Cast", "MatMul"]
    assert "q" in model.graph.initializers


def test_random_and_inexact_operators_stay() -> None:
    proto = proto_of("""g (float[n,3] x) => (float[n,3] y, float[2] z) {
        k = Constant<value_floats=[0.5]>()  s = Sin(k)  y = Mul(x, s)
        z = RandomUniform<shape=[2], dtype=1>() }""")
    model = ir.from_proto(proto)
    Fold().run(model)
    assert operators(model) == ["Sin", "Mul", "RandomUniform"]


def test_inside_if_body_with_a_constant_of_the_outer_graph() -> None:
    text = """g (float[n,3] x, bool c) => (float[n,3] y) <float[1] w = {2.0}> {
        y = If (c) <
            then_branch = t () => (float[n,3] a) { m = Neg(w)  a = Mul(x, m) },
            else_branch = e () => (float[n,3] b) { b = Neg(x) }> }"""
    feeds = [{**X, "c": np.array(flag)} for flag in (True, False)]
    assert operators(fold(text, *feeds)) == ["If", "Mul", "Neg"]


def test_body_output_that_is_constant() -> None:
    text = """g (float[n,3] x, bool c) => (float[1] y) {
        y = If (c) <
            then_branch = t () => (float[1] a) { k = Constant<value_floats=[1.0]>() a = Neg(k) },
            else_branch = e () => (float[1] b) { b = Constant<value_floats=[4.0]>() }> }"""
    feeds = [{**X, "c": np.array(flag)} for flag in (True, False)]
    assert operators(fold(text, *feeds)) == ["If"]


def test_function_keeps_constants_as_nodes() -> None:
    text = """<ir_version: 9, opset_import: ["": 18, "f": 1]>
        g (float[n,3] x) => (float[n,3] y) { y = f.scaled<k=3.0>(x) }
        <domain: "f", opset_import: ["": 18]>
        scaled <k>(x) => (y) {
            a = Constant<value_float=2.0>()  b = Neg(a)  c = Constant<value_float: float = @k>()
            d = Mul(b, c)  y = Mul(x, d) }"""
    model = fold(text)
    (function,) = model.functions.values()
    assert [each.op_type for each in function] == ["Constant", "Constant", "Mul", "Mul"]


def test_loop_variables_are_not_constants() -> None:
    text = """g (float[n,3] x, int64 n) => (float[n,3] y) {
        c = Constant<value: tensor = bool {1}>()
        y = Loop (n, c, x) <body = b (int64 i, bool p, float[n,3] v) => (bool q, float[n,3] w) {
            k = Constant<value_float=2.0>()  m = Neg(k)  w = Mul(v, m)  q = Identity(p) }> }"""
    model = fold(text, {**X, "n": np.array(3)}, {**X, "n": np.array(0)})
    assert operators(model) == ["Loop", "Mul", "Identity"]


def test_max_growth_is_checked() -> None:
    with pytest.raises(OptionError, match="max-growth"):
        Fold(max_growth=-1.0)


def test_int32_arithmetic_that_overflows_is_done_by_the_kernel() -> None:
    model = fold("""g (float[n,3] x) => (float[n,3] y) {
        a = Constant<value: tensor = int32 {2000000000}>()  b = Add(a, a)
        c = Cast<to=1>(b)  y = Add(x, c) }""")
    assert operators(model) == ["Add"]


def test_zero_sized_axes() -> None:
    model = fold(
        """g (float[n,3] x) => (float[m,3] y) {
        s = Constant<value_ints=[0,3]>()  z = ConstantOfShape(s)  y = Concat<axis=0>(x, z) }""",
        X,
        EMPTY,
    )
    assert operators(model) == ["Concat"]
    assert run(ir.to_proto(model), EMPTY)[0].shape == (0, 3)


def test_a_computed_scalar_stays_a_scalar() -> None:
    model = fold("""g (float[n,3] x) => (float[n,3] y, float z) {
        a = Constant<value_float=2.0>()  b = Mul(a, a)  y = Mul(x, b)  z = Neg(b) }""")
    (scalar,) = model.graph.initializers.values()
    assert scalar.name == "b"
    assert len(scalar.const_value.shape) == 0
