"""Rules of unfuse.dequantized: what they do to graphs, why they leave some alone, hints."""

from __future__ import annotations

from unfuse.quantised import DRAWN

from rules.from_cases import of_cases
from rules.instances import Hints

PARTS = """s = Constant<value_float=0.5>() z = Constant<value = uint8 {4}>() """
ODD = PARTS.replace("4", "3")
BYTES = "(uint8[2,3] a, uint8[2,3] b, bool[2,3] c) => (uint8[2,3] y)"
IMAGE = "(uint8[2,3,4,4] a) => (uint8[2,3,{size},{size}] y)"
REAL = """i = DequantizeLinear(a, s, z) """
OPEN = "(a, b) => (y)"
PRODUCT = "(uint8[n,4] a, uint8[4,5] b, float s) => (float[n,5] y)"


def _two(operator: str, inner: str) -> tuple[str, str, str]:
    before = f"{PARTS} y = com.microsoft.{operator}(a, s, z, b, s, z, s, z)"
    after = f"{PARTS} {REAL} j = DequantizeLinear(b, s, z) k = {inner}(i, j)"
    return BYTES, before, f"{after} y = QuantizeLinear(k, s, z)"


def _one(head: str, operator: str, inner: str, attributes: str = "") -> tuple[str, str, str]:
    before = f"{PARTS} y = com.microsoft.{operator}{attributes}(a, s, z, s, z)"
    return head, before, f"{PARTS} {REAL} k = {inner}(i) y = QuantizeLinear(k, s, z)"


# rule: inputs and outputs, nodes before, nodes after; empty where numbers say enough
FIRES: dict[str, list[tuple[str, str, str]]] = {
    "unfuse-q-linear-add": [
        _two("QLinearAdd", "Add"),
        (BYTES, f"{ODD} y = com.microsoft.QLinearAdd(a, s, z, b, s, z, s, z)", ""),
    ],
    "unfuse-q-linear-mul": [_two("QLinearMul", "Mul")],
    "unfuse-q-linear-sigmoid": [_one(BYTES, "QLinearSigmoid", "Sigmoid")],
    "unfuse-q-linear-leaky-relu": [
        _one(BYTES, "QLinearLeakyRelu", "LeakyRelu<alpha=0.2>", "<alpha=0.2>")
    ],
    "unfuse-q-linear-softmax": [
        _one(BYTES, "QLinearSoftmax", "Softmax<axis=-1>", "<opset=13, axis=-1>")
    ],
    "unfuse-q-linear-reduce-mean": [
        (
            "(uint8[2,3] a) => (uint8[2,1] y)",
            f"{PARTS} y = com.microsoft.QLinearReduceMean<axes=[1], keepdims=1>(a, s, z, s, z)",
            f"""{PARTS} {REAL} x = Constant<value_ints=[1]>() k = ReduceMean<keepdims=1>(i, x)
            y = QuantizeLinear(k, s, z)""",
        )
    ],
    "unfuse-q-linear-average-pool": [
        _one(
            IMAGE.format(size=3),
            "QLinearAveragePool",
            "AveragePool<kernel_shape=[2, 2]>",
            "<kernel_shape=[2, 2]>",
        )
    ],
    "unfuse-q-linear-global-average-pool": [
        _one(IMAGE.format(size=1), "QLinearGlobalAveragePool", "GlobalAveragePool")
    ],
    "unfuse-contrib-q-linear-conv": [
        (
            "(uint8[2,4,4,3] a, uint8[2,3,1,1] b) => (uint8[2,4,4,2] y)",
            f"{PARTS} y = com.microsoft.QLinearConv<channels_last=1>(a, s, z, b, s, z, s, z)",
            f"""{PARTS} i = Transpose<perm=[0, 3, 1, 2]>(a)
            k = QLinearConv(i, s, z, b, s, z, s, z) y = Transpose<perm=[0, 2, 3, 1]>(k)""",
        )
    ],
    "unfuse-nhwc-max-pool": [
        (
            "(uint8[2,4,4,3] a) => (uint8[2,3,3,3] y)",
            "y = com.microsoft.NhwcMaxPool<kernel_shape=[2, 2]>(a)",
            """i = Transpose<perm=[0, 3, 1, 2]>(a) k = MaxPool<kernel_shape=[2, 2]>(i)
            y = Transpose<perm=[0, 2, 3, 1]>(k)""",
        )
    ],
    "unfuse-q-linear-where": [
        (BYTES, f"{PARTS} y = com.microsoft.QLinearWhere(c, a, s, z, b, s, z, s, z)", "")
    ],
    "unfuse-q-linear-concat": [
        (
            BYTES.replace("uint8[2,3] y", "uint8[4,3] y"),
            f"{PARTS} y = com.microsoft.QLinearConcat<axis=0>(s, z, a, s, z, b, s, z)",
            "",
        )
    ],
    "unfuse-q-gemm": [
        (
            PRODUCT.replace(", float s", "").replace("float[n,5]", "uint8[n,5]"),
            f"{PARTS} y = com.microsoft.QGemm(a, s, z, b, s, z, , s, z)",
            "",
        )
    ],
    "unfuse-mat-mul-integer-to-float": [
        (
            PRODUCT,
            "y = com.microsoft.MatMulIntegerToFloat(a, b, s, s)",
            "k = Mul(s, s) m = MatMulInteger(a, b) f = Cast<to=1>(m) y = Mul(f, k)",
        )
    ],
    "unfuse-dynamic-quantize-mat-mul": [
        (
            PRODUCT.replace("uint8[n,4] a", "float[n,4] a"),
            "y = com.microsoft.DynamicQuantizeMatMul(a, b, s)",
            """q, t, z = DynamicQuantizeLinear(a) k = Mul(t, s) m = MatMulInteger(q, b, z)
            f = Cast<to=1>(m) y = Mul(f, k)""",
        )
    ],
    "unfuse-contrib-dequantize-linear": [
        (
            "(uint8[2,3] x, float s) => (float[2,3] y)",
            "y = com.microsoft.DequantizeLinear(x, s)",
            "y = DequantizeLinear(x, s)",
        )
    ],
    "unfuse-contrib-quantize-linear": [
        (
            "(float[2,3] x, float s, uint8 z) => (uint8[2,3] y)",
            "y = com.microsoft.QuantizeLinear(x, s, z)",
            "y = QuantizeLinear(x, s, z)",
        )
    ],
}


