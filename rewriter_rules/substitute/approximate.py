"""Functions said by others nearly: offered only where approximations are asked for.

Errors are those that float32 shows on a grid of its numbers; `tests/rules/substitute/nearly.py`
holds them. The erf is Abramowitz and Stegun's formula 7.1.26.
"""

from __future__ import annotations

import math

import onnx_ir as ir

from vlmpass.ir_tools.rewrite import P, Replacement, RuleSet, Tape, rule
from vlmpass.rewriter_rules.opset.queries import dtype

__all__ = ["APPROXIMATE"]

_FROM = (13, None)
_FLOAT = {"x": {ir.DataType.FLOAT}}
_ERF_AT = 0.3275911
_ERF = (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592)
_SINH = (1 / 72, 1 / 42, 1 / 20, 1 / 6)
_LARGE = 1e4
"""From where on the root of a square and one is the number itself."""


def _number(op: Tape, x: ir.Value, number: float) -> ir.Value:
    return op.const(number, dtype(x))


def _half_of_exp(op: Tape, size: ir.Value) -> ir.Value:
    """Record Exp(size) / 2, which is finite for some sizes whose Exp is not."""
    root = op.Exp(op.Mul(size, _number(op, size, 0.5)))
    return op.Mul(op.Mul(root, _number(op, size, 0.5)), root)


def _log_of_sum(op: Tape, x: ir.Value, root: ir.Value) -> ir.Value:
    """Record log(x + root), which is log(2 x) where the square of x may be infinite."""
    large = op.Add(op.Log(x), _number(op, x, math.log(2)))
    return op.Where(op.Less(x, _number(op, x, _LARGE)), op.Log(op.Add(x, root)), large)


@rule(P.Erf("x"), opset=_FROM, fast_math=True, dtypes=_FLOAT)
def erf_to_exp(op: Tape, x: ir.Value) -> Replacement:
    """Erf(x) -> Sign(x) * (1 - p(t) * Exp(-x * x)), t = 1 / (1 + c |x|), within 5e-7."""
    size, one = op.Abs(x), _number(op, x, 1.0)
    t = op.Div(one, op.Add(op.Mul(size, _number(op, x, _ERF_AT)), one))
    sum_ = _number(op, x, _ERF[0])
    for factor in _ERF[1:]:
        sum_ = op.Add(op.Mul(sum_, t), _number(op, x, factor))
    tail = op.Mul(op.Mul(sum_, t), op.Exp(op.Neg(op.Mul(size, size))))
    return op.Mul(op.Sign(x), op.Sub(one, tail))


@rule(P.Sinh("x"), opset=_FROM, fast_math=True, dtypes=_FLOAT)
def sinh_to_exp(op: Tape, x: ir.Value) -> Replacement:
    """Sinh(x) -> Sign(x) * (Exp(|x|) - Exp(-|x|)) / 2, or a series by 0, within 1e-6 of itself."""
    one, square = _number(op, x, 1.0), op.Mul(x, x)
    series = one
    for factor in _SINH:
        series = op.Add(op.Mul(op.Mul(square, _number(op, x, factor)), series), one)
    size = op.Abs(x)
    half = op.Sub(_half_of_exp(op, size), _half_of_exp(op, op.Neg(size)))
    return op.Where(op.Less(size, one), op.Mul(x, series), op.Mul(op.Sign(x), half))


@rule(P.Cosh("x"), opset=_FROM, fast_math=True, dtypes=_FLOAT)
def cosh_to_exp(op: Tape, x: ir.Value) -> Replacement:
    """Cosh(x) -> (Exp(x) + Exp(-x)) / 2, within 1e-6 of itself."""
    return op.Add(_half_of_exp(op, x), _half_of_exp(op, op.Neg(x)))


@rule(P.Tan("x"), opset=_FROM, fast_math=True, dtypes=_FLOAT)
def tan_to_sin_and_cos(op: Tape, x: ir.Value) -> Replacement:
    """Tan(x) -> Sin(x) / Cos(x), within 1e-6 of itself."""
    return op.Div(op.Sin(x), op.Cos(x))


@rule(P.Asinh("x"), opset=_FROM, fast_math=True, dtypes=_FLOAT)
def asinh_to_log(op: Tape, x: ir.Value) -> Replacement:
    """Asinh(x) -> Sign(x) * Log(|x| + Sqrt(x * x + 1)), within 1e-6."""
    size = op.Abs(x)
    root = op.Sqrt(op.Add(op.Mul(size, size), _number(op, x, 1.0)))
    return op.Mul(op.Sign(x), _log_of_sum(op, size, root))


@rule(P.Acosh("x"), opset=_FROM, fast_math=True, dtypes=_FLOAT)
def acosh_to_log(op: Tape, x: ir.Value) -> Replacement:
    """Acosh(x) -> Log(x + Sqrt(x - 1) * Sqrt(x + 1)), within 1e-6."""
    one = _number(op, x, 1.0)
    return _log_of_sum(op, x, op.Mul(op.Sqrt(op.Sub(x, one)), op.Sqrt(op.Add(x, one))))


@rule(P.Atanh("x"), opset=_FROM, fast_math=True, dtypes=_FLOAT)
def atanh_to_log(op: Tape, x: ir.Value) -> Replacement:
    """Atanh(x) -> Log((1 + x) / (1 - x)) / 2, within 1e-6."""
    one = _number(op, x, 1.0)
    quotient = op.Div(op.Add(one, x), op.Sub(one, x))
    return op.Mul(op.Log(quotient), _number(op, x, 0.5))


APPROXIMATE = RuleSet(
    (
        erf_to_exp,
        sinh_to_exp,
        cosh_to_exp,
        tan_to_sin_and_cos,
        asinh_to_log,
        acosh_to_log,
        atanh_to_log,
    )
)
"""Rules for a target that has none of the exact ones."""
