"""Arguments for operators of ONNX Runtime's own domain that have optional inputs or outputs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .recipes import Attributes, Dice, Spec, i64, recipe

DOMAIN = "com.microsoft"

Draw = Callable[[Dice], tuple[list[np.ndarray], Attributes]]


def contrib(name: str, outputs: int = 1) -> Callable[[Draw], Draw]:
    """Register what draws all inputs of an operator, and attributes that go with them."""

    def add(draw: Draw) -> Draw:
        @recipe(f"{DOMAIN}::{name}")
        def made(d: Dice, v: int, name: str) -> Spec:
            inputs, attributes = draw(d)
            return Spec(name, v, inputs, attributes, outputs)

        return draw

    return add


def i32(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int32)


def scalar(number: float) -> np.ndarray:
    return np.array(number, np.float32)


def byte(d: Dice, *shape: int) -> np.ndarray:
    return d.ints(1, 200, *shape, dtype="uint8")


POINT = np.array(3, np.uint8)


@contrib("SkipLayerNormalization", 4)
def skip_norm(d: Dice) -> tuple[list[np.ndarray], Attributes]:
    return [d(2, 3, 8), d(2, 3, 8), d(8), d(8), d(8)], d.some(epsilon=1e-3)


@contrib("SkipSimplifiedLayerNormalization", 4)
def skip_rms(d: Dice) -> tuple[list[np.ndarray], Attributes]:
    return [d(2, 3, 8), d(2, 3, 8), d(8), d(8)], d.some(epsilon=1e-3)


@contrib("FastGelu")
def fast_gelu(d: Dice) -> tuple[list[np.ndarray], Attributes]:
    return [d(2, 4), d(4)], {}


@contrib("FusedGemm")
def fused_gemm(d: Dice) -> tuple[list[np.ndarray], Attributes]:
    return [d(2, 3), d(3, 4), d(4)], {"activation": "Relu"} | d.some(alpha=0.5)


@contrib("FusedConv")
def fused_conv(d: Dice) -> tuple[list[np.ndarray], Attributes]:
    return [d(1, 2, 5, 5), d(3, 2, 3, 3), d(3), d(1, 3, 3, 3)], {"activation": "Relu"}


@contrib("Attention", 2)
def attention(d: Dice) -> tuple[list[np.ndarray], Attributes]:
    past = [d(2, 2, 2, 1, 4)] if d.maybe() else []
    inputs = [d(2, 3, 8), d(8, 24), d(24), i32(3, 2), *past]
    return inputs, {"num_heads": 2} | d.some(unidirectional=1, scale=0.3)


@contrib("MultiHeadAttention", 3)
def multi_head(d: Dice) -> tuple[list[np.ndarray], Attributes]:
    past = [d(2, 2, 1, 4), d(2, 2, 1, 4)] if d.maybe() else []
    bias = d(2, 2, 3, 4 if past else 3)
    inputs = [d(2, 3, 8), d(2, 3, 8), d(2, 3, 8), d(24), i32(3, 2), bias, *past]
    return inputs, {"num_heads": 2} | d.some(scale=0.3, unidirectional=1)


@contrib("GroupQueryAttention", 3)
def group_query(d: Dice) -> tuple[list[np.ndarray], Attributes]:
    past = [d(1, 2, 2, 16), d(1, 2, 2, 16)]
    lengths, total = i32(4), np.array(5, np.int32)
    rotary = [d(16, 8), d(16, 8)]
    inputs = [d(1, 3, 64), d(1, 3, 32), d(1, 3, 32), *past, lengths, total, *rotary]
    return inputs, {"num_heads": 4, "kv_num_heads": 2} | d.some(scale=0.3)


@contrib("EmbedLayerNormalization", 3)
def embed(d: Dice) -> tuple[list[np.ndarray], Attributes]:
    ids, mask = d.ints(0, 5, 2, 3, dtype="int32"), np.ones((2, 3), np.int32)
    segments, places = d.ints(0, 2, 2, 3, dtype="int32"), d.ints(0, 6, 2, 3, dtype="int32")
    return [ids, segments, d(5, 8), d(6, 8), d(2, 8), d(8), d(8), mask, places], {}


@contrib("MatMulNBits")
def n_bits(d: Dice) -> tuple[list[np.ndarray], Attributes]:
    scales, points = np.abs(d(8, 1)), byte(d, 8, 1)
    inputs = [d(2, 16), byte(d, 8, 1, 8), scales, points, i32(*([0] * 16)), d(8)]
    return inputs, {"K": 16, "N": 8, "bits": 4, "block_size": 16}


@contrib("GatherBlockQuantized")
def gather_blocks(d: Dice) -> tuple[list[np.ndarray], Attributes]:
    inputs = [byte(d, 6, 16), i64(1, 4), np.abs(d(6, 2)), byte(d, 6, 1)]
    return inputs, {"bits": 4, "block_size": 16, "quantize_axis": 1, "gather_axis": 0}


@contrib("MatMulIntegerToFloat")
def to_float(d: Dice) -> tuple[list[np.ndarray], Attributes]:
    inputs = [byte(d, 2, 3), byte(d, 3, 4), scalar(0.1), scalar(0.2), POINT, POINT, d(4)]
    return inputs, {}


@contrib("DynamicQuantizeMatMul")
def dynamic_matmul(d: Dice) -> tuple[list[np.ndarray], Attributes]:
    return [d(2, 3), byte(d, 3, 4), scalar(0.2), POINT, d(4)], {}


@contrib("DequantizeLinear")
def dequantize(d: Dice) -> tuple[list[np.ndarray], Attributes]:
    return [byte(d, 2, 3), np.abs(d(1)).reshape(()), POINT], {}


@contrib("QuantizeLinear")
def quantize(d: Dice) -> tuple[list[np.ndarray], Attributes]:
    return [d(2, 3), (np.abs(d(1)) + d.dtype.type(0.1)).reshape(()), POINT], {}


@contrib("QGemm")
def q_gemm(d: Dice) -> tuple[list[np.ndarray], Attributes]:
    inputs = [byte(d, 2, 3), scalar(0.1), POINT, byte(d, 3, 4), scalar(0.2), POINT]
    return [*inputs, d.ints(-9, 9, 4, dtype="int32"), scalar(0.7), POINT], {}


@contrib("QLinearAdd")
def q_add(d: Dice) -> tuple[list[np.ndarray], Attributes]:
    sides = [byte(d, 2, 3), scalar(0.1), POINT, byte(d, 2, 3), scalar(0.2), POINT]
    return [*sides, scalar(0.4), POINT], {}


@contrib("QLinearMul")
def q_mul(d: Dice) -> tuple[list[np.ndarray], Attributes]:
    return q_add(d)


@contrib("QLinearSigmoid")
def q_sigmoid(d: Dice) -> tuple[list[np.ndarray], Attributes]:
    return [byte(d, 2, 3), scalar(0.1), POINT, scalar(0.1), POINT], {}


@contrib("QLinearLeakyRelu")
def q_leaky(d: Dice) -> tuple[list[np.ndarray], Attributes]:
    return [byte(d, 2, 3), scalar(0.1), POINT, scalar(0.1), POINT], d.some(alpha=0.2)


@contrib("QLinearAveragePool")
def q_pool(d: Dice) -> tuple[list[np.ndarray], Attributes]:
    inputs = [byte(d, 1, 2, 4, 4), scalar(0.1), POINT, scalar(0.1), POINT]
    return inputs, {"kernel_shape": [2, 2]} | d.some(strides=[2, 2])


@contrib("Pad")
def pad(d: Dice) -> tuple[list[np.ndarray], Attributes]:
    return [d(2, 3), i64(0, 1, 1, 0), d()], {}


@contrib("Trilu")
def trilu(d: Dice) -> tuple[list[np.ndarray], Attributes]:
    return [d(3, 4), np.array(1, np.int64)], d.some(upper=0)


@contrib("Range")
def numbers(d: Dice) -> tuple[list[np.ndarray], Attributes]:
    return [np.array(x, np.int64) for x in (1, 9, 2)], {}


@contrib("MoE")
def experts(d: Dice) -> tuple[list[np.ndarray], Attributes]:
    inputs = [d(4, 8), d(4, 2), d(2, 16, 8), d(2, 16), d(2, 8, 16), d(2, 8)]
    return inputs, {"k": 1} | d.some(activation_type="gelu")


@contrib("QAttention", 2)
def q_attention(d: Dice) -> tuple[list[np.ndarray], Attributes]:
    inputs = [byte(d, 2, 3, 8), byte(d, 8, 24), d(24), scalar(0.1), scalar(0.2), i32(3, 2)]
    return [*inputs, POINT, POINT, d(2, 2, 2, 1, 4)], {"num_heads": 2}


@contrib("ConvTransposeWithDynamicPads")
def conv_transpose(d: Dice) -> tuple[list[np.ndarray], Attributes]:
    return [d(1, 2, 4, 4), d(2, 3, 2, 2), i64(0, 0, 0, 0), d(3)], {}


@contrib("BifurcationDetector", 2)
def bifurcation(d: Dice) -> tuple[list[np.ndarray], Attributes]:
    return [i64(1, 2, 3, 4), i64(1, 2, 5), np.array(0, np.int64), i64(2, 3, 4, 5, 6)], {}
