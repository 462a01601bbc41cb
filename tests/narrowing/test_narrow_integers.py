"""int64 becomes int32 where every number is proven to fit, and what has no range is named."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from tests.narrowing.graphs import judged
from tests.narrowing.planted import SEEDS, defects, finds
from vlmpass.ir_tools.check import check
from vlmpass.ir_tools.errors import PipelineError, Refused
from vlmpass.passes.dtype.narrow_integers import NarrowIntegers
from vlmpass.passes.infer import Infer
from vlmpass.passes.legalize.legalize import Legalize

HEAD = '<ir_version: 8, opset_import: ["" : 18]>\n'
MERGED = """g (int64[b,n] ids, float[100,4] table) => (float[b,n,4] e, int64[b,n] p) {
  e = Gather(table, ids) seven = Constant<value_int=7>() one = Constant<value_int=1>()
  m = Equal(ids, seven) k = Cast<to=7>(m) c = CumSum(k, one) p = Sub(c, one) }"""
SUM = "g (int64[n] a, int64[n] b) => (int64[n] y) { s = Add(a, b) y = Abs(s) }"


def narrowed(text: str, **options: object) -> ir.Model:
    """Return a model after the pass, which is valid and stays as it is in a second run."""
    model = ir.from_onnx_text(HEAD + text)
    Infer().run(model)
    each = NarrowIntegers(**options)  # type: ignore[arg-type]
    assert each.run(model)
    check(model)
    assert not each.run(model)
    return model


def run(model: ir.Model, **feeds: np.ndarray) -> list[np.ndarray]:
    return ort.InferenceSession(ir.to_proto(model).SerializeToString()).run(None, feeds)


def types(model: ir.Model, operator: str) -> list[str]:
    nodes = [node for node in model.graph.all_nodes() if node.op_type == operator]
    return [str(value.dtype) for node in nodes for value in node.outputs]


@pytest.mark.parametrize("first", range(0, 60, 20))
def test_random_arithmetic_stays_within_what_is_known_and_computes_the_same(first: int) -> None:
    kinds = [judged(seed) for seed in range(first, first + 20)]
    assert {kind for kind, _ in kinds} <= {"equal", "left", "does not run"}
    assert sum(count for _, count in kinds) > 100


@pytest.mark.parametrize("defect", SEEDS)
def test_a_planted_defect_is_found(defect: str) -> None:
    assert finds(defects()[defect], [SEEDS[defect]]) is not None


def test_every_planted_defect_has_its_seed() -> None:
    assert set(defects()) == set(SEEDS)


def test_what_is_looked_up_is_bounded_by_the_table_and_places_by_the_axis() -> None:
    model = narrowed(MERGED)
    assert types(model, "CumSum") == types(model, "Sub") == ["INT32"]
    assert [value.dtype for value in model.graph.inputs] == [ir.DataType.INT64, ir.DataType.FLOAT]
    ids = np.array([[7, 1, 7, 99]], np.int64)
    table = np.random.default_rng(0).standard_normal((100, 4)).astype(np.float32)
    source = ir.from_onnx_text(HEAD + MERGED)
    for a, b in zip(
        run(model, ids=ids, table=table), run(source, ids=ids, table=table), strict=True
    ):
        assert a.dtype == b.dtype
        assert (a == b).all()


def test_a_value_without_a_range_is_named() -> None:
    model = ir.from_onnx_text(HEAD + SUM)
    Infer().run(model)
    before = ir.to_proto(model).SerializeToString()
    with pytest.raises(Refused, match=r"any number may be fed as 'a', which has no range") as told:
        NarrowIntegers().run(model)
    assert "narrow-integers{NAME=1000}" in str(told.value)
    assert ir.to_proto(model).SerializeToString() == before
    assert not NarrowIntegers(partly=True).run(model)


@pytest.mark.parametrize(("most", "holds"), [(2**30 - 1, True), (2**30, False)])
def test_what_is_fed_is_bounded_by_whoever_knows(most: int, holds: bool) -> None:
    given = {"most": (("a", most), ("b", 2**30))}
    if holds:
        model = narrowed(SUM, **given)
        assert types(model, "Add") == ["INT32"]
        a = np.array([-most, most], np.int64)
        assert run(model, a=a, b=np.array([-(2**30), 2**30], np.int64))[0].max() == 2**31 - 1
    else:
        model = ir.from_onnx_text(HEAD + SUM)
        Infer().run(model)
        with pytest.raises(Refused, match=r"'s' may be anything from -2147483648 to 2147483648"):
            NarrowIntegers(most=given["most"]).run(model)


def test_an_axis_is_bounded_by_whoever_knows() -> None:
    text = """g (float[n,2] x) => (int64 y) {
      s = Shape<start=0, end=1>(x) k = Constant<value_ints=[1000]>() m = Mul(s, k)
      y = ReduceSum<keepdims=0>(m) }"""
    model = ir.from_onnx_text(HEAD + text)
    Infer().run(model)
    with pytest.raises(Refused, match="'m' may be anything from 0 to 2147483646000"):
        NarrowIntegers().run(model)
    assert types(narrowed(text, most=(("n", 4096),)), "Mul") == ["INT32"]


def test_a_bound_of_nothing_is_refused() -> None:
    model = ir.from_onnx_text(HEAD + SUM)
    with pytest.raises(Refused, match="neither an input nor an axis of one"):
        NarrowIntegers(most=(("c", 1),)).run(model)
    with pytest.raises(PipelineError, match="bounded by -1"):
        NarrowIntegers(most=(("a", -1),))


@pytest.mark.parametrize("cast", ["Cast<to=1>(c)", "CastLike(c, f)"])
def test_a_float_rounds_what_it_is_cast_from(cast: str) -> None:
    """2147483647 as a float is one more."""
    text = """g (int64[n] x, float f) => (int64[n] y) {
      low = Constant<value_int=0>() high = Constant<value_int=2147483647>()
      two = Constant<value_int=2>()
      c = Clip(x, low, high) r = CAST q = Cast<to=7>(r) y = Div(q, two) }"""
    model = ir.from_onnx_text(HEAD + text.replace("CAST", cast))
    Infer().run(model)
    NarrowIntegers(partly=True).run(model)
    (y,) = run(model, x=np.array([2**31 - 1], np.int64), f=np.array(0, np.float32))
    assert y.tolist() == [2**30]


def test_the_interface_becomes_int32_where_that_is_asked_for() -> None:
    text = "g (int64[n] a, int64[n] b) => (int64[n] y, bool[n] z) { y = Max(a, b) z = Less(a, b) }"
    model = narrowed(text, keep_io=False)
    values = [*model.graph.inputs, *model.graph.outputs]
    kinds = [value.dtype for value in values]
    assert kinds == [*[ir.DataType.INT32] * 3, ir.DataType.BOOL]
    assert "Cast" not in {node.op_type for node in model.graph}


def test_sizes_stay_what_they_are() -> None:
    text = """g (float[b,n,4] x) => (float[b,m] y) { s = Shape<start=0, end=1>(x)
      r = Constant<value_ints=[-1]>() t = Concat<axis=0>(s, r) y = Reshape(x, t) }"""
    model = ir.from_onnx_text(HEAD + text)
    Infer().run(model)
    assert not NarrowIntegers().run(model)


def test_in_branches_and_functions_and_not_what_a_loop_carries() -> None:
    text = """<ir_version: 8, opset_import: ["" : 18, "own" : 1]>
    g (bool c, float[4] x, int64 k) => (int64[4] y, int64 z, int64[4] u) {
      nil = Constant<value_float=0.0>() d = Greater(x, nil)
      y = If(c) <then_branch = a () => (int64[4] p) { m = Not(d) p = Cast<to=7>(m) },
                 else_branch = b () => (int64[4] q) { f = Cast<to=7>(d) q = Neg(f) }>
      t = Constant<value_int=3>() z = Loop(t, , k) <body = l (int64 i, bool v, int64 s)
        => (bool w, int64 r) { w = Identity(v) r = Add(s, i) }>
      u = own.count(d)
    }
    <domain: "own", opset_import: ["" : 18]>
    count (d) => (n) { w = Cast<to=7>(d) n = Neg(w) }"""
    model = ir.from_onnx_text(text)
    Infer().run(model)
    assert NarrowIntegers(partly=True).run(model)
    check(model)
    assert types(model, "Neg")[0] == "INT32"
    assert types(model, "Loop") == ["INT64"]
    x = np.array([-1, 0, 1, 2], np.float32)
    for c in (True, False):
        feeds = {"c": np.array(c), "x": x, "k": np.array(2**40)}
        y, z, u = run(model, **feeds)
        assert y.tolist() == ([1, 1, 0, 0] if c else [0, 0, -1, -1])
        assert z == 2**40 + 3
        assert u.tolist() == [0, 0, -1, -1]


def test_a_target_without_int64_gets_int32_where_it_is_proven() -> None:
    """A20."""
    text = """g (float[2,n] x) => (float[2,n] y) { nil = Constant<value_float=0.0>()
      m = Greater(x, nil) [down] j = Cast<to=7>(m) one = Constant<value_int=1>()
      [sum] c = CumSum(j, one) [less] k = Sub(c, one) y = Cast<to=1>(k) }"""
    model = ir.from_onnx_text(HEAD + text)
    Infer().run(model)
    assert Legalize("ort-webgpu").run(model)
    assert types(model, "CumSum") == types(model, "Sub") == ["INT32"]
    x = np.array([[1, -1, 2], [-1, 1, 1]], np.float32)
    assert (run(model, x=x)[0] == np.cumsum(x > 0, axis=1) - 1).all()


def test_a_target_without_int64_is_told_what_has_no_range() -> None:
    text = """g (float[2] x) => (float[2] y) { [down] i = Cast<to=7>(x)
      [twice] j = Add(i, i) [up] y = Cast<to=1>(j) }"""
    model = ir.from_onnx_text(HEAD + text)
    Infer().run(model)
    with pytest.raises(Refused, match="as int32 neither: 'i' has no range"):
        Legalize("ort-webgpu").run(model)
