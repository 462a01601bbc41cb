"""Operators that are named are replaced wherever they stand, or all that stay are listed."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from vlmpass import Pipeline
from vlmpass.ir_tools.errors import PipelineError, Refused

TEXT = """<ir_version: 8, opset_import: ["" : 17]>
g (float[2,n,4] x, float[4,3] w, int64[n] i) => (float[2,n,3] y, float[n,5] h) {
  d = Constant<value_int=5>() v = Constant<value_floats=[0.0, 1.0]>()
  z = Einsum<equation="bnd,de->bne">(x, w) t = Constant<value_int=1>()
  y = CumSum(z, t) h = OneHot(i, d, v)
}"""


def operators(model: ir.Model) -> set[str]:
    return {node.op_type for node in model.graph}


def test_named_operators_are_replaced_and_no_others() -> None:
    model = ir.from_onnx_text(TEXT)
    rng = np.random.default_rng(0)
    feed = {
        "x": rng.standard_normal((2, 6, 4)).astype(np.float32),
        "w": rng.standard_normal((4, 3)).astype(np.float32),
        "i": np.array([0, 4, -1, 7, 2, -9], np.int64),
    }
    before = ort.InferenceSession(ir.to_proto(model).SerializeToString()).run(None, feed)
    result = Pipeline("substitute{operators=[Einsum,OneHot]}").run(model).model
    assert result is not None
    assert operators(result) & {"Einsum", "OneHot", "CumSum"} == {"CumSum"}
    after = ort.InferenceSession(ir.to_proto(result).SerializeToString()).run(None, feed)
    for one, two in zip(before, after, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-6, atol=1e-6)


def test_all_that_stay_are_listed() -> None:
    text = TEXT.replace("int64[n] i", "int64[n] i, int64 t").replace(
        "t = Constant<value_int=1>()", ""
    )
    with pytest.raises(Refused, match="its axis is known at run time only"):
        Pipeline("substitute{operators=[CumSum,Einsum]}").run(ir.from_onnx_text(text))


def test_an_operator_that_nothing_stands_for_is_refused() -> None:
    with pytest.raises(PipelineError, match="nothing is known that stands for Conv"):
        Pipeline("substitute{operators=[Conv]}")


@pytest.mark.parametrize(
    "node",
    [
        "y = ArgMax<axis=1, keepdims=0>(x)",
        "y = ArgMin<axis=1, keepdims=0>(x)",
        "y = ArgMax<axis=1, keepdims=0, select_last_index=1>(x)",
        "y = ArgMin<axis=1, keepdims=0, select_last_index=1>(x)",
        "k = Constant<value_ints=[2]>() v, y = TopK<axis=1, largest=0>(x, k)",
    ],
)
def test_extremes_are_those_that_onnx_runtime_takes_nan_or_not(node: str) -> None:
    """And a result is not refused for an operator that stands in it, nor is it changed again."""
    rank = "[3,2]" if "TopK" in node else "[3]"
    head = '<ir_version: 8, opset_import: ["" : 18]>'
    model = ir.from_onnx_text(f"{head} g (float[3,5] x) => (int64{rank} y) {{ {node} }}")
    asked = Pipeline("substitute{operators=[TopK,ArgMax,ArgMin]}")
    result = asked.run(model).model
    assert result is not None
    assert operators(asked.run(result).model or model) == operators(result) != operators(model)
    before, after = (
        ort.InferenceSession(ir.to_proto(each).SerializeToString()) for each in (model, result)
    )
    rng = np.random.default_rng(0)
    for _ in range(300):
        x = rng.choice(np.array([0, 1, -1, 2, np.nan, np.inf, -np.inf], np.float32), (3, 5))
        if "TopK" in node:  # an infinity goes for a NaN there
            x[np.isposinf(x)] = 7
        one, two = before.run(None, {"x": x})[0], after.run(None, {"x": x})[0]
        assert (one == two).all(), x
