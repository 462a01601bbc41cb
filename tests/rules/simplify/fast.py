"""Rules of simplify.fast: what they do to graphs, why they leave some alone, hints."""

from __future__ import annotations

# rule: inputs and outputs, nodes before, nodes after; empty where numbers say enough
FIRES: dict[str, list[tuple[str, str, str]]] = {
    "sum-of-sum": [
        (
            "(float[n] x) => (float[n] y)",
            """a = Constant<value_float=0.5>() b = Constant<value_float=1.0>()
               s = Add(a, x) y = Add(s, b)""",
            "c = Constant<value_float=1.5>() y = Add(x, c)",
        )
    ],
    "product-of-product": [
        (
            "(float[n] x) => (float[n] y)",
            """a = Constant<value_float=0.5>() b = Constant<value_float=3.0>()
               s = Mul(a, x) y = Mul(s, b)""",
            "c = Constant<value_float=1.5>() y = Mul(x, c)",
        )
    ],
    "quotient-by-constant": [
        (
            "(float[n] x) => (float[n] y)",
            "a = Constant<value_float=4.0>() y = Div(x, a)",
            "c = Constant<value_float=0.25>() y = Mul(x, c)",
        )
    ],
    "product-with-reciprocal": [
        (
            "(float[n] x, float[n] z) => (float[n] y)",
            "r = Reciprocal(z) y = Mul(r, x)",
            "y = Div(x, z)",
        )
    ],
    "root-of-square": [("(float[n] x) => (float[n] y)", "s = Mul(x, x) y = Sqrt(s)", "y = Abs(x)")],
}

# rule: inputs and outputs, nodes, part of the reason
REFUSES: dict[str, list[tuple[str, str, str]]] = {
    "sum-of-sum": [
        (
            "(float[n] x, float[n] z) => (float[n] y)",
            "a = Constant<value_float=0.5>() s = Add(z, x) y = Add(s, a)",
            "a is not a constant float",
        ),
        (
            "(float[n] x) => (float[n] y)",
            "a = Constant<value_float=3e38>() s = Add(a, x) y = Add(s, a)",
            "is beyond the normal numbers of FLOAT",
        ),
    ],
    "product-of-product": [
        (
            "(float[n] x, float[n] z) => (float[n] y)",
            "a = Constant<value_float=0.5>() s = Mul(z, x) y = Mul(s, a)",
            "a is not a constant float",
        ),
        (
            "(float[n] x) => (float[n] y)",
            "a = Constant<value_float=1e30>() s = Mul(a, x) y = Mul(s, a)",
            "is beyond the normal numbers of FLOAT",
        ),
        (
            "(float[n] x) => (float[n] y)",
            "a = Constant<value_float=1e-30>() s = Mul(a, x) y = Mul(s, a)",
            "is beyond the normal numbers of FLOAT",
        ),
    ],
    "quotient-by-constant": [
        (
            "(float[n] x) => (float[n] y)",
            "a = Constant<value_float=0.0>() y = Div(x, a)",
            "division by zero",
        ),
        (
            "(float[n] x) => (float[n] y)",
            "a = Constant<value_float=1e-39>() y = Div(x, a)",
            "is beyond the normal numbers of FLOAT",
        ),
        (
            "(int64[n] x) => (int64[n] y)",
            "a = Constant<value_int=2>() y = Div(x, a)",
            "type of x is INT64",
        ),
    ],
    "product-with-reciprocal": [
        (
            "(float[n] x, float[n] z) => (float[n] y)",
            "r = Sqrt(z) y = Mul(r, x)",
            "expected Reciprocal",
        )
    ],
    "root-of-square": [
        (
            "(float[n] x, float[n] z) => (float[n] y)",
            "s = Mul(x, z) y = Sqrt(s)",
            "x is 'x' elsewhere",
        )
    ],
}
