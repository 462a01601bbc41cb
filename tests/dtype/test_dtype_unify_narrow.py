"""unify-dtype to half precision: masks fit, and numbers that it cannot hold are named."""

from __future__ import annotations

import logging

import numpy as np
import onnx_ir as ir
import pytest
from dtype_tools import check, parse, run, value

from vlmpass.ir_tools.errors import Refused
from vlmpass.ir_tools.graph.walk import tensor_slots
from vlmpass.ir_tools.types.emulate import emulate
from vlmpass.passes.dtype.unify_dtype import UnifyDtype

D = ir.DataType


def test_unify_to_float32_keeps_the_number_of_a_mask() -> None:
    model = parse(
        """g (bool[2] m, float16[2] s) => (float16[2] y) {
        c = Constant<value = float16 {h(-65504)}>() y = Where(m, s, c) }"""
    )
    UnifyDtype().run(model)
    np.testing.assert_array_equal(
        run(model, {"m": np.array([True, False]), "s": np.float32([1, 1])})["y"], [1, -65504]
    )


def test_unify_to_float16_fits_masks_and_never_makes_nan(caplog: pytest.LogCaptureFixture) -> None:
    model = parse(
        """g (bool[1,3] m, float[1,3] s) => (float[1,3] y) {
        [low] c = Constant<value = float {-3.4028235e38}>() a = Where(m, s, c)
        b = Add(a, c) y = Softmax(b) }"""
    )
    with caplog.at_level(logging.WARNING):
        UnifyDtype(to="float16", from_=("float32",)).run(model)
    assert "low (Constant)" in caplog.text
    result = run(model, {"m": np.zeros((1, 3), bool), "s": np.float16([[1, 2, 3]])})["y"]
    np.testing.assert_allclose(result, np.full((1, 3), 1 / 3), rtol=1e-3)


# What masks are made of: the lowest numbers of float32, bfloat16 and float16, -inf, and round ones.
MASKS = [-3.4028235e38, -3.3895314e38, -65504.0, -np.inf, -1e30, -1e9, -1e4]


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("where", ["initializer", "Constant", "ConstantOfShape"])
def test_unify_to_float16_masks_twice_and_makes_no_nan(mask: float, where: str) -> None:
    """Padding and order mask one score each; the last row is masked throughout."""
    text = """g (bool[3,4] p, bool[3,4] q, float[3,4] s) => (float[3,4] y) <MADE float z = {0}> {
        CODE a = Where(p, z, k) b = Where(q, z, k) d = Add(s, a) e = Add(d, b) y = Softmax(e) }"""
    made = "<value = float[1] {1}>"
    code = {
        "initializer": "",
        "Constant": "k = Constant<value = float {1}>()",
        "ConstantOfShape": f"n = Constant<value_ints=[1]>() k = ConstantOfShape{made}(n)",
    }[where]
    head = "float k = {1}," if where == "initializer" else ""
    model = parse(text.replace("MADE", head).replace("CODE", code))
    for slot in tensor_slots(model):
        if slot.tensor.dtype == D.FLOAT and slot.tensor.numpy().max() == 1:
            array = np.full(slot.tensor.shape.numpy(), mask, np.float32)
            slot.replace(ir.tensor(array, name=slot.tensor.name))
    p = np.array([[1, 1, 1, 0], [1, 0, 1, 0], [0, 0, 0, 0]], bool)
    q = np.array([[1, 1, 0, 0], [1, 1, 1, 1], [0, 0, 1, 1]], bool)
    s = np.float32([[1, 2, 3, 4], [4, 3, 2, 1], [1, 1, 2, 2]])
    wanted = run(model, {"p": p, "q": q, "s": s})["y"]
    UnifyDtype(to="float16", from_=("float32",)).run(model)
    check(model)
    got = run(model, {"p": p, "q": q, "s": s.astype(np.float16)})["y"]
    np.testing.assert_allclose(got[:2], wanted[:2], atol=1e-3)
    assert emulate(model, D.FLOAT16)
    rounded = run(model, {"p": p, "q": q, "s": s})["y"]
    for result in (got, rounded):
        np.testing.assert_array_equal(np.isnan(result), np.isnan(wanted))


def test_unify_to_float16_bounds_reach_to_the_end_of_the_range() -> None:
    model = parse(
        """g (float[3] x) => (float[3] y, float[3] z) <float low = {-3.4028235e38}> {
        top = Constant<value = float {3.4028235e38}>() y = Clip(x, low, top) z = Max(x, low) }"""
    )
    UnifyDtype(to="float16", from_=("float32",)).run(model)
    x = np.float16([-60000, 0, 60000])
    for made in run(model, {"x": x}).values():
        np.testing.assert_array_equal(made, x)


@pytest.mark.parametrize(
    ("number", "why"), [("70000.0", "ends at 65504"), ("1e-12", "become zero")]
)
def test_unify_to_float16_refuses_numbers_it_cannot_hold(number: str, why: str) -> None:
    model = parse(f"g (float[2] x) => (float[2] y) <float k = {{{number}}}> {{ y = Add(x, k) }}")
    with pytest.raises(Refused, match=why) as refused:
        UnifyDtype(to="float16", from_=("float32",)).run(model)
    assert refused.value.refusals[0].node == "initializer k"


def test_unify_to_float16_keeps_infinity_and_reports_zeros(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = parse("g (float[3] x) => (float[3] y) <float[3] k = {1e-9, 1, 2}> { y = Add(x, k) }")
    value(model, "k").const_value = ir.tensor(np.float32([1e-9, np.inf, 2]), name="k")
    with caplog.at_level(logging.WARNING):
        UnifyDtype(to="float16", from_=("float32",)).run(model)
    assert "initializer k" in caplog.text
    np.testing.assert_array_equal(value(model, "k").const_value.numpy(), [0, np.inf, 2])


def test_unify_bfloat16_mask_does_not_become_infinite() -> None:
    model = parse("g (float[2] x) => (float[2] y) <float k = {-3.4028235e38}> { y = Add(x, k) }")
    UnifyDtype(to="bfloat16", from_=("float32",)).run(model)
    assert np.isfinite(float(value(model, "k").const_value.numpy()))
