"""The type solver: what it infers, and how it reports what disagrees."""

from __future__ import annotations

import re
import warnings

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from vlmpass.ir_tools.types import apply, solve
from vlmpass.ir_tools.types.frame import Frame
from vlmpass.ir_tools.types.solver import Solver


def model(text: str, opset: int = 18, extra: str = "") -> ir.Model:
    head = f'<ir_version: 10, opset_import: ["": {opset}, "com.microsoft": 1, "my": 1]>'
    return ir.from_onnx_text(f"{head}\n{text}\n{extra}")


def value(model: ir.Model, name: str) -> ir.Value:
    from vlmpass.ir_tools.graph.walk import all_values

    return next(v for v in all_values(model) if v.name == name)


def text_of(model: ir.Model, name: str) -> str | None:
    return solve(model).text_of(value(model, name))


ATTRIBUTE_DECIDES = [
    ("y = Cast<to=10>(x)", "tensor(float16)"),
    ("y = Constant<value_float=1.0>()", "tensor(float)"),
    ("y = Constant<value_ints=[1]>()", "tensor(int64)"),
    ("y = Constant<value = double {1.0}>()", "tensor(double)"),
    ("y = ConstantOfShape(s)", "tensor(float)"),
    ("y = ConstantOfShape<value = int32[1] {1}>(s)", "tensor(int32)"),
    ("y = RandomNormalLike<dtype=11>(x)", "tensor(double)"),
    ("y = RandomNormalLike(x)", "tensor(float)"),
    ("y = RandomUniform<shape=[2]>()", "tensor(float)"),
    ("y = EyeLike<dtype=7>(x)", "tensor(int64)"),
    ("y = EyeLike(x)", "tensor(float)"),
    ("y = CastLike(x, s)", "tensor(int64)"),
    ("y = Range(i, i, i)", "tensor(int64)"),
    ("y = Shape(x)", "tensor(int64)"),
    ("a, b = TopK(x, s) \n y = Identity(b)", "tensor(int64)"),
    ("y = Greater(x, x)", "tensor(bool)"),
    ("c = Greater(x, x) \n y = Where(c, x, x)", "tensor(float)"),
    ("y = SequenceConstruct(x, x)", "seq(tensor(float))"),
    ("q = SequenceConstruct(x) \n y = SequenceAt(q, i)", "tensor(float)"),
    ("y = SequenceEmpty<dtype=10>()", "seq(tensor(float16))"),
    ("q = SplitToSequence(x) \n y = ConcatFromSequence<axis=0>(q)", "tensor(float)"),
    ("y = Optional(x)", "optional(tensor(float))"),
    ("q = Optional(x) \n y = OptionalGetElement(q)", "tensor(float)"),
    ("q = Optional(x) \n y = OptionalHasElement(q)", "tensor(bool)"),
    ("y = QuantizeLinear(x, f)", "tensor(uint8)"),
    ("a, y = LayerNormalization(x, f)", "tensor(float)"),
    ("y = my.Mystery(x)", None),
    ("z = my.Mystery(x) \n y = Add(z, x)", "tensor(float)"),
    ("y = com.microsoft.FusedMatMul(x, x)", "tensor(float)"),
    ("y = com.microsoft.BiasGelu(h, h)", "tensor(float16)"),
    ("y, k, v = com.microsoft.GroupQueryAttention(h, h, h, , , n, n)", "tensor(float16)"),
    ("o, y, v = com.microsoft.GroupQueryAttention(h, h, h, , , n, n)", "tensor(float16)"),
    ("y = SimplifiedLayerNormalization(h, f)", "tensor(float)"),
]


@pytest.mark.parametrize(("body", "expected"), ATTRIBUTE_DECIDES)
def test_types_output(body: str, expected: str | None) -> None:
    inputs = "float[2,2] x, float f, float16[2,2] h, int64[1] s, int64 i, int32 n"
    m = model(f"g ({inputs}) => (y) {{ {body} }}")
    assert text_of(m, "y") == expected


def test_types_newer_forms() -> None:
    m = model(
        """g (float[4] x, float s, int8[4] q) => (a, b, c) {
        a = QuantizeLinear<output_dtype=17>(x, s)
        b = DequantizeLinear<output_dtype=10>(q, s)
        c, k, v = Attention(x, x, x) }""",
        opset=23,
    )
    assert text_of(m, "a") == "tensor(float8e4m3fn)"
    assert text_of(m, "b") == "tensor(float16)"
    assert text_of(m, "c") == "tensor(float)"


def test_types_demanded_by_users() -> None:
    m = model("g (float[2] x) => (y) { u = my.A(x) \n v = Relu(u) \n w = Neg(v) \n y = Add(w, x) }")
    assert [text_of(m, n) for n in "uvwy"] == ["tensor(float)"] * 4


