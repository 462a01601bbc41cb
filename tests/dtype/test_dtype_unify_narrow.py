"""unify-dtype to half precision: masks fit, and numbers that it cannot hold are named."""

from __future__ import annotations

import logging

import numpy as np
import onnx_ir as ir
import pytest
from dtype_tools import parse, run, value

from vlmpass.ir_tools.errors import Refused
from vlmpass.passes.unify_dtype import UnifyDtype


def test_unify_masks_keep_their_number() -> None:
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
