"""Activations in all their spellings as one operator."""

from __future__ import annotations

import math

from onnx_ir import DataType, Value

from vlmpass.ir_tools.operators.dtypes import holds_all
from vlmpass.ir_tools.rewrite import FloatAttr, P, Replacement, Tape, refuse, rule
from vlmpass.rewriter_rules.fuse.spellings import ORT, cube, product, scaled
from vlmpass.rewriter_rules.simplify.known import FLOATS

__all__ = ["ACTIVATIONS"]

X, HALF = P("x"), P(0.5)
FLOAT_X = {"x": FLOATS}
NARROW_X = {"x": FLOATS - {DataType.DOUBLE}}
"""For operators that hold their constants in float32."""


ERF = P.Erf(scaled(X, math.sqrt(0.5)))


@rule(
    product(HALF, X, ERF + 1.0) | P.Mul(X, ERF * 0.5 + 0.5) | P.Div(P.Mul(X, ERF + 1.0), 2.0),
    opset=(20, None),
    or_emits=ORT,
    dtypes=NARROW_X,
)
def gelu_erf(op: Tape, x: Value) -> Replacement:
    """0.5 * x * (1 + erf(x / sqrt 2)) -> Gelu(x)."""
    return op.Gelu(x, _domain=ORT if ORT in op.emits else "")


BENT = X + cube(X) * 0.044715
WEIGHED_SQUARE = P.Mul(P.Mul(X, X), 0.044715) | P.Mul(P.Mul(X, 0.044715), X)
UNROLLED = product(X, P(math.sqrt(2 / math.pi)), WEIGHED_SQUARE + 1.0)
TANH = P.Tanh(BENT * math.sqrt(2 / math.pi) | UNROLLED)


@rule(
    product(HALF, X, TANH + 1.0),
    opset=(20, None),
    or_emits=ORT,
    dtypes=NARROW_X,
)
def gelu_tanh(op: Tape, x: Value) -> Replacement:
    """0.5 * x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x ** 3))) -> Gelu(x, approximate=tanh)."""
    return op.FastGelu(x, _domain=ORT) if ORT in op.emits else op.Gelu(x, approximate="tanh")


@rule(
    P.Mul(X, P.Sigmoid(X)) | P.Mul(X, P.Sigmoid(P.Mul(X, "alpha"))),
    opset=(24, None),
    or_emits=ORT,
    dtypes=NARROW_X,
)
def swish(op: Tape, x: Value, alpha: FloatAttr | None) -> Replacement:
    """x * sigmoid(alpha * x) -> Swish(x, alpha), and QuickGelu(x, alpha) on ONNX Runtime."""
    operator, domain = ("QuickGelu", ORT) if ORT in op.emits else ("Swish", "")
    factor = 1.0 if alpha is None else alpha
    return op.node(operator, [x], {"alpha": factor}, domain=domain)[0]


EXP = P.Exp(P.Neg(X))


@rule(P.Reciprocal(EXP + 1.0) | P.Div(1.0, EXP + 1.0), dtypes=FLOAT_X)
def sigmoid(op: Tape, x: Value) -> Replacement:
    """1 / (1 + exp(-x)) -> Sigmoid(x)."""
    return op.Sigmoid(x)


@rule(P.Log(P.Exp(X) + 1.0), dtypes=FLOAT_X)
def softplus(op: Tape, x: Value) -> Replacement:
    """log(1 + exp(x)) -> Softplus(x), which does not overflow."""
    return op.Softplus(x)


@rule(P.Mul(X, P.Tanh(P.Softplus(X))), opset=(18, None), dtypes=FLOAT_X)
def mish(op: Tape, x: Value) -> Replacement:
    """x * tanh(softplus(x)) -> Mish(x)."""
    return op.Mish(x)


RAMP = P.Clip(X + 3.0, 0.0, 6.0)


@rule(
    P.Mul(X, P.HardSigmoid(X, alpha=1 / 6, beta=0.5))
    | P.Div(P.Mul(X, RAMP), 6.0)
    | P.Mul(X, P.Div(RAMP, 6.0)),
    opset=(14, None),
    dtypes=FLOAT_X,
)
def hard_swish(op: Tape, x: Value) -> Replacement:
    """x * clip(x + 3, 0, 6) / 6 -> HardSwish(x), and x * HardSigmoid(x)."""
    return op.HardSwish(x)


HIGHEST = P.ReduceMax(X, axes="axes")
POWERS = P.Exp(P.Sub(X, HIGHEST)) | P.Exp(X)


SUM = P.maybe.Cast(P.ReduceSum(P.maybe.Cast(POWERS, to="wide"), axes="axes"), to="narrow")


@rule(P.Div(POWERS, SUM), opset=(13, None), dtypes=FLOAT_X)
def softmax(
    op: Tape,
    x: Value,
    axes: tuple[int, ...],
    wide: DataType | None,
    narrow: DataType | None,
) -> Replacement:
    """exp(x - max(x)) / sum(exp(x - max(x))) -> Softmax(x), and without the maximum."""
    if len(axes) != 1:
        return refuse("it is normalised over the axes {}", axes)
    if wide is not None and not holds_all(wide, x.dtype):
        return refuse("the sum of {} is computed as {}", x.dtype, wide)
    return op.Softmax(x, axis=axes[0])


@rule(P.Log(P.Softmax(X, axis="axis")), opset=(13, None), dtypes=FLOAT_X)
def log_softmax(op: Tape, x: Value, axis: int) -> Replacement:
    """log(Softmax(x)) -> LogSoftmax(x), which loses no small probability."""
    return op.LogSoftmax(x, axis=axis)


ACTIVATIONS = (
    gelu_erf + gelu_tanh + swish + sigmoid + softplus + mish + hard_swish + softmax + log_softmax
)
