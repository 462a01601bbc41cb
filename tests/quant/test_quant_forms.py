"""Packed weights in other forms: rounded before use, folded, of experts, of three bits."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from quant_places import (
    BLOCK,
    FEEDS,
    GROUPS,
    RNG,
    SCALE_INITIALIZER,
    SCALES,
    UNPACK,
    VALUES,
    WEIGHTS,
    ZEROS,
    K,
    N,
    constants,
    model,
    single,
)
from quant_tools import nbits_weight, numbers, run

from vlmpass.ir_tools.check import check
from vlmpass.ir_tools.errors import Refused
from vlmpass.passes.quant_linear import QuantLinear


def half_weight(scales: np.ndarray) -> ir.Model:
    """A float32 layer whose weight is computed in float16."""
    text = UNPACK.replace("t = Cast<to=1>(s)", "t = Cast<to=10>(s)")
    return model(f"""<ir_version: 10, opset_import: ["": 21]>
    g (float[m,{K}] x) => (float[m,{N}] y)
    <{constants(0)}, float16[{K // BLOCK},{N}] scales =
     {numbers(scales.astype(np.float16).view(np.uint16))}> {{
        {text} wide = Cast<to=1>(u) y = MatMul(x, wide) }}""")


def test_quant_weight_rounded_before_it_is_used() -> None:
    scales = RNG.random((K // BLOCK, N))
    half = half_weight(scales)
    assert QuantLinear(to="dequantize-linear").run(half)
    check(half)
    assert [node.op_type for node in half.graph] == ["DequantizeLinear", "Cast", "MatMul"]
    half.graph.outputs.append(half.graph[1].outputs[0])
    weight = (VALUES[0] - ZEROS[0][GROUPS]).astype(np.float16) * scales.astype(np.float16)[GROUPS]
    np.testing.assert_array_equal(run(half, FEEDS)[1], weight.astype(np.float32))


def test_quant_weight_that_matmul_nbits_does_not_round(caplog: pytest.LogCaptureFixture) -> None:
    scales = RNG.random((K // BLOCK, N))
    half = half_weight(scales)
    assert QuantLinear().run(half)
    check(half)
    (node,) = half.graph
    assert node.inputs[2].dtype == ir.DataType.FLOAT
    weight = (VALUES[0] - ZEROS[0][GROUPS]) * scales.astype(np.float16)[GROUPS].astype(np.float32)
    np.testing.assert_array_equal(nbits_weight(node), weight.astype(np.float32))
    assert "rounds to float16 (by at most 2^-11 of it), is used as it is" in caplog.text


def test_quant_weight_whose_rounding_changes_nothing() -> None:
    half = half_weight(SCALES)  # multiples of 1/64: every product is exact in float16
    assert QuantLinear().run(half)
    (node,) = half.graph
    assert node.inputs[2].dtype == ir.DataType.FLOAT
    np.testing.assert_array_equal(nbits_weight(node), WEIGHTS[0])
    np.testing.assert_allclose(run(half, FEEDS)[0], FEEDS["x"] @ WEIGHTS[0], rtol=1e-4, atol=1e-3)


def test_quant_weights_of_several_experts() -> None:
    experts = model(f"""<ir_version: 10, opset_import: ["": 21]>
    g (float[2,m,{K}] x) => (float[2,m,{N}] y)
    <{constants(0)}, {SCALE_INITIALIZER}, int64[3] split = {{2, {K}, {N // 2}}}> {{
        {UNPACK} v = Reshape(u, split) y = MatMul(x, v) }}""")
    experts.graph.outputs[0].shape = ir.Shape([2, None, N // 2])
    feeds = {"x": np.stack([FEEDS["x"]] * 2)}
    (wanted,) = run(experts, feeds)
    with pytest.raises(Refused, match=r"no matrix but float\[2, 64, 8\]; choose to=float"):
        QuantLinear().run(experts)
    assert QuantLinear(to="float").run(experts)
    assert [node.op_type for node in experts.graph] == ["MatMul"]
    np.testing.assert_array_equal(run(experts, feeds)[0], wanted)


def folded(zeros: np.ndarray, scales: np.ndarray) -> ir.Model:
    """A layer whose parts an optimiser has unpacked and repeated, but not multiplied."""
    wide = zeros[GROUPS].astype(np.float32)
    return model(f"""<ir_version: 10, opset_import: ["": 21]>
    g (float[m,{K}] x) => (float[m,{N}] y)
    <int8[{K},{N}] w = {numbers(VALUES[0])}, float[{K},{N}] z = {numbers(wide)},
     float[{K},{N}] s = {numbers(scales[GROUPS])}> {{
        v = Cast<to=1>(w) d = Sub(v, z) u = Mul(d, s) y = MatMul(x, u) }}""")


def test_quant_parts_that_were_folded() -> None:
    parts = folded(ZEROS[0], SCALES)
    assert QuantLinear().run(parts)
    (node,) = parts.graph
    assert (node.op_type, node.attributes["bits"].as_int()) == ("MatMulNBits", 4)
    np.testing.assert_array_equal(nbits_weight(node), WEIGHTS[0])


def test_quant_zero_points_between_numbers() -> None:
    parts = folded(ZEROS[0] + 0.5, SCALES)
    before = parts.clone()
    assert QuantLinear().run(parts)
    (node,) = parts.graph
    assert node.inputs[3].dtype == ir.DataType.FLOAT
    weight = ((VALUES[0] - ZEROS[0][GROUPS] - 0.5) * SCALES[GROUPS]).astype(np.float32)
    np.testing.assert_array_equal(nbits_weight(node), weight)
    np.testing.assert_allclose(run(parts, FEEDS)[0], FEEDS["x"] @ weight, rtol=1e-4, atol=1e-3)
    with pytest.raises(Refused, match="zero points that are not whole numbers do not fit"):
        QuantLinear(to="dequantize-linear").run(before)


def test_quant_three_bits_are_held_in_four() -> None:
    three = single("y = MatMul(x, u)")
    (mask,) = [node for node in three.graph if node.outputs[0].name == "mask"]
    mask.attributes["value"] = ir.AttrTensor("value", ir.tensor(np.array(7, np.uint32)))
    assert QuantLinear().run(three)
    (node,) = three.graph
    assert node.attributes["bits"].as_int() == 4
    weight = ((VALUES[0] & 7) - (ZEROS[0] & 7)[GROUPS]) * SCALES[GROUPS]
    np.testing.assert_array_equal(nbits_weight(node), weight.astype(np.float32))


def test_quant_weights_that_were_never_packed_stay() -> None:
    plain = model(f"""<ir_version: 10, opset_import: ["": 21]>
    g (float[m,{K}] x) => (float[m,{N}] y)
    <float[{K},{N}] w = {numbers(VALUES[0])}, float[1,{N}] s = {numbers(SCALES[:1])}> {{
        u = Mul(w, s) y = MatMul(x, u) }}""")
    assert not QuantLinear().run(plain)
