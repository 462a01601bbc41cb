"""Rewrites that change values beyond rounding, or that rounding alone does not excuse."""

from __future__ import annotations

from onnx_ir import Value

from vlmpass.ir_tools.rewrite import P, Replacement, Tape, refuse, rule
from vlmpass.rewriter_rules.simplify.known import FLOATS

__all__ = ["FAST"]


@rule(P.Add(P.Add("x", "a"), "b"), fast_math=True, dtypes={"x": FLOATS})
def sum_of_sum(op: Tape, x: Value, a: float, b: float) -> Replacement:
    """(x + a) + b -> x + (a + b), which rounds elsewhere."""
    return op.Add(x, op.const(a + b, x.dtype))


@rule(P.Mul(P.Mul("x", "a"), "b"), fast_math=True, dtypes={"x": FLOATS})
def product_of_product(op: Tape, x: Value, a: float, b: float) -> Replacement:
    """(x * a) * b -> x * (a * b), which rounds and overflows elsewhere."""
    return op.Mul(x, op.const(a * b, x.dtype))


@rule(P.Div("x", "a"), fast_math=True, dtypes={"x": FLOATS})
def quotient_by_constant(op: Tape, x: Value, a: float) -> Replacement:
    """x / a -> x * (1 / a), which rounds twice."""
    return refuse("division by zero") if a == 0 else op.Mul(x, op.const(1 / a, x.dtype))


@rule(
    P.Mul("x", P.Reciprocal("y")) | P.Mul("x", P.Div(1.0, "y")),
    fast_math=True,
    dtypes={"x": FLOATS},
)
def product_with_reciprocal(op: Tape, x: Value, y: Value) -> Replacement:
    """x * (1 / y) -> x / y, which rounds once."""
    return op.Div(x, y)


@rule(P.Sqrt(P.Mul("x", "x")) | P.Sqrt(P.Pow("x", 2.0)), fast_math=True, dtypes={"x": FLOATS})
def root_of_square(op: Tape, x: Value) -> Replacement:
    """sqrt(x * x) -> Abs(x), which neither overflows nor loses small numbers."""
    return op.Abs(x)


FAST = (
    sum_of_sum
    + product_of_product
    + quotient_by_constant
    + product_with_reciprocal
    + root_of_square
)
