"""Quantised layers that no single command converted: scales narrower than the activation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from vlmpass import Pipeline
from vlmpass.ir_tools.errors import PipelineError

K, N, BLOCK = 64, 16, 32


def layer(opset: int, activation: str, scale: str) -> ir.Model:
    """A GPTQ layer of 4 bits whose weight is computed in one type and used in another."""
    rng = np.random.default_rng(3)
    words = rng.integers(-(2**31), 2**31, (K // 8, N))
    zeros = rng.integers(1, 15, (K // BLOCK, N))
    scales = rng.random((K // BLOCK, N)).astype(np.float32) / 100
    kinds = {"float": 1, "float16": 10, "bfloat16": 16}

    def listed(array: np.ndarray) -> str:
        return "{" + ", ".join(str(x) for x in array.reshape(-1)) + "}"

    return ir.from_onnx_text(f"""<ir_version: 8, opset_import: ["": {opset}]>
    g ({activation}[b, 3, {K}] x) => ({activation}[b, 3, {N}] y)
    <int32[{K // 8}, {N}] words = {listed(words)}, int32[{K // BLOCK}, {N}] zeros = {listed(zeros)},
     float[{K // BLOCK}, {N}] wide = {listed(scales)}, int64[{K}] groups =
     {listed(np.arange(K) // BLOCK)}, int64[1] one = {{1}}, int64[2] shape = {{{K}, {N}}},
     int64[1, 8, 1] steps = {listed(16 ** np.arange(8))}, int64 top = {{{2**32}}},
     int64 many = {{16}}, int64 none = {{0}}> {{
        a = Unsqueeze(words, one) b = Cast<to=7>(a)
        negative = Less(b, none) lifted = Add(b, top) c = Where(negative, lifted, b)
        d = Div(c, steps) e = Mod(d, many) numbers = Reshape(e, shape) f = Cast<to=6>(numbers)
        z = Gather(zeros, groups) h = Sub(f, z) i = Cast<to={kinds[scale]}>(h)
        scales = Cast<to={kinds[scale]}>(wide) s = Gather(scales, groups)
        w = Mul(s, i) v = Cast<to={kinds[activation]}>(w) y = MatMul(x, v) }}""")


@pytest.mark.parametrize("scale", ["float", "float16"])
@pytest.mark.parametrize("activation", ["float", "float16", "bfloat16"])
@pytest.mark.parametrize("quant", ["matmul-nbits", "dequantize-linear", "float"])
def test_faults_one_command_converts_any_activation(
    quant: str, activation: str, scale: str, tmp_path: Path
) -> None:
    opset = 17
    report = Pipeline(quant=quant).convert(layer(opset, activation, scale), tmp_path / "m.onnx")
    operators = [node.op_type for node in ir.load(tmp_path / "m.onnx").graph]
    named = {"matmul-nbits": "MatMulNBits", "dequantize-linear": "DequantizeLinear"}
    assert operators.count(named.get(quant, "MatMul")) == 1
    assert not set(operators) - {"Cast", "Gather", "MatMul", "MatMulNBits", "DequantizeLinear"}
    assert report.checked.numbers is not None
    assert report.checked.numbers.ok


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("quant", ["matmul-nbits", "dequantize-linear", "float"])
def test_faults_one_command_converts_form_and_type(quant: str, dtype: str, tmp_path: Path) -> None:
    pipeline = Pipeline(quant=quant, dtype=dtype)
    report = pipeline.convert(layer(17, "float16", "float16"), tmp_path / "m.onnx")
    assert report.checked.numbers is not None
    assert report.checked.numbers.ok


def test_faults_an_opset_without_the_form_is_refused_at_once() -> None:
    with pytest.raises(PipelineError, match="needs opset 21, and 18 is asked for; ask for opset"):
        Pipeline(quant="dequantize-linear", opset=18)