def test_types_two_types_meet() -> None:
    m = model(
        """g (float16[2] x) => (y) <float[2] W = {1.0, 2.0}> {
        h = Relu(x)
        [add] y = Add(h, W) }"""
    )
    (conflict,) = solve(m).conflicts
    assert (conflict.kind, conflict.variable, conflict.where) == ("mixed", "T", "add (Add)")
    assert [b.text for b in conflict.bindings] == ["tensor(float16)", "tensor(float)"]
    assert conflict.bindings[0].chain[1] == "input x"
    assert conflict.bindings[1].chain == ("initializer W",)
    assert "input 1 (B) 'W'" in str(conflict)


def test_types_chain_names_the_cast() -> None:
    m = model(
        """g (int64[2] i, float16[2] x) => (y) {
        [stale] c = Cast<to=1>(i)
        [neg] n = Neg(c)
        [mul] y = Mul(x, n) }"""
    )
    (conflict,) = solve(m).conflicts
    assert conflict.bindings[1].chain == ("neg (Neg)", "stale (Cast)")


def test_types_operator_does_not_admit() -> None:
    m = model("g (bfloat16[1,1,4,4] x, bfloat16[1,1,1,1] w) => (y) { [c] y = Conv(x, w) }")
    (conflict,) = solve(m).conflicts
    assert conflict.kind == "unsupported"
    assert conflict.allowed == ("tensor(double)", "tensor(float)", "tensor(float16)")
    m.opset_imports[""] = 22
    assert not solve(m).conflicts


def test_types_wrong_declaration() -> None:
    m = model("g (int64[2] i) => (float16[2] y) { [c] y = Cast<to=1>(i) }")
    (conflict,) = solve(m).conflicts
    assert (conflict.kind, conflict.where) == ("declared", "c (Cast)")
    assert [b.text for b in conflict.bindings] == ["tensor(float)", "tensor(float16)"]


def test_types_initializer_declares_another_type() -> None:
    m = model("g (float[1] x) => (float[1] y) <float[1] W = {1.0}> { y = Add(x, W) }")
    w = m.graph.initializers["W"]
    w.const_value = ir.tensor(np.ones(1, np.float16), name="W")
    kinds = [c.kind for c in solve(m).conflicts]
    assert kinds == ["declared", "mixed"]


def test_types_index_mix() -> None:
    m = model("g (float[9] x, int32[1] a, int64[1] b) => (y) { y = Slice(x, a, b, b) }")
    (conflict,) = solve(m).conflicts
    assert conflict.variable == "Tind"
    assert [b.index for b in conflict.bindings] == [1, 2, 3]


IF = """g (bool c, float[2] x, float16[2] h) => (y) {
    [i] y = If (c) <
        then_branch = t () => (a) { a = Relu(x) },
        else_branch = e () => (b) { b = Relu(ELSE) }> }"""


def test_types_if_branches() -> None:
    assert text_of(model(IF.replace("ELSE", "x")), "y") == "tensor(float)"
    (conflict,) = solve(model(IF.replace("ELSE", "h"))).conflicts
    assert (conflict.kind, conflict.where) == ("branches", "i (If)")
    assert [b.slot for b in conflict.bindings] == ["then_branch", "else_branch"]


def test_types_loop() -> None:
    text = """g (int64 n, bool c, float[2] x) => (y, z) {
    [l] y, z = Loop (n, c, x) <body = b (i, k, s) => (k2, s2, o) {
        k2 = Identity(k)
        s2 = BODY
        o = Cast<to=10>(i) }> }"""
    m = model(text.replace("BODY", "Relu(s)"))
    assert (text_of(m, "y"), text_of(m, "z")) == ("tensor(float)", "tensor(float16)")
    assert text_of(m, "i") == "tensor(int64)"
    (conflict,) = solve(model(text.replace("BODY", "Cast<to=10>(s)"))).conflicts
    assert (conflict.kind, conflict.where) == ("carried", "l (Loop)")


def test_types_scan_and_sequence_map() -> None:
    m = model(
        """g (float16[2] s, double[3,2] xs) => (y, ys, q) {
        y, ys = Scan<num_scan_inputs=1, body = b (a, e) => (a2, o) {
            a2 = Identity(a) \n o = Identity(e) }>(s, xs)
        p = SplitToSequence<axis=0>(xs)
        q = SequenceMap<body = f (e2) => (o2) { o2 = Cast<to=1>(e2) }>(p) }"""
    )
    assert text_of(m, "y") == "tensor(float16)"
    assert text_of(m, "ys") == "tensor(double)"
    assert text_of(m, "q") == "seq(tensor(float))"
    assert not solve(m).conflicts


FUNCTION = '<domain: "my", opset_import: ["": 18]>'


