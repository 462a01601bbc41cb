"""Small models on which shapes went wrong."""

from __future__ import annotations

import tracemalloc

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from vlmpass import Pipeline
from vlmpass.ir_tools.errors import CheckError
from vlmpass.passes import PassManager, parse
from vlmpass.presets import SIMPLIFY

SQUARINGS = 64


def test_sizes_squared_over_and_over_take_no_memory() -> None:
    steps = " ".join(f"s{i + 1} = Mul(s{i}, s{i})" for i in range(SQUARINGS))
    proto = onnx.parser.parse_model(f"""<ir_version: 10, opset_import: ["": 18]>
        g (float[a,b] x) => (float y) {{
            s0 = Shape(x)  {steps}
            c = Cast<to=1>(s{SQUARINGS})  y = ReduceSum<keepdims=0>(c) }}""")
    model = ir.from_proto(proto)
    tracemalloc.start()
    PassManager(parse(SIMPLIFY)).run(model, in_place=True)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 30_000_000
    feeds = {"x": np.ones((2, 7), np.float32)}
    before, after = (
        ort.InferenceSession(each.SerializeToString()).run(None, feeds)[0]
        for each in (proto, ir.to_proto(model))
    )
    np.testing.assert_array_equal(before, after)


def test_sizes_beyond_what_a_file_can_say_are_unknown() -> None:
    """Measuring the values of this model flattens them, to more elements than an int64 counts."""
    source = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 17]>
        g (double[a,b] x) => (double[c,6] y) <int64[2] s = {9223372036854775807, -7}> {
            y = Reshape (x, s)
        }""")
    with pytest.raises(CheckError, match="Invalid dimension value: -7"):
        Pipeline("infer,mixed-precision{to=float16 keep-io=true calibrate=auto}").run(source)


@pytest.mark.parametrize(
    "body", ["ReduceMax<keepdims = -1>(x, a)", "ReduceSum<keepdims = 2>(x, a)"]
)
def test_axes_are_kept_where_keepdims_is_1(body: str) -> None:
    """onnx and ONNX Runtime take all other numbers for 0."""
    source = ir.from_onnx_text(
        f"""<ir_version: 8, opset_import: ["" : 18]>
        g (float[2,3] x) => (float[m] z) <int64[1] a = {{1}}> {{ y = {body}  z = Neg(y) }}"""
    )
    result = Pipeline("infer,shape-arithmetic,fold,simplify,infer").run(source, verify=True).result
    assert result.graph.outputs[0].shape == ir.Shape([2])
