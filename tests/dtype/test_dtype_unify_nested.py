"""unify-dtype in subgraphs and functions."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from dtype_tools import check, dtypes_left, parse, run

from vlmpass.passes.dtype.unify_dtype import UnifyDtype

D = ir.DataType
NARROW = {D.BFLOAT16, D.FLOAT16}


def test_unify_subgraphs_and_carried_values() -> None:
    model = parse(
        """g (int64 n, bool c, bfloat16[2] x) => (bfloat16[2] y, bfloat16[2] z) {
        o = Loop (n, c, x) <body = b (int64 i, bool k, bfloat16[2] s)
            => (bool k2, bfloat16[2] s2) <bfloat16 two = {b(2)}>
            { k2 = Identity(k) s2 = Mul(s, two) }>
        y = Identity(o)
        z = If (c) <then_branch = t () => (bfloat16[2] a) { a = Relu(x) },
            else_branch = e () => (bfloat16[2] d) { f = Cast<to=1>(x) d = Cast<to=16>(f) }> }"""
    )
    UnifyDtype().run(model)
    check(model)
    assert not dtypes_left(model) & NARROW
    feeds = {"n": np.array(3), "c": np.array(True), "x": np.float32([1, 2])}
    np.testing.assert_array_equal(run(model, feeds)["y"], [8, 16])
    feeds["c"] = np.array(False)
    np.testing.assert_array_equal(run(model, feeds)["z"], [1, 2])  # an outer value needs Identity


FUNCTIONS = """
<domain: "my", opset_import: ["": 18, "my": 1]>
Scale <to, eps: float = 0.5> (a) => (b) {
    c = Constant<value_float: float = @eps>() d = Cast<to: int = @to>(c) b = Mul(a, d) }
<domain: "my", opset_import: ["": 18, "my": 1]>
Outer <dtype: int = 16> (a) => (b) {
    w = Constant<value = bfloat16[2] {b(1), b(3)}>()
    s = my.Scale<to: int = @dtype>(a) b = Mul(s, w) }
"""


def test_unify_functions_and_the_types_their_calls_pass() -> None:
    model = parse(
        """g (bfloat16[2] x) => (bfloat16[2] y, bfloat16[2] z) {
        y = my.Outer(x) z = my.Scale<to=16>(x) }""",
        extra=FUNCTIONS,
    )
    UnifyDtype().run(model)
    check(model)
    assert not dtypes_left(model) & NARROW
    assert model.functions["my", "Outer", ""].attributes["dtype"].as_int() == D.FLOAT
    results = run(model, {"x": np.float32([1, 2])})
    np.testing.assert_array_equal(results["y"], [0.5, 3])
    np.testing.assert_array_equal(results["z"], [0.5, 1])
    assert not UnifyDtype().run(model)


def test_unify_function_numbers_to_float16() -> None:
    model = parse("g (float[2] x) => (float[2] z) { z = my.Scale<to=1>(x) }", extra=FUNCTIONS)
    UnifyDtype(to="float16", from_=("float32",)).run(model)
    check(model)
    result = run(model, {"x": np.float16([1, 2])})["z"]
    assert result.dtype == np.float16
    np.testing.assert_array_equal(result, [0.5, 1])
