"""What each rule that restores rounded numbers does to a graph, and why it leaves one alone."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np


def brain(name: str, number: float) -> str:
    """A constant that was rounded to bfloat16, behind a Cast."""
    bits = int(np.float32(number).astype(ml_dtypes.bfloat16).view(np.uint16))
    return f"{name}_ = Constant<value = bfloat16 {{{bits}}}>() {name} = Cast<to=1>({name}_)"


def half(name: str, number: float) -> str:
    """A constant that was rounded to float16, behind a Cast."""
    bits = int(np.float16(number).view(np.uint16))
    return f"{name}_ = Constant<value = float16 {{{bits}}}>() {name} = Cast<to=1>({name}_)"


def single(name: str, number: float) -> str:
    return f"{name} = Constant<value_float={float(np.float32(number))!r}>()"


X = "(float[n,8] x) => (float[n,8] y)"
ONE, HALF, THREE = single("one", 1), single("half", 0.5), single("three", 3)
SLOPE = math.sqrt(2 / math.pi)
ERF = "s = Div(x, c) y = Erf(s)"
TANH = "p = Pow(x, three) w = Mul(c, p) b = Add(x, w) s = Mul(b, d) y = Tanh(s)"
PRODUCT = "q = Mul(x, x) w = Mul(q, c) b = Add(w, one) s = Mul(x, d) t = Mul(s, b) y = Tanh(t)"
BUILT = """w = Mul(x, c) q = Mul(x, w) b = Add(q, one) s = Mul(x, d) t = Mul(s, b) y = Tanh(t)"""
QUICK = "s = Mul(x, c) g = Sigmoid(s) y = Mul(x, g)"
NORM = "m = ReduceMean<keepdims=1>(x, a) s = Add(m, c) y = Sqrt(s)"
AXIS = "a = Constant<value_ints=[-1]>()"
ROW = "(float[n,8] x) => (float[n,1] y)"
ATTENTION = "(float[n,8] x, float[8,9] z) => (float[n,9] y)"


def gelu(held, bend: float, slope: float) -> str:
    return f"{held('c', bend)} {held('d', slope)} {THREE}"


# rule: inputs and outputs, nodes before, nodes after
FIRES: dict[str, list[tuple[str, str, str]]] = {
    "restore-erf-scale": [
        (X, f"{brain('c', math.sqrt(2))} {ERF}", f"{single('c', math.sqrt(2))} {ERF}"),
        (X, f"{half('c', math.sqrt(2))} {ERF}", f"{single('c', math.sqrt(2))} {ERF}"),
        (
            X,
            f"{brain('c', math.sqrt(0.5))} s = Mul(c, x) y = Erf(s)",
            f"{single('c', math.sqrt(0.5))} s = Mul(x, c) y = Erf(s)",
        ),
    ],
    "restore-gelu-tanh": [
        (
            X,
            f"{gelu(brain, 0.044715, SLOPE)} {TANH}",
            f"""{gelu(single, 0.044715, SLOPE)} p = Pow(x, three) w = Mul(p, c)
                b = Add(x, w) s = Mul(b, d) y = Tanh(s)""",
        )
    ],
    "restore-gelu-tanh-of-product": [
        (
            X,
            f"{gelu(brain, 0.044715, SLOPE)} {ONE} {PRODUCT}",
            f"{gelu(single, 0.044715, SLOPE)} {ONE} {BUILT}",
        ),
        (
            X,
            f"""{gelu(half, 0.044715, SLOPE)} {ONE} w = Mul(c, x) q = Mul(w, x) b = Add(one, q)
                s = Mul(b, d) t = Mul(x, s) y = Tanh(t)""",
            f"{gelu(single, 0.044715, SLOPE)} {ONE} {BUILT}",
        ),
    ],
    "restore-quick-gelu": [
        (X, f"{brain('c', 1.702)} {QUICK}", f"{single('c', 1.702)} {QUICK}"),
    ],
    "restore-root-of-size": [
        (X, f"{brain('c', 8**0.5)} y = Mul(x, c)", f"{single('c', 8**0.5)} y = Mul(x, c)"),
        (X, f"{half('c', 8**0.25)} y = Div(x, c)", f"{single('c', 8**0.25)} y = Div(x, c)"),
        (
            ATTENTION,
            f"{brain('c', 8**-0.5)} m = MatMul(x, z) y = Mul(m, c)",
            f"{single('c', 8**-0.5)} m = MatMul(x, z) y = Mul(m, c)",
        ),
        (
            ATTENTION,
            f"{brain('c', 24**0.5)} m = MatMul(x, z) y = Div(m, c)",  # DeBERTa: three terms
            f"{single('c', 24**0.5)} m = MatMul(x, z) y = Div(m, c)",
        ),
        (
            "(float[24,n] x, float[9,24] z) => (float[n,9] y)",
            f"{brain('c', 24**0.5)} m = Div(x, c) y = Gemm<transA=1, transB=1>(m, z)",
            "",
        ),
    ],
    "restore-epsilon": [
        (ROW, f"{brain('c', 1e-5)} {AXIS} {NORM}", f"{single('c', 1e-5)} {AXIS} {NORM}"),
        (
            "(float[n,8] x) => (float[n,1] y)",
            f"""{half("c", 1e-6)} {AXIS} e = Constant<value_float=-0.5>()
                m = ReduceMean<keepdims=0>(x, a) u = Unsqueeze(m, a) s = Add(c, u) y = Pow(s, e)""",
            f"""{single("c", 1e-6)} {AXIS} e = Constant<value_float=-0.5>()
                m = ReduceMean<keepdims=0>(x, a) u = Unsqueeze(m, a) s = Add(u, c) y = Pow(s, e)""",
        ),
    ],
}

# rule: inputs and outputs, nodes, part of the reason
REFUSES: dict[str, list[tuple[str, str, str]]] = {
    "restore-erf-scale": [
        (X, f"{brain('c', 1.4)} {ERF}", "1.3984375 is not sqrt(2) rounded to BFLOAT16"),
        (X, f"{single('c', 1.4140625)} {ERF}", "is FLOAT and was not rounded"),
        (X, f"{brain('c', math.sqrt(2))} s = Mul(x, c) y = Erf(s)", "is not sqrt(1/2) rounded"),
        (
            "(float[n,8] x) => (float[n,8] y, float[n,8] s)",
            f"{brain('c', math.sqrt(2))} {ERF}",
            "'s' inside the match is an output of the graph",
        ),
    ],
    "restore-gelu-tanh": [
        (X, f"{gelu(brain, 0.045, SLOPE)} {TANH}", "is not 0.044715 rounded to BFLOAT16"),
        (X, f"{gelu(brain, 0.044715, 0.8)} {TANH}", "is not sqrt(2/pi) rounded to BFLOAT16"),
    ],
    "restore-gelu-tanh-of-product": [
        (X, f"{gelu(half, 0.045, SLOPE)} {ONE} {PRODUCT}", "is not 0.044715 rounded to FLOAT16"),
        (X, f"{gelu(half, 0.044715, 0.8)} {ONE} {PRODUCT}", "is not sqrt(2/pi) rounded"),
    ],
    "restore-quick-gelu": [
        (X, f"{brain('c', 1.72)} {QUICK}", "1.71875 is not 1.702 rounded to BFLOAT16"),
    ],
    "restore-root-of-size": [
        (X, f"{brain('c', 0.7)} y = Mul(x, c)", "is not sqrt(8), 1/sqrt(8), 8^(1/4), 8^(-1/4)"),
        (X, f"{brain('c', math.sqrt(7))} y = Div(x, c)", "2.640625 is not sqrt(8)"),
        (X, f"{brain('c', 0.125)} y = Mul(x, c)", "0.125 is a power of two"),
        (X, f"{single('c', 2.828125)} y = Mul(x, c)", "is FLOAT and was not rounded"),
        (
            "(float[n,9] x) => (float[n,9] y)",
            f"{brain('c', 3.0)} y = Mul(x, c)",
            "3.0 is sqrt(9) exactly",
        ),
        (
            "(float[8,n] x) => (float[8,n] y)",
            f"{brain('c', 8**0.5)} y = Mul(x, c)",
            "is not anything known here",
        ),
        (
            "(float[n,8] x, float[8,7] z) => (float[n,7] y)",
            f"{brain('c', 7**-0.5)} m = MatMul(x, z) y = Mul(m, c)",
            "is not sqrt(8)",
        ),
        (
            X,
            "c_ = Constant<value = float16[2] {15784, 15784}>() c = Cast<to=1>(c_) y = Mul(x, c)",
            "is a weight of the model",
        ),
    ],
    "restore-epsilon": [
        (ROW, f"{brain('c', 3e-5)} {AXIS} {NORM}", "is not 1e-03, 5e-03"),
        (
            ROW,
            f"{brain('c', 1e-5)} {AXIS} m = ReduceMax<keepdims=1>(x, a) s = Add(m, c) y = Sqrt(s)",
            "expected ReduceMean",
        ),
    ],
}
