"""Rules of simplify.products: what they do to graphs, why they leave some alone, hints."""

from __future__ import annotations

from rules.instances import Hints

# rule: inputs and outputs, nodes before, nodes after; empty where numbers say enough
FIRES: dict[str, list[tuple[str, str, str]]] = {
    "matmul-add": [
        (
            "(float[n,4] a, float[4,3] b, float[3] c) => (float[n,3] y)",
            "m = MatMul(a, b) y = Add(c, m)",
            "y = Gemm(a, b, c)",
        )
    ],
    "gemm-add": [
        (
            "(float[n,4] a, float[3,4] b, float[3] c) => (float[n,3] y)",
            "m = Gemm<transB=1, alpha=0.5>(a, b) y = Add(c, m)",
            "y = Gemm<transB=1, alpha=0.5>(a, b, c)",
        )
    ],
    "gemm-of-transpose": [
        (
            "(float[4,n] a, float[4,3] b, float[3] c) => (float[n,3] y)",
            "t = Transpose<perm=[1,0]>(a) y = Gemm(t, b, c)",
            "y = Gemm<transA=1>(a, b, c)",
        ),
        (
            "(float[n,4] a, float[4,3] b) => (float[n,3] y)",
            "t = Transpose<perm=[1,0]>(b) y = Gemm<transB=1>(a, t)",
            "y = Gemm<transB=0>(a, b)",
        ),
    ],
    "matmul-of-transpose": [
        (
            "(float[4,n] a, float[4,3] b) => (float[n,3] y)",
            "t = Transpose<perm=[1,0]>(a) y = MatMul(t, b)",
            "y = Gemm<transA=1>(a, b)",
        ),
        (
            "(float[n,4] a, float[3,4] b) => (float[n,3] y)",
            "t = Transpose<perm=[1,0]>(b) y = MatMul(a, t)",
            "y = Gemm<transB=1>(a, b)",
        ),
    ],
}

# rule: inputs and outputs, nodes, part of the reason
REFUSES: dict[str, list[tuple[str, str, str]]] = {
    "matmul-add": [
        (
            "(float[2,n,4] a, float[4,3] b, float[3] c) => (float[2,n,3] y)",
            "m = MatMul(a, b) y = Add(c, m)",
            "is not known to have 2 axes",
        ),
        (
            "(float[1,4] a, float[4,3] b, float[5,3] c) => (float[5,3] y)",
            "m = MatMul(a, b) y = Add(c, m)",
            "'c' may be larger",
        ),
    ],
    "gemm-add": [
        (
            "(float[1,4] a, float[4,3] b, float[5,3] c) => (float[5,3] y)",
            "m = Gemm(a, b) y = Add(c, m)",
            "'c' may be larger than the product",
        ),
        (
            "(float[n,4] a, float[4,3] b, float[3] c) => (float[n,3] y)",
            "m = Gemm<beta=0.5>(a, b) y = Add(c, m)",
            "scales what it adds",
        ),
    ],
    "gemm-of-transpose": [
        (
            "(float[n,4] a, float[4,3] b) => (float[n,3] y)",
            "t = Transpose<perm=[0,1]>(a) y = Gemm(t, b)",
            "expected perm=(1, 0), found (0, 1)",
        )
    ],
    "matmul-of-transpose": [
        (
            "(float[4,n] a, float[2,4,3] b) => (float[2,n,3] y)",
            "t = Transpose<perm=[1,0]>(a) y = MatMul(t, b)",
            "is not known to have 2 axes",
        )
    ],
}

# what random graphs for a rule need to know beyond its pattern
HINTS: dict[str, Hints] = {
    "matmul-add": {
        "a": "T[a,b]",
        "b": "T[b,c]",
        "c": ["T[c]", "T[a,c]", "T[1,c]", "T[a,1]", "T[]"],
    },
    "gemm-add": {
        "a": "T[a,b]",
        "b": "T[b,c]",
        "c": ["T[c]", "T[a,c]", "T[1,c]", "T[]"],
        "gemm": lambda draw: {"alpha": 0.5} if draw.rng.random() < 0.5 else {},
    },
    "gemm-of-transpose": {
        "a": lambda draw: "T[k,m]",
        "b": lambda draw: "T[k,n]",
        "c": "T[n]",
        "gemm": lambda draw: {
            "transB": int(draw.rng.integers(2)),
            "transA": int(draw.rng.integers(2)),
        },
    },
    "matmul-of-transpose": {"a": ["T[k,m]", "T[m,k]"], "b": ["T[k,n]", "T[n,k]"]},
}
