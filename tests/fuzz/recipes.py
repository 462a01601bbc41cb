"""Arguments for every operator that has optional inputs or outputs, at every version of it.

A recipe gives all inputs that may be there, attributes, and how many outputs; what is left out is
chosen by who asks. A combination that the operator does not admit is found by onnx's checker.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

Attributes = dict[str, object]


@dataclass
class Spec:
    """A node to be: every argument that it may have.

    Attributes:
        inputs: Values for all inputs, None for one that only graphs give (a sequence, say).
        outputs: How many it may have.
        constant: Which inputs have to be constants for the output's shape to be known.
        sequences: Which inputs are given as sequences of that one tensor.
    """

    op_type: str
    version: int
    inputs: list[np.ndarray]
    attributes: Attributes = field(default_factory=dict)
    outputs: int = 1
    constant: Sequence[int] = ()
    sequences: Sequence[int] = ()


class Dice:
    """Random arrays and choices."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.dtype = np.dtype(np.float32)

    def __call__(self, *shape: int) -> np.ndarray:
        return np.asarray(self.rng.standard_normal(shape)).astype(self.dtype)

    def ints(self, low: int, high: int, *shape: int, dtype: str = "int64") -> np.ndarray:
        return np.asarray(self.rng.integers(low, high, shape)).astype(dtype)

    def maybe(self, share: float = 0.5) -> bool:
        return bool(self.rng.random() < share)

    def one(self, *options: object) -> object:
        return options[int(self.rng.integers(len(options)))]

    def some(self, **attributes: object) -> Attributes:
        """Return a random part of attributes."""
        return {name: value for name, value in attributes.items() if self.maybe()}


Recipe = Callable[[Dice, int], Spec]
RECIPES: dict[str, Recipe] = {}


def recipe(*names: str) -> Callable[[Callable[[Dice, int, str], Spec]], None]:
    def add(function: Callable[[Dice, int, str], Spec]) -> None:
        for name in names:
            RECIPES[name] = lambda d, version, name=name: function(d, version, name)

    return add


def i64(*numbers: int) -> np.ndarray:
    return np.array(numbers, dtype=np.int64)


@recipe("Attention")
def attention(d: Dice, v: int, name: str) -> Spec:
    heads, kv, size, past = 4, int(d.one(4, 2)), 4, int(d.one(0, 2)) + 1
    q, k, w = d(2, heads, 3, size), d(2, kv, 5, size), d(2, kv, 5, size)
    attributes = d.some(is_causal=1, scale=0.3, softcap=2.0, qk_matmul_output_mode=0)
    if d.maybe(0.3):
        q, k, w = (np.swapaxes(x, 1, 2).reshape(2, x.shape[2], -1) for x in (q, k, w))
        attributes |= {"q_num_heads": heads, "kv_num_heads": kv}
    inputs = [q, k, w, d(3, 5 + past), d(2, kv, past, size), d(2, kv, past, size)]
    if v >= 24:
        inputs.append(d.ints(1, 5, 2))
    if d.maybe():
        inputs[3] = d.one(d(3, 5), d(2, 1, 3, 5), d(3, 5) > 0)
    return Spec(name, v, inputs, attributes, 4)


@recipe("BatchNormalization")
def batch_normalization(d: Dice, v: int, name: str) -> Spec:
    x = d(2, 3, 4, 4)
    inputs = [x, d(3), d(3), d(3), np.abs(d(3)) + d.dtype.type(1)]
    attributes = d.some(epsilon=1e-3, momentum=0.8)
    if v == 1:
        attributes["consumed_inputs"] = [0, 0, 0, 1, 1]
    if v < 7:
        attributes |= {"is_test": int(d.maybe())}
    if v >= 14 and d.maybe():
        return Spec(name, v, inputs, attributes | {"training_mode": 1}, 3)
    return Spec(name, v, inputs, attributes, 1 if v >= 14 else 5)


@recipe("CausalConvWithState")
def causal_conv(d: Dice, v: int, name: str) -> Spec:
    inputs = [d(2, 3, 5), d(3, 1, 4), d(3), d(2, 3, 3)]
    return Spec(name, v, inputs, d.some(activation="silu"), 2)