def test_types_function_per_call() -> None:
    m = model(
        "g (float[2] x, float16[2] h) => (y, z) { y = my.Twice(x) \n z = my.Twice(h) }",
        extra=FUNCTION + " Twice (a) => (b) { c = Constant<value_float=2.0>() "
        "d = CastLike(c, a) b = Mul(a, d) }",
    )
    typing = solve(m)
    assert not typing.conflicts
    assert (text_of(m, "y"), text_of(m, "z")) == ("tensor(float)", "tensor(float16)")
    assert text_of(m, "c") == "tensor(float)"
    assert text_of(m, "d") is None  # differs between the calls
    assert len(typing.frames) == 3


def test_types_function_attribute_reference() -> None:
    m = model(
        "g (float[2] x) => (y) { y = my.To<to=10>(x) }",
        extra=FUNCTION + " To <to> (a) => (b) { b = Cast<to=@to>(a) }",
    )
    assert text_of(m, "y") == "tensor(float16)"


def test_types_conflict_in_function_is_reported_once_with_its_scope() -> None:
    m = model(
        "g (float16[2] x) => (y) { u = my.F(x) \n y = my.F(u) }",
        extra=FUNCTION + " F (a) => (b) { c = Constant<value_float=2.0>() b = Mul(a, c) }",
    )
    (conflict,) = solve(m).conflicts
    assert conflict.where.endswith("(Mul) in function my::F")


def test_types_uncalled_function_is_solved_by_its_declarations() -> None:
    m = model(
        "g (float[2] x) => (y) { y = Relu(x) }",
        extra=FUNCTION + " F (a) => (b) { b = Constant<value_float=2.0>() }",
    )
    assert text_of(m, "b") == "tensor(float)"


def test_types_unknown_operator_by_declaration() -> None:
    m = model("g (float[2] x) => (float16[2] y) { [m] y = my.Mystery(x) }")
    typing = solve(m)
    assert typing.text_of(value(m, "y")) == "tensor(float16)"
    assert [n.name for n in typing.unknown] == ["m"]
    assert not typing.conflicts


def test_types_solving_changes_nothing_and_apply_writes() -> None:
    m = model("g (float[2] x) => (y) { h = Relu(x) \n y = Cast<to=10>(h) }")
    before = ir.to_proto(m).SerializeToString()
    typing = solve(m)
    assert ir.to_proto(m).SerializeToString() == before
    assert apply(m, typing)
    assert (value(m, "h").dtype, value(m, "y").dtype) == (ir.DataType.FLOAT, ir.DataType.FLOAT16)
    assert not apply(m, solve(m))


def test_types_apply_keeps_denotation_and_removes_ambiguous() -> None:
    m = model(
        "g (float[2] x, float16[2] h) => (y, z) { y = my.F(x) \n z = my.F(h) }",
        extra=FUNCTION + " F (a) => (b) { b = Relu(a) }",
    )
    value(m, "y").type = ir.TensorType(ir.DataType.DOUBLE, denotation="IMAGE")
    value(m, "b").type = ir.TensorType(ir.DataType.FLOAT)
    apply(m, solve(m))
    assert value(m, "y").type.denotation == "IMAGE"
    assert value(m, "y").dtype == ir.DataType.FLOAT
    assert value(m, "b").type is None


def _node_models() -> list[tuple[str, onnx.ModelProto]]:
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = [(case.name, case.model) for case in collect_testcases(None)]
    open_ended = re.compile("ada(grad|m)|momentum|label_encoder|loop16")
    return [(name, proto) for name, proto in cases if not open_ended.search(name)]


@pytest.mark.slow
def test_types_agree_with_every_node_test_of_onnx() -> None:
    wrong = []
    for name, proto in _node_models():
        m = ir.from_proto(proto)
        declared = {o.name: o.type for o in m.graph.outputs}
        for output in m.graph.outputs:
            output.type = None
        typing = solve(m)
        wrong += [f"{name}: {conflict}" for conflict in typing.conflicts]
        wrong += [
            f"{name}: {o.name}" for o in m.graph.outputs if typing.type_of(o) != declared[o.name]
        ]
    assert wrong == []


def test_types_work_is_linear(monkeypatch: pytest.MonkeyPatch) -> None:
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([1]))
    nodes, last = [], x
    for i in range(3000):
        op_type = "Unknown" if i % 7 == 3 else "Relu"
        nodes.append(ir.Node("", op_type, [last], num_outputs=1, name=f"n{i}"))
        last = nodes[-1].outputs[0]
    last.type = x.type
    graph = ir.Graph([x], [last], nodes=nodes, opset_imports={"": 18}, name="g")
    visits = 0
    visit = Solver._node

    def count(self: Solver, frame: Frame, node: ir.Node) -> None:
        nonlocal visits
        visits += 1
        visit(self, frame, node)

    monkeypatch.setattr(Solver, "_node", count)
    solve(ir.Model(graph, ir_version=10))
    assert visits < 4 * len(nodes)
