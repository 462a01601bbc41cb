"""Rules of unfuse.standard: what they do to graphs, why they leave some alone, hints."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import onnx_ir as ir

from rules.drawing import ORT_TYPES, epsilon
from rules.instances import Draw, Hints
from rules.texts import X8, XB, XN


def some_more(*texts: str, always: bool = False) -> Callable[[Draw], list[ir.Value]]:
    """Return a hint: further inputs of an open pattern, the last one now and then."""

    def make(draw: Draw) -> list[ir.Value]:
        kept = texts if always or draw.rng.random() < 0.5 else texts[:1]
        return [draw.input(shape, dtype) for dtype, shape in (draw.typed(t, None) for t in kept)]

    return make


def maybe_tanh(draw: Draw) -> Mapping[str, object]:
    return {"approximate": "tanh"} if draw.rng.random() < 0.5 else {}


# rule: inputs and outputs, nodes before, nodes after; empty where numbers say enough
FIRES: dict[str, list[tuple[str, str, str]]] = {
    "unfuse-layer-normalization": [(XB, "y = LayerNormalization<epsilon=0.001>(x, s, t)", "")],
    "unfuse-rms-normalization": [(X8, "y = RMSNormalization<epsilon=0.001>(x, s)", "")],
    "unfuse-gelu": [(XN, "y = Gelu(x)", ""), (XN, 'y = Gelu<approximate="tanh">(x)', "")],
    "unfuse-swish": [(XN, "y = Swish(x)", "a = Sigmoid(x) y = Mul(x, a)")],
    "unfuse-mish": [(XN, "y = Mish(x)", "a = Softplus(x) b = Tanh(a) y = Mul(x, b)")],
    "unfuse-hard-swish": [
        (XN, "y = HardSwish(x)", "a = HardSigmoid<alpha=0.16666667, beta=0.5>(x) y = Mul(x, a)")
    ],
    "unfuse-attention": [
        (
            "(float[2,n,8] q, float[2,m,8] k, float[2,m,8] v) => (float[2,n,8] y)",
            "y = Attention<q_num_heads=2, kv_num_heads=2>(q, k, v)",
            "",
        )
    ],
    "unfuse-standard-rotary-embedding": [
        (
            "(float[2,2,n,8] x, float[2,n,4] c, float[2,n,4] s) => (float[2,2,n,8] y)",
            "y = RotaryEmbedding(x, c, s)",
            "",
        )
    ],
}

# rule: inputs and outputs, nodes, part of the reason
REFUSES: dict[str, list[tuple[str, str, str]]] = {
    "unfuse-layer-normalization": [
        (
            "(x, float[8] s) => (y)",
            "y = LayerNormalization<epsilon=0.001>(x, s)",
            "type",
        )
    ],
    "unfuse-rms-normalization": [("(x, float[8] s) => (y)", "y = RMSNormalization(x, s)", "type")],
    "unfuse-gelu": [("(x) => (y)", "y = Gelu(x)", "type")],
    "unfuse-swish": [("(x) => (y)", "y = Swish<alpha=2.0>(x)", "type")],
    "unfuse-mish": [(XN, "y = com.microsoft.Mish(x)", "")],
    "unfuse-hard-swish": [(XN, "y = com.microsoft.HardSwish(x)", "")],
    "unfuse-attention": [
        ("(q, k, v) => (y)", "y = Attention<q_num_heads=2, kv_num_heads=2>(q, k, v)", "rank")
    ],
    "unfuse-standard-rotary-embedding": [
        ("(x, c, s) => (y)", "y = RotaryEmbedding(x, c, s)", "rank")
    ],
}

# what random graphs for a rule need to know beyond its pattern
HINTS: dict[str, Hints] = {
    "unfuse-layer-normalization": {
        "any": "T[a,b,d]",
        "LayerNormalization+": some_more("T[d]", "T[d]"),
        "node": epsilon,
        "opset": (17, 18, 21),
        "dtypes": ORT_TYPES,
    },
    "unfuse-rms-normalization": {
        "any": "T[a,b,d]",
        "RMSNormalization+": some_more("T[d]"),
        "node": epsilon,
        "opset": (23,),
    },
    "unfuse-gelu": {"any": "T[a,b]", "node": maybe_tanh, "opset": (20, 21), "dtypes": ORT_TYPES},
    "unfuse-swish": {
        "any": "T[a,b]",
        "node": lambda draw: {"alpha": draw.choose((1.0, 1.702))},
        "opset": (24,),
        "dtypes": ORT_TYPES,
    },
    "unfuse-mish": {"any": "T[a,b]", "opset": (18, 21), "dtypes": ("float32",)},
    "unfuse-hard-swish": {"any": "T[a,b]", "opset": (14, 18), "dtypes": ("float32",)},
    "unfuse-attention": {
        "any": "T[2,2,a,8]",
        "Attention+": some_more("T[2,2,b,8]", "T[2,2,b,8]", always=True),
        "dtypes": ("float32",),
        "opset": (23,),
        "outputs": 1,
    },
    "unfuse-standard-rotary-embedding": {
        "any": "T[2,2,a,8]",
        "RotaryEmbedding+": some_more("T[2,a,4]", "T[2,a,4]", always=True),
        "dtypes": ("float32",),
        "opset": (23,),
    },
}
