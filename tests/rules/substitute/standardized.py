"""Rules of substitute.standardized: what they do to graphs, why they leave some alone, hints."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from rules.instances import Draw, Hints


def by_channel(draw: Draw) -> list[ir.Value]:
    dtype, shape = draw.typed("T[c]", None)
    return [draw.input(shape, dtype) for _ in range(2)]


def of_four(draw: Draw) -> list[ir.Value]:
    channels = draw.opset >= 21
    dtype, shape = draw.typed("T[4]" if channels else "T[2]", None)
    return [draw.input(shape, dtype) for _ in range(2)]


def small(draw: Draw) -> Mapping[str, object]:
    return {"epsilon": draw.choose((1e-5, 1e-3))}


def two_groups(draw: Draw) -> Mapping[str, object]:
    return {"num_groups": 2, **small(draw)}


# rule: inputs and outputs, nodes before, nodes after; empty where numbers say enough
FIRES: dict[str, list[tuple[str, str, str]]] = {
    "unfuse-log-softmax": [
        (
            "(float[2,3,n] x) => (float[2,3,n] y)",
            "b = Constant<value_float=200.0>() z = Mul(x, b) y = LogSoftmax<axis=1>(z)",
            "",
        )
    ],
    "softmax-to-log-softmax": [
        (
            "(float[2,3,n] x) => (float[2,3,n] y)",
            "b = Constant<value_float=200.0>() z = Mul(x, b) y = Softmax<axis=1>(z)",
            "b = Constant<value_float=200.0>() z = Mul(x, b) l = LogSoftmax<axis=1>(z) y = Exp(l)",
        ),
        (
            "(float16[2,n] x) => (float16[2,n] y)",
            "y = Softmax(x)",
            "w = Cast<to=1>(x) l = LogSoftmax(w) e = Exp(l) y = Cast<to=10>(e)",
        ),
    ],
    "unfuse-instance-normalization": [
        (
            "(float[2,3,n] x, float[3] s, float[3] b) => (float[2,3,n] y)",
            "y = InstanceNormalization<epsilon=0.001>(x, s, b)",
            "",
        )
    ],
    "group-to-instance-normalization": [
        (
            "(float[2,4,n] x, float[2] s, float[2] b) => (float[2,4,n] y)",
            "y = GroupNormalization<num_groups=2>(x, s, b)",
            "",
        )
    ],
}

# rule: inputs and outputs, nodes, part of the reason
REFUSES: dict[str, list[tuple[str, str, str]]] = {
    "unfuse-log-softmax": [("(float[n] x) => (float[n] y)", "y = com.microsoft.LogSoftmax(x)", "")],
    "softmax-to-log-softmax": [("(x) => (y)", "y = Softmax(x)", "type")],
    "unfuse-instance-normalization": [
        ("(x, float[3] s, float[3] b) => (y)", "y = InstanceNormalization(x, s, b)", "type"),
        (
            "(float[n,3] x, float[3] s, float[3] b) => (float[n,3] y)",
            "y = InstanceNormalization(x, s, b)",
            "rank is below 3",
        ),
    ],
    "group-to-instance-normalization": [
        (
            "(x, float[2] s, float[2] b) => (y)",
            "y = GroupNormalization<num_groups=2>(x, s, b)",
            "type",
        )
    ],
}

# what random graphs for a rule need to know beyond its pattern
HINTS: dict[str, Hints] = {
    "unfuse-log-softmax": {"any": "T[a,b,d]", "dtypes": ("float32", "float64")},
    "softmax-to-log-softmax": {"any": "T[a,b,d]", "dtypes": ("float32", "float16")},
    "unfuse-instance-normalization": {
        "any": "T[a,c,d,e]",
        "InstanceNormalization+": by_channel,
        "node": small,
        "dtypes": ("float32", "float16"),
    },
    "group-to-instance-normalization": {
        "any": "T[a,4,d]",
        "GroupNormalization+": of_four,
        "node": two_groups,
        "opset": (18, 21, 22),
        "dtypes": ("float32",),
    },
}
