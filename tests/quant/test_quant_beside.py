"""Weights of 8 bits beside those that ONNX Runtime's quantizer stores, at the same settings."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from vlmpass import Pipeline
from vlmpass.ir_tools.load import load

EXPORTS = Path(__file__).parents[1] / "fixtures" / "exports"
OURS = 'quantize-weights{at-least=1 exclude=["[Cc]onv"]}'


def floats(held, name, axis):
    """The weight that integers, scales and zero points of a name stand for."""
    numbers, scale, zero = (
        held[f"{name}_{part}"].astype(np.float64) for part in ("quantized", "scale", "zero_point")
    )
    shape = [-1 if each == axis else 1 for each in range(numbers.ndim)]
    return (numbers - zero.reshape(shape)) * scale.reshape(shape)


@pytest.mark.parametrize("name", ["text.float32.ts17", "vision.float32.ts17"])
def test_errors_and_bytes_are_no_more(name, tmp_path):
    source, ours, theirs = (tmp_path / f"{each}.onnx" for each in ("source", "ours", "theirs"))
    Pipeline(opset=21).convert(EXPORTS / f"{name}.onnx", source, layout="inline", verify=False)
    quantize_dynamic(
        source, theirs, ["MatMul"], per_channel=True, weight_type=QuantType.QInt8,
        extra_options={"WeightSymmetric": True},
    )  # fmt: skip
    Pipeline(OURS).convert(source, ours, layout="inline", verify=False)
    assert ours.stat().st_size <= theirs.stat().st_size
    whole = {x.name: numpy_helper.to_array(x) for x in onnx.load(source).graph.initializer}
    held = {x.name: numpy_helper.to_array(x) for x in onnx.load(theirs).graph.initializer}
    made = []
    for node in load(ours).graph:
        if node.op_type == "DequantizeLinear":
            numbers, scale = (each.const_value.numpy() for each in node.inputs[:2])
            axis = node.attributes.get_int("axis", 1)
            shape = [-1 if each == axis else 1 for each in range(numbers.ndim)]
            made.append(numbers.astype(np.float64) * scale.reshape(shape))
    compared = 0
    for weight, array in whole.items():
        if f"{weight}_quantized" not in held:
            continue
        ours_off = min(np.abs(x - array).max() for x in made if x.shape == array.shape)
        theirs_off = np.abs(floats(held, weight, 1) - array).max()
        assert ours_off <= theirs_off * (1 + 1e-6), weight
        compared += 1
    assert compared >= 4
