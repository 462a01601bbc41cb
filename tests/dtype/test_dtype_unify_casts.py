"""unify-dtype: Casts that became nothing go, those at a kept border or of a kept rounding stay."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from dtype_tools import check, count, operators, parse, run, text_of

from vlmpass.ir_tools.errors import Refused
from vlmpass.passes.dtype.unify_dtype import UnifyDtype

D = ir.DataType


def test_unify_removes_casts_that_became_nothing() -> None:
    model = parse(
        """g (bfloat16[2] x) => (bfloat16[2] y) {
        w = Cast<to=1>(x) v = Sqrt(w) n = Cast<to=16>(v) l = Cast<to=11>(n) b = Cast<to=16>(l)
        y = Mul(b, x) }"""
    )
    UnifyDtype().run(model)
    assert operators(model) == ["Sqrt", "Mul"]  # DOUBLE and back loses nothing either
    check(model)


def test_unify_cast_that_loses_stays() -> None:
    model = parse("g (float16[2] x) => (y) { i = Cast<to=7>(x) y = Cast<to=10>(i) }")
    UnifyDtype().run(model)
    assert operators(model) == ["Cast", "Cast"]
    np.testing.assert_array_equal(run(model, {"x": np.float32([1.5, -2.5])})["y"], [1, -2])


def test_unify_cast_between_input_and_output_becomes_identity() -> None:
    model = parse("g (float16[2] x) => (float[2] y) { y = Cast<to=1>(x) }")
    UnifyDtype().run(model)
    assert operators(model) == ["Identity"]
    assert [v.name for v in (*model.graph.inputs, *model.graph.outputs)] == ["x", "y"]
    check(model)


def test_unify_cast_like_between_input_and_output_becomes_identity() -> None:
    """What its second input gave is not the Identity's to take."""
    model = parse("g (float16[2] x, float[1] t) => (float[2] y) { y = CastLike(x, t) }")
    UnifyDtype().run(model)
    assert operators(model) == ["Identity"]
    check(model)


def test_unify_two_outputs_that_become_one_value_keep_their_names() -> None:
    model = parse(
        "g (float16[2] x) => (float16[2] a, float[2] b) { a = Relu(x) b = Cast<to=1>(a) }"
    )
    UnifyDtype().run(model)
    assert [v.name for v in model.graph.outputs] == ["a", "b"]
    check(model)


def test_unify_keep_io_has_one_cast_for_each_input_and_output() -> None:
    text = """g (float[2] x, int64 i) => (float[2] y, int64 j) {
        a = Relu(x) b = Mul(a, x) y = Add(a, b) j = Identity(i) }"""
    model = parse(text)
    run_pass = UnifyDtype(to="float16", from_=("float32",), keep_io=True)
    assert run_pass.run(model)
    check(model)
    assert operators(model) == ["Cast", "Relu", "Mul", "Add", "Cast", "Identity"]
    assert [v.dtype for v in (*model.graph.inputs, *model.graph.outputs)] == [
        D.FLOAT, D.INT64, D.FLOAT, D.INT64,
    ]  # fmt: skip
    assert [v.name for v in model.graph.outputs] == ["y", "j"]
    assert all("vlmpass.reason" in n.metadata_props for n in model.graph if n.op_type == "Cast")
    x = np.float32([0.5, -3])
    np.testing.assert_array_equal(
        run(model, {"x": x, "i": np.array(3)})["y"],
        run(parse(text), {"x": x, "i": np.array(3)})["y"],
    )
    before = ir.to_proto(model).SerializeToString()
    assert not run_pass.run(model)
    assert ir.to_proto(model).SerializeToString() == before


def test_unify_keep_io_of_an_input_that_is_an_output() -> None:
    model = parse("g (float16[2] x) => (float16[2] x, float16[2] y) { y = Relu(x) }")
    UnifyDtype(keep_io=True).run(model)
    assert [v.dtype for v in model.graph.outputs] == [D.FLOAT16, D.FLOAT16]
    assert count(model)["Cast"] == 2
    check(model)


def test_unify_keep_io_refuses_sequences_by_name() -> None:
    model = parse("g (seq(float16[2]) x, int64 i) => (float16[2] y) { y = SequenceAt(x, i) }")
    with pytest.raises(Refused, match="'x' is seq"):
        UnifyDtype(keep_io=True).run(model)


ROUND = """g (float[4] x) => (float[4] y) {
    n = Cast<to=16>(x) w = Cast<to=1>(n) y = Mul(w, w) }"""


def test_unify_rounding_goes_or_is_kept_on_request() -> None:
    model = parse(ROUND)
    UnifyDtype().run(model)
    assert operators(model) == ["Mul"]
    model = parse(ROUND)
    assert not UnifyDtype(keep_rounding=True).run(model)
    assert operators(model) == ["Cast", "Cast", "Mul"]
    x = np.float32([1.001, 2.003, 3.1, -4.7])
    rounded = (x.view(np.uint32) + 0x7FFF + ((x.view(np.uint32) >> 16) & 1) & 0xFFFF0000).view(
        np.float32
    )
    np.testing.assert_array_equal(run(model, {"x": x})["y"], rounded * rounded)


def test_unify_kept_rounding_serves_narrow_users_too() -> None:
    model = parse(
        """g (float[4] x, bfloat16[4] s) => (float[4] y, bfloat16[4] z) {
        n = Cast<to=16>(x) z = Mul(n, s) w = Cast<to=1>(n) y = Relu(w) }"""
    )
    UnifyDtype(keep_rounding=True).run(model)
    check(model)
    assert count(model)["Cast"] == 2  # one round trip, whose result both users share
    assert text_of(model, "z") == "tensor(float)"
