"""Rules of unfuse.multiplied: what they do to graphs, why they leave some alone, hints."""

from __future__ import annotations

from unfuse.layers import fused_conv, fused_gemm, fused_matmul, transpose_matmul

from rules.from_cases import of_cases
from rules.instances import Hints

AB = "(float[n,4] a, float[4,5] b) => (float[n,5] y)"
BA = "(float[n,4] a, float[5,4] b) => (float[n,5] y)"
X8 = "(float[2,n,8] x, float[8,8] w, float[8] b) => (float[2,n,8] y)"
CONV = "(float[2,3,5,5] x, float[4,3,1,1] w) => (float[2,4,5,5] y)"
HALF = X8.replace("float[2,n,8] y", "float[2,n,4] y")

# rule: inputs and outputs, nodes before, nodes after; empty where numbers say enough
FIRES: dict[str, list[tuple[str, str, str]]] = {
    "unfuse-fused-mat-mul": [
        (AB, "y = com.microsoft.FusedMatMul(a, b)", "y = MatMul(a, b)"),
        (
            BA,
            "y = com.microsoft.FusedMatMul<transB=1, alpha=0.5>(a, b)",
            """h = Constant<value_float=0.5>() t = Transpose<perm=[1, 0]>(b) m = MatMul(a, t)
            y = Mul(m, h)""",
        ),
    ],
    "unfuse-transpose-mat-mul": [
        (
            BA,
            "y = com.microsoft.TransposeMatMul<transB=1>(a, b)",
            "t = Transpose<perm=[1, 0]>(b) y = MatMul(a, t)",
        )
    ],
    "unfuse-fused-gemm": [
        (
            AB,
            """y = com.microsoft.FusedGemm<activation="LeakyRelu", activation_alpha=0.2>(a, b)""",
            "g = Gemm(a, b) y = LeakyRelu<alpha=0.2>(g)",
        )
    ],
    "unfuse-fused-conv": [
        (
            CONV,
            """y = com.microsoft.FusedConv<activation="Relu", kernel_shape=[1, 1]>(x, w)""",
            "c = Conv<kernel_shape=[1, 1]>(x, w) y = Relu(c)",
        )
    ],
    "unfuse-gemm-fast-gelu": [
        (
            X8,
            "y = com.microsoft.GemmFastGelu(x, w, b)",
            'm = MatMul(x, w) a = Add(m, b) y = Gelu<approximate="tanh">(a)',
        )
    ],
    "unfuse-bias-split-gelu": [(HALF, "y = com.microsoft.BiasSplitGelu(x, b)", "")],
    "unfuse-bias-add": [(X8, "y = com.microsoft.BiasAdd(x, b, x)", "a = Add(x, b) y = Add(a, x)")],
}

# rule: inputs and outputs, nodes, part of the reason
REFUSES: dict[str, list[tuple[str, str, str]]] = {
    "unfuse-fused-mat-mul": [("(a, b) => (y)", "y = com.microsoft.FusedMatMul(a, b)", "types")],
    "unfuse-transpose-mat-mul": [
        ("(a, b) => (y)", "y = com.microsoft.TransposeMatMul(a, b)", "types")
    ],
    "unfuse-fused-gemm": [
        (
            AB,
            """y = com.microsoft.FusedGemm<activation="ParametricSoftplus">(a, b)""",
            "its activation is ParametricSoftplus, with 0 numbers",
        )
    ],
    "unfuse-fused-conv": [
        (
            CONV,
            """y = com.microsoft.FusedConv<activation="Clip", kernel_shape=[1, 1]>(x, w)""",
            "its activation is Clip, with 0 numbers",
        )
    ],
    "unfuse-gemm-fast-gelu": [
        ("(x, w) => (y)", "y = com.microsoft.GemmFastGelu(x, w)", "types"),
    ],
    "unfuse-bias-split-gelu": [
        (
            HALF.replace("float[2,n,8] x", "float[2,n,m] x").replace("float[8] b", "float[m] b"),
            "y = com.microsoft.BiasSplitGelu(x, b)",
            "the width of its input is not known",
        )
    ],
    "unfuse-bias-add": [("(x, b) => (y)", "y = com.microsoft.BiasAdd(x, b, x)", "types")],
}

# what random graphs for a rule need to know beyond its pattern
HINTS: dict[str, Hints] = {
    "unfuse-fused-mat-mul": of_cases(fused_matmul),
    "unfuse-transpose-mat-mul": of_cases(transpose_matmul),
    "unfuse-fused-gemm": of_cases(fused_gemm),
    "unfuse-fused-conv": of_cases(fused_conv),
}
