"""Rewrites that change values beyond rounding, or that rounding alone does not excuse."""

from __future__ import annotations

from onnx_ir import Value

from vlmpass.ir_tools.operators.dtypes import is_normal
from vlmpass.ir_tools.rewrite import P, Replacement, Tape, refuse, rule
from vlmpass.rewriter_rules.simplify.known import FLOATS

__all__ = ["FAST"]


def _joined(op: Tape, op_type: str, x: Value, number: float) -> Replacement:
    """Record an operator on a number, unless rounding to x's type makes it infinite, or coarse."""
    if x.dtype is None or not is_normal(number, x.dtype):
        return refuse("{} is beyond the normal numbers of {}", number, x.dtype)
    return op.node(op_type, [x, op.const(number, x.dtype)])[0]


@rule(P.Add(P.Add("x", "a"), "b"), fast_math=True, dtypes={"x": FLOATS})
def sum_of_sum(op: Tape, x: Value, a: float, b: float) -> Replacement:
    """(x + a) + b -> x + (a + b), which rounds elsewhere."""
    return _joined(op, "Add", x, a + b)


@rule(P.Mul(P.Mul("x", "a"), "b"), fast_math=True, dtypes={"x": FLOATS})
def product_of_product(op: Tape, x: Value, a: float, b: float) -> Replacement:
    """(x * a) * b -> x * (a * b), which rounds and overflows elsewhere."""
    return _joined(op, "Mul", x, a * b)


@rule(P.Div("x", "a"), fast_math=True, dtypes={"x": FLOATS})
def quotient_by_constant(op: Tape, x: Value, a: float) -> Replacement:
    """x / a -> x * (1 / a), which rounds twice."""
    return refuse("division by zero") if a == 0 else _joined(op, "Mul", x, 1 / a)


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