@recipe("LinearAttention")
def linear_attention(d: Dice, v: int, name: str) -> Spec:
    inputs = [d(2, 3, 8), d(2, 3, 8), d(2, 3, 8), d(2, 2, 4, 4), -np.abs(d(2, 3, 2)), d(2, 3, 2)]
    attributes: Attributes = {"q_num_heads": 2, "kv_num_heads": 2}
    rule = d.one("linear", "gated", "delta", "gated_delta")
    return Spec(name, v, inputs, attributes | d.some(update_rule=rule, scale=0.5), 2)


@recipe("Clip")
def clip(d: Dice, v: int, name: str) -> Spec:
    low, high = d.one((-1, 1), (0, 6), (2, -2))
    low, high = np.array(low, d.dtype), np.array(high, d.dtype)
    return Spec(name, v, [d(2, 3), low, high])


def _window(d: Dice) -> Attributes:
    pads = d.one({"pads": [1, 0, 1, 0]}, {"auto_pad": d.one("SAME_UPPER", "VALID")}, {})
    return d.some(strides=[2, 1]) | pads


@recipe("Conv", "ConvTranspose")
def conv(d: Dice, v: int, name: str) -> Spec:
    group = int(d.one(1, 2))
    weight = d(4, 4 // group, 3, 3)
    outputs = 4 if name == "Conv" else 4 // group * group
    attributes = _window(d) | d.some(dilations=[1, 2], kernel_shape=[3, 3])
    return Spec(name, v, [d(1, 4, 6, 6), weight, d(outputs)], attributes | {"group": group})


@recipe("ConvInteger", "QLinearConv", "MatMulInteger")
def integer(d: Dice, v: int, name: str) -> Spec:
    if name == "MatMulInteger":
        a, b = d.ints(0, 9, 2, 3, dtype="uint8"), d.ints(0, 9, 3, 4, dtype="uint8")
        points = [np.array(d.one(3, 0), np.uint8), np.array(2, np.uint8)]
        return Spec(name, v, [a, b, *points])
    x, w = d.ints(0, 9, 1, 2, 4, 4, dtype="uint8"), d.ints(0, 9, 3, 2, 2, 2, dtype="uint8")
    point, scale = np.array(1, np.uint8), np.array(0.5, np.float32)
    if name == "ConvInteger":
        return Spec(name, v, [x, w, point, point], d.some(strides=[1, 1]))
    bias = d.ints(-3, 3, 3, dtype="int32")
    return Spec(name, v, [x, scale, point, w, scale, point, scale, point, bias])


@recipe("DFT")
def dft(d: Dice, v: int, name: str) -> Spec:
    axis, length = int(d.one(1, 2)), int(d.one(4, 5, 3))
    inputs = [d(1, 4, 5, int(d.one(1, 2))), np.array(length, np.int64)]
    attributes = d.some(inverse=1, onesided=0)
    if v >= 20:
        return Spec(name, v, [*inputs, np.array(axis, np.int64)], attributes, constant=(1, 2))
    return Spec(name, v, inputs, attributes | {"axis": axis}, constant=(1,))


@recipe("DeformConv")
def deform_conv(d: Dice, v: int, name: str) -> Spec:
    inputs = [d(1, 2, 4, 4), d(3, 2, 2, 2), d(1, 8, 3, 3), d(3), d(1, 4, 3, 3)]
    return Spec(name, v, inputs, {"kernel_shape": [2, 2], "pads": [0, 0, 0, 0]})


@recipe("DequantizeLinear")
def dequantize(d: Dice, v: int, name: str) -> Spec:
    scale = d(3) if v >= 13 and d.maybe() else d()
    kind = d.one("int8", "uint8")
    inputs = [d.ints(0, 9, 2, 3, dtype=str(kind)), np.abs(scale)]
    inputs.append(np.full(scale.shape, 1, str(kind)))
    return Spec(name, v, inputs, {"axis": 1} if v >= 13 else {})


@recipe("QuantizeLinear")
def quantize(d: Dice, v: int, name: str) -> Spec:
    scale = np.abs(d(3) if v >= 13 and d.maybe() else d()) + d.dtype.type(0.1)
    inputs = [d(2, 3), scale, np.full(scale.shape, 1, str(d.one("int8", "uint8")))]
    return Spec(name, v, inputs, {"axis": 1} if v >= 13 else {})


@recipe("Dropout")
def dropout(d: Dice, v: int, name: str) -> Spec:
    if v >= 12:
        mode = np.array(d.maybe(0.1))
        return Spec(name, v, [d(2, 3), np.array(0.3, np.float32), mode], d.some(seed=3), 2)
    attributes = d.some(ratio=0.3)
    return Spec(name, v, [d(2, 3)], attributes | ({"is_test": 1} if v < 7 else {}), 2)


def _direction(d: Dice, v: int) -> tuple[Attributes, int]:
    direction = d.one("forward", "reverse", "bidirectional")
    count = 2 if direction == "bidirectional" else 1
    return d.some(direction=direction) if count == 1 else {"direction": direction}, count


@recipe("LSTM", "GRU", "RNN")
def recurrent(d: Dice, v: int, name: str) -> Spec:
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[name]
    attributes, count = _direction(d, v)
    attributes["hidden_size"] = 2
    layout = v >= 14 and d.maybe(0.3)
    x, state = d(5, 2, 3), d(count, 2, 2)
    if layout:
        attributes["layout"] = 1
        x, state = np.swapaxes(x, 0, 1), np.swapaxes(state, 0, 1)
    inputs = [x, d(count, gates * 2, 3), d(count, gates * 2, 2), d(count, gates * 4)]
    inputs += [d.ints(1, 6, 2, dtype="int32"), state]
    if name == "LSTM":
        inputs += [d(*state.shape), d(count, 6)]
    if name == "GRU" and v >= 3 and d.maybe():
        attributes["linear_before_reset"] = 1
    if v < 7:
        attributes["output_sequence"] = 1
    return Spec(name, v, inputs, attributes, 3 if name == "LSTM" else 2)


@recipe("Gemm")
def gemm(d: Dice, v: int, name: str) -> Spec:
    return Spec(name, v, [d(2, 3), d(3, 4), d.one(d(4), d(2, 1), d())], d.some(alpha=0.5, beta=2.0))


@recipe("LayerNormalization")
def layer_normalization(d: Dice, v: int, name: str) -> Spec:
    axis = int(d.one(-1, 1, 2, -2))
    sizes = (2, 3, 4)[axis:]
    attributes = d.some(epsilon=1e-3) | {"axis": axis}
    return Spec(name, v, [d(2, 3, 4), d(*sizes), d(*sizes)], attributes, 3)


@recipe("MaxPool")
def max_pool(d: Dice, v: int, name: str) -> Spec:
    attributes = {"kernel_shape": [2, 3]} | _window(d) | d.some(storage_order=int(d.maybe(0.3)))
    if v >= 10:
        attributes |= d.some(dilations=[1, 1], ceil_mode=1)
    return Spec(name, v, [d(1, 2, 6, 6)], attributes, 2)


@recipe("MaxUnpool")
def max_unpool(d: Dice, v: int, name: str) -> Spec:
    inputs = [d(1, 1, 2, 2), i64(5, 7, 13, 15).reshape(1, 1, 2, 2), i64(1, 1, 5, 5)]
    return Spec(name, v, inputs, {"kernel_shape": [2, 2], "strides": [2, 2]}, constant=(2,))


@recipe("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss")
def loss(d: Dice, v: int, name: str) -> Spec:
    inputs = [d(3, 5, 2), d.ints(0, 5, 3, 2), np.abs(d(5))]
    attributes = d.some(reduction=d.one("none", "sum", "mean"), ignore_index=1)
    return Spec(name, v, inputs, attributes, 2 if name.startswith("Soft") else 1)


@recipe("NonMaxSuppression")
def non_max_suppression(d: Dice, v: int, name: str) -> Spec:
    boxes = np.sort(d.rng.random((1, 6, 4)).astype(np.float32), axis=2)
    scalars = [np.array(3, np.int64), np.array(0.5, np.float32), np.array(0.1, np.float32)]
    scores = d.rng.random((1, 2, 6)).astype(np.float32)
    return Spec(name, v, [boxes, scores, *scalars], d.some(center_point_box=1))


@recipe("Pad")
def pad(d: Dice, v: int, name: str) -> Spec:
    axes = [i64(1, 0)] if v >= 18 else []
    pads = i64(*d.one((0, 1, 2, 0), (1, 1, 0, 0), (0, 0, 0, 0)))
    mode = d.one("constant", "reflect", "edge")
    inputs = [d(3, 4), pads, np.array(d.one(0, 1.5), d.dtype), *axes]
    return Spec(name, v, inputs, d.some(mode=mode), constant=(1, 3))


REDUCTIONS = (
    "L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare",
)  # fmt: skip


@recipe(*(f"Reduce{each}" for each in REDUCTIONS))
def reduction(d: Dice, v: int, name: str) -> Spec:
    axes = i64(*d.one((1,), (0, -1), (), (-2, -1)))
    attributes = d.some(keepdims=int(d.maybe()), noop_with_empty_axes=int(d.maybe(0.3)))
    return Spec(name, v, [np.abs(d(2, 3, 4)), axes], attributes, constant=(1,))


@recipe("Resize")
def resize(d: Dice, v: int, name: str) -> Spec:
    mode = d.one("nearest", "linear", "cubic")
    way = d.one("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")
    inputs = [d(1, 1, 4, 4), np.array([0, 0, 0, 0, 1, 1, 1, 1], np.float32)]
    inputs += [np.array([1, 1, 2, d.one(2, 0.5)], np.float32), i64(1, 1, 6, int(d.one(2, 8)))]
    attributes = d.some(mode=mode, coordinate_transformation_mode=way)
    return Spec(name, v, inputs, attributes, constant=(2, 3))


@recipe("RotaryEmbedding")
def rotary(d: Dice, v: int, name: str) -> Spec:
    if d.maybe():
        inputs = [d(2, 3, 5, 8), d(2, 5, 4), d(2, 5, 4)]
        return Spec(name, v, inputs, d.some(interleaved=1))
    inputs = [d(2, 3, 5, 8), d(9, 4), d(9, 4), d.ints(0, 9, 2, 5)]
    return Spec(name, v, inputs, d.some(interleaved=1))


@recipe("STFT")
def stft(d: Dice, v: int, name: str) -> Spec:
    step, length = np.array(4, np.int64), np.array(8, np.int64)
    inputs = [d(1, 32, 1), step, np.abs(d(8)), length]
    return Spec(name, v, inputs, d.some(onesided=int(d.maybe())), constant=(1, 3))


@recipe("Slice")
def slice_(d: Dice, v: int, name: str) -> Spec:
    axes = i64(*d.one((0, 1), (1, 2), (-1, 0)))
    inputs = [d(3, 4, 5), i64(0, 1), i64(2, int(d.one(3, 2**62))), axes, i64(1, 2)]
    return Spec(name, v, inputs, constant=(1, 2, 3, 4))


@recipe("Split")
def split(d: Dice, v: int, name: str) -> Spec:
    parts = i64(*d.one((2, 2), (1, 3), (2, 1, 1)))
    inputs = [d(3, 4), parts.astype(d.dtype) if v == 1 else parts]
    attributes: Attributes = {"axis": 1}
    return Spec(name, v, inputs if v != 2 and v != 11 else inputs[:1], attributes, len(parts), (1,))


@recipe("Squeeze")
def squeeze(d: Dice, v: int, name: str) -> Spec:
    return Spec(name, v, [d(1, 3, 1), i64(*d.one((0,), (-1, 0)))], constant=(1,))


@recipe("TensorScatter")
def tensor_scatter(d: Dice, v: int, name: str) -> Spec:
    inputs = [d(2, 3, 6, 4), d(2, 3, 2, 4), d.ints(0, 4, 2)]
    return Spec(name, v, inputs, d.some(mode=d.one("linear", "circular")))


@recipe("Trilu")
def trilu(d: Dice, v: int, name: str) -> Spec:
    return Spec(name, v, [d(3, 4), np.array(d.one(0, 1, -2), np.int64)], d.some(upper=0))


@recipe("Unique")
def unique(d: Dice, v: int, name: str) -> Spec:
    values = d.ints(0, 4, 3, 4).astype(d.dtype)
    return Spec(name, v, [values], d.some(axis=int(d.maybe()), sorted=0), 4)