def _untyped(
    operator: str, inputs: str = "a, s, z, s, z", attributes: str = "", reason: str = "type"
) -> list[tuple[str, str, str]]:
    head = "(a, b, float s, z) => (y)"
    text = f"y = com.microsoft.{operator}{attributes}({inputs})"
    return [(head, text, reason)]


_PAIR = "a, s, z, b, s, z, s, z"

# rule: inputs and outputs, nodes, part of the reason
REFUSES: dict[str, list[tuple[str, str, str]]] = {
    "unfuse-q-linear-add": _untyped("QLinearAdd", _PAIR),
    "unfuse-q-linear-mul": _untyped("QLinearMul", _PAIR),
    "unfuse-q-linear-sigmoid": _untyped("QLinearSigmoid"),
    "unfuse-q-linear-leaky-relu": _untyped("QLinearLeakyRelu"),
    "unfuse-q-linear-softmax": [
        (
            BYTES,
            f"{PARTS} y = com.microsoft.QLinearSoftmax<opset=12, axis=0>(a, s, z, s, z)",
            "before opset 13 it flattens axes from 0 on",
        )
    ],
    "unfuse-q-linear-reduce-mean": _untyped(
        "QLinearReduceMean", attributes="<axes=[0], keepdims=1>"
    ),
    "unfuse-q-linear-average-pool": _untyped(
        "QLinearAveragePool", attributes="<kernel_shape=[2, 2]>"
    ),
    "unfuse-q-linear-global-average-pool": _untyped("QLinearGlobalAveragePool"),
    "unfuse-contrib-q-linear-conv": _untyped(
        "QLinearConv", _PAIR, "<channels_last=1>", "the rank of a is unknown"
    ),
    "unfuse-nhwc-max-pool": _untyped(
        "NhwcMaxPool", "a", "<kernel_shape=[2, 2]>", "the rank of a is unknown"
    ),
    "unfuse-q-linear-where": [(BYTES, "y = Where(c, a, b)", "")],
    "unfuse-q-linear-concat": [(OPEN, "y = Concat<axis=0>(a, b)", "")],
    "unfuse-q-gemm": [(OPEN, "y = Gemm(a, b)", "")],
    "unfuse-mat-mul-integer-to-float": [
        ("(a, b, s) => (y)", "y = com.microsoft.MatMulIntegerToFloat(a, b, s, s)", "types")
    ],
    "unfuse-dynamic-quantize-mat-mul": [(OPEN, "y = MatMulInteger(a, b)", "")],
    "unfuse-contrib-dequantize-linear": [
        (
            "(uint16[2,3] x, float s) => (float[2,3] y)",
            "y = com.microsoft.DequantizeLinear(x, s)",
            "opset 20 does not quantise FLOAT as UINT16",
        )
    ],
    "unfuse-contrib-quantize-linear": [
        (
            "(float[2,3] x, float s, int16 z) => (int16[2,3] y)",
            "y = com.microsoft.QuantizeLinear(x, s, z)",
            "opset 20 does not quantise FLOAT as INT16",
        )
    ],
}

_RULES = {
    "QLinearAdd": "unfuse-q-linear-add",
    "QLinearMul": "unfuse-q-linear-mul",
    "QLinearSigmoid": "unfuse-q-linear-sigmoid",
    "QLinearLeakyRelu": "unfuse-q-linear-leaky-relu",
    "QLinearSoftmax": "unfuse-q-linear-softmax",
    "QLinearAveragePool": "unfuse-q-linear-average-pool",
    "QLinearGlobalAveragePool": "unfuse-q-linear-global-average-pool",
    "QLinearConv": "unfuse-contrib-q-linear-conv",
    "NhwcMaxPool": "unfuse-nhwc-max-pool",
    "QLinearWhere": "unfuse-q-linear-where",
    "QLinearConcat": "unfuse-q-linear-concat",
    "QGemm": "unfuse-q-gemm",
    "MatMulIntegerToFloat": "unfuse-mat-mul-integer-to-float",
    "DynamicQuantizeMatMul": "unfuse-dynamic-quantize-mat-mul",
    "DequantizeLinear": "unfuse-contrib-dequantize-linear",
    "QuantizeLinear": "unfuse-contrib-quantize-linear",
}

# what random graphs for a rule need to know beyond its pattern
HINTS: dict[str, Hints] = {rule: of_cases(DRAWN[name]) for name, rule in _RULES.items()}
