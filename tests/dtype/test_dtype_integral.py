"""Integer arithmetic spelled in floats keeps every bit when the floats around it become half."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from dtype_tools import EXPORTS, casts, check, dtypes_left, parse, run, text_of

from vlmpass.passes.dtype.mixed_precision import MixedPrecision
from vlmpass.passes.dtype.unify_dtype import UnifyDtype

D = ir.DataType
HALVE = UnifyDtype(to="float16", from_=("float32",))
WIDE = "tensor(float)"

# How exporters unpack the second 4-bit number of an int32: through Cast, Div, Floor and back to
# integers, or in floats to the end.
CASTED = """g (int32[4] w, float[4] s, float[4] x) => (float[4] y)
    <float f = {16}, int64 m = {16}, int64 zero = {0}, int64 p = {4294967296}> {
    i = Cast<to=7>(w) n = Less(i, zero) a = Add(i, p) u = Where(n, a, i) c = Cast<to=1>(u)
    d = Div(c, f) q = Floor(d) k = CastLike(q, u) r = Mod(k, m) t = Cast<to=1>(r)
    e = Mul(t, s) y = Mul(e, x) }"""
FLOATS = """g (int32[4] w, float[4] s, float[4] x) => (float[4] y) <float f = {16}> {
    c = Cast<to=1>(w) d = Div(c, f) q = Floor(d) b = Div(q, f) g = Floor(b) h = Mul(g, f)
    r = Sub(q, h) e = Mul(r, s) y = Mul(e, x) }"""
PACKED = np.array([0x345678, 0xBCDEF0, 70001, 0xF7], np.int32)  # float32 holds 24 bits


@pytest.mark.parametrize("pass_", [HALVE, MixedPrecision(), MixedPrecision(to="bfloat16")], ids=str)
@pytest.mark.parametrize("text", [CASTED, FLOATS], ids=["casts", "floats"])
def test_integral_unpacking_stays_exact(text: str, pass_: UnifyDtype | MixedPrecision) -> None:
    model = parse(text)
    assert pass_.run(model)
    check(model)
    assert [text_of(model, name) for name in "cdq"] == [WIDE] * 3
    half = text_of(model, "y")
    assert half == text_of(model, "x") != WIDE
    assert not pass_.run(model)
    if half == "tensor(float16)":
        feeds = {"w": PACKED, "s": np.ones(4, np.float32), "x": np.ones(4, np.float32)}
        wanted = run(parse(text), feeds)["y"]
        np.testing.assert_array_equal(wanted, PACKED // 16 % 16)
        halves = {key: a.astype(np.float16) if key != "w" else a for key, a in feeds.items()}
        np.testing.assert_array_equal(run(model, halves)["y"], wanted)


def test_integral_unpacking_is_left_once() -> None:
    model = parse(FLOATS)
    HALVE.run(model)
    (cast,) = (n for n in model.graph if n.op_type == "Cast" and n.inputs[0].dtype == D.FLOAT)
    assert cast.inputs[0].name == "r"  # 0 to 15, which half precision holds
    assert "integers are computed in floats" in cast.metadata_props["vlmpass.reason"]


def test_integral_sizes_above_2048() -> None:
    model = parse(
        """g (float[N] x) => (float[M] y) <float half = {0.5}, float v = {3}> {
        s = Shape(x) f = Cast<to=1>(s) h = Mul(f, half) c = Ceil(h) i = Cast<to=7>(c)
        z = Expand(v, i) y = Relu(z) }"""
    )
    MixedPrecision().run(model)
    check(model)
    # By type too: ONNX Runtime's CPU takes out the Casts that would show the rounding.
    assert {text_of(model, name) for name in "fhc"} == {WIDE}
    assert run(model, {"x": np.zeros(8195, np.float16)})["y"].shape == (4098,)


def test_integral_positions_are_compared_exactly() -> None:
    model = parse(
        """g (int64[A,1] p, float[A,B] s) => (float[A,B] y)
        <float one = {1}, int64 zero = {0}, int64[1] axis = {1}> {
        n = Shape<start=1>(s) k = Squeeze(n) o = Cast<to=7>(one) r = Range(zero, k, o)
        a = Cast<to=1>(r) b = Cast<to=1>(p) m = LessOrEqual(a, b)
        t = Exp(s) w = Neg(s) y = Where(m, t, w) }"""
    )
    UnifyDtype(to="float16", from_=("float32",)).run(model)
    check(model)
    assert [text_of(model, name) for name in "abt"] == [WIDE, WIDE, "tensor(float16)"]
    got = run(model, {"p": np.array([[2048]]), "s": np.zeros((1, 2052), np.float16)})["y"]
    np.testing.assert_array_equal(got[0], np.arange(2052) <= 2048)


def test_integral_masks_and_lookups_become_half() -> None:
    model = parse(
        """g (int64[N] ids, int64[N] mask) => (int64[N] next)
        <float[4,4] words = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16},
         float one = {1}, float low = {-10000}, int64[1] axis = {1}> {
        e = Gather(words, ids) f = Cast<to=1>(mask) i = Sub(one, f) b = Mul(i, low)
        u = Unsqueeze(b, axis) a = Add(e, u) next = ArgMax<axis=1, keepdims=0>(a) }"""
    )
    MixedPrecision().run(model)
    check(model)
    assert casts(model) == 1
    assert {text_of(model, name) for name in "efiba"} == {"tensor(float16)"}


def test_integral_widening_leaves_nothing_narrow() -> None:
    model = parse(
        """g (int64[N] p) => (int64[N] y) <bfloat16 h = {b(2)}> {
        a = Cast<to=16>(p) b = Div(a, h) c = Floor(b) y = Cast<to=7>(c) }"""
    )
    UnifyDtype().run(model)
    assert not dtypes_left(model) & {D.BFLOAT16, D.FLOAT16}
    np.testing.assert_array_equal(run(model, {"p": np.array([4099])})["y"], [2049])


def test_integral_functions_and_branches() -> None:
    model = parse(
        """g (int64[N] p, bool c, float[N] x) => (float[N] y) {
        a = my.Halve(p)
        b = If (c) <then_branch = t () => (int64[N] d) { u = Cast<to=1>(p)
            v = Ceil(u) d = Cast<to=7>(v) }, else_branch = e () => (int64[N] f) { f = Neg(p) }>
        q = Add(a, b) r = Cast<to=1>(q) y = Mul(r, x) }""",
        extra="""<domain: "my", opset_import: ["": 18]>
        Halve (p) => (h) { t = Constant<value = float {2}>() f = Cast<to=1>(p) d = Div(f, t)
            g = Floor(d) h = Cast<to=7>(g) }""",
    )
    model.graph.inputs[0].shape = ir.Shape([1])
    MixedPrecision().run(model)
    check(model)
    assert [text_of(model, name) for name in "gvr"] == [WIDE, WIDE, "tensor(float16)"]
    feeds = {"p": np.array([4101]), "c": np.array(True), "x": np.float16([10])}
    assert run(model, feeds)["y"][0] == np.float16(2050 + 4101) * np.float16(10)


def test_integral_exports_keep_their_weights() -> None:
    for name in ("quant_mod.float16.ts17", "quant_shift.float16.ts18"):
        model = ir.load(EXPORTS / f"{name}.onnx")
        x = np.random.default_rng(3).standard_normal((2, 3, 64)).astype(np.float16)
        (given,) = (v.name for v in model.graph.inputs)
        before = run(model, {given: x})
        MixedPrecision().run(model)
        after = run(model, {given: x})
        for key, wanted in before.items():
            np.testing.assert_array_equal(after[key], wanted)
