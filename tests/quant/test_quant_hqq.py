"""algorithm=hqq: zero points between numbers, never further off than ONNX Runtime's HQQ."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnxruntime.quantization import matmul_nbits_quantizer as nbits
from quant_chains import chain

from vlmpass.ir_tools.errors import VlmpassError
from vlmpass.ir_tools.weights.evaluate import evaluate
from vlmpass.ir_tools.weights.leaves import Held
from vlmpass.pipeline import Pipeline
from vlmpass.rewriter_rules.quant.few_bits import Grid, Numbers, Rounded, Scales, Zeros

HQQ = "bits=4 form=matmul-nbits algorithm=hqq symmetric=false at-least=1"


def far(rounded: np.ndarray, array: np.ndarray) -> float:
    return float(np.sqrt(np.square(rounded - array).sum() / np.square(array).sum()))


def weights(seed: int) -> np.ndarray:
    """Of one of four kinds: even, with tails, of few values, one constant to a block."""
    dice = np.random.default_rng(seed)
    array = dice.standard_normal((96, 24))
    array = (array, array**3, np.rint(array), np.repeat(array[:3], 32, 0))[seed % 4]
    return (array * dice.gamma(1, 1, (1, 24)) + dice.normal()).astype(np.float32)


@pytest.mark.parametrize("seed", range(8))
def test_no_weight_is_further_off_than_hqq_of_onnxruntime(seed):
    torch = pytest.importorskip("torch")
    array = weights(seed)
    config = nbits.HQQWeightOnlyQuantConfig(block_size=32, bits=4)
    made = nbits.HQQWeightOnlyQuantizer(config).quantize_internal(
        torch.from_numpy(array.T), bits=4, group_size=32
    )
    numbers, scales, zeros = (each.numpy() for each in made)
    blocks = numbers.reshape(24, 3, 32)
    theirs = (blocks - zeros[..., None]) * scales[..., None]
    grid = Grid(4, 0, 32, False, True, ir.DataType.FLOAT, free=True)
    ours = evaluate(Rounded(ir.DataType.FLOAT, array.shape, Held.of(ir.Tensor(array)), grid))
    assert far(ours, array) <= far(theirs.reshape(24, 96).T, array) + 1e-6


@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize("kind", [ir.DataType.FLOAT, ir.DataType.FLOAT16])
def test_numbers_scales_and_zero_points_are_those_of_the_rounded_weight(bits, kind):
    array = weights(1)[:90]
    grid = Grid(bits, 0, 32, False, True, kind, free=True)
    source, count = Held.of(ir.Tensor(array)), grid.count(array.shape)
    numbers = evaluate(Numbers(ir.DataType.UINT8, array.shape, source, grid))
    scales = evaluate(Scales(kind, count, source, grid)).astype(np.float32)
    zeros = evaluate(Zeros(kind, count, source, grid)).astype(np.float32)
    assert numbers.max() < 1 << bits
    spread = [np.repeat(each, 32, 0)[:90] for each in (scales, zeros)]
    back = (numbers.astype(np.float32) - spread[1]) * spread[0]
    rounded = evaluate(Rounded(ir.DataType.FLOAT, array.shape, source, grid))
    assert np.array_equal(rounded, back)


@pytest.mark.parametrize("seed", [1, 4])
def test_what_comes_out_computes_with_rounded_weights(seed):
    report = Pipeline(f"quantize-weights{{{HQQ}}}").run(chain(seed, 17, "float"), verify=True)
    assert report.checked.numbers.ok
    kinds = [node.inputs[3].dtype for node in report.model.graph if node.op_type == "MatMulNBits"]
    assert set(kinds) == {ir.DataType.FLOAT}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("bits=4 algorithm=hqq symmetric=false", "no zero points between numbers"),
        ("bits=4 algorithm=hqq form=matmul-nbits", "say symmetric=false and bits=4"),
        ("bits=8 algorithm=hqq form=matmul-nbits symmetric=false", "fewer than 8 bits"),
    ],
)
def test_what_cannot_be_is_refused(words, says):
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 21]> g (float[2] x) => (float[2] y) { y = Abs(x) }'
    )
    with pytest.raises(VlmpassError, match=says):
        Pipeline(f"quantize-weights{{{words}}}").run(model)
