"""Ways in which exporters spell one thing; each is one pattern, used by many rules."""

from __future__ import annotations

from itertools import combinations

from vlmpass.ir_tools.rewrite import P, Pattern

__all__ = [
    "NOT_IN_FUNCTIONS",
    "ORT",
    "cube",
    "mean",
    "mean_of_squares",
    "over_root",
    "product",
    "scaled",
    "square",
]

ORT = "com.microsoft"
"""The domain of ONNX Runtime's own operators."""
NOT_IN_FUNCTIONS = "ONNX Runtime crashes on its own {} in a function; run inline-functions first"
"""Seen with 1.31: loading dies where the operator is none of the standard's at that opset."""


def square(x: Pattern) -> Pattern:
    """Match x * x or x ** 2."""
    return P.Mul(x, x) | P.Pow(x, 2.0)


def cube(x: Pattern) -> Pattern:
    """Match x ** 3, or x times its square."""
    return P.Pow(x, 3.0) | P.Mul(x, square(x))


def _averaged(total: Pattern) -> Pattern:
    return P.Div(total, "count") | P.Mul(total, "share")


def mean(x: Pattern) -> Pattern:
    """Match the mean over the last axis; a sum is divided by `count` or multiplied by `share`."""
    return P.ReduceMean(x, axes=-1) | _averaged(P.ReduceSum(x, axes=-1))


def mean_of_squares(x: Pattern) -> Pattern:
    """Match the mean of x * x over the last axis, as `mean` does."""
    return mean(square(x)) | _averaged(P.ReduceSumSquare(x, axes=-1))


def _inverse_root(x: Pattern) -> Pattern:
    """Match 1 / sqrt(x): Reciprocal or Div of Sqrt, Sqrt of either, or a power of -0.5."""
    root = P.Sqrt(x)
    inverse = P.Reciprocal(x) | P.Div(1.0, x)
    return P.Reciprocal(root) | P.Div(1.0, root) | P.Pow(x, -0.5) | P.Sqrt(inverse)


def over_root(x: Pattern, y: Pattern) -> Pattern:
    """Match x / sqrt(y)."""
    return P.Div(x, P.Sqrt(y) | P.Pow(y, 0.5)) | P.Mul(x, _inverse_root(y))


def product(one: Pattern, two: Pattern, three: Pattern) -> Pattern:
    """Match a product of three factors, whichever two are multiplied first.

    Args:
        one: A factor.
        two: Another.
        three: The third.
    """
    factors = (one, two, three)
    return P.either(
        *(
            P.Mul(P.Mul(*pair), next(f for f in factors if f not in pair))
            for pair in combinations(factors, 2)
        )
    )


def scaled(x: Pattern, factor: float) -> Pattern:
    """Match x * factor or x / (1 / factor)."""
    return P.Mul(x, factor) | P.Div(x, 1 / factor)
