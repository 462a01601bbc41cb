"""repair-types: hand-broken graphs become valid with the stated number of Casts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import pytest
from dtype_tools import casts, check, export, operators, parse, relative_error, run, text_of, value

from vlmpass.ir_tools.errors import Refused
from vlmpass.passes.dtype.repair_types import RepairTypes
from vlmpass.passes.dtype.unify_dtype import UnifyDtype

D = ir.DataType


@dataclass(frozen=True)
class Broken:
    """A broken graph and what its repair takes.

    Attributes:
        name: What is wrong.
        text: The graph.
        casts: The fewest Cast nodes of the repaired graph, those of the source included.
        types: Types of some values afterwards, as `value: type`.
        prefer: The pass's option.
        opset: Of the model.
        extra: Functions.
    """

    name: str
    text: str
    casts: int
    types: str = ""
    prefer: str = "follow-weights"
    opset: int = 18
    extra: str = ""


F32, F16 = "float32", "float16"
BROKEN = [
    Broken(
        "weight of the other type at Add",
        "g (float16[2] x) => (float16[2] y) <float[2] w = {1, 2}> { y = Add(x, w) }",
        0,
        "w: float16",
    ),
    Broken(
        "one float32 matrix in a float16 chain",
        """g (float16[2,2] x) => (float16[2,2] y)
        <float[2,2] w = {1, 2, 3, 4}, float16[2,2] v = {h(1), h(2), h(3), h(4)}> {
        a = MatMul(x, w) y = MatMul(a, v) }""",
        0,
        "w: float16, a: float16",
    ),
    Broken(
        "activations of two types, result declared float32",
        "g (float16[2] a, float[2] b) => (float[2] y) { y = Add(a, b) }",
        1,
        "y: float",
    ),
    Broken(
        "activations of two types, result declared float16",
        "g (float16[2] a, float[2] b) => (float16[2] y) { y = Add(a, b) }",
        1,
        "y: float16",
    ),
    Broken(
        "activations of two types, no preference from outside, wide by option",
        "g (float16[2] a, float[2] b) => (bool[2] y) { s = Add(a, b) y = Greater(s, s) }",
        1,
        "s: float",
        F32,
    ),
    Broken(
        "activations of two types, no preference from outside, narrow by option",
        "g (float16[2] a, float[2] b) => (bool[2] y) { s = Add(a, b) y = Greater(s, s) }",
        1,
        "s: float16",
        F16,
    ),
    Broken(
        "stale Cast to float32",
        """g (int64[2] i, float16[2] x) => (float16[2] y) {
        c = Cast<to=1>(i) y = Mul(x, c) }""",
        1,
        "c: float16",
    ),
    Broken(
        "stale Cast whose result is an output",
        "g (int64[2] i) => (float16[2] y) { y = Cast<to=1>(i) }",
        1,
        "y: float16",
    ),
    Broken(
        "stale Cast with a user of each type",
        """g (int64[2] i, float16[2] x, float[2] z) => (float16[2] y, float[2] w) {
        c = Cast<to=1>(i) y = Mul(x, c) w = Mul(z, c) }""",
        2,
    ),
    Broken(
        "Cast to PyTorch's code of bfloat16, which ONNX reads as complex128",
        """g (int64[2] i, bfloat16[2] x) => (bfloat16[2] y) {
        r = Cast<to=1>(i) s = Sqrt(r) c = Cast<to=15>(s) y = Mul(x, c) }""",
        2,
        "c: bfloat16",
    ),
    Broken(
        "LayerNormalization with a scale of the other type",
        """g (float[2,2] x) => (float[2,2] y) <float16[2] s = {h(1), h(2)}, float16[2] b = {0, 0}> {
        y = LayerNormalization(x, s, b) }""",
        0,
        "s: float",
    ),
    Broken(
        "Slice with one index of the other type",
        """g (float[9] x, int32[1] a, int64[1] b) => (float[N] y) { y = Slice(x, a, b, b) }""",
        1,
    ),
    Broken(
        "two Slices that share an index of the other type",
        """g (float[9] x, int32[1] a, int64[1] b) => (float[N] y, float[N] z) {
        y = Slice(x, a, b, b) z = Slice(x, b, a) }""",
        1,
    ),
    Broken(
        "Slice whose other indices are constants",
        """g (float[9] x, int32[1] a) => (float[N] y) <int64[1] e = {7}, int64[1] d = {0}> {
        y = Slice(x, a, e, d) }""",
        0,
        "e: int32",
    ),
    Broken(
        "Slice whose end does not fit the narrow index",
        """g (float[9] x, int32[1] a) => (float[N] y)
        <int64[1] e = {9223372036854775807}, int64[1] d = {0}> { y = Slice(x, a, e, d) }""",
        1,
        "e: int64",
    ),
    Broken(
        "sum of int32 and int64 stays exact",
        "g (int32[2] a, int64[2] b) => (int64[2] y) { y = Add(a, b) }",
        1,
    ),
    Broken(
        "index of a type that Gather does not take",
        "g (float[9] x, uint8[2] i) => (float[2] y) { y = Gather(x, i) }",
        1,
    ),
    Broken(
        "branches of If disagree",
        """g (bool c, float16[2] x) => (float16[2] y) {
        y = If (c) <then_branch = t () => (a) { a = Relu(x) },
                    else_branch = e () => (d) { f = Cast<to=1>(x) d = Sqrt(f) }> }""",
        2,
        "d: float",
    ),
    Broken(
        "carried value of a Loop changes its type",
        """g (int64 n, bool c, float16[2] x) => (float16[2] y) {
        y = Loop (n, c, x) <body = b (int64 i, bool k, float16[2] s) => (bool k2, float[2] s2) {
            k2 = Identity(k) w = Cast<to=1>(s) s2 = Sqrt(w) }> }""",
        2,
    ),
    Broken(
        "double constant of a rotary table",
        "g (float16[2] x) => (float16[2] y) <double[2] f = {0.5, 0.25}> { y = Mul(x, f) }",
        0,
        "f: float16",
    ),
    Broken(
        "double Einsum operand computed from positions",
        """g (int64[2] p, float16[2] x) => (float16[2,2] y) {
        d = Cast<to=11>(p) y = Einsum<equation="i,j->ij">(d, x) }""",
        1,
        "d: float16",
    ),
    Broken(
        "MatMulNBits with float32 scales",
        """g (float16[1,32] x, uint8[4,1,16] W) => (float16[1,4] y) <float[4] s = {1, 1, 1, 1}> {
        y = com.microsoft.MatMulNBits<K=32, N=4, bits=4, block_size=32>(x, W, s) }""",
        0,
        "s: float16",
    ),
    Broken(
        "MatMulNBits with float16 scales",
        """g (float[1,32] x, uint8[4,1,16] W) => (float[1,4] y)
        <float16[4] s = {h(1), h(1), h(1), h(1)}> {
        y = com.microsoft.MatMulNBits<K=32, N=4, bits=4, block_size=32>(x, W, s) }""",
        0,
        "s: float",
    ),
    Broken(
        "QuantLinear: float32 dequantisation, float16 bias",
        """g (float[1,2] x, int32[2,2] q) => (float[1,2] y)
        <float16[2] scale = {h(1), h(2)}, float16[2] bias = {h(1), h(2)}> {
        f = Cast<to=1>(q) w = Mul(f, scale) m = MatMul(x, w) y = Add(m, bias) }""",
        1,
        "scale: float, bias: float",
    ),
    Broken(
        "Qwen2RMSNorm, weight * x.to(dtype), with the Cast back missing",
        """g (float16[1,2] h) => (float16[1,2] y)
        <float16[2] w = {h(1), h(2)}, float two = {2}, float16 eps = {h(0.001)},
         int64[1] axis = {-1}, float16[2,2] W = {h(1), h(2), h(3), h(4)}> {
        x = Cast<to=1>(h) p = Pow(x, two) v = ReduceMean(p, axis) e = Add(v, eps) r = Sqrt(e)
        n = Div(x, r) z = Mul(w, n) y = MatMul(z, W) }""",
        2,
        "eps: float, n: float, W: float16",
    ),
    Broken(
        "Qwen2RMSNorm, (weight * x).to(dtype)",
        """g (float16[1,2] h) => (float16[1,2] y) <float16[2] w = {h(1), h(2)}> {
        x = Cast<to=1>(h) n = Softmax(x) z = Mul(w, n) y = Cast<to=10>(z) }""",
        2,
        "w: float",
    ),
    Broken(
        "Qwen2RMSNorm, weight.to(dtype) * x.to(dtype), the first Cast stale",
        """g (float16[1,2] h) => (float16[1,2] y) <float[2] w = {1, 2}> {
        x = Cast<to=1>(h) n = Softmax(x) c = Cast<to=1>(w) d = Cast<to=10>(n) y = Mul(c, d) }""",
        3,
        "c: float16",
    ),
    Broken(
        "fill value of Where",
        """g (bool[2] m, float16[2] s) => (float16[2] y) {
        k = Constant<value_float = -1000.0>() y = Where(m, s, k) }""",
        0,
        "k: float16",
    ),
    Broken(
        "one part of a Concat",
        """g (float16[2] a, float16[2] b, float[2] c) => (float16[6] y) {
        y = Concat<axis=0>(a, b, c) }""",
        1,
    ),
    Broken(
        "most parts of a Concat, before a float16 matrix",
        """g (float16[2] a, float[2] b, float[2] c) => (float16[2] y)
        <float16[6,2] W = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}> {
        s = Concat<axis=0>(a, b, c) y = MatMul(s, W) }""",
        2,
        "s: float",
    ),
    Broken(
        "bounds of Clip",
        """g (float16[2] x) => (float16[2] y) <float lo = {0}, float hi = {6}> {
        y = Clip(x, lo, hi) }""",
        0,
        "lo: float16",
    ),
    Broken(
        "scales of Resize",
        """g (float16[1,1,2,2] x) => (float16[1,1,N,M] y)
        <float16[4] s = {h(1), h(1), h(2), h(2)}> { y = Resize<mode="nearest">(x, , s) }""",
        0,
        "s: float",
    ),
    Broken(
        "bfloat16 Conv, which opset 18 does not have",
        """g (bfloat16[1,1,2,2] x) => (bfloat16[1,1,2,2] y) <bfloat16[1,1,1,1] w = {b(2)}> {
        a = Relu(x) c = Conv(a, w) y = Neg(c) }""",
        2,
        "w: float",
    ),
    Broken(
        "output declared as another type",
        "g (float[2] x) => (float16[2] y) { y = Relu(x) }",
        1,
        "y: float16",
    ),
    Broken(
        "interior value declared as another type",
        "g (float[2] x) => (float[2] y) <float16[2] h> { h = Relu(x) y = Neg(h) }",
        0,
        "h: float",
    ),
    Broken(
        "float16 and bfloat16 meet where neither holds the other",
        "g (float16[2] a, bfloat16[2] b) => (float[2] y) { y = Add(a, b) }",
        2,
    ),
    Broken(
        "one value, two users in the other type",
        """g (float16[2] x, float[2] a) => (float16[2] y, float16[2] z) {
        y = Add(x, a) z = Mul(x, a) }""",
        1,
    ),
    Broken(
        "a scalar is cast before a tensor",
        "g (float16[8] a, float[1] s) => (bool[8] y) { p = Mul(a, s) y = Greater(p, p) }",
        1,
        "p: float16",
        F32,
    ),
    Broken(
        "inside a function",
        "g (float16[2] x) => (float16[2] y) { y = my.Scale(x) }",
        0,
        "k: float16",
        extra="""<domain: "my", opset_import: ["": 18]>
        Scale (a) => (b) { k = Constant<value_float=0.5>() b = Mul(a, k) }""",
    ),
]


@pytest.mark.parametrize("case", BROKEN, ids=lambda case: case.name)
def test_repair_with_the_fewest_casts(case: Broken) -> None:
    model = parse(case.text, case.opset, case.extra)
    interface = [(v.name, v.type) for v in (*model.graph.inputs, *model.graph.outputs)]
    before = {id(node) for node in model.graph}
    assert RepairTypes(prefer=case.prefer).run(model)
    check(model)
    assert casts(model) == case.casts
    assert [(v.name, v.type) for v in (*model.graph.inputs, *model.graph.outputs)] == interface
    for pair in filter(None, case.types.split(", ")):
        name, kind = pair.split(": ")
        assert text_of(model, name) == f"tensor({kind})", name
    for node in model.graph:
        if node.op_type == "Cast" and id(node) not in before:
            assert node.metadata_props["vlmpass.reason"]
    assert not RepairTypes(prefer=case.prefer).run(model)


def test_repair_covers_enough() -> None:
    assert len(BROKEN) >= 25


def test_repair_keeps_numbers() -> None:
    model = parse(next(c.text for c in BROKEN if c.name.startswith("QuantLinear")))
    RepairTypes().run(model)
    feeds = {"x": np.float32([[1, 2]]), "q": np.int32([[1, 2], [3, 4]])}
    np.testing.assert_array_equal(run(model, feeds)["y"], [[1 + 6 + 1, 4 + 16 + 2]])


def test_repair_reason_names_what_it_follows() -> None:
    model = parse("g (float16[2] a, float[2] b) => (float[2] y) { [add] y = Add(a, b) }")
    RepairTypes().run(model)
    (cast,) = (node for node in model.graph if node.op_type == "Cast")
    assert cast.metadata_props["vlmpass.reason"] == (
        "add (Add) takes T in tensor(float), as 'b' is, and not in tensor(float16)"
    )


def test_repair_leaves_a_well_typed_model_alone() -> None:
    model = parse("g (float[2] x) => (float[2] y) { a = Cast<to=1>(x) y = Relu(a) }")
    before = ir.to_proto(model).SerializeToString()
    assert not RepairTypes().run(model)
    assert ir.to_proto(model).SerializeToString() == before


def test_repair_shares_an_initializer_that_well_typed_nodes_use() -> None:
    model = parse(
        """g (float16[2] x, float[2] z) => (float16[2] y, float[2] v) <float[2] w = {1, 2}> {
        y = Add(x, w) v = Add(z, w) }"""
    )
    RepairTypes().run(model)
    check(model)
    assert casts(model) == 0
    assert value(model, "w").dtype == D.FLOAT
    assert len(model.graph.initializers) == 2


def test_repair_refuses_what_casts_cannot_cure() -> None:
    model = parse("g (string[2] s, float[2] x) => (float[2] y) { [a] y = Add(s, x) }")
    with pytest.raises(Refused, match=r"a \(Add\)"):
        RepairTypes().run(model)
    model = parse("g (seq(float[2]) s, int64 i) => (float16[2] y) { [a] y = SequenceAt(s, i) }")
    assert RepairTypes().run(model)
    assert operators(model) == ["SequenceAt", "Cast"]


def test_repair_refuses_constants_that_do_not_fit() -> None:
    model = parse("g (float16[2] x) => (float16[2] y) <float k = {70000}> { [a] y = Add(x, k) }")
    RepairTypes().run(model)
    check(model)
    assert casts(model) == 2  # computed in float32, since the constant cannot be float16
    assert value(model, "k").dtype == D.FLOAT


def test_repair_then_unify_an_export_with_wrong_casts() -> None:
    model, feeds, wanted = export("vision.bfloat16.ts17")
    RepairTypes().run(model)
    check(model)
    UnifyDtype().run(model)
    check(model)
    results = run(model, {v.name: feeds[v.name] for v in model.graph.inputs})
    for key, reference in wanted.items():
        # GELU's constants are rounded to bfloat16 in the export.
        assert relative_error(results[key], reference) < 3e-4
