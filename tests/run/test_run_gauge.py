"""What values reach while a model runs: measured as numpy has it, on models of every shape."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest

from vlmpass.ir_tools.run.ranges import magnitudes

_TEXT = """<ir_version: 8, opset_import: ["" : 17]>
g (float[N, 4] x, int64[2] s) => (float[A, B] out) <int64[1] zero = {0}> {
    plus = Add (x, x)
    flat = Reshape (plus, s)
    turned = Transpose <perm = [1, 0]> (flat)
    low = Neg (turned)
    none = Slice (low, zero, zero)
    out = Concat <axis = 0> (none, low)
}"""


def _model() -> ir.Model:
    return ir.from_proto(onnx.parser.parse_model(_TEXT))


@pytest.mark.parametrize("rows", [1, 3])
def test_every_value_is_measured_and_what_moves_is_as_large_as_its_source(rows):
    x = np.random.default_rng(3).normal(size=(rows, 4)).astype(np.float32)
    x[0, 1] = -7.0
    found = magnitudes(_model(), [{"x": x, "s": np.array([4, rows])}])
    assert found == {
        "x": 7.0, "plus": 14.0, "flat": 14.0, "turned": 14.0, "low": 14.0, "none": 0.0, "out": 14.0
    }  # fmt: skip


def test_pieces_measure_what_the_whole_does():
    feed = {"x": np.ones((3, 4), np.float32), "s": np.array([4, 3])}
    model = _model()
    weight = ir.tensor(np.full((4, 4), 2, np.float32), name="w")
    value = ir.Value(name="w", type=ir.TensorType(weight.dtype), const_value=weight)
    value.shape = ir.Shape([4, 4])
    model.graph.register_initializer(value)
    first = model.graph[0]
    scaled = ir.node("MatMul", [first.outputs[0], value])
    scaled.outputs[0].name = "scaled"
    first.outputs[0].replace_all_uses_with(scaled.outputs[0])
    scaled.replace_input_with(0, first.outputs[0])
    model.graph.insert_after(first, scaled)
    found = magnitudes(model, [feed], budget=1)
    assert found == magnitudes(model, [feed])
    assert found["scaled"] == found["flat"] == 16.0
